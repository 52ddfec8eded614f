//! One machine of the rack, and what can be done to it.

mod qemu;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;

use crate::cache::Lost;
use crate::control::{Control, Said};
use crate::drive::{Drive, DrivePlan, Fault};
use crate::image::Image;
use crate::qmp::{self, Qmp};
use crate::wait;

use qemu::slot_name;

/// Slots for drives that every machine has beyond those it starts with.
const SPARE_SLOTS: usize = 2;
/// Memory of a machine, in MiB.
const MEMORY_MIB: u32 = 640;
/// Port of every machine that the host reaches, as [`Guest::service`] says.
pub const SERVICE: u16 = 9100;
/// Longest that a machine may take to come up, on a busy host.
const BOOT: Duration = Duration::from_secs(180);
/// Longest that a script may take where nothing else is said.
const SCRIPT: Duration = Duration::from_secs(120);

/// One machine of the rack.
pub struct Guest {
    name: String,
    /// Its port at the switch.
    port: usize,
    /// Its own directory: sockets, logs, drives.
    dir: PathBuf,
    rack: PathBuf,
    image: Image,
    /// By slot.
    slots: Vec<Option<Drive>>,
    running: Option<Running>,
    /// Port of the host's that leads to [`SERVICE`].
    service: u16,
}

/// What a machine has while its power is on.
struct Running {
    machine: Machine,
    qmp: Qmp,
    control: Control,
}

/// The QEMU process; killed and waited for when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    /// A machine whose power is off.
    pub(crate) fn new(
        rack: &Path,
        image: Image,
        port: usize,
        drives: &[DrivePlan],
    ) -> Result<Self> {
        let name = format!("guest-{}", port + 1);
        let dir = rack.join(&name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut slots = Vec::new();
        for plan in drives {
            let drive =
                Drive::make(&dir, plan).with_context(|| format!("drive {}", plan.serial))?;
            slots.push(Some(drive));
        }
        slots.resize(drives.len() + SPARE_SLOTS, None);
        // One that was free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Self {
            name,
            port,
            dir,
            rack: rack.to_owned(),
            image,
            slots,
            running: None,
            service: free.port(),
        })
    }

    /// Its name, which is also its host name and that of its Node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the network between the guests.
    pub fn address(&self) -> String {
        format!("10.77.0.{}", self.port + 1)
    }

    /// Where the host reaches what listens at [`SERVICE`] in the machine.
    pub fn service(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.service).into()
    }

    /// The drive with this serial number, as the host has it.
    ///
    /// # Errors
    /// When none in its slots has it.
    pub fn drive(&self, serial: &str) -> Result<&Drive> {
        self.slot_of(serial).map(|(_, drive)| drive)
    }

    /// What it and its programs have written, by file.
    pub(crate) fn logs(&self) -> [PathBuf; 3] {
        ["console.log", "programs.log", "qemu.log"].map(|name| self.dir.join(name))
    }

    /// Turns the power on and waits until the machine has come up.
    ///
    /// # Errors
    /// When QEMU does not start, or the machine does not come up.
    pub async fn power_on(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} runs already", self.name);
        for socket in ["control", "qmp"] {
            // What a machine that was killed has left; none where it is the first time.
            let _ = fs::remove_file(self.dir.join(socket));
        }
        for drive in self.slots.iter().flatten() {
            drive.begin()?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("qemu.log"))?;
        let child = Command::new("nice")
            // A test that is killed takes its machines with it.
            .args([
                "-n",
                "10",
                "setpriv",
                "--pdeathsig",
                "KILL",
                "qemu-system-x86_64",
            ])
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("QEMU cannot be started; scripts/install-rack-tools brings it")?;
        let mut machine = Machine(child);
        let mut alive = || match machine.0.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let said = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
                Err(anyhow!("QEMU of {} ended: {status}; {said}", self.name))
            }
        };
        let control = Control::start(qmp::connect(&self.dir.join("control"), &mut alive).await?);
        let stream = qmp::connect(&self.dir.join("qmp"), &mut alive).await?;
        let qmp = Qmp::start(stream).await?;
        let came_up = control.up(BOOT).await;
        came_up.with_context(|| format!("{}; its console: {}", self.name, self.console()))?;
        self.running = Some(Running {
            machine,
            qmp,
            control,
        });
        Ok(())
    }

    /// Pulls the power cord: the machine is gone at once, with all it held in memory. What the guest had handed to its drives is
    /// in the host's page cache and stays, flushed or not.
    pub fn cut_power(&mut self) {
        self.running = None;
    }

    /// Pulls the power cord, and all drives that have a write cache lose what is in it: writes that no flush has covered are there, gone or
    /// torn, as `seed` has it.
    ///
    /// # Errors
    /// When a drive's content cannot be made anew.
    pub fn lose_power(&mut self, seed: u64) -> Result<Vec<Lost>> {
        self.cut_power();
        let drives = self.slots.iter().flatten();
        let lost = drives.filter_map(|drive| drive.lose(seed).transpose());
        lost.collect()
    }

    /// Reboots the machine in order, and waits until it has come up again.
    ///
    /// # Errors
    /// When it does not go down or come up.
    pub async fn reboot(&mut self) -> Result<()> {
        let running = self.running_mut()?;
        // The channel goes down with the machine, mostly before it could answer.
        let _ = running
            .control
            .run("sync; reboot -f", b"", Duration::from_secs(30))
            .await;
        for _ in 0..600 {
            // QEMU runs with -no-reboot.
            if running.machine.0.try_wait()?.is_some() {
                self.running = None;
                return self.power_on().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{} does not go down", self.name)
    }

    /// Stops the machine's clock and everything else in it.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&mut self) -> Result<()> {
        self.running_mut()?.qmp.execute("stop", json!({})).await?;
        Ok(())
    }

    /// Lets a paused machine go on.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn go_on(&mut self) -> Result<()> {
        self.running_mut()?.qmp.execute("cont", json!({})).await?;
        Ok(())
    }

    /// Unplugs one of its two cables or plugs it in again; the guest sees its carrier go and come.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn cable(&mut self, cable: Cable, plugged: bool) -> Result<()> {
        let arguments = json!({"name": cable.device(), "up": plugged});
        self.running_mut()?
            .qmp
            .execute("set_link", arguments)
            .await?;
        Ok(())
    }

    /// Pulls a drive out of the running machine, and waits until the guest has let go of it. Its bytes stay for
    /// [`plug_in`](Self::plug_in).
    ///
    /// # Errors
    /// When there is no such drive, or the guest does not let go.
    pub async fn pull(&mut self, serial: &str) -> Result<()> {
        let (slot, drive) = self.slot_of(serial)?;
        let (device, nodes) = (drive.device(), drive.nodes());
        let qmp = &mut self.running_mut()?.qmp;
        qmp.execute("device_del", json!({"id": device})).await?;
        qmp.event("DEVICE_DELETED", &device, Duration::from_secs(60))
            .await?;
        for node in nodes.iter().rev() {
            qmp.execute("blockdev-del", json!({"node-name": node["node-name"]}))
                .await?;
        }
        self.slots[slot] = None;
        Ok(())
    }

    /// Plugs a drive into a free slot of the running machine: a new one, or one that was pulled out, with its bytes.
    ///
    /// # Errors
    /// When no slot is free, or QEMU refuses.
    pub async fn plug_in(&mut self, plan: &DrivePlan) -> Result<()> {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.with_context(|| format!("{} has no free slot", self.name))?;
        let drive = Drive::make(&self.dir, plan)?;
        drive.begin()?;
        let qmp = &mut self.running_mut()?.qmp;
        for node in drive.nodes() {
            qmp.execute("blockdev-add", node).await?;
        }
        qmp.execute("device_add", drive.device_options(&slot_name(slot)))
            .await?;
        self.slots[slot] = Some(drive);
        Ok(())
    }

    /// Has a drive answer with errors.
    ///
    /// # Errors
    /// When there is no such drive, or it was spoilt already.
    pub async fn spoil(&mut self, serial: &str, fault: Fault) -> Result<()> {
        let drive = self.drive(serial)?.clone();
        let qmp = &mut self.running_mut()?.qmp;
        qmp.execute("blockdev-add", drive.faulty_options(fault))
            .await?;
        let anew = json!({"options": [drive.medium_options(&drive.faulty_node())]});
        qmp.execute("blockdev-reopen", anew).await?;
        Ok(())
    }

    /// Makes a spoilt drive whole again.
    ///
    /// # Errors
    /// When there is no such drive, or it was not spoilt.
    pub async fn mend(&mut self, serial: &str) -> Result<()> {
        let drive = self.drive(serial)?.clone();
        let qmp = &mut self.running_mut()?.qmp;
        let anew = json!({"options": [drive.medium_options(&drive.lowest())]});
        qmp.execute("blockdev-reopen", anew).await?;
        qmp.execute("blockdev-del", json!({"node-name": drive.faulty_node()}))
            .await?;
        Ok(())
    }

    /// Sets the critical warning of a drive's SMART log (NVM Express base specification, log page 02h, byte 0).
    ///
    /// # Errors
    /// When there is no such drive.
    pub async fn warn(&mut self, serial: &str, critical_warning: u8) -> Result<()> {
        let device = self.drive(serial)?.device();
        let arguments = json!({
            "path": format!("/machine/peripheral/{device}"),
            "property": "smart_critical_warning", "value": critical_warning,
        });
        self.running_mut()?
            .qmp
            .execute("qom-set", arguments)
            .await?;
        Ok(())
    }

    /// Runs a shell script in the machine, and waits for its end.
    ///
    /// # Errors
    /// When the machine ends, or the script takes longer than two minutes. How the script ended is in what is returned.
    pub async fn run(&self, script: &str) -> Result<Said> {
        self.feed(script, b"").await
    }

    /// The same, with standard input.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn feed(&self, script: &str, input: &[u8]) -> Result<Said> {
        let running = self.running.as_ref();
        let running = running.with_context(|| format!("the power of {} is off", self.name))?;
        let said = running.control.run(script, input, SCRIPT).await;
        said.with_context(|| self.name.clone())
    }

    /// Runs a script that must succeed, and returns what it wrote.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when the script fails.
    pub async fn sh(&self, script: &str) -> Result<String> {
        let said = self.run(script).await?;
        ensure!(said.status == 0, "{}: `{script}`: {said}", self.name);
        Ok(said.text())
    }

    /// Writes a file in the machine; directories are made.
    ///
    /// # Errors
    /// As [`sh`](Self::sh).
    pub async fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let script = format!("mkdir -p \"$(dirname '{path}')\" && cat >'{path}'");
        let said = self.feed(&script, content).await?;
        ensure!(said.status == 0, "{}: writing {path}: {said}", self.name);
        Ok(())
    }

    /// Starts a program that goes on by itself; what it writes goes to `programs.log`. Returns its process id.
    ///
    /// # Errors
    /// As [`sh`](Self::sh).
    pub async fn start(&self, command: &str) -> Result<u32> {
        // The serial line is a terminal: without a session of its own the program would be tied to it.
        let script = format!("setsid {command} </dev/null >/dev/ttyS1 2>&1 & echo $!");
        let pid = self.sh(&script).await?;
        pid.parse()
            .with_context(|| format!("{pid:?} is no process id"))
    }

    /// Waits until a script succeeds, and returns what it wrote.
    ///
    /// # Errors
    /// What it came to last, when it does not within `bound`.
    pub async fn until(&self, what: &str, bound: Duration, script: &str) -> Result<String> {
        let what = format!("{}: {what}", self.name);
        wait::until(&what, bound, || async {
            match self.run(script).await {
                Ok(said) if said.status == 0 => Ok(said.text()),
                Ok(said) => Err(said.to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// Name of the device, such as `nvme0n1`, under which the machine's kernel has a drive now.
    ///
    /// # Errors
    /// When it has none with this serial number.
    pub async fn device(&self, serial: &str) -> Result<String> {
        let script = format!(
            "for d in /sys/block/nvme*; do \
             [ \"$(tr -d ' ' <$d/device/serial 2>/dev/null)\" = {serial} ] && basename $d; done; true"
        );
        let name = self.sh(&script).await?;
        ensure!(!name.is_empty(), "{} sees no drive {serial}", self.name);
        Ok(name)
    }

    fn slot_of(&self, serial: &str) -> Result<(usize, &Drive)> {
        let mut drives = self.slots.iter().enumerate();
        drives
            .find_map(|(slot, drive)| {
                let drive = drive.as_ref().filter(|drive| drive.serial == serial)?;
                Some((slot, drive))
            })
            .with_context(|| format!("{} has no drive {serial}", self.name))
    }

    fn running_mut(&mut self) -> Result<&mut Running> {
        let name = &self.name;
        self.running
            .as_mut()
            .with_context(|| format!("the power of {name} is off"))
    }

    fn console(&self) -> String {
        let whole = fs::read_to_string(self.dir.join("console.log")).unwrap_or_default();
        let from = whole.len().saturating_sub(2000);
        whole.get(from..).unwrap_or(&whole).to_owned()
    }
}

/// One of a machine's two cables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// To the host, and with it to the API server.
    Host,
    /// To the other guests.
    Rack,
}

impl Cable {
    fn device(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Rack => "rack",
        }
    }
}

//! NVMe drives as sysfs and their controllers show them, on fixture trees: nothing else can show PCIe, fabrics, clouds and
//! multipath on a machine without them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvme_cli_sys::{nvme_id_ctrl, nvme_id_ns, nvme_smart_log};
use strand_placement::carve::{MIB, Role, Split};
use strand_placement::verdict::{Health, KnownPools, Observation, Transport, Verdict, judge};
use tempfile::TempDir;
use uuid::Uuid;

use crate::ioctl::NVME_PAGE;
use crate::nvme::{NvmeAdmin, Page};
use crate::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, HostConfig, KernelHost, Resumed, Roots,
    SeenDrive, WatchTimes,
};

const SIZE: u64 = 96 * MIB;

/// What the fake controllers answer, by the inode of the file that stands for the device node.
#[derive(Clone, Default)]
struct FakeNvme(Arc<Mutex<BTreeMap<u64, Controller>>>);

#[derive(Clone)]
struct Controller {
    namespace: u32,
    controller: Page,
    space: Page,
    smart: Option<Page>,
}

impl FakeNvme {
    fn of<T>(
        &self,
        device: &File,
        answer: impl FnOnce(&Controller) -> io::Result<T>,
    ) -> io::Result<T> {
        answer(
            self.0
                .lock()
                .unwrap()
                .get(&device.metadata()?.ino())
                .ok_or(io::ErrorKind::NotFound)?,
        )
    }
}

impl NvmeAdmin for FakeNvme {
    fn namespace_id(&self, device: &File) -> io::Result<u32> {
        self.of(device, |controller| Ok(controller.namespace))
    }

    fn identify_controller(&self, device: &File) -> io::Result<Page> {
        self.of(device, |controller| Ok(controller.controller.clone()))
    }

    fn identify_namespace(&self, device: &File, _: u32) -> io::Result<Page> {
        self.of(device, |controller| Ok(controller.space.clone()))
    }

    fn smart_log(&self, device: &File) -> io::Result<Page> {
        self.of(device, |controller| {
            controller
                .smart
                .clone()
                .ok_or(io::ErrorKind::PermissionDenied.into())
        })
    }
}

/// A machine in a directory.
struct Machine {
    directory: TempDir,
    fake: FakeNvme,
}

/// One drive of it, before it is plugged in.
struct Plug {
    name: &'static str,
    model: &'static str,
    serial: &'static str,
    transport: &'static str,
    /// Controllers under a multipath subsystem; none for a plain namespace.
    paths: &'static [&'static str],
    /// Bytes of pages to set: (page, offset, value).
    set: &'static [(Which, usize, u8)],
}

#[derive(Clone, Copy)]
enum Which {
    Controller,
    Space,
    Smart,
    NoSmart,
}

const PLAIN: Plug = Plug {
    name: "nvme0n1",
    model: "ACME 7 TB",
    serial: "S1",
    transport: "pcie",
    paths: &[],
    set: &[],
};

impl Machine {
    fn new() -> Machine {
        let machine = Machine {
            directory: tempfile::tempdir().unwrap(),
            fake: FakeNvme::default(),
        };
        for directory in [
            "sys/class/block",
            "dev",
            "proc/1/fd",
            "proc/1/ns",
            "kubelet",
        ] {
            fs::create_dir_all(machine.path(directory)).unwrap();
        }
        machine.write("proc/swaps", "Filename Type Size Used Priority\n");
        machine.write("proc/1/mountinfo", "");
        machine.write("proc/1/comm", "init");
        symlink("mnt:[1]", machine.path("proc/1/ns/mnt")).unwrap();
        machine
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: impl AsRef<Path>, text: &str) {
        fs::create_dir_all(self.path(&path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn plug(&self, plug: &Plug) -> PathBuf {
        let device = self.path(format!("dev/{}", plug.name));
        let file = File::create(&device).unwrap();
        file.set_len(SIZE).unwrap();
        let block = format!("sys/class/block/{}", plug.name);
        for (name, value) in [
            ("size", (SIZE / 512).to_string()),
            ("dev", "259:1".into()),
            ("ro", "0".into()),
            ("nsid", "1".into()),
            ("wwid", "eui.0011".into()),
            ("stat", "1 0 8 0 0 0 0 0 0 0 0 0 0 0 0 0 0".into()),
            ("queue/logical_block_size", "512".into()),
            ("queue/minimum_io_size", "4096".into()),
            ("queue/optimal_io_size", "131072".into()),
        ] {
            self.write(format!("{block}/{name}"), &value);
        }
        let identity = |directory: &str| {
            self.write(
                format!("{directory}/model"),
                &format!("{:<40}\n", plug.model),
            );
            self.write(
                format!("{directory}/serial"),
                &format!("{:<20}\n", plug.serial),
            );
            self.write(format!("{directory}/firmware_rev"), "FW1     \n");
        };
        let controller = |directory: &str| {
            self.write(format!("{directory}/transport"), plug.transport);
            self.write(format!("{directory}/address"), "0000:c1:00.0");
            self.write(format!("{directory}/numa_node"), "1");
        };
        let owner = if plug.paths.is_empty() {
            let owner = "sys/devices/nvme0".to_owned();
            controller(&owner);
            owner
        } else {
            let owner = "sys/devices/nvme-subsys0".to_owned();
            plug.paths
                .iter()
                .for_each(|path| controller(&format!("{owner}/{path}")));
            owner
        };
        identity(&owner);
        symlink(self.path(&owner), self.path(format!("{block}/device"))).unwrap();

        let page = || Box::new([0; NVME_PAGE]);
        let mut answers = Controller {
            namespace: 1,
            controller: page(),
            space: page(),
            smart: Some(page()),
        };
        let put = |page: &mut Page, at: usize, text: &str, len: usize| {
            page[at..at + len].copy_from_slice(format!("{text:<len$}").as_bytes());
        };
        put(
            &mut answers.controller,
            offset_of!(nvme_id_ctrl, mn),
            plug.model,
            40,
        );
        put(
            &mut answers.controller,
            offset_of!(nvme_id_ctrl, sn),
            plug.serial,
            20,
        );
        for (which, at, value) in plug.set {
            match which {
                Which::Controller => answers.controller[*at] = *value,
                Which::Space => answers.space[*at] = *value,
                Which::Smart => answers.smart.as_mut().unwrap()[*at] = *value,
                Which::NoSmart => answers.smart = None,
            }
        }
        self.fake
            .0
            .lock()
            .unwrap()
            .insert(file.metadata().unwrap().ino(), answers);
        device
    }

    fn host(&self) -> KernelHost {
        let config = HostConfig {
            nvme: true,
            stand_ins: Vec::new(),
            roots: Roots {
                sys: self.path("sys"),
                dev: self.path("dev"),
                proc: self.path("proc"),
                kubelet: self.path("kubelet"),
            },
            watch: WatchTimes {
                nvme: Duration::from_millis(1),
                stand_in: Duration::from_millis(1),
            },
        };
        KernelHost::with_nvme(config, Box::new(self.fake.clone()))
    }
}

fn only(host: &KernelHost) -> SeenDrive {
    let drives = host.scan().unwrap();
    assert_eq!(drives.len(), 1, "{drives:?}");
    drives[0].clone()
}

/// Two looks at a drive, far enough apart to have watched it.
fn watched(host: &KernelHost, drive: &SeenDrive) -> Observation {
    let mut seen = host.observe(drive, None).unwrap();
    while seen.watch.remaining_ms() > 0 && seen.watch.changed.is_none() {
        seen = host.observe(drive, Some(&seen)).unwrap();
    }
    seen
}

/// The codes of what speaks against the only drive of a machine, whose bytes stay as they are.
async fn codes(plug: Plug) -> (Verdict, Vec<&'static str>) {
    let machine = Machine::new();
    let device = machine.plug(&plug);
    let before = fs::read(&device).unwrap();
    let host = machine.host();
    let drive = only(&host);
    let seen = watched(&host, &drive);
    let finding = judge(&seen, &KnownPools::default());
    if finding.verdict != Verdict::Stranded {
        let refused = host.adopt(&drive, &seen, &order()).unwrap_err();
        assert!(
            matches!(refused, DriveError::NotStranded { .. }),
            "{refused}"
        );
    }
    assert!(
        before == fs::read(&device).unwrap(),
        "looking at a drive changed it"
    );
    (
        finding.verdict,
        finding.reasons.iter().map(|reason| reason.code()).collect(),
    )
}

fn order() -> CarveOrder {
    CarveOrder {
        pool_id: Uuid::from_u128(7),
        pool_name: "rack".into(),
        drive_id: Uuid::from_u128(9),
        split: Split {
            context_bytes: 40 * MIB,
        },
    }
}

#[tokio::test]
async fn a_plain_drive_is_described_and_stranded() {
    let machine = Machine::new();
    machine.plug(&PLAIN);
    // Neither partitions, hidden paths nor other devices are drives.
    for name in ["nvme0n1p1", "nvme0c0n1", "sda", "ng0n1"] {
        fs::create_dir_all(machine.path(format!("sys/class/block/{name}"))).unwrap();
    }
    let drive = only(&machine.host());
    assert_eq!(
        (
            drive.key.model.as_str(),
            drive.key.serial.as_str(),
            drive.key.namespace
        ),
        ("ACME 7 TB", "S1", 1)
    );
    assert_eq!(
        (
            drive.geometry.size,
            drive.geometry.logical_block,
            drive.geometry.optimal_write
        ),
        (SIZE, 512, 131_072)
    );
    assert_eq!(
        (drive.transport, drive.numa_node),
        (Transport::Pcie, Some(1))
    );
    assert_eq!(
        (
            drive.pci_address.as_deref(),
            drive.firmware.as_deref(),
            drive.wwid.as_deref()
        ),
        (Some("0000:c1:00.0"), Some("FW1"), Some("eui.0011"))
    );
    assert_eq!(codes(PLAIN).await, (Verdict::Stranded, vec![]));
}

#[tokio::test]
async fn fabrics_clouds_and_shared_drives_are_not_taken() {
    const NMIC: (Which, usize, u8) = (Which::Space, offset_of!(nvme_id_ns, nmic), 1);
    const CMIC: (Which, usize, u8) = (Which::Controller, offset_of!(nvme_id_ctrl, cmic), 0b10);
    let foreign = |code| (Verdict::Foreign, vec![code]);
    assert_eq!(
        codes(Plug {
            transport: "tcp",
            ..PLAIN
        })
        .await,
        foreign("FabricVolume")
    );
    assert_eq!(
        codes(Plug {
            transport: "apple",
            ..PLAIN
        })
        .await,
        foreign("UnknownTransport")
    );
    assert_eq!(
        codes(Plug {
            model: "Amazon Elastic Block Store",
            ..PLAIN
        })
        .await,
        foreign("CloudVolume")
    );
    assert_eq!(
        codes(Plug {
            model: "nvme_card-pd",
            ..PLAIN
        })
        .await,
        foreign("CloudVolume")
    );
    assert_eq!(
        codes(Plug {
            model: "MSFT NVMe Accelerator v1.0",
            ..PLAIN
        })
        .await,
        foreign("CloudVolume")
    );
    for local in [
        "Amazon EC2 NVMe Instance Storage",
        "nvme_card",
        "Microsoft NVMe Direct Disk v2",
    ] {
        assert_eq!(
            codes(Plug {
                model: local,
                ..PLAIN
            })
            .await
            .0,
            Verdict::Stranded,
            "{local}"
        );
    }
    assert_eq!(
        codes(Plug {
            set: &[NMIC, CMIC],
            ..PLAIN
        })
        .await,
        foreign("SharedBetweenControllers")
    );
    assert_eq!(
        codes(Plug {
            set: &[NMIC],
            ..PLAIN
        })
        .await
        .0,
        Verdict::Stranded,
        "one controller has nobody to share with"
    );
    assert_eq!(
        codes(Plug {
            paths: &["nvme0", "nvme1"],
            ..PLAIN
        })
        .await,
        foreign("SharedBetweenControllers")
    );
    assert_eq!(
        codes(Plug {
            paths: &["nvme0"],
            ..PLAIN
        })
        .await
        .0,
        Verdict::Stranded,
        "multipath with one path"
    );
}

#[tokio::test]
async fn health_and_write_protection_count() {
    const WARNING: usize = offset_of!(nvme_smart_log, critical_warning);
    const USED: usize = offset_of!(nvme_smart_log, percent_used);
    assert_eq!(
        codes(Plug {
            set: &[(Which::Smart, WARNING, 1 << 3)],
            ..PLAIN
        })
        .await,
        (Verdict::Failed, vec!["FailingHealth"])
    );
    assert_eq!(
        codes(Plug {
            set: &[(Which::Smart, USED, 101)],
            ..PLAIN
        })
        .await,
        (Verdict::Foreign, vec!["WornOut"])
    );
    assert_eq!(
        codes(Plug {
            set: &[(Which::NoSmart, 0, 0)],
            ..PLAIN
        })
        .await,
        (Verdict::Foreign, vec!["HealthUnknown"])
    );
    let protected = Plug {
        set: &[(Which::Space, offset_of!(nvme_id_ns, nsattr), 1)],
        ..PLAIN
    };
    assert_eq!(codes(protected).await, (Verdict::Failed, vec!["ReadOnly"]));
}

#[tokio::test]
async fn the_smart_log_is_read_with_its_units() {
    let machine = Machine::new();
    machine.plug(&Plug {
        set: &[
            (Which::Smart, offset_of!(nvme_smart_log, temperature), 0x2C),
            (
                Which::Smart,
                offset_of!(nvme_smart_log, temperature) + 1,
                0x01,
            ),
            (Which::Smart, offset_of!(nvme_smart_log, avail_spare), 97),
            (
                Which::Smart,
                offset_of!(nvme_smart_log, data_units_written),
                3,
            ),
        ],
        ..PLAIN
    });
    let host = machine.host();
    let Health::Smart(smart) = host.health(&only(&host)) else {
        panic!("a SMART log")
    };
    assert_eq!(
        (
            smart.temperature_celsius,
            smart.spare_percent,
            smart.written_bytes
        ),
        (27, 97, 3 * 512_000)
    );
}

#[tokio::test]
async fn deallocated_blocks_may_read_as_ones_where_the_drive_says_so() {
    let dlfeat = offset_of!(nvme_id_ns, dlfeat);
    for (says, verdict) in [(0b010, Verdict::Stranded), (0b001, Verdict::Foreign)] {
        let machine = Machine::new();
        let device = machine.plug(&PLAIN);
        let file = File::options().write(true).open(&device).unwrap();
        file.write_all_at(&[0xFF; 4096], 20 * 4096).unwrap();
        machine
            .fake
            .0
            .lock()
            .unwrap()
            .get_mut(&file.metadata().unwrap().ino())
            .unwrap()
            .space[dlfeat] = says;
        drop(file);
        let host = machine.host();
        assert_eq!(
            judge(&watched(&host, &only(&host)), &KnownPools::default()).verdict,
            verdict
        );
    }
}

#[tokio::test]
async fn uses_that_the_kernel_shows_are_all_found() {
    let machine = Machine::new();
    let device = machine.plug(&PLAIN);
    let block = "sys/class/block/nvme0n1";
    for (name, value) in [
        ("partition", "1"),
        ("start", "2048"),
        ("size", "2048"),
        ("dev", "259:2"),
    ] {
        machine.write(format!("{block}/nvme0n1p1/{name}"), value);
    }
    machine.write("sys/class/block/nvme0n1p1/holders/dm-0/x", "");
    machine.write(format!("{block}/holders/md127/x"), "");
    machine.write(
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/nvme0n1p1 partition 1 0 -2\n",
    );
    machine.write(
        "proc/1/mountinfo",
        "36 35 259:2 / /srv/a\\040b rw - ext4 /dev/nvme0n1p1 rw\n37 35 0:44 / /pool rw - btrfs /dev/nvme0n1 rw\n\
         38 35 0:6 /nvme0n1 /pods/x rw - devtmpfs devtmpfs rw\n39 35 8:1 / / rw - ext4 /dev/sda1 rw\n",
    );
    let host = machine.host();
    let seen = watched(&host, &only(&host));
    let finding = judge(&seen, &KnownPools::default());
    let told: Vec<String> = finding
        .reasons
        .iter()
        .map(|reason| reason.to_string())
        .collect();
    let all = told.join("\n");
    for part in [
        "/srv/a b",
        "/pool",
        "/pods/x",
        "/dev/dm-0",
        "/dev/md127",
        "swapoff",
        "kernel's (nvme0n1p1) partition table",
    ] {
        assert!(all.contains(part), "{part} is missing in\n{all}");
    }
    assert_eq!(finding.verdict, Verdict::InUse);
    drop(device);
}

#[tokio::test]
async fn a_renamed_drive_is_never_hit() {
    let machine = Machine::new();
    let first = machine.plug(&PLAIN);
    let host = machine.host();
    let drive = only(&host);
    let seen = watched(&host, &drive);
    // The name now leads to another controller's namespace, just as blank.
    let other = machine.path("dev/other");
    File::create(&other).unwrap().set_len(SIZE).unwrap();
    let mut answers = machine
        .fake
        .0
        .lock()
        .unwrap()
        .values()
        .next()
        .unwrap()
        .clone();
    answers.controller[offset_of!(nvme_id_ctrl, sn)] = b'X';
    machine
        .fake
        .0
        .lock()
        .unwrap()
        .insert(other.metadata().unwrap().ino(), answers);
    fs::rename(&other, &first).unwrap();
    let refused = host.adopt(&drive, &seen, &order()).unwrap_err();
    assert!(
        matches!(refused, DriveError::IdentityChanged { .. }),
        "{refused}"
    );
    assert!(
        fs::read(&first).unwrap().iter().all(|byte| *byte == 0),
        "the other drive was written to"
    );
}

#[tokio::test]
async fn a_drive_is_taken_resumed_and_given_back() {
    let machine = Machine::new();
    let device = machine.plug(&PLAIN);
    let host = machine.host();
    let drive = only(&host);
    let owned = host
        .adopt(&drive, &watched(&host, &drive), &order())
        .unwrap();
    assert_eq!(owned.partition(Role::Context).unwrap().extent.len, 40 * MIB);
    let pools = KnownPools([(order().pool_id, "rack".to_owned())].into());
    assert_eq!(
        host.resume(&drive, &pools).unwrap(),
        Resumed::Owned(owned.clone())
    );
    assert_eq!(
        judge(&host.observe(&drive, None).unwrap(), &pools).verdict,
        Verdict::Pooled
    );
    host.release(&owned, DataOnRelease::Erase).unwrap();
    assert!(fs::read(&device).unwrap().iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_leg_of_a_volume_on_another_node_is_no_drive() {
    let machine = Machine::new();
    machine.plug(&Plug {
        transport: "tcp",
        paths: &["nvme3"],
        ..PLAIN
    });
    let host = machine.host();
    let nqn = "sys/devices/nvme-subsys0/subsysnqn";
    machine.write(nqn, "nqn.2014-08.org.nvmexpress:uuid:1\n");
    assert_eq!(host.scan().unwrap().len(), 1);
    let leg = "nqn.2024-01.dev.strand:leg:00000000-0000-0000-0000-000000000001:7\n";
    machine.write(nqn, leg);
    assert_eq!(host.scan().unwrap(), vec![]);
}

#[tokio::test]
async fn two_devices_of_one_identity_are_both_left_out() {
    let machine = Machine::new();
    machine.plug(&PLAIN);
    let second = "sys/class/block/nvme1n1";
    fs::create_dir_all(machine.path(second)).unwrap();
    for entry in fs::read_dir(machine.path("sys/class/block/nvme0n1"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_file())
    {
        fs::copy(entry.path(), machine.path(second).join(entry.file_name())).unwrap();
    }
    symlink(
        machine.path("sys/devices/nvme0"),
        machine.path(format!("{second}/device")),
    )
    .unwrap();
    assert_eq!(machine.host().scan().unwrap(), vec![]);
}

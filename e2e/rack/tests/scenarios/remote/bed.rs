//! A rack with one volume, asked for as the CSI driver asks: wishes in `spec.attachTo`, and devices from the agents' sockets.

use std::time::Duration;

use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use strand_api::{AttachmentPhase, DrivePhase, PoolLeg, PoolVolume, VolumePhase};
use strand_rack_bed::{Cluster, DrivePlan, Guest, Rack, wait};

pub const SOON: Duration = Duration::from_secs(180);
pub const ADOPTION: Duration = Duration::from_secs(300);
pub const VOLUME: &str = "v";
/// Files that a writer keeps; older ones it deletes.
const KEPT: u32 = 400;
/// Where the bytes of every volume here lie, unless the scenario wants it otherwise: the machine with a drive.
pub const HOLDER: usize = 0;

/// A volume on a machine that has it, mounted at `/mnt/NAME`; what is kept of its writing is in `/run/NAME.*`.
#[derive(Clone, Copy)]
pub struct Use<'a> {
    pub guest: &'a Guest,
    pub volume: &'a str,
}

impl<'a> From<&'a Guest> for Use<'a> {
    fn from(guest: &'a Guest) -> Self {
        let volume = VOLUME;
        Self { guest, volume }
    }
}

/// Machines of which the first alone has a drive, in the pool `default`; each with an agent.
pub async fn pool_on(name: &str, machines: usize, bytes: u64, pool: Value) -> (Rack, Cluster) {
    let mut plans = vec![vec![DrivePlan {
        bytes,
        ..DrivePlan::new("G1D0")
    }]];
    plans.resize(machines, Vec::new());
    pool_of(name, &plans, pool).await
}

/// Machines with these drives, all in the pool `default`; each with an agent.
pub async fn pool_of(name: &str, plans: &[Vec<DrivePlan>], pool: Value) -> (Rack, Cluster) {
    let rack = Rack::boot(name, plans).await.unwrap();
    let cluster = Cluster::start(&rack).await.unwrap();
    let mut spec = json!({"drives": {"models": ["*"]}, "carve": {"contextMemory": "20%"}});
    spec.as_object_mut()
        .unwrap()
        .extend(pool.as_object().cloned().unwrap_or_default());
    cluster.pool("default", spec).await.unwrap();
    for guest in rack.guests() {
        cluster.start_agent_with_volumes(guest).await.unwrap();
    }
    let ready = |drive: &strand_api::Drive| {
        drive.status.as_ref().and_then(|s| s.phase) == Some(DrivePhase::Ready)
    };
    let all: usize = plans.iter().map(Vec::len).sum();
    cluster
        .drives("all drives are Ready", ADOPTION, |drives| {
            drives.len() == all && drives.iter().all(ready)
        })
        .await
        .unwrap();
    (rack, cluster)
}

/// The same, with a volume on that drive.
pub async fn rack(name: &str, machines: usize, pool: Value) -> (Rack, Cluster) {
    let (rack, cluster) = pool_on(name, machines, 2 << 30, pool).await;
    let volume = serde_json::from_value(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolVolume", "metadata": {"name": VOLUME},
        "spec": {"pool": "default", "size": "512Mi", "volumeMode": "Filesystem"},
    }));
    volumes(&cluster)
        .create(&PostParams::default(), &volume.unwrap())
        .await
        .unwrap();
    until(&cluster, "the volume is Ready", |volume, _| {
        volume.status.as_ref().and_then(|s| s.phase) == Some(VolumePhase::Ready)
    })
    .await;
    (rack, cluster)
}

pub fn volumes(cluster: &Cluster) -> Api<PoolVolume> {
    Api::all(cluster.client().clone())
}

fn legs(cluster: &Cluster) -> Api<PoolLeg> {
    Api::all(cluster.client().clone())
}

/// Waits until the volume and its leg are so.
pub async fn until(
    cluster: &Cluster,
    what: &str,
    look: impl Fn(&PoolVolume, &PoolLeg) -> bool,
) -> (PoolVolume, PoolLeg) {
    until_of(cluster, VOLUME, what, look).await
}

async fn until_of(
    cluster: &Cluster,
    volume: &str,
    what: &str,
    look: impl Fn(&PoolVolume, &PoolLeg) -> bool,
) -> (PoolVolume, PoolLeg) {
    wait::until(what, SOON, || async {
        let volume = volumes(cluster)
            .get(volume)
            .await
            .map_err(|e| e.to_string())?;
        let name = volume.spec.legs.first().map(|leg| leg.name.clone());
        let name = name.ok_or("it has no leg yet")?;
        let leg = legs(cluster).get(&name).await.map_err(|e| e.to_string())?;
        match look(&volume, &leg) {
            true => Ok((volume, leg)),
            false => Err(format!(
                "{} {}; leg: {} {}",
                json!(volume.spec.attach_to),
                json!(volume.status),
                json!(leg.spec.exports),
                json!(leg.status)
            )),
        }
    })
    .await
    .unwrap()
}

/// Wishes the volume attached to these machines and no others.
pub async fn wish(cluster: &Cluster, guests: &[&Guest], read_only: bool) {
    wish_of(cluster, VOLUME, guests, read_only).await;
}

/// The same, of another volume.
pub async fn wish_of(cluster: &Cluster, volume: &str, guests: &[&Guest], read_only: bool) {
    let wishes: Vec<Value> = guests
        .iter()
        .map(|guest| json!({"node": guest.name(), "readOnly": read_only}))
        .collect();
    let patch = Patch::Merge(json!({"spec": {"attachTo": wishes}}));
    volumes(cluster)
        .patch(volume, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Waits until a machine is granted the volume; the generation.
pub async fn granted(cluster: &Cluster, at: impl Into<Use<'_>>) -> i64 {
    let Use { guest, volume } = at.into();
    let attachment = |volume: &PoolVolume| {
        let mut attachments = volume.status.iter().flat_map(|s| &s.attachments);
        let granted =
            attachments.find(|a| a.node == guest.name() && a.phase == AttachmentPhase::Granted);
        granted.map(|a| a.generation)
    };
    let what = format!("{} is granted the volume {volume}", guest.name());
    let look = |volume: &PoolVolume, _: &PoolLeg| attachment(volume).is_some();
    let (volume, _) = until_of(cluster, volume, &what, look).await;
    attachment(&volume).unwrap()
}

/// Asks an agent, as the CSI driver does; what it answers, head and body.
async fn ask(Use { guest, volume }: Use<'_>, method: &str, body: &str) -> String {
    let request = format!(
        "{method} /volumes/{volume}/attachment HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Who closes his end before the answer is taken for gone.
    let script = "socat -t 0.5 -,ignoreeof UNIX-CONNECT:/run/strand/agent.sock";
    guest.feed(script, request.as_bytes()).await.unwrap().text()
}

/// NodeStageVolume's part: the device, as soon as the agent gives it.
pub async fn device(at: impl Into<Use<'_>>, generation: i64, read_only: bool) -> String {
    let at = at.into();
    let body = json!({"generation": generation, "readOnly": read_only}).to_string();
    let what = format!("{} has a device of {}", at.guest.name(), at.volume);
    wait::until(&what, SOON, || async {
        let answer = ask(at, "PUT", &body).await;
        let device = answer.split_once("\"device\":\"").map(|(_, rest)| rest);
        device
            .and_then(|rest| Some(rest.split_once('"')?.0.to_owned()))
            .ok_or(answer)
    })
    .await
    .unwrap()
}

/// NodeUnstageVolume's part, again and again as the kubelet does.
pub async fn give_back(at: impl Into<Use<'_>>) {
    let at = at.into();
    let what = format!("{} is given back by {}", at.volume, at.guest.name());
    wait::until(&what, SOON, || try_give_back(at))
        .await
        .unwrap();
}

/// The same; what the agent answers where it does not take it yet.
pub async fn try_give_back(at: impl Into<Use<'_>>) -> Result<(), String> {
    let answer = ask(at.into(), "DELETE", "").await;
    match answer.contains(" 204 ") {
        true => Ok(()),
        false => Err(answer),
    }
}

/// Has a machine mount the volume; with a new file system, where that is asked for. The device.
pub async fn mount(cluster: &Cluster, at: impl Into<Use<'_>>, make: bool) -> String {
    let at @ Use { guest, volume } = at.into();
    let device = device(at, granted(cluster, at).await, false).await;
    let make = if make { "/sbin/mkfs.xfs -q" } else { "true" };
    let script =
        format!("{make} {device} && mkdir -p /mnt/{volume} && mount -t xfs {device} /mnt/{volume}");
    guest.sh(&script).await.unwrap();
    device
}

/// Unmounts it and gives the device back, in order.
pub async fn unmount(at: impl Into<Use<'_>>) {
    let at = at.into();
    let script = format!("umount /mnt/{}", at.volume);
    at.guest.sh(&script).await.unwrap();
    give_back(at).await;
}

/// Starts to write files of random bytes, each flushed before its sum is noted: what is noted is acknowledged. Goes on until
/// [`stop_writing`].
pub async fn start_writing(at: impl Into<Use<'_>>) {
    let at @ Use { guest, volume } = at.into();
    let script = format!(
        "sh -c 'at=/mnt/{volume} run=/run/{volume}; rm -f $run.stop $run.stopped $run.times; i=$(ls $at | sort -n | tail -n 1); i=$((i)); \
         while [ ! -e $run.stop ]; do i=$((i+1)); \
         dd if=/dev/urandom of=$at/$i bs=64k count=4 conv=fsync 2>$run.failed || {{ echo failed >$run.stopped; exit; }}; \
         sha256sum $at/$i >>$run.acknowledged; read up idle </proc/uptime; echo $up >>$run.times; rm -f $at/$((i-{KEPT})); done; \
         echo well >$run.stopped'"
    );
    guest.start(&script).await.unwrap();
    more_written(at, 3).await;
}

/// The longest time between two acknowledged files since the writing began or [`forget_stalls`], in seconds of the machine's own clock.
pub async fn longest_stall(at: impl Into<Use<'_>>) -> f64 {
    let Use { guest, volume } = at.into();
    let script = format!(
        "awk 'NR > 1 && $1 - last > most {{ most = $1 - last }} {{ last = $1 }} END {{ print most + 0 }}' /run/{volume}.times"
    );
    guest.sh(&script).await.unwrap().trim().parse().unwrap()
}

/// Waits until so many more files are acknowledged.
pub async fn more_written(at: impl Into<Use<'_>>, files: usize) {
    let Use { guest, volume } = at.into();
    let lines = format!("cat /run/{volume}.acknowledged 2>/dev/null | wc -l");
    let now: usize = guest.sh(&lines).await.unwrap().trim().parse().unwrap();
    let script = format!(
        "[ ! -e /run/{volume}.stopped ] || exit 2; [ $({lines}) -ge {} ]",
        now + files
    );
    let what = format!("more files are written to {volume}");
    guest.until(&what, SOON, &script).await.unwrap();
}

/// The sums of the newest files that were acknowledged.
pub async fn acknowledged(at: impl Into<Use<'_>>) -> String {
    let Use { guest, volume } = at.into();
    // Of older ones some are deleted until they are looked for.
    let script = format!(
        "cat /run/{volume}.acknowledged 2>/dev/null | tail -n {}",
        KEPT / 2
    );
    guest.sh(&script).await.unwrap()
}

/// Ends the writing; every write went well.
pub async fn stop_writing(at: impl Into<Use<'_>>) {
    let Use { guest, volume } = at.into();
    guest
        .sh(&format!("touch /run/{volume}.stop"))
        .await
        .unwrap();
    let script =
        format!("cd /run; grep -q . {volume}.stopped && cat {volume}.stopped {volume}.failed");
    let said = guest
        .until("the writer has ended", SOON, &script)
        .await
        .unwrap();
    assert!(
        said.starts_with("well"),
        "a write to {volume} failed: {said}"
    );
}

/// Every file that was acknowledged is there, byte for byte, past the page cache.
pub async fn intact(guest: &Guest, sums: &str) {
    assert!(!sums.is_empty(), "nothing was written");
    let drop = guest.sh("sync; echo 3 >/proc/sys/vm/drop_caches");
    drop.await.unwrap();
    let said = guest
        .feed(
            "cat >/run/sums && ! sha256sum -c /run/sums 2>&1 | grep -v ': OK$'",
            sums.as_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(said.status, 0, "{said}");
}

/// Kills a machine's agent and starts it again.
pub async fn restart_agent(cluster: &Cluster, guest: &Guest) {
    kill_agent(guest).await;
    cluster.start_agent_with_volumes(guest).await.unwrap();
}

/// Kills a machine's agent.
pub async fn kill_agent(guest: &Guest) {
    let kill =
        "kill -9 $(pidof node-agent) && while pidof node-agent >/dev/null; do sleep 0.1; done";
    guest.sh(kill).await.unwrap();
}

/// Nothing is left on any machine of what attachments need: exports, connections, loop devices over legs, records.
pub async fn nothing_left(rack: &Rack, cluster: &Cluster) {
    wait::until("nobody has a volume", SOON, || async {
        let all = ListParams::default();
        let volumes = volumes(cluster)
            .list(&all)
            .await
            .map_err(|e| e.to_string())?;
        let legs = legs(cluster).list(&all).await.map_err(|e| e.to_string())?;
        let attachments = volumes.iter().flat_map(|v| &v.status);
        let attachments: Vec<_> = attachments.flat_map(|s| &s.attachments).collect();
        let told = legs.iter().flat_map(|leg| &leg.status);
        let wanted = legs.iter().flat_map(|leg| &leg.spec.exports);
        let told: Vec<_> = told.flat_map(|s| &s.exports).collect();
        let wanted: Vec<_> = wanted.collect();
        match attachments.len() + told.len() + wanted.len() {
            0 => Ok(()),
            _ => Err(json!([attachments, told, wanted]).to_string()),
        }
    })
    .await
    .unwrap();
    for guest in rack.guests() {
        let left = "
            cd /sys/kernel/config/nvmet 2>/dev/null && ls subsystems hosts ports | grep -v :$ | grep .
            cat /sys/class/nvme-subsystem/*/subsysnqn 2>/dev/null | grep strand
            cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep legs
            ls /var/lib/strand/attachments 2>/dev/null | grep .
            ls -d /sys/block/md* 2>/dev/null
            true";
        let what = format!("{}: nothing is left", guest.name());
        wait::until(&what, SOON, || async {
            let left = guest.sh(left).await.map_err(|e| format!("{e:#}"))?;
            match left.trim().is_empty() {
                true => Ok(()),
                false => Err(left),
            }
        })
        .await
        .unwrap();
    }
}

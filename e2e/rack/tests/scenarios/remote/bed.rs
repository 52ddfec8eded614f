//! A rack with one volume, asked for as the CSI driver asks: wishes in `spec.attachTo`, and devices from the agents' sockets.

use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use strand_api::{AttachmentPhase, DrivePhase, PoolLeg, PoolVolume, VolumePhase};
use strand_rack_bed::{Cluster, DrivePlan, Guest, Rack, wait};

pub const SOON: Duration = Duration::from_secs(180);
pub const ADOPTION: Duration = Duration::from_secs(300);
pub const VOLUME: &str = "v";
/// Where a consumer mounts it.
const AT: &str = "/mnt/v";
/// Where the bytes of every volume here lie, unless the scenario wants it otherwise: the machine with a drive.
pub const HOLDER: usize = 0;

/// Machines of which the first alone has a drive, in the pool `default`; each with an agent.
pub async fn pool_on(name: &str, machines: usize, bytes: u64, pool: Value) -> (Rack, Cluster) {
    let mut plans = vec![vec![DrivePlan {
        bytes,
        ..DrivePlan::new("G1D0")
    }]];
    plans.resize(machines, Vec::new());
    let rack = Rack::boot(name, &plans).await.unwrap();
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
    cluster
        .drives("the drive is Ready", ADOPTION, |drives| {
            drives.len() == 1 && drives.iter().all(ready)
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
    wait::until(what, SOON, || async {
        let volume = volumes(cluster)
            .get(VOLUME)
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
    let wishes: Vec<Value> = guests
        .iter()
        .map(|guest| json!({"node": guest.name(), "readOnly": read_only}))
        .collect();
    let patch = Patch::Merge(json!({"spec": {"attachTo": wishes}}));
    volumes(cluster)
        .patch(VOLUME, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Waits until a machine is granted the volume; the generation.
pub async fn granted(cluster: &Cluster, guest: &Guest) -> i64 {
    let attachment = |volume: &PoolVolume| {
        let mut attachments = volume.status.iter().flat_map(|s| &s.attachments);
        let granted =
            attachments.find(|a| a.node == guest.name() && a.phase == AttachmentPhase::Granted);
        granted.map(|a| a.generation)
    };
    let what = format!("{} is granted the volume", guest.name());
    let (volume, _) = until(cluster, &what, |volume, _| attachment(volume).is_some()).await;
    attachment(&volume).unwrap()
}

/// Asks an agent, as the CSI driver does; what it answers, head and body.
async fn ask(guest: &Guest, method: &str, body: &str) -> String {
    let request = format!(
        "{method} /volumes/{VOLUME}/attachment HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Who closes his end before the answer is taken for gone.
    let script = "socat -t 0.5 -,ignoreeof UNIX-CONNECT:/run/strand/agent.sock";
    guest.feed(script, request.as_bytes()).await.unwrap().text()
}

/// NodeStageVolume's part: the device, as soon as the agent gives it.
pub async fn device(guest: &Guest, generation: i64, read_only: bool) -> String {
    let body = json!({"generation": generation, "readOnly": read_only}).to_string();
    let what = format!("{} has a device", guest.name());
    wait::until(&what, SOON, || async {
        let answer = ask(guest, "PUT", &body).await;
        let device = answer.split_once("\"device\":\"").map(|(_, rest)| rest);
        device
            .and_then(|rest| Some(rest.split_once('"')?.0.to_owned()))
            .ok_or(answer)
    })
    .await
    .unwrap()
}

/// NodeUnstageVolume's part.
pub async fn give_back(guest: &Guest) {
    let answer = ask(guest, "DELETE", "").await;
    assert!(answer.contains(" 204 "), "{answer}");
}

/// Has a machine mount the volume; with a new file system, where that is asked for. The device.
pub async fn mount(cluster: &Cluster, guest: &Guest, make: bool) -> String {
    let device = device(guest, granted(cluster, guest).await, false).await;
    let make = if make { "/sbin/mkfs.xfs -q" } else { "true" };
    let script = format!("{make} {device} && mkdir -p {AT} && mount -t xfs {device} {AT}");
    guest.sh(&script).await.unwrap();
    device
}

/// Unmounts it and gives the device back, in order.
pub async fn unmount(guest: &Guest) {
    guest.sh(&format!("umount {AT}")).await.unwrap();
    give_back(guest).await;
}

/// Starts to write files of random bytes, each flushed before its sum is noted: what is noted is acknowledged. Goes on until
/// [`stop_writing`].
pub async fn start_writing(guest: &Guest) {
    let script = format!(
        "sh -c 'rm -f /run/stop /run/stopped /run/times; i=$(ls {AT} | wc -l); while [ ! -e /run/stop ]; do i=$((i+1)); \
         dd if=/dev/urandom of={AT}/$i bs=64k count=4 conv=fsync 2>/run/failed || {{ echo failed >/run/stopped; exit; }}; \
         sha256sum {AT}/$i >>/run/acknowledged; read up idle </proc/uptime; echo $up >>/run/times; done; echo well >/run/stopped'"
    );
    guest.start(&script).await.unwrap();
    more_written(guest, 3).await;
}

/// The longest time between two acknowledged files since the writing began, in seconds of the machine's own clock.
pub async fn longest_stall(guest: &Guest) -> f64 {
    let script = "awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { print most + 0 }' /run/times";
    guest.sh(script).await.unwrap().trim().parse().unwrap()
}

/// Waits until so many more files are acknowledged.
pub async fn more_written(guest: &Guest, files: usize) {
    let now = acknowledged(guest).await.lines().count();
    let script = format!(
        "[ ! -e /run/stopped ] || exit 2; [ $(cat /run/acknowledged | wc -l) -ge {} ]",
        now + files
    );
    guest
        .until("more files are written", SOON, &script)
        .await
        .unwrap();
}

/// The sums of all files that were acknowledged.
pub async fn acknowledged(guest: &Guest) -> String {
    guest
        .sh("cat /run/acknowledged 2>/dev/null; true")
        .await
        .unwrap()
}

/// Ends the writing; every write went well.
pub async fn stop_writing(guest: &Guest) {
    guest.sh("touch /run/stop").await.unwrap();
    let script = "grep -q . /run/stopped && cat /run/stopped /run/failed";
    let said = guest
        .until("the writer has ended", SOON, script)
        .await
        .unwrap();
    assert!(said.starts_with("well"), "a write failed: {said}");
}

/// Every file that was acknowledged is there, byte for byte, past the page cache.
pub async fn intact(guest: &Guest, sums: &str) {
    assert!(!sums.is_empty(), "nothing was written");
    let drop = guest.sh("sync; echo 3 >/proc/sys/vm/drop_caches");
    drop.await.unwrap();
    let said = guest
        .feed(
            "cat >/run/sums && sha256sum -c -s /run/sums",
            sums.as_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(said.status, 0, "{said}");
}

/// Kills a machine's agent and starts it again.
pub async fn restart_agent(cluster: &Cluster, guest: &Guest) {
    let kill =
        "kill -9 $(pidof node-agent) && while pidof node-agent >/dev/null; do sleep 0.1; done";
    guest.sh(kill).await.unwrap();
    cluster.start_agent_with_volumes(guest).await.unwrap();
}

/// Nothing is left on any machine of what attachments need: exports, connections, loop devices over legs, records.
pub async fn nothing_left(rack: &Rack, cluster: &Cluster) {
    until(cluster, "nobody has the volume", |volume, leg| {
        let attachments = volume.status.as_ref().map_or(0, |s| s.attachments.len());
        let exports = leg.status.as_ref().map_or(0, |s| s.exports.len());
        attachments + exports + leg.spec.exports.len() == 0
    })
    .await;
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

//! A volume as scenarios have it: what it says of its array, and a file system or blocks whose acknowledged writes are noted.

use std::path::PathBuf;
use std::time::Duration;

use strand_arrays::{Geometry, Holding, Leg, Level, Running, Seen, Standing, Wanted};
use strand_rack_bed::{Guest, wait};
use uuid::Uuid;

pub const SOON: Duration = Duration::from_secs(90);
const MIB: u64 = 1 << 20;

/// A volume of these devices, none of whose legs has been written.
pub fn volume(level: Level, data: u64, devices: &[String]) -> Wanted {
    let legs = devices.iter().enumerate().map(|(place, device)| Leg {
        uuid: Uuid::from_u128(place as u128 + 1),
        standing: Standing::In,
        device: Some(PathBuf::from(device)),
    });
    Wanted {
        array: Uuid::from_u128(0x4000_8000_0000_0000_00aa),
        name: "pvc-scenario".into(),
        level,
        geometry: Geometry {
            data_offset: MIB,
            data,
            chunk: 128 << 10,
            bitmap_chunk: 16 * MIB,
        },
        legs: legs.collect(),
        formed: false,
        read_only: false,
        rate: 1 << 30,
    }
}

/// What a node has to have before its agent can put arrays together.
pub async fn load(guest: &Guest, module: &str) {
    guest
        .sh(&format!("modprobe {module} && modprobe xfs"))
        .await
        .unwrap();
}

/// Brings the array to what the volume says; the error is what was answered.
pub async fn keep(guest: &Guest, wanted: &Wanted) -> Result<Seen, String> {
    let input = serde_json::to_vec(wanted).unwrap();
    let said = guest
        .feed("/strand/rack-arrays keep", &input)
        .await
        .unwrap();
    match said.status {
        0 => Ok(serde_json::from_str(&said.text()).unwrap()),
        _ => Err(said.to_string()),
    }
}

/// The same, until nothing that is still under way is in its way; gives the array's device.
pub async fn kept(guest: &Guest, wanted: &Wanted) -> String {
    let what = "the array is as the volume says";
    let seen = wait::until(what, SOON, || keep(guest, wanted)).await;
    let array = seen.unwrap().array.unwrap();
    array.device().display().to_string()
}

/// Waits until a leg holds what is expected of it.
pub async fn until_leg(guest: &Guest, wanted: &Wanted, leg: usize, holding: Holding) {
    let input = serde_json::to_vec(wanted).unwrap();
    let look = || async {
        let said = guest.feed("/strand/rack-arrays report", &input).await;
        let said = said.map_err(|error| format!("{error:#}"))?;
        let told: Option<Vec<Holding>> =
            serde_json::from_str(&said.text()).map_err(|_| said.to_string())?;
        match told.as_ref().map(|told| told[leg]) {
            Some(found) if found == holding => Ok(()),
            _ => Err(format!("{told:?}")),
        }
    };
    let what = format!("leg {leg} is {holding:?}");
    wait::until(&what, 2 * SOON, look).await.unwrap();
}

pub async fn stop(guest: &Guest, wanted: &Wanted) {
    let script = format!("/strand/rack-arrays stop {}", wanted.array);
    guest
        .until("the array is taken down", SOON, &script)
        .await
        .unwrap();
}

/// No array of anybody's is left.
pub async fn nothing_is_left(guest: &Guest) {
    let said = guest.sh("/strand/rack-arrays all").await.unwrap();
    let all: Vec<Running> = serde_json::from_str(&said).unwrap();
    assert_eq!(all, []);
    let left = "! grep -q ^md /proc/mdstat && ! ls -d /sys/block/md* 2>/dev/null && ! pidof mdadm";
    guest.until("no array is left", SOON, left).await.unwrap();
}

/// No leg has a list of bad blocks, behind which a leg that fails would stay in its array; and its data begin where they shall.
pub async fn legs_are_as_they_shall_be(guest: &Guest, devices: &[String]) {
    for device in devices {
        let said = guest
            .sh(&format!("/sbin/mdadm --examine {device}"))
            .await
            .unwrap();
        assert!(!said.contains("Bad Block"), "{said}");
        assert!(said.contains("Data Offset : 2048 sectors"), "{said}");
        assert!(said.contains("Internal Bitmap"), "{said}");
    }
}

/// Bytes that were written to a device since its machine came up.
pub async fn written(guest: &Guest, device: &str) -> u64 {
    let name = device.trim_start_matches("/dev/");
    // linux Documentation/block/stat.rst: the seventh number is sectors of 512 bytes.
    let script = format!("awk '{{print $7}}' /sys/block/{name}/stat");
    let said = guest.sh(&script).await.unwrap();
    said.trim().parse::<u64>().unwrap() * 512
}

/// What writes files of random bytes, each flushed before its sum is noted: what is noted is acknowledged.
pub fn write_files(from: u32, to: u32) -> String {
    format!(
        "for i in $(seq {from} {to}); do \
         dd if=/dev/urandom of=/mnt/v/$i bs=64k count=2 conv=fsync 2>/dev/null || exit 1; \
         sha256sum /mnt/v/$i >>/run/acknowledged; done"
    )
}

pub async fn make_files(guest: &Guest, device: &str) {
    guest
        .sh(&format!(
            "/sbin/mkfs.xfs -q {device} && mkdir -p /mnt/v && mount -t xfs {device} /mnt/v"
        ))
        .await
        .unwrap();
}

/// Mounts and reads every acknowledged file past the page cache.
pub async fn files_are_whole(guest: &Guest, device: &str, count: u32) {
    let script = format!(
        "mkdir -p /mnt/v; grep -q ' /mnt/v ' /proc/mounts || mount -t xfs {device} /mnt/v; \
         echo 3 >/proc/sys/vm/drop_caches; [ $(wc -l </run/acknowledged) = {count} ] && sha256sum -c -s /run/acknowledged"
    );
    guest.sh(&script).await.unwrap();
}

pub async fn unmount(guest: &Guest) {
    guest.sh("umount /mnt/v").await.unwrap();
}

/// The devices of a machine's drives.
pub async fn devices(guest: &Guest, serials: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for serial in serials {
        found.push(format!("/dev/{}", guest.device(serial).await.unwrap()));
    }
    found
}

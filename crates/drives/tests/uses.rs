//! A drive that somebody on this machine uses is not taken, however the use began, and the reason says who.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod bed;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use bed::{Bed, Loop, Process, Undo, hash, only, order, poke, run, text, wait_for, watched};
use strand_drives::{DriveError, DriveHost, KernelHost, WipeOrder};
use strand_placement::verdict::Verdict;

/// Expects a verdict with this reason, a refusal to take the drive and, while it is in use, to wipe it.
fn refused(host: &KernelHost, verdict: Verdict, code: &str, words: &str) {
    let drive = only(host);
    // Pages of a swap device are the kernel's to write at any time; its header is not.
    let bytes = || match code {
        "Swap" => first_page(&drive.path),
        _ => hash(&drive.path).to_vec(),
    };
    let before = bytes();
    let (seen, finding) = watched(host, &drive);
    let told: Vec<String> = finding
        .reasons
        .iter()
        .map(|reason| format!("{}: {reason}", reason.code()))
        .collect();
    assert_eq!(finding.verdict, verdict, "{told:#?}");
    assert!(
        told.iter()
            .any(|reason| reason.starts_with(code) && reason.contains(words)),
        "no {code} with {words:?} in {told:#?}"
    );
    host.adopt(&drive, &seen, &order()).unwrap_err();
    if verdict == Verdict::InUse {
        let wipe = WipeOrder {
            serial: drive.key.serial.clone(),
            from: 0,
        };
        let refusal = host
            .wipe(&drive, &wipe, &bed::pools(), &mut |_| {
                panic!("a wipe began")
            })
            .unwrap_err();
        assert!(
            matches!(refusal, DriveError::WipeRefused { .. }),
            "{refusal}"
        );
    }
    assert!(before == bytes(), "looking at the drive changed it");
}

fn first_page(path: &Path) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let file = File::open(path).unwrap();
    file.read_exact_at(&mut page, 0).unwrap();
    page
}

fn mount(device: &Path, at: &Path) -> Undo {
    bed::make_directory(at);
    // Without lazy initialisation and journal, so that the mount itself writes nothing.
    run("mount", &["-o", "ro,noload", text(device), text(at)]);
    Undo::new(&["umount", "--lazy", text(at)])
}

#[tokio::test]
async fn mounted() {
    let bed = Bed::new();
    let image = bed.image("S1");
    run("mkfs.ext4", &["-qF", text(&image)]);
    let device = Loop::attach(&image, &[]);
    let at = bed.directory.path().join("a mount");
    let _mount = mount(&device.path, &at);
    refused(
        &bed.host(&[&device.path]),
        Verdict::InUse,
        "Mounted",
        text(&at),
    );
    // The same file as a stand-in of its own: the loop device over it is in the way, and so is its mount.
    refused(&bed.host(&[&image]), Verdict::InUse, "Mounted", text(&at));
    refused(
        &bed.host(&[&image]),
        Verdict::InUse,
        "HasHolders",
        text(&device.path),
    );
}

#[tokio::test]
async fn mounted_in_a_mount_namespace_of_its_own() {
    let bed = Bed::new();
    let image = bed.image("S1");
    run("mkfs.ext4", &["-qF", text(&image)]);
    let device = Loop::attach(&image, &[]);
    let at = bed.directory.path().join("hidden");
    bed::make_directory(&at);
    let script = format!(
        "mount -o ro,noload {} {} && exec sleep 600",
        text(&device.path),
        text(&at)
    );
    let hidden = Process(
        Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .spawn()
            .unwrap(),
    );
    let seen = format!("/proc/{}/root{}/lost+found", hidden.0.id(), text(&at));
    wait_for("the mount", || Path::new(&seen).exists());
    assert!(
        !at.join("lost+found").exists(),
        "the mount must be visible to that process only"
    );
    refused(
        &bed.host(&[&device.path]),
        Verdict::InUse,
        "Mounted",
        text(&at),
    );
}

#[tokio::test]
async fn swapped_on() {
    let bed = Bed::new();
    let image = bed.image("S1");
    run("mkswap", &[text(&image)]);
    let device = Loop::attach(&image, &[]);
    run("swapon", &[text(&device.path)]);
    let _swap = Undo::new(&["swapoff", text(&device.path)]);
    refused(
        &bed.host(&[&device.path]),
        Verdict::InUse,
        "Swap",
        text(&device.path),
    );
}

#[tokio::test]
async fn partitions_that_are_mounted_or_merely_known() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let device = Loop::attach(&image, &[]);
    run(
        "parted",
        &[
            "-s",
            text(&device.path),
            "mklabel",
            "msdos",
            "mkpart",
            "primary",
            "1MiB",
            "319MiB",
        ],
    );
    let partition = format!("{}p1", text(&device.path));
    wait_for("the partition device", || Path::new(&partition).exists());
    run("mkfs.ext4", &["-qF", &partition]);
    let host = bed.host(&[&device.path]);
    refused(&host, Verdict::Foreign, "PartitionTable", "MBR");
    let at = bed.directory.path().join("partition");
    let _mount = mount(Path::new(&partition), &at);
    refused(&host, Verdict::InUse, "Mounted", &partition);
}

#[tokio::test]
async fn a_loop_device_over_the_loop_device() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let below = Loop::attach(&image, &[]);
    let above = Loop::attach(&below.path, &[]);
    refused(
        &bed.host(&[&below.path]),
        Verdict::InUse,
        "HasHolders",
        text(&above.path),
    );
    refused(
        &bed.host(&[&image]),
        Verdict::InUse,
        "HasHolders",
        text(&above.path),
    );
}

#[tokio::test]
async fn open_in_another_process() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let device = Loop::attach(&image, &[]);
    for path in [&device.path, &image] {
        let reader = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(File::open(path).unwrap()))
            .spawn()
            .unwrap();
        let reader = Process(reader);
        refused(
            &bed.host(&[path]),
            Verdict::InUse,
            "OpenElsewhere",
            &format!("sleep, pid {}", reader.0.id()),
        );
    }
}

#[tokio::test]
async fn claimed_without_a_descriptor_that_shows() {
    // An exclusive claim of this process itself stands for one inside the kernel.
    let bed = Bed::new();
    let image = bed.image("S1");
    let device = Loop::attach(&image, &[]);
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::EXCL.bits().cast_signed(),
    );
    let _claim = options.read(true).open(&device.path).unwrap();
    refused(
        &bed.host(&[&device.path]),
        Verdict::InUse,
        "OpenElsewhere",
        "",
    );
}

#[tokio::test]
async fn a_pods_block_volume() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let device = Loop::attach(&image, &[]);
    let host = bed.host(&[&device.path]);
    let pod = bed
        .directory
        .path()
        .join("kubelet/pods/4a1c/volumeDevices/kubernetes.io~csi");
    bed::make_directory(&pod);
    symlink(&device.path, pod.join("pvc-1")).unwrap();
    refused(&host, Verdict::InUse, "KubeletBlockVolume", "pods/4a1c");
    fs::remove_file(pod.join("pvc-1")).unwrap();
    let driver = bed
        .directory
        .path()
        .join("kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1");
    bed::make_directory(&driver);
    run(
        "mknod",
        &[
            text(&driver.join("4a1c")),
            "b",
            "7",
            text(&device.path).trim_start_matches("/dev/loop"),
        ],
    );
    refused(
        &host,
        Verdict::InUse,
        "KubeletBlockVolume",
        "volumeDevices/publish",
    );
}

#[tokio::test]
async fn read_only() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let device = Loop::attach(&image, &["--read-only"]);
    refused(&bed.host(&[&device.path]), Verdict::Failed, "ReadOnly", "");
    drop(device);
    fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    refused(&bed.host(&[&image]), Verdict::Failed, "ReadOnly", "");
}

#[tokio::test]
async fn too_small() {
    let bed = Bed::new();
    let image = bed.image("S1");
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(63 << 20)
        .unwrap();
    refused(&bed.host(&[&image]), Verdict::Foreign, "TooSmall", "");
}

/// A write of zeroes leaves a drive blank, and still somebody writes to it.
#[tokio::test]
async fn written_to_while_watched() {
    let bed = Bed::new();
    let image = bed.image("S1");
    let device = Loop::attach(&bed.image("S2"), &[]);
    for path in [&device.path, &image] {
        let host = bed.host(&[path]);
        let drive = only(&host);
        let first = host.observe(&drive, None).unwrap();
        poke(path, 1 << 20, &[0; 4096]);
        let second = host.observe(&drive, Some(&first)).unwrap();
        let finding = strand_placement::verdict::judge(&second, &bed::pools());
        assert_eq!(
            finding
                .reasons
                .iter()
                .map(|reason| reason.code())
                .collect::<Vec<_>>(),
            ["ChangedWhileWatched"]
        );
        // The next watch begins anew, and a drive that is left alone then is free.
        let third = host.observe(&drive, Some(&second)).unwrap();
        assert!(third.watch.remaining_ms() > 0 && third.watch.changed.is_none());
        // Written between the last look and the taking: seen on the descriptor that would write.
        let (seen, finding) = watched(&host, &drive);
        assert_eq!(finding.verdict, Verdict::Stranded, "{:?}", finding.reasons);
        poke(path, 1 << 20, &[0; 4096]);
        let refusal = host.adopt(&drive, &seen, &order()).unwrap_err();
        assert!(
            refusal.to_string().contains("while it was watched"),
            "{refusal}"
        );
    }
}

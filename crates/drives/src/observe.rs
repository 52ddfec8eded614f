//! Everything that can be seen about one drive, into one [`Observation`].

use std::fs::Metadata;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use strand_placement::verdict::{
    Content, Exclusive, Health, Label, LabelSeen, Observation, Sharing, Signature, SignatureKind,
    Transport, Watch,
};

use crate::config::{Roots, WatchTimes};
use crate::held::{Access, Held};
use crate::host::DriveError;
use crate::identity::{MediumKind, SeenDrive};
use crate::label::{self, Copy, DiskLabel};
use crate::medium::Medium;
use crate::nvme::{self, NvmeAdmin};
use crate::survey::{Deallocated, survey};
use crate::{reserved, signature, sysfs, uses};

/// What an observer needs besides the drive.
pub(crate) struct Observer<'a> {
    pub(crate) roots: &'a Roots,
    pub(crate) watch: WatchTimes,
    pub(crate) admin: &'a dyn NvmeAdmin,
    /// Where samples lie; the same for all observations that are compared.
    pub(crate) salt: u64,
}

impl Observer<'_> {
    /// Looks at a drive through a descriptor. `claimed` says that this descriptor already holds the kernel's claim.
    pub(crate) fn observe(
        &self,
        held: &Held<'_>,
        claimed: bool,
        earlier: Option<&Observation>,
    ) -> Result<Observation, DriveError> {
        let drive = held.drive;
        let identity = held.check()?;
        let disk = held.disk()?;
        let is_device = held
            .is_block_device()
            .map_err(|error| held.error("looking at it", error))?;
        let metadata = held
            .file
            .metadata()
            .map_err(|error| held.error("looking at it", error))?;
        let name = sysfs::device_name(&drive.path);
        let has_sysfs = !matches!(drive.medium, MediumKind::File { .. });

        let mut seen = Observation {
            taken_ms: now_ms(),
            serial: drive.key.serial.clone(),
            size: disk.size(),
            transport: drive.transport.clone(),
            ..Observation::default()
        };
        seen.read_only = identity
            .as_ref()
            .is_some_and(|identity| identity.write_protected)
            || (has_sysfs && sysfs::is_read_only(&self.roots.sys, &name))
            || (!has_sysfs && metadata.mode() & 0o222 == 0);
        (seen.sharing, seen.health, seen.cloud_volume) = match &identity {
            None => (Sharing::Private, Health::None, None),
            Some(identity) => {
                let controllers = sysfs::controllers(&self.roots.sys, &name);
                let sharing = match controllers.len() {
                    0 | 1 => identity.sharing.clone(),
                    _ => Sharing::Shared {
                        why: format!("reached through {}", controllers.join(", ")),
                    },
                };
                (
                    sharing,
                    nvme::health(self.admin, &held.file),
                    cloud_volume(&identity.model),
                )
            }
        };
        let uses = uses::find(self.roots, drive, &held.file);
        (seen.uses, seen.unseen) = (uses.found, uses.unseen);

        match reserved::read_copies(&disk)
            .and_then(|copies| label_seen(&disk, label::choose(&copies)))
        {
            Ok(label) => seen.label = label,
            Err(error) => seen
                .read_errors
                .push(format!("reading its label failed ({error})")),
        }
        seen.signatures = signature::find(&disk);
        if has_sysfs
            && !seen
                .signatures
                .iter()
                .any(|signature| signature.kind == SignatureKind::PartitionTable)
        {
            seen.signatures.extend(known_partitions(self.roots, &name));
        }
        let deallocated = identity
            .as_ref()
            .map_or(Deallocated::Zeroes, |identity| identity.deallocated);
        let mut digest = 0;
        match survey(&disk, deallocated, self.salt) {
            Ok(found) => (seen.content, digest) = (found.content, found.digest),
            Err(error) => seen
                .read_errors
                .push(format!("reading it failed ({error})")),
        }
        let writes = match has_sysfs {
            true => {
                sysfs::write_counters(&self.roots.sys, &name).map(|counters| digest_of(&counters))
            }
            false => Some(file_writes(&metadata)),
        };
        if writes.is_none() {
            seen.unseen.push("the kernel's count of writes".into());
        }
        let required = if drive.transport == Transport::StandIn {
            self.watch.stand_in
        } else {
            self.watch.nvme
        };
        seen.watch = watch(&seen, digest, writes.unwrap_or(0), required, earlier);
        seen.exclusive = match (is_device, claimed) {
            (false, _) => Exclusive::NotApplicable,
            (true, true) => Exclusive::Opened,
            (true, false) if looks_free(&seen) => self.try_claim(drive)?,
            (true, false) => Exclusive::NotTried,
        };
        Ok(seen)
    }

    fn try_claim(&self, drive: &SeenDrive) -> Result<Exclusive, DriveError> {
        match Held::open(drive, Access::Claim, self.admin) {
            Ok(_) => Ok(Exclusive::Opened),
            Err(DriveError::Busy { .. }) => Ok(Exclusive::Busy),
            Err(error) => Err(error),
        }
    }
}

/// Whether claiming the drive for a moment can disturb nobody that shows.
fn looks_free(seen: &Observation) -> bool {
    seen.uses.is_empty() && seen.content == Content::Blank && seen.signatures.is_empty()
}

/// How long nothing has changed, compared with the observation before.
fn watch(
    seen: &Observation,
    digest: u64,
    writes: u64,
    required: Duration,
    earlier: Option<&Observation>,
) -> Watch {
    let mut watch = Watch {
        required_ms: required.as_millis() as u64,
        digest,
        writes,
        ..Watch::default()
    };
    if let Some(earlier) = earlier {
        watch.changed = if earlier.serial != seen.serial || earlier.size != seen.size {
            Some("it became another drive".into())
        } else if earlier.content != seen.content || earlier.watch.digest != digest {
            Some("its content changed".into())
        } else if earlier.watch.writes != writes {
            Some("it was written to".into())
        } else {
            None
        };
        if watch.changed.is_none() {
            watch.unchanged_ms =
                earlier.watch.unchanged_ms + seen.taken_ms.saturating_sub(earlier.taken_ms);
        }
    }
    watch
}

/// The label as the judgement sees it.
fn label_seen(medium: &impl Medium, copy: Copy) -> std::io::Result<LabelSeen> {
    Ok(match copy {
        Copy::Absent => LabelSeen::Absent,
        Copy::Damaged(why) => LabelSeen::Damaged { why: why.into() },
        Copy::Newer(version) => LabelSeen::Newer { version },
        Copy::Valid(label) => {
            let contradiction = reserved::contradiction(medium, &label)?;
            let DiskLabel {
                generation,
                state,
                pool_id,
                pool_name,
                drive_id,
                serial,
                layout,
                previous,
                ..
            } = *label;
            LabelSeen::Present(Label {
                generation,
                state,
                pool_id,
                pool_name,
                drive_id,
                serial,
                layout,
                previous,
                contradiction,
            })
        }
    })
}

/// Partitions that the kernel shows although no table was recognised.
fn known_partitions(roots: &Roots, name: &str) -> Option<Signature> {
    let names: Vec<String> = sysfs::partitions(&roots.sys, name)
        .into_iter()
        .map(|partition| partition.name)
        .collect();
    (!names.is_empty()).then(|| Signature {
        kind: SignatureKind::PartitionTable,
        name: format!("kernel's ({})", names.join(", ")),
        offset: 0,
    })
}

/// The cloud block services that attach volumes as NVMe drives, by the model their documentation names. Their local drives
/// ("Amazon EC2 NVMe Instance Storage", "nvme_card", "Microsoft NVMe Direct Disk") are drives.
fn cloud_volume(model: &str) -> Option<String> {
    const SERVICES: [(&str, &str); 5] = [
        ("Amazon Elastic Block Store", "Amazon EBS"),
        ("nvme_card-pd", "Google Persistent Disk"),
        ("PersistentDisk", "Google Persistent Disk"),
        ("MSFT NVMe Accelerator", "Azure managed disks"),
        ("Alibaba Cloud Elastic Block Storage", "Alibaba Cloud EBS"),
    ];
    SERVICES
        .iter()
        .find(|(known, _)| model.contains(known))
        .map(|(_, service)| (*service).to_owned())
}

/// A plain file's stand-in for the kernel's write counters: its time of modification and its blocks.
fn file_writes(metadata: &Metadata) -> u64 {
    digest_of(&[
        metadata.mtime().cast_unsigned(),
        metadata.mtime_nsec().cast_unsigned(),
        metadata.blocks(),
    ])
}

fn digest_of(numbers: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    numbers.iter().for_each(|number| hasher.write_u64(*number));
    hasher.finish()
}

/// Milliseconds since boot, suspended time included.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

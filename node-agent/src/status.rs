//! What a Drive's status shall say.

use std::collections::{BTreeMap, BTreeSet};

use strand_api::{
    ByteQuantity, DriveHealth, DriveIdentity, DrivePhase, DriveReason, DriveStatus, DriveVerdict,
    LabelStatus, PartitionRole, PartitionStatus, Transport, condition, names,
};
use strand_drives::{OwnedDrive, SeenDrive};
use strand_placement::carve::Role;
use strand_placement::status::sixteenths;
use strand_placement::verdict::{Finding, Health, Label, LabelSeen, Reason, Verdict};
use strand_placement::{carve, verdict, wear};

use crate::finding::only_watched;
use crate::memory::DriveMemory;
use crate::view::{Now, View};

/// So many reasons of one kind are told.
const OF_A_KIND: usize = 8;

/// What shall become of a Drive object.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// It stays as it is; there is nothing to tell yet.
    AsItIs,
    /// It shall be there with this status.
    Status(Box<DriveStatus>),
    /// It shall go: the drive is not there, and was in no pool.
    Gone,
}

/// Decides on the object of one drive.
pub fn want(memory: &DriveMemory, view: &View, now: &Now) -> Want {
    let Some(seen) = &memory.seen else {
        return absent(view);
    };
    let Some(finding) = memory.finding(&view.pools.known, now.at) else {
        return Want::AsItIs;
    };
    match phase(memory, &finding, view, now) {
        Some(phase) => Want::Status(Box::new(status(memory, seen, finding, phase, view, now))),
        None => Want::AsItIs,
    }
}

/// The part of a status that the agent writes; the rest is the operator's.
pub fn own_part(status: &DriveStatus) -> DriveStatus {
    let mut own = status.clone();
    own.conditions
        .retain(|c| [names::CARVED, names::HEALTHY].contains(&c.type_.as_str()));
    own
}

/// Whether only the words of the reasons differ: the same things were found again, in other places or processes.
pub fn only_words_differ(a: &DriveStatus, b: &DriveStatus) -> bool {
    let without = |status: &DriveStatus| {
        let mut status = status.clone();
        status.reasons.clear();
        status
    };
    a.reasons != b.reasons && without(a) == without(b)
}

/// Whether the drive was released for an operation and the operator has yet to take its wish back.
pub fn given_back(memory: &DriveMemory, view: &View) -> bool {
    let Some(object) = view.object.filter(|object| object.spec.pool.is_some()) else {
        return false;
    };
    let phase = object.status.as_ref().and_then(|s| s.phase);
    let read = memory.observation.as_ref().map(|seen| &seen.label);
    matches!(phase, Some(DrivePhase::Releasing | DrivePhase::Released))
        && !matches!(
            read,
            None | Some(LabelSeen::Present(_) | LabelSeen::NotRead)
        )
}

fn absent(view: &View) -> Want {
    let Some(object) = view.object else {
        return Want::AsItIs;
    };
    let status = object.status.as_ref();
    let pooled = object.spec.pool.is_some()
        || status.is_some_and(|s| s.verdict == Some(DriveVerdict::Pooled));
    if !pooled {
        return match view.lasting() {
            true => Want::Gone,
            false => Want::AsItIs,
        };
    }
    Want::Status(Box::new(DriveStatus {
        phase: Some(DrivePhase::Missing),
        ..status.map(own_part).unwrap_or_default()
    }))
}

/// The phase, or `None` while what is under way shall not be told.
fn phase(memory: &DriveMemory, finding: &Finding, view: &View, now: &Now) -> Option<DrivePhase> {
    let release = view.operation.is_some_and(crate::operation::releases);
    if release && memory.owned.is_some() && view.object.is_some_and(|o| o.spec.pool.is_some()) {
        return Some(DrivePhase::Releasing);
    }
    if given_back(memory, view) {
        return Some(DrivePhase::Released);
    }
    if only_watched(finding) {
        return None;
    }
    let struggle = || memory.struggle(now.at).map(|_| DrivePhase::Carving);
    match finding.verdict {
        Verdict::Failed | Verdict::InUse | Verdict::Foreign => Some(DrivePhase::Rejected),
        Verdict::Stranded => match view.order(memory) {
            Some(_) => struggle(),
            None => Some(DrivePhase::Available),
        },
        Verdict::Pooled => {
            let Some(owned) = &memory.owned else {
                return struggle();
            };
            match view.wish() {
                None => Some(DrivePhase::Available),
                Some(wish) if wish.pool_id != owned.pool_id => Some(DrivePhase::Rejected),
                Some(wish) if memory.lies_as(&wish.split) => Some(DrivePhase::Ready),
                Some(wish) if memory.refused(&wish.split).is_some() => Some(DrivePhase::Ready),
                Some(_) => struggle(),
            }
        }
    }
}

fn status(
    memory: &DriveMemory,
    seen: &SeenDrive,
    finding: Finding,
    phase: DrivePhase,
    view: &View,
    now: &Now,
) -> DriveStatus {
    let live = view.object.and_then(|object| object.status.as_ref());
    let label = memory.label();
    let ours = label.is_some_and(|label| view.pools.known.contains(&label.pool_id));
    let size = ByteQuantity(seen.geometry.size);
    DriveStatus {
        // An object that is to be created has generation 1.
        observed_generation: Some(view.object.and_then(|o| o.metadata.generation).unwrap_or(1)),
        identity: Some(identity(seen)),
        size,
        display_size: size.rounded(),
        logical_block_bytes: i64::from(seen.geometry.logical_block),
        optimal_write_bytes: i64::from(seen.geometry.optimal_write),
        verdict: Some(api_verdict(finding.verdict)),
        display_reasons: display(&finding.reasons),
        reasons: told(&finding.reasons),
        phase: Some(phase),
        label: label.map(api_label),
        partitions: match (&memory.owned, ours) {
            (Some(owned), true) => partitions(owned, live, view),
            _ => Vec::new(),
        },
        health: memory.health().and_then(|h| health(h, live, now)),
        peer_address: view.peer_address.filter(|_| ours).map(Into::into),
        stored_epoch: label
            .and_then(|label| view.ahead.get(&label.pool_id.to_string()))
            .copied(),
        conditions: [carved(memory, view, live, now), healthy(view, live, now)]
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// The condition `Carved`: there once something stood against the carve, and then kept.
fn carved(
    memory: &DriveMemory,
    view: &View,
    live: Option<&DriveStatus>,
    now: &Now,
) -> Option<condition::Condition> {
    let earlier = live.map_or(&[][..], |status| &status.conditions);
    let present = condition::find(earlier, names::CARVED);
    let generation = view.object.and_then(|object| object.metadata.generation);
    let say = |status, reason: &str, message: &str| {
        let new = condition::condition(
            earlier,
            &now.wall,
            names::CARVED,
            status,
            reason,
            message,
            generation,
        );
        Some(new)
    };
    let wish = view.wish();
    if let Some(refusal) = wish.as_ref().and_then(|wish| memory.refused(&wish.split)) {
        return say(false, refusal.code, &refusal.message);
    }
    if let Some(words) = memory.struggle(now.at) {
        return say(false, "Failing", &words);
    }
    present?;
    match wish.is_some_and(|wish| memory.lies_as(&wish.split)) {
        true => say(true, "AsAsked", "the drive is split as spec.carve asks"),
        false => present.cloned(),
    }
}

/// The condition `Healthy`: there once something ailed its storage side, and then kept.
fn healthy(view: &View, live: Option<&DriveStatus>, now: &Now) -> Option<condition::Condition> {
    let earlier = live.map_or(&[][..], |status| &status.conditions);
    let present = condition::find(earlier, names::HEALTHY);
    let Some(storage) = view.storage else {
        return present.cloned();
    };
    let (status, reason, message) = match &storage.ailment {
        Some(ailment) => (false, ailment.reason, ailment.message.as_str()),
        None => (true, "Serves", "its storage side is served"),
    };
    if status && present.is_none() {
        return None;
    }
    let generation = view.object.and_then(|object| object.metadata.generation);
    Some(condition::condition(
        earlier,
        &now.wall,
        names::HEALTHY,
        status,
        reason,
        message,
        generation,
    ))
}

/// A drive's identity as the API has it.
pub fn identity(seen: &SeenDrive) -> DriveIdentity {
    // The kernel writes `eui.` and 16 hexadecimal digits for an EUI-64, 32 for an NGUID (drivers/nvme/host/sysfs.c, wwid_show).
    let digits = seen.wwid.as_deref().and_then(|id| id.strip_prefix("eui."));
    let of_length = |length| digits.filter(|d| d.len() == length).map(String::from);
    DriveIdentity {
        model: seen.key.model.clone(),
        serial: seen.key.serial.clone(),
        namespace_id: i64::from(seen.key.namespace),
        eui64: of_length(16),
        nguid: of_length(32),
        firmware: seen.firmware.clone(),
        pci_address: seen.pci_address.clone(),
        numa_node: seen.numa_node.map(i64::from),
        transport: match seen.transport {
            verdict::Transport::Pcie => Transport::Pcie,
            verdict::Transport::StandIn => Transport::StandIn,
            // What is not known to be PCIe is not told as PCIe; the reason names it.
            verdict::Transport::Fabric { .. } | verdict::Transport::Unknown { .. } => {
                Transport::Fabric
            }
        },
        device_path: seen.path.display().to_string(),
    }
}

/// A verdict as the API has it.
pub fn api_verdict(verdict: Verdict) -> DriveVerdict {
    match verdict {
        Verdict::Stranded => DriveVerdict::Stranded,
        Verdict::InUse => DriveVerdict::InUse,
        Verdict::Foreign => DriveVerdict::Foreign,
        Verdict::Pooled => DriveVerdict::Pooled,
        Verdict::Failed => DriveVerdict::Failed,
    }
}

/// A reason as the API has it.
pub fn api_reason(reason: &Reason) -> DriveReason {
    DriveReason {
        code: reason.code().into(),
        message: reason.to_string(),
    }
}

/// The reasons, of one kind only so many: a system drive may be mounted in hundreds of places.
fn told(reasons: &[Reason]) -> Vec<DriveReason> {
    let mut told = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        let count = counts.entry(reason.code()).or_default();
        *count += 1;
        if *count <= OF_A_KIND {
            told.push(api_reason(reason));
        }
    }
    for (code, count) in counts.into_iter().filter(|(_, count)| *count > OF_A_KIND) {
        told.push(DriveReason {
            code: code.into(),
            message: format!("and {} more of this kind", count - OF_A_KIND),
        });
    }
    told
}

/// The codes, each once. That a pool has the drive is in other columns.
fn display(reasons: &[Reason]) -> String {
    let mut told = BTreeSet::new();
    let codes: Vec<&str> = reasons
        .iter()
        .filter(|reason| !matches!(reason, Reason::Pooled { .. }))
        .map(Reason::code)
        .filter(|code| told.insert(*code))
        .collect();
    codes.join(", ")
}

fn api_label(label: &Label) -> LabelStatus {
    LabelStatus {
        pool: label.pool_name.clone(),
        pool_id: label.pool_id.to_string(),
        drive_id: label.drive_id.to_string(),
        generation: saturating(label.generation),
    }
}

/// The partitions. What is not known of their use stays as it was told.
fn partitions(owned: &OwnedDrive, live: Option<&DriveStatus>, view: &View) -> Vec<PartitionStatus> {
    let told = |role| {
        let partitions = live.into_iter().flat_map(|status| &status.partitions);
        let mut told = partitions.filter(|partition| partition.role == role);
        told.next()
    };
    let used = |role, extent: &carve::Extent| {
        let known = match role {
            PartitionRole::ContextMemory => view.context_used,
            PartitionRole::Storage => view.storage.map(|storage| {
                let used = u128::from(extent.len) * u128::from(storage.used_thousandths) / 1000;
                sixteenths(used as u64, extent.len)
            }),
        };
        let used = known.or_else(|| told(role).map(|partition| partition.used.0));
        ByteQuantity(used.unwrap_or(0).min(extent.len))
    };
    let usable = || match view.storage {
        Some(storage) => Some(ByteQuantity(storage.usable)),
        None => told(PartitionRole::Storage).and_then(|partition| partition.usable),
    };
    let partition = |(role, extent): (Role, carve::Extent)| PartitionStatus {
        used: match role {
            Role::Storage => used(PartitionRole::Storage, &extent),
            Role::Context => used(PartitionRole::ContextMemory, &extent),
        },
        role: match role {
            Role::Storage => PartitionRole::Storage,
            Role::Context => PartitionRole::ContextMemory,
        },
        start: saturating(extent.start),
        size: ByteQuantity(extent.len),
        usable: match role {
            Role::Storage => usable(),
            Role::Context => None,
        },
    };
    owned.layout.partitions().map(partition).collect()
}

fn health(health: &Health, live: Option<&DriveStatus>, now: &Now) -> Option<DriveHealth> {
    let told = live
        .and_then(|status| status.health.as_ref())
        .and_then(|health| health.wears_out.as_deref());
    match health {
        Health::Smart(smart) => Some(DriveHealth {
            percentage_used: i64::from(smart.used_percent),
            available_spare: i64::from(smart.spare_percent),
            available_spare_threshold: i64::from(smart.spare_threshold_percent),
            critical_warning: i64::from(smart.critical_warning),
            media_errors: saturating(smart.media_errors),
            wears_out: wear::wears_out(smart, now.wall.0, told),
        }),
        Health::None | Health::Unknown { .. } => None,
    }
}

fn saturating(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

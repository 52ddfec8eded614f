//! Storage volumes: where legs lie, what becomes of them, and what volumes and snapshots say.
//!
//! [`plan`] looks at everything and gives the writes that come next. What is promised of a drive is
//! counted in [`ledger`]; [`place`] chooses drives; `claim` tells whose leg is whose;
//! `docs/decisions/0011` has the reasons.

mod array;
mod attach;
mod capacity;
mod check;
mod claim;
mod due;
mod evacuate;
mod growth;
mod heard;
pub mod ledger;
mod leg;
pub mod loss;
pub mod place;
pub mod shape;
mod site;
mod snapshot;
mod source;
mod state;
mod story;
mod tell;
mod volume;

use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use ledger::Ledger;
use std::{collections::BTreeMap, fmt, time::Duration};
use strand_api::{
    AttachmentPhase, ByteQuantity, Drive, DriveOperation, DriveOperationStatus, LegArray,
    MemoryPool, PlacedLeg, PoolLeg, PoolLegSpec, PoolSnapshot, PoolSnapshotStatus, PoolVolume,
    PoolVolumeStatus, SnapshotCheck, VolumeArray, condition, names,
};

pub use capacity::{Capacity, Kind, capacity};
pub use claim::stored_legs;
pub use due::due;
pub use heard::Heard;
pub use story::{snapshot_stories, stories};

/// Logical block size of every leg, in bytes.
const BLOCK: u64 = 4096;
/// An object this young may know of others that have not been seen yet, and normal progress on it is
/// not told.
const YOUNG: Duration = Duration::from_secs(5);

/// Everything that storage decisions are made from.
#[derive(Default)]
pub struct Storage<'a> {
    /// All pools.
    pub pools: Vec<&'a MemoryPool>,
    /// All nodes, by name.
    pub nodes: BTreeMap<&'a str, &'a Node>,
    /// All drives.
    pub drives: Vec<&'a Drive>,
    /// All volumes.
    pub volumes: Vec<&'a PoolVolume>,
    /// All legs.
    pub legs: Vec<&'a PoolLeg>,
    /// All snapshots.
    pub snapshots: Vec<&'a PoolSnapshot>,
    /// All operations.
    pub operations: Vec<&'a DriveOperation>,
    /// Since when legs are not reached, where that is known better than their consumers' clocks tell.
    pub heard: Option<&'a Heard>,
}

impl<'a> Storage<'a> {
    /// The pool of that name.
    pub fn pool(&self, name: &str) -> Option<&'a MemoryPool> {
        let named = |p: &&&MemoryPool| p.metadata.name.as_deref() == Some(name);
        self.pools.iter().find(named).copied()
    }
}

/// One write to the API, made from the object as it was observed and with its resourceVersion; what
/// is made anew is created, and fails if there is something of that name.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write down where a volume's legs lie.
    PlaceVolume {
        /// The volume.
        volume: String,
        /// Its `spec.legs`.
        legs: Vec<PlacedLeg>,
        /// Its `spec.array`.
        array: Option<VolumeArray>,
    },
    /// Write down where a snapshot's legs lie.
    PlaceSnapshot {
        /// The snapshot.
        snapshot: String,
        /// Its `spec.legs`.
        legs: Vec<PlacedLeg>,
        /// Its `spec.check`.
        check: Option<SnapshotCheck>,
    },
    /// Create a PoolLeg.
    MakeLeg {
        /// Its name.
        leg: String,
        /// Its spec.
        spec: Box<PoolLegSpec>,
    },
    /// Replace a PoolLeg's spec.
    ChangeLeg {
        /// Its name.
        leg: String,
        /// Its spec.
        spec: Box<PoolLegSpec>,
    },
    /// Delete the object of a leg whose bytes are gone.
    DropLeg {
        /// Its name.
        leg: String,
    },
    /// Write a volume's status.
    SetVolumeStatus {
        /// The volume.
        volume: String,
        /// The status.
        status: Box<PoolVolumeStatus>,
    },
    /// Write a snapshot's status.
    SetSnapshotStatus {
        /// The snapshot.
        snapshot: String,
        /// The status.
        status: Box<PoolSnapshotStatus>,
    },
    /// Write the status of an operation that empties a drive.
    SetOperationStatus {
        /// The operation.
        operation: String,
        /// The status.
        status: Box<DriveOperationStatus>,
    },
    /// Delete the object of a marked volume whose bytes are gone.
    DropVolume {
        /// The volume.
        volume: String,
    },
    /// Delete the object of a marked snapshot whose bytes are gone.
    DropSnapshot {
        /// The snapshot.
        snapshot: String,
    },
}

/// Plans. Equal inputs give equal plans in whatever order the objects stand, and a plan whose
/// actions have all been carried out and observed is followed by an empty one, unless an agent acts
/// or time passes.
pub fn plan(storage: &Storage, now: Timestamp) -> Vec<Action> {
    let claims = claim::Claims::new(storage);
    let mut pass = Pass {
        storage,
        now,
        drives: storage
            .drives
            .iter()
            .filter_map(|d| Some((d.metadata.name.as_deref()?, *d)))
            .collect(),
        volumes: storage
            .volumes
            .iter()
            .filter_map(|v| Some((v.metadata.name.as_deref()?, *v)))
            .collect(),
        evacuations: evacuate::Evacuations::new(storage, &claims, now),
        claims,
        ledger: Ledger::new(storage),
        actions: Vec::new(),
    };
    // Who came first is served first. Snapshots stand in line with volumes: both take room.
    let mut line: Vec<Owner> = storage.volumes.iter().map(|v| Owner::Volume(v)).collect();
    line.extend(storage.snapshots.iter().map(|s| Owner::Snapshot(s)));
    line.sort_by_key(|owner| {
        let meta = owner.meta();
        (
            meta.creation_timestamp.as_ref().map(|t| t.0),
            matches!(owner, Owner::Snapshot(_)),
            meta.name.clone(),
        )
    });
    for owner in line {
        match owner {
            Owner::Volume(volume) => volume::plan(&mut pass, volume),
            Owner::Snapshot(snapshot) => snapshot::plan(&mut pass, snapshot),
        }
    }
    leg::plan(&mut pass);
    evacuate::tell(&mut pass);
    pass.actions
}

/// What is being decided, and what was decided so far.
struct Pass<'p, 'a> {
    storage: &'p Storage<'a>,
    now: Timestamp,
    drives: BTreeMap<&'a str, &'a Drive>,
    volumes: BTreeMap<&'a str, &'a PoolVolume>,
    claims: claim::Claims<'a>,
    ledger: Ledger<'a>,
    evacuations: evacuate::Evacuations<'a>,
    actions: Vec<Action>,
}

/// What legs belong to.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Volume(&'a PoolVolume),
    Snapshot(&'a PoolSnapshot),
}

impl<'a> Owner<'a> {
    fn meta(self) -> &'a kube::api::ObjectMeta {
        match self {
            Self::Volume(volume) => &volume.metadata,
            Self::Snapshot(snapshot) => &snapshot.metadata,
        }
    }

    fn uid(self) -> &'a str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    fn name(self) -> &'a str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    fn marked(self) -> bool {
        match self {
            Self::Volume(volume) => volume.spec.deletion_mark,
            Self::Snapshot(snapshot) => snapshot.spec.deletion_mark,
        }
    }

    fn placed(self) -> &'a [PlacedLeg] {
        match self {
            Self::Volume(volume) => &volume.spec.legs,
            Self::Snapshot(snapshot) => &snapshot.spec.legs,
        }
    }

    /// The spec of a leg that has no object. A snapshot's has the size of its origin, which is not
    /// known here.
    fn leg_spec(self, placed: &PlacedLeg) -> PoolLegSpec {
        let (volume, snapshot) = match self {
            Self::Volume(volume) => (Some(&volume.spec), None),
            Self::Snapshot(snapshot) => (None, Some(&snapshot.spec)),
        };
        PoolLegSpec {
            volume: snapshot.map_or(self.name(), |s| &s.volume).into(),
            snapshot: snapshot.map(|_| self.name().into()),
            owner_uid: self.uid().into(),
            node_name: placed.node_name.clone(),
            drive: placed.drive.clone(),
            index: placed.index,
            size: ByteQuantity(self.leg_size()),
            provisioning: volume.map_or(Default::default(), |v| v.provisioning),
            volume_mode: volume.map(|v| v.volume_mode),
            array: self.array(),
            source: None,
            copy: None,
            uuid: placed.uuid.clone(),
            limits: volume.and_then(|v| v.limits.clone()),
            exports: Vec::new(),
            orphaned: false,
            deletion_mark: false,
        }
    }

    /// Bytes of a leg; of a snapshot's what is known of it here.
    fn leg_size(self) -> u64 {
        match self {
            Self::Volume(volume) => site::leg_size(volume),
            Self::Snapshot(_) => leg_size(0),
        }
    }

    fn array(self) -> Option<LegArray> {
        match self {
            Self::Volume(volume) => array::of_leg(volume),
            Self::Snapshot(_) => None,
        }
    }

    /// The first free name for a leg.
    fn leg_name(self, index: i32, taken: impl Fn(&str) -> bool) -> String {
        (0..)
            .map(|attempt| match self {
                Self::Volume(_) => names::leg_name(self.name(), index, attempt),
                Self::Snapshot(_) => names::snapshot_leg_name(self.name(), index, attempt),
            })
            .find(|name| !taken(name))
            .unwrap_or_default()
    }
}

/// The size of a single leg of a volume of this size: whole blocks, at least one.
fn leg_size(volume: u64) -> u64 {
    volume.max(1).div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// The leg that has the name of the one that a snapshot's leg is, or was, taken of.
fn origin<'a>(storage: &Storage<'a>, snapshot: &PoolSnapshot, index: i32) -> Option<&'a PoolLeg> {
    let volume = storage
        .volumes
        .iter()
        .find(|v| v.metadata.name.as_ref() == Some(&snapshot.spec.volume))?;
    let placed = volume.spec.legs.iter().find(|l| l.index == index)?;
    let named = |l: &&&PoolLeg| l.metadata.name.as_ref() == Some(&placed.name);
    storage.legs.iter().find(named).copied()
}

fn young(meta: &kube::api::ObjectMeta, now: Timestamp, for_: Duration) -> bool {
    meta.creation_timestamp
        .as_ref()
        .is_some_and(|t| now.duration_since(t.0).unsigned_abs() < for_)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legs = |legs: &[PlacedLeg]| {
            let legs: Vec<String> = legs
                .iter()
                .map(|l| {
                    let uuid = l.uuid.as_deref().unwrap_or("to be made");
                    let to = l.moving.as_ref();
                    let to = to.map(|to| {
                        let abroad = to.abroad.as_ref();
                        let abroad = abroad
                            .map(|at| format!(" on node {}, as {}", at.node_name, at.generation));
                        format!(
                            ", moving to {} on {}{}",
                            to.name,
                            to.drive,
                            abroad.unwrap_or_default()
                        )
                    });
                    let lack = l.lack.as_ref();
                    let lack = lack.map(|lack| {
                        format!(", {:?} as {}: {}", lack.phase, lack.generation, lack.reason)
                    });
                    format!(
                        "{} on {} ({uuid}{}{})",
                        l.name,
                        l.drive,
                        to.unwrap_or_default(),
                        lack.unwrap_or_default()
                    )
                })
                .collect();
            legs.join(", ")
        };
        match self {
            Self::PlaceVolume {
                volume,
                legs: l,
                array,
            } => {
                write!(f, "volume {volume}: {}", legs(l))?;
                match array {
                    Some(array) if array.formed => write!(f, "; array {}, formed", array.uuid),
                    Some(array) => write!(f, "; array {}", array.uuid),
                    None => Ok(()),
                }?;
                match array.as_ref().map_or(0, |array| array.look) {
                    0 => Ok(()),
                    look => write!(f, ", look {look}"),
                }
            }
            Self::PlaceSnapshot {
                snapshot,
                legs: l,
                check,
            } => {
                write!(f, "snapshot {snapshot}: {}", legs(l))?;
                match check {
                    Some(check) if check.look > 0 => {
                        write!(f, "; {:?}, look {}", check.phase, check.look)
                    }
                    Some(check) => write!(f, "; {:?}", check.phase),
                    None => Ok(()),
                }
            }
            Self::MakeLeg { leg, spec } => write!(f, "leg {leg}: make: {}", leg_words(spec)),
            Self::ChangeLeg { leg, spec } => write!(f, "leg {leg}: change: {}", leg_words(spec)),
            Self::DropLeg { leg } => write!(f, "leg {leg}: its bytes are gone, forget it"),
            Self::SetVolumeStatus { volume, status } => {
                let phase = status.phase.map_or("-".into(), |p| format!("{p:?}"));
                write!(f, "volume {volume}: {phase}, {}", status.size.rounded())?;
                for a in &status.attachments {
                    let mode = if a.read_only { " read-only" } else { "" };
                    let how = match a.phase {
                        AttachmentPhase::Granted => "attached to",
                        AttachmentPhase::Exporting => "being exported to",
                        AttachmentPhase::Fencing => "being fenced from",
                    };
                    write!(f, ", {how} {}{mode} as {}", a.node, a.generation)?;
                }
                words(f, &status.conditions)
            }
            Self::SetSnapshotStatus { snapshot, status } => {
                let ready = if status.ready_to_use {
                    "ready"
                } else {
                    "not ready"
                };
                write!(f, "snapshot {snapshot}: {ready}, {}", status.size.rounded())?;
                words(f, &status.conditions)
            }
            Self::SetOperationStatus { operation, status } => {
                let phase = status.phase.map_or("-".into(), |p| format!("{p:?}"));
                let percent = status.progress_percent.unwrap_or(0);
                write!(
                    f,
                    "operation {operation}: {phase}, {percent} %: {}",
                    status.message
                )
            }
            Self::DropVolume { volume } => {
                write!(f, "volume {volume}: its bytes are gone, forget it")
            }
            Self::DropSnapshot { snapshot } => {
                write!(f, "snapshot {snapshot}: its bytes are gone, forget it")
            }
        }
    }
}

fn leg_words(spec: &PoolLegSpec) -> String {
    let mut words = vec![format!(
        "{} {:?} on {}",
        spec.size.rounded(),
        spec.provisioning,
        spec.drive
    )];
    words.extend(spec.array.iter().map(|array| {
        let redundancy = array::words(array.redundancy);
        format!("leg {} of {} of a {redundancy}", spec.index, array.legs)
    }));
    words.extend(spec.source.iter().map(|source| format!("copy of {source}")));
    words.extend(spec.copy.iter().map(|copy| {
        let (uuid, drive) = (&copy.uuid, &copy.drive);
        match copy.live {
            true => format!("in the place of {uuid} of {drive}"),
            false => {
                let node = copy.node_name.as_ref();
                let node = node.map_or(String::new(), |node| format!(" on node {node}"));
                format!("copy of {uuid} of {drive}{node}, as {}", copy.generation)
            }
        }
    }));
    words.extend(spec.uuid.iter().map(|uuid| format!("must be {uuid}")));
    words.extend(spec.exports.iter().map(|export| {
        let mode = match (export.copy, export.read_only) {
            (true, _) => " for its copy",
            (false, true) => " read-only",
            (false, false) => "",
        };
        let open = if export.insecure {
            ", without a key"
        } else {
            ""
        };
        let (node, generation) = (&export.node, export.generation);
        format!("exported to {node}{mode} as {generation}{open}")
    }));
    for (holds, word) in [
        (spec.snapshot.is_some(), "snapshot"),
        (spec.limits.is_some(), "limited"),
        (spec.orphaned, "orphaned"),
        (spec.deletion_mark, "marked for deletion"),
    ] {
        words.extend(holds.then(|| word.to_owned()));
    }
    words.join(", ")
}

fn words(f: &mut fmt::Formatter<'_>, conditions: &[condition::Condition]) -> fmt::Result {
    for c in conditions {
        write!(f, "; {}={} {}: {}", c.type_, c.status, c.reason, c.message)?;
    }
    Ok(())
}

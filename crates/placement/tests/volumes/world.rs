//! Objects from a line each, and an API server that does what plans ask.

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::api::ObjectMeta;
use serde_json::json;
use std::collections::BTreeMap;
use strand_api::{
    Abroad, ArrayLeg, ArrayRefusal, ArrayStatus, Attachment, AttachmentPhase, Drive, DriveHealth,
    DriveOperation, DriveOperationStatus, DrivePhase, ExportedLeg, LegArray, LegCopy, LegExport,
    LegLack, LegMove, LegPhase, MemoryPool, OperationPhase, PlacedLeg, PoolLeg, PoolLegSpec,
    PoolLegStatus, PoolSnapshot, PoolSnapshotSpec, PoolSnapshotStatus, PoolVolume, PoolVolumeSpec,
    PoolVolumeStatus, Provisioning, Redundancy, SnapshotCheck, VolumeArray, VolumeMode, condition,
    names,
};
use strand_placement::volumes::{self, Action, Storage};

#[derive(Clone, Default)]
pub struct World {
    pub seconds: i64,
    pub born: u32,
    pub pools: Vec<MemoryPool>,
    pub nodes: Vec<Node>,
    pub drives: Vec<Drive>,
    pub volumes: Vec<PoolVolume>,
    pub legs: Vec<PoolLeg>,
    pub snapshots: Vec<PoolSnapshot>,
    pub operations: Vec<DriveOperation>,
}

const POOL_ID: &str = "a1000000-0000-4000-8000-000000000000";

/// A UUID from a short name: `u1` becomes one that begins with it.
pub fn uuid(short: &str) -> String {
    format!("{short:0<8}-0000-4000-8000-000000000000")
}

struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn take(&mut self, key: &str) -> Option<&'a str> {
        self.0.remove(key)
    }
    fn flag(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }
}

impl World {
    pub fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        start + SignedDuration::from_secs(self.seconds)
    }

    fn ago(&self, seconds: i64) -> Time {
        Time(self.now() - SignedDuration::from_secs(seconds))
    }

    /// Whether what an action is about is still what it was when that was decided: else the API refuses it.
    pub fn is_as_in(&self, then: &World, action: &Action) -> bool {
        let of = |world: &World, name: &str| {
            let mut legs = world.legs.iter();
            legs.find(|l| named(&l.metadata, name)).cloned()
        };
        match action {
            Action::PlaceVolume { .. } | Action::SetVolumeStatus { .. } => {
                then.volumes == self.volumes
            }
            Action::ChangeLeg { leg, .. } | Action::DropLeg { leg } => {
                let earlier = of(then, leg);
                earlier.is_some() && earlier == of(self, leg)
            }
            Action::SetOperationStatus { operation, .. } => {
                let mut operations = self.operations.iter();
                operations.any(|o| named(&o.metadata, operation))
            }
            _ => true,
        }
    }

    /// Adds the object that a line describes.
    pub fn add(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let mut words = Words(
            words
                .map(|w| w.split_once('=').unwrap_or((w, "")))
                .collect(),
        );
        match kind {
            "node" => self.node(name, &mut words),
            "pool" => self.pool(name, &mut words),
            "drive" => self.drive(name, &mut words),
            "volume" => self.volume(name, &mut words),
            "leg" => self.leg(name, &mut words),
            "snapshot" => self.snapshot(name, &mut words),
            "evacuate" => self.evacuate(name, &mut words),
            other => panic!("{other:?} in {line:?}"),
        }
        let left: Vec<_> = words.0.keys().collect();
        assert!(left.is_empty(), "unknown words {left:?} in {line:?}");
    }

    pub fn meta(&mut self, name: &str, uid: String) -> ObjectMeta {
        self.born += 1;
        ObjectMeta {
            name: Some(name.into()),
            uid: Some(uid),
            generation: Some(1),
            creation_timestamp: Some(self.ago(0)),
            ..Default::default()
        }
    }

    fn node(&mut self, name: &str, words: &mut Words) {
        let status = if words.flag("notready") {
            "False"
        } else {
            "True"
        };
        let ready = NodeCondition {
            type_: "Ready".into(),
            status: status.into(),
            ..Default::default()
        };
        let cordoned = NodeSpec {
            unschedulable: Some(words.flag("cordoned")),
            ..Default::default()
        };
        self.nodes.push(Node {
            metadata: ObjectMeta {
                name: Some(name.into()),
                ..Default::default()
            },
            spec: Some(cordoned),
            status: Some(NodeStatus {
                conditions: Some(vec![ready]),
                ..Default::default()
            }),
        });
    }

    /// `pool NAME [insecure]`
    fn pool(&mut self, name: &str, words: &mut Words) {
        let insecure = words.flag("insecure");
        let spec =
            json!({"drives": {"models": ["*"]}, "poolID": POOL_ID, "insecureFabric": insecure});
        let mut pool = MemoryPool::new(name, serde_json::from_value(spec).unwrap());
        pool.metadata = self.meta(name, "pool".into());
        self.pools.push(pool);
    }

    /// `drive NODE/NAME storage=SIZE [cordoned] [missing] [failing] [ailing=REASON] [wear=N] [used=SIZE]`: `usable` is what is given.
    fn drive(&mut self, name: &str, words: &mut Words) {
        let (node, short) = name.split_once('/').unwrap();
        let object = format!("{node}-{short}");
        let phase = if words.flag("missing") {
            "Missing"
        } else {
            "Ready"
        };
        let storage = words.take("storage").unwrap();
        let used = words.take("used").unwrap_or("0");
        let mut drive: Drive = serde_json::from_value(json!({
            "metadata": {"name": object},
            "spec": {"nodeName": node, "pool": "default", "poolID": POOL_ID, "cordon": words.flag("cordoned")},
            "status": {
                "verdict": "Pooled", "phase": phase, "size": "1Ti",
                "label": {"pool": "default", "poolID": POOL_ID, "driveID": uuid("d"), "generation": 1},
                "partitions": [{"role": "Storage", "start": 0, "size": storage, "usable": storage, "used": used}],
            },
        }))
        .unwrap();
        let health = DriveHealth {
            percentage_used: words.take("wear").unwrap_or("0").parse().unwrap(),
            critical_warning: i64::from(words.flag("failing")),
            ..Default::default()
        };
        let status = drive.status.as_mut().unwrap();
        status.health = Some(health);
        if let Some(reason) = words.take("ailing") {
            let at = self.ago(600);
            let told = condition::condition(&[], &at, names::HEALTHY, false, reason, "", None);
            status.conditions.push(told);
        }
        assert!(matches!(
            status.phase,
            Some(DrivePhase::Ready | DrivePhase::Missing)
        ));
        self.drives.push(drive);
    }

    /// `evacuate DRIVE [rate=SIZE] [running] [total=SIZE] [serial=S] [age=SECONDS]`
    fn evacuate(&mut self, drive: &str, words: &mut Words) {
        let mut operation: DriveOperation = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"type": "Evacuate", "drive": drive, "serial": words.take("serial").unwrap_or("S")},
        }))
        .unwrap();
        operation.spec.rate = words.take("rate").map(|rate| rate.parse().unwrap());
        operation.metadata = self.meta(&format!("evacuate-{drive}"), format!("uid-op-{drive}"));
        let age = words.take("age").unwrap_or("600").parse().unwrap();
        operation.metadata.creation_timestamp = Some(self.ago(age));
        if words.flag("running") {
            operation.status = Some(DriveOperationStatus {
                phase: Some(OperationPhase::Running),
                total_bytes: words.take("total").map(|total| total.parse().unwrap()),
                ..Default::default()
            });
        }
        self.operations.push(operation);
    }

    /// `legs=NAME@DRIVE[:UUID][>NAME@DRIVE[:GENERATION]][!PHASE/REASON/GENERATION/SECONDS],…`
    fn placed(&self, words: &mut Words) -> Vec<PlacedLeg> {
        let Some(text) = words.take("legs") else {
            return Vec::new();
        };
        text.split(',')
            .enumerate()
            .map(|(index, leg)| {
                let (leg, lack) = leg
                    .split_once('!')
                    .map_or((leg, None), |(l, lack)| (l, Some(self.lack(lack))));
                let (leg, to) = leg
                    .split_once('>')
                    .map_or((leg, None), |(l, to)| (l, Some(to)));
                let moving = to.and_then(|to| to.split_once('@')).map(|(name, place)| {
                    let (drive, generation) = place
                        .split_once(':')
                        .map_or((place, None), |(d, g)| (d, Some(g)));
                    LegMove {
                        name: name.into(),
                        drive: drive.into(),
                        abroad: generation.map(|generation| Abroad {
                            node_name: drive.rsplit_once('-').unwrap().0.into(),
                            generation: generation.parse().unwrap(),
                        }),
                    }
                });
                let (name, place) = leg.split_once('@').unwrap();
                let (drive, id) = place
                    .split_once(':')
                    .map_or((place, None), |(d, u)| (d, Some(u)));
                PlacedLeg {
                    name: name.into(),
                    index: index as i32,
                    node_name: drive.rsplit_once('-').unwrap().0.into(),
                    drive: drive.into(),
                    uuid: id.map(uuid),
                    moving,
                    lack,
                }
            })
            .collect()
    }

    fn lack(&self, text: &str) -> LegLack {
        let parts: Vec<&str> = text.split('/').collect();
        LegLack {
            phase: serde_json::from_value(json!(parts[0])).unwrap(),
            reason: parts[1].into(),
            generation: parts[2].parse().unwrap(),
            since: self.ago(parts[3].parse().unwrap()),
        }
    }

    /// `told=NODE/GENERATION[,UUID/HOLDING/SECONDS[/PERCENT]]…`
    fn told(&self, text: &str, refused: Option<&str>) -> ArrayStatus {
        let mut parts = text
            .split(',')
            .map(|part| part.split('/').collect::<Vec<_>>());
        let head = parts.next().unwrap();
        ArrayStatus {
            node: head[0].into(),
            generation: head[1].parse().unwrap(),
            legs: parts
                .map(|leg| ArrayLeg {
                    uuid: uuid(leg[0]),
                    holding: serde_json::from_value(json!(leg[1])).unwrap(),
                    since: self.ago(leg[2].parse().unwrap()),
                    percent: leg.get(3).map(|percent| percent.parse().unwrap()),
                })
                .collect(),
            looked: 0,
            stopped: false,
            resyncing: false,
            refused: refused.map(|reason| ArrayRefusal {
                reason: reason.into(),
                message: "words of the agent".into(),
            }),
        }
    }

    /// `volume NAME size=… [thin] [node=N|prefer=N] [from=volume:V|snapshot:S] [attach=N[:ro],…] [attached=N:GEN[:ro][:exporting|:fencing],…]
    /// [generation=N] [legs=…] [marked] [age=SECONDS] [redundancy=R] [array=UUID[:formed]] [look=N] [told=…] [looked=N] [stopped] [resyncing] [refused=REASON]
    /// [waiting=SECONDS]`
    fn volume(&mut self, name: &str, words: &mut Words) {
        let mut spec = json!({"pool": words.take("pool").unwrap_or("default"), "size": words.take("size").unwrap_or("10Gi"), "volumeMode": "Filesystem"});
        if words.flag("thin") {
            spec["provisioning"] = json!("Thin");
        }
        if let Some(redundancy) = words.take("redundancy") {
            spec["redundancy"] = json!(redundancy);
        }
        if let Some(node) = words.take("node") {
            (spec["locality"], spec["nodeName"]) = (json!("Node"), json!(node));
        }
        if let Some(node) = words.take("prefer") {
            spec["nodeName"] = json!(node);
        }
        if let Some((kind, source)) = words.take("from").and_then(|s| s.split_once(':')) {
            spec["source"] = json!({kind: source});
        }
        if let Some(iops) = words.take("iops") {
            spec["limits"] = json!({"iops": iops.parse::<i64>().unwrap()});
        }
        if let Some(nodes) = words.take("attach") {
            let entry = |n: &str| match n.split_once(':') {
                Some((node, _)) => json!({"node": node, "readOnly": true}),
                None => json!({"node": n}),
            };
            spec["attachTo"] = nodes.split(',').map(entry).collect();
        }
        spec["deletionMark"] = json!(words.flag("marked"));
        let mut spec: PoolVolumeSpec = serde_json::from_value(spec).unwrap();
        spec.legs = self.placed(words);
        spec.array = words.take("array").map(|text| {
            let (id, formed) = text
                .split_once(':')
                .map_or((text, false), |(u, _)| (u, true));
            VolumeArray {
                uuid: uuid(id),
                formed,
                look: words.take("look").map_or(0, |look| look.parse().unwrap()),
            }
        });
        let mut volume = PoolVolume::new(name, spec);
        volume.metadata = self.meta(name, format!("uid-{name}"));
        let age = words.take("age").unwrap_or("600").parse().unwrap();
        volume.metadata.creation_timestamp = Some(self.ago(age));
        let attachments: Vec<Attachment> = words
            .take("attached")
            .into_iter()
            .flat_map(|t| t.split(','))
            .map(|t| {
                let parts: Vec<&str> = t.split(':').collect();
                Attachment {
                    node: parts[0].into(),
                    generation: parts[1].parse().unwrap(),
                    read_only: parts.contains(&"ro"),
                    phase: match parts.last() {
                        Some(&"exporting") => AttachmentPhase::Exporting,
                        Some(&"fencing") => AttachmentPhase::Fencing,
                        _ => AttachmentPhase::Granted,
                    },
                }
            })
            .collect();
        let highest = attachments.iter().map(|a| a.generation).max().unwrap_or(0);
        let generation = words
            .take("generation")
            .map_or(highest, |g| g.parse().unwrap());
        if generation > 0 {
            volume.status = Some(PoolVolumeStatus {
                attachment_generation: generation,
                attachments,
                ..Default::default()
            });
        }
        if let Some(told) = words.take("told") {
            let refused = words.take("refused");
            volume.status.get_or_insert_default().array = Some(ArrayStatus {
                resyncing: words.flag("resyncing"),
                stopped: words.flag("stopped"),
                looked: words.take("looked").map_or(0, |look| look.parse().unwrap()),
                ..self.told(told, refused)
            });
        }
        if let Some(since) = words.take("waiting") {
            let at = self.ago(since.parse().unwrap());
            let waiting =
                condition::condition(&[], &at, names::ATTACHED, false, "NodeNotReady", "", None);
            let status = volume.status.get_or_insert_default();
            status.conditions.push(waiting);
        }
        self.volumes.push(volume);
    }

    /// `leg NAME of=VOLUME on=DRIVE [size=…] [thin] [ready=UUID | failed=REASON | deleted | orphan=UUID] [must=UUID] [marked] [orphaned] [snapshot=S] [source=L] [stored=N] [mirror=UUID] [made=SIZE] [unhealthy=REASON]
    /// [exports=GEN@NODE[:ro|:copy][:open],…] [exported=GEN,…] [unexported] [copy=UUID@DRIVE[/NODE]:GENERATION[:live]] [copied=SIZE] [unseen] [age=SECONDS]`
    fn leg(&mut self, name: &str, words: &mut Words) {
        let drive = words.take("on").unwrap();
        let volume = words.take("of").unwrap();
        let snapshot = words.take("snapshot");
        let size = words.take("size").unwrap_or("10Gi").parse().unwrap();
        let spec = PoolLegSpec {
            volume: volume.into(),
            owner_uid: words
                .take("owner")
                .map_or(format!("uid-{}", snapshot.unwrap_or(volume)), Into::into),
            snapshot: snapshot.map(Into::into),
            node_name: drive.rsplit_once('-').unwrap().0.into(),
            drive: drive.into(),
            index: 0,
            size,
            provisioning: if words.flag("thin") {
                Provisioning::Thin
            } else {
                Provisioning::Thick
            },
            volume_mode: Some(VolumeMode::Filesystem),
            array: words.take("mirror").map(|array| LegArray {
                uuid: uuid(array),
                redundancy: Redundancy::Mirror,
                legs: 2,
            }),
            source: words.take("source").map(Into::into),
            copy: words.take("copy").map(copy),
            uuid: words.take("must").map(uuid),
            limits: None,
            exports: words.take("exports").map_or_else(Vec::new, exports),
            orphaned: words.flag("orphaned"),
            deletion_mark: words.flag("marked"),
        };
        let ready = words.take("ready");
        let orphan = words.take("orphan");
        let failed = words.take("failed");
        let deleted = words.flag("deleted");
        let phase = match (ready, orphan, failed, deleted) {
            (Some(_), ..) => Some(LegPhase::Ready),
            (_, Some(_), ..) => Some(LegPhase::Orphaned),
            (_, _, Some(_), _) => Some(LegPhase::Failed),
            (_, _, _, true) => Some(LegPhase::Deleted),
            _ if words.0.contains_key("copied") => Some(LegPhase::Pending),
            _ => None,
        };
        let told = |type_, reason: Option<&str>| {
            let at = self.ago(0);
            reason.map(|r| {
                condition::condition(&[], &at, type_, false, r, "words of the agent", None)
            })
        };
        let ill = words.take("unhealthy");
        let unexported = words.flag("unexported").then_some("NoModule");
        let mut leg = PoolLeg::new(name, spec);
        leg.status = phase.map(|phase| PoolLegStatus {
            phase: Some(phase),
            uuid: ready.or(orphan).map(uuid),
            size: if let Some(made) = words.take("made") {
                made.parse().unwrap()
            } else if ready.or(orphan).is_some() {
                size
            } else {
                Default::default()
            },
            attachment_generation: words.take("stored").map(|g| g.parse().unwrap()),
            exports: words.take("exported").map_or_else(Vec::new, exported),
            copied: words.take("copied").map(|size| size.parse().unwrap()),
            observed_generation: (!words.flag("unseen")).then_some(1),
            taken_at: snapshot.and(ready).map(|_| self.ago(60)),
            conditions: told(names::READY, failed)
                .into_iter()
                .chain(told(names::HEALTHY, ill))
                .chain(told(names::EXPORTED, unexported))
                .collect(),
            ..Default::default()
        });
        leg.metadata = self.meta(name, format!("uid-{name}"));
        let age = words.take("age").unwrap_or("600").parse().unwrap();
        leg.metadata.creation_timestamp = Some(self.ago(age));
        self.legs.push(leg);
    }

    /// `snapshot NAME of=VOLUME [legs=…] [check=PHASE/GENERATION/LOOK] [marked] [size=…]`
    fn snapshot(&mut self, name: &str, words: &mut Words) {
        let spec = PoolSnapshotSpec {
            volume: words.take("of").unwrap().into(),
            legs: self.placed(words),
            group: None,
            check: words.take("check").map(|text| {
                let parts: Vec<&str> = text.split('/').collect();
                SnapshotCheck {
                    phase: serde_json::from_value(json!(parts[0])).unwrap(),
                    generation: parts[1].parse().unwrap(),
                    look: parts[2].parse().unwrap(),
                }
            }),
            deletion_mark: words.flag("marked"),
        };
        let mut snapshot = PoolSnapshot::new(name, spec);
        for leg in &mut snapshot.spec.legs {
            // One of a mirror's second leg is called s-s1.
            let index = leg.name.rsplit_once("-s").map(|(_, index)| index.parse());
            if let Some(Ok(index)) = index {
                leg.index = index;
            }
        }
        snapshot.metadata = self.meta(name, format!("uid-{name}"));
        snapshot.metadata.creation_timestamp = Some(self.ago(600));
        snapshot.status = words.take("size").map(|size| PoolSnapshotStatus {
            ready_to_use: true,
            size: size.parse().unwrap(),
            ..Default::default()
        });
        self.snapshots.push(snapshot);
    }

    pub fn storage(&self) -> Storage<'_> {
        Storage {
            pools: self.pools.iter().collect(),
            nodes: self
                .nodes
                .iter()
                .map(|n| (n.metadata.name.as_deref().unwrap(), n))
                .collect(),
            drives: self.drives.iter().collect(),
            volumes: self.volumes.iter().collect(),
            legs: self.legs.iter().collect(),
            snapshots: self.snapshots.iter().collect(),
            operations: self.operations.iter().collect(),
            heard: None,
        }
    }

    pub fn plan(&self) -> Vec<Action> {
        volumes::plan(&self.storage(), self.now())
    }

    /// Does to the objects what the API server would; false where it would refuse.
    pub fn apply(&mut self, action: &Action) -> bool {
        match action.clone() {
            Action::PlaceVolume {
                volume,
                legs,
                array,
            } => {
                let volume = self.volume_mut(&volume).unwrap();
                volume.spec.legs = legs;
                volume.spec.array = array;
                *volume.metadata.generation.as_mut().unwrap() += 1;
            }
            Action::PlaceSnapshot {
                snapshot,
                legs,
                check,
            } => {
                let found = self
                    .snapshots
                    .iter_mut()
                    .find(|s| named(&s.metadata, &snapshot));
                let found = found.unwrap();
                found.spec.legs = legs;
                found.spec.check = check;
            }
            Action::MakeLeg { leg, spec } => {
                if self.legs.iter().any(|l| named(&l.metadata, &leg)) {
                    return false;
                }
                let mut object = PoolLeg::new(&leg, *spec);
                object.metadata = self.meta(&leg, format!("uid-leg-{}", self.born));
                self.legs.push(object);
            }
            Action::ChangeLeg { leg, spec } => {
                let found = self.legs.iter_mut().find(|l| named(&l.metadata, &leg));
                let found = found.unwrap();
                assert!(spec.size >= found.spec.size && spec.drive == found.spec.drive);
                assert!(
                    spec.provisioning == found.spec.provisioning
                        && spec.volume == found.spec.volume
                );
                assert!(found.spec.uuid.is_none() || spec.uuid == found.spec.uuid);
                assert!(spec.deletion_mark || !found.spec.deletion_mark);
                found.spec = *spec;
                *found.metadata.generation.as_mut().unwrap() += 1;
            }
            Action::DropLeg { leg } => self.legs.retain(|l| !named(&l.metadata, &leg)),
            Action::SetVolumeStatus { volume, status } => {
                let volume = self.volume_mut(&volume).unwrap();
                let array = volume.status.as_mut().and_then(|s| s.array.take());
                volume.status = Some(PoolVolumeStatus { array, ..*status });
            }
            Action::SetSnapshotStatus { snapshot, status } => {
                let found = self
                    .snapshots
                    .iter_mut()
                    .find(|s| named(&s.metadata, &snapshot));
                found.unwrap().status = Some(*status);
            }
            Action::SetOperationStatus { operation, status } => {
                let mut found = self.operations.iter_mut();
                let found = found.find(|o| named(&o.metadata, &operation));
                found.unwrap().status = Some(*status);
            }
            Action::DropVolume { volume } => self.volumes.retain(|v| !named(&v.metadata, &volume)),
            Action::DropSnapshot { snapshot } => {
                self.snapshots.retain(|s| !named(&s.metadata, &snapshot));
            }
        }
        true
    }

    pub fn volume_mut(&mut self, name: &str) -> Option<&mut PoolVolume> {
        self.volumes.iter_mut().find(|v| named(&v.metadata, name))
    }
}

/// `GEN@NODE[:ro|:copy][:open],…`
fn exports(text: &str) -> Vec<LegExport> {
    let one = |text: &str| {
        let (generation, rest) = text.split_once('@').unwrap();
        let parts: Vec<&str> = rest.split(':').collect();
        LegExport {
            generation: generation.parse().unwrap(),
            node: parts[0].into(),
            read_only: parts.contains(&"ro") || parts.contains(&"copy"),
            copy: parts.contains(&"copy"),
            insecure: parts.contains(&"open"),
        }
    };
    text.split(',').map(one).collect()
}

/// `GEN,…`
fn exported(text: &str) -> Vec<ExportedLeg> {
    let one = |text: &str| exported_as(text.parse().unwrap());
    text.split(',').map(one).collect()
}

/// What an agent tells of a leg that it exports.
pub fn exported_as(generation: i64) -> ExportedLeg {
    ExportedLeg {
        generation,
        address: "10.0.0.1".into(),
        port: 4420,
        rdma: false,
    }
}

/// `UUID@DRIVE[/NODE]:GENERATION[:live]`
fn copy(text: &str) -> LegCopy {
    let (id, rest) = text.split_once('@').unwrap();
    let mut parts = rest.split(':');
    let place = parts.next().unwrap();
    let (drive, node) = place
        .split_once('/')
        .map_or((place, None), |(d, n)| (d, Some(n)));
    LegCopy {
        uuid: uuid(id),
        drive: drive.into(),
        node_name: node.map(Into::into),
        generation: parts.next().unwrap().parse().unwrap(),
        rate: strand_api::ByteQuantity(200 << 20),
        live: parts.next().is_some(),
    }
}

pub fn named(meta: &ObjectMeta, name: &str) -> bool {
    meta.name.as_deref() == Some(name)
}

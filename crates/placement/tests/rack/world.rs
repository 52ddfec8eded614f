//! A rack in memory: objects from a line each, and an API server and agents that do what they are asked.

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, NodeStatus},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
    jiff::{SignedDuration, Timestamp},
};
use kube::api::ObjectMeta;
use std::{collections::BTreeMap, time::Duration};
use strand_api::{
    Adoption, ByteQuantity, CarvePolicy, DeletionPolicy, Drive, DriveCarve, DriveIdentity,
    DriveOperation, DriveOperationSpec, DriveOperationStatus, DrivePhase, DriveReason,
    DriveSelector, DriveSpec, DriveStatus, DriveVerdict, LabelStatus, MapNode, MemoryPool,
    MemoryPoolSpec, OperationPhase, OperationType, PartitionRole, PartitionStatus, PoolMap,
    PoolMapSpec, Transport, condition, names,
};
use strand_placement::{
    carve::{self, Geometry, Role, Split},
    rack::{self, Action, Rack},
};

#[derive(Clone, Default)]
pub struct World {
    pub pools: Vec<MemoryPool>,
    pub nodes: Vec<Node>,
    pub drives: Vec<Drive>,
    pub maps: Vec<PoolMap>,
    pub operations: Vec<DriveOperation>,
    /// How many legs of volumes drives hold.
    pub legs: BTreeMap<String, usize>,
}

pub fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn ago(text: &str) -> Time {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => panic!("{text}: give a time like 90s, 5m, 2h or 3d"),
    };
    Time(now() - SignedDuration::from_secs(number.parse::<i64>().unwrap() * seconds))
}

/// `key=value` words behind the name of an object.
struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn new(words: &[&'a str]) -> Self {
        Self(
            words
                .iter()
                .map(|w| w.split_once('=').unwrap_or((w, "")))
                .collect(),
        )
    }
    fn take(&mut self, key: &str) -> Option<&'a str> {
        self.0.remove(key)
    }
    fn flag(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }
    fn end(self, line: &str) {
        assert!(
            self.0.is_empty(),
            "unknown words {:?} in {line:?}",
            self.0.keys()
        );
    }
}

/// An identity from a short name: `a1` becomes a UUID that begins with it.
fn uuid(short: &str) -> String {
    format!("{short:0<8}-0000-4000-8000-000000000000")
}

impl World {
    /// Adds the object that a line describes.
    pub fn add(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "node" => self.nodes.push(node(words[1], &words[2..], line)),
            "pool" => self.pools.push(pool(words[1], &words[2..], line)),
            "drive" => self.drives.push(drive(words[1], &words[2..], line)),
            "legs" => {
                let (drive, legs) = (words[1].into(), words[2].parse().unwrap());
                self.legs.insert(drive, legs);
            }
            "map" => self.maps.push(map(words[1], &words[2..], line)),
            "operation" => self.operations.push(operation(words[1], &words[2..], line)),
            other => {
                panic!("{other:?} in {line:?}: expected node, pool, drive, legs, map or operation")
            }
        }
    }

    pub fn plan(&self) -> Vec<Action> {
        self.plan_at(now())
    }

    pub fn plan_at(&self, now: Timestamp) -> Vec<Action> {
        let nodes = self
            .nodes
            .iter()
            .map(|n| (n.metadata.name.as_deref().unwrap(), n))
            .collect();
        let maps = self
            .maps
            .iter()
            .map(|m| (m.metadata.name.as_deref().unwrap(), m))
            .collect();
        rack::plan(
            &Rack {
                pools: self.pools.iter().collect(),
                nodes,
                drives: self.drives.iter().collect(),
                maps,
                operations: self.operations.iter().collect(),
                legs: self.legs.iter().map(|(d, n)| (d.as_str(), *n)).collect(),
            },
            now,
        )
    }

    /// Does to the objects what the API server would.
    pub fn apply(&mut self, action: &Action) {
        match action.clone() {
            Action::SetPoolId { pool, id } => self.pool(&pool).spec.pool_id = Some(id),
            Action::HoldPool { pool, hold } => {
                let object = self.pool(&pool);
                object.metadata.finalizers = hold.then(|| vec![names::FINALIZER.into()]);
                if !hold && object.metadata.deletion_timestamp.is_some() {
                    self.pools
                        .retain(|p| p.metadata.name.as_ref() != Some(&pool));
                    self.maps
                        .retain(|m| m.metadata.name.as_ref() != Some(&pool));
                }
            }
            Action::SetStatus { pool, status } => self.pool(&pool).status = Some(*status),
            Action::Want { drive, claim } => {
                let object = self.drive(&drive);
                object.metadata.finalizers = claim.as_ref().map(|_| vec![names::FINALIZER.into()]);
                object.spec.pool = claim.as_ref().map(|c| c.pool.clone());
                object.spec.pool_id = claim.as_ref().map(|c| c.pool_id.clone());
                object.spec.carve = claim.map(|c| c.carve);
                if object.metadata.finalizers.is_none()
                    && object.metadata.deletion_timestamp.is_some()
                {
                    self.drives
                        .retain(|d| d.metadata.name.as_ref() != Some(&drive));
                }
            }
            Action::Explain { drive, refusal } => {
                let status = self.drive(&drive).status.as_mut().unwrap();
                status.conditions = refusal
                    .map(|r| {
                        condition::condition(
                            &[],
                            &Time(now()),
                            names::ADOPTED,
                            false,
                            r.code(),
                            r.to_string(),
                            None,
                        )
                    })
                    .into_iter()
                    .collect();
            }
            Action::DropDrive { drive } => self
                .drives
                .retain(|d| d.metadata.name.as_ref() != Some(&drive)),
            Action::PublishMap { pool, map } => {
                self.maps
                    .retain(|m| m.metadata.name.as_ref() != Some(&pool));
                self.maps.push(PoolMap::new(&pool, map));
            }
            Action::Release { drive, serial, .. } => {
                let spec = DriveOperationSpec {
                    type_: OperationType::Release,
                    drive: drive.clone(),
                    serial,
                    rate: None,
                };
                self.operations
                    .push(DriveOperation::new(&rack::release_name(&drive), spec));
            }
            Action::RetryRelease { operation } => self
                .operations
                .retain(|o| o.metadata.name.as_ref() != Some(&operation)),
            Action::Forget { operation, drive } => {
                if let Some(drive) = drive {
                    self.drives
                        .retain(|d| d.metadata.name.as_ref() != Some(&drive));
                }
                self.end(&operation, OperationPhase::Succeeded);
            }
            Action::Deny { operation, .. } => self.end(&operation, OperationPhase::Failed),
        }
    }

    /// Does what every node's agent would: adopts and carves what the operator wants, releases what it is asked to.
    pub fn agents_act(&mut self) {
        for drive in &mut self.drives {
            let Some(status) = drive.status.as_mut() else {
                continue;
            };
            if let (Some(pool), Some(id), Some(carve)) =
                (&drive.spec.pool, &drive.spec.pool_id, drive.spec.carve)
                && (status.verdict == Some(DriveVerdict::Stranded)
                    || (status.verdict == Some(DriveVerdict::Pooled)
                        && status.phase != Some(DrivePhase::Missing)))
            {
                carry_label(status, pool, id, &drive.metadata.name.clone().unwrap());
                carved(status, carve);
                status.phase = Some(DrivePhase::Ready);
            }
        }
        let releases: Vec<(String, String)> = self
            .operations
            .iter()
            .filter(|o| o.spec.type_ == OperationType::Release && o.status.is_none())
            .map(|o| (o.metadata.name.clone().unwrap(), o.spec.drive.clone()))
            .collect();
        for (operation, drive) in releases {
            let status = self.drive(&drive).status.as_mut().unwrap();
            status.label = None;
            status.partitions.clear();
            status.verdict = Some(DriveVerdict::Stranded);
            status.phase = Some(DrivePhase::Released);
            self.end(&operation, OperationPhase::Succeeded);
        }
    }

    fn end(&mut self, name: &str, phase: OperationPhase) {
        let operation = self
            .operations
            .iter_mut()
            .find(|o| o.metadata.name.as_deref() == Some(name))
            .unwrap();
        operation.status = Some(DriveOperationStatus {
            phase: Some(phase),
            ..Default::default()
        });
    }

    fn pool(&mut self, name: &str) -> &mut MemoryPool {
        self.pools
            .iter_mut()
            .find(|p| p.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    fn drive(&mut self, name: &str) -> &mut Drive {
        self.drives
            .iter_mut()
            .find(|d| d.metadata.name.as_deref() == Some(name))
            .unwrap()
    }
}

fn meta(name: &str, age: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        generation: Some(1),
        creation_timestamp: Some(ago(age.unwrap_or("1d"))),
        ..Default::default()
    }
}

fn node(name: &str, words: &[&str], line: &str) -> Node {
    let mut words = Words::new(words);
    let not_ready = words.take("notready");
    let ready = NodeCondition {
        type_: "Ready".into(),
        status: if not_ready.is_some() {
            "Unknown"
        } else {
            "True"
        }
        .into(),
        last_transition_time: Some(ago(not_ready.unwrap_or("1d"))),
        ..Default::default()
    };
    let labels = words
        .0
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    words.0.clear();
    words.end(line);
    Node {
        metadata: ObjectMeta {
            labels: Some(labels),
            ..meta(name, None)
        },
        spec: None,
        status: Some(NodeStatus {
            conditions: Some(vec![ready]),
            ..Default::default()
        }),
    }
}

fn list(text: Option<&str>) -> Vec<String> {
    text.map(|t| t.split(',').map(Into::into).collect())
        .unwrap_or_default()
}

fn pool(name: &str, words: &[&str], line: &str) -> MemoryPool {
    let mut words = Words::new(words);
    let mut metadata = meta(name, words.take("age"));
    metadata.uid = Some(uuid(
        &format!("0{name}")
            .replace(|c: char| !c.is_ascii_hexdigit(), "0")
            .chars()
            .take(8)
            .collect::<String>(),
    ));
    if words.flag("deleting") {
        metadata.deletion_timestamp = Some(ago("1m"));
    }
    if words.flag("held") {
        metadata.finalizers = Some(vec![names::FINALIZER.into()]);
    }
    let selector = words.take("nodes").map(|label| {
        let (key, value) = label.split_once(':').unwrap();
        LabelSelector {
            match_labels: Some([(key.into(), value.into())].into()),
            match_expressions: None,
        }
    });
    let quantity = |text: Option<&str>| text.map(|t| t.parse::<ByteQuantity>().unwrap());
    let spec = MemoryPoolSpec {
        pool_id: words.take("id").map(uuid),
        node_selector: selector,
        drives: DriveSelector {
            models: list(words.take("models").or(Some("*"))),
            serials: list(words.take("serials")),
            min_size: quantity(words.take("min")),
            max_size: quantity(words.take("max")),
            exclude: None,
        },
        adoption: if words.flag("manual") {
            Adoption::Manual
        } else {
            Adoption::Automatic
        },
        carve: CarvePolicy {
            context_memory: words.take("context").unwrap_or("50%").parse().unwrap(),
            min_storage: quantity(words.take("minstorage")),
            ..Default::default()
        },
        failure_domain_label: words
            .take("domain")
            .unwrap_or(names::DEFAULT_FAILURE_DOMAIN_LABEL)
            .into(),
        context_memory: Default::default(),
        access: Default::default(),
        storage: Default::default(),
        insecure_fabric: false,
        deletion_policy: if words.flag("release") {
            DeletionPolicy::Release
        } else {
            DeletionPolicy::Retain
        },
    };
    words.end(line);
    MemoryPool {
        metadata,
        spec,
        status: None,
    }
}

/// `drive NODE/SERIAL [size=…] [VERDICT|unjudged] [why=A,B] [label=POOL:ID] [phase=…] [pool=…] [id=…] [carve=…] …`
fn drive(name: &str, words: &[&str], line: &str) -> Drive {
    let mut words = Words::new(words);
    let (node, serial) = name.split_once('/').expect("drive NODE/SERIAL");
    let object_name = format!("{node}-{}", serial.to_lowercase());
    let mut status = DriveStatus {
        identity: Some(DriveIdentity {
            model: words.take("model").unwrap_or("M").into(),
            serial: serial.into(),
            namespace_id: 1,
            transport: Transport::Pcie,
            device_path: "/dev/nvme0n1".into(),
            ..Default::default()
        }),
        size: words.take("size").unwrap_or("1Ti").parse().unwrap(),
        logical_block_bytes: 512,
        peer_address: Some(format!("{node}:7420")),
        stored_epoch: words.take("stored").map(|e| e.parse().unwrap()),
        reasons: list(words.take("why"))
            .into_iter()
            .map(|code| DriveReason {
                code,
                message: String::new(),
            })
            .collect(),
        ..Default::default()
    };
    let verdicts = [
        ("Stranded", DriveVerdict::Stranded, DrivePhase::Available),
        ("InUse", DriveVerdict::InUse, DrivePhase::Rejected),
        ("Foreign", DriveVerdict::Foreign, DrivePhase::Rejected),
        ("Failed", DriveVerdict::Failed, DrivePhase::Rejected),
        ("Pooled", DriveVerdict::Pooled, DrivePhase::Ready),
    ];
    for (word, verdict, phase) in verdicts {
        if words.flag(word) {
            (status.verdict, status.phase) = (Some(verdict), Some(phase));
        }
    }
    let mut spec = DriveSpec {
        node_name: node.into(),
        pool: words.take("pool").map(Into::into),
        pool_id: words.take("id").map(uuid),
        carve: words.take("carve").map(|c| DriveCarve {
            context_memory: c.parse().unwrap(),
        }),
        cordon: words.flag("cordoned"),
    };
    if let Some((pool, id)) = words.take("label").and_then(|l| l.split_once(':')) {
        let (verdict, phase) = (status.verdict, status.phase);
        carry_label(&mut status, pool, &uuid(id), &object_name);
        (status.verdict, status.phase) = (verdict, phase);
        carved(
            &mut status,
            spec.carve.unwrap_or(DriveCarve {
                context_memory: ByteQuantity(1 << 39),
            }),
        );
    }
    match words.take("phase") {
        Some("Missing") => status.phase = Some(DrivePhase::Missing),
        Some("Released") => status.phase = Some(DrivePhase::Released),
        Some("Available") => status.phase = Some(DrivePhase::Available),
        Some(other) => panic!("phase {other} in {line:?}"),
        None => {}
    }
    let mut metadata = meta(&object_name, None);
    if words.flag("taken") {
        // As the operator leaves a drive of pool P with identity I: spec and finalizer.
        let label = status.label.clone().expect("taken needs label=POOL:ID");
        spec.pool = Some(label.pool);
        spec.pool_id = Some(label.pool_id);
        let half = carve::usable(&geometry(&status)).unwrap() / 2;
        spec.carve.get_or_insert(DriveCarve {
            context_memory: ByteQuantity(half),
        });
        carved(&mut status, spec.carve.unwrap());
        metadata.finalizers = Some(vec![names::FINALIZER.into()]);
    }
    if words.flag("deleting") {
        metadata.deletion_timestamp = Some(ago("1m"));
    }
    let unjudged = words.flag("unjudged");
    words.end(line);
    Drive {
        metadata,
        spec,
        status: (!unjudged).then_some(status),
    }
}

fn geometry(status: &DriveStatus) -> Geometry {
    Geometry {
        size: status.size.0,
        logical_block: 512,
        optimal_write: 0,
    }
}

fn carry_label(status: &mut DriveStatus, pool: &str, id: &str, drive: &str) {
    let digits = drive
        .bytes()
        .fold(0u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    status.verdict = Some(DriveVerdict::Pooled);
    status.label = Some(LabelStatus {
        pool: pool.into(),
        pool_id: id.into(),
        drive_id: uuid(&format!("{digits:08x}")),
        generation: 1,
    });
}

fn carved(status: &mut DriveStatus, carve: DriveCarve) {
    let layout = carve::layout(
        &geometry(status),
        &Split {
            context_bytes: carve.context_memory.0,
        },
    )
    .unwrap();
    status.partitions = layout
        .partitions()
        .map(|(role, extent)| PartitionStatus {
            role: match role {
                Role::Storage => PartitionRole::Storage,
                Role::Context => PartitionRole::ContextMemory,
            },
            start: extent.start as i64,
            size: ByteQuantity(extent.len),
            used: ByteQuantity(0),
            usable: None,
        })
        .collect();
}

fn map(name: &str, words: &[&str], line: &str) -> PoolMap {
    let mut words = Words::new(words);
    let spec = PoolMapSpec {
        epoch: words.take("epoch").unwrap_or("1").parse().unwrap(),
        pool_id: words.take("id").map(uuid).unwrap_or_default(),
        nodes: words
            .take("nodes")
            .into_iter()
            .flat_map(|nodes| nodes.split('/'))
            .map(|n| {
                let (node, drives) = n.split_once('[').unwrap();
                // All of them are there since the first epoch.
                let drives = drives.trim_end_matches(']').replace(':', "@1:");
                MapNode::try_from(format!("{node} {node}:7420 - {drives}")).unwrap()
            })
            .collect(),
    };
    words.end(line);
    PoolMap::new(name, spec)
}

fn operation(name: &str, words: &[&str], line: &str) -> DriveOperation {
    let mut words = Words::new(words);
    let type_ = match words.take("type") {
        Some("Wipe") => OperationType::Wipe,
        Some("Release") => OperationType::Release,
        Some("Forget") => OperationType::Forget,
        Some("Evacuate") => OperationType::Evacuate,
        other => panic!("type {other:?} in {line:?}"),
    };
    let spec = DriveOperationSpec {
        type_,
        drive: words.take("drive").unwrap().into(),
        serial: words.take("serial").unwrap().into(),
        rate: None,
    };
    let failed = words.take("failed");
    words.end(line);
    let status = failed.map(|age| DriveOperationStatus {
        phase: Some(OperationPhase::Failed),
        conditions: vec![condition::condition(
            &[],
            &ago(age),
            "Complete",
            true,
            "Failed",
            "",
            None,
        )],
        ..Default::default()
    });
    let mut operation = DriveOperation::new(name, spec);
    operation.status = status;
    operation
}

/// How long after [`now`] a moment is, for tests that let time pass.
pub fn later(by: Duration) -> Timestamp {
    now() + SignedDuration::try_from(by).unwrap()
}

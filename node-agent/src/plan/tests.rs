use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use strand_api::{Drive, DriveOperation, DrivePhase, DriveVerdict, MemoryPool, condition, names};
use strand_drives::{DriveError, DriveHost, OwnedDrive, SimulatedHost};
use strand_placement::carve::Split;
use strand_placement::verdict::Use;
use uuid::Uuid;

use super::*;
use crate::memory::Busy;
use crate::view::Pools;
use crate::volumes::StorageStanding;
use crate::volumes::ailment::Ailment;
use crate::work::{Job, Outcome, WorkKind};

const POOL_ID: &str = "0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11";
const GIB: u64 = 1 << 30;
const MINUTE: Duration = Duration::from_secs(60);

/// One drive, its object and its pool, and a clock that the test moves.
struct Desk {
    host: Arc<SimulatedHost>,
    key: strand_drives::DriveKey,
    memory: DriveMemory,
    object: Option<Drive>,
    pools: Pools,
    operation: Option<DriveOperation>,
    run: Run,
    writing: Writing,
    settled: bool,
    storage: Option<StorageStanding>,
    at: Instant,
}

impl Desk {
    /// A blank drive that was just seen, in a cluster with one pool.
    fn new() -> Self {
        let host = Arc::new(SimulatedHost::new(Duration::ZERO));
        let key = host.plug("S1", 16 * GIB);
        host.alter(&key, |seen| seen.watch.required_ms = 1);
        let mut memory = DriveMemory::new(Uuid::from_u128(7));
        memory.sight(host.scan().unwrap().pop());
        let mut desk = Self {
            host,
            key,
            memory,
            object: None,
            pools: Pools::default(),
            operation: None,
            run: Run {
                fresh: true,
                ..Run::default()
            },
            writing: Writing::default(),
            settled: true,
            storage: None,
            at: Instant::now(),
        };
        desk.pool(json!({}));
        desk
    }

    fn pool(&mut self, metadata: Value) {
        let mut metadata = metadata;
        metadata["name"] = "rack".into();
        let pool: MemoryPool = serde_json::from_value(json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": metadata,
            "spec": {"poolID": POOL_ID, "drives": {"models": ["*"]}, "deletionPolicy": "Release"},
        }))
        .unwrap();
        self.pools = Pools::new([&pool].into_iter());
    }

    fn object(&mut self, spec: Value, status: Value) {
        let mut spec = spec;
        spec["nodeName"] = "n".into();
        let object = json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "Drive",
            "metadata": {"name": "d", "generation": 1}, "spec": spec, "status": status,
        });
        self.object = Some(serde_json::from_value(object).unwrap());
    }

    fn claimed(&mut self) {
        self.object(
            wish(8),
            json!({"verdict": "Stranded", "phase": "Available"}),
        );
    }

    fn operation(&mut self, type_: &str, status: Value) {
        let operation = json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "DriveOperation",
            "metadata": {"name": "o", "uid": "u"},
            "spec": {"type": type_, "drive": "d", "serial": "S1"}, "status": status,
        });
        self.operation = Some(serde_json::from_value(operation).unwrap());
    }

    fn plan(&self) -> Plan {
        let ahead = BTreeMap::new();
        let known = Known {
            memory: &self.memory,
            view: View {
                name: "d",
                object: self.object.as_ref(),
                pools: &self.pools,
                operation: self.operation.as_ref(),
                ahead: &ahead,
                peer_address: None,
                context_used: None,
                storage: self.storage.as_ref(),
            },
            run: &self.run,
            writing: self.writing,
            settled: self.settled,
        };
        let wall = Time(Timestamp::UNIX_EPOCH);
        plan(&known, &Now { at: self.at, wall })
    }

    fn status(&self) -> DriveStatus {
        match self.plan().write {
            Some(Write::Status(status)) => *status,
            other => panic!("expected a status, planned {other:?}"),
        }
    }

    /// Does the planned work and takes its outcome in.
    fn work(&mut self) -> Work {
        let work = self.plan().work.expect("work");
        self.memory.begin(&work, self.at);
        let job = Job {
            host: self.host.clone(),
            work: work.clone(),
            seen: self.memory.seen.clone().unwrap(),
            owned: self.memory.owned.clone(),
            observation: self.memory.observation.clone(),
            pools: self.pools.known.clone(),
            stop: Arc::default(),
        };
        let outcome = job.perform(&mut |_| {});
        self.learn(&work, outcome);
        work
    }

    fn learn(&mut self, work: &Work, outcome: Outcome) {
        let incarnation = self.memory.incarnation;
        self.memory.learn(
            work,
            outcome,
            incarnation,
            MINUTE,
            &self.pools.known,
            self.at,
        );
    }
}

/// What the operator asks for.
fn wish(context_gib: u64) -> Value {
    json!({"pool": "rack", "poolID": POOL_ID, "carve": {"contextMemory": format!("{context_gib}Gi")}})
}

/// A desk whose drive is found stranded.
fn stranded() -> Desk {
    let mut desk = Desk::new();
    assert_eq!(desk.work(), Work::Observe);
    assert_eq!(
        desk.plan().write,
        None,
        "nothing is told of a drive that is still watched"
    );
    let at = desk.plan().wake.expect("a time to look again");
    assert!(at > desk.at && at < desk.at + MINUTE);
    std::thread::sleep(Duration::from_millis(2));
    desk.at = at;
    assert_eq!(desk.work(), Work::Observe);
    desk
}

/// A desk whose drive is the pool's.
fn ready() -> Desk {
    let mut desk = stranded();
    desk.claimed();
    assert!(matches!(desk.work(), Work::Adopt(_)));
    let status = desk.status();
    desk.object(wish(8), serde_json::to_value(status).unwrap());
    assert_eq!(desk.plan().write, None);
    desk
}

#[test]
fn a_drive_goes_from_blank_to_ready_in_the_fewest_steps() {
    let mut desk = stranded();
    assert_eq!(desk.plan().write, Some(Write::Create));
    desk.object(json!({}), Value::Null);
    assert_eq!(desk.status().phase, Some(DrivePhase::Available));
    desk.claimed();
    let Some(Work::Adopt(order)) = desk.plan().work else {
        panic!("{:?}", desk.plan());
    };
    assert_eq!(
        (order.pool_name.as_str(), order.drive_id),
        ("rack", Uuid::from_u128(7))
    );
    assert_eq!(
        desk.plan().write,
        None,
        "a carve that goes well is told once it is done"
    );
    desk.work();
    assert_eq!(desk.status().phase, Some(DrivePhase::Ready));
    assert_eq!(desk.plan().work, None);
}

#[test]
fn nothing_is_decided_before_machine_and_api_were_seen() {
    let mut desk = stranded();
    desk.claimed();
    desk.operation("Wipe", json!({"phase": "Running"}));
    desk.settled = false;
    let plan = desk.plan();
    assert_eq!((plan.work, plan.write), (None, None));
    desk.memory.sight(None);
    assert_eq!(
        desk.plan().write,
        None,
        "a drive is not missing before the scan"
    );
}

#[test]
fn a_drive_is_taken_only_while_nothing_stands_against_it() {
    let mut desk = stranded();
    let adopts = |desk: &Desk| matches!(desk.plan().work, Some(Work::Adopt(_)));
    desk.claimed();
    assert!(adopts(&desk));
    let mut cordoned = wish(8);
    cordoned["cordon"] = true.into();
    desk.object(
        cordoned,
        json!({"verdict": "Stranded", "phase": "Available"}),
    );
    assert!(!adopts(&desk), "cordoned");
    for phase in ["Releasing", "Released"] {
        desk.object(wish(8), json!({"verdict": "Stranded", "phase": phase}));
        assert!(!adopts(&desk), "just given back");
    }
    desk.object(
        json!({"pool": "rack"}),
        json!({"verdict": "Stranded", "phase": "Available"}),
    );
    assert!(!adopts(&desk), "the wish is not complete");
    desk.claimed();
    desk.operation("Wipe", json!({}));
    assert!(!adopts(&desk), "an operation waits");
    desk.operation = None;
    desk.pool(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
    assert!(!adopts(&desk), "the pool goes");
    desk.pools = Pools::default();
    assert!(!adopts(&desk), "no such pool");
}

#[test]
fn a_carve_that_fails_or_lasts_is_told() {
    let mut desk = stranded();
    desk.claimed();
    let work = desk.plan().work.unwrap();
    desk.memory.begin(&work, desk.at);
    assert_eq!(desk.plan().write, None);
    desk.at = desk.plan().wake.expect("a time to tell");
    let status = desk.status();
    assert_eq!(status.phase, Some(DrivePhase::Carving));
    let carved = condition::find(&status.conditions, names::CARVED).unwrap();
    assert_eq!(
        (carved.status.as_str(), carved.reason.as_str()),
        ("False", "Failing")
    );

    let error = || DriveError::Io {
        path: "/dev/x".into(),
        action: "writing",
        source: std::io::Error::from_raw_os_error(5),
    };
    desk.learn(&work, Outcome::Adopted(Err(error())));
    assert_eq!(desk.plan().write, None, "once is no series");
    assert_eq!(desk.plan().work, None, "not before its time");
    desk.learn(&work, Outcome::Adopted(Err(error())));
    let status = desk.status();
    assert_eq!(status.phase, Some(DrivePhase::Carving));
    let carved = condition::find(&status.conditions, names::CARVED).unwrap();
    assert!(
        carved.message.contains("/dev/x: writing failed"),
        "{}",
        carved.message
    );
    desk.object(wish(8), serde_json::to_value(status).unwrap());

    desk.at = desk.plan().wake.unwrap();
    assert_eq!(
        desk.work(),
        Work::Observe,
        "what a failed carve left is read first"
    );
    desk.work();
    let status = desk.status();
    assert_eq!(status.phase, Some(DrivePhase::Ready));
    assert!(
        condition::is_true(&status.conditions, names::CARVED),
        "told, since it was told as failing"
    );
}

#[test]
fn what_ails_a_storage_side_is_told_of_its_drive_until_it_is_over() {
    let mut desk = stranded();
    desk.claimed();
    desk.work();
    desk.storage = Some(StorageStanding::default());
    let healthy =
        |status: &DriveStatus| condition::find(&status.conditions, names::HEALTHY).cloned();
    assert_eq!(healthy(&desk.status()), None);
    let ailment = Ailment {
        reason: "FileSystemShutDown",
        message: "stopped".into(),
    };
    desk.storage.as_mut().unwrap().ailment = Some(ailment);
    let ill = desk.status();
    let told = healthy(&ill).unwrap();
    assert_eq!(
        (&*told.status, &*told.reason),
        ("False", "FileSystemShutDown")
    );
    desk.object(wish(8), serde_json::to_value(&ill).unwrap());
    // An agent that has just started does not know yet.
    desk.storage = None;
    assert_eq!(desk.plan().write, None);
    desk.storage = Some(StorageStanding::default());
    assert_eq!(&*healthy(&desk.status()).unwrap().status, "True");
}

#[test]
fn a_drive_that_does_not_answer_is_failed_after_two_minutes() {
    let mut desk = Desk::new();
    desk.object(
        json!({}),
        json!({"verdict": "Stranded", "phase": "Available"}),
    );
    desk.memory.begin(&Work::Observe, desk.at);
    assert_eq!((desk.plan().work, desk.plan().write), (None, None));
    desk.at = desk.plan().wake.expect("a time to lose patience");
    let status = desk.status();
    assert_eq!(status.verdict, Some(DriveVerdict::Failed));
    assert_eq!(status.display_reasons, "Unreadable");
    assert_eq!(
        desk.memory.busy.map(|Busy { kind, .. }| kind),
        Some(WorkKind::Observe)
    );
}

#[test]
fn other_words_for_the_same_reasons_are_not_written_at_once() {
    let mut desk = stranded();
    let open = |pid| Use::Open {
        pid,
        process: "db".into(),
    };
    desk.host.alter(&desk.key, |seen| seen.uses.push(open(1)));
    desk.at += 5 * MINUTE;
    desk.work();
    desk.object(json!({}), Value::Null);
    let status = desk.status();
    desk.object(json!({}), serde_json::to_value(status).unwrap());
    desk.writing.last_status = Some(desk.at);
    assert_eq!(desk.plan().write, None);

    desk.host.alter(&desk.key, |seen| seen.uses = vec![open(2)]);
    desk.at += MINUTE;
    desk.work();
    assert_eq!(desk.plan().write, None);
    let swap = Use::Swap {
        device: "/dev/x1".into(),
    };
    desk.host
        .alter(&desk.key, |seen| seen.uses = vec![open(2), swap.clone()]);
    desk.at += MINUTE;
    desk.work();
    assert_eq!(
        desk.status().display_reasons,
        "OpenElsewhere, Swap",
        "another reason is"
    );
    desk.host.alter(&desk.key, |seen| seen.uses = vec![open(2)]);
    desk.at += 9 * MINUTE;
    desk.work();
    assert!(
        desk.status().reasons[0].message.contains("pid 2"),
        "and the words in time"
    );
}

#[test]
fn a_release_goes_step_by_step_so_that_each_can_be_the_last() {
    let mut desk = ready();
    let mut spec = wish(8);
    spec["cordon"] = true.into();
    let status =
        |desk: &Desk| serde_json::to_value(desk.object.as_ref().unwrap().status.as_ref()).unwrap();
    desk.object(spec.clone(), status(&desk));
    desk.operation("Release", Value::Null);
    desk.run = Run::default();
    assert_eq!(
        desk.plan().write,
        Some(Write::Refresh),
        "what is known may be older than the operation"
    );
    desk.run.fresh = true;
    let Some(Write::Operation(name, running)) = desk.plan().write else {
        panic!("{:?}", desk.plan());
    };
    assert_eq!((name.as_str(), running.progress_percent), ("o", Some(0)));
    assert_eq!(
        desk.plan().work,
        None,
        "what is not told as begun is not begun"
    );

    desk.operation("Release", serde_json::to_value(&running).unwrap());
    assert_eq!(
        desk.plan().work,
        None,
        "the drive is told as releasing first"
    );
    assert_eq!(desk.status().phase, Some(DrivePhase::Releasing));
    let releasing = serde_json::to_value(desk.status()).unwrap();
    desk.object(spec.clone(), releasing);
    assert_eq!(desk.work(), Work::Release);

    // As after kill -9: the label is gone, and only API and drive know how far it was.
    desk.memory.look_anew();
    assert_eq!(desk.plan().write, None);
    assert_eq!(desk.work(), Work::Observe);
    let released = desk.status();
    assert_eq!(
        (released.phase, &released.label),
        (Some(DrivePhase::Released), &None)
    );
    desk.object(spec, serde_json::to_value(&released).unwrap());
    let Some(Write::Operation(_, ended)) = desk.plan().write else {
        panic!("{:?}", desk.plan());
    };
    assert_eq!(ended.progress_percent, Some(100));
    assert!(condition::is_true(&ended.conditions, "Complete"));
    assert!(!matches!(desk.plan().work, Some(Work::Adopt(_))));
}

#[test]
fn an_interrupted_wipe_goes_on_where_the_record_says() {
    let mut desk = stranded();
    desk.object(json!({}), Value::Null);
    let status = serde_json::to_value(desk.status()).unwrap();
    desk.object(json!({}), status);
    desk.operation("Wipe", json!({"phase": "Running", "progressPercent": 50}));
    let Some(Work::Wipe(order)) = desk.plan().work else {
        panic!("{:?}", desk.plan());
    };
    assert_eq!((order.serial.as_str(), order.from), ("S1", 8 * GIB));
    desk.memory.begin(&Work::Wipe(order), desk.at);
    desk.run.tens = 70;
    let Some(Write::Operation(_, status)) = desk.plan().write else {
        panic!("{:?}", desk.plan());
    };
    assert_eq!(status.progress_percent, Some(70));
}

#[test]
fn a_failing_api_is_left_alone_for_a_while() {
    let mut desk = stranded();
    desk.writing.retry_at = Some(desk.at + MINUTE);
    let plan = desk.plan();
    assert_eq!(plan.write, None);
    assert!(plan.wake.is_some_and(|at| at <= desk.at + MINUTE));
    desk.at += MINUTE;
    assert_eq!(desk.plan().write, Some(Write::Create));
    desk.writing.in_flight = true;
    assert_eq!(desk.plan().write, None);
}

#[test]
fn a_refused_carve_is_asked_for_again_after_a_while() {
    let mut desk = ready();
    let status = serde_json::to_value(desk.object.as_ref().unwrap().status.as_ref()).unwrap();
    desk.host.set_storage_holds_data(&desk.key, true);
    desk.object(wish(12), status);
    let split = Split {
        context_bytes: 12 * GIB,
    };
    assert_eq!(desk.work(), Work::Recarve(split));
    assert_eq!(desk.plan().work, None);
    assert_eq!(desk.status().phase, Some(DrivePhase::Ready));
    desk.host.set_storage_holds_data(&desk.key, false);
    desk.at += 5 * MINUTE;
    assert_eq!(desk.plan().work, Some(Work::Recarve(split)));
    let owned = |desk: &Desk| {
        desk.memory
            .owned
            .as_ref()
            .map(|owned: &OwnedDrive| owned.generation)
    };
    let before = owned(&desk);
    desk.work();
    assert!(owned(&desk) > before);
}

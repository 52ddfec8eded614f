//! Whatever is sent: no panic, no code that a caller can do nothing with, and nothing made, changed or mounted by what was refused.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::api::{Api, ListParams};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use prost::bytes::{Buf, BufMut};
use serde_json::Value;
use strand_api::{PoolSnapshot, PoolVolume};
use strand_csi::v1::CreateSnapshotRequest;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

use crate::bed::{Bed, can_grow_mounted, writer};
use crate::requests::{self, Call};
use crate::volumes::{create, publish, stage};
use crate::words::{SECRET, SNAPSHOT, SPARE, VOLUME};

/// How many requests, where not this many.
const CASES: &str = "STRAND_ARBITRARY_REQUESTS";
const FEW: u32 = 600;
/// Longest that any answer may take: nothing here waits for anybody who does not answer.
const AT_ONCE: Duration = Duration::from_secs(60);

/// Messages as their bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let len = from.remaining();
        Ok(Some(from.copy_to_bytes(len).into()))
    }
}

async fn send(bed: &Bed, call: &Call) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(bed.channel());
    let ready = client.ready().await;
    ready.map_err(|error| Status::unknown(format!("it is not there: {error}")))?;
    let path = PathAndQuery::from_static(call.path);
    let answer = client.unary(Request::new(call.body.clone()), path, Raw);
    answer.await.map(|_| ())
}

/// All that a call could have made or changed.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// Specs of volumes and snapshots, by kind and name.
    objects: BTreeMap<String, Value>,
    mounts: Vec<String>,
    /// Places of pods and of the kubelet.
    places: BTreeSet<PathBuf>,
}

async fn seen(bed: &Bed) -> Seen {
    let all = ListParams::default();
    let volumes = Api::<PoolVolume>::all(bed.client.clone()).list(&all).await;
    let snapshots = Api::<PoolSnapshot>::all(bed.client.clone());
    let volumes = volumes.expect("listed").items.into_iter();
    let volumes = volumes.map(|v| {
        (
            format!("volume {}", v.name_any()),
            serde_json::to_value(v.spec),
        )
    });
    let snapshots = snapshots.list(&all).await.expect("listed").items;
    let snapshots = snapshots.into_iter();
    let snapshots = snapshots.map(|s| {
        (
            format!("snapshot {}", s.name_any()),
            serde_json::to_value(s.spec),
        )
    });
    let mut places = BTreeSet::new();
    for place in ["staging", "pods", "random"] {
        walk(&bed.path().join(place), &mut places);
    }
    Seen {
        objects: volumes
            .chain(snapshots)
            .map(|(name, spec)| (name, spec.expect("encoded")))
            .collect(),
        mounts: bed.mounts(),
        places,
    }
}

/// Everything below a directory, but not what is in anything mounted there.
fn walk(at: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let path = entry.path();
        let mounted = path.join("lost+found").exists();
        if !mounted && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, found);
        }
        found.insert(path);
    }
}

/// What is wrong about the outcome of a call, if anything is.
fn wrong(
    call: &Call,
    outcome: &Result<(), Status>,
    taken: Duration,
    before: &Seen,
    after: &Seen,
) -> Option<String> {
    let Err(status) = outcome else {
        return None;
    };
    // gRPC itself says that of a message that cannot be read ("Status codes and their use in gRPC": error parsing request proto).
    if status.code() == Code::Internal && !call.readable {
        return None;
    }
    // Some machines let nobody do that, and it is not their callers' fault.
    let here = call.path.ends_with("/NodeExpandVolume") && !can_grow_mounted("ext4");
    if status.code() == Code::Internal && here && status.message().starts_with("resize2fs") {
        return None;
    }
    let useful = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::Aborted,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::ResourceExhausted,
        Code::Unavailable,
    ];
    if !useful.contains(&status.code()) || taken > AT_ONCE {
        return Some(format!("after {taken:?}: {status}"));
    }
    // The wish to grow stays with a volume; what cannot be had yet is refused each time.
    let wished =
        call.path.ends_with("/ControllerExpandVolume") && status.code() == Code::ResourceExhausted;
    for (name, spec) in &after.objects {
        if before.objects.get(name) != Some(spec) && !wished {
            return Some(format!("{name} was made or changed, and it said: {status}"));
        }
    }
    // What is refused half way is taken back by the call that ends it, as the specification has it.
    let never_began =
        [Code::InvalidArgument, Code::NotFound, Code::OutOfRange].contains(&status.code());
    if never_began && !after.places.is_subset(&before.places) {
        return Some(format!(
            "{:?} were made, and it said: {status}",
            after.places.difference(&before.places)
        ));
    }
    (after.mounts != before.mounts)
        .then(|| format!("mounts are {:?}, and it said: {status}", after.mounts))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_sent_is_answered_and_what_is_refused_changes_nothing() {
    let cases = std::env::var(CASES).map_or(FEW, |number| number.parse().unwrap());
    let bed = Bed::new().await;
    let volume = create(&bed, VOLUME, writer("ext4"), 64 << 20).await;
    stage(&bed, &volume, writer("ext4")).await;
    publish(&bed, VOLUME, "pod", writer("ext4")).await;
    let file = format!("{}/file", bed.target("pod"));
    fs::write(&file, "bytes").unwrap();
    create(&bed, SPARE, writer("ext4"), 64 << 20).await;
    let snapshot = CreateSnapshotRequest {
        source_volume_id: VOLUME.into(),
        name: SNAPSHOT.into(),
        ..CreateSnapshotRequest::default()
    };
    bed.controller().create_snapshot(snapshot).await.unwrap();

    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    });
    let codes = RefCell::new(BTreeMap::<(&str, String), usize>::new());
    let last = RefCell::new(seen(&bed).await);
    let base = bed.path().to_str().unwrap();
    let outcome = tokio::task::block_in_place(|| {
        let here = tokio::runtime::Handle::current();
        runner.run(&requests::calls(base), |call| {
            here.block_on(async {
                let start = Instant::now();
                let outcome = send(&bed, &call).await;
                let taken = start.elapsed();
                let after = seen(&bed).await;
                let before = last.replace(after.clone());
                let code = outcome.as_ref().map_or_else(Status::code, |()| Code::Ok);
                *codes
                    .borrow_mut()
                    .entry((call.path, format!("{code:?}")))
                    .or_default() += 1;
                wrong(&call, &outcome, taken, &before, &after)
                    .map_or(Ok(()), |why| Err(TestCaseError::fail(why)))
            })
        })
    });
    for ((path, code), number) in codes.borrow().iter() {
        println!("{number:>5} {path} {code}");
    }
    if let Err(TestError::Fail(why, call)) = &outcome {
        panic!("{why}\n{call:?}");
    }
    outcome.unwrap();
    let log = bed.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains(SECRET), "a secret is in the log");
    assert!(log.lines().all(|line| line.len() < 4096));
    let read = fs::read_to_string(file).expect("its pod goes on");
    assert_eq!(read, "bytes");
}

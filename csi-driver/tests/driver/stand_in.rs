//! Plays the operator and the node's agent: a leg is a sparse file, attaching makes a loop device over it, snapshots are copies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use strand_api::condition::condition;
use strand_api::{
    Attachment, MemoryPool, PoolGrant, PoolLeg, PoolSnapshot, PoolVolume, PoolVolumeStatus,
    VolumePhase, names,
};
use strand_placement::access::{self, NotGranted};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::bed::NODE;

/// The drive that all legs are on.
const DRIVE: &str = "node-1-0123456789";
/// What fits on it.
pub const ROOM: u64 = 100 << 30;

pub struct StandIn {
    legs: Legs,
    agent: Option<JoinHandle<()>>,
    operator: JoinHandle<()>,
    socket: PathBuf,
}

/// The files, and what the agent was asked.
#[derive(Clone)]
struct Legs {
    dir: PathBuf,
    client: Client,
    doors: Arc<Mutex<BTreeMap<String, Value>>>,
    scratch: Arc<Mutex<BTreeMap<String, Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    pub async fn start(dir: &Path, client: Client) -> Self {
        let legs = Legs {
            dir: dir.join("legs"),
            client,
            doors: Arc::default(),
            scratch: Arc::default(),
            asked: Arc::default(),
        };
        fs::create_dir(&legs.dir).expect("a directory");
        let socket = dir.join("agent.sock");
        let operator = tokio::spawn(legs.clone().operate());
        let mut stand_in = Self {
            legs,
            agent: None,
            operator,
            socket,
        };
        stand_in.start_agent();
        stand_in
    }

    pub fn start_agent(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).expect("a socket");
        let router = Router::new()
            .route("/volumes/{volume}/attachment", put(attach).delete(detach))
            .route("/doors/{id}", put(open).delete(close))
            .route("/scratch", get(all_scratch))
            .route("/scratch/{id}", put(scratch).delete(end_scratch))
            .with_state(self.legs.clone());
        self.agent = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serves");
        }));
    }

    pub fn stop_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.abort();
        }
        let _ = fs::remove_file(&self.socket);
    }

    pub fn stop(&mut self) {
        self.stop_agent();
        self.operator.abort();
    }

    /// The doors that are open.
    pub fn doors(&self) -> BTreeMap<String, Value> {
        self.legs.doors.lock().expect("no panic").clone()
    }

    /// The scratch space that is there.
    pub fn scratch(&self) -> BTreeMap<String, Value> {
        self.legs.scratch.lock().expect("no panic").clone()
    }

    /// What the agent was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.legs.asked.lock().expect("no panic").clone()
    }

    /// The file of a volume.
    pub fn file(&self, volume: &str) -> PathBuf {
        self.legs.file(volume)
    }

    /// Files that are there.
    pub fn files(&self) -> usize {
        fs::read_dir(&self.legs.dir).expect("a directory").count()
    }
}

impl Legs {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    async fn operate(self) {
        loop {
            let all = ListParams::default();
            let volumes = Api::<PoolVolume>::all(self.client.clone());
            for volume in volumes
                .list(&all)
                .await
                .map(|l| l.items)
                .unwrap_or_default()
            {
                self.volume(&volumes, &volume).await;
            }
            let snapshots = Api::<PoolSnapshot>::all(self.client.clone());
            for snapshot in snapshots
                .list(&all)
                .await
                .map(|l| l.items)
                .unwrap_or_default()
            {
                self.snapshot(&snapshots, &snapshot).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn volume(&self, api: &Api<PoolVolume>, volume: &PoolVolume) {
        let (name, spec) = (volume.name_any(), &volume.spec);
        let legs = Api::<PoolLeg>::all(self.client.clone());
        if spec.deletion_mark {
            let _ = fs::remove_file(self.file(&name));
            let _ = legs
                .delete(&names::leg_name(&name, 0, 0), &DeleteParams::default())
                .await;
            let _ = api.delete(&name, &DeleteParams::default()).await;
            return;
        }
        let mut status = volume.status.clone().unwrap_or_default();
        let generation = volume.metadata.generation;
        let now = Time(Timestamp::now());
        let fits = spec.size.0 <= ROOM;
        let told = |kind, reason, words: &str| {
            condition(
                &status.conditions,
                &now,
                kind,
                false,
                reason,
                words,
                generation,
            )
        };
        if status.phase.is_none() && !fits {
            let words = "no drive of pool rack has that much room; the closest has 100Gi";
            status.conditions = vec![told(names::READY, names::INSUFFICIENT_CAPACITY, words)];
            status.phase = Some(VolumePhase::Failed);
        } else if status.phase.is_none() {
            self.make(&legs, volume).await;
            status.phase = Some(VolumePhase::Ready);
            status.size = spec.size;
        } else if status.size < spec.size && !fits {
            status.conditions = vec![told(names::RESIZED, names::NO_SPACE, "the drive is full")];
        } else if status.size < spec.size {
            let file = File::options()
                .write(true)
                .open(self.file(&name))
                .expect("the file");
            file.set_len(spec.size.0).expect("it grows");
            if let Some(device) = self.device(&name) {
                run(Command::new("losetup").args(["-c", &device]));
            }
            status.size = spec.size;
        }
        if status.phase == Some(VolumePhase::Ready) {
            let kept = |a: &Attachment| {
                let fits =
                    |to: &&strand_api::AttachTo| to.node == a.node && to.read_only == a.read_only;
                spec.attach_to.iter().any(|to| fits(&to))
            };
            status.attachments.retain(kept);
            for to in &spec.attach_to {
                if !status.attachments.iter().any(|a| a.node == to.node) {
                    status.attachment_generation += 1;
                    status.attachments.push(Attachment {
                        generation: status.attachment_generation,
                        node: to.node.clone(),
                        read_only: to.read_only,
                        phase: Default::default(),
                    });
                }
            }
        }
        status.observed_generation = generation;
        if volume.status.as_ref() != Some(&status) {
            self.tell(api, volume, &status).await;
        }
    }

    async fn tell(&self, api: &Api<PoolVolume>, volume: &PoolVolume, status: &PoolVolumeStatus) {
        let mut told = volume.clone();
        told.status = Some(status.clone());
        // Where the volume has changed meanwhile, the next round sees to it.
        let _ = api
            .replace_status(&volume.name_any(), &PostParams::default(), &told)
            .await;
    }

    async fn make(&self, legs: &Api<PoolLeg>, volume: &PoolVolume) {
        let name = volume.name_any();
        let source = volume.spec.source.as_ref();
        let source = source.and_then(|s| {
            s.snapshot
                .as_ref()
                .map(|id| format!("{id}.snap"))
                .or(s.volume.clone())
        });
        match source {
            Some(source) => copy(&self.file(&source), &self.file(&name)),
            None => drop(File::create(self.file(&name)).expect("a file")),
        }
        let file = File::options()
            .write(true)
            .open(self.file(&name))
            .expect("the file");
        file.set_len(volume.spec.size.0).expect("its size");
        let leg = json!({
            "metadata": {"name": names::leg_name(&name, 0, 0)},
            "spec": {"volume": name, "nodeName": NODE, "drive": DRIVE, "index": 0, "size": volume.spec.size},
        });
        let leg: PoolLeg = serde_json::from_value(leg).expect("a leg");
        let _ = legs.create(&PostParams::default(), &leg).await;
    }

    async fn snapshot(&self, api: &Api<PoolSnapshot>, snapshot: &PoolSnapshot) {
        let name = snapshot.name_any();
        let file = self.file(&format!("{name}.snap"));
        if snapshot.spec.deletion_mark {
            let _ = fs::remove_file(file);
            let _ = api.delete(&name, &DeleteParams::default()).await;
        } else if snapshot.status.is_none() {
            copy(&self.file(&snapshot.spec.volume), &file);
            let size = fs::metadata(&file).expect("a copy").len();
            let status = json!({"status": {
                "readyToUse": true,
                "size": size.to_string(),
                "takenAt": Time(Timestamp::now()),
            }});
            let options = PatchParams::default();
            let _ = api
                .patch_status(&name, &options, &Patch::Merge(status))
                .await;
        }
    }

    /// The loop device of a volume.
    fn device(&self, volume: &str) -> Option<String> {
        let file = self.file(volume);
        let found = run(Command::new("losetup")
            .arg("-j")
            .arg(file)
            .args(["-O", "NAME", "-n"]));
        found.lines().next().map(|line| line.trim().to_owned())
    }

    /// Asks who may use the pool, as the agent does.
    async fn may_use(&self, space: &Value) -> Result<(), Refusal> {
        let [pool, namespace] = ["pool", "namespace"].map(|key| space[key].as_str().expect("it"));
        let pools = Api::<MemoryPool>::all(self.client.clone());
        let object = pools.get_opt(pool).await.expect("read");
        let grants = Api::<PoolGrant>::all(self.client.clone());
        let grants = grants.list(&ListParams::default()).await.expect("listed");
        let refused = |_| {
            let refused = NotGranted {
                pool: pool.to_owned(),
                namespace: namespace.to_owned(),
            };
            (StatusCode::FORBIDDEN, refused.to_string())
        };
        let share = access::share(object.as_ref(), &grants.items, namespace);
        share.map(drop).map_err(refused)
    }

    fn note(&self, what: String) {
        self.asked.lock().expect("no panic").push(what);
    }
}

type Refusal = (StatusCode, String);

async fn attach(
    State(legs): State<Legs>,
    UrlPath(volume): UrlPath<String>,
    Json(wanted): Json<Value>,
) -> Result<Json<Value>, Refusal> {
    legs.note(format!("attach {volume}"));
    let found = Api::<PoolVolume>::all(legs.client.clone())
        .get_opt(&volume)
        .await;
    let found = found.ok().flatten().and_then(|v| v.status);
    let Some(status) = found else {
        return Err((StatusCode::NOT_FOUND, format!("no volume {volume} is here")));
    };
    let granted = status.attachments.iter().find(|a| a.node == NODE);
    if granted.map(|a| json!({"generation": a.generation, "readOnly": a.read_only})) != Some(wanted)
    {
        return Err((
            StatusCode::CONFLICT,
            format!("volume {volume} is not granted so"),
        ));
    }
    let read_only = granted.is_some_and(|a| a.read_only);
    let device = match legs.device(&volume) {
        Some(device) => device,
        None => {
            let mut command = Command::new("losetup");
            command.args(["--find", "--show", "--sector-size", "4096"]);
            if read_only {
                command.arg("--read-only");
            }
            run(command.arg(legs.file(&volume))).trim().to_owned()
        }
    };
    Ok(Json(json!({"device": device})))
}

async fn detach(
    State(legs): State<Legs>,
    UrlPath(volume): UrlPath<String>,
) -> Result<StatusCode, Refusal> {
    legs.note(format!("detach {volume}"));
    if let Some(device) = legs.device(&volume) {
        run(Command::new("losetup").args(["-d", &device]));
    }
    // A device in use is detached when its last user goes; who looks at all devices of a machine uses it for a moment.
    for _ in 0..1500 {
        if legs.device(&volume).is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match legs.device(&volume) {
        Some(device) => Err((StatusCode::CONFLICT, format!("{device} is in use"))),
        None => Ok(StatusCode::NO_CONTENT),
    }
}

async fn open(
    State(legs): State<Legs>,
    UrlPath(id): UrlPath<String>,
    Json(door): Json<Value>,
) -> Result<Json<Value>, Refusal> {
    legs.note(format!("open {id}"));
    if door["pool"] != crate::bed::POOL {
        return Err((StatusCode::NOT_FOUND, "no such MemoryPool is known".into()));
    }
    let directory = PathBuf::from(door["directory"].as_str().unwrap_or_default());
    let socket = directory.join("door.sock");
    let _ = fs::remove_file(&socket);
    // Bound as the agent does; nobody answers.
    drop(
        std::os::unix::net::UnixListener::bind(&socket)
            .map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?,
    );
    legs.doors.lock().expect("no panic").insert(id, door);
    Ok(Json(json!({"socket": socket})))
}

async fn close(State(legs): State<Legs>, UrlPath(id): UrlPath<String>) -> StatusCode {
    legs.note(format!("close {id}"));
    legs.doors.lock().expect("no panic").remove(&id);
    StatusCode::NO_CONTENT
}

async fn scratch(
    State(legs): State<Legs>,
    UrlPath(id): UrlPath<String>,
    Json(space): Json<Value>,
) -> Result<Json<Value>, Refusal> {
    legs.note(format!("scratch {id}"));
    legs.may_use(&space).await?;
    let size = space["size"].as_u64().expect("a size");
    if size > ROOM {
        let words = format!("{size} bytes of scratch space: no room");
        return Err((StatusCode::INSUFFICIENT_STORAGE, words));
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(legs.file(&id));
    file.and_then(|file| file.set_len(size)).expect("a file");
    legs.scratch
        .lock()
        .expect("no panic")
        .insert(id.clone(), space);
    let device = match legs.device(&id) {
        Some(device) => device,
        None => {
            let mut command = Command::new("losetup");
            command.args(["--find", "--show", "--sector-size", "4096"]);
            run(command.arg(legs.file(&id))).trim().to_owned()
        }
    };
    Ok(Json(json!({"device": device})))
}

async fn all_scratch(State(legs): State<Legs>) -> Json<Value> {
    let all = legs.scratch.lock().expect("no panic").clone();
    let all = all
        .iter()
        .map(|(id, space)| json!({"id": id, "target": space["target"]}));
    Json(all.collect())
}

async fn end_scratch(
    state: State<Legs>,
    UrlPath(id): UrlPath<String>,
) -> Result<StatusCode, Refusal> {
    let legs = state.0.clone();
    let detached = detach(state, UrlPath(id.clone())).await?;
    let _ = fs::remove_file(legs.file(&id));
    legs.scratch.lock().expect("no panic").remove(&id);
    Ok(detached)
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .arg(from)
        .arg(to));
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

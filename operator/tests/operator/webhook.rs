//! The webhooks over real TLS, answering from a real API; and the Secrets that the operator fills.
//!
//! Every wait is for a state, with a bound.
use crate::api::{Bed, Running};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use operator::{
    observe::Observed,
    peer_key,
    webhook::{self, HookMetrics, Hooks, Keeper, Seen, Source},
};
use serde_json::{Value, json};
use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};
use strand_api::{MemoryPool, PoolGrant};
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

const NAMESPACE: &str = "strand-system";
const SECRET: &str = "strand-webhook";

struct Hooked {
    bed: Bed,
    tasks: Running,
}

impl Deref for Hooked {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.bed
    }
}

impl Hooked {
    async fn start() -> Self {
        let hooked = Self {
            bed: Bed::start().await,
            tasks: Running(Vec::new()),
        };
        hooked.namespace(NAMESPACE, None).await;
        hooked
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn namespace(&self, name: &str, pool: Option<&str>) {
        let mut object = json!({"metadata": {"name": name}});
        if let Some(pool) = pool {
            object["metadata"]["labels"] = json!({"strand.dev/pool": pool});
        }
        let object: Namespace = serde_json::from_value(object).unwrap();
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    async fn empty_secret(&self, name: &str) {
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        self.secrets()
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
    }

    async fn pool(&self, name: &str, access: &str) {
        let pool = json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": name},
            "spec": {"drives": {"models": ["*"]}, "access": access},
        });
        let pool: MemoryPool = serde_json::from_value(pool).unwrap();
        self.api()
            .create(&PostParams::default(), &pool)
            .await
            .unwrap();
    }

    /// An operator's webhooks; resolves once they answer.
    async fn hooks(&mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (observed, watches) = Observed::watch(&self.client);
        self.tasks.0.push(tokio::spawn(watches));
        let (seen, watches) = Seen::watch(&self.client, &observed);
        self.tasks.0.push(tokio::spawn(watches));
        within(seen.complete()).await.unwrap();
        let config = serde_json::from_value(json!({"image": "strand:test", "port": 6379})).unwrap();
        let metrics = HookMetrics::register(&prometheus::Registry::new()).unwrap();
        let hooks = Hooks::new(seen, Some(config), metrics);
        let keeper = Keeper::new(
            self.client.clone(),
            NAMESPACE,
            SECRET,
            SECRET,
            Source::Operator,
        );
        let mut there = keeper.there();
        self.tasks.0.push(tokio::spawn(async move {
            tokio::select! {
                served = webhook::serve(listener, &keeper, hooks) => { let _ = served; }
                () = keeper.keep() => {}
            }
        }));
        within(there.wait_for(|there| *there)).await.unwrap();
        address
    }

    /// A client that trusts what the Secret says, as the API server would.
    async fn connect(&self, address: SocketAddr) -> Asker {
        let secret = self.secrets().get(SECRET).await.unwrap();
        let authorities = secret.data.unwrap()["ca.crt"].0.clone();
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&authorities) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(format!("{SECRET}.{NAMESPACE}.svc")).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream)
            .await
            .expect("the certificate is trusted");
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Asker {
            sender,
            certificate,
        }
    }
}

struct Asker {
    sender: SendRequest<Full<Bytes>>,
    certificate: Vec<u8>,
}

impl Asker {
    async fn ask(&mut self, path: &str, kind: &str, namespace: &str, object: &Value) -> Value {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": kind}, "operation": "CREATE",
                "namespace": namespace, "object": object, "oldObject": null, "dryRun": true,
            },
        });
        let request = hyper::Request::post(path)
            .header("host", "webhook")
            .header("content-type", "application/json")
            .body(Full::from(review.to_string()))
            .unwrap();
        within(self.sender.ready()).await.unwrap();
        let answer = within(self.sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["response"]["uid"], "u-1");
        answer["response"].clone()
    }

    async fn pod(&mut self, namespace: &str, pod: &Value) -> Value {
        self.ask("/inject", "Pod", namespace, pod).await
    }

    /// Asks until the answer is as wanted: what was just written comes by a watch.
    async fn pod_until(
        &mut self,
        namespace: &str,
        pod: &Value,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        within(async {
            loop {
                let answer = self.pod(namespace, pod).await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .expect("in time")
}

fn pod() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}})
}

fn patch(answer: &Value) -> Option<Value> {
    let patch = STANDARD.decode(answer["patch"].as_str()?).unwrap();
    assert_eq!(answer["patchType"], "JSONPatch");
    Some(serde_json::from_slice(&patch).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_injected_by_what_the_cluster_says_now() {
    let mut bed = Hooked::start().await;
    bed.empty_secret(SECRET).await;
    bed.namespace("team-a", Some("rack")).await;
    bed.namespace("team-b", None).await;
    let address = bed.hooks().await;
    let mut api = bed.connect(address).await;

    // Asked for, and not there: admitted, with the reason.
    let answer = api
        .pod_until("team-a", &pod(), |a| a["patch"].is_string())
        .await;
    assert_eq!(answer["allowed"], true);
    let said = patch(&answer).unwrap();
    assert_eq!(said[1]["path"], "/metadata/annotations/strand.dev~1skipped");
    assert!(
        answer["warnings"][0]
            .as_str()
            .unwrap()
            .contains("no MemoryPool \"rack\"")
    );

    bed.pool("rack", "Granted").await;
    let denied = |a: &Value| {
        a["warnings"][0]
            .as_str()
            .is_some_and(|w| w.contains("PoolGrant named rack.team-a"))
    };
    api.pod_until("team-a", &pod(), denied).await;

    let grant = json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolGrant", "metadata": {"name": "rack.team-a"},
        "spec": {"pool": "rack", "namespace": "team-a"},
    });
    let grant: PoolGrant = serde_json::from_value(grant).unwrap();
    bed.api()
        .create(&PostParams::default(), &grant)
        .await
        .unwrap();
    let answer = api
        .pod_until("team-a", &pod(), |a| a["warnings"].is_null())
        .await;
    let operations = patch(&answer).unwrap().to_string();
    assert!(operations.contains("strand-kv-endpoint") && operations.contains("LMCACHE_REMOTE_URL"));

    // Another namespace gets nothing, by no label and by its own.
    assert_eq!(patch(&api.pod("team-b", &pod()).await), None);
    let mut own = pod();
    own["metadata"]["labels"] = json!({"strand.dev/pool": "rack"});
    let answer = api.pod("team-b", &own).await;
    assert!(
        answer["warnings"][0]
            .as_str()
            .unwrap()
            .contains("rack.team-b"),
        "{answer}"
    );
    // What cannot be read is let through.
    assert_eq!(
        api.pod("team-a", &json!({"spec": 7})).await["allowed"],
        true
    );

    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..500 {
        let begun = std::time::Instant::now();
        api.pod("team-a", &pod()).await;
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "webhook over TLS: p50 {:?}, p99 {:?}",
        times[250], times[495]
    );
    // The goal is a p99 of 20 ms; a busy machine may miss that once, not always.
    assert!(times[250] < Duration::from_millis(20), "{:?}", times[250]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_cannot_work_are_refused_with_what_to_write() {
    let mut bed = Hooked::start().await;
    bed.empty_secret(SECRET).await;
    bed.pool("rack", "Open").await;
    let drive = json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "Drive", "metadata": {"name": "n-0123456789"},
        "spec": {"nodeName": "n", "pool": "rack"},
    });
    let drive: strand_api::Drive = serde_json::from_value(drive).unwrap();
    bed.api::<strand_api::Drive>()
        .create(&PostParams::default(), &drive)
        .await
        .unwrap();
    let status = json!({"status": {"identity": {"model": "m", "serial": "S1", "namespaceID": 1, "transport": "StandIn", "devicePath": "/dev/x"}}});
    let drives: Api<strand_api::Drive> = Api::all(bed.client.clone());
    drives
        .patch_status(
            "n-0123456789",
            &PatchParams::default(),
            &Patch::Merge(status),
        )
        .await
        .unwrap();
    let address = bed.hooks().await;
    let mut api = bed.connect(address).await;

    let pool = |spec: Value| json!({"apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": "new"}, "spec": spec});
    let operation = |type_: &str, drive: &str, serial: &str| json!({"apiVersion": "strand.dev/v1alpha1", "kind": "DriveOperation", "metadata": {"name": "o"}, "spec": {"type": type_, "drive": drive, "serial": serial}});
    let expression = |operator: &str, values: Value| {
        pool(
            json!({"drives": {"models": ["*"]}, "nodeSelector": {"matchExpressions": [{"key": "gpu", "operator": operator, "values": values}]}}),
        )
    };
    let carve = |context: &str| {
        pool(
            json!({"drives": {"models": ["*"]}, "carve": {"contextMemory": context, "minStorage": "1Gi", "minContextMemory": "1Gi"}}),
        )
    };
    let refused = [
        (
            "MemoryPool",
            expression("Is", json!(["a"])),
            "write In, NotIn",
        ),
        ("MemoryPool", expression("In", json!([])), "or Exists"),
        (
            "MemoryPool",
            expression("Exists", json!(["a"])),
            "leave the values out",
        ),
        ("MemoryPool", carve("100%"), "a smaller percentage"),
        ("MemoryPool", carve("0%"), "a larger percentage"),
        (
            "DriveOperation",
            operation("Wipe", "n-1", "S1"),
            "kubectl get drives shows",
        ),
        (
            "DriveOperation",
            operation("Wipe", "n-0123456789", "S1"),
            "type Release instead",
        ),
    ];
    for (kind, object, words) in refused {
        let answer = api.ask("/validate", kind, "", &object).await;
        assert_eq!(answer["allowed"], false, "{object}");
        let message = answer["status"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
    let other = operation("Release", "n-0123456789", "S2");
    let answer = api.ask("/validate", "DriveOperation", "", &other).await;
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.contains("has serial S1, not S2"), "{message}");
    let fine = pool(json!({"drives": {"models": ["*"]}, "access": "Granted"}));
    let answer = api.ask("/validate", "MemoryPool", "", &fine).await;
    assert_eq!(answer["allowed"], true);
    let warnings = answer["warnings"].to_string();
    assert!(
        warnings.contains("selects no node") && warnings.contains("PoolGrant named new.NAMESPACE"),
        "{warnings}"
    );
    let grant = json!({"apiVersion": "strand.dev/v1alpha1", "kind": "PoolGrant", "metadata": {"name": "x.y"}, "spec": {"pool": "x", "namespace": "y"}});
    let warnings = api.ask("/validate", "PoolGrant", "", &grant).await["warnings"].to_string();
    assert!(
        warnings.contains("no MemoryPool x") && warnings.contains("no namespace y"),
        "{warnings}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_shared_by_operators_and_renewed() {
    let mut bed = Hooked::start().await;
    // The operator may be there before the chart's Secret is.
    let keeper = Keeper::new(
        bed.client.clone(),
        NAMESPACE,
        SECRET,
        SECRET,
        Source::Operator,
    );
    let mut there = keeper.there();
    bed.tasks
        .0
        .push(tokio::spawn(async move { keeper.keep().await }));
    bed.empty_secret(SECRET).await;
    within(there.wait_for(|there| *there)).await.unwrap();

    let (one, two) = (bed.hooks().await, bed.hooks().await);
    let first = bed.connect(one).await.certificate;
    assert_eq!(
        first,
        bed.connect(two).await.certificate,
        "one certificate, whoever answers"
    );

    // Nearly over: the next operator that looks makes another, which the same authority has signed.
    let mut secret = bed.secrets().get(SECRET).await.unwrap();
    let data = secret.data.as_mut().unwrap();
    let mut until: Value = serde_json::from_slice(&data["until"].0).unwrap();
    until["certificate"] = json!("2026-01-01T00:00:00Z");
    data.insert(
        "until".into(),
        k8s_openapi::ByteString(until.to_string().into_bytes()),
    );
    bed.secrets()
        .replace(SECRET, &PostParams::default(), &secret)
        .await
        .unwrap();
    let three = bed.hooks().await;
    let renewed = bed.connect(three).await.certificate;
    assert_ne!(first, renewed);
    // Still trusted until it looks again.
    let served = bed.connect(one).await.certificate;
    assert!(served == first || served == renewed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_get_one_key_for_good() {
    let bed = Hooked::start().await;
    let key = "strand-peer-key";
    let both = async {
        let ensure = || peer_key::ensure(bed.client.clone(), NAMESPACE, key);
        tokio::join!(ensure(), ensure(), bed.empty_secret(key))
    };
    within(both).await;
    let read = || async {
        bed.secrets().get(key).await.unwrap().data.unwrap()["key"]
            .0
            .clone()
    };
    let made = read().await;
    let text = String::from_utf8(made.clone()).unwrap();
    assert!(
        text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "{text}"
    );
    within(peer_key::ensure(bed.client.clone(), NAMESPACE, key)).await;
    assert_eq!(read().await, made);
}

//! A real API with Strand's definitions, in a directory of its own.

use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{fmt::Debug, time::Duration};
use strand_api::{crds, names};
use strand_embedded_api as embedded;
use tokio::task::JoinHandle;

pub struct Bed {
    pub server: embedded::Server,
    pub client: Client,
    _dir: tempfile::TempDir,
}

impl Bed {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = embedded::Server::start(embedded::Config::new(dir.path()))
            .await
            .unwrap();
        let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let bed = Self {
            server,
            client: Client::try_from(config).unwrap(),
            _dir: dir,
        };
        for crd in crds() {
            bed.api()
                .create(&PostParams::default(), &crd)
                .await
                .unwrap();
        }
        bed
    }

    /// Objects of one kind, in all namespaces if it has any.
    pub fn api<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub async fn make<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + serde::Serialize,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let made = self.api().create(&PostParams::default(), &object).await;
        made.unwrap()
    }

    /// Writes a status as an agent does.
    pub async fn report<K>(&self, name: &str, status: Value)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        report::<K>(&self.client, name, status).await.unwrap();
    }

    /// Waits until the object satisfies the test, and returns it.
    pub async fn until<K>(&self, name: &str, what: &str, test: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let mut last = None;
        for _ in 0..1500 {
            last = self.api::<K>().get_opt(name).await.unwrap();
            match last {
                Some(object) if test(&object) => return object,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("{name} was never {what}: {last:#?}");
    }

    pub async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let mut last = None;
        for _ in 0..1500 {
            last = self.api::<K>().get_opt(name).await.unwrap();
            if last.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} never went: {last:#?}");
    }

    /// Waits until there are events for each of these reasons, and returns the reasons of all. They follow what they tell of.
    pub async fn until_told(&self, reasons: &[&str]) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..1500 {
            let events = self.api::<Event>().list(&ListParams::default()).await;
            let found = events.unwrap().items.into_iter();
            told = found.filter_map(|e| e.reason).collect();
            if reasons
                .iter()
                .all(|reason| told.iter().any(|t| t == reason))
            {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("events for {reasons:?} never came: {told:?}");
    }

    /// Waits until nobody has written anything for two seconds: what was begun is over.
    pub async fn until_at_rest(&self) {
        let mut before = self.server.stats().writes();
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = self.server.stats().writes();
            if now == before {
                return;
            }
            before = now;
        }
        panic!("somebody writes all the time");
    }
}

/// Writes a status as an agent does.
pub async fn report<K>(client: &Client, name: &str, status: Value) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    report_as::<K>(client, names::AGENT_MANAGER, name, status).await
}

/// Writes a part of a status as an agent does, under a field manager of its own.
pub async fn report_as<K>(
    client: &Client,
    manager: &str,
    name: &str,
    status: Value,
) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "status": status});
    let params = PatchParams::apply(manager).force();
    let api: Api<K> = Api::all(client.clone());
    api.patch_status(name, &params, &Patch::Apply(patch))
        .await
        .map(|_| ())
}

/// Tasks that end with the test.
pub struct Running(pub Vec<JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

//! Keeps the webhook's certificates: in a Secret, in the API server's configuration, and in what is served. Every operator
//! does, leading or not: the Secret's resourceVersion lets one of them renew.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use strand_api::names;
use tokio::sync::watch;
use tokio_rustls::rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificates::{Certificates, MadeError, Renewal};

/// Between two looks. An upgrade of the chart may take the authority out of the configurations; until the next look pods are
/// admitted as they are.
const LOOK: Duration = Duration::from_secs(10);
/// From trusting a new authority to serving what it has issued: API servers learn of it by a watch.
const LEARN: Duration = Duration::from_secs(2);
/// After a failure, and while somebody else writes.
const RETRY: Duration = Duration::from_secs(2);
/// Name of the webhook configurations, both.
const CONFIGURATIONS: &str = "strand";

/// Where certificates come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Made and renewed here.
    Operator,
    /// Put into the Secret, and into the configurations, by cert-manager.
    CertManager,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum NoCertificate {
    #[error(
        "Secret {secret} is missing; make it anew, empty: kubectl -n {namespace} create secret generic {secret}"
    )]
    NoSecret { secret: String, namespace: String },
    #[error("Secret {0} has no certificate yet")]
    Empty(String),
    #[error(
        "the certificate in Secret {secret} cannot be used ({why}); empty the Secret to have another made"
    )]
    Unusable { secret: String, why: String },
    #[error("somebody else is writing it")]
    Contended,
    #[error(transparent)]
    Made(#[from] MadeError),
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Keeps certificates.
pub struct Keeper {
    client: Client,
    secrets: Api<Secret>,
    namespace: String,
    secret: String,
    /// What the API server calls the service.
    name: String,
    source: Source,
    served: Served,
    there: watch::Sender<bool>,
}

/// The certificate that is served now. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Served(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self
            .0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        served.clone()
    }
}

impl Keeper {
    /// For the service `service` and the Secret `secret`, both in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        service: &str,
        secret: &str,
        source: Source,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            client,
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            name: format!("{service}.{namespace}.svc"),
            source,
            served: Served::default(),
            there: watch::Sender::new(false),
        }
    }

    pub(super) fn served(&self) -> Served {
        self.served.clone()
    }

    /// Tells when there is a certificate to serve.
    pub fn there(&self) -> watch::Receiver<bool> {
        self.there.subscribe()
    }

    /// Keeps them for ever.
    pub async fn keep(&self) {
        let mut present = None;
        loop {
            let pause = match self.look(&mut present).await {
                Ok(()) => LOOK,
                Err(NoCertificate::Contended) => RETRY,
                Err(error) => {
                    tracing::warn!(%error, "the webhook's certificate could not be looked after; trying again");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, present: &mut Option<Certificates>) -> Result<(), NoCertificate> {
        let found = self.secrets.get_opt(&self.secret).await?;
        let given = self.source == Source::CertManager;
        let secret = match found {
            Some(secret) => secret,
            None if given => return Err(NoCertificate::Empty(self.secret.clone())),
            None => {
                return Err(NoCertificate::NoSecret {
                    secret: self.secret.clone(),
                    namespace: self.namespace.clone(),
                });
            }
        };
        let data = secret.data.clone().unwrap_or_default();
        let stored = Certificates::read(&data, given);
        let now = Timestamp::now();
        let certificates = match (stored, given) {
            (None, true) => return Err(NoCertificate::Empty(self.secret.clone())),
            (Some(stored), true) => stored,
            (stored, false) => self.current(secret, stored, now).await?,
        };
        if !given {
            let authorities = &certificates.authorities;
            let one = self.trust::<MutatingWebhookConfiguration>(authorities);
            let two = self.trust::<ValidatingWebhookConfiguration>(authorities);
            let (one, two) = tokio::try_join!(one, two)?;
            if (one || two) && present.is_some() {
                tokio::time::sleep(LEARN).await;
            }
        }
        if present.as_ref() != Some(&certificates) {
            self.serve(&certificates)?;
            *present = Some(certificates);
        }
        Ok(())
    }

    /// What is stored, renewed where it is time. It is stored before it is trusted, and trusted before it is served, by whichever
    /// operator: while several renew, one of them gets to store, and all do as it says.
    async fn current(
        &self,
        mut secret: Secret,
        stored: Option<Certificates>,
        now: Timestamp,
    ) -> Result<Certificates, NoCertificate> {
        let renewed = match &stored {
            // The Secret was emptied, or there was none: others may still serve what the API server trusts now.
            None => Certificates::make(&self.name, now, &self.trusted().await?)?,
            Some(stored) => match stored.renewal(&self.name, now) {
                Renewal::None => return Ok(stored.clone()),
                what => stored.renewed(what, &self.name, now)?,
            },
        };
        secret.data = Some(renewed.data());
        let options = PostParams {
            field_manager: Some(names::OPERATOR_MANAGER.into()),
            ..PostParams::default()
        };
        match self.secrets.replace(&self.secret, &options, &secret).await {
            Ok(_) => {
                tracing::info!(
                    secret = self.secret,
                    name = self.name,
                    "made a certificate for the webhook"
                );
                Ok(renewed)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Err(NoCertificate::Contended),
            Err(error) => Err(error.into()),
        }
    }

    /// The authorities that the API server trusts now, as PEM; none where it trusts none.
    async fn trusted(&self) -> kube::Result<String> {
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let hooks = api.get_opt(CONFIGURATIONS).await?.and_then(|c| c.webhooks);
        let bundle = hooks
            .into_iter()
            .flatten()
            .find_map(|hook| hook.client_config.ca_bundle);
        Ok(bundle
            .and_then(|bundle| String::from_utf8(bundle.0).ok())
            .unwrap_or_default())
    }

    /// Has the API server trust these authorities; a configuration that is not installed is fine. Tells whether one did not before.
    async fn trust<K>(&self, authorities: &str) -> kube::Result<bool>
    where
        K: Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + serde::Serialize,
        K: Resource<Scope = kube::core::ClusterResourceScope>,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let Some(present) = api.get_opt(CONFIGURATIONS).await? else {
            return Ok(false);
        };
        let bundle = STANDARD.encode(authorities);
        let present = serde_json::to_value(&present).unwrap_or_default();
        let lacking: Vec<Value> = present["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|hook| hook["clientConfig"]["caBundle"] != bundle.as_str())
            .map(|hook| json!({"name": hook["name"], "clientConfig": {"caBundle": bundle}}))
            .collect();
        if lacking.is_empty() {
            return Ok(false);
        }
        let patch = json!({"webhooks": lacking});
        let options = PatchParams {
            field_manager: Some(names::OPERATOR_MANAGER.into()),
            ..PatchParams::default()
        };
        api.patch(CONFIGURATIONS, &options, &Patch::Strategic(patch))
            .await?;
        Ok(true)
    }

    fn serve(&self, certificates: &Certificates) -> Result<(), NoCertificate> {
        let unusable = |why: String| NoCertificate::Unusable {
            secret: self.secret.clone(),
            why,
        };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(certificates.certificate.as_bytes()).collect();
        let chain = chain.map_err(|e| unusable(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes());
        let key = key.map_err(|e| unusable(e.to_string()))?;
        let key = any_supported_type(&key).map_err(|e| unusable(e.to_string()))?;
        let mut served = self
            .served
            .0
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *served = Some(Arc::new(CertifiedKey::new(chain, key)));
        drop(served);
        self.there.send_replace(true);
        Ok(())
    }
}

//! Which namespaces' claims get volumes of a pool. It is asked when a volume is made: what is there stays usable.

use kube::ResourceExt;
use strand_api::{Access, MemoryPool, PoolGrant};
use strand_placement::access::{self, Denied, NotGranted};

use super::Controller;
use crate::error::Error;
use crate::request::parameters::CLAIM_NAMESPACE;

impl Controller {
    /// Refuses a volume of the pool to a namespace that may not use it.
    pub(super) async fn admitted(
        &self,
        pool: &MemoryPool,
        namespace: Option<&str>,
    ) -> Result<(), Error> {
        match pool.spec.access {
            Access::Open => Ok(()),
            Access::Granted => may_use(pool, &self.cluster.all().await?, namespace),
        }
    }
}

/// Whether a namespace may use a pool that is granted; pure.
fn may_use(pool: &MemoryPool, grants: &[PoolGrant], namespace: Option<&str>) -> Result<(), Error> {
    let name = pool.name_any();
    let Some(namespace) = namespace else {
        let why = format!(
            "{CLAIM_NAMESPACE} is missing, and MemoryPool {name} is for namespaces that it is granted to: csi-provisioner needs --extra-create-metadata"
        );
        return Err(Error::invalid("parameters", why));
    };
    match access::share(Some(pool), grants, namespace) {
        // Of a pool that is being deleted the operator says so.
        Ok(_) | Err(Denied::NoPool) => Ok(()),
        Err(Denied::NotGranted) => Err(Error::NotGranted(NotGranted {
            pool: name,
            namespace: namespace.to_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn a_granted_pool_is_for_claims_of_namespaces_with_a_grant() {
        let pool: MemoryPool = from_value(json!({
            "metadata": {"name": "rack"}, "spec": {"drives": {"models": ["*"]}, "access": "Granted"},
        }))
        .unwrap();
        let grant = |pool: &str, namespace: &str| -> PoolGrant {
            from_value(json!({
                "metadata": {"name": format!("{pool}.{namespace}")}, "spec": {"pool": pool, "namespace": namespace},
            }))
            .unwrap()
        };
        let grants = [grant("rack", "team-a"), grant("other", "team-b")];
        let asked = |namespace| may_use(&pool, &grants, namespace);
        assert!(asked(Some("team-a")).is_ok());
        let refused = asked(Some("team-b")).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert!(
            refused
                .to_string()
                .ends_with("ask an administrator for a PoolGrant named rack.team-b"),
            "{refused}"
        );
        let nobody = asked(None).unwrap_err();
        assert_eq!(nobody.code(), tonic::Code::InvalidArgument);
        assert!(nobody.to_string().contains("--extra-create-metadata"));
    }
}

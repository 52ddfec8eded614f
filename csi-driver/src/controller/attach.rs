//! ControllerPublishVolume, ControllerUnpublishVolume: an entry in `spec.attachTo`, and the operator's answer in
//! `status.attachments`.

use std::collections::HashMap;

use kube::ResourceExt;
use serde_json::json;
use strand_api::{AttachTo, Attachment, Locality, PoolVolume, names};
use strand_csi::v1::{
    ControllerPublishVolumeRequest, ControllerPublishVolumeResponse,
    ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse,
};

use super::{Controller, told};
use crate::context::{GENERATION, READ_ONLY};
use crate::error::Error;
use crate::request::capability::{Capability, Sharing};
use crate::request::id;

/// Whether a volume can be attached to a node as is wanted: the entries it shall have then, or `None` where it has them. Pure.
fn decide(
    volume: &PoolVolume,
    wanted: &AttachTo,
    sharing: Sharing,
) -> Result<Option<Vec<AttachTo>>, Error> {
    let spec = &volume.spec;
    let in_use = |why: String| Error::InUse {
        volume: format!("volume {}", volume.name_any()),
        why,
    };
    if let (Locality::Node, Some(node)) = (spec.locality, &spec.node_name)
        && *node != wanted.node
    {
        return Err(in_use(format!("can only be used on node {node}")));
    }
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        spec.attach_to.iter().partition(|to| to.node == wanted.node);
    if let Some(there) = here.first() {
        if there.read_only == wanted.read_only {
            return Ok(None);
        }
        let why = match there.read_only {
            true => "for reading only",
            false => "for writing",
        };
        return Err(Error::Exists {
            what: format!("a publication to node {}", wanted.node),
            why: why.into(),
        });
    }
    let readers = elsewhere.iter().all(|to| to.read_only);
    let shared = wanted.read_only && readers && sharing == Sharing::ManyReaders;
    if let Some(other) = elsewhere.first()
        && !shared
    {
        return Err(in_use(format!(
            "is published to node {}; unpublish it there first",
            other.node
        )));
    }
    let mut entries = spec.attach_to.clone();
    entries.push(wanted.clone());
    Ok(Some(entries))
}

/// The operator's grant for a node.
fn granted<'a>(volume: &'a PoolVolume, wanted: &AttachTo) -> Option<&'a Attachment> {
    let status = volume.status.as_ref()?;
    let fits = |a: &&Attachment| {
        a.phase.is_granted() && a.node == wanted.node && a.read_only == wanted.read_only
    };
    status.attachments.iter().find(fits)
}

impl Controller {
    pub(super) async fn attach(
        &self,
        request: &ControllerPublishVolumeRequest,
    ) -> Result<ControllerPublishVolumeResponse, Error> {
        let volume = id::id("volume_id", &request.volume_id)?;
        let node = id::node(&request.node_id)?;
        let capability = Capability::read(request.volume_capability.as_ref())?;
        let volume = volume.ok_or_else(|| Error::NoVolume(request.volume_id.clone()))?;
        let _held = self.locks.take(volume)?;
        let there = self.cluster.volume(volume).await?;
        if there.spec.volume_mode != capability.mode() {
            let why = "the volume has another mode (file system or raw blocks)";
            return Err(Error::invalid("volume_capability", why));
        }
        self.cluster.node(node).await?;

        let wanted = AttachTo {
            node: node.to_owned(),
            read_only: request.readonly || capability.sharing == Sharing::ManyReaders,
        };
        let has = there.spec.attach_to.iter().any(|to| to.node == node);
        let _place = match has {
            true => None,
            false => Some(self.limits.place(node, volume).await?),
        };
        let asked = self
            .cluster
            .change(volume, |there: &PoolVolume| {
                if there.spec.deletion_mark {
                    return Err(Error::NoVolume(volume.to_owned()));
                }
                let entries = decide(there, &wanted, capability.sharing)?;
                Ok(entries.map(|entries| json!({"attachTo": entries})))
            })
            .await?
            .ok_or_else(|| Error::NoVolume(volume.to_owned()))?;

        let (what, generation) = (format!("volume {volume}"), asked.metadata.generation);
        let attachment = self
            .cluster
            .wait(volume, "attached", |seen: Option<&PoolVolume>| {
                let Some(seen) = seen else {
                    return Some(Err(Error::NoVolume(volume.to_owned())));
                };
                if let Some(attachment) = granted(seen, &wanted) {
                    return Some(Ok(attachment.clone()));
                }
                let status = seen.status.as_ref()?;
                told::refusal(&status.conditions, names::ATTACHED, generation)
                    .filter(|c| told::is_final(c))
                    .map(|c| {
                        Err(Error::InUse {
                            volume: what.clone(),
                            why: c.message.clone(),
                        })
                    })
            })
            .await?;
        let generation = attachment.generation.to_string();
        let mut publish_context = HashMap::from([(GENERATION.to_owned(), generation)]);
        if wanted.read_only {
            publish_context.insert(READ_ONLY.to_owned(), "true".to_owned());
        }
        Ok(ControllerPublishVolumeResponse { publish_context })
    }

    pub(super) async fn detach(
        &self,
        request: &ControllerUnpublishVolumeRequest,
    ) -> Result<ControllerUnpublishVolumeResponse, Error> {
        let done = ControllerUnpublishVolumeResponse {};
        let Some(volume) = id::id("volume_id", &request.volume_id)? else {
            return Ok(done);
        };
        // No node means all of them.
        let node = match request.node_id.as_str() {
            "" => None,
            name => Some(id::node(name)?),
        };
        let _held = self.locks.take(volume)?;
        let meant = |at: &str| node.is_none_or(|node| node == at);
        let changed = self
            .cluster
            .change(volume, |there: &PoolVolume| {
                let (gone, kept): (Vec<_>, Vec<_>) =
                    there.spec.attach_to.iter().partition(|to| meant(&to.node));
                Ok((!gone.is_empty()).then(|| json!({"attachTo": kept})))
            })
            .await?;
        if changed.is_none() {
            return Ok(done);
        }
        self.cluster
            .wait(volume, "detached", |seen: Option<&PoolVolume>| {
                let left = seen.is_some_and(|seen| told::nodes(seen).iter().any(|at| meant(at)));
                (!left).then_some(Ok(()))
            })
            .await?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn volume(attach_to: Value) -> PoolVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "v"},
            "spec": {"pool": "p", "size": "1Gi", "volumeMode": "Block", "attachTo": attach_to},
        }))
        .unwrap()
    }

    fn to(node: &str, read_only: bool) -> AttachTo {
        AttachTo {
            node: node.into(),
            read_only,
        }
    }

    #[test]
    fn a_volume_has_one_writer_or_many_readers() {
        let free = volume(json!([]));
        let written = volume(json!([{"node": "a"}]));
        let read = volume(json!([{"node": "a", "readOnly": true}]));

        assert_eq!(
            decide(&free, &to("a", false), Sharing::OneNode)
                .unwrap()
                .unwrap()
                .len(),
            1
        );
        assert!(
            decide(&written, &to("a", false), Sharing::OneNode)
                .unwrap()
                .is_none()
        );
        let differs = decide(&written, &to("a", true), Sharing::OneNode);
        assert!(matches!(differs, Err(Error::Exists { .. })));
        for (there, sharing, read_only) in [
            (&written, Sharing::OneNode, false),
            (&written, Sharing::ManyReaders, true),
            (&read, Sharing::OneNode, false),
            (&read, Sharing::OneReader, true),
        ] {
            let result = decide(there, &to("b", read_only), sharing);
            assert!(matches!(result, Err(Error::InUse { .. })), "{result:?}");
        }
        let both = decide(&read, &to("b", true), Sharing::ManyReaders).unwrap();
        assert_eq!(both.unwrap().len(), 2);
    }
}

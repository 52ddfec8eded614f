//! CreateVolume, DeleteVolume.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::json;
use strand_api::{
    ByteQuantity, Locality, MemoryPool, PlacedLeg, PoolVolume, PoolVolumeSpec, Provisioning,
    VolumeMode, VolumePhase, VolumeSource, names,
};
use strand_csi::v1::volume_content_source::Type;
use strand_csi::v1::{
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeResponse, VolumeContentSource,
};

use super::{Controller, told};
use crate::error::Error;
use crate::request::capability::Capability;
use crate::request::id::{self, Kind};
use crate::request::parameters::{self, Parameters};
use crate::request::size::Sizes;
use crate::request::topology::{self, Place};

/// The name as the caller gave it, where the object could not be called that.
const ASKED_NAME: &str = "csi.strand.dev/name";

/// A request, read.
struct Wanted {
    name: String,
    asked_name: String,
    mode: VolumeMode,
    sizes: Sizes,
    /// Whether a size was asked for.
    sized: bool,
    parameters: Parameters,
    limits: Option<strand_api::IoLimits>,
    source: Option<VolumeSource>,
}

impl Wanted {
    fn read(request: &CreateVolumeRequest) -> Result<Self, Error> {
        let name = id::object_name(Kind::Volume, &request.name)?;
        let (mode, fs) = Capability::read_all(&request.volume_capabilities)?;
        let range = request.capacity_range.as_ref();
        Ok(Self {
            name,
            asked_name: request.name.clone(),
            mode,
            sizes: Sizes::read(range, fs)?,
            sized: range.is_some_and(|r| r.required_bytes > 0),
            parameters: Parameters::read(&request.parameters)?,
            limits: parameters::limits(&request.mutable_parameters)?,
            source: source(request.volume_content_source.as_ref())?,
        })
    }

    fn volume(
        &self,
        pool: &MemoryPool,
        size: u64,
        provisioning: Option<Provisioning>,
        node: Option<&String>,
    ) -> PoolVolume {
        let storage = &pool.spec.storage;
        let spec = PoolVolumeSpec {
            pool: pool.name_any(),
            size: ByteQuantity(size),
            redundancy: self
                .parameters
                .redundancy
                .unwrap_or(storage.default_redundancy),
            provisioning: self
                .parameters
                .provisioning
                .or(provisioning)
                .unwrap_or(storage.provisioning),
            volume_mode: self.mode,
            locality: self.parameters.locality,
            node_name: node.cloned(),
            source: self.source.clone(),
            limits: self.limits.clone(),
            attach_to: Vec::new(),
            legs: Vec::new(),
            array: None,
            deletion_mark: false,
        };
        let asked = (self.name != self.asked_name)
            .then(|| [(ASKED_NAME.to_owned(), self.asked_name.clone())].into());
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            annotations: asked,
            ..ObjectMeta::default()
        };
        PoolVolume {
            metadata,
            spec,
            status: None,
        }
    }

    /// Whether a volume of that name is what is wanted; pure.
    fn is(&self, there: &PoolVolume) -> Result<(), Error> {
        let spec = &there.spec;
        let asked = there.annotations().get(ASKED_NAME);
        let parameters = &self.parameters;
        let differs = if asked.unwrap_or(&self.name) != &self.asked_name {
            "another name that reads the same in short"
        } else if !self.sizes.hold(told::size(there)) && !self.sizes.hold(spec.size.0) {
            "another size"
        } else if spec.volume_mode != self.mode {
            "another volume mode"
        } else if spec.source != self.source {
            "another content source"
        } else if parameters.pool.as_ref().is_some_and(|p| *p != spec.pool) {
            "another pool"
        } else if parameters.redundancy.is_some_and(|r| r != spec.redundancy) {
            "another redundancy"
        } else if parameters
            .provisioning
            .is_some_and(|p| p != spec.provisioning)
        {
            "another provisioning"
        } else if parameters.locality != spec.locality {
            "another locality"
        } else {
            return Ok(());
        };
        Err(Error::Exists {
            what: format!("volume {}", self.name),
            why: differs.into(),
        })
    }
}

/// Reads a content source.
fn source(source: Option<&VolumeContentSource>) -> Result<Option<VolumeSource>, Error> {
    let Some(source) = source else {
        return Ok(None);
    };
    let (mut snapshot, mut volume) = (None, None);
    match &source.r#type {
        Some(Type::Snapshot(from)) => {
            let id = id::id("snapshot_id", &from.snapshot_id)?;
            let id = id.ok_or_else(|| Error::NoSnapshot(from.snapshot_id.clone()))?;
            snapshot = Some(id.to_owned());
        }
        Some(Type::Volume(from)) => {
            let id = id::id("volume_id", &from.volume_id)?;
            let id = id.ok_or_else(|| Error::NoVolume(from.volume_id.clone()))?;
            volume = Some(id.to_owned());
        }
        None => return Err(Error::Missing("type in volume_content_source")),
    }
    Ok(Some(VolumeSource { snapshot, volume }))
}

/// What a volume's content comes from, as it is now.
struct Origin {
    size: u64,
    pool: Option<String>,
    mode: Option<VolumeMode>,
    /// Copies are what their source is.
    provisioning: Option<Provisioning>,
    /// The node that holds it: a copy shares its blocks.
    node: Option<String>,
}

fn holder(legs: &[PlacedLeg]) -> Option<String> {
    legs.first().map(|leg| leg.node_name.clone())
}

impl Controller {
    pub(super) async fn create(
        &self,
        request: &CreateVolumeRequest,
    ) -> Result<CreateVolumeResponse, Error> {
        let wanted = Wanted::read(request)?;
        let _held = self.locks.take(&wanted.name)?;
        let name = &wanted.name;
        let there = match self.settled(name).await? {
            Some(there) => there,
            None => {
                let volume = self.compose(&wanted, request).await?;
                match self.cluster.create(&volume).await? {
                    Some(made) => made,
                    // Another controller was faster.
                    None => self.cluster.volume(name).await?,
                }
            }
        };
        wanted.is(&there)?;
        match self.made(name).await {
            Ok(volume) => Ok(CreateVolumeResponse {
                volume: Some(told::volume(&volume)),
            }),
            Err(error @ (Error::NoSpace { .. } | Error::Invalid { .. })) => {
                // These answers mean that nothing is being made: the caller may choose another place under the same name.
                self.mark(name).await?;
                self.settled(name).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The object that shall be made.
    async fn compose(
        &self,
        wanted: &Wanted,
        request: &CreateVolumeRequest,
    ) -> Result<PoolVolume, Error> {
        let origin = match &wanted.source {
            Some(source) => Some(self.origin(source).await?),
            None => None,
        };
        let asked = wanted.parameters.pool.as_deref();
        let named = asked.or(origin.as_ref().and_then(|o| o.pool.as_deref()));
        let requirement = request.accessibility_requirements.as_ref();
        let place = topology::read(requirement, named)?;
        let pool = self.cluster.pool(named.or(place.pool.as_deref())).await?;
        let namespace = wanted.parameters.namespace.as_deref();
        self.admitted(&pool, namespace).await?;
        let size = match &origin {
            Some(origin) => self.restored_size(wanted, origin, &pool.name_any())?,
            None => wanted.sizes.wanted,
        };
        let source = origin.as_ref().and_then(|origin| origin.node.as_deref());
        let node = node_for(wanted.parameters.locality, &place, source)?;
        let provisioning = origin.and_then(|origin| origin.provisioning);
        Ok(wanted.volume(&pool, size, provisioning, node))
    }

    async fn origin(&self, source: &VolumeSource) -> Result<Origin, Error> {
        let of = |volume: &PoolVolume, size| Origin {
            size,
            pool: Some(volume.spec.pool.clone()),
            mode: Some(volume.spec.volume_mode),
            provisioning: Some(volume.spec.provisioning),
            node: holder(&volume.spec.legs),
        };
        if let Some(id) = &source.volume {
            let volume = self.cluster.volume(id).await?;
            return Ok(of(&volume, told::size(&volume)));
        }
        let id = source.snapshot.as_deref().unwrap_or_default();
        let snapshot = self.cluster.snapshot(id).await?;
        let status = snapshot.status.unwrap_or_default();
        if !status.ready_to_use {
            return Err(Error::Changing {
                what: format!("snapshot {id}"),
                why: "is not ready to use",
            });
        }
        // A snapshot outlives its volume.
        let volume = self.cluster.find(&snapshot.spec.volume).await?;
        let gone = Origin {
            size: status.size.0,
            pool: None,
            mode: None,
            provisioning: None,
            node: None,
        };
        let mut origin = volume.map_or(gone, |volume| of(&volume, status.size.0));
        origin.node = holder(&snapshot.spec.legs);
        Ok(origin)
    }

    fn restored_size(&self, wanted: &Wanted, origin: &Origin, pool: &str) -> Result<u64, Error> {
        if origin.pool.as_deref().is_some_and(|p| p != pool) {
            let why = "content can only be copied within a pool";
            return Err(Error::invalid("volume_content_source", why));
        }
        if origin.mode.is_some_and(|mode| mode != wanted.mode) {
            let why = "raw blocks cannot become a file system, nor the other way round";
            return Err(Error::invalid("volume_content_source", why));
        }
        let size = match wanted.sized {
            true => wanted.sizes.wanted,
            false => origin.size,
        };
        if size < origin.size {
            return Err(Error::OutOfRange(format!(
                "the content source has {} bytes, more than the {size} asked for",
                origin.size
            )));
        }
        if !wanted.sizes.hold(size) {
            return Err(Error::OutOfRange(format!(
                "the content source has {} bytes, above the limit",
                origin.size
            )));
        }
        Ok(size)
    }

    /// Waits until a volume is made.
    async fn made(&self, name: &str) -> Result<PoolVolume, Error> {
        let what = format!("volume {name}");
        self.cluster
            .wait(name, "made", |seen: Option<&PoolVolume>| {
                let Some(volume) = seen else {
                    return Some(Err(Error::NoVolume(name.to_owned())));
                };
                let status = volume.status.as_ref()?;
                if matches!(
                    status.phase,
                    Some(VolumePhase::Ready | VolumePhase::Degraded)
                ) {
                    return Some(Ok(volume.clone()));
                }
                told::refusal(&status.conditions, names::READY, None)
                    .filter(|c| told::is_final(c))
                    .map(|c| Err(told::refused(&what, c)))
            })
            .await
    }

    /// The volume of that name, once none of an earlier life is being taken away any more.
    async fn settled(&self, name: &str) -> Result<Option<PoolVolume>, Error> {
        self.cluster
            .wait(name, "deleted", |seen: Option<&PoolVolume>| match seen {
                Some(volume) if volume.spec.deletion_mark => None,
                seen => Some(Ok(seen.cloned())),
            })
            .await
    }

    pub(super) async fn delete(&self, id: &str) -> Result<DeleteVolumeResponse, Error> {
        let Some(id) = id::id("volume_id", id)? else {
            return Ok(DeleteVolumeResponse {});
        };
        let _held = self.locks.take(id)?;
        self.mark(id).await?;
        Ok(DeleteVolumeResponse {})
    }

    /// Marks a volume for deletion, if it is there and not in use. The mark is what deletes: the bytes go whatever happens then,
    /// also where their node is away for now.
    async fn mark(&self, id: &str) -> Result<(), Error> {
        let decide = |volume: &PoolVolume| {
            if volume.spec.deletion_mark {
                return Ok(None);
            }
            let wanted = volume.spec.attach_to.first().map(|to| to.node.clone());
            if let Some(node) = wanted.or_else(|| told::nodes(volume).pop()) {
                return Err(Error::InUse {
                    volume: format!("volume {id}"),
                    why: format!("is published to node {node}; unpublish it first"),
                });
            }
            Ok(Some(json!({"deletionMark": true})))
        };
        self.cluster.change(id, decide).await.map(|_| ())
    }
}

/// The node that a volume is bound to, or best placed on. A copy that is bound to a node is bound to its source's, if the pod may
/// run there, wherever the scheduler thought best: it then sees the volume and chooses again.
fn node_for<'a>(
    locality: Locality,
    place: &'a Place,
    source: Option<&str>,
) -> Result<Option<&'a String>, Error> {
    let with_source = place
        .nodes
        .iter()
        .find(|node| Some(node.as_str()) == source);
    match (locality, place.nodes.first()) {
        (Locality::Node, None) => Err(Error::invalid(
            "accessibility_requirements",
            "a volume with locality: node needs a node; use volumeBindingMode: WaitForFirstConsumer",
        )),
        (Locality::Node, best) => Ok(with_source.or(best)),
        (Locality::Fabric, best) => Ok(best),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_bound_to_the_node_of_its_source_if_it_may() {
        let place = Place {
            pool: None,
            nodes: vec!["n1".into(), "n2".into()],
        };
        let node = |locality, source| node_for(locality, &place, source).unwrap().unwrap();
        assert_eq!(node(Locality::Node, Some("n2")), "n2");
        assert_eq!(node(Locality::Node, Some("n3")), "n1");
        assert_eq!(node(Locality::Node, None), "n1");
        assert_eq!(node(Locality::Fabric, Some("n2")), "n1");
    }
}

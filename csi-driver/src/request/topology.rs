//! Where volumes can be reached from.

use std::collections::HashMap;

use strand_api::Locality;
use strand_csi::v1::{Topology, TopologyRequirement};

use crate::error::Error;

/// The pool whose volumes a node can attach. A node has one: a volume's topology never changes.
pub const FABRIC: &str = "topology.strand.dev/fabric";
/// The node itself.
pub const NODE: &str = "topology.strand.dev/node";

/// What a request says about where a volume shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The pool, if it says.
    pub pool: Option<String>,
    /// Nodes, the best first.
    pub nodes: Vec<String>,
}

/// Reads a requirement: preferred places first, then the others.
///
/// # Errors
/// Where it has places, and none of the pool's.
pub fn read(requirement: Option<&TopologyRequirement>, pool: Option<&str>) -> Result<Place, Error> {
    let mut place = Place::default();
    let Some(requirement) = requirement else {
        return Ok(place);
    };
    let mut any = false;
    let mut fits = false;
    for topology in requirement.preferred.iter().chain(&requirement.requisite) {
        any = true;
        let fabric = topology.segments.get(FABRIC).map(String::as_str);
        if let (Some(fabric), Some(pool)) = (fabric, pool)
            && fabric != pool
        {
            continue;
        }
        fits = true;
        if place.pool.is_none() {
            place.pool = fabric.map(str::to_owned);
        }
        if fabric.is_some() && place.pool.as_deref() != fabric {
            continue;
        }
        if let Some(node) = topology.segments.get(NODE)
            && !place.nodes.contains(node)
        {
            place.nodes.push(node.clone());
        }
    }
    if any && !fits {
        return Err(Error::NoSpace {
            what: format!("pool {}", pool.unwrap_or_default()),
            why: "none of the nodes in accessibility_requirements can attach its volumes".into(),
        });
    }
    Ok(place)
}

/// Where a volume can be reached from.
pub fn of(pool: &str, locality: Locality, node: Option<&str>) -> Vec<Topology> {
    let mut segments = HashMap::from([(FABRIC.to_owned(), pool.to_owned())]);
    if let (Locality::Node, Some(node)) = (locality, node) {
        segments.insert(NODE.to_owned(), node.to_owned());
    }
    vec![Topology { segments }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(fabric: &str, node: &str) -> Topology {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        Topology {
            segments: HashMap::from([pair(FABRIC, fabric), pair(NODE, node)]),
        }
    }

    #[test]
    fn preferred_nodes_come_first_and_other_pools_nodes_never() {
        let requirement = TopologyRequirement {
            requisite: vec![at("a", "n1"), at("a", "n2"), at("b", "n3")],
            preferred: vec![at("a", "n2")],
        };
        let place = read(Some(&requirement), Some("a")).unwrap();
        assert_eq!(place.nodes, ["n2", "n1"]);
        let place = read(Some(&requirement), None).unwrap();
        assert_eq!((place.pool.as_deref(), place.nodes.len()), (Some("a"), 2));
        assert!(read(Some(&requirement), Some("c")).is_err());
        assert_eq!(read(None, Some("c")).unwrap(), Place::default());
    }

    #[test]
    fn only_volumes_of_a_node_name_it() {
        assert!(
            !of("p", Locality::Fabric, Some("n"))[0]
                .segments
                .contains_key(NODE)
        );
        assert_eq!(of("p", Locality::Node, Some("n"))[0].segments[NODE], "n");
    }
}

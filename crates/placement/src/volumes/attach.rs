//! Where a volume may be attached, and with which generation.

use strand_api::{AttachTo, Attachment, PoolLeg, PoolVolume};

/// What is granted of `spec.attachTo`, and why the rest is not.
pub(super) struct Grants {
    /// For `status.attachments`.
    pub attachments: Vec<Attachment>,
    /// For `status.attachmentGeneration`.
    pub generation: i64,
    /// The first wish that is not granted: reason and sentence.
    pub refused: Option<(&'static str, String)>,
}

/// Decides. What was granted stays while it is wished for; new wishes are granted only where `legs`
/// are given, which are the volume's legs, all of them usable; else it is said why not.
///
/// One may write, or several may read: a wish that does not go with what is granted waits until that
/// is given up. Nothing is ever taken away that is wished for.
pub(super) fn decide(volume: &PoolVolume, legs: Result<&[&PoolLeg], &str>) -> Grants {
    let status = volume.status.clone().unwrap_or_default();
    // A record that knows a higher generation was written under a status that is lost.
    let stored = legs
        .iter()
        .copied()
        .flatten()
        .filter_map(|leg| leg.status.as_ref()?.attachment_generation)
        .max()
        .unwrap_or(0);
    let mut generation = status.attachment_generation;
    let wishes = &volume.spec.attach_to;
    let mut attachments: Vec<Attachment> = status
        .attachments
        .into_iter()
        .filter(|a| wishes.iter().any(|wish| same(wish, a)))
        .collect();
    for attachment in attachments.iter_mut().filter(|a| a.generation < stored) {
        generation = generation.max(stored) + 1;
        attachment.generation = generation;
    }
    let mut refused = None;
    for wish in wishes {
        if attachments.iter().any(|a| same(wish, a)) {
            continue;
        }
        let obstacle = match legs {
            Err(why) => Some(("NotReady", why.to_owned())),
            Ok(legs) => in_the_way(&attachments, wish).or_else(|| out_of_reach(legs, wish)),
        };
        match obstacle {
            None => {
                generation = generation.max(stored) + 1;
                attachments.push(Attachment {
                    generation,
                    node: wish.node.clone(),
                    read_only: wish.read_only,
                });
            }
            Some((reason, why)) => {
                let node = &wish.node;
                refused
                    .get_or_insert_with(|| (reason, format!("not attached to node {node}: {why}")));
            }
        }
    }
    Grants {
        attachments,
        generation,
        refused,
    }
}

fn same(wish: &AttachTo, attachment: &Attachment) -> bool {
    wish.node == attachment.node && wish.read_only == attachment.read_only
}

fn in_the_way(attachments: &[Attachment], wish: &AttachTo) -> Option<(&'static str, String)> {
    let other = attachments
        .iter()
        .find(|a| !(a.read_only && wish.read_only) || a.node == wish.node)?;
    let how = if other.read_only {
        "reading"
    } else {
        "writing"
    };
    let why = format!(
        "it is attached to node {} for {how}, and has to be detached there first",
        other.node
    );
    Some(("InUse", why))
}

/// Legs are reached on their own node alone, so far.
fn out_of_reach(legs: &[&PoolLeg], wish: &AttachTo) -> Option<(&'static str, String)> {
    let leg = legs.iter().find(|leg| leg.spec.node_name != wish.node)?;
    let why = format!(
        "its bytes lie on node {}, and this version attaches volumes on the node that holds them; use a StorageClass with locality node",
        leg.spec.node_name
    );
    Some((strand_api::names::UNSUPPORTED, why))
}

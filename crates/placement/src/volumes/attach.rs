//! Where a volume may be attached, with which generation, and who has to be kept from it before.
//!
//! ```text
//!   wished for     ─► Exporting ─► Granted      an attachment; Granted at once where every leg lies on its node
//!   no longer      ─► Fencing   ─► gone         gone at once where no other node's leg was reached
//! ```
//! An attachment stands in the legs' `spec.exports` from when it was recorded until it is given up. It goes only when the agent of
//! every leg has said, of a spec without it, that nobody reaches the leg by it any more; until then nobody else is granted one.
//! `docs/decisions/0018` has the reasons.

use super::{Action, Owner, Pass, array, claim, evacuate, ledger};
use strand_api::{
    AttachTo, Attachment, AttachmentPhase, LegExport, Locality, PlacedLeg, PoolLeg, PoolVolume,
    Redundancy, condition, names,
};

/// What is granted of `spec.attachTo`, and why the rest is not.
pub(super) struct Grants {
    /// For `status.attachments`.
    pub attachments: Vec<Attachment>,
    /// For `status.attachmentGeneration`.
    pub generation: i64,
    /// The first thing that is not as it is wished: reason and sentence.
    pub refused: Option<(&'static str, String)>,
}

/// The legs of a volume, as far as attachments go.
struct Legs<'p> {
    pass: &'p Pass<'p, 'p>,
    found: Vec<&'p PoolLeg>,
    /// Legs without an object: nobody says who reaches them.
    unknown: Vec<&'p PlacedLeg>,
    /// The highest generation that a leg's record is known to have.
    stored: i64,
    /// The highest that they are, or shall be, exported as.
    exported: i64,
    /// Whether one more can be given up.
    spare: bool,
}

/// Decides. What was granted stays while it is wished for; new wishes are granted only where the legs are `usable`; else it is said
/// why not.
///
/// One may write, or several may read: a wish that does not go with what is granted waits until that is given up, and fenced. Nothing
/// is ever taken away that is wished for.
pub(super) fn decide(pass: &Pass, volume: &PoolVolume, usable: Result<(), &str>) -> Grants {
    let legs = Legs::of(pass, volume);
    let status = volume.status.clone().unwrap_or_default();
    let wishes = &volume.spec.attach_to;
    // A record that knows a higher generation was written under a status that is lost.
    let stored = legs.stored;
    let mut generation = status.attachment_generation.max(evacuate::reserved(volume));
    let mut refused = None;
    let mut attachments = Vec::new();
    for mut attachment in status.attachments {
        let wished = wishes.iter().any(|wish| same(wish, &attachment));
        if !wished || attachment.phase == AttachmentPhase::Fencing {
            if let Some(why) = legs.unfenced(&attachment) {
                attachment.phase = AttachmentPhase::Fencing;
                attachments.push(attachment);
                refused.get_or_insert(why);
            }
            continue;
        }
        // Readers that share it came with a generation each, all of them known.
        if stored > status.attachment_generation && attachment.generation < stored {
            generation = generation.max(stored) + 1;
            attachment.generation = generation;
            attachment.phase = legs.first_phase(&attachment.node);
        }
        attachments.push(attachment);
    }
    for wish in wishes {
        if attachments.iter().any(|a| same(wish, a)) {
            continue;
        }
        let told = legs.exported_to(wish).filter(|told| *told >= stored);
        let obstacle = match usable {
            Err(why) => Some(("NotReady", why.to_owned())),
            Ok(()) => out_of_reach(volume, wish)
                .or_else(|| in_the_way(&attachments, wish))
                .or_else(|| evacuate::left_behind(pass, volume, &wish.node))
                .or_else(|| legs.left_over(&attachments, told)),
        };
        match obstacle {
            None => {
                // What the legs are exported as outlives a volume's status: its consumer does not notice that that was lost.
                let granted = told.unwrap_or(generation.max(stored).max(legs.exported) + 1);
                generation = generation.max(granted);
                attachments.push(Attachment {
                    generation: granted,
                    node: wish.node.clone(),
                    read_only: wish.read_only,
                    phase: legs.first_phase(&wish.node),
                });
            }
            Some((reason, why)) => {
                let node = &wish.node;
                refused
                    .get_or_insert_with(|| (reason, format!("not attached to node {node}: {why}")));
            }
        }
    }
    for attachment in &mut attachments {
        if attachment.phase == AttachmentPhase::Exporting {
            match legs.unexported(attachment) {
                None => attachment.phase = AttachmentPhase::Granted,
                Some(why) => drop(refused.get_or_insert(why)),
            }
        }
    }
    Grants {
        attachments,
        generation,
        refused,
    }
}

/// Has the legs exported as is granted, in what is already planned for them. An attachment has to be recorded first, or a generation
/// could be given twice.
pub(super) fn export(pass: &mut Pass, volume: &PoolVolume, grants: &Grants) {
    let recorded = volume.status.iter().flat_map(|s| &s.attachments);
    let recorded: Vec<i64> = recorded.map(|a| a.generation).collect();
    let insecure = pass.storage.pool(&volume.spec.pool);
    let insecure = insecure.is_some_and(|pool| pool.spec.insecure_fabric);
    let wanted = |node: &str, now: &[LegExport]| {
        let kept = |a: &&Attachment| {
            let is_there = |export: &LegExport| export.generation == a.generation;
            a.phase != AttachmentPhase::Fencing
                && a.node != node
                && (recorded.contains(&a.generation) || now.iter().any(is_there))
        };
        let export = |a: &Attachment| {
            let earlier = now.iter().find(|e| e.generation == a.generation);
            LegExport {
                generation: a.generation,
                node: a.node.clone(),
                read_only: a.read_only,
                copy: false,
                insecure: earlier.map_or(insecure, |e| e.insecure),
            }
        };
        let mut wanted: Vec<_> = grants.attachments.iter().filter(kept).map(export).collect();
        wanted.sort_by_key(|export| export.generation);
        wanted
    };
    let owner = Owner::Volume(volume);
    for placed in &volume.spec.legs {
        let leg = pass.claims.of(owner, placed);
        let name = leg.map_or(placed.name.as_str(), claim::name);
        let now = leg.map_or(&[][..], |leg| &leg.spec.exports);
        let mut wanted = wanted(&placed.node_name, now);
        if grants.attachments.is_empty() {
            wanted.extend(evacuate::export(pass, owner, placed, now));
        }
        let mut planned = pass.actions.iter_mut().filter_map(|action| match action {
            Action::MakeLeg { leg, spec } | Action::ChangeLeg { leg, spec } if leg == name => {
                Some(spec)
            }
            _ => None,
        });
        match (planned.next(), leg) {
            (Some(spec), _) => spec.exports = wanted,
            (None, Some(leg)) if leg.spec.exports != wanted => {
                let mut spec = leg.spec.clone();
                spec.exports = wanted;
                pass.actions.push(Action::ChangeLeg {
                    leg: name.into(),
                    spec: Box::new(spec),
                });
            }
            _ => {}
        }
    }
}

fn same(wish: &AttachTo, attachment: &Attachment) -> bool {
    wish.node == attachment.node && wish.read_only == attachment.read_only
}

fn in_the_way(attachments: &[Attachment], wish: &AttachTo) -> Option<(&'static str, String)> {
    let other = attachments
        .iter()
        .find(|a| !(a.read_only && wish.read_only) || a.node == wish.node)?;
    let node = &other.node;
    if other.phase == AttachmentPhase::Fencing {
        let why = format!("node {node}, which had it, is still being kept from it");
        return Some(("Fencing", why));
    }
    let how = if other.read_only {
        "reading"
    } else {
        "writing"
    };
    let why =
        format!("it is attached to node {node} for {how}, and has to be detached there first");
    Some(("InUse", why))
}

fn out_of_reach(volume: &PoolVolume, wish: &AttachTo) -> Option<(&'static str, String)> {
    let mut legs = volume.spec.legs.iter();
    let here = legs.find(|leg| leg.node_name == wish.node);
    if let (Some(leg), Redundancy::Raid6) = (here, volume.spec.redundancy) {
        let why = format!(
            "redundancy raid6 is attached only where none of its legs lie, and leg {} lies there; run the pod on another node",
            leg.name
        );
        return Some((names::UNSUPPORTED, why));
    }
    let only = volume.spec.node_name.as_ref()?;
    let elsewhere = volume.spec.locality == Locality::Node && *only != wish.node;
    let why = format!("it was made with locality node, for node {only} alone");
    elsewhere.then_some((names::UNSUPPORTED, why))
}

impl<'p> Legs<'p> {
    fn of(pass: &'p Pass<'p, 'p>, volume: &'p PoolVolume) -> Self {
        let mut legs = Self {
            pass,
            found: Vec::new(),
            unknown: Vec::new(),
            stored: 0,
            exported: 0,
            spare: array::spare(volume) > 0,
        };
        for placed in &volume.spec.legs {
            let Some(leg) = pass.claims.of(Owner::Volume(volume), placed) else {
                continue;
            };
            let stored = leg.status.as_ref().and_then(|s| s.attachment_generation);
            legs.stored = legs.stored.max(stored.unwrap_or(0));
            // After a loss of the status, another's that is about to be taken up again.
            let exported = leg.spec.exports.iter().map(|export| export.generation);
            legs.exported = legs.exported.max(exported.max().unwrap_or(0));
        }
        // What a leg lacks already is nothing that anybody could spoil. Nobody reaches it by a newer generation before its agent has
        // ended the older ones.
        for placed in volume.spec.legs.iter().filter(|leg| leg.lack.is_none()) {
            match pass.claims.of(Owner::Volume(volume), placed) {
                Some(leg) => legs.found.push(leg),
                // What was never made, or lay on a drive that was given up for good, reaches nobody.
                None if placed.uuid.is_none() => {}
                None if !pass.drives.contains_key(placed.drive.as_str()) => {}
                None => legs.unknown.push(placed),
            }
        }
        legs
    }

    /// Legs that a node reaches over the fabric.
    fn remote(&self, node: &str) -> impl Iterator<Item = &'p PoolLeg> {
        let elsewhere = move |leg: &&PoolLeg| leg.spec.node_name != node;
        self.found.iter().copied().filter(elsewhere)
    }

    fn first_phase(&self, node: &str) -> AttachmentPhase {
        match self.remote(node).next() {
            None => AttachmentPhase::Granted,
            Some(_) => AttachmentPhase::Exporting,
        }
    }

    /// The generation that every leg is exported with to a node that wants that.
    fn exported_to(&self, wish: &AttachTo) -> Option<i64> {
        let as_wished = |export: &&LegExport| {
            export.node == wish.node && export.read_only == wish.read_only && !export.copy
        };
        let mut remote = self.remote(&wish.node);
        let first = remote.next()?.spec.exports.iter().rfind(as_wished)?;
        let also = |leg: &PoolLeg| leg.spec.exports.contains(first);
        remote.all(also).then_some(first.generation)
    }

    /// Why somebody may still reach a leg under an attachment that was given up.
    fn unfenced(&self, given_up: &Attachment) -> Option<(&'static str, String)> {
        let node = &given_up.node;
        let words = |why: String| format!("node {node} may still have it: {why}");
        let waiting = |leg: &&PoolLeg| {
            reached(leg).any(|generation| generation == given_up.generation) || !is_seen(leg)
        };
        let known = |leg: &&PoolLeg| self.pass.drives.contains_key(leg.spec.drive.as_str());
        let Some(leg) = self.remote(node).filter(known).find(waiting) else {
            let unknown = self.unknown.iter().find(|leg| leg.node_name != *node)?;
            let why = format!(
                "leg {} has no object, and its agent has to say who reaches it",
                unknown.name
            );
            return Some(("Fencing", words(why)));
        };
        let (name, holder) = (claim::name(leg), &leg.spec.node_name);
        if !self.is_ready(holder) {
            let why = format!(
                "leg {name} lies on node {holder}, which is not ready and cannot say that it keeps that node out; bring it back, or \
                 forget its drive if that is gone for good"
            );
            return Some(("NotFenced", words(why)));
        }
        if let Some(why) = unexported_words(leg) {
            return Some(("NotFenced", words(why)));
        }
        let why = format!("leg {name} is being taken back on node {holder}");
        Some(("Fencing", words(why)))
    }

    /// What a leg is exported as, besides what is granted and `adopted`: nobody else is let in before that is gone.
    fn left_over(
        &self,
        attachments: &[Attachment],
        adopted: Option<i64>,
    ) -> Option<(&'static str, String)> {
        for leg in &self.found {
            let granted = |generation: i64| attachments.iter().any(|a| a.generation == generation);
            let left = reached(leg).find(|g| Some(*g) != adopted && !granted(*g));
            if let Some(generation) = left {
                let (name, node) = (claim::name(leg), &leg.spec.node_name);
                let copied = |e: &LegExport| e.generation == generation && e.copy;
                let why = match leg.spec.exports.iter().any(copied) {
                    true => format!(
                        "leg {name} on node {node} is being copied to another node, which is given up"
                    ),
                    false => format!(
                        "leg {name} on node {node} can still be reached as it was in attachment {generation}"
                    ),
                };
                return Some(("Fencing", why));
            }
            // What it was asked for before may be what it does next.
            if !is_seen(leg) {
                let (name, node) = (claim::name(leg), &leg.spec.node_name);
                let why = format!("node {node} has not seen yet what leg {name} is to be");
                return Some(("Fencing", why));
            }
        }
        None
    }

    /// Why a node does not reach all legs yet.
    fn unexported(&self, attachment: &Attachment) -> Option<(&'static str, String)> {
        let there = |leg: &PoolLeg| {
            let mut exports = leg.status.iter().flat_map(|s| &s.exports);
            exports.any(|export| export.generation == attachment.generation)
        };
        let leg = self.remote(&attachment.node).find(|leg| !there(leg))?;
        let words = |why: String| format!("not attached to node {}: {why}", attachment.node);
        if let Some(why) = unexported_words(leg) {
            return Some((names::NO_FABRIC, words(why)));
        }
        let (name, holder) = (claim::name(leg), &leg.spec.node_name);
        if !self.is_ready(holder) {
            let then = match self.spare {
                true => "; it is attached without that leg after a minute",
                false => "",
            };
            let why = format!("node {holder}, which holds leg {name}, is not ready{then}");
            return Some(("NodeNotReady", words(why)));
        }
        let why = format!("leg {name} is being exported by node {holder}");
        Some(("Exporting", words(why)))
    }

    fn is_ready(&self, node: &str) -> bool {
        ledger::ready(self.pass.storage.nodes.get(node).copied())
    }
}

/// The generations under which somebody may reach a leg, by its spec or by what its agent says.
fn reached(leg: &PoolLeg) -> impl Iterator<Item = i64> {
    let wanted = leg.spec.exports.iter().map(|export| export.generation);
    let told = leg.status.iter().flat_map(|s| &s.exports);
    wanted.chain(told.map(|export| export.generation))
}

/// Whether a leg's agent has acted on what it is asked for now.
fn is_seen(leg: &PoolLeg) -> bool {
    leg.status.as_ref().and_then(|s| s.observed_generation) >= leg.metadata.generation
}

/// What its agent says that keeps a leg from being exported or taken back.
fn unexported_words(leg: &PoolLeg) -> Option<String> {
    let conditions = leg.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let told = condition::find(conditions, names::EXPORTED).filter(|c| c.status == "False")?;
    let (name, node) = (claim::name(leg), &leg.spec.node_name);
    Some(format!("leg {name} on node {node}: {}", told.message))
}

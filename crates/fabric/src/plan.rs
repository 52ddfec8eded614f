//! What a node's target has to do to come from what it exports to what it shall export. Pure.

use crate::{Export, Exported, Nqn};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take an export away, whoever is connected.
    Fence(Nqn),
    /// Export a leg, or finish what was begun.
    Export(Box<Export>),
}

/// The steps, in order: first everything that must not be reached any more.
///
/// A leg that is exported under another generation is fenced, because who wrote under that one must not write any more. What is
/// exported and whole is left alone: a target that is told anew what it knows would break its connections.
pub fn plan(seen: &[Exported], wanted: &[Export]) -> Vec<Step> {
    let is_wanted = |seen: &Exported| wanted.iter().any(|export| export.nqn() == seen.nqn);
    let is_whole = |export: &Export| {
        seen.iter()
            .any(|seen| seen.nqn == export.nqn() && seen.is(export))
    };
    let fences = seen.iter().filter(|seen| !is_wanted(seen));
    let exports = wanted.iter().filter(|export| !is_whole(export));
    fences
        .map(|seen| Step::Fence(seen.nqn))
        .chain(exports.map(|export| Step::Export(Box::new(export.clone()))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;
    use uuid::Uuid;

    fn export(leg: u8, generation: u64) -> Export {
        Export {
            leg: Uuid::from_u128(leg.into()),
            generation,
            device: PathBuf::from(format!("/dev/loop{leg}")),
            secret: None,
        }
    }

    fn whole(export: &Export) -> Exported {
        Exported {
            nqn: export.nqn(),
            device: Some(export.device.clone()),
            enabled: true,
            reachable: true,
            rdma: false,
        }
    }

    /// What the kernel has after the steps.
    fn after(mut seen: Vec<Exported>, steps: Vec<Step>) -> Vec<Exported> {
        for step in steps {
            match step {
                Step::Fence(nqn) => seen.retain(|seen| seen.nqn != nqn),
                Step::Export(export) => {
                    let older =
                        |seen: &Exported| seen.nqn.uuid() == export.leg && seen.nqn != export.nqn();
                    assert!(!seen.iter().any(older), "exported before it was fenced");
                    seen.retain(|seen| seen.nqn != export.nqn());
                    seen.push(whole(&export));
                }
            }
        }
        seen
    }

    proptest! {
        #[test]
        fn it_gets_there_and_then_rests(
            seen in prop::collection::btree_map((0..6u8, 0..3u64), (any::<bool>(), any::<bool>(), any::<bool>()), 0..10),
            wanted in prop::collection::btree_map(0..6u8, 0..3u64, 0..6),
        ) {
            let seen: Vec<Exported> = seen.into_iter().map(|((leg, generation), (device, enabled, reachable))| {
                let there = whole(&export(leg, generation));
                Exported { device: there.device.filter(|_| device), enabled, reachable, ..there }
            }).collect();
            let wanted: Vec<Export> = wanted.into_iter().map(|(leg, generation)| export(leg, generation)).collect();
            let steps = plan(&seen, &wanted);
            for there in &seen {
                let kept = wanted.iter().any(|export| there.is(export));
                let touched = steps.iter().any(|step| match step {
                    Step::Fence(nqn) => *nqn == there.nqn,
                    Step::Export(export) => export.nqn() == there.nqn,
                });
                prop_assert!(kept != touched, "{:?} is whole and wanted, or it is touched", there);
            }
            let mut names: Vec<_> = after(seen.clone(), steps).into_iter().map(|seen| seen.nqn).collect();
            names.sort();
            let mut goal: Vec<_> = wanted.iter().map(Export::nqn).collect();
            goal.sort();
            prop_assert_eq!(names, goal);
            prop_assert_eq!(plan(&after(seen.clone(), plan(&seen, &wanted)), &wanted), vec![]);
        }
    }
}

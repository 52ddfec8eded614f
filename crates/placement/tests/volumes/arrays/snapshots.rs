//! A mirror whose legs fail writes, so that md goes on without them before anybody knows. A snapshot that says that it was checked has every write
//! that was acknowledged before it was asked for.

use super::*;
use strand_api::{CheckPhase, PoolSnapshot, PoolSnapshotSpec, SnapshotCheck};

#[derive(Clone, Debug)]
enum Step {
    Event(Event),
    /// The operator sees everything, and does all that it plans.
    Operator,
    /// So does the agent of each node that has legs.
    Agents,
    /// md gives up a leg of whoever runs the array.
    Fail {
        leg: usize,
    },
    Snapshot,
    /// The machine that has the volume loses power; what it alone knew of its legs nobody will know.
    Die,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..NODES.len();
    let event = prop_oneof![
        2 => n.clone().prop_map(|node| Event::Want { node }),
        1 => Just(Event::NobodyWants),
        6 => Just(Event::Look),
        8 => any::<u64>().prop_map(|seed| Event::Plan { seed }),
        8 => (n.clone(), any::<bool>()).prop_map(|(node, hears)| Event::Agent { node, hears }),
        8 => (n.clone(), any::<bool>()).prop_map(|(node, hears)| Event::Consumer { node, hears }),
        8 => n.clone().prop_map(|node| Event::Write { node }),
        2 => n.prop_map(|node| Event::Copy { node }),
        2 => prop::sample::select(vec![1, 6, 70]).prop_map(|seconds| Event::Wait { seconds }),
        2 => Just(Event::Settle),
    ];
    prop_oneof![
        12 => event.prop_map(Step::Event),
        5 => Just(Step::Operator),
        4 => Just(Step::Agents),
        3 => (0..2_usize).prop_map(|leg| Step::Fail { leg }),
        3 => Just(Step::Snapshot),
        1 => Just(Step::Die),
    ]
}

/// What was acknowledged when each snapshot was asked for.
type Asked = BTreeMap<String, BTreeSet<u32>>;

impl Run {
    fn fail(&mut self, leg: usize) {
        for node in &mut self.nodes {
            if let Some(md) = node.md.as_mut().filter(|md| md.whole.len() > 1) {
                let given_up = md.whole.iter().nth(leg).unwrap().clone();
                md.whole.remove(&given_up);
            }
        }
    }

    /// Whoever has it gives it back before it is wanted elsewhere, which it does only once a leg that md gave up is recorded.
    fn gives_back(&mut self) -> bool {
        let placed = self.volume().spec.legs.clone();
        let recorded = |md: &Md| {
            let mut legs = placed.iter();
            legs.all(|leg| {
                leg.lack.is_some() || leg.uuid.as_ref().is_some_and(|id| md.whole.contains(id))
            })
        };
        let may = self
            .nodes
            .iter()
            .filter_map(|node| node.md.as_ref())
            .all(recorded);
        if may {
            for node in 0..NODES.len() {
                if let Some(md) = self.nodes[node].md.clone() {
                    let array = self.volume().status.as_mut().and_then(|s| s.array.as_mut());
                    let array = array.filter(|told| told.generation == md.generation);
                    array.into_iter().for_each(|told| told.stopped = true);
                }
                self.take_down(node);
                // Whoever attaches it asks how it is.
                self.nodes[node].volume = None;
            }
        }
        may
    }

    /// The attachment that ended so.
    fn die(&mut self) -> Option<i64> {
        let node = self.nodes.iter().position(|node| node.md.is_some())?;
        let generation = self.nodes[node].md.as_ref().map(|md| md.generation);
        self.power(node, false);
        generation
    }

    fn ask(&mut self, asked: &mut Asked) {
        let name = format!("s{}", asked.len());
        let spec = PoolSnapshotSpec {
            volume: "v".into(),
            group: None,
            legs: vec![],
            check: None,
            deletion_mark: false,
        };
        let mut snapshot = PoolSnapshot::new(&name, spec);
        snapshot.metadata = self.world.meta(&name, format!("uid-{name}"));
        self.world.snapshots.push(snapshot);
        asked.insert(name, self.acknowledged.clone());
    }

    /// `until`: the last attachment of which the volume itself has everything.
    fn compare(&self, asked: &Asked, until: Option<i64>) -> Result<(), TestCaseError> {
        for snapshot in &self.world.snapshots {
            let name = snapshot.metadata.name.as_ref().unwrap();
            let counts = |check: &SnapshotCheck| {
                check.phase == CheckPhase::Passed
                    && until.is_none_or(|until| check.generation <= until)
            };
            if !snapshot.spec.check.as_ref().is_some_and(counts) {
                continue;
            }
            let bytes = &self.bytes[snapshot.spec.legs[0].uuid.as_ref().unwrap()];
            let missing: Vec<_> = asked[name].difference(&bytes.writes).collect();
            prop_assert!(missing.is_empty(), "{name} lacks {missing:?}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_has_what_was_acknowledged_before_it(steps in prop::collection::vec(step(), 1..90)) {
        let mut run = Run::new(&MIRROR);
        run.legs_fail = true;
        let mut asked = Asked::new();
        let mut died = None;
        run.happen(&Event::Want { node: 0 })?;
        run.settle(4)?;
        for step in &steps {
            match step {
                Step::Operator => {
                    run.happen(&Event::Look)?;
                    run.plan(u64::MAX)?;
                }
                Step::Agents => (0..NODES.len()).for_each(|node| run.agent(node, true)),
                Step::Fail { leg } => run.fail(*leg),
                Step::Die if died.is_none() => died = run.die(),
                Step::Die => {}
                Step::Snapshot if asked.len() < 4 && died.is_none() => run.ask(&mut asked),
                Step::Snapshot => {}
                Step::Event(Event::Want { .. } | Event::NobodyWants) if !run.gives_back() => {}
                Step::Event(event) => run.happen(event)?,
            }
            run.compare(&asked, died)?;
        }
        run.settle(ROUNDS)?;
        run.compare(&asked, died)?;
        if died.is_some() {
            return Ok(());
        }
        // Of what nobody gave back in order it is known once somebody has it.
        prop_assert!(run.gives_back());
        run.happen(&Event::Want { node: 0 })?;
        run.settle(ROUNDS)?;
        run.compare(&asked, died)?;
        for snapshot in &run.world.snapshots {
            let ready = snapshot.status.as_ref().is_some_and(|status| status.ready_to_use);
            prop_assert!(ready, "{:?} {:?}", snapshot.spec, snapshot.status);
        }
        prop_assert_eq!(run.world.legs.len(), MIRROR.legs + asked.len(), "what failed is gone");
    }
}

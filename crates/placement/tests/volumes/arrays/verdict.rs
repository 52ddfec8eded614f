//! What has to hold after each event, and once everything has come to rest.

use super::*;

impl Run {
    /// What must hold at every moment.
    pub(super) fn look(&mut self) -> Result<(), TestCaseError> {
        if self.legs_fail {
            return Ok(());
        }
        let volume = self.volume().clone();
        for placed in volume.spec.legs.iter().filter(|leg| leg.lack.is_none()) {
            let bytes = placed.uuid.as_ref().and_then(|id| self.bytes.get(id));
            let has = bytes.map(|bytes| &bytes.writes);
            let nothing = BTreeSet::new();
            let missing: Vec<_> = self
                .acknowledged
                .difference(has.unwrap_or(&nothing))
                .collect();
            prop_assert!(
                missing.is_empty(),
                "{} is in and lacks {missing:?}",
                placed.name
            );
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, rounds: usize) -> Result<(), TestCaseError> {
        for _ in 0..rounds {
            self.world.seconds += 7;
            self.happen(&Event::Look)?;
            self.plan(u64::MAX)?;
            for node in 0..NODES.len() {
                self.agent(node, true);
                self.consumer(node, true)?;
                self.copy(node)?;
                self.write(node)?;
                self.consumer(node, true)?;
            }
        }
        Ok(())
    }

    /// Everything is well again; nothing is left to be done.
    pub(super) fn rest(&mut self) -> Result<(), TestCaseError> {
        for node in 0..NODES.len() {
            self.nodes[node].isolated = false;
            self.nodes[node].cut_off = false;
            self.power(node, true);
            self.empty(node, false);
        }
        self.settle(ROUNDS)?;
        let plan: Vec<String> = self.world.plan().iter().map(ToString::to_string).collect();
        prop_assert!(plan.is_empty(), "not at rest; next: {plan:#?}");
        let volume = self.volume().clone();
        let status = volume.status.clone().unwrap();
        let wishes: Vec<&String> = volume.spec.attach_to.iter().map(|a| &a.node).collect();
        let granted: Vec<&String> = status.attachments.iter().map(|a| &a.node).collect();
        prop_assert_eq!(&wishes, &granted);
        if wishes.is_empty() {
            return Ok(());
        }
        prop_assert_eq!(
            status.phase,
            Some(VolumePhase::Ready),
            "{:?}",
            status.conditions
        );
        prop_assert!(volume.spec.legs.iter().all(|leg| leg.lack.is_none()));
        let legs = self.kind.legs;
        prop_assert_eq!(self.world.legs.len(), legs, "what was replaced is gone");
        let domains: BTreeSet<&String> = volume.spec.legs.iter().map(|l| &l.node_name).collect();
        prop_assert_eq!(domains.len(), legs);
        let before = self.acknowledged.len();
        self.write(index(wishes[0]))?;
        prop_assert_eq!(self.acknowledged.len(), before + 1, "it can be written to");
        Ok(())
    }
}

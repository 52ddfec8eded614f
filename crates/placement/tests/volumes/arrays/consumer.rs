//! What the agent and the kernel of the node do that has the volume: arrays, writes, copies.

use super::*;

impl Run {
    pub(super) fn consumer(&mut self, node: usize, hears: bool) -> Result<(), TestCaseError> {
        if self.nodes[node].off {
            return Ok(());
        }
        if hears && !self.nodes[node].cut_off {
            self.nodes[node].volume = Some(self.volume().clone());
        }
        // Who has given it back does not take it again unasked.
        let wished = |to: &AttachTo| to.node == NODES[node];
        let asked = self.volume().spec.attach_to.iter().any(wished);
        if self.legs_fail && self.nodes[node].md.is_none() && !asked {
            return Ok(());
        }
        let Some(volume) = self.nodes[node].volume.clone() else {
            return Ok(());
        };
        let mut attachments = volume.status.iter().flat_map(|s| &s.attachments);
        let granted = |a: &&Attachment| a.node == NODES[node] && a.phase.is_granted();
        let Some(generation) = attachments.find(granted).map(|a| a.generation) else {
            // Its pod may not have been told yet; but what has no status is not taken for an answer.
            if volume.status.is_some() {
                self.take_down(node);
            }
            return Ok(());
        };
        if self.nodes[node]
            .md
            .as_ref()
            .is_some_and(|md| md.generation != generation)
        {
            self.take_down(node);
        }
        let legs: Vec<(&PlacedLeg, String)> = volume
            .spec
            .legs
            .iter()
            .filter_map(|placed| Some((placed, placed.uuid.clone()?)))
            .collect();
        for (_, id) in &legs {
            self.take_here(node, id, generation);
        }
        let mut refused = None;
        let is_in = |placed: &PlacedLeg| placed.lack.is_none();
        let in_legs = || legs.iter().filter(|(placed, _)| is_in(placed));
        if self.nodes[node].md.is_none() {
            let all_there = volume
                .spec
                .legs
                .iter()
                .filter(|p| is_in(p))
                .all(|p| p.uuid.is_some())
                && in_legs().all(|(_, id)| self.reaches(node, id, generation));
            if !all_there {
                refused = Some(ArrayRefusal {
                    reason: "LegsAway".into(),
                    message: String::new(),
                });
            } else {
                if !volume.spec.array.as_ref().unwrap().formed {
                    prop_assert!(
                        self.acknowledged.is_empty(),
                        "made again over {:?}",
                        self.acknowledged
                    );
                }
                let whole = in_legs().map(|(_, id)| id.clone()).collect();
                self.nodes[node].md = Some(Md {
                    generation,
                    whole,
                    behind: BTreeSet::new(),
                });
            }
        }
        let reached: Vec<bool> = legs
            .iter()
            .map(|(_, id)| self.reaches(node, id, generation))
            .collect();
        if let Some(md) = &mut self.nodes[node].md {
            // One that is not named any more was replaced.
            let named = |id: &String| legs.iter().any(|(_, named)| named == id);
            md.whole.retain(named);
            md.behind.retain(named);
            for ((placed, id), reached) in legs.iter().zip(&reached) {
                match placed.lack.as_ref().map(|lack| lack.phase) {
                    Some(LackPhase::Out) => {
                        md.whole.remove(id);
                        md.behind.remove(id);
                    }
                    Some(_) if *reached && !md.whole.contains(id) => {
                        md.behind.insert(id.clone());
                    }
                    _ => {}
                }
            }
        }
        self.tell(node, generation, &legs, &reached, refused);
        Ok(())
    }

    pub(super) fn tell(
        &mut self,
        node: usize,
        generation: i64,
        legs: &[(&PlacedLeg, String)],
        reached: &[bool],
        refused: Option<ArrayRefusal>,
    ) {
        let now = Time(self.world.now());
        let md = self.nodes[node].md.clone();
        let mut list = Vec::new();
        for ((placed, id), reached) in legs.iter().zip(reached) {
            let holding = match &md {
                _ if !reached => LegHolding::Away,
                Some(md) if md.whole.contains(id) => LegHolding::Whole,
                Some(md) if md.behind.contains(id) => LegHolding::Behind,
                Some(_) => LegHolding::Apart,
                // Of an array that does not run, only what keeps it from that is told.
                None => continue,
            };
            if md.is_none() && placed.lack.is_some() {
                continue;
            }
            let told = self.nodes[node].told.entry(id.clone());
            let told = told.or_insert((holding, now.clone()));
            if told.0 != holding {
                *told = (holding, now.clone());
            }
            list.push(ArrayLeg {
                uuid: id.clone(),
                holding,
                since: told.1.clone(),
                percent: None,
            });
        }
        if self.nodes[node].cut_off {
            return;
        }
        // What is told was seen after the volume was heard of.
        let heard = self.nodes[node].volume.as_ref();
        let looked = heard.map_or(0, |v| v.spec.array.as_ref().unwrap().look);
        if let Some(status) = &mut self.volume().status {
            status.array = Some(ArrayStatus {
                looked,
                stopped: false,
                node: NODES[node].into(),
                generation,
                legs: list,
                resyncing: false,
                refused,
            });
        }
    }

    pub(super) fn write(&mut self, node: usize) -> Result<(), TestCaseError> {
        let Some(md) = self.nodes[node].md.clone() else {
            return Ok(());
        };
        self.written += 1;
        let write = self.written;
        let members: Vec<&String> = md.whole.iter().chain(&md.behind).collect();
        let mut everywhere = !md.whole.is_empty();
        for id in &members {
            if !self.reaches(node, id, md.generation) {
                // What is written waits.
                everywhere = false;
                continue;
            }
            let bytes = self.bytes.get_mut(*id).unwrap();
            prop_assert!(
                bytes.used <= md.generation,
                "attachment {} on {} writes to {id}, which {} has written to",
                md.generation,
                NODES[node],
                bytes.used
            );
            bytes.used = md.generation;
            bytes.writes.insert(write);
        }
        if everywhere {
            self.acknowledged.insert(write);
        }
        if !everywhere || members.len() < self.kind.legs {
            for id in &md.whole {
                if self.reaches(node, id, md.generation) {
                    let marked = &mut self.bytes.get_mut(id).unwrap().marked;
                    if marked.0 != md.generation {
                        *marked = (md.generation, BTreeSet::new());
                    }
                    marked.1.insert(write);
                }
            }
        }
        self.look()
    }

    pub(super) fn copy(&mut self, node: usize) -> Result<(), TestCaseError> {
        let (Some(md), Some(volume)) =
            (self.nodes[node].md.clone(), self.nodes[node].volume.clone())
        else {
            return Ok(());
        };
        let returning = |id: &String| {
            let mut legs = volume.spec.legs.iter();
            let leg = legs.find(|leg| leg.uuid.as_ref() == Some(id));
            let lack = leg.and_then(|leg| leg.lack.as_ref());
            lack.is_some_and(|lack| lack.phase == LackPhase::Returning)
        };
        let mut whole = md.whole.iter();
        let from = whole.find(|id| self.reaches(node, id, md.generation));
        let Some(from) = from.map(|id| self.bytes[id].clone()) else {
            return Ok(());
        };
        for id in &md.behind {
            if !self.reaches(node, id, md.generation) {
                continue;
            }
            let by_bitmap = returning(id);
            let bytes = self.bytes.get_mut(id).unwrap();
            prop_assert!(
                bytes.used <= md.generation,
                "{id} is copied to by {}",
                md.generation
            );
            bytes.used = md.generation;
            match by_bitmap {
                true if from.marked.0 != md.generation => {}
                true => bytes.writes.extend(&from.marked.1),
                false => bytes.writes = from.writes.clone(),
            }
            // Every member has the array's bitmap.
            bytes.marked = from.marked.clone();
            let md = self.nodes[node].md.as_mut().unwrap();
            md.behind.remove(id);
            md.whole.insert(id.clone());
        }
        self.look()
    }
}

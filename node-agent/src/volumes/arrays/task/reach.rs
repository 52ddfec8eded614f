//! Which legs are reached, and which are let go of.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use strand_api::{Attachment, PoolVolume};
use strand_arrays::{MemberState, Running, Standing};
use strand_fabric::{Connection, Nqn};
use uuid::Uuid;

use super::silent::Heard;
use super::{Done, Job, Task};
use crate::volumes::arrays::Sight;
use crate::volumes::arrays::wanted::{bytes, is_reached, level, standing};
use crate::volumes::connections::Record;

impl Task {
    /// Connects to what shall be reached, and lets go of what is out.
    pub(super) fn reach(
        &mut self,
        object: &PoolVolume,
        attachment: &Attachment,
        sight: &Sight,
        running: Option<&Running>,
        ends: bool,
    ) {
        let Record {
            generation,
            read_only,
            ..
        } = self.record;
        let mut nqns = BTreeSet::new();
        let mut shall = BTreeSet::new();
        let known = |name: &str| {
            let of = |path: &PathBuf| path.file_name().is_some_and(|file| file == name);
            let connected = sight
                .connections
                .iter()
                .filter(|c| self.record.legs.contains(&c.nqn));
            connected.filter_map(|c| c.device.as_ref()).any(of) || self.here.values().any(of)
        };
        let left_over = running.is_some_and(|array| array.members.iter().any(|m| !known(&m.name)));
        let mut cuts = match read_only {
            true => self.let_go(object, sight, running),
            false => Vec::new(),
        };
        let mut reaches = Vec::new();
        for leg in &object.spec.legs {
            let Some(uuid) = bytes(leg) else { continue };
            let nqn = Nqn::leg(uuid, generation);
            let is_here = leg.node_name == self.parts.node;
            if !is_here {
                nqns.insert(nqn);
            }
            if !is_reached(leg, generation, read_only) {
                continue;
            }
            shall.insert(uuid);
            let is_out = standing(leg, generation) == Standing::Out;
            let connection = sight.connections.iter().find(|c| c.nqn == nqn);
            match connection {
                // What waits for it goes on without it. Later it is connected again, to see whether it can return.
                Some(found) if is_out && (!found.is_live() || is_member(running, found)) => {
                    cuts.push((uuid, nqn));
                }
                Some(_) => {}
                None if is_here && self.here.contains_key(&uuid) => {}
                None if ends || (is_out && left_over) => {}
                None => reaches.push((uuid, leg.clone())),
            }
        }
        for found in &sight.connections {
            let uuid = found.nqn.uuid();
            if self.record.legs.contains(&found.nqn) && !shall.contains(&uuid) {
                cuts.push((uuid, found.nqn));
            }
        }
        let connected = sight.connections.iter().map(|found| found.nqn);
        nqns.extend(connected.filter(|nqn| self.record.legs.contains(nqn)));
        self.here.retain(|uuid, _| shall.contains(uuid));
        self.waits_for.retain(|uuid, _| shall.contains(uuid));
        let nqns: Vec<Nqn> = nqns.into_iter().collect();
        if !ends && nqns != self.record.legs {
            self.record.legs = nqns;
        }
        let volume = self.record.volume.clone();
        for (uuid, nqn) in cuts {
            let (parts, volume) = (Arc::clone(&self.parts), volume.clone());
            self.start(Job::Leg(uuid), async move {
                Done::Cut(parts.cut(&volume, nqn).await)
            });
        }
        let Some(level) = level(object.spec.redundancy) else {
            return;
        };
        if !reaches.is_empty() && self.noted.as_ref() != Some(&self.record) {
            let (parts, record) = (Arc::clone(&self.parts), self.record.clone());
            self.start(Job::Note, async move {
                let noted = parts.note(record.clone()).await;
                Done::Noted(Box::new(record), noted)
            });
            return;
        }
        for (uuid, leg) in reaches {
            let (parts, volume) = (Arc::clone(&self.parts), volume.clone());
            let attachment = attachment.clone();
            self.start(Job::Leg(uuid), async move {
                let reached = parts.reach(&volume, &leg, uuid, &attachment, level).await;
                Done::Reached(uuid, reached)
            });
        }
        if !ends && self.legs_here != shall {
            let (parts, shall) = (Arc::clone(&self.parts), shall.clone());
            self.start(Job::TakeBack, async move {
                let taken = parts.take_back(&volume, shall.clone()).await;
                Done::TakenBack(shall, taken)
            });
        }
    }

    /// Of a volume that is only read: legs that have been silent for a while, where those that answer are enough.
    fn let_go(
        &mut self,
        object: &PoolVolume,
        sight: &Sight,
        running: Option<&Running>,
    ) -> Vec<(Uuid, Nqn)> {
        let legs = &object.spec.legs;
        let Some(level) = level(object.spec.redundancy) else {
            return Vec::new();
        };
        let is_read = |device: Option<&PathBuf>| {
            let name = device.and_then(|device| device.file_name()?.to_str());
            let member = name.and_then(|name| running?.member(name));
            member.is_some_and(|member| member.state == MemberState::InSync && !member.gone)
        };
        let nqn = |uuid| Nqn::leg(uuid, self.record.generation);
        let heard = |uuid: Uuid| {
            let connection = sight.connections.iter().find(|c| c.nqn == nqn(uuid));
            let device = match connection {
                Some(found) if !found.is_live() => return Heard::Silent,
                Some(found) => found.device.as_ref(),
                None => self.here.get(&uuid),
            };
            match is_read(device) {
                true => Heard::Read,
                false => Heard::Apart,
            }
        };
        let whole = legs.iter().filter(|leg| leg.lack.is_none());
        let heard = whole.filter_map(bytes).map(|uuid| (uuid, heard(uuid)));
        let heard = heard.collect();
        let needed = level.needed(legs.len());
        let gone = self.silent.let_go(&heard, needed, Instant::now());
        gone.into_iter().map(|uuid| (uuid, nqn(uuid))).collect()
    }
}

fn is_member(running: Option<&Running>, connection: &Connection) -> bool {
    let device = connection
        .device
        .as_ref()
        .and_then(|device| device.file_name());
    let name = device.map(|name| name.to_string_lossy().into_owned());
    let member = |array: &Running| name.is_some_and(|name| array.member(&name).is_some());
    running.is_some_and(member)
}

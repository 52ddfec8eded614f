//! Which legs of a volume hold every acknowledged byte: when one is recorded out, and how one comes back.
//!
//! ```text
//!   in ──lost, and enough others are in──► Out ──reached again, same attachment──► Returning ──┐
//!    ▲                                      ├──reached again, another attachment──► Rebuilding ├──whole──► in
//!    │                                      └──grace is over: another leg──────────► Rebuilding┘
//!    └── nothing else leads back ──
//! ```
//! A write to an array is acknowledged once every leg that is in has it; a leg that cannot be reached keeps it waiting until it is recorded
//! out here. So a leg that is in can be trusted, and one that is out never again, except by the bitmap of the very array that went on
//! without it. `docs/decisions/0019` has the reasons.

use super::shape;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use strand_api::{ArrayLeg, LackPhase, LegHolding, LegLack, Redundancy};

/// How long a leg that its consumer does not reach is waited for before it is recorded out: a link that comes back costs no copying. That it
/// is not reached is noticed after some 4 s (the connection's keep-alive, and the agent's look); so writes wait for some 7 s, 10 at most.
pub const STALL: Duration = Duration::from_secs(2);
/// How long a volume that nobody has, or whose array does not run yet, waits for a leg before it is had without it.
pub const WAIT: Duration = Duration::from_secs(60);
/// After this a leg whose drive failed is replaced by another.
pub const DEAD: Duration = Duration::from_secs(60);
/// After this a leg that went away with its node is: a large server takes some ten minutes to boot.
pub const REBOOT: Duration = Duration::from_secs(20 * 60);

/// Reason of a leg whose bytes are gone.
pub const GONE: &str = "BytesGone";
/// Reason of a leg that failed a write.
pub const WRITES_FAILED: &str = "WritesFailed";
/// Reason of a leg that cannot be reached.
pub const UNREACHABLE: &str = "Unreachable";
/// Reason of a leg that was found to have missed writes.
pub const STALE: &str = "MissedWrites";
/// Reason of a leg whose copying was broken off.
pub const INTERRUPTED: &str = "Interrupted";

/// What is known of a leg's drive and node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its agent says that its bytes are there.
    Well,
    /// Its node or drive does not answer.
    Away,
    /// Its bytes are gone, or its drive has failed.
    Gone,
}

/// One leg whose bytes were made.
#[derive(Clone, Copy, Debug)]
pub struct Leg<'a> {
    /// What the volume's record says that it lacks.
    pub lack: Option<&'a LegLack>,
    /// Its drive and node.
    pub reach: Reach,
    /// What its consumer says of it in the present attachment.
    pub told: Option<&'a ArrayLeg>,
}

/// What somebody has or wants of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nobody: a leg may be away as long as it likes.
    None,
    /// It is attached for writing.
    Writer {
        /// Of the attachment.
        generation: i64,
        /// How long a leg that is not reached is waited for.
        patience: Duration,
    },
    /// It is attached for reading: nothing is written, and nothing changes.
    Readers,
    /// Somebody wants to attach it, and it has not been ready since then.
    Wanted(Option<Timestamp>),
    /// Whoever had it has to be kept from it, and a leg whose node does not answer cannot see to that.
    Fencing,
}

impl Demand {
    /// The generation of who has it attached for writing.
    fn writer(self) -> Option<i64> {
        match self {
            Self::Writer { generation, .. } => Some(generation),
            Self::None | Self::Readers | Self::Wanted(_) | Self::Fencing => None,
        }
    }
}

/// What becomes of a leg's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It stays.
    Stay,
    /// It holds everything.
    In,
    /// It lacks writes, for this reason.
    Out(&'static str),
    /// It is copied what it has missed.
    Returning,
    /// It is copied to from end to end.
    Rebuilding,
    /// Another leg is placed for it, and copied to.
    Replace,
}

/// Decides on all legs of a volume, in their order.
pub fn next(redundancy: Redundancy, legs: &[Leg], demand: Demand, now: Timestamp) -> Vec<Next> {
    let needed = legs.len().saturating_sub(shape::losses(redundancy));
    let mut left = legs.iter().filter(|leg| leg.lack.is_none()).count();
    // What is gone for good goes first: it must not keep its place before one that may come back. Then what lacks something for certain, before
    // what is merely not reached.
    let mut order: Vec<usize> = (0..legs.len()).collect();
    order.sort_by_key(|at| {
        let leg = &legs[*at];
        let lacks_nothing = given_up(leg, Duration::MAX, now).is_none();
        (leg.reach != Reach::Gone, lacks_nothing, *at)
    });
    let mut decided = vec![Next::Stay; legs.len()];
    for at in order {
        let leg = &legs[at];
        decided[at] = match leg.lack {
            None => match lost(leg, demand, now) {
                Some(reason) if left > needed => {
                    left -= 1;
                    Next::Out(reason)
                }
                _ => Next::Stay,
            },
            Some(lack) => match lack.phase {
                LackPhase::Out => out(leg, lack, demand, now),
                LackPhase::Returning => returning(leg, lack, demand, now),
                LackPhase::Rebuilding => rebuilding(leg, demand, now),
            },
        };
    }
    decided
}

/// Why a leg has to be recorded out.
fn lost(leg: &Leg, demand: Demand, now: Timestamp) -> Option<&'static str> {
    if leg.reach == Reach::Gone {
        return Some(GONE);
    }
    match demand {
        Demand::None | Demand::Readers => None,
        Demand::Writer { patience, .. } => given_up(leg, patience, now),
        Demand::Wanted(since) => {
            let waited = since.is_some_and(|since| passed(since, WAIT, now));
            (leg.reach == Reach::Away && waited).then_some(UNREACHABLE)
        }
        // What md gave up on before its consumer was kept out, others have more than.
        Demand::Fencing => match given_up(leg, Duration::MAX, now) {
            None => (leg.reach == Reach::Away).then_some(UNREACHABLE),
            reason => reason,
        },
    }
}

/// Why a leg is no use to the consumer that has it.
fn given_up(leg: &Leg, patience: Duration, now: Timestamp) -> Option<&'static str> {
    let told = leg.told?;
    match told.holding {
        LegHolding::Whole | LegHolding::Behind => None,
        LegHolding::Lost => Some(WRITES_FAILED),
        LegHolding::Stale | LegHolding::Apart | LegHolding::Empty => Some(STALE),
        LegHolding::Away => passed(told.since.0, patience, now).then_some(UNREACHABLE),
    }
}

fn out(leg: &Leg, lack: &LegLack, demand: Demand, now: Timestamp) -> Next {
    let holding = leg.told.map(|told| told.holding);
    // The array that knows what it has missed runs no more, or never did.
    let over = demand.writer() != Some(lack.generation);
    let (away, failed) = match lack.reason.as_str() {
        UNREACHABLE => (true, false),
        INTERRUPTED | STALE => (false, false),
        _ => (false, true),
    };
    let back = matches!(holding, Some(LegHolding::Apart | LegHolding::Empty));
    let grace = match failed || leg.reach == Reach::Gone {
        true => DEAD,
        false => REBOOT,
    };
    match leg.reach {
        Reach::Well if !failed && over => Next::Rebuilding,
        Reach::Well if away && holding == Some(LegHolding::Apart) => Next::Returning,
        Reach::Well if !failed && !away && back => Next::Rebuilding,
        _ if passed(lack.since.0, grace, now) => Next::Replace,
        _ => Next::Stay,
    }
}

fn returning(leg: &Leg, lack: &LegLack, demand: Demand, now: Timestamp) -> Next {
    if demand.writer() != Some(lack.generation) {
        return Next::Out(INTERRUPTED);
    }
    match leg.told.map(|told| told.holding) {
        Some(LegHolding::Whole) => Next::In,
        Some(LegHolding::Empty | LegHolding::Stale) => Next::Rebuilding,
        Some(LegHolding::Lost | LegHolding::Away) => {
            given_up(leg, STALL, now).map_or(Next::Stay, Next::Out)
        }
        _ if leg.reach == Reach::Gone => Next::Out(GONE),
        _ => Next::Stay,
    }
}

fn rebuilding(leg: &Leg, demand: Demand, now: Timestamp) -> Next {
    if leg.reach == Reach::Gone {
        return Next::Out(GONE);
    }
    match (demand.writer(), leg.told.map(|told| told.holding)) {
        (Some(_), Some(LegHolding::Whole)) => Next::In,
        // The bitmap has not what it missed before: out of reach in the middle, it has to begin anew.
        (Some(_), Some(LegHolding::Lost | LegHolding::Away)) => match given_up(leg, STALL, now) {
            Some(UNREACHABLE) => Next::Out(INTERRUPTED),
            Some(reason) => Next::Out(reason),
            None => Next::Stay,
        },
        _ => Next::Stay,
    }
}

/// Whether so much time has passed since then.
pub fn passed(since: Timestamp, time: Duration, now: Timestamp) -> bool {
    let elapsed = now.duration_since(since);
    !elapsed.is_negative() && elapsed.unsigned_abs() >= time
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
    }

    fn leg(reach: Reach) -> Leg<'static> {
        Leg {
            lack: None,
            reach,
            told: None,
        }
    }

    fn told(holding: LegHolding, since: i64) -> ArrayLeg {
        ArrayLeg {
            uuid: "u".into(),
            holding,
            since: Time(at(since)),
            percent: None,
        }
    }

    fn lack(reason: &str) -> LegLack {
        LegLack {
            phase: LackPhase::Out,
            reason: reason.into(),
            since: Time(at(0)),
            generation: 4,
        }
    }

    fn writer(patience: Duration) -> Demand {
        Demand::Writer {
            generation: 4,
            patience,
        }
    }

    fn mirror(legs: [Leg; 2], demand: Demand, seconds: i64) -> Vec<Next> {
        next(Redundancy::Mirror, &legs, demand, at(seconds))
    }

    #[test]
    fn nobody_is_kept_waiting_longer_than_he_has_to() {
        let legs = [leg(Reach::Away), leg(Reach::Well)];
        let out = vec![Next::Out(UNREACHABLE), Next::Stay];
        let stay = vec![Next::Stay; 2];
        // A node that reboots under a volume that nobody uses, or only reads, costs nothing.
        assert_eq!(mirror(legs, Demand::None, 0), stay);
        assert_eq!(mirror(legs, Demand::Readers, 0), stay);
        assert_eq!(mirror(legs, Demand::Wanted(None), 0), stay);
        assert_eq!(mirror(legs, Demand::Wanted(Some(at(0))), 59), stay);
        assert_eq!(mirror(legs, Demand::Wanted(Some(at(0))), 60), out);
        assert_eq!(mirror(legs, Demand::Fencing, 0), out);
        // Who has it attached tells what he does not reach, whatever his API server thinks of that node.
        let away = told(LegHolding::Away, 0);
        let mut legs = [leg(Reach::Well); 2];
        legs[0].told = Some(&away);
        // Nor does it say that it lacks anything of somebody who is kept out: what he wrote he had to have on all legs.
        assert_eq!(mirror(legs, Demand::Fencing, 100), stay);
        let lost = told(LegHolding::Lost, 0);
        legs[0].told = Some(&lost);
        let failed = vec![Next::Out(WRITES_FAILED), Next::Stay];
        assert_eq!(mirror(legs, Demand::Fencing, 0), failed);
        assert_eq!(mirror(legs, Demand::None, 0), stay);
        legs[0].told = Some(&away);
        assert_eq!(mirror(legs, writer(STALL), 1), stay);
        assert_eq!(mirror(legs, writer(STALL), 2), out);
        // Nothing waits for an array that does not run yet; but what is gone does not come back.
        assert_eq!(mirror(legs, writer(REBOOT), 20 * 60 - 1), stay);
        assert_eq!(mirror(legs, writer(REBOOT), 20 * 60), out);
        legs[0].reach = Reach::Gone;
        let gone = vec![Next::Out(GONE), Next::Stay];
        assert_eq!(mirror(legs, writer(REBOOT), 0), gone);
    }

    #[test]
    fn the_last_leg_is_never_given_up_and_what_is_gone_or_lacks_something_goes_first() {
        let [lost, away] = [LegHolding::Lost, LegHolding::Away].map(|holding| told(holding, 0));
        let failed = Leg {
            told: Some(&lost),
            ..leg(Reach::Well)
        };
        let silent = Leg {
            told: Some(&away),
            ..leg(Reach::Away)
        };
        let kept = [Next::Stay, Next::Out(WRITES_FAILED)];
        assert_eq!(mirror([leg(Reach::Away), failed], Demand::Fencing, 9), kept);
        assert_eq!(mirror([silent, failed], writer(STALL), 9), kept);
        let gone = [leg(Reach::Away), leg(Reach::Gone)];
        assert_eq!(
            mirror(gone, Demand::Fencing, 0),
            [Next::Stay, Next::Out(GONE)]
        );
        let both = [leg(Reach::Gone); 2];
        assert_eq!(mirror(both, Demand::None, 0), [Next::Out(GONE), Next::Stay]);
        let raid6 = [leg(Reach::Away); 5];
        let decided = next(Redundancy::Raid6, &raid6, Demand::Fencing, at(0));
        assert_eq!(
            decided.iter().filter(|next| **next != Next::Stay).count(),
            2
        );
        let stripe = [leg(Reach::Gone); 3];
        let decided = next(Redundancy::Stripe, &stripe, Demand::None, at(0));
        assert_eq!(decided, [Next::Stay; 3]);
    }

    #[test]
    fn a_leg_that_is_out_is_replaced_when_its_time_has_come() {
        let [failed, away] = [WRITES_FAILED, UNREACHABLE].map(lack);
        let decide = |lack, reach, seconds| {
            let out = Leg {
                lack: Some(lack),
                ..leg(reach)
            };
            mirror([out, leg(Reach::Well)], writer(STALL), seconds)[0]
        };
        assert_eq!(decide(&failed, Reach::Well, 59), Next::Stay);
        assert_eq!(decide(&failed, Reach::Well, 60), Next::Replace);
        assert_eq!(decide(&away, Reach::Away, 19 * 60), Next::Stay);
        assert_eq!(decide(&away, Reach::Away, 20 * 60), Next::Replace);
        assert_eq!(decide(&away, Reach::Gone, 60), Next::Replace);
    }
}

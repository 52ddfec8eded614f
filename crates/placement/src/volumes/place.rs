//! Which drives new legs go to, or why they fit nowhere.

use super::ledger::{Account, Closed, Ledger};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};
use strand_api::{ByteQuantity, Provisioning};

/// A percent of wear weighs as much as this many thousandths of free space.
const WEAR: u64 = 3;
/// An attached leg weighs as much as this many thousandths of free space.
const LOAD: u64 = 20;

/// A leg that is to be placed.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The pool.
    pub pool: &'a str,
    /// Bytes.
    pub size: u64,
    /// Whether its space is reserved.
    pub provisioning: Provisioning,
    /// Where it has to be, or should be.
    pub node: Node<'a>,
    /// The drive that has what it is a copy of.
    pub beside: Option<&'a str>,
    /// Drives that did not take it, or have a leg of its volume.
    pub tried: BTreeSet<&'a str>,
}

/// The node of a leg.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// Any will do.
    Any,
    /// This one is better than others.
    Preferred(&'a str),
    /// Only this one will do.
    Only(&'a str),
    /// Any but this one will do.
    Not(&'a str),
}

/// What the legs of one volume must not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// A drive.
    Drives,
    /// A failure domain: a node, or what the pool's label says.
    Domains,
}

impl Apart {
    fn of<'l>(self, account: &'l Account) -> &'l str {
        match self {
            Self::Drives => account.drive,
            Self::Domains => account.domain,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Drives => "drives",
            Self::Domains => "failure domains (nodes, or what the pool's failureDomainLabel names)",
        }
    }
}

/// Why a leg fits nowhere, with the closest fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The pool has no drive with a storage side, or none where the leg has to be.
    #[error("pool {pool} has no drive with a storage side{place}; {hint}")]
    NoDrives {
        /// The pool.
        pool: String,
        /// Where, if it has to be somewhere.
        place: String,
        /// What to do.
        hint: &'static str,
    },
    /// None has room.
    #[error("no drive of pool {pool}{place} takes {size} more ({kind}); {closest}")]
    NoRoom {
        /// The pool.
        pool: String,
        /// Where, if it has to be somewhere.
        place: String,
        /// What was asked for, rounded.
        size: String,
        /// Thick or thin.
        kind: &'static str,
        /// The closest fit, and what stands in its way.
        closest: String,
    },
    /// Some have room, but too few that are apart.
    #[error(
        "{size} more ({kind}) have to fit in {needed} different {apart} of pool {place} and do in {found}; {closest}"
    )]
    TooFew {
        /// The pool, and where in it, if they have to be somewhere.
        place: String,
        /// What was asked for in each, rounded.
        size: String,
        /// Thick or thin.
        kind: &'static str,
        /// What they must not share.
        apart: &'static str,
        /// How many were asked for.
        needed: usize,
        /// How many there are.
        found: usize,
        /// The closest fit of the others, and what stands in its way.
        closest: String,
    },
}

impl Misfit {
    /// How many drives more would do.
    pub fn missing(&self) -> usize {
        match self {
            Self::NoDrives { .. } | Self::NoRoom { .. } => 1,
            Self::TooFew { needed, found, .. } => needed.saturating_sub(*found),
        }
    }
}

/// Chooses the drive for a leg.
///
/// # Errors
/// [`Misfit`] with the closest fit.
pub fn choose<'l, 'a>(
    ledger: &'l Ledger<'a>,
    request: &'l Request,
) -> Result<&'l Account<'a>, Misfit> {
    let best = accounts(ledger, request)
        .filter(|a| obstacle(a, request).is_none())
        .max_by_key(|a| (rank(a, request), Reverse(a.drive)));
    best.ok_or_else(|| misfit(ledger, request))
}

/// Chooses drives for several legs of one volume, each as `request` says, apart from each other and from the drives that its other
/// legs lie on. The best drive of each of the best places: since all legs are alike, no other choice fits where this one does not.
///
/// # Errors
/// [`Misfit`] with the closest fit among the places that are left.
pub fn spread<'l, 'a>(
    ledger: &'l Ledger<'a>,
    request: &'l Request,
    count: usize,
    apart: Apart,
    others: &[&str],
) -> Result<Vec<&'l Account<'a>>, Misfit> {
    let others = others.iter().filter_map(|drive| ledger.of(drive));
    let mut taken: BTreeSet<&str> = others.map(|account| apart.of(account)).collect();
    let already = taken.len();
    let mut fitting: Vec<&Account> = accounts(ledger, request)
        .filter(|a| obstacle(a, request).is_none())
        .collect();
    fitting.sort_by_key(|a| (Reverse(rank(a, request)), a.drive));
    fitting.retain(|a| taken.insert(apart.of(a)));
    if fitting.len() >= count {
        fitting.truncate(count);
        return Ok(fitting);
    }
    let left: Vec<&Account> = accounts(ledger, request)
        .filter(|a| !taken.contains(apart.of(a)))
        .collect();
    Err(Misfit::TooFew {
        place: format!("{}{}", request.pool, place(request)),
        size: ByteQuantity(request.size).rounded(),
        kind: kind(request.provisioning),
        apart: apart.words(),
        needed: already + count,
        found: already + fitting.len(),
        closest: closest(&left, request).unwrap_or_else(|| "it has no others".into()),
    })
}

/// The sizes of the largest legs that requests like this would be granted now, each apart from the others, largest first; and the bytes
/// free on all drives that they might lie on.
pub fn rooms(ledger: &Ledger, request: &Request, apart: Apart) -> (Vec<u64>, u64) {
    let mut best: BTreeMap<&str, u64> = BTreeMap::new();
    let mut sum = 0u64;
    for account in accounts(ledger, request).filter(|a| closed(a, request).is_none()) {
        let room = account.largest(request.provisioning);
        let best = best.entry(apart.of(account)).or_default();
        *best = room.max(*best);
        sum = sum.saturating_add(room);
    }
    let mut rooms: Vec<u64> = best.into_values().collect();
    rooms.sort_unstable_by_key(|room| Reverse(*room));
    (rooms, sum)
}

fn accounts<'l, 'a>(
    ledger: &'l Ledger<'a>,
    request: &'l Request,
) -> impl Iterator<Item = &'l Account<'a>> {
    ledger.pool(request.pool).filter(|a| {
        let on_node = match request.node {
            Node::Only(node) => a.node == node,
            Node::Not(node) => a.node != node,
            Node::Any | Node::Preferred(_) => true,
        };
        on_node && request.beside.is_none_or(|drive| drive == a.drive)
    })
}

/// Higher is better: the node that was asked for, then a drive whose legs are of this kind already
/// (an empty one should stay free for either), then free space less wear and load.
fn rank(account: &Account, request: &Request) -> (bool, bool, i64) {
    let preferred = matches!(request.node, Node::Preferred(node) if node == account.node);
    let settled = request.provisioning == Provisioning::Thin && account.has(Provisioning::Thin);
    let against = account.wear.saturating_mul(WEAR) + account.busy.saturating_mul(LOAD);
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let score = signed(account.free_after(request.size)) - signed(against);
    (preferred, settled, score)
}

enum Obstacle {
    Small(u64),
    Closed(Closed),
    OtherKind,
    Refused,
}

/// Why a drive gets nothing new of this kind. A cordoned node keeps what can only be there: its pods, and copies of what it has, need it.
fn closed(account: &Account, request: &Request) -> Option<Closed> {
    let tied = matches!(request.node, Node::Only(_)) || request.beside.is_some();
    let cordoned = account.node_cordoned && !tied;
    account.closed.or(cordoned.then_some(Closed::NodeCordoned))
}

fn obstacle(account: &Account, request: &Request) -> Option<Obstacle> {
    if let Some(closed) = closed(account, request) {
        return Some(Obstacle::Closed(closed));
    }
    if !account.takes(request.provisioning) {
        return Some(Obstacle::OtherKind);
    }
    if request.tried.contains(account.drive) {
        return Some(Obstacle::Refused);
    }
    let largest = account.largest(request.provisioning);
    (largest < request.size).then_some(Obstacle::Small(largest))
}

fn misfit(ledger: &Ledger, request: &Request) -> Misfit {
    let place = place(request);
    let pool = request.pool.to_owned();
    let all: Vec<&Account> = accounts(ledger, request).collect();
    let Some(closest) = closest(&all, request) else {
        let hint = match request.node {
            Node::Only(_) => {
                "use a StorageClass without locality node, or give the pool drives there"
            }
            Node::Any | Node::Preferred(_) | Node::Not(_) => {
                "see kubectl get mpool, and spec.carve for how drives are split"
            }
        };
        return Misfit::NoDrives { pool, place, hint };
    };
    Misfit::NoRoom {
        pool,
        place,
        size: ByteQuantity(request.size).rounded(),
        kind: kind(request.provisioning),
        closest,
    }
}

/// Where a leg has to be.
fn place(request: &Request) -> String {
    match (request.beside, request.node) {
        (Some(drive), _) => format!(" but {drive}, which has what is to be copied,"),
        (None, Node::Only(node)) => format!(" on node {node}"),
        (None, Node::Not(node)) => format!(" beside node {node}, where it is to be used,"),
        (None, Node::Any | Node::Preferred(_)) => String::new(),
    }
}

/// Of some drives the one with the most room that is open, else the first of those that are not; and what is in its way.
fn closest(accounts: &[&Account], request: &Request) -> Option<String> {
    let obstructed = accounts
        .iter()
        .filter_map(|a| Some((*a, obstacle(a, request)?)));
    let (account, obstacle) = obstructed.max_by_key(|(a, obstacle)| {
        let rank = match obstacle {
            Obstacle::Small(largest) => (2, *largest),
            Obstacle::Closed(_) | Obstacle::Refused => (1, a.largest(request.provisioning)),
            Obstacle::OtherKind => (0, 0),
        };
        (rank, Reverse(a.drive))
    })?;
    let (drive, node) = (account.drive, account.node);
    Some(match obstacle {
        Obstacle::Small(largest) => {
            let room = ByteQuantity(largest).rounded();
            let shut = shut(accounts, request).unwrap_or_default();
            format!("closest is {drive} on node {node} with room for {room}{shut}")
        }
        Obstacle::Closed(closed) => {
            format!(
                "closest is {drive} on node {node}, which {}",
                closed.words()
            )
        }
        Obstacle::Refused => {
            format!("closest is {drive} on node {node}, which did not take it, or has a leg of it")
        }
        Obstacle::OtherKind => {
            let kind = kind(request.provisioning);
            format!(
                "{drive} on node {node} has legs of the other kind, and a drive's are all {kind} or none"
            )
        }
    })
}

/// A drive that would have room, and gets nothing new.
fn shut(accounts: &[&Account], request: &Request) -> Option<String> {
    let fits = |a: &&&Account| a.largest(request.provisioning) >= request.size;
    let mut with_room = accounts.iter().filter(fits);
    let (account, closed) = with_room.find_map(|a| Some((a, closed(a, request)?)))?;
    Some(format!(
        "; {} has more, but {}",
        account.drive,
        closed.words()
    ))
}

fn kind(provisioning: Provisioning) -> &'static str {
    match provisioning {
        Provisioning::Thick => "thick",
        Provisioning::Thin => "thin",
    }
}

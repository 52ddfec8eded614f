//! Metrics of racks and their peers.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use strand_kv_rack::{PeerState, PeerStats, RackStats};

/// A number of a whole rack, as this node sees it.
type RackNumber = (&'static str, &'static str, fn(&RackStats) -> u64);

const RACK_COUNTERS: [RackNumber; 6] = [
    (
        "strand_context_local_hits_total",
        "Gets that found their block on a drive of this node.",
        |r| r.local_hits,
    ),
    (
        "strand_context_rack_misses_total",
        "Gets that found their block nowhere.",
        |r| r.misses,
    ),
    (
        "strand_context_former_hits_total",
        "Gets that found their block at an owner of an earlier map.",
        |r| r.former_hits,
    ),
    (
        "strand_context_next_hits_total",
        "Gets that found their block at the owner after one that was away.",
        |r| r.next_hits,
    ),
    (
        "strand_context_diverted_total",
        "Puts that went to the next owner.",
        |r| r.diverted,
    ),
    (
        "strand_context_torn_total",
        "Pieces of values from peers that did not pass their tag: misses, never served.",
        |r| r.torn_pieces,
    ),
];

const RACK_GAUGES: [RackNumber; 3] = [
    (
        "strand_context_owed_deletions",
        "Keys that have to be deleted at places that are away.",
        |r| r.owed as u64,
    ),
    (
        "strand_context_asked_bytes",
        "Bytes of values that peers were asked for and that have not come yet.",
        |r| r.in_flight_bytes as u64,
    ),
    (
        "strand_context_buffered_bytes",
        "Bytes of buffers that values for or from peers are in.",
        |r| r.buffered_bytes as u64,
    ),
];

pub(super) fn of_racks(racks: &[(&str, RackStats)]) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    for (name, help, value) in RACK_COUNTERS {
        let family = IntCounterVec::new(Opts::new(name, help), &["pool"])?;
        for (pool, rack) in racks {
            family.with_label_values(&[pool]).inc_by(value(rack));
        }
        families.extend(family.collect());
    }
    for (name, help, value) in RACK_GAUGES {
        let family = IntGaugeVec::new(Opts::new(name, help), &["pool"])?;
        for (pool, rack) in racks {
            let value = i64::try_from(value(rack)).unwrap_or(i64::MAX);
            family.with_label_values(&[pool]).set(value);
        }
        families.extend(family.collect());
    }
    Ok(families)
}

/// A number of one peer.
type PeerNumber = (&'static str, &'static str, fn(&PeerStats) -> u64);

const PEER_COUNTERS: [PeerNumber; 8] = [
    (
        "strand_context_peer_requests_total",
        "Requests sent to a peer; a batch counts once.",
        |p| p.requests,
    ),
    (
        "strand_context_peer_hits_total",
        "Gets that a peer had the block for.",
        |p| p.hits,
    ),
    (
        "strand_context_peer_misses_total",
        "Gets that a peer had no block for, or no answer.",
        |p| p.misses,
    ),
    (
        "strand_context_peer_in_bytes_total",
        "Bytes received from a peer.",
        |p| p.bytes_in,
    ),
    (
        "strand_context_peer_out_bytes_total",
        "Bytes sent to a peer.",
        |p| p.bytes_out,
    ),
    (
        "strand_context_peer_deaths_total",
        "Times that a peer was taken for dead.",
        |p| p.deaths,
    ),
    (
        "strand_context_peer_timeouts_total",
        "Requests that took too long although the peer was well.",
        |p| p.timeouts,
    ),
    (
        "strand_context_peer_late_total",
        "Pieces of values that came when nobody waited for them any more.",
        |p| p.late_pieces,
    ),
];

pub(super) fn of_peers(racks: &[(&str, RackStats)]) -> prometheus::Result<Vec<MetricFamily>> {
    let labels = ["pool", "peer"];
    let peers = || {
        racks
            .iter()
            .flat_map(|(pool, rack)| rack.peers.iter().map(move |p| (*pool, p)))
    };
    let mut families = Vec::new();
    for (name, help, value) in PEER_COUNTERS {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        for (pool, peer) in peers() {
            family
                .with_label_values(&[pool, peer.node.as_str()])
                .inc_by(value(peer));
        }
        families.extend(family.collect());
    }
    let dead = Opts::new(
        "strand_context_peer_dead",
        "1 while a peer is taken for dead.",
    );
    let dead = IntGaugeVec::new(dead, &labels)?;
    for (pool, peer) in peers() {
        let is_dead = i64::from(peer.state == PeerState::Dead);
        dead.with_label_values(&[pool, peer.node.as_str()])
            .set(is_dead);
    }
    families.extend(dead.collect());
    Ok(families)
}

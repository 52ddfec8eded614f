//! Where a frame goes on the network between the guests: decisions alone, no I/O.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// An Ethernet address.
type Mac = [u8; 6];

/// The cable between a guest and the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing passes.
    pub down: bool,
    /// How long a frame takes, in each direction.
    pub delay: Duration,
    /// Of a thousand frames, how many are lost, in each direction.
    pub lost_per_mille: u16,
}

/// A learning switch with one port a guest, whose links and pairs of ports can be broken.
#[derive(Debug)]
pub struct Switch {
    links: Vec<Link>,
    cut: BTreeSet<(usize, usize)>,
    learned: HashMap<Mac, usize>,
    dice: u64,
}

impl Switch {
    /// A switch whose links are all whole.
    pub fn new(ports: usize) -> Self {
        Self {
            links: vec![Link::default(); ports],
            cut: BTreeSet::new(),
            learned: HashMap::new(),
            dice: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// The link of a port, to be changed.
    pub fn link(&mut self, port: usize) -> &mut Link {
        &mut self.links[port]
    }

    /// Lets nothing pass between the ports of `one` and those of `other`.
    pub fn cut(&mut self, one: &[usize], other: &[usize]) {
        for &a in one {
            self.cut.extend(other.iter().map(|&b| pair(a, b)));
        }
    }

    /// Makes all links and pairs whole again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.links.fill(Link::default());
    }

    /// The ports at which a frame that came in at `from` goes out, and after which time.
    pub fn forward(&mut self, from: usize, frame: &[u8]) -> Vec<(usize, Duration)> {
        let Some((to, source)) = addresses(frame) else {
            return Vec::new();
        };
        if !self.passes(from) {
            return Vec::new();
        }
        self.learned.insert(source, from);
        let ports: Vec<usize> = match self.learned.get(&to) {
            Some(&port) if !is_group(to) => vec![port],
            _ => (0..self.links.len()).collect(),
        };
        let mut out = Vec::new();
        for port in ports {
            if port != from && !self.cut.contains(&pair(from, port)) && self.passes(port) {
                out.push((port, self.links[from].delay + self.links[port].delay));
            }
        }
        out
    }

    fn passes(&mut self, port: usize) -> bool {
        let link = self.links[port];
        // xorshift64: the same losses in every run.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        !link.down && self.dice % 1000 >= u64::from(link.lost_per_mille)
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// Destination and source, the first twelve bytes of a frame (IEEE 802.3).
fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let (to, rest) = frame.split_first_chunk()?;
    Some((*to, *rest.first_chunk()?))
}

/// Whether a frame to this address is for many: the lowest bit of its first byte.
fn is_group(address: Mac) -> bool {
    address[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;
    const ALL: u8 = 0xff;

    /// A frame between the guests at two ports; `ALL` is broadcast.
    fn frame(to: u8, from: u8) -> Vec<u8> {
        let address = |guest: u8| match guest {
            ALL => [ALL; 6],
            guest => [2, 0, 0, 0, 0, guest],
        };
        [&address(to)[..], &address(from)[..], b"\x08\x00words"].concat()
    }

    fn learned(ports: usize) -> Switch {
        let mut switch = Switch::new(ports);
        for port in 0..ports {
            switch.forward(port, &frame(ALL, port as u8));
        }
        switch
    }

    #[test]
    fn a_frame_goes_to_everyone_until_its_receiver_has_spoken() {
        let mut switch = Switch::new(3);
        assert_eq!(switch.forward(0, &frame(2, 0)), [(1, NOW), (2, NOW)]);
        assert_eq!(switch.forward(2, &frame(0, 2)), [(0, NOW)]);
        assert_eq!(switch.forward(0, &frame(2, 0)), [(2, NOW)]);
        assert_eq!(switch.forward(0, &frame(ALL, 0)), [(1, NOW), (2, NOW)]);
    }

    #[test]
    fn a_guest_that_moves_is_found_at_its_new_port() {
        let mut switch = learned(3);
        switch.forward(1, &frame(ALL, 0));
        assert_eq!(switch.forward(2, &frame(0, 2)), [(1, NOW)]);
    }

    #[test]
    fn a_link_that_is_down_lets_nothing_pass_either_way() {
        let mut switch = learned(3);
        switch.link(1).down = true;
        assert_eq!(switch.forward(1, &frame(0, 1)), []);
        assert_eq!(switch.forward(0, &frame(1, 0)), []);
        assert_eq!(switch.forward(0, &frame(ALL, 0)), [(2, NOW)]);
        switch.heal();
        assert_eq!(switch.forward(0, &frame(1, 0)), [(1, NOW)]);
    }

    #[test]
    fn a_cut_separates_two_sides_and_nothing_within_them() {
        let mut switch = learned(4);
        switch.cut(&[0, 3], &[1, 2]);
        assert_eq!(switch.forward(0, &frame(1, 0)), []);
        assert_eq!(switch.forward(1, &frame(3, 1)), []);
        assert_eq!(switch.forward(0, &frame(3, 0)), [(3, NOW)]);
        assert_eq!(switch.forward(2, &frame(ALL, 2)), [(1, NOW)]);
    }

    #[test]
    fn delays_of_both_links_add_up() {
        let mut switch = learned(3);
        switch.link(0).delay = Duration::from_millis(20);
        switch.link(1).delay = Duration::from_millis(5);
        assert_eq!(
            switch.forward(0, &frame(ALL, 0)),
            [
                (1, Duration::from_millis(25)),
                (2, Duration::from_millis(20))
            ]
        );
    }

    #[test]
    fn about_as_many_are_lost_as_asked_for() {
        let mut switch = learned(2);
        switch.link(1).lost_per_mille = 200;
        let passed = (0..10_000)
            .filter(|_| !switch.forward(0, &frame(1, 0)).is_empty())
            .count();
        assert!((7_700..8_300).contains(&passed), "{passed} of 10000 passed");
    }

    #[test]
    fn what_is_no_frame_goes_nowhere() {
        assert_eq!(Switch::new(2).forward(0, b"too short"), []);
    }
}

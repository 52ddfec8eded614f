//! What a machine's network means for Strand.

use super::{Check, Facts, Mark, Module, check};
use crate::{preflight::network::Link, text::count};
use strand_api::ByteQuantity;

/// Megabits a second below which the network, and not a drive, is what volumes and blocks of other nodes wait for, by far.
const FAST: u64 = 10_000;
/// What both ends of a volume need to be reached over RDMA.
const RDMA: [&str; 2] = ["nvmet_rdma", "nvme_rdma"];

/// The link by which other nodes reach this one.
pub(super) fn link(facts: &Facts) -> Check {
    let what = "link";
    let Some(Link {
        interface,
        megabits,
    }) = &facts.link
    else {
        let then = "no route or interface belongs to the node's address: give --address the one at which other nodes reach this one";
        return check(what, Mark::Less, "no interface", then);
    };
    let Some(megabits) = *megabits else {
        let found = format!("{interface}, which does not tell its speed");
        return check(what, Mark::Good, found, "");
    };
    let found = match megabits {
        slow @ ..1000 => format!("{interface}, {slow} Mbit/s"),
        fast => format!("{interface}, {} Gbit/s", fast as f64 / 1e3),
    };
    if megabits >= FAST {
        return check(what, Mark::Good, found, "");
    }
    let then = format!(
        "blocks and volumes of other nodes come with {} a second at most, less than one drive gives: give the node an address on a faster \
         interface (the kubelet's --node-ip; look at it here with --address), or keep volumes where their pods are (storageClassName: strand-local)",
        ByteQuantity(megabits * 1_000_000 / 8).rounded()
    );
    check(what, Mark::Less, found, then)
}

/// Whether volumes of other nodes can come over RDMA. It tells, and nothing is missing without.
pub(super) fn rdma(facts: &Facts) -> Check {
    let tell = |found: String, then: String| check("RDMA", Mark::Good, found, then);
    if facts.rdma.is_empty() {
        return tell(
            "no device; volumes of other nodes come over TCP".into(),
            String::new(),
        );
    }
    let up = facts.rdma.iter().filter(|device| device.up);
    let up: Vec<_> = up.map(|device| device.device.as_str()).collect();
    if up.is_empty() {
        let found = format!("{}, no port up", count(facts.rdma.len(), "device"));
        let then = "volumes of other nodes come over TCP; for RDMA bring a port up, with the address at which other nodes reach this one";
        return tell(found, then.into());
    }
    let state = |name: &str| facts.modules.get(name).copied().unwrap_or(Module::None);
    let without: Vec<_> = RDMA
        .into_iter()
        .filter(|name| state(name) != Module::There)
        .collect();
    if without.is_empty() {
        let found = format!("{}, with {}", up.join(", "), RDMA.join(", "));
        return tell(found, String::new());
    }
    let found = format!("{}, without {}", up.join(", "), without.join(", "));
    let absent: Vec<_> = without
        .iter()
        .filter(|name| state(name) == Module::None)
        .copied()
        .collect();
    let over_tcp = "volumes of other nodes come over TCP";
    tell(
        found,
        match absent.is_empty() {
            false => format!(
                "{over_tcp}; for RDMA install the kernel's modules {}, or a kernel that has them",
                absent.join(", ")
            ),
            // The agent loads none of them: leaving them out is how an administrator says that RDMA is not wanted.
            true => format!(
                "{over_tcp}; for RDMA have the modules loaded at each start, here and on the other nodes: printf '%s\\n' {} >> \
                 /etc/modules-load.d/strand.conf",
                without.join(" ")
            ),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::{facts::tests::server, network::Rdma};

    #[test]
    fn a_slow_link_is_told_with_what_comes_over_it() {
        let of = |link: Option<(&str, Option<u64>)>| {
            let mut facts = server();
            facts.link = link.map(|(interface, megabits)| Link {
                interface: interface.into(),
                megabits,
            });
            super::link(&facts)
        };
        let fast = of(Some(("bond0", Some(200_000))));
        assert_eq!(
            (fast.mark, fast.found.as_str(), fast.then.as_str()),
            (Mark::Good, "bond0, 200 Gbit/s", "")
        );
        let slow = of(Some(("eth0", Some(2500))));
        assert_eq!(
            (slow.mark, slow.found.as_str()),
            (Mark::Less, "eth0, 2.5 Gbit/s")
        );
        assert!(slow.then.contains("298Mi a second"), "{}", slow.then);
        assert_eq!(of(Some(("eth0", Some(100)))).found, "eth0, 100 Mbit/s");
        let silent = of(Some(("eth0", None)));
        assert_eq!((silent.mark, silent.then.as_str()), (Mark::Good, ""));
        let none = of(None);
        assert_eq!(none.mark, Mark::Less);
        assert!(none.then.contains("--address"), "{}", none.then);
    }

    #[test]
    fn what_rdma_needs_is_told_and_never_missing() {
        let of = |devices: &[(&str, bool)], module| {
            let mut facts = server();
            facts.rdma = devices
                .iter()
                .map(|(device, up)| Rdma {
                    device: (*device).into(),
                    up: *up,
                })
                .collect();
            facts.modules.extend(RDMA.map(|name| (name, module)));
            let check = super::rdma(&facts);
            assert_eq!(check.mark, Mark::Good);
            check
        };
        let both = [("mlx5_0", true), ("mlx5_1", false)];
        let ready = of(&both, Module::There);
        assert_eq!(ready.found, "mlx5_0, with nvmet_rdma, nvme_rdma");
        assert_eq!(ready.then, "");
        let unloaded = of(&both, Module::Loadable);
        assert!(
            unloaded.then.contains("' nvmet_rdma nvme_rdma >>"),
            "{}",
            unloaded.then
        );
        assert!(of(&both, Module::None).then.contains("install"));
        let down = of(&both[1..], Module::There);
        assert_eq!(down.found, "1 device, no port up");
        assert!(down.then.contains("bring a port up"), "{}", down.then);
        assert!(of(&[], Module::There).found.contains("no device"));
    }
}

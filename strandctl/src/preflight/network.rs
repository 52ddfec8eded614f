//! What a machine shows of its network.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

/// The interface by which other nodes reach this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub interface: String,
    /// Megabits a second; none: it does not tell, as virtual ones do not.
    pub megabits: Option<u64>,
}

/// A device for RDMA, whatever it runs over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdma {
    /// Its name.
    pub device: String,
    /// Whether one of its ports is up.
    pub up: bool,
}

impl Link {
    /// The interface of an address of this machine, or else that of the default route.
    pub fn of(address: Option<IpAddr>) -> Option<Self> {
        let read = |name| fs::read_to_string(Path::new("/proc/net").join(name)).unwrap_or_default();
        let interface = match address {
            Some(IpAddr::V4(address)) => by_route(&read("route"), address),
            Some(IpAddr::V6(address)) => by_address(&read("if_inet6"), address.to_bits()),
            None => by_route(&read("route"), Ipv4Addr::UNSPECIFIED)
                .or_else(|| default_v6(&read("ipv6_route"))),
        }?;
        let speed = fs::read_to_string(format!("/sys/class/net/{interface}/speed"));
        // -1 where it is not known.
        let megabits = speed.ok().and_then(|text| text.trim().parse().ok());
        Some(Self {
            interface,
            megabits: megabits.filter(|megabits| *megabits > 0),
        })
    }
}

/// The interface of the narrowest route, in a table like `/proc/net/route`, that leads to an address: of an own address that of its
/// network.
fn by_route(routes: &str, address: Ipv4Addr) -> Option<String> {
    // The kernel prints a number of 32 bits that lies in memory in the network's order.
    let address = u32::from_ne_bytes(address.octets());
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let leads_there = routes.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [interface, to, _, _, _, _, metric, mask, ..] = fields[..] else {
            return None;
        };
        let (to, mask) = (number(to)?, number(mask)?);
        let metric = metric.parse::<u32>().ok()?;
        (address & mask == to).then_some((u32::MAX - mask.count_ones(), metric, interface))
    });
    leads_there
        .min_by_key(|(wide, metric, _)| (*wide, *metric))
        .map(|(_, _, interface)| interface.to_owned())
}

/// The interface of an own address, in a table like `/proc/net/if_inet6`.
fn by_address(addresses: &str, address: u128) -> Option<String> {
    addresses.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let own = u128::from_str_radix(fields.next()?, 16).ok()?;
        (own == address)
            .then(|| fields.last())
            .flatten()
            .map(str::to_owned)
    })
}

/// The interface of the default route in a table like `/proc/net/ipv6_route`.
fn default_v6(routes: &str) -> Option<String> {
    let defaults = routes.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [to, prefix, .., metric, _, _, _, interface] = fields[..] else {
            return None;
        };
        // Where there is no way, the kernel has a route to nowhere by `lo`.
        let is = prefix == "00" && to.bytes().all(|digit| digit == b'0') && interface != "lo";
        is.then_some((u32::from_str_radix(metric, 16).ok()?, interface))
    });
    defaults.min().map(|(_, interface)| interface.to_owned())
}

/// The devices below `/sys/class/infiniband` (linux Documentation/ABI/stable/sysfs-class-infiniband), by name.
pub fn rdma(devices: &Path) -> Vec<Rdma> {
    let below = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    // "4: ACTIVE"
    let is_up =
        |port: &Path| fs::read_to_string(port.join("state")).is_ok_and(|s| s.starts_with("4:"));
    let mut found: Vec<_> = below(devices)
        .into_iter()
        .map(|device| Rdma {
            up: below(&device.join("ports")).iter().any(|port| is_up(port)),
            device: device
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        })
        .collect();
    found.sort_by(|one, other| one.device.cmp(&other.device));
    found
}

/// Which of the ports the kernel gives to outgoing connections: those of `net.ipv4.ip_local_port_range` that are not in
/// `net.ipv4.ip_local_reserved_ports`.
pub fn lent(range: &str, reserved: &str, ports: &[u16]) -> BTreeSet<u16> {
    let numbers: Vec<u16> = range
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let [first, last] = numbers[..] else {
        return BTreeSet::new();
    };
    let is_reserved = |port: u16| {
        reserved.trim().split(',').any(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            match (from.parse::<u16>(), to.parse::<u16>()) {
                (Ok(from), Ok(to)) => (from..=to).contains(&port),
                _ => false,
            }
        })
    };
    let ports = ports.iter().copied();
    ports
        .filter(|port| (first..=last).contains(port) && !is_reserved(*port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_interface_is_found_by_its_routes() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                      wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                      eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
                      eth2\t0003000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let of = |address: [u8; 4]| by_route(routes, address.into());
        assert_eq!(of([0, 0, 0, 0]).as_deref(), Some("eth0"));
        assert_eq!(of([10, 9, 9, 9]).as_deref(), Some("eth1"));
        assert_eq!(of([10, 0, 3, 7]).as_deref(), Some("eth2"));
        assert_eq!(by_route("", Ipv4Addr::UNSPECIFIED), None);
    }

    #[test]
    fn an_interface_is_found_by_its_address_or_default_route() {
        let addresses = "00000000000000000000000000000001 01 80 10 80       lo\n\
                         fd000000000000000000000000000002 02 40 00 80     eth0\n";
        let own: std::net::Ipv6Addr = "fd00::2".parse().unwrap();
        assert_eq!(
            by_address(addresses, own.to_bits()).as_deref(),
            Some("eth0")
        );
        assert_eq!(by_address(addresses, 5), None);
        let none = "0".repeat(32);
        let route = |prefix: &str, metric: &str, interface: &str| {
            format!(
                "{none} {prefix} {none} 00 {none} {metric} 00000001 00000000 00000003 {interface}\n"
            )
        };
        let routes = route("00", "ffffffff", "lo")
            + &route("00", "00000400", "eth1")
            + &route("00", "00000064", "eth0")
            + &route("40", "00000001", "eth2");
        assert_eq!(default_v6(&routes).as_deref(), Some("eth0"));
        assert_eq!(default_v6(&route("00", "ffffffff", "lo")), None);
    }

    #[test]
    fn devices_for_rdma_are_named_with_whether_they_are_up() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(rdma(&dir.path().join("none")), []);
        for (device, state) in [("mlx5_1", "1: DOWN\n"), ("mlx5_0", "4: ACTIVE\n")] {
            let port = dir.path().join(device).join("ports/1");
            fs::create_dir_all(&port).unwrap();
            fs::write(port.join("state"), state).unwrap();
        }
        let one = |device: &str, up| Rdma {
            device: device.into(),
            up,
        };
        assert_eq!(
            rdma(dir.path()),
            [one("mlx5_0", true), one("mlx5_1", false)]
        );
    }

    #[test]
    fn ports_that_the_kernel_lends_are_told() {
        let of = |range, reserved| {
            let lent = lent(range, reserved, &[9465, 9466, 4420]);
            let ports: Vec<_> = lent.iter().map(u16::to_string).collect();
            ports.join(",")
        };
        assert_eq!(of("32768\t60999\n", "\n"), "");
        assert_eq!(of("1024\t65535\n", "\n"), "4420,9465,9466");
        assert_eq!(of("1024 65535", "53,9465-9466"), "4420");
        assert_eq!(of("9466 9470", "4420"), "9466");
        assert_eq!(of("", ""), "");
    }
}

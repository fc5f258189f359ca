//! What the edge bears: bounds on clients and their connections, threads, and how the process ends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Threads and shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Data threads, each with its own runtime and upstream connections.
    pub workers: usize,
    /// From the word to stop (not ready any more) to the end of accepting; zero: at once.
    pub shutdown_delay: Duration,
    /// How long shutdown waits for requests in flight.
    pub drain_timeout: Duration,
}

/// Bounds on what a client may send and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line and headers, in bytes.
    pub head_bytes_max: usize,
    /// Number of request headers.
    pub headers_max: usize,
    /// Request body, in bytes.
    pub body_bytes_max: usize,
    /// All request bodies under way together, in bytes; short ones don't count.
    pub bodies_bytes_max: usize,
    /// Nesting of a JSON body.
    pub json_depth_max: usize,
    /// From accept, or the first byte of a later request, to a whole request head.
    pub head_timeout: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub idle_timeout: Duration,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// From a request's head to the end of its body.
    pub upload_timeout: Duration,
    /// How long a client may take nothing of what waits for it.
    pub write_timeout: Duration,
    /// Open client connections a worker.
    pub connections_max: usize,
    /// Open connections of one client address (IPv6: of one /64), over all workers.
    pub connections_per_address_max: usize,
    /// Whose connections are not counted by address: they bring those of many clients.
    pub trusted_proxies: Vec<Network>,
    /// Concurrent HTTP/2 streams a connection.
    pub h2_streams_max: u32,
    /// Waiters on one generation.
    pub waiters_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            headers_max: 100,
            body_bytes_max: 16 * 1024 * 1024,
            bodies_bytes_max: 1024 * 1024 * 1024,
            json_depth_max: 64,
            head_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            upload_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            connections_max: 10_000,
            connections_per_address_max: 1000,
            trusted_proxies: Network::LOOPBACK.to_vec(),
            h2_streams_max: 128,
            waiters_max: 256,
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// The bits, the rest zero. IPv4 as such, never mapped into IPv6.
    address: IpAddr,
    /// How many bits.
    prefix: u8,
}

impl Network {
    /// This machine.
    pub const LOOPBACK: [Self; 2] = [
        Self { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
        Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
    ];

    /// The network of an address; none if it has fewer bits than `prefix`. IPv4 mapped into IPv6 counts as IPv4.
    pub fn of(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = address.to_canonical();
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix.into())?).unwrap_or(0);
                Some(Self { address: Ipv4Addr::from_bits(v4.to_bits() & mask).into(), prefix })
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix.into())?).unwrap_or(0);
                Some(Self { address: Ipv6Addr::from_bits(v6.to_bits() & mask).into(), prefix })
            }
        }
    }

    /// The client that an address belongs to: the address, or an IPv6 /64, which is what a home or a machine is usually given.
    pub fn of_client(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let (own, prefix) = if address.is_ipv4() { (32, 32) } else { (128, 64) };
        Self::of(address, prefix).unwrap_or(Self { address, prefix: own })
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::of(address, self.prefix) == Some(*self)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network::of(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    }

    fn check(networks: &str, address: &str, expected: bool) {
        assert_eq!(network(networks).contains(address.parse().unwrap()), expected, "{address} in {networks}");
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_with_its_bits() {
        check("10.1.0.0/16", "10.1.255.3", true);
        check("10.1.0.0/16", "10.2.0.0", false);
        check("10.1.2.3/32", "10.1.2.3", true);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("2001:db8:1:2::/64", "2001:db8:1:2:ffff::1", true);
        check("2001:db8:1:2::/64", "2001:db8:1:3::1", false);
        check("::/0", "2001:db8::", true);
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_64() {
        for (address, client) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("2001:db8:0:1:ffff::3", "2001:db8:0:1::/64"),
        ] {
            assert_eq!(Network::of_client(address.parse().unwrap()).to_string(), client);
        }
    }

    #[test]
    fn families_are_apart_but_for_mapped_addresses() {
        check("0.0.0.0/0", "::1", false);
        check("::/0", "10.0.0.1", false);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
    }

    #[test]
    fn an_address_has_only_so_many_bits() {
        assert_eq!(Network::of("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(Network::of("::".parse().unwrap(), 129), None);
        assert_eq!(network("10.1.2.3/8").to_string(), "10.0.0.0/8");
    }
}

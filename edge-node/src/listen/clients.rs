//! How many connections each client has open, and whether it may have another. Counts addresses; touches
//! no socket.

use ahash::AHashMap;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The open connections of every client that has one. It has at most as many entries as there are
/// connections, since a client's entry goes with its last connection.
#[derive(Debug)]
pub(super) struct Clients {
    most: usize,
    open: Mutex<AHashMap<Client, usize>>,
}

/// What counts as one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    V4(Ipv4Addr),
    /// The first 64 bits: the least that a network is given, all of it one subscriber's (RFC 6177).
    V6([u16; 4]),
}

/// One connection's place; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Arc<Clients>,
    client: Client,
}

// === impl Clients ===

impl Clients {
    /// Lets each client have at most so many connections.
    pub(super) fn new(most: usize) -> Arc<Clients> {
        Arc::new(Clients { most, open: Mutex::default() })
    }

    /// A place for a connection from this address; `None` when its client has as many as it may.
    pub(super) fn seat(self: &Arc<Self>, peer: SocketAddr) -> Option<Seat> {
        let client = Client::of(peer.ip());
        let mut all = self.open.lock();
        let open = all.entry(client).or_default();
        // With a limit of none at all, the entry made here would stay.
        if *open >= self.most.max(1) {
            return None;
        }
        *open += 1;
        Some(Seat { clients: Arc::clone(self), client })
    }
}

// === impl Client ===

impl Client {
    fn of(address: IpAddr) -> Client {
        // An IPv4 client of a listener for both families is the client that it is elsewhere.
        match address.to_canonical() {
            IpAddr::V4(address) => Client::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Client::V6([a, b, c, d])
            }
        }
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.clients.open.lock();
        match all.get_mut(&self.client) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                all.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn each_client_has_its_own_count_that_goes_with_its_last_connection() {
        let clients = Clients::new(2);
        let first = clients.seat(at("192.0.2.1")).unwrap();
        let second = clients.seat(at("192.0.2.1")).unwrap();
        assert!(clients.seat(at("192.0.2.1")).is_none());
        let other = clients.seat(at("192.0.2.2")).unwrap();
        drop(first);
        let third = clients.seat(at("192.0.2.1")).unwrap();
        assert!(clients.seat(at("192.0.2.1")).is_none());
        assert_eq!(clients.open.lock().len(), 2);
        drop((second, third, other));
        assert!(clients.open.lock().is_empty());
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_64_bits() {
        let clients = Clients::new(1);
        let _one = clients.seat(at("2001:db8:0:1::1")).unwrap();
        assert!(clients.seat(at("2001:db8:0:1:ffff::2")).is_none());
        let _next = clients.seat(at("2001:db8:0:2::1")).unwrap();
        let _v4 = clients.seat(at("192.0.2.1")).unwrap();
        assert!(clients.seat(at("::ffff:192.0.2.1")).is_none());
        let _other = clients.seat(at("::ffff:192.0.2.2")).unwrap();
    }
}

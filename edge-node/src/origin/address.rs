//! Which addresses requests may be sent to: the guard against server-side request forgery. Pure: it
//! is given addresses, never names, so no notation of an address can pass it by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What kind of address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// Anyone may be sent there.
    Public,
    /// This machine's or this network's: only where the operator allows it.
    Private(&'static str),
    /// No origin can be there, or (link-local) the machine's own keeper answers there with
    /// credentials: never, whatever the operator's switch says.
    Never(&'static str),
}

/// The class of an address. An IPv6 address that carries an IPv4 one (mapped, NAT64, 6to4) is judged
/// by what it carries, for that is where packets go.
#[must_use]
pub fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// The IANA special-purpose registry for IPv4 (RFC 6890 and its successors), and what is special in fact.
fn classify_v4(v4: Ipv4Addr) -> AddressClass {
    use AddressClass::{Never, Private, Public};
    match v4.octets() {
        [0, ..] => Never("unspecified"),
        [127, ..] => Private("loopback"),
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] => Private("private"),
        [100, 64..=127, ..] => Private("shared by carrier NAT"),
        [198, 18..=19, ..] => Private("for benchmarks"),
        [169, 254, ..] => Never("link-local"),
        // Public by its number only: every virtual machine of one large cloud finds its keeper there.
        [168, 63, 129, 16] => Never("a cloud's own service"),
        [192, 0, 0, _] => Never("for protocol assignments"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Never("for documentation"),
        [192, 88, 99, _] => Never("a deprecated relay"),
        [224..=239, ..] => Never("multicast"),
        [240..=255, ..] => Never("reserved"),
        _ => Public,
    }
}

fn classify_v6(v6: Ipv6Addr) -> AddressClass {
    use AddressClass::{Never, Private, Public};
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let embedded = |high: u16, low: u16| {
        let [x, y] = high.to_be_bytes();
        let [z, w] = low.to_be_bytes();
        classify_v4(Ipv4Addr::new(x, y, z, w))
    };
    match [a, b, c, d, e, f, g, h] {
        [0, 0, 0, 0, 0, 0, 0, 0] => Never("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Private("loopback"),
        // IPv4-mapped: the system connects over IPv4.
        [0, 0, 0, 0, 0, 0xffff, ..] => embedded(g, h),
        // IPv4-translated (RFC 2765) and IPv4-compatible (deprecated by RFC 4291).
        [0, 0, 0, 0, 0xffff, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => Never("a deprecated form of IPv4"),
        // NAT64 (RFC 6052); an operator's own prefix (RFC 8215) leads into its own network.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => embedded(g, h),
        [0x64, 0xff9b, ..] => Private("a local NAT64"),
        [0x100, 0, 0, ..] => Never("discard-only"),
        // Teredo hides its IPv4 address; ORCHID, benchmarks and the rest of 2001::/23.
        [0x2001, 0..=0x1ff, ..] => Never("for protocol assignments"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Never("for documentation"),
        [0x2002, ..] => match embedded(b, c) {
            Public => Public,
            _ => Never("6to4 of a special address"),
        },
        [0x5f00, ..] => Never("for segment routing"),
        // Where two clouds answer with a machine's credentials, as they do on link-local addresses.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, _] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            Never("a metadata service")
        }
        [0xfc00..=0xfdff, ..] => Private("unique local"),
        [0xfe80..=0xfebf, ..] => Never("link-local"),
        [0xfec0..=0xfeff, ..] => Private("site-local"),
        [0xff00..=0xffff, ..] => Never("multicast"),
        // Only 2000::/3 is assigned for global unicast.
        [0x2000..=0x3fff, ..] => Public,
        _ => Never("unassigned"),
    }
}

/// Why no request may be sent to `address`; `None` when one may.
///
/// `own` are the edge's own listening addresses: an origin that is the edge itself would loop. One
/// that listens on all addresses stands for its port on every private one.
#[must_use]
pub(super) fn forbidden(
    address: SocketAddr,
    allow_private: bool,
    own: &[SocketAddr],
) -> Option<&'static str> {
    let ip = address.ip().to_canonical();
    let private = match classify(ip) {
        AddressClass::Never(why) => return Some(why),
        AddressClass::Private(why) if !allow_private => return Some(why),
        AddressClass::Private(_) => true,
        AddressClass::Public => false,
    };
    let is_own = own.iter().any(|own| {
        own.port() == address.port()
            && (own.ip().to_canonical() == ip || (private && own.ip().is_unspecified()))
    });
    is_own.then_some("a listener of this edge or its control plane")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn why(text: &str, allow_private: bool) -> Option<&'static str> {
        forbidden(SocketAddr::new(text.parse().unwrap(), 80), allow_private, &[])
    }

    #[test]
    fn private_addresses_are_for_the_operator_to_allow() {
        let private = [
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "198.18.0.1",
            "::1",
            "fc00::1",
            "fd12:3456::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::10.1.2.3",
            "64:ff9b:1::1",
        ];
        for text in private {
            assert!(why(text, false).is_some(), "{text} must be forbidden");
            assert_eq!(why(text, true), None, "{text} is for the operator to allow");
        }
    }

    #[test]
    fn other_special_addresses_are_forbidden_always_and_public_ones_never() {
        let never = [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "192.0.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.9",
            "192.88.99.1",
            "224.0.0.1",
            "239.1.2.3",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::127.0.0.1",
            "::ffff:0:7f00:1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "5f00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "ff02::1",
            "4000::1",
            "::ffff:0.0.0.0",
        ];
        for text in never {
            assert!(why(text, true).is_some(), "{text} must be forbidden, allowed or not");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "168.63.129.17",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.167.0.1",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
            "2002:808:808::1",
        ];
        for text in public {
            assert_eq!(why(text, false), None, "{text} is public");
        }
    }

    #[test]
    fn an_edge_is_never_its_own_origin() {
        let own: Vec<SocketAddr> =
            vec!["127.0.0.1:8080".parse().unwrap(), "0.0.0.0:8443".parse().unwrap()];
        let check = |text: &str| forbidden(text.parse().unwrap(), true, &own);
        assert!(check("127.0.0.1:8080").is_some());
        assert!(check("[::ffff:127.0.0.1]:8080").is_some());
        assert!(check("10.1.2.3:8443").is_some());
        assert_eq!(check("127.0.0.1:9000"), None);
        assert_eq!(check("8.8.8.8:8443"), None);
    }

    proptest! {
        #[test]
        fn mapping_into_ipv6_changes_no_verdict(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let plain = classify(IpAddr::V4(v4));
            prop_assert_eq!(plain, classify(IpAddr::V6(v4.to_ipv6_mapped())));
        }

        #[test]
        fn what_is_public_is_global_unicast(bits: u128) {
            let v6 = Ipv6Addr::from_bits(bits);
            if classify(IpAddr::V6(v6)) == AddressClass::Public {
                prop_assert!(!v6.is_loopback() && !v6.is_multicast() && !v6.is_unspecified());
                prop_assert!(!v6.is_unique_local() && !v6.is_unicast_link_local());
            }
        }
    }
}

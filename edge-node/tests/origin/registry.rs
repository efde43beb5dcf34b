//! The classifier of addresses against a second account of the IANA special-purpose registries: ranges
//! instead of patterns. Every edge of every range, and addresses at random.

use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use verge_edge::origin::{AddressClass, classify};

/// Of IPv4, what is no origin's: an address and how many of its bits count.
const SPECIAL_V4: &[(&str, u32)] = &[
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("168.63.129.16", 32),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.0.2.0", 24),
    ("192.88.99.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("198.51.100.0", 24),
    ("203.0.113.0", 24),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
];

/// Of 2000::/3, the same; all of IPv6 beyond that is special but for what carries an IPv4 address.
const SPECIAL_V6: &[(&str, u32)] = &[("2001::", 23), ("2001:db8::", 32), ("3fff::", 20)];

fn v4(text: &str) -> u32 {
    text.parse::<Ipv4Addr>().unwrap().to_bits()
}

fn v6(text: &str) -> u128 {
    text.parse::<Ipv6Addr>().unwrap().to_bits()
}

fn in_v4(bits: u32, (prefix, count): (&str, u32)) -> bool {
    (bits ^ v4(prefix)) >> (32 - count) == 0
}

fn in_v6(bits: u128, (prefix, count): (&str, u32)) -> bool {
    (bits ^ v6(prefix)) >> (128 - count) == 0
}

fn is_public_v4(bits: u32) -> bool {
    !SPECIAL_V4.iter().any(|range| in_v4(bits, *range))
}

fn is_public_v6(bits: u128) -> bool {
    let low = u32::try_from(bits & 0xffff_ffff).unwrap();
    if in_v6(bits, ("::ffff:0:0", 96)) || in_v6(bits, ("64:ff9b::", 96)) {
        return is_public_v4(low);
    }
    if in_v6(bits, ("2002::", 16)) {
        return is_public_v4(u32::try_from((bits >> 80) & 0xffff_ffff).unwrap());
    }
    in_v6(bits, ("2000::", 3)) && !SPECIAL_V6.iter().any(|range| in_v6(bits, *range))
}

fn told(address: impl Into<IpAddr>) -> bool {
    classify(address.into()) == AddressClass::Public
}

#[test]
fn both_accounts_agree_at_the_edges_of_every_range() {
    for (prefix, count) in SPECIAL_V4 {
        let first = v4(prefix);
        let last = first | u32::MAX.checked_shr(*count).unwrap_or(0);
        for bits in [first.wrapping_sub(1), first, last, last.wrapping_add(1)] {
            let address = Ipv4Addr::from_bits(bits);
            assert_eq!(told(address), is_public_v4(bits), "{address}");
        }
        assert!(!told(Ipv4Addr::from_bits(first)) && !told(Ipv4Addr::from_bits(last)));
    }
    let others = [
        ("::", 128),
        ("::1", 128),
        ("::", 96),
        ("::ffff:0:0", 96),
        ("::ffff:0:0:0", 96),
        ("64:ff9b::", 96),
        ("64:ff9b:1::", 48),
        ("100::", 64),
        ("100:0:0:1::", 64),
        ("2000::", 3),
        ("2001::", 32),
        ("2001:1::1", 128),
        ("2001:2::", 48),
        ("2001:3::", 32),
        ("2001:4:112::", 48),
        ("2001:10::", 28),
        ("2001:20::", 28),
        ("2001:30::", 28),
        ("2002::", 16),
        ("2620:4f:8000::", 48),
        ("5f00::", 16),
        ("fc00::", 7),
        ("fe80::", 10),
        ("fec0::", 10),
        ("ff00::", 8),
    ];
    for (prefix, count) in SPECIAL_V6.iter().chain(&others) {
        let first = v6(prefix);
        let last = first | u128::MAX.checked_shr(*count).unwrap_or(0);
        for bits in [first.wrapping_sub(1), first, last, last.wrapping_add(1)] {
            let address = Ipv6Addr::from_bits(bits);
            assert_eq!(told(address), is_public_v6(bits), "{address}");
        }
    }
    // The control: an account that lacks a range is told apart at once.
    let blind = |bits: u32| !SPECIAL_V4[1..].iter().any(|range| in_v4(bits, *range));
    assert_ne!(blind(v4("0.0.0.1")), told(Ipv4Addr::new(0, 0, 0, 1)));
}

proptest! {
    #[test]
    fn both_accounts_agree_on_ipv4(bits: u32) {
        let address = Ipv4Addr::from_bits(bits);
        prop_assert_eq!(told(address), is_public_v4(bits), "{}", address);
    }

    #[test]
    fn both_accounts_agree_within_special_ranges(range in 0..SPECIAL_V4.len(), bits: u32) {
        let (prefix, count) = SPECIAL_V4[range];
        let address = Ipv4Addr::from_bits(v4(prefix) | bits.checked_shr(count).unwrap_or(0));
        prop_assert!(!told(address), "{}", address);
        for carried in [
            address.to_ipv6_mapped(),
            address.to_ipv6_compatible(),
            Ipv6Addr::from_bits(v6("64:ff9b::") | u128::from(address.to_bits())),
            Ipv6Addr::from_bits(v6("2002::") | u128::from(address.to_bits()) << 80),
            Ipv6Addr::from_bits(v6("::ffff:0:0:0") | u128::from(address.to_bits())),
        ] {
            prop_assert!(!told(carried), "{} carries {}", carried, address);
        }
    }

    #[test]
    fn both_accounts_agree_on_ipv6(bits: u128, prefix in 0_usize..12) {
        // Most addresses at random are unassigned: the beginning is one of interest half of the time.
        let prefixes = [
            "2000::", "2001::", "2001:db8::", "2002::", "3fff::", "64:ff9b::", "::ffff:0:0", "fc00::",
            "fe80::", "ff00::", "::", "2620::",
        ];
        for bits in [bits, v6(prefixes[prefix]) | bits >> 48, v6(prefixes[prefix]) | bits >> 96] {
            let address = Ipv6Addr::from_bits(bits);
            prop_assert_eq!(told(address), is_public_v6(bits), "{}", address);
        }
    }

    #[test]
    fn what_the_standard_library_calls_special_is_never_public(bits: u32, wide: u128) {
        let address = Ipv4Addr::from_bits(bits);
        let special = address.is_private() || address.is_loopback() || address.is_link_local()
            || address.is_multicast() || address.is_broadcast() || address.is_documentation()
            || address.is_unspecified();
        prop_assert!(!(special && told(address)), "{}", address);
        let address = Ipv6Addr::from_bits(wide);
        let special = address.is_loopback() || address.is_multicast() || address.is_unspecified()
            || address.is_unique_local() || address.is_unicast_link_local();
        prop_assert!(!(special && told(address)), "{}", address);
    }
}

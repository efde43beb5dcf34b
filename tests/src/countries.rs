//! Writes a database of countries, in the MaxMind DB format: a search tree of 24-bit records over the bits of
//! IPv6 addresses (IPv4 below `::/96`), the countries, and the metadata.
//!
//! <https://maxmind.github.io/MaxMind-DB/>

use std::net::IpAddr;
use std::path::Path;

/// What follows the tree before the data begins.
const SEPARATOR: usize = 16;

/// A record of the tree.
#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    Data(usize),
}

/// Writes a database in which each network is in its country.
pub fn write(path: &Path, networks: &[(IpAddr, u32, &str)]) {
    let mut nodes = vec![[Record::Nothing; 2]];
    let mut data = Vec::new();
    for (address, length, code) in networks {
        let (bits, length) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(*address)), length + 96),
            IpAddr::V6(address) => (u128::from(*address), *length),
        };
        let side = |depth: u32| usize::from(bits >> (127 - depth) & 1 == 1);
        let mut node = 0;
        for depth in 0..length - 1 {
            node = if let Record::Node(next) = nodes[node][side(depth)] {
                next
            } else {
                nodes.push([Record::Nothing; 2]);
                nodes[node][side(depth)] = Record::Node(nodes.len() - 1);
                nodes.len() - 1
            };
        }
        nodes[node][side(length - 1)] = Record::Data(data.len());
        data.extend(map(&[("country", map(&[("iso_code", text(code))]))]));
    }
    let count = nodes.len();
    let number = |record: Record| match record {
        Record::Nothing => count,
        Record::Node(node) => node,
        Record::Data(offset) => count + SEPARATOR + offset,
    };
    let records = nodes.iter().flatten().map(|record| u32::try_from(number(*record)).unwrap());
    let mut file: Vec<u8> = records.flat_map(|n| n.to_be_bytes()[1..].to_vec()).collect();
    file.extend([0; SEPARATOR]);
    file.extend(data);
    file.extend(b"\xAB\xCD\xEFMaxMind.com");
    file.extend(map(&[
        ("node_count", unsigned(6, u32::try_from(count).unwrap())),
        ("record_size", unsigned(5, 24)),
        ("ip_version", unsigned(5, 6)),
        ("database_type", text("Test-Country")),
        // An array is type 11, of which 7 is left for the byte after the first.
        ("languages", vec![0, 11 - 7]),
        ("binary_format_major_version", unsigned(5, 2)),
        ("binary_format_minor_version", unsigned(5, 0)),
        // An unsigned integer of 64 bits is type 9.
        ("build_epoch", vec![4, 9 - 7, 0x65, 0, 0, 0]),
        ("description", map(&[])),
    ]));
    std::fs::write(path, file).unwrap();
}

fn head(kind: u8, size: usize) -> u8 {
    assert!(size < 29, "a longer one has its size in bytes of its own");
    kind << 5 | u8::try_from(size).unwrap()
}

fn text(text: &str) -> Vec<u8> {
    [&[head(2, text.len())], text.as_bytes()].concat()
}

fn unsigned(kind: u8, value: u32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let bytes = &bytes[value.leading_zeros() as usize / 8..];
    [&[head(kind, bytes.len())], bytes].concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![head(7, pairs.len())];
    for (key, value) in pairs {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

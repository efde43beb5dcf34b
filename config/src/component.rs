//! What a WebAssembly component says of itself: its exports, and which contract for handlers they fulfil.
//! Compiles and runs nothing.

use wasmparser::{Encoding, Parser, Payload};

/// A contract between a handler and an edge; a component that fulfils both is called by the newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contract {
    /// `wasi:http/incoming-handler@0.2.x`.
    Incoming,
    /// `wasi:http/handler@0.3.x`.
    Handler,
}

/// The contracts as messages name them.
pub const CONTRACTS: &str = "wasi:http/incoming-handler@0.2 nor wasi:http/handler@0.3";

/// Why bytes are no component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoComponent {
    /// They are a core module.
    Module,
    /// They are not WebAssembly at all.
    Foreign,
    /// They begin as WebAssembly does and go on as it does not.
    Damaged(String),
}

impl Contract {
    /// The contract that exports of these names fulfil.
    #[must_use]
    pub fn of(exports: &[String]) -> Option<Contract> {
        let any = |start: &str| exports.iter().any(|name| name.starts_with(start));
        if any("wasi:http/handler@0.3.") {
            return Some(Contract::Handler);
        }
        any("wasi:http/incoming-handler@0.2.").then_some(Contract::Incoming)
    }
}

/// The names of a component's own exports, in their order; those of components inside it do not count.
///
/// # Errors
/// When the bytes are no component.
pub fn exports(bytes: &[u8]) -> Result<Vec<String>, NoComponent> {
    let damaged = |error: wasmparser::BinaryReaderError| NoComponent::Damaged(error.to_string());
    if !bytes.starts_with(b"\0asm") {
        return Err(NoComponent::Foreign);
    }
    let mut depth = 0_usize;
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::Version { encoding, .. } if depth == 0 && encoding == Encoding::Module => {
                return Err(NoComponent::Module);
            }
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    names.push(export.map_err(damaged)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(exports: &[&str]) -> Option<Contract> {
        let exports: Vec<_> = exports.iter().map(|name| (*name).to_owned()).collect();
        Contract::of(&exports)
    }

    #[test]
    fn the_exports_tell_the_contract() {
        assert_eq!(contract(&[]), None);
        assert_eq!(contract(&["wasi:cli/run@0.2.3", "wasi:http/handler@0.2.0"]), None);
        assert_eq!(contract(&["wasi:http/incoming-handler@0.3.0"]), None);
        let old = "wasi:http/incoming-handler@0.2.10";
        assert_eq!(contract(&["x", old]), Some(Contract::Incoming));
        assert_eq!(contract(&["wasi:http/handler@0.3.2"]), Some(Contract::Handler));
        assert_eq!(contract(&[old, "wasi:http/handler@0.3.0"]), Some(Contract::Handler));
    }

    #[test]
    fn a_core_module_is_told_from_what_is_no_webassembly() {
        assert_eq!(exports(b"\0asm\x0d\0\x01\0"), Ok(vec![]));
        assert_eq!(exports(b"\0asm\x01\0\0\0"), Err(NoComponent::Module));
        assert_eq!(exports(b"hello, world"), Err(NoComponent::Foreign));
        assert_eq!(exports(b""), Err(NoComponent::Foreign));
        let cut = b"\0asm\x0d\0\x01\0\x07\xc8";
        assert!(matches!(exports(cut), Err(NoComponent::Damaged(_))));
    }
}

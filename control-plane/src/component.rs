//! Whether bytes are a component that an edge can run: valid WebAssembly that fulfils one of the
//! contracts for handlers. Pure; compiles and runs nothing.

use verge_config::component::{CONTRACTS, Contract, NoComponent, exports};
use wasmparser::{Validator, WasmFeatures};

/// Checks a component.
///
/// # Errors
/// What is wrong with it, for its author.
pub(crate) fn validate(bytes: &[u8]) -> Result<(), String> {
    let exports = exports(bytes).map_err(|reason| match reason {
        NoComponent::Module => "this is a core module, not a component; build for the target \
                                wasm32-wasip2, or wrap it with `wasm-tools component new`"
            .to_owned(),
        NoComponent::Foreign => "not WebAssembly".to_owned(),
        NoComponent::Damaged(error) => format!("not a valid component: {error}"),
    })?;
    // What edges do not offer is refused here already, where its author reads why.
    let features = WasmFeatures::default()
        .union(WasmFeatures::CM_ASYNC)
        .difference(WasmFeatures::THREADS)
        .difference(WasmFeatures::MEMORY64)
        .difference(WasmFeatures::GC);
    Validator::new_with_features(features)
        .validate_all(bytes)
        .map_err(|error| format!("not a valid component: {error}"))?;
    if Contract::of(&exports).is_some() {
        return Ok(());
    }
    let found = match exports.len() {
        0 => "it exports nothing".to_owned(),
        _ => format!("it exports {}", exports.into_iter().take(10).collect::<Vec<_>>().join(", ")),
    };
    Err(format!("the component exports neither {CONTRACTS}; {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A component's preamble and nothing else.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
    const CORE: &[u8] = b"\0asm\x01\0\0\0";

    /// The least that looks like a handler: an empty instance, exported under the interface's name.
    fn handler() -> Vec<u8> {
        let name = b"wasi:http/incoming-handler@0.2.3";
        let mut export = vec![1, 0, name.len() as u8];
        export.extend_from_slice(name);
        export.extend_from_slice(&[5, 0, 0]);
        let mut bytes = EMPTY.to_vec();
        bytes.extend_from_slice(&[5, 3, 1, 1, 0]);
        bytes.extend_from_slice(&[11, export.len() as u8]);
        bytes.extend(export);
        bytes
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(validate(b"").unwrap_err().contains("not WebAssembly"));
        assert!(validate(b"hello, world").unwrap_err().contains("not WebAssembly"));
        assert!(validate(CORE).unwrap_err().contains("core module"));
        assert!(validate(EMPTY).unwrap_err().contains("exports nothing"));
        assert!(validate(&[EMPTY, &[7, 200]].concat()).unwrap_err().contains("not a valid"));
    }

    #[test]
    fn a_handler_is_accepted() {
        assert_eq!(validate(&handler()), Ok(()));
    }

    proptest! {
        #[test]
        fn damaged_components_never_panic(at in 0_usize..1000, byte: u8) {
            let mut bytes = handler();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = validate(&bytes);
        }
    }
}

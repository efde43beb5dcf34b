//! Whether bytes are a component that an edge can run: valid WebAssembly that exports
//! `wasi:http/incoming-handler@0.2.x`. Pure; compiles and runs nothing.

use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

/// The interface, up to its patch version.
const EXPORT: &str = "wasi:http/incoming-handler@0.2.";

/// Checks a component.
///
/// # Errors
/// What is wrong with it, for its author.
pub(crate) fn validate(bytes: &[u8]) -> Result<(), String> {
    // What edges do not offer is refused here already, where its author reads why.
    let features = WasmFeatures::default()
        .difference(WasmFeatures::THREADS)
        .difference(WasmFeatures::MEMORY64)
        .difference(WasmFeatures::GC);
    if !is_component(bytes)? {
        return Err("this is a core module, not a component; build for the target wasm32-wasip2, \
                    or wrap it with `wasm-tools component new`"
            .to_owned());
    }
    Validator::new_with_features(features)
        .validate_all(bytes)
        .map_err(|error| format!("not a valid component: {error}"))?;
    let exports = exports(bytes)?;
    if exports.iter().any(|name| name.starts_with(EXPORT)) {
        return Ok(());
    }
    let found = match exports.len() {
        0 => "it exports nothing".to_owned(),
        _ => format!("it exports {}", exports.into_iter().take(10).collect::<Vec<_>>().join(", ")),
    };
    Err(format!("the component does not export {EXPORT}x; {found}"))
}

fn is_component(bytes: &[u8]) -> Result<bool, String> {
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding, .. })) => Ok(encoding == Encoding::Component),
        Some(Err(error)) => Err(format!("not WebAssembly: {error}")),
        _ => Err("not WebAssembly".to_owned()),
    }
}

/// The names of the outermost component's exports.
fn exports(bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut depth = 0_usize;
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| error.to_string())? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    names.push(export.map_err(|error| error.to_string())?.name.name.to_owned());
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

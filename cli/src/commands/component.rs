//! `verge component`: makes a component of a core WebAssembly module, for languages whose compilers make
//! modules for WASI's first preview: C and what is like it.

use crate::Ended;
use crate::error::CliError;
use crate::output::Output;
use clap::Args;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

#[derive(Debug, Args)]
pub(crate) struct ComponentArgs {
    /// The module, a reactor: it has no `main`.
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Where the component goes.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Made {
    component: PathBuf,
    bytes: usize,
}

pub(crate) fn run(args: &ComponentArgs, output: Output) -> Result<Ended, CliError> {
    let module = fs::read(&args.module).map_err(|error| CliError::file(&args.module, error))?;
    let component = encode(&module)
        .map_err(|why| CliError::Build(format!("{}: {why}", args.module.display())))?;
    write_whole(&args.out, &component).map_err(|error| CliError::file(&args.out, error))?;
    let made = Made { component: args.out.clone(), bytes: component.len() };
    output.result(&made, |made| format!("{}: {} bytes", made.component.display(), made.bytes));
    Ok(Ended::Done)
}

/// The component of a module: its calls of the first preview are adapted, its other imports and exports
/// are lifted to the interfaces that it carries a description of.
fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| {
            encoder.adapter(
                WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(|mut encoder| encoder.encode());
    encoded.map_err(|error| format!("no component can be made of it: {error:#}"))
}

/// Puts a file into place whole: who looks for it never finds half of one.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let half = path.with_extension("tmp");
    fs::write(&half, bytes)?;
    fs::rename(&half, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("module.wasm"), "no module").unwrap();
        let args = ComponentArgs { module: at("module.wasm"), out: at("out.wasm") };
        let error = run(&args, Output::new(true)).unwrap_err().to_string();
        assert!(error.contains("module.wasm: no component can be made of it"), "{error}");
        assert!(!at("out.wasm").exists());
    }
}

//! The child's end: limits itself, reads a component from standard input, writes the artefact to
//! standard output. It opens no file and no socket.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};

use verge_config::component::{Contract, NoComponent, exports};

use super::{environment, exit};
use crate::engine;
use crate::settings::{CompileLimits, limits};

/// Address space that is reserved and never touched (thread stacks, allocator arenas) beyond what
/// the child may fill.
const ADDRESS_SPACE_SLACK: u64 = 2 * 1024 * 1024 * 1024;

/// Compiles a component from standard input to standard output, within limits that this process
/// first sets on itself: CPU time, memory, no files, no core. The limits come in the environment
/// from the process that started this one. Call it first thing in `main`, and return what it gives:
/// 0, or 65 with a reason on standard error when the component is at fault, or 70.
#[must_use]
pub fn compile_child() -> ExitCode {
    if let Err(error) = confine() {
        eprintln!("cannot limit the compiler: {error}");
        return ExitCode::from(exit::FAILED);
    }
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Invalid(reason)) => {
            eprintln!("{reason}");
            ExitCode::from(exit::INVALID)
        }
        Err(Failure::Io(error)) => {
            eprintln!("{error}");
            ExitCode::from(exit::FAILED)
        }
    }
}

enum Failure {
    Invalid(String),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

fn confine() -> io::Result<()> {
    let default = CompileLimits::default();
    let cpu = from_environment(environment::CPU).unwrap_or(default.cpu.as_secs());
    let memory = from_environment(environment::MEMORY).unwrap_or(default.memory);
    set_parent_process_death_signal(Some(Signal::KILL))?;
    limit(Resource::Cpu, cpu)?;
    limit(Resource::Data, memory)?;
    limit(Resource::As, memory.saturating_add(ADDRESS_SPACE_SLACK))?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, 64)?;
    // Requests come before compilations.
    nice(10)?;
    Ok(())
}

/// The contract that the component is compiled for: the older one where it fulfils none.
fn contract(component: &[u8]) -> Result<Contract, Failure> {
    let exports = exports(component).map_err(|reason| {
        Failure::Invalid(match reason {
            NoComponent::Module => "a core module".to_owned(),
            NoComponent::Foreign => "not WebAssembly".to_owned(),
            NoComponent::Damaged(error) => error,
        })
    })?;
    Ok(Contract::of(&exports).unwrap_or(Contract::Incoming))
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

fn compile() -> Result<(), Failure> {
    let mut component = Vec::new();
    let most = limits::COMPONENT_BYTES as u64;
    io::stdin().lock().take(most + 1).read_to_end(&mut component)?;
    if component.len() as u64 > most {
        return Err(Failure::Invalid(format!("the component is larger than {} MiB", most >> 20)));
    }
    let invalid = |error: wasmtime::Error| Failure::Invalid(format!("{error:#}"));
    let contract = contract(&component)?;
    let engine = engine::compiler(contract).map_err(invalid)?;
    let artefact = engine.precompile_component(&component).map_err(invalid)?;
    let mut out = io::stdout().lock();
    out.write_all(&artefact)?;
    Ok(out.flush()?)
}

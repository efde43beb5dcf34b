//! The parent's end: starts the child with an empty environment, feeds it, reads no more than a limit
//! and kills it when its time is up. At most a few compilations run at once; the rest wait.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::{environment, exit};
use crate::settings::{CompileLimits, CompilerCommand, limits};

/// The most that is read of the child's reason.
const REASON_BYTES: u64 = 8 * 1024;

/// What a compiler says that gets no memory: the standard library, a thread that is not started, and
/// wasmtime.
const WANT_OF_MEMORY: [&str; 3] = ["memory allocation of", "WouldBlock", "out of memory"];

/// Why a component did not compile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// The component is at fault.
    #[error("{0}")]
    Invalid(String),
    /// It takes more than a compilation may use.
    #[error("{0}")]
    TooCostly(String),
    /// The compiler could not be run.
    #[error("the compiler could not be run: {0}")]
    Run(#[from] io::Error),
    /// The compiler failed.
    #[error("the compiler failed ({status}): {reason}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        reason: String,
    },
}

/// Starts compilations.
pub(crate) struct Compiler {
    command: CompilerCommand,
    most: CompileLimits,
    turns: Semaphore,
}

impl Compiler {
    pub(crate) fn new(command: CompilerCommand, most: CompileLimits, at_once: usize) -> Compiler {
        Compiler { command, most, turns: Semaphore::new(at_once.max(1)) }
    }

    /// Compiles a component, once it is its turn. Dropping the future kills the child.
    pub(crate) async fn compile(&self, component: Bytes) -> Result<Vec<u8>, CompileError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let mut child = self.start()?;
        match tokio::time::timeout(self.most.wall, talk(&mut child, component)).await {
            Ok(Ok((status, artefact, reason))) => self.judge(status, artefact, &reason),
            Ok(Err(error)) => Err(CompileError::Run(error)),
            Err(_) => {
                child.kill().await?;
                Err(CompileError::TooCostly(format!(
                    "compiling it took longer than {} s",
                    self.most.wall.as_secs()
                )))
            }
        }
    }

    fn start(&self) -> io::Result<Child> {
        Command::new(&self.command.program)
            .args(&self.command.args)
            .env_clear()
            .env(environment::CPU, self.most.cpu.as_secs().max(1).to_string())
            .env(environment::MEMORY, self.most.memory.to_string())
            // An allocator that reserves by the gigabyte would use the child's limit up at once.
            .env("MIMALLOC_ARENA_RESERVE", "64MiB")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    fn judge(
        &self,
        status: ExitStatus,
        artefact: Vec<u8>,
        reason: &[u8],
    ) -> Result<Vec<u8>, CompileError> {
        let reason = String::from_utf8_lossy(reason).trim().to_owned();
        let memory = || {
            let mebibytes = self.most.memory >> 20;
            CompileError::TooCostly(format!("compiling it takes more than {mebibytes} MiB"))
        };
        match (status.code(), status.signal()) {
            (Some(0), _) if artefact.len() > limits::ARTEFACT_BYTES => {
                Err(CompileError::TooCostly("its machine code is too large".into()))
            }
            (Some(0), _) => Ok(artefact),
            (Some(code), _) if code == i32::from(exit::INVALID) => {
                Err(CompileError::Invalid(reason))
            }
            (None, Some(signal)) => Err(match signal_name(signal) {
                Some(Cause::Cpu) => CompileError::TooCostly(format!(
                    "compiling it takes more than {} s of CPU time",
                    self.most.cpu.as_secs()
                )),
                Some(Cause::Memory) => memory(),
                None => CompileError::Failed { status, reason },
            }),
            // A thread that cannot be started or a panic for want of memory.
            _ if WANT_OF_MEMORY.iter().any(|sign| reason.contains(sign)) => Err(memory()),
            _ => Err(CompileError::Failed { status, reason }),
        }
    }
}

enum Cause {
    Cpu,
    Memory,
}

/// What the signal that ended the child says: a process over its CPU limit gets `SIGXCPU`, at the
/// hard limit `SIGKILL`; one that gets no memory aborts.
fn signal_name(signal: i32) -> Option<Cause> {
    use rustix::process::Signal;
    if signal == Signal::XCPU.as_raw() || signal == Signal::KILL.as_raw() {
        Some(Cause::Cpu)
    } else if signal == Signal::ABORT.as_raw() || signal == Signal::SEGV.as_raw() {
        Some(Cause::Memory)
    } else {
        None
    }
}

/// Writes, reads and waits, all at once: the child may answer before it has read everything.
async fn talk(child: &mut Child, component: Bytes) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A child that is gone says why by its status.
            let _ = stdin.write_all(&component).await;
        }
        io::Result::Ok(())
    };
    let read = async {
        let mut artefact = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(limits::ARTEFACT_BYTES as u64 + 1).read_to_end(&mut artefact).await?;
        }
        io::Result::Ok(artefact)
    };
    let listen = async {
        let mut reason = Vec::new();
        if let Some(mut stderr) = stderr {
            (&mut stderr).take(REASON_BYTES).read_to_end(&mut reason).await?;
            // What goes on saying is not kept waiting.
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
        }
        io::Result::Ok(reason)
    };
    let ((), artefact, reason) = tokio::try_join!(write, read, listen)?;
    // Both its outputs are closed; a child that lingers all the same is not waited for.
    let status = tokio::time::timeout(Duration::from_secs(10), child.wait()).await??;
    Ok((status, artefact, reason))
}

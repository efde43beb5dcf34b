//! The sandbox of an edge and the components that it has ready. Compiles no code itself and runs none:
//! that is for the compiler child and for [`Handler`](crate::Handler).

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use verge_config::component::{Contract, NoComponent, exports};

use crate::compile::{CompileError, Compiler};
use crate::idle::Idle;
use crate::settings::{SandboxSettings, limits};
use crate::target::{Pre, Target};
use crate::ticker::Ticker;
use crate::turns::Turns;

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The settings make no engine, or the machine cannot reserve what its instances need.
    #[error("cannot set up {instances} instances of up to {memory} bytes: {reason}")]
    Engine {
        /// Instances wanted.
        instances: u32,
        /// Bytes for each.
        memory: u64,
        /// Why not.
        reason: String,
    },
    /// The folder of artefacts cannot be used.
    #[error("cannot use the folder of artefacts: {0}")]
    Artefacts(#[source] io::Error),
    /// The thread that interrupts guests cannot be started.
    #[error("cannot start the epoch thread: {0}")]
    Ticker(#[source] io::Error),
}

/// Why a component is not ready; written for its developer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// It is too large.
    #[error("the component has {0} bytes; {max} are allowed", max = limits::COMPONENT_BYTES)]
    TooLarge(usize),
    /// It is no valid component.
    #[error("not a valid component: {0}")]
    Invalid(String),
    /// It is a core module.
    #[error(
        "this is a core WebAssembly module, not a component; build for wasm32-wasip2, or wrap it \
         with `wasm-tools component new`"
    )]
    Module,
    /// Compiling it takes more than a compilation may use.
    #[error("the component is too costly: {0}")]
    TooCostly(String),
    /// It imports what no edge offers.
    #[error("the component cannot be linked: {0}")]
    Import(String),
    /// It fulfils no contract for handlers.
    #[error(
        "the component exports neither wasi:http/incoming-handler@0.2 nor wasi:http/handler@0.3: {0}"
    )]
    NoHandler(String),
    /// A fault of the edge's own; the component may be good.
    #[error("the component could not be compiled: {0}")]
    Internal(String),
}

impl LoadError {
    /// Whether the component itself is at fault, so that trying again is of no use.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, LoadError::Internal(_))
    }
}

impl From<CompileError> for LoadError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Invalid(reason) => LoadError::Invalid(reason),
            CompileError::TooCostly(reason) => LoadError::TooCostly(reason),
            other => LoadError::Internal(other.to_string()),
        }
    }
}

/// Runs handlers. Cheap to clone; the clones share everything.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<Runtime>,
    incoming: Target,
    handler: Target,
    compiler: Compiler,
    /// The components in use, by digest; the lock of an entry is held while its component is made.
    ready: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Weak<Component>>>;

/// What running guests share.
pub(crate) struct Runtime {
    pub(crate) ticker: Ticker,
    pub(crate) turns: Arc<Turns>,
    pub(crate) idle: Idle,
    pub(crate) max_instances: u32,
    pub(crate) max_memory: u64,
    pub(crate) running: AtomicU32,
}

/// A component that is compiled and linked: what instances are made from. Shared by all sites that
/// use the same bytes.
pub struct Component {
    digest: String,
    size: usize,
    pub(crate) pre: Pre,
    pub(crate) runtime: Arc<Runtime>,
    /// How many instances one of its counts as.
    pub(crate) weight: u32,
}

impl Component {
    /// The SHA-256 of its bytes, in lower-case hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its size as WebAssembly, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Sets a sandbox up: reserves address space for its instances and starts the thread that
    /// interrupts guests.
    ///
    /// # Errors
    /// When the settings make no engine, the machine lacks address space, or the folder of artefacts
    /// cannot be used.
    pub fn new(settings: SandboxSettings) -> Result<Sandbox, SandboxError> {
        let incoming = Target::new(Contract::Incoming, &settings)?;
        let handler = Target::new(Contract::Handler, &settings)?;
        let engines = [incoming.engine.clone(), handler.engine.clone()];
        let turns = Arc::new(Turns::new(settings.long_turns));
        let reviewed = Arc::clone(&turns);
        let on_tick = move || {
            engines.iter().for_each(wasmtime::Engine::increment_epoch);
            reviewed.review();
        };
        let ticker = Ticker::start(settings.epoch_tick, on_tick).map_err(SandboxError::Ticker)?;
        let compiler =
            Compiler::new(settings.compiler, settings.compile, settings.max_compilations);
        let runtime = Arc::new(Runtime {
            ticker,
            turns,
            idle: Idle::default(),
            max_instances: settings.max_instances,
            max_memory: settings.max_memory,
            running: AtomicU32::new(0),
        });
        let ready = Mutex::new(HashMap::new());
        let shared = Shared { runtime, incoming, handler, compiler, ready };
        Ok(Sandbox { shared: Arc::new(shared) })
    }

    /// Makes a component ready: from the artefact when this installation has compiled it before,
    /// else through the compiler child. Loads of the same bytes at the same time compile once.
    ///
    /// # Errors
    /// Says, for the developer, what is wrong with the component.
    pub async fn load(&self, component: Bytes) -> Result<Arc<Component>, LoadError> {
        if component.len() > limits::COMPONENT_BYTES {
            return Err(LoadError::TooLarge(component.len()));
        }
        let exports = exports(&component).map_err(|reason| match reason {
            NoComponent::Module => LoadError::Module,
            NoComponent::Foreign => LoadError::Invalid("not WebAssembly".to_owned()),
            NoComponent::Damaged(error) => LoadError::Invalid(error),
        })?;
        let target = match Contract::of(&exports) {
            Some(Contract::Handler) => &self.shared.handler,
            // What fulfils none is told so once it is linked, after faults that come before that.
            Some(Contract::Incoming) | None => &self.shared.incoming,
        };
        let digest = hex::encode(Sha256::digest(&component));
        let slot = self.slot(&digest);
        let mut held = slot.lock().await;
        if let Some(ready) = held.upgrade() {
            return Ok(ready);
        }
        let size = component.len();
        let compiled = self.compiled(target, &digest, component).await?;
        let pre = target.link(&compiled)?;
        let runtime = Arc::clone(&self.shared.runtime);
        let weight = crate::engine::weight(&compiled);
        if weight > runtime.max_instances {
            return Err(LoadError::TooCostly(format!(
                "its memories and tables are what {weight} instances have; this edge has {}",
                runtime.max_instances
            )));
        }
        let ready = Arc::new(Component { digest, size, pre, runtime, weight });
        *held = Arc::downgrade(&ready);
        Ok(ready)
    }

    /// Instances that run right now; those with many memories or tables count as several.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.shared.runtime.running.load(Ordering::Relaxed)
    }

    fn slot(&self, digest: &str) -> Slot {
        let mut ready = self.shared.ready.lock();
        if let Some(slot) = ready.get(digest) {
            return Arc::clone(slot);
        }
        // Entries whose component is gone, and which nobody waits for, go when another comes.
        ready.retain(|_, slot| {
            Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|c| c.strong_count() > 0)
        });
        Arc::clone(ready.entry(digest.to_owned()).or_default())
    }

    async fn compiled(
        &self,
        target: &Target,
        digest: &str,
        component: Bytes,
    ) -> Result<wasmtime::component::Component, LoadError> {
        let (artefacts, name) = (Arc::clone(&target.artefacts), digest.to_owned());
        if let Some(found) = blocking(move || artefacts.load(&name)).await? {
            return Ok(found);
        }
        let artefact = self.shared.compiler.compile(component).await?;
        let (artefacts, name) = (Arc::clone(&target.artefacts), digest.to_owned());
        blocking(move || artefacts.keep(&name, &artefact)).await?.map_err(|error| {
            let reason = format!("{error:#}");
            // The engine has no type for this; what else keeps an artefact from loading is no fault of
            // the component's.
            if reason.contains("pooling allocator") {
                return LoadError::TooCostly(format!(
                    "no instance has what it asks for: {}",
                    error.root_cause()
                ));
            }
            LoadError::Internal(reason)
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| LoadError::Internal(error.to_string()))
}

//! All that one contract's components are made ready with: the engine that runs them, what they may
//! import, and the artefacts that fit.

use std::sync::Arc;

use verge_config::component::Contract;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::artefact::Artefacts;
use crate::guest::{self, State};
use crate::sandbox::{LoadError, SandboxError};
use crate::settings::SandboxSettings;

/// One contract's target.
pub(crate) struct Target {
    contract: Contract,
    pub(crate) engine: Engine,
    pub(crate) artefacts: Arc<Artefacts>,
    linker: Linker<State>,
}

/// A component that is linked, as its contract has it.
pub(crate) enum Pre {
    /// `wasi:http/incoming-handler@0.2`.
    Incoming(ProxyPre<State>),
    /// `wasi:http/handler@0.3`.
    Handler(ServicePre<State>),
}

impl Target {
    pub(crate) fn new(
        contract: Contract,
        settings: &SandboxSettings,
    ) -> Result<Target, SandboxError> {
        let unset = |error: wasmtime::Error| SandboxError::Engine {
            instances: settings.max_instances,
            memory: settings.max_memory,
            reason: format!("{error:#}"),
        };
        let engine = crate::engine::runner(contract, settings).map_err(unset)?;
        let linker = guest::linker(&engine, contract).map_err(unset)?;
        let artefacts =
            Artefacts::open(&settings.artefact_dir, settings.max_artefact_bytes, &engine)
                .map_err(SandboxError::Artefacts)?;
        Ok(Target { contract, engine, artefacts: Arc::new(artefacts), linker })
    }

    /// Links a compiled component.
    pub(crate) fn link(&self, component: &Component) -> Result<Pre, LoadError> {
        let pre = self
            .linker
            .instantiate_pre(component)
            .map_err(|error| LoadError::Import(format!("{error:#}")))?;
        let no_handler = |error: wasmtime::Error| LoadError::NoHandler(format!("{error:#}"));
        Ok(match self.contract {
            Contract::Incoming => Pre::Incoming(ProxyPre::new(pre).map_err(no_handler)?),
            Contract::Handler => Pre::Handler(ServicePre::new(pre).map_err(no_handler)?),
        })
    }
}

//! What the host keeps for one instance, and the interfaces that it is linked to. Files and sockets
//! are linked, because many components import them, and refuse everything.

mod call;
mod fetch;
mod flow;
mod limiter;
mod log;
mod meter;
mod upload;

use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

pub(crate) use call::Call;
use fetch::Hooks;
pub(crate) use fetch::broken;
pub(crate) use flow::Counted;
use limiter::Limiter;
use log::LogPipe;

use crate::host::LogStream;
use crate::settings::limits;

/// The host's side of one instance.
pub(crate) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Hooks,
    limiter: Limiter,
    call: Arc<Call>,
}

/// The guest was stopped because its CPU budget is used up.
#[derive(Debug, thiserror::Error)]
#[error("out of CPU time")]
pub(crate) struct OutOfCpu;

/// Everything that a guest may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// A store for one instance.
pub(crate) fn store(engine: &Engine, call: &Arc<Call>, env: &[(String, String)]) -> Store<State> {
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(limits::FIELDS_BYTES);
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits::RESOURCES);
    let state = State {
        wasi: context(call, env),
        http,
        table,
        hooks: Hooks::new(Arc::clone(call)),
        limiter: Limiter::new(Arc::clone(call)),
        call: Arc::clone(call),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits::HOSTCALL_BYTES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        let call = &context.data().call;
        call.touch();
        if call.is_out_of_cpu() {
            return Err(OutOfCpu.into());
        }
        // Tokio's own yield lets the thread look at its sockets before this guest's next turn.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    store
}

/// No arguments, no input, no directories, no network; clocks, random numbers and a log.
fn context(call: &Arc<Call>, env: &[(String, String)]) -> WasiCtx {
    WasiCtxBuilder::new()
        .envs(env)
        .stdout(LogPipe::new(Arc::clone(call), LogStream::Stdout))
        .stderr(LogPipe::new(Arc::clone(call), LogStream::Stderr))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(limits::RANDOM_BYTES)
        .build()
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

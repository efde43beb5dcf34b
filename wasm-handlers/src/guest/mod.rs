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

use http_body_util::BodyExt;
use parking_lot::Mutex;
use verge_config::component::Contract;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

pub(crate) use call::Call;
use fetch::Hooks;
use flow::Counted;
use limiter::Limiter;
use log::{LogPipe, Seat};

use crate::Body;
use crate::host::LogStream;
use crate::hostcalls;
use crate::settings::limits;

/// The host's side of one instance.
pub(crate) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub(crate) table: ResourceTable,
    hooks: Hooks,
    limiter: Limiter,
    pub(crate) call: Arc<Call>,
    seat: Seat,
}

/// The guest was stopped because its CPU budget is used up.
#[derive(Debug, thiserror::Error)]
#[error("out of CPU time")]
pub(crate) struct OutOfCpu;

impl State {
    /// The instance works for another call from here on.
    pub(crate) fn begin(&mut self, call: &Arc<Call>) {
        self.call = Arc::clone(call);
        self.hooks = Hooks::new(Arc::clone(call));
        self.limiter.begin(Arc::clone(call));
        *self.seat.lock() = Arc::clone(call);
    }

    /// All memories of the instance, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.limiter.memory()
    }
}

/// A request's content, as a guest reads it.
pub(crate) fn incoming(body: Body, call: &Arc<Call>) -> WasiBody {
    Counted::new(body, call).map_err(fetch::broken).boxed_unsync()
}

/// Everything that a guest may import. Components of the newer contract import interfaces of the older
/// version as well: their languages' standard libraries do.
pub(crate) fn linker(engine: &Engine, contract: Contract) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    hostcalls::add_to_linker(&mut linker)?;
    if contract == Contract::Handler {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

/// A store for one instance.
pub(crate) fn store(engine: &Engine, call: &Arc<Call>, env: &[(String, String)]) -> Store<State> {
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(limits::FIELDS_BYTES);
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits::RESOURCES);
    let seat = Arc::new(Mutex::new(Arc::clone(call)));
    let state = State {
        wasi: context(&seat, env),
        http,
        table,
        hooks: Hooks::new(Arc::clone(call)),
        limiter: Limiter::new(Arc::clone(call)),
        call: Arc::clone(call),
        seat,
    };
    let mut store = Store::new(engine, state);
    // Tasks, streams and futures, where the engine has any.
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(limits::RESOURCES);
    }
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits::HOSTCALL_BYTES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        let call = &context.data().call;
        call.touch();
        let used = call.cpu();
        if used >= call.limits.cpu {
            return Err(OutOfCpu.into());
        }
        if used < limits::SHORT_RUN {
            return Ok(UpdateDeadline::Continue(1));
        }
        if used >= limits::LONG_RUN {
            call.hurry();
        }
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(Arc::clone(call).next_turn())))
    });
    store
}

/// No arguments, no input, no directories, no network; clocks, random numbers and a log.
fn context(seat: &Seat, env: &[(String, String)]) -> WasiCtx {
    WasiCtxBuilder::new()
        .envs(env)
        .stdout(LogPipe::new(Arc::clone(seat), LogStream::Stdout))
        .stderr(LogPipe::new(Arc::clone(seat), LogStream::Stderr))
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

//! What the two sides of a call share: the guest's host functions note here what happens, and whoever
//! drives the guest reads it. One a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Response;
use parking_lot::Mutex;
use verge_config::site::{Handler, HandlerLimits};
use wasmtime_wasi_http::WasiBody;

use super::flow::Flow;
use super::log::Log;
use super::meter::Meter;
use crate::host::{Host, LogLevel, LogLine, LogStream};
use crate::outcome::{End, Ended, Usage, brief};
use crate::sandbox::Runtime;
use crate::settings::limits;
use crate::turns::Turn;

/// What a guest answers: a response's head with its content to come, or an error.
pub(crate) type Head = Result<Response<WasiBody>, Ended>;

/// One request's call of a guest.
pub(crate) struct Call {
    pub(crate) host: Arc<dyn Host>,
    /// What the site says of the handler.
    pub(crate) spec: Arc<Handler>,
    /// Its limits, within the operator's.
    pub(crate) limits: HandlerLimits,
    began: Instant,
    runtime: Arc<Runtime>,
    head: Mutex<Option<Head>>,
    is_read: AtomicBool,
    meter: Mutex<Meter>,
    /// What a guest that is not short has while it runs.
    turn: Mutex<Option<Turn>>,
    log: Mutex<Log>,
    pub(super) fetches: AtomicU32,
    pub(crate) cache_calls: AtomicU32,
    pub(crate) kv_calls: AtomicU32,
    /// The log has been told that the key-value store is not granted.
    pub(crate) kv_denied: AtomicBool,
    pub(super) peak_memory: AtomicU64,
    pub(super) memory_refused: AtomicBool,
    /// What has flowed of the request's content and of the response's.
    pub(crate) flow: Flow,
}

impl Call {
    pub(crate) fn new(
        host: Arc<dyn Host>,
        spec: Arc<Handler>,
        limits: HandlerLimits,
        runtime: Arc<Runtime>,
    ) -> Arc<Call> {
        Arc::new(Call {
            host,
            spec,
            limits,
            began: Instant::now(),
            runtime,
            head: Mutex::new(None),
            is_read: AtomicBool::new(false),
            meter: Mutex::default(),
            turn: Mutex::default(),
            log: Mutex::default(),
            fetches: AtomicU32::new(0),
            cache_calls: AtomicU32::new(0),
            kv_calls: AtomicU32::new(0),
            kv_denied: AtomicBool::new(false),
            peak_memory: AtomicU64::new(0),
            memory_refused: AtomicBool::new(false),
            flow: Flow::default(),
        })
    }

    /// How many instances may run at once.
    pub(crate) fn max_instances(&self) -> u32 {
        self.runtime.max_instances
    }

    /// When the wall clock runs out.
    pub(crate) fn deadline(&self) -> Instant {
        self.began + self.limits.wall
    }

    /// The guest's answer arrives.
    pub(crate) fn set_head(&self, head: Head) {
        *self.head.lock() = Some(head);
    }

    /// The guest's answer, once.
    pub(crate) fn take_head(&self) -> Option<Head> {
        self.head.lock().take()
    }

    /// The response has been read to its end, or nobody reads it.
    pub(crate) fn set_read(&self) {
        self.is_read.store(true, Ordering::Release);
    }

    /// Whether the response has been read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// A turn of the guest begins on this thread.
    pub(crate) fn begin_turn(&self) {
        self.touch();
        self.meter.lock().begin();
    }

    /// The turn ends.
    pub(crate) fn end_turn(&self) {
        self.meter.lock().end();
        drop(self.turn.lock().take());
    }

    /// Has all guests looked at more often.
    pub(super) fn hurry(&self) {
        self.runtime.ticker.hurry();
    }

    /// Waits until a guest that is not short may go on.
    pub(super) async fn next_turn(self: Arc<Call>) {
        let turn = Arc::clone(&self.runtime.turns).next().await;
        *self.turn.lock() = Some(turn);
    }

    /// Keeps the epoch ticking.
    pub(super) fn touch(&self) {
        self.runtime.ticker.touch();
    }

    /// The time that the guest has used so far.
    pub(super) fn cpu(&self) -> Duration {
        self.meter.lock().used()
    }

    /// Whether the guest was ever refused memory.
    pub(crate) fn was_refused_memory(&self) -> bool {
        self.memory_refused.load(Ordering::Relaxed)
    }

    /// Bytes that the guest writes to one of its streams.
    pub(super) fn write_log(&self, stream: LogStream, bytes: &[u8]) {
        self.log.lock().write(stream, bytes, &mut |line| self.host.log(line));
    }

    /// A message that the guest logs.
    pub(crate) fn write_message(&self, level: LogLevel, context: &str, message: &str) {
        self.log.lock().message(level, context, message, &mut |line| self.host.log(line));
    }

    /// A line of the sandbox's own. What it quotes is the guest's, and cut like any line of its.
    pub(crate) fn note(&self, message: String) {
        let message = brief(&message, limits::LOG_LINE_BYTES).into_owned();
        self.host.log(LogLine { stream: LogStream::Host, context: String::new(), message });
    }

    /// Tells the host how the request ended.
    pub(crate) fn report(&self, end: &End) {
        let log_bytes = {
            let mut log = self.log.lock();
            log.finish(&mut |line| self.host.log(line));
            log.bytes()
        };
        if let End::Failed(ended) = end {
            self.note(describe(ended));
        }
        let usage = Usage {
            cpu: self.meter.lock().used(),
            wall: self.began.elapsed(),
            peak_memory: self.peak_memory.load(Ordering::Relaxed),
            fetches: self.fetches.load(Ordering::Relaxed),
            log_bytes,
            bytes_in: self.flow.bytes_in(),
            bytes_out: self.flow.bytes_out(),
            waits_for_visitor: self.flow.waits_for_visitor(),
        };
        self.host.ended(end, &usage);
    }
}

fn describe(ended: &Ended) -> String {
    match ended {
        Ended::Trapped { backtrace, .. } if !backtrace.is_empty() => {
            format!("{ended}\n{backtrace}")
        }
        other => other.to_string(),
    }
}

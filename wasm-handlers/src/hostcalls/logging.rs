//! `wasi:logging/logging`: messages with a level and a context, into the same log and the same budget
//! as what the handler prints. Every handler has it.

use super::bindings::wasi::logging::logging::{Host, Level};
use crate::guest::State;
use crate::host::LogLevel;

impl Host for State {
    fn log(&mut self, level: Level, context: String, message: String) {
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
            Level::Critical => LogLevel::Critical,
        };
        self.call.write_message(level, &context, &message);
    }
}

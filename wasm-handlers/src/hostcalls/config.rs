//! `wasi:config/store`: the handler's configuration, as the site file has it. Every handler has it.

use super::bindings::wasi::config::store::{Error, Host};
use crate::guest::State;

impl Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        Ok(self.call.spec.config.get(&key).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        let config = &self.call.spec.config;
        Ok(config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

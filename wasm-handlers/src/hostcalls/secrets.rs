//! `verge:edge/secrets`: a site's secrets, as handles that show their value only when they are asked to.
//! No value may get into an error or a log here.

use verge_config::process::Secret;
use verge_config::site::Grant;
use wasmtime::component::Resource;

use super::bindings::verge::edge::secrets::{Host, HostSecret};
use super::bindings::verge::edge::types::Error;
use super::granted;
use crate::guest::State;

impl Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<Option<Resource<Secret>>, Error>> {
        if let Err(denied) = granted(self, Grant::Secrets) {
            return Ok(Err(denied));
        }
        match self.call.host.secret(&name) {
            // A guest that lets its handles pile up traps, as with any other resource.
            Some(secret) => Ok(Ok(Some(self.table.push(secret)?))),
            None => Ok(Ok(None)),
        }
    }
}

impl HostSecret for State {
    fn reveal(&mut self, secret: Resource<Secret>) -> wasmtime::Result<String> {
        Ok(self.table.get(&secret)?.reveal().to_owned())
    }

    fn drop(&mut self, secret: Resource<Secret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

//! What a guest may import of the edge besides WASI: one file a capability, each thin over the trait
//! [`Host`](crate::Host). All of them are linked for every guest; what the site does not grant is an
//! error in the guest. Nothing here is made before a guest calls it.

mod cache;
mod client;
mod config;
mod keyvalue;
mod logging;
mod secrets;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "verge:edge/imports",
        imports: {
            "verge:edge/cache": async,
            "verge:edge/secrets": trappable,
            "wasi:keyvalue/store": async | trappable,
            "wasi:keyvalue/batch": async | trappable,
        },
        with: {
            "verge:edge/secrets.secret": verge_config::process::Secret,
            "wasi:keyvalue/store.bucket": super::keyvalue::Bucket,
        },
        trappable_error_type: {
            "wasi:keyvalue/store.error" => super::keyvalue::Failed,
        },
    });
}

use bindings::verge::edge::types::{self, Error};
use verge_config::site::Grant;
use wasmtime::component::{HasSelf, Linker};

use crate::guest::State;
use crate::host::Unavailable;

/// Adds every capability to a linker.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::Imports::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl types::Host for State {}

/// Whether the site grants it; if not, what to add to the site file.
fn granted(state: &State, grant: Grant) -> Result<(), Error> {
    ungranted(state, grant).map_or(Ok(()), |hint| Err(Error::NotGranted(hint)))
}

/// What to add to the site file, where the site does not grant it.
fn ungranted(state: &State, grant: Grant) -> Option<String> {
    let spec = &state.call.spec;
    if spec.grants.contains(&grant) {
        return None;
    }
    let (name, handler) = (grant.name(), &spec.name);
    Some(format!(
        "{name:?} is not granted: add it to the grants of [handlers.{handler}] in the site file, as \
         in grants = [{name:?}]"
    ))
}

impl From<Unavailable> for Error {
    fn from(why: Unavailable) -> Error {
        Error::Unavailable(why.0)
    }
}

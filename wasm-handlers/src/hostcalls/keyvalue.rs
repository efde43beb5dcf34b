//! `wasi:keyvalue`: the key-value store that the site's handlers share. Counts and bounds the calls; what
//! is stored, where, and how new an answer is, is the host's affair.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use verge_config::kv::{check_key, check_value};
use verge_config::site::Grant;
use wasmtime::component::{Resource, ResourceTableError};

use super::bindings::wasi::keyvalue::batch;
use super::bindings::wasi::keyvalue::store::{Error, Host, HostBucket, KeyResponse};
use super::ungranted;
use crate::guest::State;
use crate::host::{Host as Edge, Unavailable};
use crate::settings::limits;

/// What the site's own bucket is called; there is no other.
const NAMES: [&str; 2] = ["", "default"];

/// A guest's handle of the site's bucket.
#[allow(unreachable_pub, reason = "the bindings export it on")]
pub struct Bucket;

/// Why a call has no answer.
pub(crate) enum Failed {
    /// The guest is told.
    Told(Error),
    /// The guest ends.
    Trap(wasmtime::Error),
}

impl Host for State {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Failed> {
        granted(self)?;
        if !NAMES.contains(&identifier.as_str()) {
            return Err(Error::NoSuchStore.into());
        }
        // A guest that lets its handles pile up traps, as with any other resource.
        Ok(self.table.push(Bucket)?)
    }

    fn convert_error(&mut self, failed: Failed) -> wasmtime::Result<Error> {
        match failed {
            Failed::Told(error) => Ok(error),
            Failed::Trap(error) => Err(error),
        }
    }
}

impl HostBucket for State {
    async fn get(&mut self, _: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Failed> {
        Ok(get(self, key).await?.map(Vec::from))
    }

    async fn set(
        &mut self,
        _: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), Failed> {
        set(self, key, Some(value)).await
    }

    async fn delete(&mut self, _: Resource<Bucket>, key: String) -> Result<(), Failed> {
        set(self, key, None).await
    }

    async fn exists(&mut self, _: Resource<Bucket>, key: String) -> Result<bool, Failed> {
        Ok(get(self, key).await?.is_some())
    }

    async fn list_keys(
        &mut self,
        _: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<KeyResponse, Failed> {
        let edge = call(self)?;
        let page = edge.kv_keys(cursor.unwrap_or(0)).await?;
        Ok(KeyResponse { keys: page.keys, cursor: page.next })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        _: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Failed> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for key in keys {
            let value = get(self, key.clone()).await?;
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > limits::KV_BATCH_BYTES {
                let most = limits::KV_BATCH_BYTES;
                let text = format!("the values have more than {most} bytes; ask for fewer at once");
                return Err(Error::Other(text).into());
            }
            found.push(value.map(|value| (key, Vec::from(value))));
        }
        Ok(found)
    }

    async fn set_many(
        &mut self,
        _: Resource<Bucket>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Failed> {
        for (key, value) in entries {
            set(self, key, Some(value)).await?;
        }
        Ok(())
    }

    async fn delete_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Result<(), Failed> {
        for key in keys {
            set(self, key, None).await?;
        }
        Ok(())
    }
}

async fn get(state: &mut State, key: String) -> Result<Option<Bytes>, Failed> {
    let edge = call(state)?;
    check_key(&key).map_err(Error::Other)?;
    Ok(edge.kv_get(key).await?)
}

/// Writes a value, or removes what is there.
async fn set(state: &mut State, key: String, value: Option<Vec<u8>>) -> Result<(), Failed> {
    let edge = call(state)?;
    check_key(&key).map_err(Error::Other)?;
    if let Some(value) = &value {
        check_value(value).map_err(Error::Other)?;
    }
    Ok(edge.kv_set(key, value.map(Bytes::from)).await?)
}

/// One more call of the store, if the site grants it and the request has one left.
fn call(state: &State) -> Result<Arc<dyn Edge>, Failed> {
    granted(state)?;
    let call = &state.call;
    let most = call.limits.kv_calls;
    if call.kv_calls.fetch_add(1, Ordering::Relaxed) >= most {
        let text = format!("more than {most} calls of the key-value store; raise limits.kv_calls");
        return Err(Error::Other(text).into());
    }
    Ok(Arc::clone(&call.host))
}

/// Whether the site grants it. The error of this interface has no text, so that its log says what to add,
/// once a request.
fn granted(state: &State) -> Result<(), Failed> {
    let Some(hint) = ungranted(state, Grant::KeyValue) else { return Ok(()) };
    if !state.call.kv_denied.swap(true, Ordering::Relaxed) {
        state.call.note(format!("wasi:keyvalue: {hint}"));
    }
    Err(Error::AccessDenied.into())
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Told(error)
    }
}

impl From<Unavailable> for Failed {
    fn from(why: Unavailable) -> Failed {
        Failed::Told(Error::Other(why.0))
    }
}

impl From<ResourceTableError> for Failed {
    fn from(error: ResourceTableError) -> Failed {
        Failed::Trap(error.into())
    }
}

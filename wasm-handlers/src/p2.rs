//! The call of a guest by `wasi:http/incoming-handler@0.2`: a fresh instance for each request.

use std::sync::Arc;

use http::Request;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use crate::Body;
use crate::guest::{self, Call, State};
use crate::idle::Instance;
use crate::outcome::Ended;
use crate::running::Guest;

/// A guest that is about to be given a request.
pub(crate) fn guest(
    pre: &ProxyPre<State>,
    request: Request<Body>,
    call: &Arc<Call>,
    env: &[(String, String)],
) -> Result<Guest, Ended> {
    let mut store = guest::store(pre.engine(), call, env);
    let (request, outparam) = admit(&mut store, request, call)?;
    let pre = pre.clone();
    Ok(Box::pin(async move {
        let result = async {
            let proxy = pre.instantiate_async(&mut store).await?;
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut store, request, outparam).await
        }
        .await;
        (Instance::new(store), result)
    }))
}

/// Gives a request to the guest's store.
fn admit(
    store: &mut Store<State>,
    request: Request<Body>,
    call: &Arc<Call>,
) -> Result<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>), Ended> {
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let bad = |error: wasmtime::Error| Ended::BadRequest(error.to_string());
    let request = request.map(|body| guest::incoming(body, call));
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(scheme, request).map_err(bad)?;
    let answering = Arc::clone(call);
    let outparam = http
        .new_response_outparam_from_callback(move |head| {
            answering.set_head(head.map_err(answered));
        })
        .map_err(bad)?;
    Ok((request, outparam))
}

fn answered(code: ErrorCode) -> Ended {
    match code {
        ErrorCode::LoopDetected => Ended::Loop,
        ErrorCode::InternalError(Some(reason)) => Ended::guest_error(&reason),
        other => Ended::guest_error(&format!("{other:?}")),
    }
}

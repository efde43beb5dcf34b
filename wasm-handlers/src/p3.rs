//! The call of a guest by `wasi:http/handler@0.3`: its tasks run at once in one instance, which may serve
//! further requests, one after the other.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use futures::future::BoxFuture;
use http::Request;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

use crate::Body;
use crate::guest::{self, Call, State};
use crate::idle::Instance;
use crate::outcome::Ended;
use crate::running::Guest;

/// A guest that is about to be given a request, in an instance that has waited for it or in a fresh one.
pub(crate) fn guest(
    pre: &ServicePre<State>,
    waiting: Option<Instance>,
    request: Request<Body>,
    call: &Arc<Call>,
    env: &[(String, String)],
) -> Guest {
    let mut instance = match waiting {
        Some(mut instance) => {
            instance.store.data_mut().begin(call);
            instance.store.set_epoch_deadline(1);
            instance
        }
        None => Instance::new(guest::store(pre.engine(), call, env)),
    };
    instance.served = instance.served.saturating_add(1);
    let (pre, call) = (pre.clone(), Arc::clone(call));
    Box::pin(async move {
        let result = serve(&mut instance, &pre, request, &call).await;
        (instance, result)
    })
}

async fn serve(
    instance: &mut Instance,
    pre: &ServicePre<State>,
    request: Request<Body>,
    call: &Arc<Call>,
) -> wasmtime::Result<()> {
    let Instance { store, service, .. } = instance;
    let service = match service {
        Some(service) => &*service,
        None => service.insert(pre.instantiate_async(&mut *store).await?),
    };
    store.run_concurrent(async |accessor| answer(accessor, service, request, call).await).await?
}

/// Runs the guest's tasks for one request to their end.
async fn answer(
    accessor: &Accessor<State>,
    service: &Service,
    request: Request<Body>,
    call: &Arc<Call>,
) -> wasmtime::Result<()> {
    let request = request.map(|body| guest::incoming(body, call));
    let (request, io) = accessor.with(|mut store| {
        let (request, io) = p3::Request::from_http(store.get().http().hooks, request);
        (request, Box::pin(io) as BoxFuture<'static, Result<(), wasmtime_wasi_http::Error>>)
    });
    let head = match service.handle(accessor, request).await? {
        Ok(response) => Ok(accessor.with(|store| response.into_http(store, io))?),
        Err(code) => Err(answered(code)),
    };
    call.set_head(head);
    // What the guest has yet to say of its response goes through this instance, so that it must not wait
    // for its next request before the response has been read.
    poll_fn(|context| match accessor.poll_no_interesting_tasks(context) {
        Poll::Ready(()) if call.is_read() => Poll::Ready(()),
        _ => Poll::Pending,
    })
    .await;
    Ok(())
}

fn answered(code: ErrorCode) -> Ended {
    match code {
        ErrorCode::LoopDetected => Ended::Loop,
        ErrorCode::InternalError(Some(reason)) => Ended::guest_error(&reason),
        other => Ended::guest_error(&format!("{other:?}")),
    }
}

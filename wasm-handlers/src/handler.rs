//! A handler as a site has it: a component with its limits and environment, and the call of it for
//! one request.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Response};
use http_body_util::BodyExt;
use verge_config::site::HandlerLimits;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use crate::Body;
use crate::body;
use crate::guest::{self, Call, State};
use crate::host::Host;
use crate::outcome::{End, Ended};
use crate::running::{Running, Slot};
use crate::sandbox::Component;

/// A handler of a site.
#[derive(Debug, Clone)]
pub struct Handler {
    component: Arc<Component>,
    site: Arc<str>,
    spec: Arc<verge_config::site::Handler>,
    limits: HandlerLimits,
    env: Arc<[(String, String)]>,
}

impl Handler {
    /// A handler from its component and what the site says of it. Its memory limit is lowered to
    /// the operator's ceiling.
    #[must_use]
    pub fn new(
        component: Arc<Component>,
        site: Arc<str>,
        spec: Arc<verge_config::site::Handler>,
    ) -> Handler {
        let mut limits = spec.limits;
        limits.memory = limits.memory.min(component.runtime.max_memory);
        let env = spec.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Handler { component, site, spec, limits, env }
    }

    /// The site that it is of.
    #[must_use]
    pub fn site(&self) -> &str {
        &self.site
    }

    /// Its name in the site.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What it is made from.
    #[must_use]
    pub fn component(&self) -> &Arc<Component> {
        &self.component
    }

    /// Runs one instance for one request. Resolves when the response's head is there, or when the
    /// request ended without one; the content streams from the guest, which runs on in its reader's
    /// task, as it is read. Dropping the future or the content stops the guest.
    ///
    /// Needs a Tokio runtime with time enabled. The request's URI is absolute, or it has a `Host`.
    ///
    /// # Errors
    /// When the guest ended without a response; [`Ended::status`] says what to answer.
    pub async fn call(
        &self,
        request: Request<Body>,
        host: Arc<dyn Host>,
    ) -> Result<Response<Body>, Ended> {
        let runtime = &self.component.runtime;
        let call = Call::new(host, self.limits, Arc::clone(runtime));
        let Some(slot) = Slot::take(runtime) else {
            let ended = Ended::InstanceLimit(runtime.max_instances);
            call.report(&End::Failed(ended.clone()));
            return Err(ended);
        };
        let is_head_request = request.method() == http::Method::HEAD;
        let mut store = guest::store(&runtime.engine, &call, &self.env);
        let (request, outparam) = match admit(&mut store, request, &call) {
            Ok(admitted) => admitted,
            Err(ended) => {
                call.report(&End::Failed(ended.clone()));
                return Err(ended);
            }
        };
        let pre = self.component.pre.clone();
        let guest = Box::pin(async move {
            let result = async {
                let proxy = pre.instantiate_async(&mut store).await?;
                let handler = proxy.wasi_http_incoming_handler();
                handler.call_handle(&mut store, request, outparam).await
            }
            .await;
            (store, result)
        });
        let mut running = Running::new(guest, call, slot);
        let head = head(&mut running).await?;
        body::respond(head, is_head_request, running)
    }
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
    let request = request.map(|body| guest::Counted::new(body, call).map_err(guest::broken));
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(scheme, request).map_err(bad)?;
    let answering = Arc::clone(call);
    let outparam = http
        .new_response_outparam_from_callback(move |head| answering.set_head(head))
        .map_err(bad)?;
    Ok((request, outparam))
}

/// Drives the guest until it has answered.
async fn head(running: &mut Running) -> Result<Response<HyperOutgoingBody>, Ended> {
    poll_fn(|context| {
        let is_done = running.poll(context).is_ready();
        match running.call.take_head() {
            Some(Ok(head)) => Poll::Ready(Ok(head)),
            Some(Err(code)) => Poll::Ready(Err(running.fail(answered(code)))),
            None if is_done => Poll::Ready(Err(running.fail(Ended::NoResponse))),
            None => Poll::Pending,
        }
    })
    .await
}

fn answered(code: ErrorCode) -> Ended {
    match code {
        ErrorCode::LoopDetected => Ended::Loop,
        ErrorCode::InternalError(Some(reason)) => Ended::GuestError(reason),
        other => Ended::GuestError(format!("{other:?}")),
    }
}

//! A handler as a site has it: a component with its limits and environment, and the call of it for
//! one request.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use http::{Request, Response};
use verge_config::site::HandlerLimits;
use wasmtime_wasi_http::WasiBody;

use crate::guest::Call;
use crate::host::Host;
use crate::outcome::{End, Ended};
use crate::running::{Guest, Running, Slot};
use crate::sandbox::Component;
use crate::target::Pre;
use crate::{Body, body, p2, p3};

/// A handler of a site.
#[derive(Debug, Clone)]
pub struct Handler {
    /// Names it among all handlers of this process; clones are the same handler.
    id: u64,
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
        static IDS: AtomicU64 = AtomicU64::new(0);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Handler { id, component, site, spec, limits, env }
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
        let spec = Arc::clone(&self.spec);
        let call = Call::new(host, spec, self.limits, Arc::clone(runtime));
        let Some(slot) = Slot::take(runtime, self.component.weight) else {
            let ended = Ended::InstanceLimit(runtime.max_instances);
            call.report(&End::Failed(ended.clone()));
            return Err(ended);
        };
        let is_head_request = request.method() == http::Method::HEAD;
        let (guest, again) = match self.guest(request, &call) {
            Ok(guest) => guest,
            Err(ended) => {
                call.report(&End::Failed(ended.clone()));
                return Err(ended);
            }
        };
        let mut running = Running::new(guest, call, slot, again);
        let head = head(&mut running).await?;
        body::respond(head, is_head_request, running).await
    }

    /// The guest, and whose further requests its instance may serve.
    fn guest(
        &self,
        request: Request<Body>,
        call: &Arc<Call>,
    ) -> Result<(Guest, Option<u64>), Ended> {
        match &self.component.pre {
            Pre::Incoming(pre) => Ok((p2::guest(pre, request, call, &self.env)?, None)),
            Pre::Handler(pre) => {
                let again = (self.limits.requests > 1).then_some(self.id);
                let waiting = again.and_then(|owner| self.component.runtime.idle.take(owner));
                Ok((p3::guest(pre, waiting, request, call, &self.env), again))
            }
        }
    }
}

/// Drives the guest until it has answered.
async fn head(running: &mut Running) -> Result<Response<WasiBody>, Ended> {
    poll_fn(|context| {
        let is_done = running.poll(context).is_ready();
        match running.call.take_head() {
            Some(Ok(head)) => Poll::Ready(Ok(head)),
            Some(Err(ended)) => Poll::Ready(Err(running.fail(ended))),
            None if is_done => Poll::Ready(Err(running.fail(Ended::NoResponse))),
            None => Poll::Pending,
        }
    })
    .await
}

//! How many requests a second one core answers through the sandbox alone, without sockets, and how long each
//! takes: `verge-bench-sandbox guest.wasm [path] [seconds]`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use verge_config::site::{ComponentRef, Handler as Spec, HandlerLimits};
use verge_handlers::{
    Body, CompilerCommand, FetchError, Handler, Host, LogLine, Sandbox, SandboxSettings,
};

struct Nowhere;

impl Host for Nowhere {
    fn fetch(&self, _: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, FetchError>> {
        let body = Full::new("origin".into()).map_err(|never| match never {}).boxed_unsync();
        Box::pin(async { Ok(Response::new(body)) })
    }

    fn log(&self, line: LogLine) {
        println!("{}: {}", line.stream.name(), line.message);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some("compile-component") {
        let code = verge_handlers::compile_child();
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
    let mut args = std::env::args().skip(1);
    let guest = std::fs::read(args.next().expect("which guest?")).unwrap();
    let path = args.next().unwrap_or_else(|| "/".into());
    let seconds = args.next().map_or(3, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let command = CompilerCommand {
        program: std::env::current_exe().unwrap(),
        args: vec!["compile-component".into()],
    };
    let sandbox = Sandbox::new(SandboxSettings::new(folder.path(), command)).unwrap();
    let component = sandbox.load(guest.into()).await.unwrap();
    let spec = Spec {
        name: "handler".into(),
        component: ComponentRef::Digest(component.digest().into()),
        limits: HandlerLimits { cpu: Duration::from_secs(5), ..HandlerLimits::default() },
        env: [].into(),
        config: [].into(),
        fetch: Vec::new(),
        grants: [].into(),
        on_failure: Default::default(),
        breaker: Default::default(),
    };
    let handler = Handler::new(component, "site".into(), Arc::new(spec));
    let host: Arc<dyn Host> = Arc::new(Nowhere);
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        let start = Instant::now();
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::get(format!("http://site.test{path}")).body(body).unwrap();
        let answer = handler.call(request, Arc::clone(&host)).await.unwrap();
        answer.into_body().collect().await.unwrap();
        times.push(start.elapsed());
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort();
    let at =
        |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1000.0;
    println!("{rate:.0} requests/s; p50 {:.1} µs, p99 {:.1} µs", at(0.5), at(0.99));
}

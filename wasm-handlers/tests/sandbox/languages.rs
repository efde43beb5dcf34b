//! Components from other tool chains run unchanged, each with its own imports and exports: bare Rust,
//! JavaScript, Python and C, side by side with Rust on `wstd`. What they do in common is tested in common.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use verge_config::site::HandlerLimits;
use verge_handlers::{Body, BoxError, End, FetchError, Handler, LogStream};

use crate::support::{Recorder, component, full, get, handler, roomy, spec, text};

/// The guests, with what each says of itself.
const GUESTS: [(&str, &str); 5] = [
    ("hello-rust", "Hello from Verge\n"),
    ("hello-raw-rust", "Hello from Verge in raw Rust\n"),
    ("hello-js", "Hello from Verge in JavaScript\n"),
    ("hello-python", "Hello from Verge in Python\n"),
    ("hello-c", "Hello from Verge in C\n"),
];

async fn with_env(name: &str, env: &[(&str, &str)]) -> Handler {
    Handler::new(component(name).await, "site".into(), spec(HandlerLimits::default(), env))
}

fn post(path: &str, content: impl Into<Bytes>) -> Request<Body> {
    Request::post(format!("http://site.test{path}")).body(full(content)).unwrap()
}

#[tokio::test]
async fn each_greets_within_the_default_limits() {
    for (name, greeting) in GUESTS {
        let handler = handler(name, HandlerLimits::default()).await;
        let host = Recorder::new();
        let answer = handler.call(get("/?ttl=60"), host.clone()).await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        assert_eq!(answer.headers()["cache-control"], "public, max-age=60", "{name}");
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8", "{name}");
        assert_eq!(text(answer).await, greeting, "{name}");
        let (end, usage) = host.end().await;
        assert_eq!(end, End::Responded, "{name}");
        println!("{name}: {:?} of CPU, {} KiB", usage.cpu, usage.peak_memory >> 10);
    }
}

#[tokio::test]
async fn javascript_answers_in_json() {
    let handler = handler("hello-js", HandlerLimits::default()).await;
    let answer = handler.call(get("/json"), Recorder::new()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(text(answer).await, r#"{"from":"Verge","method":"GET","path":"/json"}"#);
}

#[tokio::test]
async fn each_reads_its_environment_and_no_other() {
    for (name, greeting) in GUESTS {
        let given = with_env(name, &[("GREETING", "good day")]).await;
        let answer = given.call(get("/"), Recorder::new()).await.unwrap();
        assert_eq!(text(answer).await, format!("good day\n{greeting}"), "{name}");
        // Of the same component, and after the other: nothing is left over.
        let bare = with_env(name, &[("OTHER", "x")]).await;
        let answer = bare.call(get("/"), Recorder::new()).await.unwrap();
        assert_eq!(text(answer).await, greeting, "{name}");
    }
}

#[tokio::test]
async fn each_sends_content_back_piece_by_piece() {
    for (name, _) in GUESTS {
        let (frames, body) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
        let body = StreamBody::new(ReceiverStream::new(body)).boxed_unsync();
        let request = Request::post("http://site.test/echo").body(body).unwrap();
        let handler = handler(name, roomy()).await;
        let host = Recorder::new();
        let answering = tokio::spawn({
            let host = host.clone();
            async move { handler.call(request, host).await.unwrap() }
        });
        frames.send(Ok(Frame::data("piece 0".into()))).await.unwrap();
        let mut body = answering.await.unwrap().into_body();
        assert_eq!(next(&mut body).await, "piece 0", "{name}");
        for n in 1..10 {
            let piece = format!("piece {n}");
            frames.send(Ok(Frame::data(piece.clone().into()))).await.unwrap();
            assert_eq!(next(&mut body).await, piece, "{name}");
        }
        drop(frames);
        assert!(body.frame().await.is_none(), "{name}");
        assert_eq!(host.end().await.0, End::Responded, "{name}");
    }
}

async fn next(body: &mut Body) -> Bytes {
    let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await;
    let frame = frame.expect("no frame comes").expect("the content has ended");
    frame.unwrap().into_data().unwrap()
}

#[tokio::test]
async fn an_upload_comes_back_whole() {
    let content: Bytes = (0..1_000_000u32).map(|n| n.to_be_bytes()[3] ^ 0x5a).collect();
    for (name, _) in GUESTS {
        let handler = handler(name, roomy()).await;
        let answer = handler.call(post("/echo", content.clone()), Recorder::new()).await.unwrap();
        let echoed = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(echoed == content, "{name}: {} bytes came back", echoed.len());
    }
}

#[tokio::test]
async fn content_is_read_and_output_is_the_log() {
    for name in ["hello-python", "hello-c"] {
        let handler = handler(name, roomy()).await;
        let host = Recorder::new();
        let answer = handler.call(post("/count", vec![7; 300_000]), host.clone()).await.unwrap();
        assert_eq!(text(answer).await, "300000\n", "{name}");
        assert_eq!(host.end().await.0, End::Responded, "{name}");
        assert_eq!(host.lines(LogStream::Stdout), ["counted 300000 bytes"], "{name}");
    }
}

#[tokio::test]
async fn each_fetches_its_own_site_and_adds_a_field() {
    for (name, _) in GUESTS {
        let seen = Arc::new(Mutex::new(None));
        let host = Recorder::with({
            let seen = seen.clone();
            move |request: Request<Body>| {
                *seen.lock() = Some((request.method().clone(), request.uri().to_string()));
                Box::pin(async {
                    let answer = Response::builder().status(203).header("etag", "\"v1\"");
                    Ok(answer.body(full(vec![b'o'; 100_000])).unwrap())
                })
            }
        });
        let handler = handler(name, roomy()).await;
        let answer = handler.call(get("/fetch?path=/x/y"), host.clone()).await.unwrap();
        assert_eq!(answer.status(), 203, "{name}");
        assert_eq!(answer.headers()["x-handler"], "hello", "{name}");
        assert_eq!(answer.headers()["etag"], "\"v1\"", "{name}");
        assert_eq!(text(answer).await, "o".repeat(100_000), "{name}");
        let (method, uri) = seen.lock().take().unwrap();
        assert_eq!((method.as_str(), &*uri), ("GET", "http://site.test/x/y"), "{name}");
        let (end, usage) = host.end().await;
        assert_eq!((end, usage.fetches), (End::Responded, 1), "{name}");
    }
}

#[tokio::test]
async fn a_path_that_is_none_is_refused() {
    for (name, _) in GUESTS {
        let handler = handler(name, roomy()).await;
        let answer = handler.call(get("/fetch?path=x"), Recorder::new()).await.unwrap();
        assert_eq!(answer.status(), 400, "{name}");
    }
}

fn unreachable(_: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, FetchError>> {
    Box::pin(async { Err(FetchError::Connect("nobody answers".to_owned())) })
}

/// Each language has its own way of failing; none looks like an answer of the origin.
#[tokio::test]
async fn a_fetch_that_fails_is_no_good_answer() {
    for (name, _) in GUESTS {
        let handler = handler(name, roomy()).await;
        let host = Recorder::with(unreachable);
        match handler.call(get("/fetch?path=/x"), host.clone()).await {
            Ok(answer) => assert!(answer.status().is_server_error(), "{name}: {answer:?}"),
            Err(ended) => assert_eq!(ended.status(), 500, "{name}: {ended}"),
        }
    }
}

#[tokio::test]
async fn an_interpreter_is_stopped_at_its_limit_of_cpu_time() {
    let limits = HandlerLimits { cpu: Duration::from_millis(1), ..HandlerLimits::default() };
    let handler = handler("hello-python", limits).await;
    let request = post("/count", vec![0; 8 << 20]);
    let ended = handler.call(request, Recorder::new()).await.expect_err("it must be stopped");
    assert_eq!(ended.name(), "out_of_cpu", "{ended}");
}

#[tokio::test]
async fn none_starts_in_less_memory_than_it_needs() {
    for (name, _) in GUESTS {
        let limits = HandlerLimits { memory: 64 << 10, ..HandlerLimits::default() };
        let handler = handler(name, limits).await;
        let ended = handler.call(get("/"), Recorder::new()).await.expect_err(name);
        assert_eq!(ended.status(), 500, "{name}: {ended}");
    }
}

//! A guest's fetches go to the host and nowhere else, counted, queued, timed, streamed both ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use verge_config::site::HandlerLimits;
use verge_handlers::{Body, BoxError, End, Ended, FetchError, LogStream};

use crate::support::{Recorder, empty, failure, full, get, handler, roomy, text};

#[tokio::test]
async fn a_fetch_of_its_own_site_comes_to_the_host_whole() {
    for name in ["hello-rust", "hello-js"] {
        let seen = Arc::new(Mutex::new(None));
        let host = Recorder::with({
            let seen = seen.clone();
            move |request: Request<Body>| {
                let (parts, _) = request.into_parts();
                *seen.lock() = Some((parts.method, parts.uri, parts.headers));
                Box::pin(async {
                    Ok(Response::builder()
                        .status(203)
                        .header("etag", "\"v1\"")
                        .body(full("origin"))
                        .unwrap())
                })
            }
        });
        let handler = handler(name, roomy()).await;
        let answer = handler.call(get("/fetch?path=/x/y"), host.clone()).await.unwrap();
        assert_eq!(answer.status(), 203, "{name}");
        assert_eq!(answer.headers()["x-handler"], "hello", "{name}");
        assert_eq!(answer.headers()["etag"], "\"v1\"", "{name}");
        assert_eq!(text(answer).await, "origin", "{name}");
        let (method, uri, headers) = seen.lock().take().unwrap();
        assert_eq!(method, "GET", "{name}");
        assert_eq!(uri, "http://site.test/x/y", "{name}");
        assert_eq!(headers["host"], "site.test", "{name}");
        let (end, usage) = host.end().await;
        assert_eq!((end, usage.fetches), (End::Responded, 1), "{name}");
    }
}

#[tokio::test]
async fn a_get_is_sent_without_content_and_an_upload_with_it() {
    for (method, path, content) in
        [("GET", "/fetch?path=/x", ""), ("POST", "/fetch?path=/x", "what is sent")]
    {
        let host = Recorder::with(|request: Request<Body>| {
            Box::pin(async move {
                let is_empty = http_body::Body::is_end_stream(request.body());
                assert_eq!(is_empty, request.method() == "GET");
                let content = request.into_body().collect().await.unwrap().to_bytes();
                Ok(Response::new(full(content)))
            })
        });
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        *request.body_mut() = full(content);
        let handler = handler("hello-rust", roomy()).await;
        let answer = handler.call(request, host).await.unwrap();
        assert_eq!(text(answer).await, content);
    }
}

#[tokio::test]
async fn a_host_that_does_not_read_the_upload_is_no_failure_of_the_fetch() {
    // Answers at once, and drops the content unread, however much there is.
    for length in [0, 10, 10 << 20] {
        let host = Recorder::with(|request| {
            drop(request);
            Box::pin(async { Ok(Response::new(full("enough"))) })
        });
        let mut request = get("/fetch?path=/x");
        *request.method_mut() = http::Method::PUT;
        *request.body_mut() = full(vec![0; length]);
        let handler = handler("hello-rust", roomy()).await;
        let answer = handler.call(request, host.clone()).await.unwrap();
        assert_eq!(text(answer).await, "enough");
        assert_eq!(host.end().await.0, End::Responded);
    }
}

#[tokio::test]
async fn the_length_of_what_a_head_request_has_none_of_is_no_broken_promise() {
    let host = Recorder::with(|_| {
        Box::pin(async {
            Ok(Response::builder().header("content-length", "5").body(empty()).unwrap())
        })
    });
    let mut request = get("/fetch?path=/x");
    *request.method_mut() = http::Method::HEAD;
    let handler = handler("hello-rust", roomy()).await;
    let answer = handler.call(request, host.clone()).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "5");
    assert_eq!(host.end().await.0, End::Responded);
    // The control: of a GET it is one.
    let host = Recorder::with(|_| {
        Box::pin(async {
            Ok(Response::builder().header("content-length", "5").body(empty()).unwrap())
        })
    });
    handler.call(get("/fetch?path=/x"), host.clone()).await.unwrap_err();
    assert!(matches!(host.end().await.0, End::Failed(_)));
}

#[tokio::test]
async fn a_fetched_body_streams_through_while_it_arrives() {
    let (frames, content) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
    let content = Mutex::new(Some(content));
    let host = Recorder::with(move |_| {
        let content = content.lock().take().unwrap();
        let body = StreamBody::new(ReceiverStream::new(content)).boxed_unsync();
        Box::pin(async move { Ok(Response::new(body)) })
    });
    let handler = handler("hello-rust", roomy()).await;
    let answer = handler.call(get("/fetch?path=/x"), host.clone()).await.unwrap();
    let mut body = answer.into_body();
    for n in 0..10 {
        let piece = format!("piece {n}");
        frames.send(Ok(Frame::data(piece.clone().into()))).await.unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    frames.send(Err("origin went away".into())).await.unwrap();
    assert!(body.frame().await.unwrap().is_err(), "what broke off must not look whole");
    assert!(matches!(host.end().await.0, End::Failed(_)));
}

#[tokio::test]
async fn the_guest_is_told_the_kind_of_an_error_and_its_log_the_reason() {
    let kinds: [(FetchError, &str); 7] = [
        (FetchError::Refused("10.0.0.1 is private".into()), "HttpRequestDenied"),
        (FetchError::Dns("nxdomain".into()), "DnsError"),
        (FetchError::Connect("refused by 10.9.9.9".into()), "ConnectionRefused"),
        (FetchError::Timeout, "HttpResponseTimeout"),
        (FetchError::Protocol("bad chunk".into()), "HttpProtocolError"),
        (FetchError::TooManyRuns(32), "ConnectionLimitReached"),
        (FetchError::Internal("disk 7".into()), "InternalError"),
    ];
    let handler = handler("faulty-rust", roomy()).await;
    for (error, kind) in kinds {
        let reason = error.to_string();
        let host = Recorder::with(move |_| {
            let error = error.clone();
            Box::pin(async move { Err(error) })
        });
        let answer = handler.call(get("/fetch-many?n=1"), host.clone()).await.unwrap();
        let told = text(answer).await;
        assert!(told.contains(kind), "{told}");
        assert!(!told.contains("10."), "{told}");
        assert_eq!(host.lines(LogStream::Host), [format!("fetch failed: {reason}")]);
    }
}

#[tokio::test]
async fn a_loop_is_508_when_the_guest_passes_it_on() {
    let host = Recorder::with(|_| Box::pin(async { Err(FetchError::Loop) }));
    let handler = handler("hello-rust", roomy()).await;
    let ended = handler.call(get("/fetch?path=/x"), host).await.unwrap_err();
    assert_eq!((ended.clone(), ended.status().as_u16()), (Ended::Loop, 508));
}

#[tokio::test]
async fn fetches_past_the_limit_never_reach_the_host() {
    let reached = Arc::new(AtomicUsize::new(0));
    let host = Recorder::with({
        let reached = reached.clone();
        move |_| {
            reached.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(Response::new(full("x"))) })
        }
    });
    let handler = handler("faulty-rust", HandlerLimits { fetches: 10, ..roomy() }).await;
    let answer = handler.call(get("/fetch-many?n=40"), host.clone()).await.unwrap();
    let told = text(answer).await;
    assert!(told.starts_with("good 10, bad 30"), "{told}");
    assert!(told.contains("ConnectionLimitReached"), "{told}");
    assert_eq!(reached.load(Ordering::SeqCst), 10);
    assert_eq!(host.lines(LogStream::Host), ["fetch refused: more than 10 fetches"]);
}

#[tokio::test]
async fn six_fetches_run_at_once_and_the_rest_wait() {
    let (gate, running, most) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let host = Recorder::with({
        let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
        move |_| {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            let (gate, running) = (gate.clone(), running.clone());
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(Response::new(full("x")))
            })
        }
    });
    let handler = handler("faulty-rust", roomy()).await;
    let answering =
        tokio::spawn(async move { handler.call(get("/fetch-many?n=20"), host).await.unwrap() });
    while running.load(Ordering::SeqCst) < 6 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(20);
    let told = text(answering.await.unwrap()).await;
    assert!(told.starts_with("good 20, bad 0"), "{told}");
    assert_eq!(most.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_fetch_that_hangs_is_cut_with_the_request_and_dropped() {
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let host = Recorder::with({
        let dropped = dropped.clone();
        move |_| {
            let guard = Guard(dropped.clone());
            Box::pin(async move {
                let _guard = guard;
                std::future::pending().await
            })
        }
    });
    let limits = HandlerLimits { wall: Duration::from_millis(300), ..roomy() };
    let handler = handler("hello-rust", limits).await;
    let ended = handler.call(get("/fetch?path=/x"), host.clone()).await.unwrap_err();
    // The fetch's own clock and the request's run out together; either may be first.
    assert!(matches!(&ended, Ended::TimedOut(_) | Ended::GuestError(_)), "{ended:?}");
    while dropped.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_guest_without_a_network_still_answers() {
    let handler = handler("hello-rust", HandlerLimits { fetches: 0, ..roomy() }).await;
    let answer = handler.call(get("/"), Recorder::new()).await.unwrap();
    assert_eq!(text(answer).await, "Hello from Verge\n");
    let (ended, _) = failure(&handler, "/fetch?path=/x").await;
    assert!(matches!(ended, Ended::GuestError(_)), "{ended:?}");
}

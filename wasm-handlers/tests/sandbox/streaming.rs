//! Content streams both ways without being held: the guest runs as its reader reads, is stopped when
//! the reader goes, and what it leaves unfinished never looks whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use verge_config::site::HandlerLimits;
use verge_handlers::{Body, BoxError, End, Ended, LogStream};

use crate::support::{Recorder, empty, full, get, handler, roomy, text};

type Frames = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

/// A request whose content is sent frame by frame.
fn streamed(path: &str) -> (Frames, Request<Body>) {
    let (frames, body) = mpsc::channel(1);
    let body = StreamBody::new(ReceiverStream::new(body)).boxed_unsync();
    let uri = format!("http://site.test{path}");
    (frames, Request::post(uri).body(body).unwrap())
}

async fn next(body: &mut Body) -> Frame<Bytes> {
    let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await;
    frame.expect("no frame comes").expect("the content has ended").unwrap()
}

#[tokio::test]
async fn an_echo_answers_each_piece_before_the_next_is_sent() {
    for name in ["hello-rust", "hello-js"] {
        let (frames, request) = streamed("/echo");
        let handler = handler(name, roomy()).await;
        let host = Recorder::new();
        let answering = tokio::spawn({
            let host = host.clone();
            async move { handler.call(request, host).await.unwrap() }
        });
        // JavaScript answers with the first piece at hand; Rust answers at once.
        frames.send(Ok(Frame::data("piece 0".into()))).await.unwrap();
        let mut body = answering.await.unwrap().into_body();
        assert_eq!(next(&mut body).await.into_data().unwrap(), "piece 0", "{name}");
        for n in 1..20 {
            let piece = format!("piece {n}");
            frames.send(Ok(Frame::data(piece.clone().into()))).await.unwrap();
            assert_eq!(next(&mut body).await.into_data().unwrap(), piece, "{name}");
        }
        drop(frames);
        assert!(body.frame().await.is_none(), "{name}");
        assert_eq!(host.end().await.0, End::Responded, "{name}");
    }
}

#[tokio::test]
async fn a_hundred_mebibytes_pass_in_order_through_little_memory() {
    let (frames, request) = streamed("/echo");
    let limits = HandlerLimits { memory: 8 << 20, cpu: Duration::from_secs(20), ..roomy() };
    let handler = handler("hello-rust", limits).await;
    let host = Recorder::new();
    let answer = handler.call(request, host.clone()).await.unwrap();
    let sender = tokio::spawn(async move {
        for n in 0..1600u32 {
            let piece = Bytes::from(vec![n.to_be_bytes()[3]; 64 * 1024]);
            frames.send(Ok(Frame::data(piece))).await.unwrap();
        }
    });
    let mut body = answer.into_body();
    let mut total = 0usize;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        for byte in &data {
            assert_eq!(usize::from(*byte), total / (64 * 1024) % 256);
            total += 1;
        }
    }
    sender.await.unwrap();
    assert_eq!(total, 100 << 20);
    assert!(host.end().await.1.peak_memory <= 8 << 20);
}

#[tokio::test]
async fn a_slow_reader_holds_the_guest_back() {
    let (frames, request) = streamed("/echo");
    let handler = handler("hello-rust", roomy()).await;
    let answer = handler.call(request, Recorder::new()).await.unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let sender = tokio::spawn({
        let taken = taken.clone();
        async move {
            while frames.send(Ok(Frame::data(Bytes::from(vec![0; 64 * 1024])))).await.is_ok() {
                taken.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let mut body = answer.into_body();
    for _ in 0..4 {
        next(&mut body).await;
    }
    // Nobody reads on; whatever could move without a reader has its chance to.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let after_four = taken.load(Ordering::SeqCst);
    assert!(after_four <= 12, "{after_four} pieces taken though four were read");
    drop(body);
    sender.await.unwrap();
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (frames, request) = streamed("/echo");
    let handler = handler("hello-rust", roomy()).await;
    let host = Recorder::new();
    let answer = handler.call(request, host.clone()).await.unwrap();
    frames.send(Ok(Frame::data("content".into()))).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "abc".parse().unwrap());
    let mut body = answer.into_body();
    assert_eq!(next(&mut body).await.into_data().unwrap(), "content");
    frames.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
    assert_eq!(next(&mut body).await.into_trailers().unwrap(), trailers);
}

#[tokio::test]
async fn a_request_that_breaks_off_does_not_look_whole_to_the_guest() {
    let (frames, request) = streamed("/echo");
    let handler = handler("hello-rust", roomy()).await;
    let answer = handler.call(request, Recorder::new()).await.unwrap();
    let mut body = answer.into_body();
    frames.send(Ok(Frame::data("half".into()))).await.unwrap();
    assert_eq!(next(&mut body).await.into_data().unwrap(), "half");
    frames.send(Err("reset".into())).await.unwrap();
    let rest = body.frame().await;
    assert!(rest.as_ref().is_some_and(Result::is_err), "{rest:?}");
}

#[tokio::test]
async fn failures_after_the_head_are_errors_of_the_content() {
    let limits = HandlerLimits { cpu: Duration::from_millis(50), ..HandlerLimits::default() };
    let handler = handler("faulty-rust", limits).await;
    for (path, name) in
        [("/late-trap", "trapped"), ("/spin-late", "out_of_cpu"), ("/leave", "incomplete")]
    {
        let host = Recorder::new();
        let answer = handler.call(get(path), host.clone()).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let mut body = answer.into_body();
        assert!(next(&mut body).await.into_data().unwrap().starts_with(b"half"), "{path}");
        let error = body.frame().await.unwrap().expect_err(path);
        let ended = error.downcast_ref::<Ended>().unwrap().clone();
        assert_eq!(ended.name(), name, "{path}");
        assert!(body.frame().await.is_none(), "{path}");
        assert_eq!(host.end().await.0, End::Failed(ended), "{path}");
        assert_eq!(host.lines(LogStream::Host).len(), 1, "{path}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_the_guest() {
    let limits = HandlerLimits { cpu: Duration::from_secs(60), ..roomy() };
    let handler = handler("faulty-rust", limits).await;
    let host = Recorder::new();
    let answer = handler.call(get("/endless"), host.clone()).await.unwrap();
    let mut body = answer.into_body();
    for _ in 0..100 {
        assert_eq!(next(&mut body).await.into_data().unwrap().len(), 4096);
    }
    drop(body);
    assert_eq!(host.end().await.0, End::Cancelled);
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_the_guest() {
    let handler = handler("faulty-rust", roomy()).await;
    let host = Recorder::new();
    let call = handler.call(get("/hang"), host.clone());
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    assert_eq!(host.end().await.0, End::Cancelled);
}

#[tokio::test]
async fn an_endless_body_is_cut_when_the_clock_runs_out() {
    let limits = HandlerLimits { wall: Duration::from_millis(300), ..roomy() };
    let handler = handler("faulty-rust", limits).await;
    let host = Recorder::new();
    let answer = handler.call(get("/endless"), host.clone()).await.unwrap();
    let mut body = answer.into_body();
    let error = loop {
        match body.frame().await.expect("it has no end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.downcast_ref(), Some(&Ended::TimedOut(limits.wall)));
    assert_eq!(host.end().await.0, End::Failed(Ended::TimedOut(limits.wall)));
}

#[tokio::test]
async fn a_guest_may_work_on_after_its_answer() {
    let handler = handler("faulty-rust", roomy()).await;
    let host = Recorder::new();
    let answer = handler.call(get("/after?ms=50"), host.clone()).await.unwrap();
    assert_eq!(text(answer).await, "answered\n");
    assert_eq!(host.end().await.0, End::Responded);
    assert_eq!(host.lines(LogStream::Stdout), ["worked on after the answer"]);
}

#[tokio::test]
async fn work_after_the_answer_is_within_the_limits_too() {
    let limits = HandlerLimits { wall: Duration::from_millis(200), ..roomy() };
    let handler = handler("faulty-rust", limits).await;
    let host = Recorder::new();
    let answer = handler.call(get("/after?ms=60000"), host.clone()).await.unwrap();
    assert_eq!(text(answer).await, "answered\n");
    assert_eq!(host.end().await.0, End::Failed(Ended::TimedOut(limits.wall)));
    assert!(host.lines(LogStream::Stdout).is_empty());
}

#[tokio::test]
async fn a_short_answer_says_its_length_and_a_head_request_has_no_content() {
    let handler = handler("hello-rust", roomy()).await;
    let answer = handler.call(get("/"), Recorder::new()).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "17");
    assert_eq!(answer.body().size_hint().exact(), Some(17));
    let host = Recorder::new();
    let mut request = get("/");
    *request.method_mut() = Method::HEAD;
    let answer = handler.call(request, host.clone()).await.unwrap();
    assert!(answer.body().is_end_stream());
    assert_eq!(host.end().await.0, End::Responded);
}

#[tokio::test]
async fn a_request_without_an_authority_is_refused() {
    let handler = handler("hello-rust", roomy()).await;
    let request = Request::get("/").body(empty()).unwrap();
    let ended = handler.call(request, Recorder::new()).await.unwrap_err();
    assert!(matches!(ended, Ended::BadRequest(_)), "{ended:?}");
    let request = Request::get("/").header("host", "site.test").body(full("")).unwrap();
    assert!(handler.call(request, Recorder::new()).await.is_ok());
}

#[tokio::test]
async fn content_is_counted_as_it_flows() {
    let echo = handler("hello-rust", roomy()).await;
    // Whole, streamed, and to nobody.
    for (method, count) in [(Method::POST, 10), (Method::POST, 300_000), (Method::HEAD, 0)] {
        let request = Request::builder().method(&method).uri("http://site.test/echo");
        let request = request.body(full(vec![b'x'; count])).unwrap();
        let host = Recorder::new();
        let response = echo.call(request, host.clone()).await.unwrap();
        let told = response.into_body().collect().await.unwrap().to_bytes().len();
        let (end, usage) = host.end().await;
        assert_eq!((end, told), (End::Responded, count), "{method}");
        assert_eq!((usage.bytes_in, usage.bytes_out), (count as u64, count as u64), "{method}");
        assert!(!usage.waits_for_visitor, "{method}");
    }
    // What the reader did not take is not told.
    let (frames, request) = streamed("/echo");
    let host = Recorder::new();
    let answering = tokio::spawn({
        let host = host.clone();
        async move { echo.call(request, host).await.unwrap() }
    });
    frames.send(Ok(Frame::data("12345".into()))).await.unwrap();
    let mut body = answering.await.unwrap().into_body();
    assert_eq!(next(&mut body).await.into_data().unwrap(), "12345");
    drop(body);
    let (end, usage) = host.end().await;
    assert_eq!((end, usage.bytes_out), (End::Cancelled, 5));
    assert!(usage.waits_for_visitor);
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_no_instance_past_the_wall_clock() {
    let limits = HandlerLimits { wall: Duration::from_millis(300), ..roomy() };
    let handler = handler("faulty-rust", limits).await;
    let host = Recorder::new();
    let response = handler.call(get("/endless"), host.clone()).await.unwrap();
    let mut body = response.into_body();
    assert!(!next(&mut body).await.into_data().unwrap().is_empty());
    // Nobody polls the content from here on.
    let (end, usage) = host.end().await;
    assert_eq!(end, End::Failed(Ended::TimedOut(limits.wall)));
    assert!(usage.wall >= limits.wall && usage.waits_for_visitor, "{usage:?}");
    let told = body.frame().await.expect("not a clean end").expect_err("an error");
    assert_eq!(told.downcast_ref(), Some(&Ended::TimedOut(limits.wall)));
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_guest_that_keeps_its_reader_waiting_is_late_by_itself() {
    let limits = HandlerLimits { wall: Duration::from_millis(300), ..roomy() };
    let handler = handler("faulty-rust", limits).await;
    let host = Recorder::new();
    let mut body = handler.call(get("/stall"), host.clone()).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.into_data().unwrap(), "half");
    let late = body.frame().await.expect("not a clean end").expect_err("an error");
    assert_eq!(late.downcast_ref(), Some(&Ended::TimedOut(limits.wall)));
    let (end, usage) = host.end().await;
    assert_eq!(end, End::Failed(Ended::TimedOut(limits.wall)));
    assert!(!usage.waits_for_visitor);
}

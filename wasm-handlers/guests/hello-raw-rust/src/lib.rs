//! A handler in Rust on the bare interface, without a library over it: the same greeting, echo and
//! fetch as the one with `wstd`. It may use nothing but WASI.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

/// The most that is moved at a time, in bytes.
const PIECE: u64 = 64 * 1024;

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/echo" => echo(&request, out),
            "/fetch" => fetch_own(&request, query, out),
            _ => greet(query, out),
        }
    }
}

/// Answers with the greeting that the site's `GREETING` asks for; `?ttl=` lets a cache keep it.
fn greet(query: &str, out: ResponseOutparam) {
    let greeting = std::env::var("GREETING").map(|greeting| greeting + "\n").unwrap_or_default();
    let fields = Fields::new();
    let _ = fields.append("content-type", b"text/plain; charset=utf-8");
    if let Some(seconds) = parameter(query, "ttl").and_then(|text| text.parse::<u32>().ok()) {
        let _ = fields.append("cache-control", format!("public, max-age={seconds}").as_bytes());
    }
    let body = respond(out, 200, fields);
    write(&body, format!("{greeting}Hello from Verge in raw Rust\n").as_bytes());
    let _ = OutgoingBody::finish(body, None);
}

/// Sends back what it is sent, while it is still being sent.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let body = respond(out, 200, Fields::new());
    let content = request.consume().expect("the content is taken once");
    if pass_on(&content, &body).is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

/// Fetches `?path=` of the site that was asked and streams it on with one more field.
fn fetch_own(request: &IncomingRequest, query: &str, out: ResponseOutparam) {
    let Some(path) = parameter(query, "path").filter(|path| path.starts_with('/')) else {
        let body = respond(out, 400, Fields::new());
        write(&body, b"say which path: /fetch?path=/x\n");
        let _ = OutgoingBody::finish(body, None);
        return;
    };
    let response = match fetch(request, path) {
        Ok(response) => response,
        Err(error) => return ResponseOutparam::set(out, Err(error)),
    };
    let fields = response.headers().clone();
    let _ = fields.append("x-handler", b"hello");
    let body = respond(out, response.status(), fields);
    let content = response.consume().expect("the content is taken once");
    if pass_on(&content, &body).is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

/// A GET of another path of the site, sent and waited for.
fn fetch(request: &IncomingRequest, path: &str) -> Result<IncomingResponse, ErrorCode> {
    let fetch = OutgoingRequest::new(Fields::new());
    let _ = fetch.set_method(&Method::Get);
    let _ = fetch.set_scheme(Some(&request.scheme().unwrap_or(Scheme::Http)));
    let _ = fetch.set_authority(request.authority().as_deref());
    let _ = fetch.set_path_with_query(Some(path));
    let waiting = outgoing_handler::handle(fetch, None)?;
    waiting.subscribe().block();
    let gone = || ErrorCode::InternalError(Some("the response was taken already".to_owned()));
    waiting.get().and_then(Result::ok).unwrap_or_else(|| Err(gone()))
}

/// Sends the head of a response and gives what its content is written to.
fn respond(out: ResponseOutparam, status: u16, fields: Fields) -> OutgoingBody {
    let response = OutgoingResponse::new(fields);
    let _ = response.set_status_code(status);
    let body = response.body().expect("the body is asked for once");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn write(body: &OutgoingBody, content: &[u8]) {
    let out = body.write().expect("the stream is asked for once");
    // The interface takes 4,096 bytes at a time.
    for piece in content.chunks(4096) {
        let _ = out.blocking_write_and_flush(piece);
    }
}

/// Moves content on as it comes, without taking it in.
fn pass_on(content: &IncomingBody, body: &OutgoingBody) -> Result<(), StreamError> {
    let source = content.stream().expect("the stream is asked for once");
    let out = body.write().expect("the stream is asked for once");
    loop {
        match out.blocking_splice(&source, PIECE) {
            Ok(_) => {}
            Err(StreamError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The value of a parameter of the query, as it is written there.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

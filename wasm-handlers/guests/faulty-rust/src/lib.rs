//! A handler that does everything a handler should not, one fault a path: what the tests of the
//! sandbox run. It speaks raw `wasi:http`, so that it can break each promise by itself.

use std::fmt::Write as _;
use std::io::Write as _;

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use wasip2::io::streams::{OutputStream, StreamError};

struct Faulty;

wasip2::http::proxy::export!(Faulty);

impl Guest for Faulty {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/trap" => core::arch::wasm32::unreachable(),
            "/panic" => panic!("as the path says"),
            "/spin" => spin(),
            "/spin-late" => spin_late(out),
            "/memory" => memory(),
            "/deep" => respond(out, &deep(number(query, "n", u64::MAX)).to_string()),
            "/exit" => std::process::exit(i32::try_from(number(query, "code", 3)).unwrap_or(3)),
            "/log-flood" => log_flood(out),
            "/log-line" => log_line(out),
            "/hang" => monotonic_clock::subscribe_duration(3_600_000_000_000).block(),
            "/endless" => endless(out),
            "/late-trap" => late_trap(out),
            "/stall" => stall(out),
            "/leave" => leave(out),
            "/after" => after(out, number(query, "ms", 50)),
            "/fs" => respond(out, &files()),
            "/socket" => respond(out, &sockets()),
            "/no-response" => {}
            "/error" => error(out),
            "/big-headers" => big_headers(out, number(query, "n", 10_000)),
            "/many-headers" => many_headers(out, number(query, "n", 500)),
            "/fetch-many" => fetch_many(&request, out, number(query, "n", 40)),
            "/random" => respond(out, &random(number(query, "n", 1 << 30))),
            "/resources" => resources(),
            "/env" => respond(out, &environment()),
            "/recycled" => respond(out, &recycled()),
            "/busy" => {
                busy(number(query, "ms", 5));
                respond(out, "done\n");
            }
            _ => respond(out, "a good answer\n"),
        }
    }
}

/// The number that the query gives for a name.
fn number(query: &str, name: &str, otherwise: u64) -> u64 {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).and_then(|(_, n)| n.parse().ok()).unwrap_or(otherwise)
}

/// Answers 200 with a text, as a good handler does.
fn respond(out: ResponseOutparam, text: &str) {
    let (body, stream) = start(out, Fields::new());
    for chunk in text.as_bytes().chunks(4096) {
        let _ = stream.blocking_write_and_flush(chunk);
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// Sends the head of a 200 and gives what its content is written to.
fn start(out: ResponseOutparam, fields: Fields) -> (OutgoingBody, OutputStream) {
    let response = OutgoingResponse::new(fields);
    let body = response.body().expect("the body is asked for once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("the stream is asked for once");
    (body, stream)
}

fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn spin_late(out: ResponseOutparam) {
    let (_body, stream) = start(out, Fields::new());
    let _ = stream.blocking_write_and_flush(b"half");
    monotonic_clock::subscribe_duration(20_000_000).block();
    spin();
}

/// Runs for about so many milliseconds, by the wall clock.
fn busy(milliseconds: u64) {
    let end = monotonic_clock::now() + milliseconds * 1_000_000;
    while monotonic_clock::now() < end {
        for n in 0..10_000u64 {
            std::hint::black_box(n);
        }
    }
}

fn memory() {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion)]
fn deep(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 16]);
    if n == 0 { 0 } else { deep(n - 1) + frame[3].min(1) }
}

fn log_flood(out: ResponseOutparam) {
    for n in 0..10_000 {
        println!("line {n}: {}", "x".repeat(80));
    }
    respond(out, "logged\n");
}

fn log_line(out: ResponseOutparam) {
    println!("{}", "y".repeat(20_000));
    eprintln!("to the other stream");
    print!("without an end");
    let _ = std::io::stdout().flush();
    respond(out, "logged\n");
}

fn endless(out: ResponseOutparam) {
    let (_body, stream) = start(out, Fields::new());
    while !matches!(stream.blocking_write_and_flush(&[b'e'; 4096]), Err(StreamError::Closed)) {}
}

fn late_trap(out: ResponseOutparam) {
    let (_body, stream) = start(out, Fields::new());
    let _ = stream.blocking_write_and_flush(b"half of the cont");
    monotonic_clock::subscribe_duration(20_000_000).block();
    core::arch::wasm32::unreachable()
}

fn stall(out: ResponseOutparam) {
    let (_body, stream) = start(out, Fields::new());
    let _ = stream.blocking_write_and_flush(b"half");
    monotonic_clock::subscribe_duration(3_600_000_000_000).block();
}

/// Drops the body without finishing it, which `wasi:http` calls a failed response.
fn leave(out: ResponseOutparam) {
    let (body, stream) = start(out, Fields::new());
    let _ = stream.blocking_write_and_flush(b"half of the cont");
    drop(stream);
    monotonic_clock::subscribe_duration(20_000_000).block();
    drop(body);
}

/// Answers whole, then works on.
fn after(out: ResponseOutparam, milliseconds: u64) {
    respond(out, "answered\n");
    monotonic_clock::subscribe_duration(milliseconds * 1_000_000).block();
    println!("worked on after the answer");
}

fn files() -> String {
    let mut text = String::new();
    for path in ["/etc/passwd", "/", ".", "../../etc/passwd", "/proc/self/environ"] {
        let read = std::fs::read(path).map(|bytes| bytes.len());
        let listed = std::fs::read_dir(path).map(Iterator::count);
        let written = std::fs::write(format!("{path}/x"), b"x");
        let _ = writeln!(text, "{path}: {read:?} {listed:?} {written:?}");
    }
    text
}

fn sockets() -> String {
    let mut text = String::new();
    for address in ["127.0.0.1:80", "[::1]:80", "10.0.0.1:22", "169.254.169.254:80"] {
        let connected = std::net::TcpStream::connect(address).map(drop);
        let _ = writeln!(text, "{address}: {connected:?}");
    }
    let bound = std::net::TcpListener::bind("127.0.0.1:0").map(drop);
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").map(drop);
    let _ = writeln!(text, "listen: {bound:?}\ndatagram: {datagram:?}");
    let name = std::net::TcpStream::connect("localhost:80").map(drop);
    let _ = writeln!(text, "name: {name:?}");
    text
}

fn error(out: ResponseOutparam) {
    let code = wasip2::http::types::ErrorCode::InternalError(Some("as the path says".into()));
    ResponseOutparam::set(out, Err(code));
}

fn big_headers(out: ResponseOutparam, bytes: u64) {
    let fields = Fields::new();
    let value = vec![b'v'; 1000];
    for n in 0..bytes.div_ceil(1000) {
        fields.append(&format!("x-{n}"), &value).expect("the field is well formed");
    }
    let (body, stream) = start(out, fields);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn many_headers(out: ResponseOutparam, count: u64) {
    let fields = Fields::new();
    for n in 0..count {
        fields.append(&format!("x-{n}"), b"v").expect("the field is well formed");
    }
    let (body, stream) = start(out, fields);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// Starts so many fetches at once and says how each ended.
fn fetch_many(request: &IncomingRequest, out: ResponseOutparam, count: u64) {
    let authority = request.authority().unwrap_or_default();
    let mut pending = Vec::new();
    for n in 0..count {
        let fetch = OutgoingRequest::new(Fields::new());
        let _ = fetch.set_scheme(Some(&Scheme::Http));
        let _ = fetch.set_authority(Some(&authority));
        let _ = fetch.set_path_with_query(Some(&format!("/{n}")));
        pending.push(outgoing_handler::handle(fetch, None));
    }
    let (mut good, mut bad) = (0, Vec::new());
    for response in pending {
        let Ok(response) = response else {
            bad.push("refused at once".to_owned());
            continue;
        };
        response.subscribe().block();
        match response.get() {
            Some(Ok(Ok(_))) => good += 1,
            other => bad.push(format!("{:?}", other.map(|r| r.map(|r| r.map(drop))))),
        }
    }
    bad.dedup();
    respond(out, &format!("good {good}, bad {} {bad:?}\n", count - good));
}

fn random(bytes: u64) -> String {
    format!("{}\n", wasip2::random::random::get_random_bytes(bytes).len())
}

/// Fills the host's table of this guest's resources.
fn resources() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(Fields::new());
    }
}

fn environment() -> String {
    let arguments: Vec<String> = std::env::args().collect();
    let mut text = format!("arguments {arguments:?}\n");
    for (name, value) in std::env::vars() {
        let _ = writeln!(text, "{name}={value}");
    }
    let mut input = String::new();
    let read = std::io::Read::read_to_string(&mut std::io::stdin(), &mut input);
    let _ = writeln!(text, "input {read:?}");
    text
}

/// Looks for what an earlier request may have left in this memory, then leaves something there.
fn recycled() -> String {
    const MARK: u8 = 0xA7;
    let mut block: Vec<u8> = Vec::with_capacity(8 << 20);
    // SAFETY: the memory is the guest's own; what an earlier guest left there is the question.
    unsafe { block.set_len(8 << 20) };
    let found = std::hint::black_box(&block).iter().filter(|byte| **byte == MARK).count();
    block.fill(MARK);
    std::hint::black_box(&block);
    format!("found {found}\n")
}

//! A handler in Rust for `wasi:http/handler@0.3`: a greeting, a streaming echo, a fetch of the site's own
//! paths, and ways to end badly. What `/count` says shows whether an instance serves more than one request.
//! With `PASS` in its environment it stands before other handlers, and passes everything on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::http::{client, service};
use wasip3::{wit_bindgen, wit_future, wit_stream};

service::export!(Hello);

struct Hello;

static SERVED: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let served = SERVED.fetch_add(1, Ordering::Relaxed) + 1;
        if let Ok(name) = std::env::var("PASS") {
            return pass(request, &name).await;
        }
        let target = request.get_path_with_query().unwrap_or_else(|| "/".into());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/echo" => Ok(echo(request)),
            "/fetch" => fetch(request, query).await,
            "/count" => Ok(text(served.to_string())),
            "/log" => {
                println!("served {served}");
                Ok(text("logged\n".into()))
            }
            "/after" => Ok(after()),
            "/trailers" => Ok(trailers()),
            "/slow" => {
                wasip3::clocks::monotonic_clock::wait_for(
                    Duration::from_secs(3600).as_nanos() as u64
                )
                .await;
                Ok(text("late\n".into()))
            }
            "/spin" => loop {
                std::hint::black_box(());
            },
            "/trap" => panic!("as asked"),
            "/grow" => {
                let mut held = Vec::new();
                loop {
                    held.push(vec![1u8; 1 << 20]);
                    std::hint::black_box(&held);
                }
            }
            "/error" => Err(ErrorCode::InternalError(Some("as asked".into()))),
            _ => Ok(greet()),
        }
    }
}

/// Answers with the greeting that the site's `GREETING` asks for.
fn greet() -> Response {
    text(match std::env::var("GREETING") {
        Ok(greeting) => format!("{greeting}\nHello from Verge\n"),
        Err(_) => "Hello from Verge\n".to_owned(),
    })
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    let pairs: Vec<_> =
        pairs.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect();
    Fields::from_list(&pairs).expect("they are valid")
}

/// A response of which all is known: the content is written once it is asked for.
fn text(content: String) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let fields = fields(&[("content-type", "text/plain; charset=utf-8")]);
    let (response, _) = Response::new(fields, Some(reader), no_trailers);
    wit_bindgen::spawn_local(async move {
        writer.write_all(content.into_bytes()).await;
    });
    response
}

/// Streams the request's content back.
fn echo(request: Request) -> Response {
    let (_, done) = wit_future::new(|| Ok(()));
    let (content, trailers) = Request::consume_body(request, done);
    let (response, _) = Response::new(fields(&[]), Some(content), trailers);
    response
}

/// Fetches `?path=` of the site that was asked, and streams it on with one more field.
async fn fetch(request: Request, query: &str) -> Result<Response, ErrorCode> {
    let path = query.strip_prefix("path=").unwrap_or("/");
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (ask, _) = Request::new(fields(&[]), None, no_trailers, None);
    let refused = |()| ErrorCode::HttpRequestUriInvalid;
    ask.set_method(&Method::Get).map_err(refused)?;
    ask.set_scheme(Some(&request.get_scheme().unwrap_or(Scheme::Http))).map_err(refused)?;
    ask.set_authority(request.get_authority().as_deref()).map_err(refused)?;
    ask.set_path_with_query(Some(path)).map_err(refused)?;
    stream_on(client::send(ask).await?, "hello")
}

/// Passes a request on, content and trailers included, while they are still coming in.
async fn pass(request: Request, name: &str) -> Result<Response, ErrorCode> {
    let (method, path) = (request.get_method(), request.get_path_with_query());
    let (scheme, authority) = (request.get_scheme(), request.get_authority());
    let headers = request.get_headers().clone();
    let (_, done) = wit_future::new(|| Ok(()));
    let (content, trailers) = Request::consume_body(request, done);
    let (ask, _) = Request::new(headers, Some(content), trailers, None);
    let refused = |()| ErrorCode::HttpRequestUriInvalid;
    ask.set_method(&method).map_err(refused)?;
    ask.set_scheme(scheme.as_ref()).map_err(refused)?;
    ask.set_authority(authority.as_deref()).map_err(refused)?;
    ask.set_path_with_query(path.as_deref()).map_err(refused)?;
    stream_on(client::send(ask).await?, name)
}

/// An answer with one more field, its content and trailers as they come.
fn stream_on(answer: Response, name: &str) -> Result<Response, ErrorCode> {
    let status = answer.get_status_code();
    let headers = answer.get_headers().clone();
    headers.append("x-handler", name.as_bytes()).map_err(|_| ErrorCode::InternalError(None))?;
    let (_, done) = wit_future::new(|| Ok(()));
    let (content, trailers) = Response::consume_body(answer, done);
    let (response, _) = Response::new(headers, Some(content), trailers);
    response.set_status_code(status).map_err(|()| ErrorCode::InternalError(None))?;
    Ok(response)
}

/// Works on once its response is whole.
fn after() -> Response {
    wit_bindgen::spawn_local(async {
        wasip3::clocks::monotonic_clock::wait_for(Duration::from_millis(20).as_nanos() as u64).await;
        println!("after the response");
    });
    text("whole\n".into())
}

/// Content with a trailer behind it.
fn trailers() -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (says, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(fields(&[]), Some(reader), trailers);
    wit_bindgen::spawn_local(async move {
        writer.write_all(b"content\n".to_vec()).await;
        drop(writer);
        let _ = says.write(Ok(Some(fields(&[("x-sum", "42")])))).await;
    });
    response
}

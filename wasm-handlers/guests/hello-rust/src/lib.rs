//! A handler in Rust: a greeting, a streaming echo, and a fetch of the site's own paths. It may use
//! nothing but `wasi:http`, so it runs on any host that speaks it.

use wstd::http::{Body, Client, Error, Request, Response, StatusCode, Uri};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match request.uri().path() {
        "/echo" => Ok(Response::new(request.into_body())),
        "/fetch" => fetch(request).await,
        _ => greet(&request),
    }
}

/// Answers with the greeting that the site's `GREETING` asks for; `?ttl=` lets a cache keep it.
fn greet(request: &Request<Body>) -> Result<Response<Body>, Error> {
    let text = match std::env::var("GREETING") {
        Ok(greeting) => format!("{greeting}\nHello from Verge\n"),
        Err(_) => "Hello from Verge\n".to_owned(),
    };
    let mut response = Response::builder().header("content-type", "text/plain; charset=utf-8");
    if let Some(seconds) = parameter(request.uri(), "ttl").and_then(|t| t.parse::<u32>().ok()) {
        response = response.header("cache-control", format!("public, max-age={seconds}"));
    }
    Ok(response.body(text.into())?)
}

/// Fetches `?path=` of the site that was asked, with the method and content that it was asked with,
/// and streams it on with one more field.
async fn fetch(request: Request<Body>) -> Result<Response<Body>, Error> {
    let (parts, body) = request.into_parts();
    let uri = &parts.uri;
    let Some(path) = parameter(uri, "path").filter(|path| path.starts_with('/')) else {
        let answer = Response::builder().status(StatusCode::BAD_REQUEST);
        return Ok(answer.body("say which path: /fetch?path=/x\n".to_owned().into())?);
    };
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("localhost", |authority| authority.as_str());
    let target: Uri = format!("{scheme}://{authority}{path}").parse()?;
    let fetch = Request::builder().method(parts.method).uri(target).body(body)?;
    let mut response = Client::new().send(fetch).await?;
    response.headers_mut().insert("x-handler", "hello".parse()?);
    Ok(response)
}

/// The value of a parameter of the query, as it is written there.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

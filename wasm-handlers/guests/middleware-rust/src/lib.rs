//! A handler that stands before others (`handlers = ["auth", "rewrite", …]`): it lets a request pass or
//! refuses it, may change where it leads, and sends it on as its own. Its environment says what it does:
//! `TOKEN` is what `x-token` must be, `ASK` a URL that must answer well, `FROM` and `TO` the beginnings of
//! paths, and `NAME` what it writes into the request and into the response.

use wstd::http::{Body, Client, Error, Request, Response, StatusCode, Uri};

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>, Error> {
    if let Ok(wanted) = std::env::var("TOKEN") {
        let token = request.headers_mut().remove("x-token");
        if token.is_none_or(|token| token.as_bytes() != wanted.as_bytes()) {
            return refuse(StatusCode::UNAUTHORIZED, "a token is needed\n");
        }
    }
    if let Ok(url) = std::env::var("ASK") {
        let asked = Client::new().send(Request::get(url).body(Body::empty())?).await?;
        if !asked.status().is_success() {
            return refuse(StatusCode::FORBIDDEN, "that is not allowed\n");
        }
    }
    if let Some(uri) = rewritten(request.uri()) {
        *request.uri_mut() = uri?;
    }
    let name = std::env::var("NAME").unwrap_or_default();
    request.headers_mut().append("x-passed", name.parse()?);
    println!("{} {}", request.method(), request.uri().path());
    let mut response = Client::new().send(request).await?;
    response.headers_mut().append("x-by", name.parse()?);
    Ok(response)
}

fn refuse(status: StatusCode, text: &str) -> Result<Response<Body>, Error> {
    Ok(Response::builder().status(status).body(text.to_owned().into())?)
}

/// The same URL with `TO` in the place of `FROM`, where its path begins so.
fn rewritten(uri: &Uri) -> Option<Result<Uri, Error>> {
    let (from, to) = (std::env::var("FROM").ok()?, std::env::var("TO").ok()?);
    let rest = uri.path_and_query()?.as_str().strip_prefix(&from)?;
    let mut parts = uri.clone().into_parts();
    let path = format!("{to}{rest}").parse();
    Some(path.map_err(Error::from).and_then(|path| {
        parts.path_and_query = Some(path);
        Ok(Uri::from_parts(parts)?)
    }))
}

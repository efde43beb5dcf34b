//! A handler: it answers every request with a greeting, and lets a cache keep it where `?ttl=` says
//! for how many seconds.

#[cfg(target_family = "wasm")]
use wstd::http::{Body, Error, Request, Response};

#[cfg(target_family = "wasm")]
#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
    let text = greet(&greeting, request.uri().path());
    let mut response = Response::builder().header("content-type", "text/plain; charset=utf-8");
    if let Some(seconds) = ttl(request.uri().query()) {
        response = response
            .header("cache-control", format!("public, max-age={seconds}"))
            .header("cache-tag", "greetings");
    }
    Ok(response.body(text.into())?)
}

fn greet(greeting: &str, path: &str) -> String {
    format!("{greeting} from {path}\n")
}

/// The number of seconds in `?ttl=60`.
fn ttl(query: Option<&str>) -> Option<u32> {
    query?.split('&').find_map(|pair| pair.strip_prefix("ttl="))?.parse().ok()
}

/// `cargo test` runs these on this machine, without an edge.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets() {
        assert_eq!(greet("Good day", "/a"), "Good day from /a\n");
    }

    #[test]
    fn a_cache_may_keep_it_only_when_asked() {
        assert_eq!(ttl(None), None);
        assert_eq!(ttl(Some("ttl=-1")), None);
        assert_eq!(ttl(Some("a=b&ttl=60")), Some(60));
    }
}

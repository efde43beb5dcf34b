//! HTTP to a control plane or an edge's admin listener: one place that sends, tries again where that
//! is safe, and turns problem documents into failures. Knows no command.

use crate::args::Global;
use crate::credentials::{self, Credentials};
use crate::error::CliError;
use crate::lines::Lines;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use url::Url;
use verge_config::api::{Page, Problem};
use verge_config::process::Secret;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How long to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one call may take, besides what the server was asked to wait.
pub(crate) const CALL: Duration = Duration::from_secs(60);
/// How often a call is made, when it never reached anyone or was put off.
const ATTEMPTS: u32 = 3;
/// How long a response may go on that has no end.
const ENDLESS: Duration = Duration::from_secs(365 * 86_400);
/// The longest that a `Retry-After` is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Items of one page.
const PAGE: usize = 100;

/// A client of one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

/// What a call sends.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    method: Verb,
    path: &'a [&'a str],
    query: &'a [(&'a str, String)],
    timeout: Duration,
    /// Makes a POST safe to send again.
    idempotency_key: Option<&'a str>,
}

/// The content of a call.
#[derive(Clone, Copy)]
struct Body<'a> {
    kind: &'static str,
    bytes: &'a [u8],
}

fn json(bytes: &[u8]) -> Body<'_> {
    Body { kind: "application/json", bytes }
}

/// The methods that are used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Head,
    Put,
    Post,
    Delete,
}

// === impl Call ===

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a [&'a str]) -> Call<'a> {
        Call::new(Verb::Get, path)
    }

    pub(crate) fn head(path: &'a [&'a str]) -> Call<'a> {
        Call::new(Verb::Head, path)
    }

    pub(crate) fn put(path: &'a [&'a str]) -> Call<'a> {
        Call::new(Verb::Put, path)
    }

    pub(crate) fn post(path: &'a [&'a str]) -> Call<'a> {
        Call::new(Verb::Post, path)
    }

    pub(crate) fn delete(path: &'a [&'a str]) -> Call<'a> {
        Call::new(Verb::Delete, path)
    }

    fn new(method: Verb, path: &'a [&'a str]) -> Call<'a> {
        Call { method, path, query: &[], timeout: CALL, idempotency_key: None }
    }

    pub(crate) fn query(self, query: &'a [(&'a str, String)]) -> Call<'a> {
        Call { query, ..self }
    }

    pub(crate) fn timeout(self, timeout: Duration) -> Call<'a> {
        Call { timeout, ..self }
    }

    pub(crate) fn idempotency_key(self, key: &'a str) -> Call<'a> {
        Call { idempotency_key: Some(key), ..self }
    }

    fn may_be_sent_again(&self) -> bool {
        self.method != Verb::Post || self.idempotency_key.is_some()
    }
}

// === impl Client ===

impl Client {
    /// A client of the control plane that the flags, the environment or the stored credentials name.
    pub(crate) fn control(global: &Global) -> Result<Client, CliError> {
        Client::with(credentials::find(global)?)
    }

    /// A client of one control plane.
    pub(crate) fn with(credentials: Credentials) -> Result<Client, CliError> {
        Client::new(credentials.control, Some(credentials.token))
    }

    /// A client of an edge's admin listener.
    pub(crate) fn admin(base: &str) -> Result<Client, CliError> {
        Client::new(credentials::parse_control(base)?, None)
    }

    fn new(base: Url, token: Option<Secret>) -> Result<Client, CliError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            // A redirect would take the token to wherever it points.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("verge/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| network(&base, &error))?;
        Ok(Client { http, base, token })
    }

    /// The server, for messages.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Whether the token would be sent in the clear over a network.
    pub(crate) fn is_in_the_clear(&self) -> bool {
        self.base.scheme() == "http" && !is_loopback(&self.base)
    }

    /// A call whose answer is JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, T), CliError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| CliError::Usage(error.to_string()))?;
        let response = self.send(call, body.as_deref().map(json)).await?;
        let status = response.status();
        let bytes = self.content(response).await?;
        Ok((status, self.readable(&bytes)?))
    }

    /// A call that sends bytes as they are and whose answer is JSON.
    pub(crate) async fn put_bytes<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        bytes: &[u8],
    ) -> Result<T, CliError> {
        let body = Body { kind: "application/octet-stream", bytes };
        let response = self.send(call, Some(body)).await?;
        self.readable(&self.content(response).await?)
    }

    /// A call whose answer is bytes.
    pub(crate) async fn bytes(&self, call: Call<'_>) -> Result<Vec<u8>, CliError> {
        let response = self.send(call, None).await?;
        self.content(response).await
    }

    /// A call without a body whose answer is JSON.
    pub(crate) async fn read<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, CliError> {
        Ok(self.json(call, None::<&()>).await?.1)
    }

    /// A call whose answer is lines that go on; a silence longer than `silence` ends them.
    pub(crate) async fn lines(&self, call: Call<'_>, silence: Duration) -> Result<Lines, CliError> {
        let patience = call.timeout;
        let sending = self.send(call.timeout(ENDLESS), None);
        let url = self.base.to_string();
        match tokio::time::timeout(patience, sending).await {
            Ok(response) => Ok(Lines::new(response?, url, silence)),
            Err(_) => Err(CliError::Network { url, message: "no answer in time".to_owned() }),
        }
    }

    /// A call whose answer has no content.
    pub(crate) async fn done(&self, call: Call<'_>) -> Result<(), CliError> {
        self.send(call, None).await.map(drop)
    }

    /// Whether something is there.
    pub(crate) async fn exists(&self, path: &[&str]) -> Result<bool, CliError> {
        match self.send(Call::head(path), None).await {
            Ok(_) => Ok(true),
            Err(CliError::Problem(problem)) if problem.status == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The items of a list, at most `most` of them, page by page.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        most: usize,
    ) -> Result<Vec<T>, CliError> {
        self.list_where(path, &[], most).await
    }

    /// The items of a list that a query narrows down, at most `most` of them, page by page.
    pub(crate) async fn list_where<T: DeserializeOwned>(
        &self,
        path: &[&str],
        asked: &[(&str, String)],
        most: usize,
    ) -> Result<Vec<T>, CliError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        while items.len() < most {
            let mut query = vec![("limit", PAGE.min(most - items.len()).to_string())];
            query.extend(asked.iter().cloned());
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let page: Page<T> = self.read(Call::get(path).query(&query)).await?;
            // A server that sends empty pages for ever would keep us here.
            let stuck = page.items.is_empty();
            items.extend(page.items);
            match page.next {
                Some(next) if !stuck => cursor = Some(next),
                _ => break,
            }
        }
        items.truncate(most);
        Ok(items)
    }

    /// Uploads content of a known length from a stream.
    pub(crate) async fn upload(
        &self,
        path: &[&str],
        length: u64,
        body: reqwest::Body,
    ) -> Result<(), CliError> {
        let call = Call::put(path).timeout(Duration::from_secs(900));
        let request = self
            .request(&call)
            .header(header::CONTENT_TYPE, "application/wasm")
            .header(header::CONTENT_LENGTH, length)
            .body(body);
        let response = request.send().await.map_err(|error| network(&self.base, &error))?;
        self.checked(response).await.map(drop)
    }

    async fn send(&self, call: Call<'_>, body: Option<Body<'_>>) -> Result<Response, CliError> {
        let mut attempt = 1;
        loop {
            let mut request = self.request(&call);
            if let Some(Body { kind, bytes }) = body {
                request = request.header(header::CONTENT_TYPE, kind).body(bytes.to_vec());
            }
            let again = attempt < ATTEMPTS;
            match request.send().await {
                Ok(response) => match put_off(&response).filter(|_| again) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return self.checked(response).await,
                },
                // What never connected was never done; what broke off may have been.
                Err(error)
                    if again
                        && (error.is_connect()
                            || (error.is_request() && call.may_be_sent_again()))
                        && !error.is_timeout() =>
                {
                    tokio::time::sleep(Duration::from_millis(200) * attempt).await;
                }
                Err(error) => return Err(network(&self.base, &error)),
            }
            attempt += 1;
        }
    }

    fn request(&self, call: &Call<'_>) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        let method = match call.method {
            Verb::Get => Method::GET,
            Verb::Head => Method::HEAD,
            Verb::Put => Method::PUT,
            Verb::Post => Method::POST,
            Verb::Delete => Method::DELETE,
        };
        let mut request = self.http.request(method, url).timeout(call.timeout);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(key) = call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        request
    }

    /// The response, or the failure that it tells of.
    async fn checked(&self, response: Response) -> Result<Response, CliError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.content(response).await.unwrap_or_default();
        let problem = serde_json::from_slice(&bytes).unwrap_or_else(|_| Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("An unknown status").to_owned(),
            status: status.as_u16(),
            detail: format!("{} answered {status}", self.base),
            faults: Vec::new(),
        });
        // The status that counts is the one of the response.
        Err(CliError::Problem(Box::new(Problem { status: status.as_u16(), ..problem })))
    }

    async fn content(&self, mut response: Response) -> Result<Vec<u8>, CliError> {
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| network(&self.base, &error))?
        {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.unreadable("the answer is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn readable<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CliError> {
        serde_json::from_slice(bytes).map_err(|error| self.unreadable(&error.to_string()))
    }

    fn unreadable(&self, why: &str) -> CliError {
        let message = format!("not an answer of this version: {why}");
        CliError::Network { url: self.base.to_string(), message }
    }
}

/// How long a server that has no room at present asks to be left alone.
fn put_off(response: &Response) -> Option<Duration> {
    let busy = matches!(
        response.status(),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    let after = response.headers().get(header::RETRY_AFTER).filter(|_| busy)?;
    let pause = Duration::from_secs(after.to_str().ok()?.parse().ok()?);
    (pause <= LONGEST_PAUSE).then_some(pause)
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A failure of the network with its innermost cause, which says the most.
fn network(base: &Url, error: &reqwest::Error) -> CliError {
    let mut message = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "cannot connect".to_owned()
    } else {
        "the exchange broke off".to_owned()
    };
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    message.push_str(&format!(": {innermost}"));
    CliError::Network { url: base.to_string(), message }
}

/// A new idempotency key.
pub(crate) fn new_key() -> String {
    format!("verge-{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback() {
        for url in ["http://127.0.0.1:1", "http://[::1]", "http://localhost", "http://a.localhost"]
        {
            assert!(is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
        for url in ["http://10.0.0.1", "http://localhost.example", "https://example.com"] {
            assert!(!is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
    }

    #[test]
    fn a_path_segment_cannot_become_two() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::admin("http://127.0.0.1:1").unwrap();
        let call = Call::get(&["v1", "sites", "../a/b?c#d"]);
        let request = client.request(&call).build().unwrap();
        assert_eq!(request.url().path(), "/v1/sites/..%2Fa%2Fb%3Fc%23d");
    }

    #[test]
    fn only_what_is_safe_is_sent_again() {
        let path = &["v1"][..];
        assert!(Call::get(path).may_be_sent_again());
        assert!(!Call::post(path).may_be_sent_again());
        assert!(Call::post(path).idempotency_key("k").may_be_sent_again());
    }
}

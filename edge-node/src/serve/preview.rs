//! What a visitor with the token of a preview gets: the cookie, the version, and answers that nobody else
//! may keep. A stranger's request is served as if there were no previews.

use super::{Admitted, Answer, Content};
use crate::previews::{self, VERGE_PREVIEW};
use crate::snapshot::{Previewed, SiteRuntime, Snapshot};
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::sync::Arc;
use verge_config::preview::{COOKIE, PATH};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// What caches on the way to the visitor, its own too, are told of a preview's responses: the same URL
/// shows the active version to everybody else.
const NOBODY_KEEPS: HeaderValue = HeaderValue::from_static("private, no-store");

/// The previews of the site that a request is for.
fn of_host<'s>(snapshot: &'s Snapshot, host: &str) -> &'s [Previewed] {
    snapshot.site_for(host).map_or(&[], |site| snapshot.previews(site))
}

/// The answer to a browser that comes with a token in the URL: the token as a cookie, and off to the
/// front page.
pub(super) fn welcome(snapshot: &Snapshot, request: &Admitted) -> Option<Answer> {
    if request.target.path() != PATH || request.method != Method::GET {
        return None;
    }
    let query = request.target.query()?;
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    let preview = previews::holding(of_host(snapshot, &request.host), token)?;
    let left = preview.seconds_left()?;
    let secure = if request.hop.scheme == "https" { "; Secure" } else { "" };
    let cookie =
        format!("{COOKIE}={token}; Path=/; Max-Age={left}; HttpOnly; SameSite=Lax{secure}");
    let headers = HeaderMap::from_iter([
        (SET_COOKIE, HeaderValue::from_str(&cookie).ok()?),
        (LOCATION, HeaderValue::from_static("/")),
        (CACHE_CONTROL, NOBODY_KEEPS),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]);
    let status = StatusCode::SEE_OTHER;
    Some(Answer { status, headers, content: Content::Empty, outcome: None })
}

/// The version that a request's token is for; the request goes on without it. Where the site has
/// previews, a token that is none of theirs ends here, too.
pub(super) fn enter(snapshot: &Snapshot, request: &mut Admitted) -> Option<Arc<SiteRuntime>> {
    let all = of_host(snapshot, &request.host);
    if all.is_empty() {
        return None;
    }
    let version = version(all, &request.headers);
    previews::take_off(&mut request.headers);
    version
}

/// The version that fields with a token are for.
pub(super) fn version(all: &[Previewed], headers: &HeaderMap) -> Option<Arc<SiteRuntime>> {
    previews::chosen(all, headers).map(|preview| Arc::clone(&preview.runtime))
}

/// A preview's response says so, and is nobody's to keep.
pub(super) fn marked(mut answer: Answer, version: u64) -> Answer {
    answer.headers.insert(CACHE_CONTROL, NOBODY_KEEPS);
    answer.headers.remove(CDN_CACHE_CONTROL);
    answer.headers.insert(VERGE_PREVIEW, HeaderValue::from(version));
    answer
}

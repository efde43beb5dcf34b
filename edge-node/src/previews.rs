//! Requests that carry the token of a preview: which version they are for, and how the token is taken off
//! them before anything else reads their fields. Pure; answers nothing.

use crate::snapshot::Previewed;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use verge_config::preview::{COOKIE as COOKIE_NAME, FIELD, MAX_TOKEN_BYTES, PATH};

/// The field that carries a token, and that says of a response which version it is of.
pub const VERGE_PREVIEW: HeaderName = HeaderName::from_static(FIELD);

/// Whether a request may be for a preview: then it takes the whole way, whatever it turns out to be.
#[must_use]
pub fn concerns(path: &str, headers: &HeaderMap) -> bool {
    path == PATH
        || headers.contains_key(VERGE_PREVIEW)
        || tokens_in_cookies(headers).next().is_some()
}

/// The preview whose token a request carries.
#[must_use]
pub fn chosen<'p>(previews: &'p [Previewed], headers: &HeaderMap) -> Option<&'p Previewed> {
    let fields = headers.get_all(VERGE_PREVIEW).iter().filter_map(|value| value.to_str().ok());
    fields.chain(tokens_in_cookies(headers)).find_map(|token| holding(previews, token))
}

/// The preview that a token is of. It is found by a hash, so that the time tells nothing of the token.
#[must_use]
pub fn holding<'p>(previews: &'p [Previewed], token: &str) -> Option<&'p Previewed> {
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    previews.iter().find(|preview| preview.token == hash && preview.seconds_left().is_some())
}

/// Takes every token off a request: no origin, handler, key or log sees one.
pub fn take_off(headers: &mut HeaderMap) {
    headers.remove(VERGE_PREVIEW);
    if tokens_in_cookies(headers).next().is_none() {
        return;
    }
    let kept: Vec<HeaderValue> = headers.get_all(COOKIE).iter().filter_map(without_token).collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

fn tokens_in_cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).filter_map(token_of)
}

/// The token of one pair of a `Cookie` field (RFC 6265 section 4.2).
fn token_of(pair: &str) -> Option<&str> {
    let (name, value) = pair.trim().split_once('=')?;
    (name == COOKIE_NAME).then_some(value)
}

fn without_token(value: &HeaderValue) -> Option<HeaderValue> {
    let Ok(text) = value.to_str() else { return Some(value.clone()) };
    let others: Vec<&str> =
        text.split(';').map(str::trim).filter(|pair| token_of(pair).is_none()).collect();
    if others.is_empty() { None } else { HeaderValue::from_str(&others.join("; ")).ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_request_without_a_token_is_nobody_s() {
        for plain in [fields(&[]), fields(&[("cookie", "a=1; verge-previews=x; b=verge-preview")])]
        {
            assert!(!concerns("/", &plain));
            let mut taken = plain.clone();
            take_off(&mut taken);
            assert_eq!(taken, plain);
        }
        assert!(concerns("/__verge/preview", &fields(&[])));
        assert!(concerns("/", &fields(&[("verge-preview", "")])));
        assert!(concerns("/", &fields(&[("cookie", "a=1;verge-preview=t")])));
    }

    #[test]
    fn the_token_ends_here_and_the_rest_goes_on() {
        let mut headers = fields(&[
            ("verge-preview", "t"),
            ("cookie", "a=1; verge-preview=t; b=2"),
            ("accept", "*/*"),
        ]);
        headers.append(COOKIE, HeaderValue::from_static("verge-preview=u"));
        take_off(&mut headers);
        assert_eq!(headers, fields(&[("accept", "*/*"), ("cookie", "a=1; b=2")]));
    }
}

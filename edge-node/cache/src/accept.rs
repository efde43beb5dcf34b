//! What a visitor takes (RFC 9110 section 12.5): weights of lists, and content codings by them; pure.

use crate::vary::text;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use verge_config::site::Coding;

/// The content codings that a request takes, as far as they matter here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepted {
    zstd: Option<u16>,
    brotli: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    star: Option<u16>,
}

/// In what form a response that is ours to compress goes to a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is, since the visitor takes none of the codings, or likes it best; others may get another
    /// form, so the response varies.
    Identity,
    /// Compressed.
    Coded(Coding),
}

// === impl Accepted ===

impl Accepted {
    /// Reads every `Accept-Encoding` line.
    #[must_use]
    pub fn of(request: &HeaderMap) -> Accepted {
        let mut accepted = Accepted::default();
        for line in request.get_all(ACCEPT_ENCODING) {
            for member in text(line).split(',') {
                let (name, weight) = weighted(member);
                let own = match name.as_str() {
                    "zstd" => &mut accepted.zstd,
                    "br" => &mut accepted.brotli,
                    "gzip" | "x-gzip" => &mut accepted.gzip,
                    "identity" => &mut accepted.identity,
                    "*" => &mut accepted.star,
                    _ => continue,
                };
                *own = Some(weight);
            }
        }
        accepted
    }

    /// A coding's weight in thousandths; zero when it is refused or not named.
    #[must_use]
    pub fn weight(&self, coding: Coding) -> u16 {
        let own = match coding {
            Coding::Zstd => self.zstd,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        own.or(self.star).unwrap_or(0)
    }

    /// The form that is liked best: the heaviest, and of equal ones the first of `codings`. Who names no
    /// coding gets identity, as who can decode says so; and so does who refuses all, since a page is
    /// better than an error.
    #[must_use]
    pub fn form(&self, codings: &[Coding]) -> Form {
        let mut best = (Form::Identity, 0);
        for coding in codings {
            let weight = self.weight(*coding);
            if weight > best.1 {
                best = (Form::Coded(*coding), weight);
            }
        }
        match self.identity {
            Some(identity) if identity > best.1 => Form::Identity,
            _ => best.0,
        }
    }
}

// === impl Form ===

impl Form {
    /// The coding's name, or `identity`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Form::Identity => "identity",
            Form::Coded(coding) => coding.name(),
        }
    }
}

/// The codings that matter and that the visitor takes, in a fixed order: `br, gzip, zstd`, or
/// `identity`. Which of several it likes best is not kept: any of them is acceptable.
#[must_use]
pub fn accept_encoding(headers: &HeaderMap) -> String {
    let accepted = Accepted::of(headers);
    let names: Vec<&str> = [Coding::Brotli, Coding::Gzip, Coding::Zstd]
        .into_iter()
        .filter(|coding| accepted.weight(*coding) > 0)
        .map(Coding::name)
        .collect();
    if names.is_empty() { "identity".to_owned() } else { names.join(", ") }
}

/// A member's name in lower case and its weight in thousandths.
pub(crate) fn weighted(member: &str) -> (String, u16) {
    let mut parts = member.split(';');
    let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let weight = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
        .map_or(1000, |(_, value)| thousandths(value.trim()));
    (name, weight)
}

/// A `qvalue` (RFC 9110 section 12.4.2). More digits than it may have are cut, but never to zero, which
/// means refused; what is no number counts as no weight at all.
fn thousandths(value: &str) -> u16 {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if value.starts_with('-') {
        return 0;
    }
    if value.is_empty() || !digits(fraction) || !whole.bytes().all(|byte| byte == b'0') {
        return 1000;
    }
    let weight = fraction
        .bytes()
        .chain(*b"000")
        .take(3)
        .fold(0, |weight, digit| weight * 10 + u16::from(digit.saturating_sub(b'0')));
    weight.max(u16::from(fraction.bytes().any(|digit| digit != b'0')))
}

//! Which answers of a route are compressed, and how. Values only; choosing and compressing is the cache's
//! affair.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Content of an unknown or at least this length is worth compressing, in bytes.
pub const DEFAULT_COMPRESS_MIN: u64 = 1_024;

/// What is compressed unless a site says otherwise: text in its many names, and fonts that are not
/// compressed by themselves. An event stream is text too, but waits for nobody's buffer.
const DEFAULT_TYPES: [&str; 21] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/wasm",
    "application/graphql",
    "application/x-ndjson",
    "application/yaml",
    "application/x-sh",
    "application/vnd.ms-fontobject",
    "application/x-font-ttf",
    "font/ttf",
    "font/otf",
    "font/collection",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

/// A content coding that the edge can produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `br` (RFC 7932).
    Brotli,
    /// `gzip` (RFC 1952).
    Gzip,
}

/// A media type, or several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TypePattern {
    /// `type/subtype`.
    Exact(Cow<'static, str>),
    /// `type/*`: held with its slash.
    Main(Cow<'static, str>),
    /// `*+suffix`: held with its plus sign.
    Suffix(Cow<'static, str>),
}

/// Which answers are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CompressRule {
    /// The media types.
    pub types: Vec<TypePattern>,
    /// The least length, in bytes.
    pub min: u64,
    /// The codings, the one that is liked best first; at least one, each once.
    pub codings: Vec<Coding>,
}

// === impl Coding ===

impl Coding {
    /// All of them, in the order of preference that is the default: zstd costs the least time and br saves
    /// the most bytes where zstd is not taken.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// Its name in `Content-Encoding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl TypePattern ===

impl TypePattern {
    /// Reads `type/subtype`, `type/*` or `*+suffix`, in any case; `None` when it is none of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<TypePattern> {
        let text = text.to_ascii_lowercase();
        let token = |part: &str| {
            let odd = |b: u8| !b.is_ascii_alphanumeric() && !b"!#$&-^_.+".contains(&b);
            !part.is_empty() && !part.bytes().any(odd)
        };
        if let Some(suffix) = text.strip_prefix("*+") {
            return token(suffix).then(|| TypePattern::Suffix(Cow::Owned(format!("+{suffix}"))));
        }
        match text.split_once('/')? {
            (main, "*") => token(main).then(|| TypePattern::Main(Cow::Owned(format!("{main}/")))),
            (main, sub) => (token(main) && token(sub)).then(|| TypePattern::Exact(text.into())),
        }
    }

    fn holds(&self, essence: &str) -> bool {
        let (bytes, own) = match self {
            TypePattern::Exact(own) => (Some(essence), own),
            TypePattern::Main(own) => (essence.get(..own.len()), own),
            TypePattern::Suffix(own) => {
                (essence.len().checked_sub(own.len()).and_then(|at| essence.get(at..)), own)
            }
        };
        bytes.is_some_and(|bytes| bytes.eq_ignore_ascii_case(own))
    }
}

// === impl CompressRule ===

impl CompressRule {
    /// Whether content of this `Content-Type` is compressed. An event stream is only where it is named.
    #[must_use]
    pub fn takes(&self, content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let stream = essence.eq_ignore_ascii_case("text/event-stream");
        self.types.iter().any(|pattern| {
            (!stream || matches!(pattern, TypePattern::Exact(_))) && pattern.holds(essence)
        })
    }
}

impl Default for CompressRule {
    fn default() -> CompressRule {
        CompressRule {
            types: DEFAULT_TYPES.iter().filter_map(|text| TypePattern::parse(text)).collect(),
            min: DEFAULT_COMPRESS_MIN,
            codings: Coding::ALL.to_vec(),
        }
    }
}

/// The default rule, the same for every route that has it.
pub(super) fn shared_default() -> Arc<CompressRule> {
    static DEFAULT: LazyLock<Arc<CompressRule>> = LazyLock::new(Arc::default);
    Arc::clone(&DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_takes_text_and_leaves_what_is_compressed() {
        let rule = CompressRule::default();
        assert_eq!(rule.types.len(), DEFAULT_TYPES.len());
        for taken in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "application/json",
            "application/manifest+json",
            "image/svg+xml",
            "application/atom+xml;type=entry",
            "application/wasm",
            "font/otf",
        ] {
            assert!(rule.takes(taken), "{taken}");
        }
        for left in [
            "image/png",
            "font/woff2",
            "application/octet-stream",
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "application/jsonx",
            "texts/html",
            "+json/x",
            "",
            "é",
        ] {
            assert!(!rule.takes(left), "{left}");
        }
    }

    #[test]
    fn an_event_stream_is_taken_where_it_is_named() {
        let only = |text: &str| CompressRule {
            types: TypePattern::parse(text).into_iter().collect(),
            ..CompressRule::default()
        };
        assert!(only("text/event-stream").takes("text/event-stream"));
        assert!(!only("text/*").takes("text/event-stream"));
        for odd in ["", "text", "text/", "/html", "*", "*/*", "*+", "text/a b", "a/b/c", "text/ht*"]
        {
            assert_eq!(TypePattern::parse(odd), None, "{odd}");
        }
    }
}

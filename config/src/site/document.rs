//! The site file as it is written (TOML) and sent (JSON): raw, before validation. Unknown fields are
//! refused, since people write it; a field that is missing is a fault of the content, so that it is
//! named together with all others.

use super::{Context, Site};
use crate::{Faults, read};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The longest site file, in bytes; twice as much as JSON still fits one line of the feed.
pub const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// A site file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteDocument {
    /// The site's name.
    #[serde(default)]
    pub site: String,
    /// Hosts: `shop.example`, `*.shop.example`, or `*` alone in standalone mode.
    #[serde(default)]
    pub domains: Vec<String>,
    /// `honour` (default) or `ignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cache_control: Option<String>,
    /// How many of the site's handlers' requests run at once on an edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler_concurrency: Option<u64>,
    /// Who gets explanations in responses: `sha256:` and the SHA-256 of a token, in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub debug_tokens: Vec<String>,
    /// Origins by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, OriginDocument>,
    /// Handlers by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub handlers: BTreeMap<String, HandlerDocument>,
    /// Routes in order.
    #[serde(default)]
    pub routes: Vec<RouteDocument>,
}

/// `[origins.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginDocument {
    /// `http://host:port` or `https://host`; several are weighted.
    #[serde(default)]
    pub urls: Vec<UrlDocument>,
    /// The `Host` sent; the visitor's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Timeouts of the phases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsDocument>,
}

/// A URL alone, or with its weight.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum UrlDocument {
    /// Weight 1.
    Plain(String),
    /// `{ url = "…", weight = 3 }`.
    Weighted {
        /// The URL.
        url: String,
        /// 1 to 1000.
        weight: u16,
    },
}

/// `timeouts = { connect = "2s", … }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsDocument {
    /// See [`super::Timeouts::connect`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<String>,
    /// See [`super::Timeouts::first_byte`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<String>,
    /// See [`super::Timeouts::between_bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between_bytes: Option<String>,
}

/// `[handlers.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandlerDocument {
    /// A path relative to the site file, or `sha256:<hex>`.
    #[serde(default)]
    pub component: String,
    /// What a request may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsDocument>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Configuration, as the handler reads it through `wasi:config`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Hosts outside the site that it may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<String>,
    /// What else it may use: `cache`, `client`, `keyvalue`, `secrets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// What visitors get while it keeps failing: `error` (default), `stale` or `bypass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    /// When it counts as one that keeps failing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerDocument>,
}

/// `breaker = { failures = 50, window = "30s" }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerDocument {
    /// A count; see [`super::BreakerLimits::failures`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    /// A duration; see [`super::BreakerLimits::window`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
}

/// `limits = { cpu = "50ms", memory = "128MiB", … }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsDocument {
    /// A duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// A size: `64MiB`, `1GiB`, `65536`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// A duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<String>,
    /// A count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetches: Option<u32>,
    /// A count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_calls: Option<u32>,
    /// A count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_calls: Option<u32>,
    /// A count, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
}

/// `[[routes]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteDocument {
    /// `/exact`, `/prefix/*`, `/a/*/b`; each `*` is a capture.
    #[serde(default)]
    pub path: String,
    /// An origin's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// A handler's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Handlers' names, in the place of `handler`: what each asks of its own site goes to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handlers: Option<Vec<String>>,
    /// A redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectDocument>,
    /// A response written here.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    pub fixed: Option<StaticDocument>,
    /// How answers are cached; `{ mode = "respect" }` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheDocument>,
}

/// `redirect = { to = "/new/$1", status = 308 }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectDocument {
    /// The location.
    #[serde(default)]
    pub to: String,
    /// 308 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// `static = { status = 200, headers = { … }, body = "…" }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticDocument {
    /// 200 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Content.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}

/// `cache = { mode = "override", ttl = "1d", … }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheDocument {
    /// `respect` (default), `override` or `bypass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// With `override`: one duration for what is cacheable by default (200, 203, 204, 206, 300, 301,
    /// 308, 404, 405, 410, 414, 501), or durations by status: `{ "200-299" = "1d", "404" = "10s" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TtlDocument>,
    /// A duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser_ttl: Option<String>,
    /// A duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<String>,
    /// A duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<String>,
    /// `all` (default), `ignore`, `sort`, `include:a,b` or `exclude:a,b`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Request fields whose values take part in the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Cookies whose values take part in the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<String>,
    /// `false`, `true` (default), or which answers are compressed and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<CompressDocument>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// With a handler: `before`, `behind` (default), `both` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// Whether answers are compressed, or which and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CompressDocument {
    /// Those of the default rule, or none.
    Switch(bool),
    /// `{ types = ["text/*"], min = "1KiB", codings = ["zstd", "br", "gzip"] }`.
    Table(CompressTable),
}

/// `compress = { types = [...], … }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressTable {
    /// Media types: `text/html`, `text/*`, `*+json`; in the place of the default ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
    /// A size; `1KiB` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// `zstd`, `br`, `gzip`, the one that is liked best first; all in this order when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codings: Option<Vec<String>>,
}

/// One duration, or durations by status.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TtlDocument {
    /// For what is cacheable by default.
    All(String),
    /// By status or range of statuses.
    ByStatus(BTreeMap<String, String>),
}

// === impl SiteDocument ===

impl SiteDocument {
    /// Reads a site file.
    ///
    /// # Errors
    /// Where its form is wrong: every fault of its form, and every fault of its content that can be
    /// told nevertheless. A document of the right form is returned unchecked.
    pub fn from_toml(text: &str) -> Result<SiteDocument, Faults> {
        SiteDocument::of(read::toml(text, MAX_DOCUMENT_BYTES))
    }

    /// Reads what the API takes.
    ///
    /// # Errors
    /// As [`SiteDocument::from_toml`].
    pub fn from_json(bytes: &[u8]) -> Result<SiteDocument, Faults> {
        SiteDocument::of(read::json(bytes, MAX_DOCUMENT_BYTES))
    }

    /// The document as JSON: always the same bytes for the same document.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps with string keys only: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn of(mut reading: read::Reading<SiteDocument>) -> Result<SiteDocument, Faults> {
        let Some(document) = reading.document.take() else { return Err(reading.faults) };
        if !reading.faults.0.is_empty() {
            // Standalone is the wider context: what is wrong there is wrong everywhere.
            let content = Site::from_document(&document, Context::Standalone).err();
            reading.add_content(content.unwrap_or_default());
        }
        reading.faults.or(document)
    }
}

// === impl UrlDocument ===

impl<'de> Deserialize<'de> for UrlDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Weighted {
            #[serde(default)]
            url: String,
            #[serde(default = "one")]
            weight: u16,
        }
        fn one() -> u16 {
            1
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = UrlDocument;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL or { url = \"…\", weight = 1 }")
            }
            fn visit_str<E>(self, value: &str) -> Result<UrlDocument, E> {
                Ok(UrlDocument::Plain(value.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<UrlDocument, A::Error> {
                let Weighted { url, weight } =
                    Weighted::deserialize(MapAccessDeserializer::new(map))?;
                Ok(UrlDocument::Weighted { url, weight })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

// === impl TtlDocument ===

impl<'de> Deserialize<'de> for TtlDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = TtlDocument;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration or { \"200-299\" = \"1d\", \"404\" = \"10s\" }")
            }
            fn visit_str<E>(self, value: &str) -> Result<TtlDocument, E> {
                Ok(TtlDocument::All(value.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TtlDocument, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(TtlDocument::ByStatus)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

// === impl CompressDocument ===

impl<'de> Deserialize<'de> for CompressDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = CompressDocument;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or { types = [\"text/*\"], min = \"1KiB\" }")
            }
            fn visit_bool<E>(self, value: bool) -> Result<CompressDocument, E> {
                Ok(CompressDocument::Switch(value))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CompressDocument, A::Error> {
                CompressTable::deserialize(MapAccessDeserializer::new(map))
                    .map(CompressDocument::Table)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

//! `edge.toml` as it is written, and its checks. May not be seen outside of its parent.

use super::{
    CacheStorage, CertificateFiles, EdgeConfig, EdgeLimits, HandlerHost, Join, Listen, Source,
    check_admin,
};
use crate::Faults;
use crate::check::{HOUR, MS, NAME_RULE, is_name};
use crate::process::Secret;
use crate::units::quote;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use url::Url;

/// More threads than any machine has cores for.
pub(super) const MAX_THREADS: u64 = 1_024;
/// The smallest disk tier, in bytes.
pub(super) const MIN_DISK: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    name: String,
    control: String,
    join_token: Option<String>,
    join_token_file: Option<PathBuf>,
    state_dir: String,
    listen: RawListen,
    admin: Option<String>,
    certificates: Vec<RawCertificate>,
    cache: RawCache,
    threads: Option<u64>,
    allow_private_origins: bool,
    access_log: bool,
    limits: RawLimits,
    handlers: RawHandlers,
    country_database: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawListen {
    http: Vec<String>,
    https: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCertificate {
    cert: String,
    key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCache {
    ram: Option<String>,
    dir: Option<PathBuf>,
    disk: Option<String>,
    max_object: Option<String>,
    ram_object: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    connections: Option<u64>,
    connections_per_client: Option<u64>,
    header: Option<String>,
    header_timeout: Option<String>,
    idle_timeout: Option<String>,
    body_timeout: Option<String>,
    drain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHandlers {
    instances: Option<u64>,
    per_site: Option<u64>,
    memory: Option<String>,
    kv: Option<String>,
    usage_every: Option<String>,
}

impl Raw {
    pub(super) fn check(self, faults: &mut Faults) -> EdgeConfig {
        if self.name.is_empty() {
            faults.add("name", "is missing: the name that this edge goes by");
        } else if !is_name(&self.name) {
            faults.add("name", format!("{} is not a name: {NAME_RULE}", quote(&self.name)));
        }
        if self.state_dir.is_empty() {
            faults.add("state_dir", "is missing: the folder of the last good state");
        }
        let source = self.source(faults);
        let admin = self.admin.as_deref().and_then(|text| faults.address("admin", text));
        check_admin("admin", admin, faults);
        let threads = faults.count("threads", self.threads, 0, 1..=MAX_THREADS);
        let listen = self.listen.check(faults);
        if !listen.https.is_empty() && self.certificates.is_empty() {
            faults.add("listen.https", "needs a certificate: add [[certificates]] cert, key");
        }
        EdgeConfig {
            name: Arc::from(self.name),
            source,
            state_dir: Some(PathBuf::from(self.state_dir)),
            listen,
            admin,
            certificates: certificates(self.certificates, faults),
            cache: self.cache.check(faults),
            threads: usize::try_from(threads).ok().filter(|n| *n > 0),
            allow_private_origins: self.allow_private_origins,
            access_log: self.access_log,
            limits: self.limits.check(faults),
            handlers: self.handlers.check(faults),
            secrets: None,
            country_database: self.country_database,
        }
    }

    fn source(&self, faults: &mut Faults) -> Source {
        if self.control.is_empty() {
            faults.add("control", "is missing: the control plane's URL");
        } else if let Err(message) = check_control(&self.control) {
            faults.add("control", message);
        }
        let join = match (&self.join_token, &self.join_token_file) {
            (Some(_), Some(_)) => {
                faults.add("join_token_file", "is given besides join_token; only one may be");
                Join::Enrolled
            }
            (Some(token), None) => Join::Token(Secret::new(token.clone())),
            (None, Some(file)) => Join::TokenFile(file.clone()),
            (None, None) => Join::Enrolled,
        };
        Source::Control { url: self.control.trim_end_matches('/').to_owned(), join }
    }
}

/// Whether a text is the base URL of a control plane.
fn check_control(text: &str) -> Result<(), String> {
    let wanted = || {
        let example = "write for instance \"https://control.example.com\"";
        format!("{} is not a control plane's URL; {example}", quote(text))
    };
    let url = Url::parse(text).map_err(|_| wanted())?;
    let plain = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        Ok(())
    } else {
        Err(wanted())
    }
}

impl RawListen {
    fn check(&self, faults: &mut Faults) -> Listen {
        let mut all = |name: &str, texts: &[String]| -> Vec<SocketAddr> {
            let each = texts.iter().enumerate();
            each.filter_map(|(at, text)| faults.address(&format!("listen.{name}[{at}]"), text))
                .collect()
        };
        let listen = Listen { http: all("http", &self.http), https: all("https", &self.https) };
        if self.http.is_empty() && self.https.is_empty() {
            faults.add("listen", "needs at least one address in http or https");
        }
        listen
    }
}

fn certificates(raw: Vec<RawCertificate>, faults: &mut Faults) -> Vec<CertificateFiles> {
    let mut all = Vec::new();
    for (index, RawCertificate { cert, key }) in raw.into_iter().enumerate() {
        for (name, value) in [("cert", &cert), ("key", &key)] {
            if value.is_empty() {
                faults.add(format!("certificates[{index}].{name}"), "is missing: a PEM file");
            }
        }
        all.push(CertificateFiles { cert: PathBuf::from(cert), key: PathBuf::from(key) });
    }
    all
}

impl RawCache {
    fn check(self, faults: &mut Faults) -> CacheStorage {
        let default = CacheStorage::default();
        let mut size = |name: &str, text: Option<String>, default, bounds| {
            faults.size(&format!("cache.{name}"), text.as_deref(), default, bounds)
        };
        let is_given = self.max_object.is_some();
        let max_object = size("max_object", self.max_object, 1 << 30, 1..=1 << 60);
        CacheStorage {
            ram: size("ram", self.ram, default.ram, 0..=1 << 50),
            dir: self.dir,
            disk: size("disk", self.disk, default.disk, MIN_DISK..=1 << 60),
            max_object: is_given.then_some(max_object),
            ram_object: size("ram_object", self.ram_object, default.ram_object, 0..=1 << 30),
        }
    }
}

impl RawLimits {
    fn check(self, faults: &mut Faults) -> EdgeLimits {
        let default = EdgeLimits::default();
        let mut count = |name: &str, given: Option<u64>, default: usize| {
            let path = format!("limits.{name}");
            let count = faults.count(&path, given, default as u64, 1..=10_000_000);
            usize::try_from(count).unwrap_or(default)
        };
        let connections = count("connections", self.connections, default.connections);
        let connections_per_client = count(
            "connections_per_client",
            self.connections_per_client,
            default.connections_per_client,
        );
        let header = faults.size(
            "limits.header",
            self.header.as_deref(),
            default.header_bytes as u64,
            // Beyond it a header section is an attack on memory.
            1_024..=1 << 20,
        );
        let mut duration = |name: &str, text: Option<String>, default| {
            faults.duration(&format!("limits.{name}"), text.as_deref(), default, MS * 10..=HOUR)
        };
        EdgeLimits {
            connections,
            connections_per_client,
            header_bytes: usize::try_from(header).unwrap_or(default.header_bytes),
            header_timeout: duration("header_timeout", self.header_timeout, default.header_timeout),
            idle_timeout: duration("idle_timeout", self.idle_timeout, default.idle_timeout),
            body_timeout: duration("body_timeout", self.body_timeout, default.body_timeout),
            drain: duration("drain", self.drain, default.drain),
        }
    }
}

impl RawHandlers {
    fn check(self, faults: &mut Faults) -> HandlerHost {
        let default = HandlerHost::default();
        let mut count = |name: &str, given: Option<u64>, default: u32| {
            let path = format!("handlers.{name}");
            let count = faults.count(&path, given, u64::from(default), 1..=100_000);
            u32::try_from(count).unwrap_or(default)
        };
        HandlerHost {
            instances: count("instances", self.instances, default.instances),
            per_site: count("per_site", self.per_site, default.per_site),
            memory: faults.size(
                "handlers.memory",
                self.memory.as_deref(),
                default.memory,
                1 << 20..=4 << 30,
            ),
            kv: faults.size("handlers.kv", self.kv.as_deref(), default.kv, 1 << 20..=64 << 30),
            usage_every: faults.duration(
                "handlers.usage_every",
                self.usage_every.as_deref(),
                default.usage_every,
                // Each is a write to the edge's disk and to the control plane's.
                MS * 500..=HOUR,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_valid() {
        let config = EdgeConfig::from_toml(include_str!("../../../examples/edge.toml")).unwrap();
        assert_eq!(&*config.name, "fra-1");
        assert_eq!(config.listen.http.len(), 1);
        assert_eq!(config.cache.ram, 2 << 30);
        assert_eq!(config.limits, EdgeLimits::default());
        assert_eq!(config.handlers, HandlerHost::default());
        assert!(!config.allow_private_origins);
    }

    #[test]
    fn the_least_that_an_edge_needs() {
        let text = "name = 'a'\ncontrol = 'http://127.0.0.1:7700/'\nstate_dir = '/s'\n\
                    [listen]\nhttp = ['127.0.0.1:0']\n";
        let config = EdgeConfig::from_toml(text).unwrap();
        let url = "http://127.0.0.1:7700".to_owned();
        assert_eq!(config.source, Source::Control { url, join: Join::Enrolled });
    }

    #[test]
    fn the_cache_says_what_goes_where() {
        let text = "name = 'a'\ncontrol = 'http://127.0.0.1:7700/'\nstate_dir = '/s'\n\
                    [listen]\nhttp = ['127.0.0.1:0']\n[cache]\nram = '0'\ndir = '/c'\n\
                    max_object = '5GiB'\nram_object = '64KiB'\n";
        let cache = EdgeConfig::from_toml(text).unwrap().cache;
        assert_eq!((cache.ram, cache.max_object), (0, Some(5 << 30)));
        assert_eq!(cache.ram_object, 64 << 10);
        assert_eq!(cache.disk, 10 << 30);
    }

    #[test]
    fn every_fault_at_once() {
        let text = "name = 'A B'\ncontrol = 'ftp://x'\njoin_token = 'a'\njoin_token_file = 'b'\n\
                    admin = '0.0.0.0:9090'\nthreads = 0\nthrads = 1\n\
                    [listen]\nhttp = ['80']\nhttps = ['0.0.0.0:443']\n\
                    [cache]\nram = 'x'\nram_object = '1TiB'\n[limits]\nconnections_per_client = 0\n\
                    header = 'big'\nheader_timeout = '2d'\n\
                    [handlers]\ninstances = 0\nper_site = 0\nkv = '1KiB'\nusage_every = '1ms'\n";
        let faults = EdgeConfig::from_toml(text).unwrap_err();
        let mut paths: Vec<_> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "admin",
                "cache.ram",
                "cache.ram_object",
                "control",
                "handlers.instances",
                "handlers.kv",
                "handlers.per_site",
                "handlers.usage_every",
                "join_token_file",
                "limits.connections_per_client",
                "limits.header",
                "limits.header_timeout",
                "listen.http[0]",
                "listen.https",
                "name",
                "state_dir",
                "thrads",
                "threads",
            ]
        );
    }
}

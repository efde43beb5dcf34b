//! `edge.toml`: how an edge runs, and the same for an edge that serves one site file alone. Values
//! only; opens nothing.

mod raw;

use super::{MAX_FILE_BYTES, Secret};
use crate::units::write_size;
use crate::{Faults, read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How an edge runs.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeConfig {
    /// The name that it goes by: in `Via`, `Cache-Status`, `CDN-Loop` and in the control plane's lists.
    pub name: Arc<str>,
    /// Where its sites come from.
    pub source: Source,
    /// Where the last good state and the compiled handlers are kept. Absent in standalone mode, where
    /// a temporary folder does.
    pub state_dir: Option<PathBuf>,
    /// Where visitors connect.
    pub listen: Listen,
    /// Where the admin listener is, on loopback; none when absent.
    pub admin: Option<SocketAddr>,
    /// Certificates for the TLS listeners, chosen by SNI; the first is for clients without SNI.
    pub certificates: Vec<CertificateFiles>,
    /// The cache's storage.
    pub cache: CacheStorage,
    /// Threads of the data path; as many as there are cores when absent.
    pub threads: Option<usize>,
    /// The operator's switch: sites may name origins on private and loopback addresses.
    pub allow_private_origins: bool,
    /// Whether each request is logged.
    pub access_log: bool,
    /// What visitors may take.
    pub limits: EdgeLimits,
    /// What handlers may take of this machine.
    pub handlers: HandlerHost,
    /// The file of its sites' secrets; only where the sites' author and the operator are one person.
    pub secrets: Option<PathBuf>,
    /// The database by which handlers are told the country of a visitor, in the MaxMind DB format.
    pub country_database: Option<PathBuf>,
}

/// Where an edge's sites come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A control plane.
    Control {
        /// Its base URL, `http://host:port` or `https://host`, without a path.
        url: String,
        /// How to enrol; none when it has enrolled before.
        join: Join,
    },
    /// One site file; there is no control plane.
    SiteFile(PathBuf),
}

/// How an edge enrols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// It has enrolled already: its credential is in the state folder.
    Enrolled,
    /// With this join token.
    Token(Secret),
    /// With the join token in this file.
    TokenFile(PathBuf),
}

/// Where visitors connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listen {
    /// Addresses for HTTP/1.1 and HTTP/2 in the clear.
    pub http: Vec<SocketAddr>,
    /// Addresses for TLS.
    pub https: Vec<SocketAddr>,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the site's certificate first.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The cache's storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStorage {
    /// The RAM tier, in bytes; with 0 no object is kept whole in RAM. Default 512 MiB.
    pub ram: u64,
    /// The disk tier's folder; no disk tier when absent.
    pub dir: Option<PathBuf>,
    /// The disk tier, in bytes. Default 10 GiB.
    pub disk: u64,
    /// The longest content that is stored, in bytes; the cache's own default when absent.
    pub max_object: Option<u64>,
    /// The longest content that is kept whole in RAM where there is a disk tier, in bytes. Default
    /// 1 MiB.
    pub ram_object: u64,
}

/// What visitors may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Open connections. Default 20,000.
    pub connections: usize,
    /// Open connections of one client: an IPv4 address, or a network of 64 bits of IPv6. Default 1,024;
    /// behind a load balancer that hides its clients' addresses, as many as it opens.
    pub connections_per_client: usize,
    /// A request's header section, in bytes. Default 64 KiB.
    pub header_bytes: usize,
    /// From the first byte of a request to the end of its header section. Default 10 s.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests. Default 60 s.
    pub idle_timeout: Duration,
    /// The longest pause in a request's content. Default 30 s.
    pub body_timeout: Duration,
    /// How long open requests may go on after SIGTERM. Default 30 s.
    pub drain: Duration,
}

/// What handlers may take of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandlerHost {
    /// Instances at once, of all sites. Default 1,000.
    pub instances: u32,
    /// Requests of one site's handlers at once; a site's own `handler_concurrency` is cut to it.
    /// Default 256.
    pub per_site: u32,
    /// The ceiling of one instance's memory, in bytes; a site's own limit is cut to it. Default
    /// 256 MiB.
    pub memory: u64,
    /// Copies of entries of the sites' key-value stores, in bytes; on a standalone edge, the entries
    /// themselves. Default 64 MiB.
    pub kv: u64,
    /// How often what handlers have used is written down and reported: as much of it is lost when
    /// the edge is killed. Default 10 s.
    pub usage_every: Duration,
}

/// The flags of `verge-edge --site FILE`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standalone {
    /// The site file.
    pub site: PathBuf,
    /// `--listen`, repeatable.
    pub listen: Vec<SocketAddr>,
    /// `--tls-listen`, repeatable.
    pub tls_listen: Vec<SocketAddr>,
    /// `--cert` and `--key`, repeatable, in pairs.
    pub certificates: Vec<CertificateFiles>,
    /// `--admin`.
    pub admin: Option<SocketAddr>,
    /// `--threads`.
    pub threads: Option<usize>,
    /// `--cache-dir`.
    pub cache_dir: Option<PathBuf>,
    /// `--ram`, in bytes.
    pub ram: Option<u64>,
    /// `--disk`, in bytes.
    pub disk: Option<u64>,
    /// `--access-log`.
    pub access_log: bool,
    /// `--secrets`.
    pub secrets: Option<PathBuf>,
    /// `--country-database`.
    pub country_database: Option<PathBuf>,
}

// === impl EdgeConfig ===

impl EdgeConfig {
    /// Reads `edge.toml`.
    ///
    /// # Errors
    /// Every fault of the file.
    pub fn from_toml(text: &str) -> Result<EdgeConfig, Faults> {
        let mut reading = read::toml::<raw::Raw>(text, MAX_FILE_BYTES);
        let Some(raw) = reading.document.take() else { return Err(reading.faults) };
        let mut content = Faults::default();
        let config = raw.check(&mut content);
        reading.add_content(content);
        reading.faults.or(config)
    }

    /// The configuration of an edge that serves one site file alone. Origins on private and loopback
    /// addresses are allowed: the file's author and the operator are one person.
    ///
    /// # Errors
    /// Every fault of the flags, each named as the flag is.
    pub fn standalone(flags: Standalone) -> Result<EdgeConfig, Faults> {
        let mut faults = Faults::default();
        if flags.site.as_os_str().is_empty() {
            faults.add("--site", "is missing");
        }
        if flags.listen.is_empty() && flags.tls_listen.is_empty() {
            faults.add("--listen", "is missing: an edge without a listener serves nobody");
        }
        if !flags.tls_listen.is_empty() && flags.certificates.is_empty() {
            faults.add("--tls-listen", "needs a certificate: give --cert and --key");
        }
        check_admin("--admin", flags.admin, &mut faults);
        if flags.disk.is_some() && flags.cache_dir.is_none() {
            faults.add("--disk", "needs a folder: give --cache-dir");
        }
        if flags.disk.is_some_and(|disk| disk < raw::MIN_DISK) {
            faults.add("--disk", format!("at least {}", write_size(raw::MIN_DISK)));
        }
        let cache = CacheStorage::default();
        let threads =
            faults.count("--threads", flags.threads.map(|n| n as u64), 0, 1..=raw::MAX_THREADS);
        let config = EdgeConfig {
            name: Arc::from("standalone"),
            source: Source::SiteFile(flags.site),
            state_dir: None,
            listen: Listen { http: flags.listen, https: flags.tls_listen },
            admin: flags.admin,
            certificates: flags.certificates,
            cache: CacheStorage {
                ram: flags.ram.unwrap_or(cache.ram),
                dir: flags.cache_dir,
                disk: flags.disk.unwrap_or(cache.disk),
                ..cache
            },
            threads: usize::try_from(threads).ok().filter(|n| *n > 0),
            allow_private_origins: true,
            access_log: flags.access_log,
            limits: EdgeLimits::default(),
            handlers: HandlerHost::default(),
            secrets: flags.secrets,
            country_database: flags.country_database,
        };
        faults.or(config)
    }
}

/// The admin listener has no login: nobody but this machine may reach it.
fn check_admin(path: &str, admin: Option<SocketAddr>, faults: &mut Faults) {
    if let Some(address) = admin.filter(|address| !address.ip().is_loopback()) {
        faults.add(path, format!("{address} is not on loopback; use 127.0.0.1 or [::1]"));
    }
}

impl Default for CacheStorage {
    fn default() -> Self {
        CacheStorage {
            ram: 512 << 20,
            dir: None,
            disk: 10 << 30,
            max_object: None,
            ram_object: 1 << 20,
        }
    }
}

impl Default for EdgeLimits {
    fn default() -> Self {
        EdgeLimits {
            connections: 20_000,
            connections_per_client: 1_024,
            header_bytes: 64 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}

impl Default for HandlerHost {
    fn default() -> Self {
        HandlerHost {
            instances: 1_000,
            per_site: 256,
            memory: 256 << 20,
            kv: 64 << 20,
            usage_every: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Standalone {
        Standalone {
            site: PathBuf::from("verge.toml"),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            ..Standalone::default()
        }
    }

    #[test]
    fn standalone_needs_no_more_than_a_site_and_an_address() {
        let config = EdgeConfig::standalone(flags()).unwrap();
        assert_eq!(config.source, Source::SiteFile(PathBuf::from("verge.toml")));
        assert!(config.allow_private_origins);
        assert_eq!(config.cache.ram, 512 << 20);
        assert_eq!(config.threads, None);
    }

    #[test]
    fn everything_on_disk_can_be_asked_for() {
        let config = EdgeConfig::standalone(Standalone {
            ram: Some(0),
            disk: Some(3 << 30),
            cache_dir: Some(PathBuf::from("/c")),
            ..flags()
        })
        .unwrap();
        assert_eq!((config.cache.ram, config.cache.disk), (0, 3 << 30));
        let wrong = Standalone { disk: Some(5), ..flags() };
        let faults = EdgeConfig::standalone(wrong).unwrap_err();
        assert_eq!(faults.0.len(), 2, "{faults}");
    }

    #[test]
    fn every_wrong_flag_is_named() {
        let faults = EdgeConfig::standalone(Standalone {
            tls_listen: vec![SocketAddr::from(([0, 0, 0, 0], 443))],
            admin: Some(SocketAddr::from(([0, 0, 0, 0], 9090))),
            threads: Some(0),
            ..Standalone::default()
        })
        .unwrap_err();
        let paths: Vec<_> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["--site", "--tls-listen", "--admin", "--threads"]);
    }

    #[test]
    fn a_secret_is_not_in_the_debug_output() {
        let join = Join::Token(Secret::new("vrg_canary"));
        assert!(!format!("{join:?}").contains("canary"));
    }
}

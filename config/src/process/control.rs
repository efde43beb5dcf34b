//! `control.toml`: how a control plane runs. Values only; opens nothing.

use super::MAX_FILE_BYTES;
use crate::check::{HOUR, YEAR};
use crate::{Faults, read};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The name of the key file beside the store.
pub const SECRETS_KEY: &str = "secrets.key";

/// How a control plane runs.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlConfig {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where the store and the blobs are.
    pub data_dir: PathBuf,
    /// The key file of sites' secrets; beside the store when absent.
    pub secrets_key: Option<PathBuf>,
    /// How long purges are kept for edges that are away.
    pub purge_log: PurgeLog,
    /// How fast one tenant may purge.
    pub purge_rate: Rate,
    /// How fast one tenant and its handlers may write entries of its sites' key-value stores.
    pub kv_rate: Rate,
    /// What one client or tenant may take.
    pub limits: ControlLimits,
}

/// How long purges are kept; whichever bound is met first trims the log, and an edge that was away
/// for longer flushes its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeLog {
    /// At most this many. Default 100,000.
    pub entries: u64,
    /// At most this old. Default 30 days.
    pub age: Duration,
}

/// A token bucket of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many per second in the long run. Default 100 purges, 50 writes of entries.
    pub per_second: u32,
    /// So many at once. Default 1,000 purges, 500 writes of entries.
    pub burst: u32,
}

/// What one client or tenant may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlLimits {
    /// Open connections, feeds included. Default 4,096.
    pub connections: usize,
    /// The largest blob, in bytes. Default 50 MiB.
    pub blob_bytes: u64,
    /// How long a request other than a feed may take. Default 60 s.
    pub request: Duration,
}

impl ControlConfig {
    /// Everything by default but the place of the data and the address.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> ControlConfig {
        ControlConfig {
            listen,
            data_dir: data_dir.into(),
            secrets_key: None,
            purge_log: PurgeLog { entries: 100_000, age: Duration::from_secs(30 * 86_400) },
            purge_rate: Rate { per_second: 100, burst: 1_000 },
            kv_rate: Rate { per_second: 50, burst: 500 },
            limits: ControlLimits {
                connections: 4_096,
                blob_bytes: 50 * 1024 * 1024,
                request: Duration::from_secs(60),
            },
        }
    }

    /// Where the key file of sites' secrets is.
    #[must_use]
    pub fn secrets_key(&self) -> PathBuf {
        self.secrets_key.clone().unwrap_or_else(|| self.data_dir.join(SECRETS_KEY))
    }

    /// Reads `control.toml`.
    ///
    /// # Errors
    /// Every fault of the file.
    pub fn from_toml(text: &str) -> Result<ControlConfig, Faults> {
        let mut reading = read::toml::<Raw>(text, MAX_FILE_BYTES);
        let Some(raw) = reading.document.take() else { return Err(reading.faults) };
        let mut content = Faults::default();
        let config = raw.check(&mut content);
        reading.add_content(content);
        reading.faults.or(config)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    listen: Option<String>,
    data_dir: String,
    secrets_key: Option<String>,
    purge_log: RawPurgeLog,
    purge_rate: RawRate,
    kv_rate: RawRate,
    limits: RawLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPurgeLog {
    entries: Option<u64>,
    age: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRate {
    per_second: Option<u32>,
    burst: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    connections: Option<u64>,
    blob: Option<String>,
    request: Option<String>,
}

impl Raw {
    fn check(self, faults: &mut Faults) -> ControlConfig {
        let default_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 7700));
        let listen = match &self.listen {
            Some(text) => faults.address("listen", text).unwrap_or(default_listen),
            None => default_listen,
        };
        if self.data_dir.is_empty() {
            faults.add("data_dir", "is missing: the folder of the store and the blobs");
        }
        if self.secrets_key.as_deref() == Some("") {
            faults.add("secrets_key", "is empty; leave it out for the file beside the store");
        }
        let mut config = ControlConfig::new(self.data_dir, listen);
        config.secrets_key = self.secrets_key.map(PathBuf::from);
        let PurgeLog { entries, age } = config.purge_log;
        config.purge_log = PurgeLog {
            entries: faults.count(
                "purge_log.entries",
                self.purge_log.entries,
                entries,
                1..=100_000_000,
            ),
            age: faults.duration("purge_log.age", self.purge_log.age.as_deref(), age, HOUR..=YEAR),
        };
        self.purge_rate.check("purge_rate", &mut config.purge_rate, faults);
        self.kv_rate.check("kv_rate", &mut config.kv_rate, faults);
        self.limits.check(&mut config.limits, faults);
        config
    }
}

impl RawRate {
    fn check(self, path: &str, rate: &mut Rate, faults: &mut Faults) {
        for (name, given, at) in [
            ("per_second", self.per_second, &mut rate.per_second),
            ("burst", self.burst, &mut rate.burst),
        ] {
            let path = format!("{path}.{name}");
            let count = faults.count(&path, given.map(u64::from), u64::from(*at), 1..=1_000_000);
            *at = u32::try_from(count).unwrap_or(*at);
        }
    }
}

impl RawLimits {
    fn check(self, limits: &mut ControlLimits, faults: &mut Faults) {
        let default = limits.connections as u64;
        let connections =
            faults.count("limits.connections", self.connections, default, 1..=1_000_000);
        limits.connections = usize::try_from(connections).unwrap_or(usize::MAX);
        limits.blob_bytes =
            faults.size("limits.blob", self.blob.as_deref(), limits.blob_bytes, 1..=1 << 30);
        limits.request = faults.duration(
            "limits.request",
            self.request.as_deref(),
            limits.request,
            Duration::from_secs(1)..=HOUR,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_valid() {
        let config = ControlConfig::from_toml(include_str!("../../examples/control.toml")).unwrap();
        assert_eq!(config.listen.port(), 7700);
        assert_eq!(config.limits.blob_bytes, 50 << 20);
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let config = ControlConfig::from_toml("data_dir = '/var/lib/verge'").unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 7700));
        assert_eq!(config, ControlConfig::new("/var/lib/verge", listen));
    }

    #[test]
    fn the_key_of_secrets_is_beside_the_store_or_where_it_is_said_to_be() {
        let read = |text: &str| ControlConfig::from_toml(text).unwrap().secrets_key();
        assert_eq!(read("data_dir = '/store'"), PathBuf::from("/store/secrets.key"));
        let elsewhere = "data_dir = '/store'\nsecrets_key = '/keys/verge'";
        assert_eq!(read(elsewhere), PathBuf::from("/keys/verge"));
        assert!(ControlConfig::from_toml("data_dir = '/store'\nsecrets_key = ''").is_err());
    }

    #[test]
    fn every_fault_at_once() {
        let text = "listen = 'localhost'\nextra = 1\n[purge_log]\nage = '1s'\n\
                    [purge_rate]\nburst = 0\n[kv_rate]\nper_second = 0\n[limits]\nblob = '2TiB'\nrequest = 5\n";
        let faults = ControlConfig::from_toml(text).unwrap_err();
        let mut paths: Vec<_> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "data_dir",
                "extra",
                "kv_rate.per_second",
                "limits.blob",
                "limits.request",
                "listen",
                "purge_log.age",
                "purge_rate.burst"
            ]
        );
    }
}

//! The files that are read at the start and again at SIGHUP: certificates and the database of countries. What is
//! in force stays when a new file cannot be used.

use super::RunError;
use crate::countries::Countries;
use crate::listen::{CertificateFiles, Certificates};
use std::sync::Arc;
use tokio::signal::unix::Signal;
use verge_config::process::edge::EdgeConfig;

/// What was read; whatever the configuration does not name is not there.
#[derive(Clone)]
pub(super) struct Renewed {
    /// For the TLS listeners.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// For handlers.
    pub(super) countries: Option<Arc<Countries>>,
    files: Vec<CertificateFiles>,
}

impl Renewed {
    pub(super) fn read(config: &EdgeConfig) -> Result<Renewed, RunError> {
        let pairs = config.certificates.iter();
        let files: Vec<_> = pairs
            .map(|pair| CertificateFiles { chain: pair.cert.clone(), key: pair.key.clone() })
            .collect();
        let certificates = if config.listen.https.is_empty() {
            None
        } else {
            Some(Arc::new(Certificates::load(&files)?))
        };
        let countries = config.country_database.as_deref().map(Countries::open).transpose()?;
        Ok(Renewed { certificates, countries: countries.map(Arc::new), files })
    }

    /// Reads the files again, whenever it is asked to.
    pub(super) async fn at(self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            match self.certificates.as_ref().map(|certificates| certificates.reload(&self.files)) {
                None => tracing::info!("there are no certificates to be read again"),
                Some(Ok(())) => tracing::info!("certificates read again"),
                Some(Err(error)) => tracing::error!(%error, "the certificates in force stay"),
            }
            match self.countries.as_ref().map(|countries| countries.reload()) {
                None => {}
                Some(Ok(())) => tracing::info!("the database of countries was read again"),
                Some(Err(error)) => {
                    tracing::error!(%error, "the database of countries in force stays");
                }
            }
        }
    }
}

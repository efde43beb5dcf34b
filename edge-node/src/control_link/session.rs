//! Who the edge is to its control plane: enrolment with a join token, and the credential that every
//! request carries from then on. May not know what the requests say.

use super::client::{ClientError, Content, ControlClient};
use super::last_good::LastGood;
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use verge_config::api::{Enrol, Enrolled};
use verge_config::process::Secret;

/// The longest answer to an enrolment.
const ANSWER_MAX: usize = 64 * 1024;
/// How long an answer's content may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The edge's software version, as it tells it.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why the edge has no standing with its control plane.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The control plane does not answer as it should.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is neither a credential nor a way to one.
    #[error("the edge is not enrolled and has no join token; set join_token or join_token_file")]
    NotEnrolled,
}

/// The edge's standing with its control plane.
pub(super) struct Session {
    client: ControlClient,
    name: Arc<str>,
    join: Option<Secret>,
    credential: RwLock<Option<Secret>>,
    kept: Arc<LastGood>,
}

// === impl Session ===

impl Session {
    pub(super) fn new(
        client: ControlClient,
        name: Arc<str>,
        join: Option<Secret>,
        kept: Arc<LastGood>,
    ) -> Session {
        let credential = RwLock::new(kept.credential());
        Session { client, name, join, credential, kept }
    }

    /// Sees that there is a credential: enrols when there is none.
    pub(super) async fn ensure(&self) -> Result<(), SessionError> {
        if self.credential.read().is_some() {
            return Ok(());
        }
        let join = self.join.as_ref().ok_or(SessionError::NotEnrolled)?;
        let body = Enrol { name: self.name.to_string(), version: VERSION.to_owned() };
        let body =
            serde_json::to_vec(&body).map_err(|error| ClientError::Malformed(error.to_string()))?;
        let response = self.client.send(Method::POST, "/v1/edges", join, Some(body.into())).await?;
        let answer = collect(response, ANSWER_MAX, BODY_TIMEOUT).await?;
        let enrolled: Enrolled = serde_json::from_slice(&answer)
            // The answer holds the credential: what serde would say of it is not for a log.
            .map_err(|_| ClientError::Malformed("not an enrolment".to_owned()))?;
        let credential = Secret::new(enrolled.token);
        if let Err(error) = self.kept.save_credential(&credential) {
            tracing::error!(%error, "the credential is not kept; the edge enrols again after a restart");
        }
        *self.credential.write() = Some(credential);
        tracing::info!(edge = %self.name, id = enrolled.id, "enrolled");
        Ok(())
    }

    /// Sends one request as this edge and gives the response when it is a success.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        content: Option<Content>,
    ) -> Result<Response<Incoming>, SessionError> {
        let credential = self.credential.read().clone().ok_or(SessionError::NotEnrolled)?;
        let result = self.client.send(method, target, &credential, content).await;
        self.judged(&credential, result)
    }

    /// As a GET of [`Session::send`], but only over a connection that nobody between can read.
    pub(super) async fn get_in_private(
        &self,
        target: &str,
    ) -> Result<Response<Incoming>, SessionError> {
        let credential = self.credential.read().clone().ok_or(SessionError::NotEnrolled)?;
        let result = self.client.get_in_private(target, &credential).await;
        self.judged(&credential, result)
    }

    /// A credential that is refused is given up where there is a way to another.
    fn judged(
        &self,
        credential: &Secret,
        result: Result<Response<Incoming>, ClientError>,
    ) -> Result<Response<Incoming>, SessionError> {
        if result.as_ref().is_err_and(ClientError::is_unauthorised) && self.join.is_some() {
            // Enrolled again at the next attempt; without a join token the credential may still
            // become good again, when the control plane's store is brought back.
            let mut current = self.credential.write();
            if current.as_ref() == Some(credential) {
                *current = None;
            }
        }
        Ok(result?)
    }

    /// Drops the connection, so that the next request opens a new one.
    pub(super) async fn disconnect(&self) {
        self.client.disconnect().await;
    }
}

/// A response's content of at most `limit` bytes, each part of it within `patience`.
pub(super) async fn collect(
    response: Response<Incoming>,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, ClientError> {
    let mut body = Limited::new(response.into_body(), limit);
    let mut bytes = Vec::new();
    loop {
        let frame =
            tokio::time::timeout(patience, body.frame()).await.map_err(|_| ClientError::Timeout)?;
        match frame {
            None => return Ok(bytes.into()),
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Some(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(ClientError::Malformed(format!("more than {limit} bytes")));
            }
            Some(Err(error)) => return Err(ClientError::Broken(error.to_string())),
        }
    }
}

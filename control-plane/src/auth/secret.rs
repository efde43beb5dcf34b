//! Makes secrets and hashes them. A secret has 256 random bits, so a plain SHA-256 is enough at rest.

use crate::state::SecretHash;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use std::fmt;

/// A new secret. Shown once to the caller that asked for it; its `Debug` says nothing.
pub(crate) struct Secret(String);

/// The system has no randomness to give.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source fails")]
pub struct NoRandomness;

// === impl Secret ===

impl Secret {
    /// `vrg_` and 256 bits of the system's randomness.
    pub(crate) fn new() -> Result<Secret, NoRandomness> {
        Secret::beginning("vrg_")
    }

    /// As [`Secret::new`], for a preview: `vpv_`, so that it is not taken for a token of the API.
    pub(crate) fn of_preview() -> Result<Secret, NoRandomness> {
        Secret::beginning("vpv_")
    }

    fn beginning(prefix: &str) -> Result<Secret, NoRandomness> {
        let mut bytes = [0_u8; 32];
        OsRng.try_fill_bytes(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Secret(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    pub(crate) fn hash(&self) -> SecretHash {
        hash(&self.0)
    }

    /// The secret itself, on its one way out.
    pub(crate) fn reveal(self) -> String {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The form in which a secret is kept and looked up.
pub(crate) fn hash(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// A name for a new thing: the prefix and 96 random bits.
pub(crate) fn random_id(prefix: &str) -> Result<String, NoRandomness> {
    let mut bytes = [0_u8; 12];
    OsRng.try_fill_bytes(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(format!("{prefix}_{}", hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_never_show() {
        let (a, b) = (Secret::new().unwrap(), Secret::new().unwrap());
        assert_eq!(format!("{a:?}"), "Secret(…)");
        assert_ne!(a.hash(), b.hash());
        let revealed = a.reveal();
        assert_eq!(revealed.len(), 4 + 43);
        assert!(revealed.starts_with("vrg_"));
    }
}

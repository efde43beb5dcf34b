//! Seals bytes so that only the holder of a key can read them or make others of them (ChaCha20-Poly1305,
//! RFC 8439). Pure: keys and nonces come in.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use std::fmt;
pub use zeroize::Zeroizing;

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// The length of a nonce, in bytes. It is random for each text: one key is good for 2^32 of them.
pub const NONCE_BYTES: usize = NONCE_LEN;

/// A key that seals and opens; its `Debug` says nothing of it.
pub struct SealKey {
    id: String,
    key: LessSafeKey,
}

/// Why something is not sealed or opened. Nothing of either text is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed with another key, for another place, or was changed since.
    #[error("it was sealed with another key or for another place, or it is damaged")]
    NotOpened,
    /// It is longer than anything that can be sealed.
    #[error("it is too long to be sealed")]
    NotSealed,
}

// === impl SealKey ===

impl SealKey {
    /// A key of [`KEY_BYTES`] random bytes; none of any other length.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<SealKey> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?);
        let mut named = Zeroizing::new(b"verge key id 1\0".to_vec());
        named.extend_from_slice(bytes);
        let hash = digest(&SHA256, &named);
        let id = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some(SealKey { id, key })
    }

    /// Tells this key from others and nothing else of it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals `plain` for the place that `associated` names: nonce, text, tag.
    ///
    /// # Errors
    /// When it is longer than 256 GiB.
    pub fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        // Sealed in place, in the room that it needs: no copy of the text is left behind.
        let mut text =
            Zeroizing::new(Vec::with_capacity(plain.len() + CHACHA20_POLY1305.tag_len()));
        text.extend_from_slice(plain);
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, Aad::from(associated), &mut *text)
            .map_err(|_| SealError::NotSealed)?;
        Ok([nonce.as_slice(), &text].concat())
    }

    /// Opens what was sealed with this key for this place.
    ///
    /// # Errors
    /// Whatever else it is.
    pub fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, text) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError::NotOpened)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::NotOpened)?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self.key.open_in_place(nonce, Aad::from(associated), &mut text);
        let length = opened.map_err(|_| SealError::NotOpened)?.len();
        text.truncate(length);
        Ok(text)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> SealKey {
        SealKey::new(&[byte; KEY_BYTES]).unwrap()
    }

    #[test]
    fn a_key_has_its_length_and_shows_nothing() {
        assert!(SealKey::new(&[1; 31]).is_none() && SealKey::new(&[1; 33]).is_none());
        assert_eq!(format!("{:?}", key(65)), "SealKey(hidden)");
        assert_eq!(key(1).id().len(), 16);
        assert_ne!(key(1).id(), key(2).id());
    }

    #[test]
    fn the_way_of_rfc_8439_is_the_one_taken() {
        // Section 2.8.2.
        let key: Vec<u8> = (0x80..=0x9f).collect();
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let associated = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                      for the future, sunscreen would be it.";
        let sealed = SealKey::new(&key).unwrap().seal(nonce, &associated, plain).unwrap();
        assert_eq!(sealed[..12], nonce);
        assert_eq!(sealed[12..16], [0xd3, 0x1a, 0x8d, 0x34]);
        assert_eq!(sealed[sealed.len() - 4..], [0xd0, 0x60, 0x06, 0x91]);
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_and_shows_nothing(plain in prop::collection::vec(any::<u8>(), 0..600), place in "[a-z]{0,20}", nonce: [u8; 12]) {
            let sealed = key(1).seal(nonce, place.as_bytes(), &plain).unwrap();
            prop_assert_eq!(sealed.len(), NONCE_BYTES + plain.len() + 16);
            prop_assert!(plain.len() < 8 || !sealed.windows(plain.len()).any(|part| part == plain));
            let opened = key(1).open(place.as_bytes(), &sealed).unwrap();
            prop_assert_eq!(&*opened, &plain);
            prop_assert!(key(2).open(place.as_bytes(), &sealed).is_err());
            let elsewhere = format!("{place}x");
            prop_assert!(key(1).open(elsewhere.as_bytes(), &sealed).is_err());
        }

        #[test]
        fn any_flipped_byte_and_any_cut_is_refused(plain in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let sealed = key(1).seal([3; 12], b"place", &plain).unwrap();
            let at = at.index(sealed.len());
            prop_assert_eq!(key(1).open(b"place", &sealed[..at]).err(), Some(SealError::NotOpened));
            let mut flipped = sealed.clone();
            flipped[at] ^= flip;
            prop_assert_eq!(key(1).open(b"place", &flipped).err(), Some(SealError::NotOpened));
            let longer = [sealed.as_slice(), &[flip]].concat();
            prop_assert_eq!(key(1).open(b"place", &longer).err(), Some(SealError::NotOpened));
        }

        #[test]
        fn whatever_comes_is_refused_and_nothing_breaks(bytes in prop::collection::vec(any::<u8>(), 0..300), place in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(key(1).open(&place, &bytes).err(), Some(SealError::NotOpened));
        }
    }
}

//! Debug tokens as a site file names them: by their hashes, so that the file gives none of them away.

use super::{is_digest, over};
use crate::Faults;
use crate::units::quote;
use std::collections::HashSet;

/// The most debug tokens of a site.
pub const MAX_DEBUG_TOKENS: usize = 16;

/// The hashes.
pub(super) fn check(raw: &[String], faults: &mut Faults) -> Vec<[u8; 32]> {
    over("debug_tokens", raw.len(), MAX_DEBUG_TOKENS, faults);
    let mut seen = HashSet::new();
    let mut hashes = Vec::new();
    for (index, text) in raw.iter().take(MAX_DEBUG_TOKENS).enumerate() {
        let path = format!("debug_tokens[{index}]");
        match text.strip_prefix("sha256:").and_then(decode) {
            Some(hash) if seen.insert(hash) => hashes.push(hash),
            Some(_) => faults.add(path, "is there already"),
            // What stands here may be a token itself: it is not repeated in a message.
            None => faults.add(
                path,
                format!(
                    "is not a token's hash: write {} and 64 lower-case hexadecimal digits, as \
                     `verge debug-token` prints it; never the token itself",
                    quote("sha256:")
                ),
            ),
        }
    }
    hashes
}

fn decode(text: &str) -> Option<[u8; 32]> {
    if !is_digest(text) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_and_anything_else_is_a_fault_that_tells_no_secret() {
        let good = format!("sha256:{}{}", "0f".repeat(31), "a5");
        let mut faults = Faults::default();
        let hashes = check(std::slice::from_ref(&good), &mut faults);
        assert!(faults.0.is_empty());
        assert_eq!((hashes[0][0], hashes[0][31]), (0x0f, 0xa5));
        let wrong = [good.clone(), good, "vdbg_canary".into(), "sha256:ABC".into()];
        check(&wrong, &mut faults);
        let paths: Vec<_> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["debug_tokens[1]", "debug_tokens[2]", "debug_tokens[3]"]);
        assert!(!faults.to_string().contains("canary"));
    }

    #[test]
    fn there_are_not_too_many() {
        let many: Vec<String> = (0..17).map(|n| format!("sha256:{n:064x}")).collect();
        let mut faults = Faults::default();
        assert_eq!(check(&many, &mut faults).len(), MAX_DEBUG_TOKENS);
        assert_eq!(faults.0[0].path, "debug_tokens");
    }
}

//! What fails today and is known to: an id that no longer fails is a fault too, so that the list shrinks.

/// The id of a case, and why it fails.
pub(crate) const KNOWN: &[(&str, &str)] = &[];

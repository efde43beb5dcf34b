//! What fails today and is known to: an id that no longer fails is a fault too, so that the list shrinks.

/// The id of a case, and why it fails.
pub(crate) const KNOWN: &[(&str, &str)] = &[
    // RFC 9111 section 4.3.4 says so; the public suite requires the opposite
    // (`304-etag-update-response-ETag`), and what it requires is what caches do.
    ("304-other", "a 304 for another strong validator updates the stored lifetime"),
];

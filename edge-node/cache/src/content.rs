//! Where a stored response's content is. Says it, and fetches nothing.

use crate::api::FilePart;
use crate::disk::Filed;
use bytes::Bytes;
use std::sync::Arc;

/// Where the content is.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// In memory, behind the header section.
    Inline,
    /// In memory, in a piece of its own: shared with the object that this one confirms.
    Shared(Arc<Bytes>),
    /// In memory, in a file, which the kernel sends without copying it.
    MemoryFile(Arc<FilePart>),
    /// In a file, and in memory for as long as the RAM tier keeps it.
    Filed(Arc<Filed>),
}

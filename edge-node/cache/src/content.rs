//! Where a stored response's content is. Says it, and fetches nothing.

use crate::disk::Filed;
use crate::open_file::OpenFile;
use bytes::Bytes;
use std::sync::Arc;

/// Where the content is.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// In memory, behind the header section.
    Inline,
    /// In memory, in a piece of its own: shared with the object that this one confirms.
    Shared(Bytes),
    /// In memory, in a file: content of so many bytes, which the kernel sends without copying it.
    MemoryFile(Arc<OpenFile>, u64),
    /// In a file, and in memory for as long as the RAM tier keeps it.
    Filed(Arc<Filed>),
}

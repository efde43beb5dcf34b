//! The site's secrets. Needs `grants = ["secrets"]`.

use crate::Error;
use crate::bindings::verge::edge::secrets;

/// A secret, held and not yet seen: handed around, printed or logged, it says nothing.
#[derive(Debug)]
pub struct Secret(secrets::Secret);

impl Secret {
    /// The value.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.reveal()
    }
}

/// The secret of this name, or none where the site has none such.
///
/// # Errors
/// When it is not granted.
pub fn get(name: &str) -> Result<Option<Secret>, Error> {
    secrets::get(name).map(|found| found.map(Secret))
}

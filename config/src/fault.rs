//! What is wrong with a document, all of it at once, each fault with its place.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One thing that is wrong and where: `routes[2].origin: no origin named "wb"; did you mean "web"?`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The place in the document, in the notation of the document's author (`routes[2].cache.ttl`).
    /// Empty when the fault is of the document as a whole.
    pub path: String,
    /// What is wrong and, where it can be told, what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Every fault of one document; never empty when it is returned as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault { path: path.into(), message: message.into() });
    }

    /// `value` when nothing is wrong, all the faults otherwise.
    ///
    /// # Errors
    /// The faults noted so far, when there are any.
    pub fn or<T>(self, value: T) -> Result<T, Faults> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    /// A single fault.
    #[must_use]
    pub fn one(path: impl Into<String>, message: impl Into<String>) -> Faults {
        let mut faults = Faults::default();
        faults.add(path, message);
        faults
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

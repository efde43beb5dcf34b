//! A site's secrets as a file has them: `NAME = "value"` (TOML). Pure; a value is in no message, and
//! nothing that may be one is either.

use crate::process::Secret;
use crate::{Faults, read};
use std::collections::BTreeMap;

/// The longest file of secrets, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// The most secrets of a site.
pub const MAX_SECRETS: usize = 128;
/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;

/// Secrets by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    /// Reads a file of secrets.
    ///
    /// # Errors
    /// Every fault of the file.
    pub fn from_toml(text: &str) -> Result<Secrets, Faults> {
        if text.len() > MAX_FILE_BYTES {
            return Err(Faults::one("", format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| read::position(text, span.start));
            // The parser's own words may repeat what stands there.
            Faults::one(place.unwrap_or_default(), "is not TOML; write NAME = \"value\"")
        })?;
        let mut faults = Faults::default();
        if table.len() > MAX_SECRETS {
            faults.add("", format!("{} secrets; at most {MAX_SECRETS}", table.len()));
        }
        let mut secrets = BTreeMap::new();
        for (index, (name, value)) in table.into_iter().take(MAX_SECRETS).enumerate() {
            if !is_name(&name) {
                let rule = format!(
                    "its name is not one: 1 to {MAX_NAME_BYTES} letters, digits and _, no digit first"
                );
                faults.add(format!("entry {}, by name", index + 1), rule);
                continue;
            }
            match value {
                toml::Value::String(value) if value.len() > MAX_VALUE_BYTES => {
                    faults.add(name, format!("longer than {MAX_VALUE_BYTES} bytes"));
                }
                toml::Value::String(value) => {
                    secrets.insert(name, Secret::new(value));
                }
                _ => faults.add(name, "is not a text; write NAME = \"value\""),
            }
        }
        faults.or(Secrets(secrets))
    }

    /// The secret of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }
}

fn is_name(name: &str) -> bool {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(letters)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_values_are_read() {
        let secrets = Secrets::from_toml("A = 'x'\n_b2 = \"\"\n# a note\n").unwrap();
        assert_eq!(secrets.get("A").map(Secret::reveal), Some("x"));
        assert_eq!(secrets.get("_b2").map(Secret::reveal), Some(""));
        assert_eq!(secrets.get("a"), None);
        assert_eq!(Secrets::from_toml(""), Ok(Secrets::default()));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is_told() {
        for (text, wanted) in [
            ("A = canary", "line 1, column 5: is not TOML"),
            ("A = 'canary", "is not TOML"),
            ("'canary' = 'a'\nA = 'canary'\nA = 'canary'", "is not TOML"),
            ("A = ['canary']", "A: is not a text"),
            ("A = 1234567", "A: is not a text"),
            ("[A]\nB = 'canary'", "A: is not a text"),
            ("'canary x' = 'canary'", "entry 1, by name: its name is not one"),
            ("'1canary' = 'canary'", "its name is not one"),
        ] {
            let faults = Secrets::from_toml(text).unwrap_err();
            let told = format!("{faults} {faults:?}");
            assert!(told.contains(wanted), "{text}: {told}");
            assert!(!told.contains("canary") && !told.contains("1234567"), "{told}");
        }
        let long = format!("A = '{}'", "x".repeat(MAX_VALUE_BYTES + 1));
        assert_eq!(Secrets::from_toml(&long).unwrap_err().0[0].path, "A");
        let many: String = (0..=MAX_SECRETS).map(|n| format!("A{n} = ''\n")).collect();
        assert!(Secrets::from_toml(&many).unwrap_err().to_string().contains("at most 128"));
        assert!(Secrets::from_toml(&"#".repeat(MAX_FILE_BYTES + 1)).is_err());
    }

    #[test]
    fn nothing_shows_a_value_by_itself() {
        let secrets = Secrets::from_toml("A = 'canary'").unwrap();
        let told = format!("{secrets:?} {:?}", secrets.get("A"));
        assert!(!told.contains("canary") && told.contains("\"A\""), "{told}");
    }

    proptest! {
        /// A value is read as it was written, and shown by nothing but `reveal`.
        #[test]
        fn any_value_is_kept_and_none_is_told(value in "[a-z ä\n\"'=#]{8,60}") {
            let mut table = toml::Table::new();
            table.insert("NAME".to_owned(), toml::Value::String(value.clone()));
            let secrets = Secrets::from_toml(&table.to_string()).unwrap();
            prop_assert_eq!(secrets.get("NAME").map(Secret::reveal), Some(value.as_str()));
            let shown = format!("{secrets:?}");
            prop_assert!(!shown.contains(&value));
        }
    }
}

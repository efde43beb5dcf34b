//! A site's secrets: as a file has them, `NAME = "value"` (TOML), and on their way from a developer over the
//! control plane to the edges. Pure; a value is in no message, and nothing that may be one is either.

use crate::process::Secret;
use crate::{Faults, Revision, read};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// The longest file of secrets, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// The most secrets of a site.
pub const MAX_SECRETS: usize = 128;
/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// What a name is, in words.
const NAME_RULE: &str = "1 to 128 letters, digits and _, no digit first";
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;

/// The longest answer that tells an edge a site's secrets, in bytes: every byte of a value may be written as
/// six.
pub const MAX_ANSWER_BYTES: usize =
    MAX_SECRETS * (6 * MAX_VALUE_BYTES + MAX_NAME_BYTES + 16) + 1024;

/// Secrets by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, Secret>);

/// The body of `PUT /v1/sites/{site}/secrets/{secret}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// The value; of [`MAX_VALUE_BYTES`] at most.
    #[serde(with = "revealed")]
    pub value: Secret,
}

/// The answer of `GET /v1/edges/self/secrets/{site}`: all of a site's secrets, for an edge that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSecrets {
    /// The revision of the last change to them; zero before the first.
    pub revision: Revision,
    /// All of them.
    #[serde(with = "all_revealed")]
    pub secrets: Secrets,
}

/// How a site's secrets are named among what is told of sites: as no site and no preview is.
#[must_use]
pub fn secrets_of(site: &str) -> String {
    format!("{site}@secrets")
}

/// Every fault of a secret that is to be kept, by the place of each.
///
/// # Errors
/// What is wrong with its name or its value; neither is in the text.
pub fn check(name: &str, value: &Secret) -> Result<(), Faults> {
    let mut faults = Faults::default();
    if !is_name(name) {
        faults.add("name", format!("is not one: {NAME_RULE}"));
    }
    if value.reveal().len() > MAX_VALUE_BYTES {
        faults.add("value", format!("longer than {MAX_VALUE_BYTES} bytes"));
    }
    faults.or(())
}

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
                let rule = format!("its name is not one: {NAME_RULE}");
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

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, Secret)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (String, Secret)>>(secrets: I) -> Secrets {
        Secrets(secrets.into_iter().collect())
    }
}

/// A value on its way to who may have it. [`Secret`] itself is not `Serialize`, so that it gets into no
/// document by accident.
mod revealed {
    use super::{Deserialize, Deserializer, Secret, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.reveal())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}

/// As [`revealed`], of all of them.
mod all_revealed {
    use super::{BTreeMap, Deserialize, Deserializer, Secret, Secrets, Serializer};

    pub(super) fn serialize<S: Serializer>(secrets: &Secrets, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(secrets.0.iter().map(|(name, secret)| (name, secret.reveal())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secrets, D::Error> {
        let secrets = BTreeMap::<String, String>::deserialize(from)?;
        Ok(secrets.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
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

    #[test]
    fn what_is_to_be_kept_is_checked_and_not_told() {
        let long = Secret::new("x".repeat(MAX_VALUE_BYTES + 1));
        let faults = check("1canary", &long).unwrap_err();
        let paths: Vec<_> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["name", "value"]);
        assert!(!faults.to_string().contains("canary"));
        check("KEY_1", &Secret::new("x".repeat(MAX_VALUE_BYTES))).unwrap();
    }

    #[test]
    fn the_longest_answer_has_room_for_the_most_secrets() {
        // What takes the most room: control characters, of which JSON makes six bytes each.
        let one = |n: usize| {
            let name = format!("{n:A>width$}", width = MAX_NAME_BYTES);
            (name, Secret::new("\u{1}".repeat(MAX_VALUE_BYTES)))
        };
        let secrets: Secrets = (0..MAX_SECRETS).map(one).collect();
        let told = SiteSecrets { revision: Revision(u64::MAX), secrets };
        let text = serde_json::to_vec(&told).unwrap();
        assert!(text.len() <= MAX_ANSWER_BYTES, "{}", text.len());
        let read: SiteSecrets = serde_json::from_slice(&text).unwrap();
        assert_eq!((read.secrets.len(), read), (MAX_SECRETS, told));
    }

    #[test]
    fn what_travels_shows_its_values_in_its_content_alone() {
        let secrets: Secrets = [("A".to_owned(), Secret::new("canary"))].into_iter().collect();
        assert!(!secrets.is_empty());
        let told = SiteSecrets { revision: Revision(3), secrets };
        let new = NewSecret { value: Secret::new("canary") };
        assert!(!format!("{told:?} {new:?}").contains("canary"));
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(text, r#"{"revision":3,"secrets":{"A":"canary"}}"#);
        assert_eq!(serde_json::to_string(&new).unwrap(), r#"{"value":"canary"}"#);
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

//! From text to a raw document: syntax errors with line and column, and every unknown or misplaced
//! field at once, each with its path. Knows no particular document.

use crate::units::{nearest, quote};
use crate::{Fault, Faults};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The most faults that one document is told about; the rest is counted.
pub const MAX_FAULTS: usize = 100;
/// Each misplaced field costs another pass over the document.
const MAX_PASSES: usize = 32;

/// A raw document with the faults of its form. Where there are faults, the document is what was left
/// after the faulty parts were taken out, so that the rest can still be checked.
pub(crate) struct Reading<T> {
    pub(crate) document: Option<T>,
    pub(crate) faults: Faults,
}

/// Reads TOML.
pub(crate) fn toml<T: DeserializeOwned>(text: &str, limit: usize) -> Reading<T> {
    if text.len() > limit {
        return too_long(text.len(), limit);
    }
    match toml::from_str::<Value>(text) {
        Ok(value) => document(value),
        Err(error) => {
            let place = error.span().map_or_else(String::new, |span| position(text, span.start));
            let message = error.message().trim().replace('\n', "; ");
            Reading { document: None, faults: Faults::one(place, message) }
        }
    }
}

/// Reads JSON.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Reading<T> {
    if bytes.len() > limit {
        return too_long(bytes.len(), limit);
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => document(value),
        Err(error) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            Reading { document: None, faults: Faults::one(place, message) }
        }
    }
}

impl<T> Reading<T> {
    /// Adds the faults of the content to those of the form, without those that only follow from a
    /// part that was taken out.
    pub(crate) fn add_content(&mut self, content: Faults) {
        let form: Vec<String> = self.faults.0.iter().map(|fault| fault.path.clone()).collect();
        let follows = |path: &str| form.iter().any(|at| within(at, path) || within(path, at));
        self.faults.0.extend(content.0.into_iter().filter(|fault| !follows(&fault.path)));
        self.faults.cut();
    }
}

impl Faults {
    /// Cuts the list to [`MAX_FAULTS`], and says how many were left out.
    pub(crate) fn cut(&mut self) {
        let more = self.0.len().saturating_sub(MAX_FAULTS);
        if more > 0 {
            self.0.truncate(MAX_FAULTS);
            self.add("", format!("{more} more faults are not listed"));
        }
    }
}

/// Whether `inner` is `outer` or a place below it.
fn within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn too_long<T>(bytes: usize, limit: usize) -> Reading<T> {
    let message = format!("{bytes} bytes long; at most {limit} are read");
    Reading { document: None, faults: Faults::one("", message) }
}

/// A place in a text, for its author.
pub(crate) fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

/// serde stops at the first fault; so each faulty part is noted, taken out, and the rest read again.
fn document<T: DeserializeOwned>(mut value: Value) -> Reading<T> {
    let mut faults = Faults::default();
    for _ in 0..MAX_PASSES {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(document) => return Reading { document: Some(document), faults },
            Err(error) => error,
        };
        let (steps, fault) = explain(&error);
        faults.0.push(fault);
        if !take_out(&mut value, &steps) {
            break;
        }
    }
    Reading { document: None, faults }
}

/// One step from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> (Vec<Step>, Fault) {
    use serde_path_to_error::Segment;
    let mut steps: Vec<Step> = error
        .path()
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { variant } => Some(Step::Key(variant.clone())),
            Segment::Unknown => None,
        })
        .collect();
    let message = error.inner().to_string();
    let mut message = message.split(" at line ").next().unwrap_or_default().to_owned();
    if let Some((field, known)) = unknown_field(&message) {
        if steps.last() != Some(&Step::Key(field.clone())) {
            steps.push(Step::Key(field.clone()));
        }
        message = match nearest(&field, known.iter().map(String::as_str)) {
            Some(meant) => format!("unknown field; did you mean {}?", quote(meant)),
            None => format!("unknown field; known here: {}", known.join(", ")),
        };
    }
    let path = notation(&steps);
    (steps, Fault { path, message })
}

/// The name and the known names of serde's ``unknown field `x`, expected one of `a`, `b` ``.
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (field, rest) = rest.rsplit_once("`, expected ").or_else(|| rest.split_once('`'))?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((field.to_owned(), known))
}

fn notation(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key_notation(key));
            }
        }
    }
    path
}

/// A key as the document's author writes it: quoted where it is not a bare key.
pub(crate) fn key_notation(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !key.is_empty() && key.len() <= 80 && key.bytes().all(bare) {
        key.to_owned()
    } else {
        quote(key)
    }
}

/// Takes the part at `steps` out. An element of a list goes with its whole list, since the places of
/// the others would move. False when nothing was left to take out.
fn take_out(value: &mut Value, steps: &[Step]) -> bool {
    let keep = steps.iter().rposition(|step| matches!(step, Step::Key(_)));
    let Some((Some(Step::Key(key)), parents)) = keep.map(|at| (steps.get(at), steps.get(..at)))
    else {
        return false;
    };
    let mut at = value;
    for step in parents.unwrap_or_default() {
        let next = match step {
            Step::Key(key) => at.get_mut(key),
            Step::Index(index) => at.get_mut(index),
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    at.as_object_mut().is_some_and(|object| object.remove(key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Outer {
        name: String,
        parts: Vec<Part>,
        named: BTreeMap<String, Part>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Part {
        size: u32,
        colour: String,
    }

    fn paths(faults: &Faults) -> Vec<&str> {
        faults.0.iter().map(|fault| fault.path.as_str()).collect()
    }

    #[test]
    fn a_right_document_has_no_faults() {
        let reading = toml::<Outer>("name = 'a'\n[[parts]]\nsize = 3\n", 1000);
        assert_eq!(reading.faults, Faults::default());
        assert_eq!(reading.document.unwrap().parts[0].size, 3);
    }

    #[test]
    fn every_misplaced_field_is_named_at_once() {
        let text = "nme = 'a'\n[[parts]]\nsize = 3\n[[parts]]\nsize = 'x'\ncolor = 'red'\n\
                    [named.\"a b\"]\nsiz = 1\n";
        let reading = toml::<Outer>(text, 1000);
        let mut found = paths(&reading.faults);
        found.sort_unstable();
        assert_eq!(found, ["named.\"a b\".siz", "nme", "parts[1].color", "parts[1].size"]);
        let all = reading.faults.to_string();
        assert!(all.contains("nme: unknown field; did you mean \"name\"?"), "{all}");
        assert!(all.contains("parts[1].color: unknown field; did you mean \"colour\"?"), "{all}");
        assert_eq!(reading.document.unwrap().parts.len(), 2);
    }

    #[test]
    fn syntax_errors_have_a_line_and_a_column() {
        let reading = toml::<Outer>("name = 'a'\nparts = [\n", 1000);
        assert_eq!(paths(&reading.faults), ["line 2, column 10"]);
        let reading = json::<Outer>(b"{\"name\": \"a\",\n }", 1000);
        assert_eq!(paths(&reading.faults), ["line 2, column 2"]);
        assert!(reading.document.is_none());
    }

    #[test]
    fn what_is_no_table_at_all_ends() {
        let reading = json::<Outer>(b"[1]", 1000);
        assert!(!reading.faults.0.is_empty());
        let reading = json::<Outer>(b"7", 1000);
        assert_eq!(reading.faults.0.len(), 1);
    }

    #[test]
    fn a_long_text_is_not_read() {
        let reading = toml::<Outer>(&"#".repeat(1001), 1000);
        assert!(reading.faults.to_string().contains("at most 1000"));
    }

    #[test]
    fn content_that_follows_from_form_is_left_out() {
        let mut reading = toml::<Outer>("[[parts]]\nsize = 'x'\n", 1000);
        let mut content = Faults::default();
        content.add("parts[0].size", "too small");
        content.add("parts[0]", "needs a size");
        content.add("parts[0].colour", "is missing");
        reading.add_content(content);
        assert_eq!(paths(&reading.faults), ["parts[0].size", "parts[0].colour"]);
    }

    #[test]
    fn very_many_faults_are_cut_and_counted() {
        let mut faults = Faults::default();
        for index in 0..MAX_FAULTS + 7 {
            faults.add(format!("routes[{index}]"), "wrong");
        }
        faults.cut();
        assert_eq!(faults.0.len(), MAX_FAULTS + 1);
        assert!(faults.to_string().ends_with("7 more faults are not listed"));
    }
}

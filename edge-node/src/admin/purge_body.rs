//! From the bytes of `POST /purges` to a valid purge: every fault at once, each with its place. Pure.

use serde_json::{Map, Value};
use verge_config::purge::MAX_SELECTORS;
use verge_config::{Faults, Mode, PurgeRequest, Selector};

/// Why the bytes are no purge.
pub(super) enum BodyError {
    /// They are not JSON; in words, where.
    NotJson(String),
    /// They are JSON and not a valid purge.
    Invalid(Faults),
}

/// The purge that the bytes say.
///
/// # Errors
/// All that is wrong with them.
pub(super) fn parse(bytes: &[u8]) -> Result<PurgeRequest, BodyError> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| BodyError::NotJson(error.to_string()))?;
    let Value::Object(fields) = value else {
        return Err(BodyError::Invalid(Faults::one("", "must be an object")));
    };
    let mut faults = Faults::default();
    for name in fields.keys() {
        if !matches!(name.as_str(), "site" | "selectors" | "mode" | "dry_run") {
            let there = "no such field; there are site, selectors, mode and dry_run";
            faults.add(name.clone(), there);
        }
    }
    let request = PurgeRequest {
        site: site(&fields, &mut faults),
        selectors: selectors(&fields, &mut faults),
        mode: mode(&fields, &mut faults),
        dry_run: dry_run(&fields, &mut faults),
    };
    faults.or(request).map_err(BodyError::Invalid)
}

fn site(fields: &Map<String, Value>, faults: &mut Faults) -> Option<String> {
    match fields.get("site") {
        None | Some(Value::Null) => None,
        Some(Value::String(site)) => Some(site.clone()),
        Some(_) => {
            faults.add("site", "must be a string");
            None
        }
    }
}

fn mode(fields: &Map<String, Value>, faults: &mut Faults) -> Mode {
    let Some(value) = fields.get("mode") else { return Mode::default() };
    serde_json::from_value(value.clone()).unwrap_or_else(|_| {
        faults.add("mode", "must be \"hard\" or \"soft\"");
        Mode::default()
    })
}

fn dry_run(fields: &Map<String, Value>, faults: &mut Faults) -> bool {
    match fields.get("dry_run") {
        None => false,
        Some(Value::Bool(dry_run)) => *dry_run,
        Some(_) => {
            // Whoever wrote something here must not have it purged in earnest.
            faults.add("dry_run", "must be true or false");
            true
        }
    }
}

fn selectors(fields: &Map<String, Value>, faults: &mut Faults) -> Vec<Selector> {
    let values = match fields.get("selectors") {
        Some(Value::Array(values)) => values,
        Some(_) => {
            faults.add("selectors", "must be a list");
            return Vec::new();
        }
        None => {
            faults.add("selectors", "at least one selector is needed");
            return Vec::new();
        }
    };
    if values.is_empty() || values.len() > MAX_SELECTORS {
        let count = values.len();
        faults.add("selectors", format!("{count} selectors; 1 to {MAX_SELECTORS} in one purge"));
        return Vec::new();
    }
    let read = |(index, value): (usize, &Value)| selector(index, value, faults);
    values.iter().enumerate().filter_map(read).collect()
}

/// One selector by the vocabulary's own rules, its faults under its place in the list.
fn selector(index: usize, value: &Value, faults: &mut Faults) -> Option<Selector> {
    let place = format!("selectors[{index}]");
    let selector: Selector = match serde_json::from_value(value.clone()) {
        Ok(selector) => selector,
        Err(error) => {
            faults.add(place, error.to_string());
            return None;
        }
    };
    let alone = PurgeRequest {
        site: None,
        selectors: vec![selector.clone()],
        mode: Mode::default(),
        dry_run: false,
    };
    if let Err(found) = alone.validate() {
        for fault in found.0 {
            faults.add(fault.path.replacen("selectors[0]", &place, 1), fault.message);
        }
    }
    Some(selector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(text: &str) -> Vec<String> {
        match parse(text.as_bytes()) {
            Err(BodyError::Invalid(faults)) => faults.0.into_iter().map(|f| f.path).collect(),
            Err(BodyError::NotJson(_)) => vec!["not json".into()],
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let body = r#"{"sites": "x", "site": 1, "mode": "medium", "dry_run": "yes",
                       "selectors": [{"tag": "a"}, {"tga": "b"}, "c", {"url": 5}]}"#;
        assert_eq!(
            places(body),
            ["sites", "site", "selectors[1]", "selectors[2]", "selectors[3]", "mode", "dry_run"]
        );
        assert_eq!(places(r#"{"selectors": [{"tag": ""}]}"#).len(), 1);
        assert_eq!(places(r#"{}"#), ["selectors"]);
        assert_eq!(places(r#"[]"#), [""]);
        assert_eq!(places("{"), ["not json"]);
        let many = format!(r#"{{"selectors": [{}]}}"#, vec![r#"{"tag":"a"}"#; 1001].join(","));
        assert_eq!(places(&many), ["selectors"]);
    }

    #[test]
    fn a_valid_purge_is_read() {
        let parsed =
            parse(br#"{"selectors": [{"tag": "a"}, {"everything": true}], "mode": "soft"}"#);
        let Ok(request) = parsed else { panic!("a valid purge was refused") };
        assert_eq!(request.mode, Mode::Soft);
        assert_eq!(request.selectors, [Selector::Tag("a".into()), Selector::Everything(true)]);
        assert_eq!(request.site, None);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_serde_writes_is_read_back(dry: bool, tags in proptest::collection::vec("[a-z]{1,20}", 1..20)) {
            let request = PurgeRequest {
                site: Some("shop".into()),
                selectors: tags.into_iter().map(Selector::Tag).collect(),
                mode: Mode::Hard,
                dry_run: dry,
            };
            let text = serde_json::to_vec(&request).unwrap();
            prop_assert!(parse(&text).is_ok_and(|read| read == request));
        }
    }
}

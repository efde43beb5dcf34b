//! Path patterns: literal text in which each `*` stands for any run of characters.

/// A pattern over raw paths. `*` matches any run of characters, `/` and the empty run included, and
/// is a capture; everything else matches itself, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

/// What the stars of a pattern stood for, first to last.
pub type Captures<'p> = Vec<&'p str>;

impl PathPattern {
    /// A pattern from its text; it is the caller that checks the text.
    #[must_use]
    pub fn new(text: &str) -> PathPattern {
        PathPattern(text.to_owned())
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the stars stand for in `path`, or `None` when it does not match. Each star takes the
    /// shortest run that lets the rest match, the last one all that is left.
    #[must_use]
    pub fn captures<'p>(&self, path: &'p str) -> Option<Captures<'p>> {
        let mut parts = self.0.split('*');
        let first = parts.next()?;
        let mut rest = path.strip_prefix(first)?;
        let mut captures = Vec::new();
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty().then_some(captures);
        }
        while let Some(part) = parts.next() {
            let at = if parts.peek().is_none() {
                // The last literal must end the path: the star before it takes all that is left.
                let at = rest.len().checked_sub(part.len())?;
                rest.ends_with(part).then_some(at)?
            } else {
                rest.find(part)?
            };
            let (capture, after) = rest.split_at(at);
            captures.push(capture);
            rest = after.get(part.len()..)?;
        }
        Some(captures)
    }

    /// Whether `path` matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => path.starts_with(prefix),
            None if !self.0.contains('*') => self.0 == path,
            _ => self.captures(path).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn captures<'p>(pattern: &str, path: &'p str) -> Option<Captures<'p>> {
        PathPattern::new(pattern).captures(path)
    }

    /// The definition, in its slowest form.
    fn naive(pattern: &[u8], path: &[u8]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((b'*', rest)) => (0..=path.len()).any(|at| naive(rest, &path[at..])),
            Some((byte, rest)) => {
                path.first() == Some(byte) && naive(rest, path.get(1..).unwrap_or_default())
            }
        }
    }

    #[test]
    fn what_stars_stand_for() {
        assert_eq!(captures("/a", "/a"), Some(vec![]));
        assert_eq!(captures("/a", "/ab"), None);
        assert_eq!(captures("/a/*", "/a/"), Some(vec![""]));
        assert_eq!(captures("/a/*", "/a/b/c"), Some(vec!["b/c"]));
        assert_eq!(captures("/a/*", "/a"), None);
        assert_eq!(captures("/*.css", "/x/a.css.css"), Some(vec!["x/a.css"]));
        assert_eq!(captures("/*/x/*", "/a/x/b/x/c"), Some(vec!["a", "b/x/c"]));
        assert_eq!(captures("/ab*ba", "/aba"), None);
    }

    #[test]
    fn the_cost_grows_with_the_length_and_not_with_the_stars() {
        // What would take a backtracking matcher 10^20 steps and more.
        let pattern = "/*a*a*a*a*a*a*a*b";
        let path = format!("/{}", "a".repeat(8_000));
        let started = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(captures(pattern, &path), None);
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_matches_what_the_definition_matches(
            pattern in "/[ab*/]{0,7}", path in "/[ab/]{0,9}",
        ) {
            let matched = naive(pattern.as_bytes(), path.as_bytes());
            let found = PathPattern::new(&pattern);
            prop_assert_eq!(found.matches(&path), matched);
            prop_assert_eq!(found.captures(&path).is_some(), matched);
        }

        #[test]
        fn captures_put_into_the_pattern_give_the_path(
            pattern in "/[ab*/é]{0,9}", path in "/[ab/é]{0,12}",
        ) {
            if let Some(captures) = captures(&pattern, &path) {
                let mut captures = captures.into_iter();
                let rebuilt: String = pattern
                    .chars()
                    .map(|c| match c {
                        '*' => captures.next().unwrap().to_owned(),
                        other => other.to_string(),
                    })
                    .collect();
                prop_assert_eq!(&rebuilt, &path);
                prop_assert!(captures.next().is_none());
            }
        }
    }
}

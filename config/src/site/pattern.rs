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

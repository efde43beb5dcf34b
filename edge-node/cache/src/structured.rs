//! Structured Field dictionaries (RFC 9651 section 4.2.2), as far as targeted cache control needs their
//! values; pure. What does not parse does not parse as a whole, as the RFC demands.

/// The most members of a dictionary; with more it does not parse. No shorter limit is allowed (RFC 9651
/// section 3.2).
const MAX_MEMBERS: usize = 1_024;

/// A member's value; parameters are checked and dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bare {
    /// An Integer.
    Integer(i64),
    /// A Boolean; a member without a value is `true`.
    Boolean(bool),
    /// A String or a Token.
    Text(String),
    /// Any other type, inner lists included.
    Other,
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The members, each key once with its last value; `None` when the field does not parse.
#[must_use]
pub fn dictionary(value: &str) -> Option<Vec<(String, Bare)>> {
    let mut parser = Parser { bytes: value.as_bytes(), at: 0 };
    let mut members: Vec<(String, Bare)> = Vec::new();
    parser.skip(b" ");
    while parser.peek().is_some() {
        let key = parser.key()?;
        let value = if parser.eat(b'=') { parser.item_or_list()? } else { Bare::Boolean(true) };
        parser.parameters()?;
        members.retain(|(name, _)| *name != key);
        if members.len() == MAX_MEMBERS {
            return None;
        }
        members.push((key, value));
        parser.skip(b" \t");
        if parser.peek().is_none() {
            return Some(members);
        }
        if !parser.eat(b',') {
            return None;
        }
        parser.skip(b" \t");
        parser.peek()?;
    }
    Some(members)
}

// === impl Parser ===

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn bump(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    fn skip(&mut self, set: &[u8]) {
        while self.peek().is_some_and(|byte| set.contains(&byte)) {
            self.at += 1;
        }
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> String {
        let mut out = String::new();
        while let Some(byte) = self.peek().filter(|byte| belongs(*byte)) {
            out.push(char::from(byte));
            self.at += 1;
        }
        out
    }

    fn key(&mut self) -> Option<String> {
        self.peek().filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
        Some(self.take_while(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        }))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn item_or_list(&mut self) -> Option<Bare> {
        if !self.eat(b'(') {
            return self.bare();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Bare::Other);
            }
            self.bare()?;
            self.parameters()?;
            self.peek().filter(|byte| *byte == b' ' || *byte == b')')?;
        }
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => Some(Bare::Text(self.take_while(|byte| {
                byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
            }))),
            b'?' => {
                self.at += 1;
                match self.bump()? {
                    b'1' => Some(Bare::Boolean(true)),
                    b'0' => Some(Bare::Boolean(false)),
                    _ => None,
                }
            }
            b':' => {
                self.at += 1;
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.eat(b':').then_some(Bare::Other)
            }
            b'@' => {
                self.at += 1;
                matches!(self.number()?, Bare::Integer(_)).then_some(Bare::Other)
            }
            b'%' => {
                self.at += 1;
                self.display_string()
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Bare> {
        let negative = self.eat(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 {
            return None;
        }
        if self.eat(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            let fits = whole.len() <= 12 && (1..=3).contains(&fraction.len());
            return fits.then_some(Bare::Other);
        }
        let number: i64 = whole.parse().ok()?;
        Some(Bare::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Bare> {
        self.at += 1;
        let mut out = String::new();
        loop {
            match self.bump()? {
                b'"' => return Some(Bare::Text(out)),
                b'\\' => {
                    let byte = self.bump().filter(|byte| matches!(byte, b'"' | b'\\'))?;
                    out.push(char::from(byte));
                }
                byte @ 0x20..=0x7e => out.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    fn display_string(&mut self) -> Option<Bare> {
        if !self.eat(b'"') {
            return None;
        }
        loop {
            match self.bump()? {
                b'"' => return Some(Bare::Other),
                b'%' => {
                    for _ in 0..2 {
                        self.bump().filter(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))?;
                    }
                }
                0x20..=0x7e => {}
                _ => return None,
            }
        }
    }
}

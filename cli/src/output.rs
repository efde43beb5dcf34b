//! What is shown: tables for people, JSON for programs, failures on standard error. Whatever came
//! over the network is shown without control characters, so that no name can steer a terminal.

use crate::error::CliError;
use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    json: bool,
}

// === impl Output ===

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output { json }
    }

    /// Whether results are for programs.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Shows a result: as JSON for programs, else as `people` writes it.
    pub(crate) fn result<T: Serialize>(self, value: &T, people: impl FnOnce(&T) -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_default()
        } else {
            people(value)
        };
        write(&mut std::io::stdout().lock(), &text);
    }

    /// Shows one of many results of a command that goes on: a line for people, a line of JSON for
    /// programs.
    pub(crate) fn event<T: Serialize>(self, value: &T, people: &str) {
        let text = if self.json {
            serde_json::to_string(value).unwrap_or_default()
        } else {
            clean(people).replace('\n', " ")
        };
        write(&mut std::io::stdout().lock(), &text);
    }

    /// As [`Output::event`], of a text that was cleaned already and may have colours and lines; whether
    /// anybody takes it.
    pub(crate) fn painted<T: Serialize>(self, value: &T, people: &str) -> bool {
        let json = self.json.then(|| serde_json::to_string(value).unwrap_or_default());
        let text = json.as_deref().unwrap_or(people);
        writeln!(std::io::stdout().lock(), "{text}").is_ok()
    }

    /// Whether colours can be seen by anyone, and are wanted (<https://no-color.org>).
    pub(crate) fn has_colours(self) -> bool {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        !self.json && !unwanted && std::io::stdout().is_terminal()
    }

    /// Tells people how far it is; programs are told results only.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            write(&mut std::io::stderr().lock(), &clean(text));
        }
    }

    /// Shows why a command failed, with every fault.
    pub(crate) fn failure(self, error: &CliError) {
        let text = if self.json {
            serde_json::to_string_pretty(&error.as_problem()).unwrap_or_default()
        } else {
            let mut text = format!("error: {}", clean(&error.to_string()));
            for fault in error.faults() {
                text.push_str(&format!("\n  {}", clean(&fault.to_string())));
            }
            text
        };
        write(&mut std::io::stderr().lock(), &text);
    }

    /// Whether a moving progress bar can be seen by anyone.
    pub(crate) fn shows_progress(self) -> bool {
        !self.json && std::io::stderr().is_terminal()
    }
}

/// A reader that went away (`verge sites | head`) is no failure.
fn write(to: &mut impl Write, text: &str) {
    let _ = writeln!(to, "{text}");
}

/// A table with these columns.
pub(crate) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    if rows.is_empty() {
        return "(none)".to_owned();
    }
    matrix(head.map(str::to_owned).into(), rows)
}

/// A table whose columns are known only now.
pub(crate) fn matrix(head: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let cells =
        |row: Vec<String>| -> Vec<Cell> { row.iter().map(|cell| Cell::new(clean(cell))).collect() };
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(if std::io::stdout().is_terminal() {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        })
        .set_header(cells(head));
    for row in rows {
        table.add_row(cells(row));
    }
    table.trim_fmt()
}

/// A text without control characters, but for line feeds.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if (c.is_control() && c != '\n') || is_direction(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Whether a character turns the direction of writing, by which a name can look like another.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A moment, as how long ago it was.
pub(crate) fn ago(ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    match now.checked_sub(ms) {
        Some(past) => format!("{} ago", span(past)),
        None => format!("in {}", span(ms.saturating_sub(now))),
    }
}

/// A length of time, roughly.
fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_steer_a_terminal() {
        let row = ["\u{1b}[2Jevil\r\u{202e}".to_owned()];
        let shown = table(["NAME"], [row]);
        assert!(!shown.contains('\u{1b}') && !shown.contains('\r') && !shown.contains('\u{202e}'));
        assert!(shown.contains("evil"));
    }

    #[test]
    fn a_table_has_a_head_and_its_rows() {
        let shown = table(["SITE", "VERSION"], [["shop".to_owned(), "3".to_owned()]]);
        let words: Vec<_> = shown.split_whitespace().collect();
        assert_eq!(words, ["SITE", "VERSION", "shop", "3"]);
        assert_eq!(table(["SITE"], []), "(none)");
    }

    #[test]
    fn spans() {
        assert_eq!(span(61_000), "61 s");
        assert_eq!(span(3_600_000), "60 min");
        assert_eq!(span(7_200_000), "2 h");
        assert_eq!(span(10 * 86_400_000), "10 days");
    }
}

//! How a request that is watched is shown: a line of its own, coloured on a terminal, and beneath it
//! what its handler logged. Decides nothing.

use crate::output::{Output, clean};
use verge_config::tail::{Event, Place, TailLine};

/// The colours of a terminal (ECMA-48, SGR).
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// Shows a line of a tail; whether anybody takes it. A sign of life is not shown.
pub(crate) fn show(line: &TailLine, output: Output) -> bool {
    let paint = Paint(output.has_colours());
    let text = match line {
        TailLine::Request(event) => request(event, paint),
        TailLine::Open { site, edges } if edges.is_empty() => {
            paint.with(DIM, &format!("-- watching {site}: no edge is connected"))
        }
        TailLine::Open { site, edges } => {
            paint.with(DIM, &format!("-- watching {site} on {}", edges.join(", ")))
        }
        TailLine::Dropped { place, edge, count } => dropped(*place, edge.as_deref(), *count, paint),
        TailLine::Refused { edge, reason } => {
            paint.with(YELLOW, &format!("-- edge {edge} takes no part: {reason}"))
        }
        TailLine::Alive | TailLine::Unknown => return true,
    };
    output.painted(line, &text)
}

/// Text in colours, or not. What it paints is cleaned of everything that could steer a terminal.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, colour: &str, text: &str) -> String {
        let text = clean(text).replace('\n', " ");
        if self.0 { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text }
    }

    fn plain(self, text: &str) -> String {
        clean(text).replace('\n', " ")
    }
}

fn request(event: &Event, paint: Paint) -> String {
    let colour = match event.status {
        500.. => RED,
        400.. => YELLOW,
        300.. => CYAN,
        _ => GREEN,
    };
    let cpu = event.cpu_us.map_or_else(|| "-".to_owned(), milliseconds);
    let query = event.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut text = format!(
        "{} {} {} {} {} cpu {:>9} wall {:>9}  {} {}",
        paint.with(DIM, &clock(event.at_ms)),
        paint.plain(&format!("{:<6}", event.edge)),
        paint.with(colour, &event.status.to_string()),
        paint.plain(&format!("{:<11}", event.cache.as_deref().unwrap_or("-"))),
        paint.plain(&format!("{:<11}", event.outcome)),
        cpu,
        milliseconds(event.wall_us),
        paint.plain(&event.method),
        paint.plain(&format!("{}{}{query}", event.host, event.path)),
    );
    let handler = event.handler.as_deref().unwrap_or("-");
    for line in &event.lines {
        // What the handler says of a message itself tells more than where it wrote it.
        let kind = line.severity.as_ref().unwrap_or(&line.stream);
        text.push_str("\n    ");
        let handler = line.handler.as_deref().unwrap_or(handler);
        text.push_str(&paint.with(DIM, &format!("[{handler} {kind}]")));
        text.push(' ');
        if let Some(context) = &line.context {
            text.push_str(&paint.plain(&format!("{context}: ")));
        }
        text.push_str(&paint.plain(&line.text));
    }
    if event.more_lines > 0 {
        text.push_str("\n    ");
        text.push_str(&paint.with(DIM, &format!("… and {} more lines", event.more_lines)));
    }
    text
}

fn dropped(place: Place, edge: Option<&str>, count: u64, paint: Paint) -> String {
    let requests = if count == 1 { "request is" } else { "requests are" };
    let why = match (place, edge) {
        (Place::Edge, Some(edge)) => format!("more than edge {edge} could tell"),
        (Place::Edge, None) => "more than an edge could tell".to_owned(),
        (Place::Reader, _) => "more than was read".to_owned(),
    };
    paint.with(YELLOW, &format!("-- {count} {requests} not shown: {why}"))
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
}

/// The time of day (UTC).
fn clock(at_ms: u64) -> String {
    let of_day = at_ms % 86_400_000;
    let (seconds, ms) = (of_day / 1_000, of_day % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::tail::Line;

    fn event() -> Event {
        Event {
            at_ms: 86_400_000 + 3_723_004,
            edge: "one".into(),
            host: "shop.example".into(),
            method: "GET".into(),
            path: "/a".into(),
            status: 500,
            handler: Some("h".into()),
            outcome: "trapped".into(),
            cache: Some("miss".into()),
            cpu_us: Some(1_250),
            wall_us: 20_900,
            ..Event::default()
        }
    }

    #[test]
    fn a_request_is_one_line_with_its_log_beneath() {
        let line = |stream: &str, text: &str| Line {
            stream: stream.into(),
            text: text.into(),
            ..Line::default()
        };
        let mut event = event();
        let (severity, context) = (Some("warn".into()), Some("cart".into()));
        let logged = Line { severity, context, ..line("logging", "full") };
        let other = Line { handler: Some("auth".into()), ..line("stdout", "passed") };
        event.lines = vec![line("stdout", "hello"), logged, line("host", "trap\nat 5"), other];
        event.more_lines = 3;
        let text = request(&event, Paint(false));
        let lines: Vec<_> = text.lines().collect();
        let words: Vec<_> = lines[0].split_whitespace().collect();
        let expected = [
            "01:02:03.004Z",
            "one",
            "500",
            "miss",
            "trapped",
            "cpu",
            "1.2",
            "ms",
            "wall",
            "20.9",
            "ms",
            "GET",
            "shop.example/a",
        ];
        assert_eq!(words, expected);
        let beneath = [
            "    [h stdout] hello",
            "    [h warn] cart: full",
            "    [h host] trap at 5",
            "    [auth stdout] passed",
            "    … and 3 more lines",
        ];
        assert_eq!(lines[1..], beneath);
    }

    #[test]
    fn what_a_request_lacks_is_a_dash_and_what_it_holds_steers_no_terminal() {
        let event = Event { cache: None, cpu_us: None, path: "/\u{1b}[2J".into(), ..event() };
        let text = request(&event, Paint(false));
        assert!(text.contains(" 500 -           trapped     cpu         - wall"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let text = request(&event, Paint(true));
        assert!(text.contains("\u{1b}[31m500\u{1b}[0m") && !text.contains("\u{1b}[2J"), "{text:?}");
    }

    #[test]
    fn what_is_missing_is_told() {
        let paint = Paint(false);
        let at_edge = dropped(Place::Edge, Some("one"), 2, paint);
        assert_eq!(at_edge, "-- 2 requests are not shown: more than edge one could tell");
        let here = dropped(Place::Reader, None, 1, paint);
        assert_eq!(here, "-- 1 request is not shown: more than was read");
    }
}

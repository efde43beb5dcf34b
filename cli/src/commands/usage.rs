//! `verge usage [SITE]`: what handlers have used, by handler and version.

use crate::Ended;
use crate::args::Global;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, matrix};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};
use verge_config::api::SiteInfo;
use verge_config::units::parse_duration;
use verge_config::usage::{UsageBy, UsageRow};

/// More sites and rows than anyone reads.
const MOST: usize = 100_000;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// The site; all of the tenant's when absent.
    site: Option<String>,
    /// How far back: for instance 24h or 30d. Whole hours are told.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = parse_duration)]
    since: Duration,
    /// A row for each of them.
    #[arg(long, value_enum, default_value_t = By::Total)]
    by: By,
}

/// The periods, as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Hour,
    Day,
    Total,
}

/// A row with its site.
#[derive(Debug, Serialize)]
struct Row {
    site: String,
    #[serde(flatten)]
    row: UsageRow,
}

pub(crate) async fn run(
    args: UsageArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let sites = match args.site {
        Some(site) => vec![site],
        None => {
            let all: Vec<SiteInfo> = client.list(&["v1", "sites"], MOST).await?;
            all.into_iter().map(|site| site.site).collect()
        }
    };
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    let ms = |time: Duration| time.as_millis().to_string();
    let by = args.by.period();
    let asked = [
        ("from", ms(now.saturating_sub(args.since))),
        ("to", ms(now)),
        ("by", by.name().to_owned()),
    ];
    let mut rows = Vec::new();
    for site in sites {
        let path = ["v1", "sites", &site, "usage"];
        let used: Vec<UsageRow> = client.list_where(&path, &asked, MOST).await?;
        rows.extend(used.into_iter().map(|row| Row { site: site.clone(), row }));
    }
    output.result(&rows, |rows| shown(rows, by));
    Ok(Ended::Done)
}

// === impl By ===

impl By {
    fn period(self) -> UsageBy {
        match self {
            By::Hour => UsageBy::Hour,
            By::Day => UsageBy::Day,
            By::Total => UsageBy::Total,
        }
    }
}

fn shown(rows: &[Row], by: UsageBy) -> String {
    if rows.is_empty() {
        return "(none)".to_owned();
    }
    let has_period = by != UsageBy::Total;
    let head = [
        "SITE", "HANDLER", "VERSION", "REQUESTS", "FAILED", "CPU", "WALL", "MEMORY", "FETCHES",
        "IN", "OUT",
    ];
    let head = has_period.then_some("FROM (UTC)").into_iter().chain(head);
    let cells = |Row { site, row }: &Row| {
        let sums = &row.sums;
        let responded = sums.outcomes.get("responded").copied().unwrap_or(0);
        let handler = if row.handler.is_empty() { "(several)" } else { &row.handler };
        let version = if row.version == 0 { "-".to_owned() } else { row.version.to_string() };
        let period = has_period.then(|| moment(row.from_ms, by));
        let cells = [
            site.clone(),
            handler.to_owned(),
            version,
            row.requests.to_string(),
            row.requests.saturating_sub(responded).to_string(),
            time(sums.cpu_us),
            time(sums.wall_us),
            memory(sums.memory_kib_ms),
            sums.fetches.to_string(),
            bytes(sums.bytes_in),
            bytes(sums.bytes_out),
        ];
        period.into_iter().chain(cells).collect()
    };
    matrix(head.map(str::to_owned).collect(), rows.iter().map(cells).collect())
}

/// A length of time in microseconds, in the unit that suits it.
fn time(us: u64) -> String {
    let seconds = us / 1_000_000;
    match us {
        0..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ if seconds < 10 * MINUTE => format!("{seconds}.{} s", us % 1_000_000 / 100_000),
        _ if seconds < 10 * HOUR => format!("{} min", seconds / MINUTE),
        _ => format!("{} h", seconds / HOUR),
    }
}

/// Memory over time, in KiB × milliseconds, as GiB × seconds.
fn memory(kib_ms: u64) -> String {
    const GIB_S: u64 = (1 << 20) * 1_000;
    format!("{}.{:03} GiB·s", kib_ms / GIB_S, kib_ms % GIB_S / (GIB_S / 1_000))
}

/// A number of bytes, roughly.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 10_240 && unit + 1 < units.len() {
        value /= 1_024;
        unit += 1;
    }
    format!("{value} {}", units.get(unit).copied().unwrap_or_default())
}

/// A moment in UTC: its day, and for hours its hour.
fn moment(ms: u64, by: UsageBy) -> String {
    let seconds = ms / 1_000;
    let (year, month, day) = date(seconds / DAY);
    let day = format!("{year:04}-{month:02}-{day:02}");
    match by {
        UsageBy::Hour => format!("{day} {:02}:00", seconds % DAY / HOUR),
        UsageBy::Day | UsageBy::Total => day,
    }
}

/// The date of a day since 1970-01-01.
fn date(mut day: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    // Years that nobody lives in are not worth a loop.
    while year < 9_999 {
        let length = if is_leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use verge_config::usage::Sums;

    #[test]
    fn dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(59), (1970, 3, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(11_017), (2000, 3, 1));
        assert_eq!(date(20_453), (2025, 12, 31));
        assert_eq!(date(20_454), (2026, 1, 1));
        assert_eq!(
            moment(20_454 * DAY * 1_000 + 5 * HOUR * 1_000, UsageBy::Hour),
            "2026-01-01 05:00"
        );
    }

    #[test]
    fn amounts_are_in_units_that_suit_them() {
        assert_eq!(time(1_500), "1.5 ms");
        assert_eq!(time(61_200_000), "61.2 s");
        assert_eq!(time(7_200_000_000), "120 min");
        assert_eq!(bytes(10_000), "10000 B");
        assert_eq!(bytes(10 << 20), "10 MiB");
        assert_eq!(memory(128 * 1_024 * 1_000), "0.125 GiB·s");
    }

    #[test]
    fn a_row_tells_what_failed() {
        let outcomes = BTreeMap::from([("responded".to_owned(), 7), ("trapped".to_owned(), 3)]);
        let sums = Sums { outcomes, cpu_us: 2_000, ..Sums::default() };
        let row = UsageRow {
            from_ms: 0,
            to_ms: 1,
            handler: "greet".to_owned(),
            version: 4,
            requests: 10,
            sums,
        };
        let shown = shown(&[Row { site: "shop".to_owned(), row }], UsageBy::Day);
        let last: Vec<_> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last[..6], ["1970-01-01", "shop", "greet", "4", "10", "3"]);
    }
}

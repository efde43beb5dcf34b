//! `verge explain URL`: asks every edge over the control plane, or one edge's admin listener, what it
//! would do with a URL, and why.

use crate::Ended;
use crate::args::Global;
use crate::client::{CALL, Call, Client, is_loopback};
use crate::credentials;
use crate::error::CliError;
use crate::output::{Output, clean, matrix};
use clap::Args;
use serde_json::Value;
use std::time::Duration;
use url::Url;
use verge_config::api::{AnswerState, Explanations};
use verge_config::units::{parse_duration, write_duration};

/// The admin listener of a standalone edge on this machine.
const LOCAL_ADMIN: &str = "http://127.0.0.1:9090";

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The URL, with scheme and host.
    url: String,
    /// A field of the request, as "accept-encoding: br". Repeatable.
    #[arg(long, short = 'H', value_name = "NAME:VALUE")]
    field: Vec<String>,
    /// Ask one edge by its admin listener. Without it the control plane asks all of them; where there
    /// is no login, or the URL is of this machine, http://127.0.0.1:9090 is asked.
    #[arg(long, env = "VERGE_ADMIN", value_name = "URL")]
    admin: Option<String>,
    /// How long the edges may take to answer.
    #[arg(long, value_parser = parse_duration, default_value = "2s", value_name = "DURATION")]
    timeout: Duration,
}

pub(crate) async fn run(
    args: ExplainArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let mut query = vec![("url", args.url.clone())];
    query.extend(args.field.iter().map(|field| ("field", field.clone())));
    if let Some(admin) = admin(&args, global)? {
        let client = Client::admin(&admin)?;
        let explained: Value = client.read(Call::get(&["explain"]).query(&query)).await?;
        output.result(&explained, shown);
        return Ok(Ended::Done);
    }
    let client = Client::control(global)?;
    query.push(("timeout", write_duration(args.timeout)));
    let call = Call::get(&["v1", "explanations"]).query(&query).timeout(CALL + args.timeout);
    let explained: Explanations = client.read(call).await?;
    output.result(&explained, side_by_side);
    Ok(Ended::Done)
}

/// The admin listener to ask, if one is meant rather than the control plane.
fn admin(args: &ExplainArgs, global: &Global) -> Result<Option<String>, CliError> {
    if let Some(admin) = &args.admin {
        return Ok(Some(admin.clone()));
    }
    let is_local = Url::parse(&args.url).is_ok_and(|url| is_loopback(&url));
    if is_local && global.control.is_none() {
        return Ok(Some(LOCAL_ADMIN.to_owned()));
    }
    match credentials::find(global) {
        Ok(_) => Ok(None),
        Err(CliError::NotLoggedIn(_)) if global.control.is_none() => {
            Ok(Some(LOCAL_ADMIN.to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// A column for each edge, a row for each field that any of them tells.
fn side_by_side(explained: &Explanations) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut columns = Vec::new();
    for edge in &explained.edges {
        let mut fields = Vec::new();
        if let Some(explanation) = &edge.explanation {
            flatten("", explanation, &mut fields);
        }
        // What is the same for all, and told in the line above, is no row.
        fields.retain(|(name, _)| !matches!(name.as_str(), "url" | "edge" | "site"));
        for (name, _) in &fields {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        columns.push(fields);
    }
    names.sort();
    let state = explained.edges.iter().map(|edge| {
        let reason = edge.reason.clone().unwrap_or_default();
        match edge.state {
            AnswerState::Answered => "answered".to_owned(),
            AnswerState::Refused => format!("no: {reason}"),
            AnswerState::Pending => "no answer".to_owned(),
            AnswerState::Offline => "offline".to_owned(),
        }
    });
    let mut rows = vec![["state".to_owned()].into_iter().chain(state).collect::<Vec<_>>()];
    for name in names {
        let value = |fields: &Vec<(String, String)>| {
            let found = fields.iter().find(|(own, _)| *own == name);
            found.map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
        };
        let values: Vec<String> = columns.iter().map(value).collect();
        rows.push([name.clone()].into_iter().chain(values).collect());
    }
    let edges = explained.edges.iter().map(|edge| edge.edge.clone());
    let head: Vec<String> = ["FIELD".to_owned()].into_iter().chain(edges).collect();
    let Explanations { url, site, revision, .. } = explained;
    let first = clean(&format!("{url} is of site {site}; the newest revision is {revision}"));
    if explained.edges.is_empty() {
        return format!("{first}\nno edge is enrolled");
    }
    format!("{first}\n{}", matrix(head, rows))
}

/// The leaves of an explanation, each by its path.
fn flatten(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, out);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(scalar).collect();
            out.push((path.to_owned(), items.join(", ")));
        }
        other => out.push((path.to_owned(), scalar(other))),
    }
}

/// An explanation as indented lines: whatever the edge says is shown, whichever version it has.
fn shown(explained: &Value) -> String {
    let mut lines = Vec::new();
    add(&mut lines, "", explained, 0);
    lines.join("\n")
}

fn add(lines: &mut Vec<String>, name: &str, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let line = |text: &str| {
        let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
        clean(&format!("{indent}{name}{text}"))
    };
    match value {
        Value::Object(fields) => {
            let inner = if name.is_empty() {
                depth
            } else {
                lines.push(line("").trim_end().to_owned());
                depth + 1
            };
            for (name, value) in fields {
                add(lines, name, value, inner);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            lines.push(line("").trim_end().to_owned());
            for (index, item) in items.iter().enumerate() {
                add(lines, &format!("{}", index + 1), item, depth + 1);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(scalar).collect();
            lines.push(line(&items.join(", ")));
        }
        other => lines.push(line(&scalar(other))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;
    use serde_json::json;

    fn asked(arguments: &[&str]) -> Option<String> {
        let all = ["verge", "explain"].iter().chain(arguments);
        let cli = Cli::try_parse_from(all).unwrap();
        let crate::args::Command::Explain(args) = cli.command else { panic!() };
        admin(&args, &cli.global).unwrap()
    }

    #[test]
    fn who_is_asked() {
        let login = ["--control", "https://control.example", "--token", "vrg_x"];
        let with = |more: &[&str]| asked(&[&login[..], more].concat());
        assert_eq!(with(&["https://shop.example/"]), None);
        assert_eq!(with(&["http://127.0.0.1:8080/"]), None, "a control plane was named");
        let admin = ["--admin", "http://127.0.0.1:1", "https://shop.example/"];
        assert_eq!(with(&admin).as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(asked(&["http://localhost:8080/"]).as_deref(), Some(LOCAL_ADMIN));
    }

    #[test]
    fn every_edge_has_its_column() {
        let explained = json!({
            "url": "https://shop.example/", "site": "shop", "revision": 3, "complete": false,
            "edges": [
                {"edge": "ams", "state": "answered", "explanation": {
                    "edge": "ams", "cache": {"state": "fresh", "tags": ["a", "b"]}, "rule": {"route": "routes[0]"}}},
                {"edge": "fra", "state": "answered", "explanation": {"cache": {"state": "absent", "new": 1}}},
                {"edge": "sin", "state": "offline"},
                {"edge": "syd", "state": "refused", "reason": "busy\u{1b}"},
            ],
        });
        let text = side_by_side(&serde_json::from_value(explained).unwrap());
        let rows: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            rows[1..],
            [
                "FIELD ams fra sin syd",
                "state answered answered offline no: busy\u{fffd}",
                "cache.new - 1 - -",
                "cache.state fresh absent - -",
                "cache.tags a, b - - -",
                "rule.route routes[0] - - -",
            ]
        );
    }

    #[test]
    fn an_explanation_is_shown_whole() {
        let explained = json!({
            "cache": { "status": "fresh", "tags": ["a", "b"], "ttl": null },
            "site": "shop\u{1b}[2J",
        });
        let text = shown(&explained);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            ["cache:", "  status: fresh", "  tags: a, b", "  ttl: none", "site: shop\u{fffd}[2J"]
        );
    }
}

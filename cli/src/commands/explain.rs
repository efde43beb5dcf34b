//! `verge explain URL`: asks an edge's admin listener what it would do with a URL, and why.

use crate::Ended;
use crate::client::{Call, Client};
use crate::error::CliError;
use crate::output::{Output, clean};
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The URL, with scheme and host.
    url: String,
    /// The edge's admin listener.
    #[arg(long, env = "VERGE_ADMIN", default_value = "http://127.0.0.1:9090", value_name = "URL")]
    admin: String,
}

pub(crate) async fn run(args: ExplainArgs, output: Output) -> Result<Ended, CliError> {
    let client = Client::admin(&args.admin)?;
    let query = [("url", args.url)];
    let explained: Value = client.read(Call::get(&["explain"]).query(&query)).await?;
    output.result(&explained, shown);
    Ok(Ended::Done)
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
    use serde_json::json;

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

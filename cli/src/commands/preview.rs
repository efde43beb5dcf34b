//! `verge preview [SITE] [VERSION]`: lets the holder of a new token reach a version that is not active;
//! and lists and ends previews.

use crate::Ended;
use crate::args::Global;
use crate::client::{Call, Client, new_key};
use crate::commands::tail::site_of;
use crate::error::CliError;
use crate::output::{Output, ago, clean, table};
use clap::Args;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use verge_config::api::{NewPreview, PreviewCreated, PreviewInfo, SiteInfo};
use verge_config::preview::{MAX_PREVIEWS, PATH};
use verge_config::units::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// The site; the one of `verge.toml` here when absent.
    site: Option<String>,
    /// The version, as `verge versions` lists it; the newest when absent.
    version: Option<u64>,
    /// How long it lasts, a week at most.
    #[arg(long, value_parser = parse_duration, default_value = "1d", value_name = "DURATION")]
    ttl: Duration,
    /// List the site's previews instead.
    #[arg(long, conflicts_with_all = ["version", "end"])]
    list: bool,
    /// End a preview instead, by its id.
    #[arg(long, value_name = "ID", conflicts_with = "version")]
    end: Option<String>,
}

pub(crate) async fn run(
    args: PreviewArgs,
    global: &Global,
    output: Output,
) -> Result<Ended, CliError> {
    let client = Client::control(global)?;
    let site = site_of(args.site.as_deref(), Path::new("verge.toml"))?;
    if args.list {
        let path = ["v1", "sites", &site, "previews"];
        let previews: Vec<PreviewInfo> = client.list(&path, MAX_PREVIEWS).await?;
        output.result(&previews, |previews| listed(previews));
        return Ok(Ended::Done);
    }
    if let Some(id) = &args.end {
        client.done(Call::delete(&["v1", "sites", &site, "previews", id])).await?;
        let ended = json!({ "site": site, "ended": id });
        output.result(&ended, |_| clean(&format!("{site}: the preview {id} has ended")));
        return Ok(Ended::Done);
    }
    let version = match args.version {
        Some(version) => version,
        None => client.read::<SiteInfo>(Call::get(&["v1", "sites", &site])).await?.latest,
    };
    let created = create(&client, &site, version, args.ttl).await?;
    output.result(&created, shown);
    Ok(Ended::Done)
}

/// Makes a preview of a version.
pub(crate) async fn create(
    client: &Client,
    site: &str,
    version: u64,
    ttl: Duration,
) -> Result<PreviewCreated, CliError> {
    let number = version.to_string();
    let path = ["v1", "sites", site, "versions", &number, "previews"];
    let key = new_key();
    let call = Call::post(&path).idempotency_key(&key);
    let body = NewPreview { ttl_seconds: Some(ttl.as_secs()) };
    Ok(client.json(call, Some(&body)).await?.1)
}

/// Where it is, in words.
pub(crate) fn shown(created: &PreviewCreated) -> String {
    let PreviewInfo { id, site, version, expires_ms, .. } = &created.info;
    let mut text =
        format!("{site}: version {version} is previewed as {id}, ends {}", ago(*expires_ms));
    for url in &created.urls {
        text.push_str(&format!("\n  in a browser: {url}"));
    }
    if created.urls.is_empty() {
        text.push_str(&format!(
            "\n  in a browser: {PATH}?token={} on any host of the site",
            created.token
        ));
    }
    text.push_str(&format!(
        "\n  elsewhere, a field of the request: {}: {}",
        created.field, created.token
    ));
    clean(&text)
}

fn listed(previews: &[PreviewInfo]) -> String {
    let row = |preview: &PreviewInfo| {
        [
            preview.id.clone(),
            preview.version.to_string(),
            ago(preview.created_ms),
            preview.created_by.clone(),
            ago(preview.expires_ms),
        ]
    };
    table(["PREVIEW", "VERSION", "MADE", "BY", "ENDS"], previews.iter().map(row))
}

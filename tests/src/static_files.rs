//! An origin of static files: what a plain web server says of each, so that a test can compare.

use crate::origin::{Answer, Origin, Seen, answer};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A file as the origin serves it.
#[derive(Debug, Clone)]
pub struct File {
    /// Its content.
    pub body: Bytes,
    /// Its `Content-Type`.
    pub kind: &'static str,
    /// Its `ETag`.
    pub etag: String,
}

/// Files by their URL paths.
pub type Files = BTreeMap<String, File>;

/// The `Last-Modified` of every file: packages carry no times worth telling.
pub const LAST_MODIFIED: &str = "Mon, 06 Jan 2025 10:00:00 GMT";

/// Reads every file below a folder.
///
/// # Panics
/// When one cannot be read.
#[must_use]
pub fn read(folder: &Path) -> Files {
    let mut files = Files::new();
    visit(folder, folder, &mut files);
    files
}

fn visit(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            visit(root, &path, files);
        } else if !name.starts_with('.') {
            let body = Bytes::from(fs::read(&path).unwrap());
            let etag = format!("\"{}\"", hex::encode(&Sha256::digest(&body)[..8]));
            let url = format!("/{}", path.strip_prefix(root).unwrap().display());
            let url = url.replace('%', "%25").replace(' ', "%20");
            files.insert(url, File { body, kind: kind_of(&name), etag });
        }
    }
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "css" => "text/css",
        "js" | "mjs" | "cjs" => "text/javascript",
        "json" | "map" => "application/json",
        "html" => "text/html; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" => "image/jpeg",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "wasm" => "application/wasm",
        "md" | "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Serves the files; each may be kept for an hour and carries the tag `site`.
pub async fn serve(files: Arc<Files>) -> Origin {
    Origin::start(move |seen| {
        let reply = respond(&files, &seen);
        async move { reply }
    })
    .await
}

fn respond(files: &Files, seen: &Seen) -> Answer {
    let path = seen.path.split('?').next().unwrap_or_default();
    let Some(file) = files.get(path) else {
        return answer(404, &[("Content-Type", "text/plain")], "no such file");
    };
    let fields = [
        ("Content-Type", file.kind),
        ("ETag", file.etag.as_str()),
        ("Last-Modified", LAST_MODIFIED),
        ("Cache-Control", "public, max-age=3600"),
        ("Accept-Ranges", "bytes"),
        ("Cache-Tag", "site"),
    ];
    let known = seen.headers.get("if-none-match").and_then(|value| value.to_str().ok());
    if known == Some(file.etag.as_str()) {
        return answer(304, &fields[1..], "");
    }
    answer(200, &fields, file.body.clone())
}

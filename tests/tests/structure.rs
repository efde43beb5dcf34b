//! Guards the shape of the house: who may import whom, how large a file may grow, what must not be
//! committed. Uses the standard library alone, so that it runs before anything is built.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

/// A file without its tests may have this many lines.
const MAX_LINES: usize = 500;

/// Which crates of the workspace a crate may depend on.
const CRATE_ARROWS: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("edge-node/cache", &["verge-config"]),
    ("wasm-handlers", &["verge-config"]),
    ("edge-node", &["verge-config", "verge-cache", "verge-handlers"]),
    ("control-plane", &["verge-config"]),
    ("cli", &["verge-config", "verge-cache", "verge-handlers", "verge-edge", "verge-control"]),
    ("tests", &["verge-config"]),
    ("bench/sandbox", &["verge-config", "verge-handlers"]),
];

/// What a room may not touch: a folder or file, words that its code must not hold, and why.
const ROOM_ARROWS: &[(&str, &[&str], &str)] = &[
    (
        "config/src",
        &["tokio", "std::fs", "TcpStream", "TcpListener", "UdpSocket"],
        "the vocabulary does no input or output",
    ),
    (
        "edge-node/cache/src",
        &["pingora", "TcpStream", "TcpListener", "hyper::"],
        "the cache knows no proxy and no sockets",
    ),
    ("edge-node/cache/src/lookup.rs", &["std::fs", "crate::disk"], "lookups read no disk"),
    (
        "edge-node/cache/src/serve.rs",
        &["std::fs", "crate::disk"],
        "the way of a request reads no disk",
    ),
    (
        "edge-node/cache/src/complete.rs",
        &["std::fs", "crate::disk", "crate::freshness"],
        "completing a part decides nothing on freshness",
    ),
    (
        "edge-node/cache/src/confirm.rs",
        &["std::fs", "crate::disk", "Source"],
        "what a 304 means asks no source",
    ),
    ("edge-node/cache/src/site.rs", &["std::fs", "tokio"], "a site's purges are data"),
    ("edge-node/cache/src/purge_index.rs", PURE, "the purge index is data"),
    ("edge-node/cache/src/disk/record.rs", PURE, "records are values"),
    (
        "edge-node/cache/src/disk",
        &["crate::serve", "crate::fetch", "crate::lookup", "crate::cache"],
        "the disk tier decides nothing",
    ),
    ("edge-node/cache/src/cells.rs", PURE, "a table of values"),
    (
        "edge-node/cache/src/fifo.rs",
        &["std::fs", "tokio", "crate::store", "crate::object"],
        "an order of eviction knows nothing of what is evicted",
    ),
    ("edge-node/cache/src/fields.rs", PURE, "fields are values"),
    ("edge-node/cache/src/key.rs", PURE, "keys are values"),
    ("edge-node/cache/src/key_parts.rs", PURE, "keys are values"),
    ("edge-node/cache/src/key_codec.rs", PURE, "keys are values"),
    ("edge-node/cache/src/freshness.rs", PURE, "freshness takes `now`"),
    ("edge-node/cache/src/accept.rs", PURE, "what is taken is a value"),
    ("edge-node/cache/src/compress.rs", PURE, "the form of content is a value"),
    ("edge-node/cache/src/encoder.rs", PURE, "compressing takes bytes and gives bytes"),
    ("edge-node/cache/src/methods.rs", PURE, "what methods mean is a value"),
    ("edge-node/cache/src/reference.rs", PURE, "references are values"),
    ("edge-node/cache/src/vary.rs", PURE, "variants are values"),
    ("edge-node/cache/src/conditional.rs", PURE, "conditions are values"),
    ("edge-node/cache/src/range.rs", PURE, "ranges are values"),
    ("edge-node/cache/src/multipart.rs", PURE, "frames are values"),
    (
        "wasm-handlers/src",
        &["pingora", "TcpStream", "TcpListener", "verge_cache", "reqwest"],
        "the sandbox knows no proxy, no cache and no sockets",
    ),
    (
        "wasm-handlers/src/hostcalls",
        &["tokio", "std::fs", "std::net::", "tracing", "wasi_http"],
        "a capability is thin over the host, and does nothing by itself",
    ),
    (
        "edge-node/src/serve/guest/links.rs",
        &["tokio", "crate::", "super::super", "verge_handlers", "verge_cache"],
        "whose turn it is is decided on values",
    ),
    (
        "edge-node/src/serve/guest/apart.rs",
        &["crate::origin", "crate::snapshot", "crate::serve", "verge_cache"],
        "what runs in a task of its own is any content",
    ),
    (
        "edge-node/src/serve/guest/site_cache.rs",
        &["std::fs", "crate::origin", "crate::front", "crate::control_link"],
        "values of handlers go through the cache's doors",
    ),
    (
        "edge-node/src/serve/guest/key_value.rs",
        &["std::fs", "crate::origin", "crate::front", "crate::control_link"],
        "entries of handlers go through the stores' doors",
    ),
    (
        "edge-node/src/kv",
        &["crate::", "hyper", "std::fs", "TcpStream"],
        "the stores of handlers know neither requests nor the way to the control plane",
    ),
    (
        "edge-node/src/kv/copies.rs",
        &["tokio", "SystemTime::now"],
        "which copies are good is decided by revisions",
    ),
    (
        "edge-node/src/countries.rs",
        &["tokio", "hyper", "crate::", "tracing"],
        "where an address is, is read from a file and told to nobody",
    ),
    (
        "edge-node/src/secrets.rs",
        &["tokio", "crate::serve", "crate::control_link", "tracing"],
        "a file of secrets is read, and told to nobody",
    ),
    ("config/src/seal.rs", &["rand", "std::fs", "tracing"], "sealing takes keys and nonces"),
    (
        "edge-node/src/control_link/vault.rs",
        &["tokio", "hyper", "session", "applier", "SystemTime::now"],
        "what is kept of secrets knows files, and nobody who asks",
    ),
    (
        "edge-node/src/control_link/secrets.rs",
        &["std::fs", "rand", "SealKey"],
        "secrets are brought into force, and kept elsewhere",
    ),
    (
        "edge-node/src/routing.rs",
        &["tokio", "pingora", "crate::serve", "crate::front", "crate::admit", "SystemTime::now"],
        "routing is pure",
    ),
    (
        "edge-node/src/front/short_file.rs",
        &["http::", "h2::", "crate::serve", "verge_cache"],
        "the log is told, and nothing else",
    ),
    (
        "edge-node/src/front/tunnel.rs",
        &["http::", "hyper", "crate::origin", "crate::serve", "crate::listen"],
        "a tunnel is bytes both ways",
    ),
    (
        "edge-node/src/origin",
        &["crate::serve", "crate::front", "crate::listen", "crate::admit", "crate::control_link"],
        "the way to an origin is the last room of a request",
    ),
    (
        "edge-node/src/control_link",
        &["crate::front", "crate::serve", "crate::listen", "pingora"],
        "the control link ends at the snapshot",
    ),
    (
        "edge-node/src/tail",
        &["crate::", "hyper", "std::fs", "TcpStream"],
        "who watches requests knows neither how they are served nor how it is told",
    ),
    (
        "edge-node/src/previews.rs",
        &["tokio", "crate::serve", "crate::control_link", "SystemTime::now", "verge_cache"],
        "which preview a request is for is a value",
    ),
    (
        "edge-node/src/handlers",
        &["crate::serve", "crate::front", "crate::listen", "crate::control_link", "verge_cache"],
        "what is kept beside a handler knows no way of a request",
    ),
    (
        "edge-node/src/handlers/breaker.rs",
        &["tokio", "parking_lot", "Instant::now", "crate::telemetry"],
        "a breaker takes `now`",
    ),
    (
        "edge-node/src/control_link/usage/ledger.rs",
        &["tokio", "std::fs", "rand::", "SystemTime::now", "super::super"],
        "a ledger is numbers and sums",
    ),
    (
        "control-plane/src/usage.rs",
        &["tokio::", "axum", "sqlx", "crate::store", "crate::api"],
        "what counts of a report is decided on values",
    ),
    (
        "edge-node/src/admit",
        &["crate::front", "crate::control_link", "verge_cache", "verge_handlers", "tokio"],
        "admission judges a request and answers nothing",
    ),
    (
        "control-plane/src/state",
        &["tokio::", "sqlx", "axum", "std::fs", "SystemTime::now", "StatusCode"],
        "state transitions are pure",
    ),
    (
        "control-plane/src/store",
        &["axum", "StatusCode", "crate::api"],
        "only the api names statuses",
    ),
    (
        "control-plane/src/keys.rs",
        &["axum", "sqlx", "crate::store", "crate::api"],
        "keys seal and open, whoever asks",
    ),
    (
        "control-plane/src/api/secrets.rs",
        &["tracing", "idempotency", "SealKey"],
        "a value is in no log, and no hash of it is kept",
    ),
    (
        "control-plane/src/store/secrets.rs",
        &["crate::keys", "tracing", "Secret::new"],
        "the store cannot open what it keeps",
    ),
    (
        "control-plane/src/questions.rs",
        &["axum", "sqlx", "crate::store", "crate::api", "crate::state"],
        "questions are of no history and know nothing of what is asked",
    ),
    (
        "control-plane/src/tails.rs",
        &["axum", "sqlx", "crate::store", "crate::api", "crate::state"],
        "tails are of no history",
    ),
    (
        "control-plane/src/dry_run.rs",
        &["tokio::", "axum", "sqlx", "crate::store"],
        "the receipt of a dry run is a value",
    ),
    (
        "tests",
        &["verge_edge::", "verge_control::", "verge_cache::", "verge_handlers::"],
        "whole-system tests drive binaries and HTTP only",
    ),
];

/// What a pure room of the cache may not touch.
const PURE: &[&str] = &["tokio", "moka", "SystemTime::now", "Instant::now", "crate::store"];

/// Folders that hold nothing of ours; `.git` is a file in a worktree.
const FOREIGN: &[&str] = &[".git", "target", "node_modules", ".venv", "__pycache__", ".setup"];

/// Kinds of text files that are read for what must not be committed.
const TEXT: &[&str] = &[
    "rs", "toml", "md", "sh", "py", "js", "mjs", "json", "wit", "yml", "yaml", "html", "css",
    "service", "conf", "lock", "sql", "",
];

fn root() -> PathBuf {
    let mut folder = std::env::current_dir().unwrap();
    while !fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|t| t.contains("[workspace]")) {
        assert!(folder.pop(), "run this inside the repository");
    }
    folder
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !FOREIGN.contains(&name.as_str()) {
            walk(&entry.path(), found);
        } else if kind.is_file() && !FOREIGN.contains(&name.as_str()) {
            found.push(entry.path());
        }
    }
}

/// Every text file of the repository: its path from the root, and its text.
fn texts() -> Vec<(String, String)> {
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let mut texts: Vec<_> = paths
        .into_iter()
        .filter(|path| {
            let kind = path.extension().map(|e| e.to_string_lossy().into_owned());
            TEXT.contains(&kind.unwrap_or_default().as_str())
        })
        .filter_map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            Some((name, fs::read_to_string(&path).ok()?))
        })
        .collect();
    texts.sort();
    texts
}

fn rust() -> Vec<(String, String)> {
    texts().into_iter().filter(|(name, _)| name.ends_with(".rs")).collect()
}

/// A file of tests, not one with tests in it.
fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs")
}

/// The text before the tests that a file ends with.
fn without_tests(text: &str) -> &str {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "#[cfg(test)]" {
            let rest = text[offset + line.len()..].trim_start();
            if rest.starts_with("mod ") || rest.starts_with("#[allow") || rest.starts_with("#[path")
            {
                return &text[..offset];
            }
        }
        offset += line.len();
    }
    text
}

/// The text without comments that take up their line.
fn code(text: &str) -> String {
    without_tests(text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn too_long(name: &str, text: &str) -> Option<String> {
    let lines = without_tests(text).lines().count();
    (lines > MAX_LINES && !is_test_file(name))
        .then(|| format!("{name}: {lines} lines without tests; at most {MAX_LINES}"))
}

fn headless(name: &str, text: &str) -> Option<String> {
    (!text.starts_with("//!")).then(|| {
        format!("{name}: must begin with one `//!` sentence: what it is for, what it may not touch")
    })
}

/// The workspace's crates that a manifest names in any of its tables of dependencies.
fn imports(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies");
            if let Some((before, name)) = table.rsplit_once('.')
                && before.ends_with("dependencies")
            {
                found.push(name.to_owned());
            }
        } else if inside && !line.starts_with('#') {
            let name: String =
                line.chars().take_while(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
            found.push(name);
            if let Some((_, package)) = line.split_once("package = \"") {
                found.push(package.split('"').next().unwrap().to_owned());
            }
        }
    }
    found.retain(|name| name.starts_with("verge-"));
    found
}

fn wrong_arrows(name: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    imports(manifest)
        .into_iter()
        .filter(|import| !allowed.contains(&import.as_str()))
        .map(|import| format!("{name}/Cargo.toml: may not depend on {import}"))
        .collect()
}

fn touches(name: &str, text: &str, words: &[&str], why: &str) -> Vec<String> {
    let code = code(text);
    words
        .iter()
        .filter(|word| code.contains(**word))
        .map(|word| format!("{name}: touches `{word}`, but {why}"))
        .collect()
}

fn in_room(name: &str, room: &str) -> bool {
    let with_folder = room.strip_suffix(".rs").unwrap_or(room);
    name == room
        || name == format!("{room}.rs")
        || name.strip_prefix(with_folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Paths of somebody's machine. Written in two parts, so that this file passes its own test.
fn machine_paths(name: &str, text: &str) -> Vec<String> {
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/home", "/"), concat!("/tm", "p/")]
        .iter()
        .filter(|path| text.contains(**path))
        .map(|path| format!("{name}: holds a machine's path ({path}…)"))
        .collect()
}

fn leftovers(name: &str, text: &str) -> Vec<String> {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
        concat!("allow(clippy::too_many", "_lines"),
    ];
    text.lines()
        .enumerate()
        .flat_map(|(index, line)| {
            words
                .iter()
                .filter(|word| line.contains(**word))
                .map(move |word| format!("{name}:{}: leftover `{word}`", index + 1))
        })
        .collect()
}

/// A lock file of npm that would send every install to one machine's registry.
fn pinned_hosts(name: &str, text: &str) -> Option<String> {
    (name.ends_with("package-lock.json") && text.contains("\"resolved\""))
        .then(|| format!("{name}: names the host of a registry"))
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn crates_import_one_way() {
    let root = root();
    let mut faults = Vec::new();
    for (folder, allowed) in CRATE_ARROWS {
        let manifest = fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        faults.extend(wrong_arrows(folder, &manifest, allowed));
    }
    report(faults);
}

#[test]
fn every_member_has_its_arrows_written_here() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let members: Vec<_> = members.split('"').skip(1).step_by(2).collect();
    let known: Vec<_> = CRATE_ARROWS.iter().map(|(folder, _)| *folder).collect();
    assert!(members.iter().all(|m| known.contains(m)), "{members:?} has one not in {known:?}");
    assert_eq!(members.len(), known.len());
}

#[test]
fn rooms_import_one_way() {
    let mut faults = Vec::new();
    let files = rust();
    for (room, words, why) in ROOM_ARROWS {
        for (name, text) in &files {
            if in_room(name, room) && name != "tests/tests/structure.rs" {
                faults.extend(touches(name, text, words, why));
            }
        }
    }
    report(faults);
}

#[test]
fn files_stay_small() {
    report(rust().iter().filter_map(|(name, text)| too_long(name, text)).collect());
}

#[test]
fn files_say_what_they_are_for() {
    report(rust().iter().filter_map(|(name, text)| headless(name, text)).collect());
}

#[test]
fn nothing_is_left_over() {
    report(
        texts()
            .iter()
            .filter(|(name, _)| name.ends_with(".rs") || name.ends_with(".py"))
            .flat_map(|(name, text)| leftovers(name, text))
            .collect(),
    );
}

#[test]
fn no_machine_is_named() {
    let texts = texts();
    let mut faults: Vec<_> =
        texts.iter().flat_map(|(name, text)| machine_paths(name, text)).collect();
    faults.extend(texts.iter().filter_map(|(name, text)| pinned_hosts(name, text)));
    report(faults);
}

/// Each rule must be able to fail: one faulty text for each, and its harmless neighbour.
#[test]
fn every_rule_can_fail() {
    let lines = |count: usize| "//! x\n".repeat(count);
    assert!(too_long("a/src/b.rs", &lines(MAX_LINES + 1)).is_some());
    assert!(too_long("a/src/b.rs", &lines(MAX_LINES)).is_none());
    let tested = lines(MAX_LINES) + "#[cfg(test)]\nmod tests {\n" + &lines(MAX_LINES) + "}\n";
    assert!(too_long("a/src/b.rs", &tested).is_none());
    assert!(too_long("a/tests/b.rs", &lines(MAX_LINES + 1)).is_none());

    assert!(headless("a.rs", "use std::fs;\n").is_some());
    assert!(headless("a.rs", "//! For this.\nuse std::fs;\n").is_none());

    let manifest = "[dependencies]\nverge-config.workspace = true\nserde = \"1\"\n\
                    [dev-dependencies]\nother = { package = \"verge-edge\", path = \"x\" }\n\
                    [dependencies.verge-cache]\npath = \"y\"\n";
    assert_eq!(imports(manifest), ["verge-config", "verge-edge", "verge-cache"]);
    assert_eq!(wrong_arrows("control-plane", manifest, &["verge-config"]).len(), 2);
    assert!(wrong_arrows("a", "[package]\nname = \"verge-edge\"\n", &[]).is_empty());

    let touching = "//! Never tokio.\nuse tokio::fs;\n#[cfg(test)]\nmod tests { use moka::x; }\n";
    assert_eq!(touches("a.rs", touching, &["tokio", "moka"], "it is pure").len(), 1);
    assert!(in_room("edge-node/src/routing.rs", "edge-node/src/routing.rs"));
    assert!(in_room("edge-node/src/routing/path.rs", "edge-node/src/routing.rs"));
    assert!(in_room("control-plane/src/state.rs", "control-plane/src/state"));
    assert!(!in_room("control-plane/src/state_file.rs", "control-plane/src/state"));

    assert_eq!(machine_paths("a.md", concat!("see /wo", "rk/main")).len(), 1);
    assert!(machine_paths("a.md", "see /work of ours, /rooted").is_empty());

    assert_eq!(leftovers("a.rs", concat!("// TO", "DO: later\nlet x = to", "do!();\n")).len(), 2);
    assert!(leftovers("a.rs", "// A list of what is to be done.\n").is_empty());

    assert!(pinned_hosts("a/package-lock.json", "{\"resolved\": \"https://x/\"}").is_some());
    assert!(pinned_hosts("a/package-lock.json", "{\"integrity\": \"sha512-x\"}").is_none());
}

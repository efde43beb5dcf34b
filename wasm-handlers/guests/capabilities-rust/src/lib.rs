//! A handler that uses each capability of an edge, one a path, and says what it was answered: an example
//! of `verge:edge`, and what the tests of the capabilities run. Below `/bare` it does the same, so that
//! a site can have it twice.

use std::time::Duration;
use verge_sdk::log::Level;
use verge_sdk::{cache, client, config, kv, log, secrets};
use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let uri = request.uri();
    let query = Query(uri.query().unwrap_or_default());
    let path = uri.path();
    let answer = match path.strip_prefix("/bare").unwrap_or(path) {
        "/config" => format!("{:?}", config::get(query.text("key"))),
        "/config/all" => format!("{:?}", config::all()),
        "/log" => messages(&query),
        "/cache/get" => format!("{:?}", cache::get(query.text("key")).map(|found| found.map(text))),
        "/cache/put" => put(&query, query.text("value").as_bytes()),
        "/cache/put/long" => put(&query, &vec![b'v'; query.number("bytes", 1 << 20)]),
        "/cache/purge" => format!("{:?}", cache::purge(&query.list("tags"))),
        "/cache/many" => many(query.number("n", 100)),
        path if path.starts_with("/kv/") => key_value(path, &query),
        "/client" => format!("{:?}", client::visitor()),
        "/secrets" => secret(query.text("name")),
        "/secrets/hoard" => hoard(query.text("name")),
        "/secrets/leak" => leak(query.text("name")),
        _ => "a good answer".to_owned(),
    };
    Ok(Response::new(format!("{answer}\n").into()))
}

/// The query, read without decoding anything.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn text(&self, name: &str) -> &'a str {
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    fn number(&self, name: &str, otherwise: usize) -> usize {
        self.text(name).parse().unwrap_or(otherwise)
    }

    fn list(&self, name: &str) -> Vec<&'a str> {
        self.text(name).split(',').filter(|item| !item.is_empty()).collect()
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn messages(query: &Query<'_>) -> String {
    let levels =
        [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Critical];
    for level in levels {
        log::log(level, query.text("context"), query.text("message"));
    }
    println!("printed beside it");
    "logged".to_owned()
}

fn put(query: &Query<'_>, value: &[u8]) -> String {
    let lifetime = Duration::from_secs(query.number("ttl", 60) as u64);
    format!("{:?}", cache::put(query.text("key"), value, lifetime, &query.list("tags")))
}

fn many(count: usize) -> String {
    let (good, bad): (Vec<_>, Vec<_>) =
        (0..count).map(|n| cache::get(&n.to_string())).partition(Result::is_ok);
    format!("good {}, bad {}, {:?}", good.len(), bad.len(), bad.first())
}

/// What the site's key-value store says, in words.
fn key_value(path: &str, query: &Query<'_>) -> String {
    if path == "/kv/hoard" {
        let held: Vec<_> = (0..100_000).map(|_| kv::open("")).collect();
        return format!("held {}", held.len());
    }
    let bucket = match kv::open(query.text("bucket")) {
        Ok(bucket) => bucket,
        Err(error) => return format!("{error:?}"),
    };
    let key = query.text("key");
    let keys: Vec<String> = query.list("keys").into_iter().map(str::to_owned).collect();
    match path {
        "/kv/get" => format!("{:?}", bucket.get(key).map(|found| found.map(text))),
        "/kv/set" => format!("{:?}", bucket.set(key, query.text("value").as_bytes())),
        "/kv/set/long" => {
            format!("{:?}", bucket.set(key, &vec![b'v'; query.number("bytes", 1 << 20)]))
        }
        "/kv/delete" => format!("{:?}", bucket.delete(key)),
        "/kv/exists" => format!("{:?}", bucket.exists(key)),
        "/kv/list" => {
            let page = bucket.list_keys(query.text("cursor").parse().ok());
            format!("{:?}", page.map(|page| (page.keys, page.cursor)))
        }
        "/kv/get-many" => {
            let found = kv::get_many(&bucket, &keys);
            let shown = |found: Vec<Option<(String, Vec<u8>)>>| -> Vec<_> {
                found
                    .into_iter()
                    .map(|entry| entry.map(|(key, value)| (key, text(value))))
                    .collect()
            };
            format!("{:?}", found.map(shown))
        }
        "/kv/set-many" => {
            let value = query.text("value").as_bytes().to_vec();
            let entries: Vec<_> = keys.into_iter().map(|key| (key, value.clone())).collect();
            format!("{:?}", kv::set_many(&bucket, &entries))
        }
        "/kv/delete-many" => format!("{:?}", kv::delete_many(&bucket, &keys)),
        "/kv/many" => {
            let (good, bad): (Vec<_>, Vec<_>) = (0..query.number("n", 100))
                .map(|n| bucket.get(&n.to_string()))
                .partition(Result::is_ok);
            format!("good {}, bad {}, {:?}", good.len(), bad.len(), bad.first())
        }
        _ => "no such call".to_owned(),
    }
}

/// What is known of a secret without looking, then the secret.
fn secret(name: &str) -> String {
    match secrets::get(name) {
        Ok(Some(secret)) => format!("{secret:?} is {}", secret.reveal()),
        other => format!("{other:?}"),
    }
}

/// Holds on to more handles than the host keeps.
fn hoard(name: &str) -> String {
    let held: Vec<_> = (0..100_000).map(|_| secrets::get(name)).collect();
    format!("held {}", held.len())
}

/// Does with a secret what a careless handler does, short of revealing it.
fn leak(name: &str) -> ! {
    let secret = secrets::get(name);
    println!("{secret:?}");
    log::log(Level::Error, "leak", &format!("{secret:?}"));
    panic!("{secret:?}");
}

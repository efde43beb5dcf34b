//! How long a hit takes, as a figure to look at; run by hand with `--ignored --nocapture`.

use http::Method;
use std::hint::black_box;
use std::time::Instant;
use verge_cache::Clock;
use verge_config::site::CachePolicy;

use crate::common::{Bench, Scripted, headers, reply};

#[tokio::test]
#[ignore = "prints a figure, asserts nothing about time"]
async fn nanoseconds_per_hit() {
    for vary in ["", "accept-encoding"] {
        let bench = Bench::with(|settings| settings.clock = Clock::System, CachePolicy::default());
        let source = Scripted::new(move |_, _| {
            let fields = [("cache-control", "max-age=1000"), ("vary", vary), ("etag", "\"x\"")];
            reply(200, &fields, vec![7; 1024])
        });
        let targets: Vec<String> = (0..1000).map(|n| format!("/assets/file-{n}.css?v=1")).collect();
        let fields = headers(&[
            ("host", "shop.example"),
            ("user-agent", "speed"),
            ("accept", "*/*"),
            ("accept-encoding", "gzip, br"),
        ]);
        for target in &targets {
            bench.ok(target, &[("accept-encoding", "gzip, br")], &source).await;
        }
        for (name, count) in [("one object", 1), ("1,000 objects", 1000)] {
            let rounds = 1_000_000;
            let start = Instant::now();
            for n in 0..rounds {
                let request = bench.request(&Method::GET, &targets[n % count], &fields);
                black_box(bench.cache.hit(&request).unwrap());
            }
            let each = start.elapsed().as_nanos() / rounds as u128;
            println!("vary {vary:?}, {name}: {each} ns a hit");
        }
    }
}

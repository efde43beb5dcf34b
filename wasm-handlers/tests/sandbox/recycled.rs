//! Instances are recycled, what was in them is not: memory, tables and globals that one guest filled are
//! empty for the next, of the same component or another one. The control is a guest that looks twice.

use std::sync::Arc;

use verge_handlers::{Handler, Sandbox};

use crate::support::{Recorder, get, roomy, settings, spec};
use crate::text::Acts;

/// Fills whatever it can reach, and looks for whatever is not empty.
const FIELDS: &str = r#"
(table $spare 64 8192 funcref)
(memory $other 1 256)
(global $one (mut i64) (i64.const 0))
(global $two (mut f64) (f64.const 0))
(global $three (mut v128) (v128.const i64x2 0 0))
(func $mark)
(elem declare func $mark)
(func $widen
  (drop (memory.grow (i32.const 62)))
  (drop (memory.grow $other (i32.const 15)))
  (drop (table.grow $spare (ref.null func) (i32.const 4000))))
(func $dirty
  (call $widen)
  (memory.fill (i32.const 65536) (i32.const 0xa7) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 65536)))
  (memory.fill $other (i32.const 0) (i32.const 0xa7) (i32.mul (memory.size $other) (i32.const 65536)))
  (table.fill $spare (i32.const 0) (ref.func $mark) (table.size $spare))
  (global.set $one (i64.const -1))
  (global.set $two (f64.const 1))
  (global.set $three (v128.const i64x2 -1 -1)))
;; 1 when anything at all is there.
(func $found (result i32)
  (local $at i32) (local $end i32) (local $any i64)
  (local.set $at (i32.const 65536))
  (local.set $end (i32.mul (memory.size) (i32.const 65536)))
  (loop $next
    (local.set $any (i64.or (local.get $any) (i64.load (local.get $at))))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
  (local.set $at (i32.const 0))
  (local.set $end (i32.mul (memory.size $other) (i32.const 65536)))
  (loop $next
    (local.set $any (i64.or (local.get $any) (i64.load $other (local.get $at))))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
  (local.set $at (i32.const 0))
  (loop $next
    (if (i32.eqz (ref.is_null (table.get $spare (local.get $at)))) (then (local.set $any (i64.const 1))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $at) (table.size $spare))))
  (local.set $any (i64.or (local.get $any) (global.get $one)))
  (local.set $any (i64.or (local.get $any) (i64.reinterpret_f64 (global.get $two))))
  (local.set $any (i64.or (local.get $any) (i64x2.extract_lane 0 (global.get $three))))
  (i64.ne (local.get $any) (i64.const 0)))
;; 200 when nothing was found, 500 when something was. The request's path lies where the allocator put
;; it, at the heap's beginning: that much is wiped before.
(func $report (param $out i32)
  (local $status i32)
  (memory.fill (i32.const 65536) (i32.const 0) (i32.const 64))
  (local.set $status (select (i32.const 500) (i32.const 200) (call $found)))
  (call $say (local.get $out) (local.get $status)))
"#;

const ACTS: &[(&str, &str)] = &[
    ("dirty", "(call $dirty) (call $good (local.get $out))"),
    ("dirty-trap", "(call $dirty) unreachable"),
    ("dirty-spin", "(call $dirty) (loop $again (br $again))"),
    ("look", "(call $report (local.get $out))"),
    ("look-wide", "(call $widen) (call $report (local.get $out))"),
    ("dirty-look", "(call $dirty) (call $report (local.get $out))"),
];

/// The guests of two tenants, in a sandbox of so few instances that each is used again and again: both
/// have two memories, and count as two.
async fn tenants() -> (tempfile::TempDir, Acts, [Handler; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.max_instances = 4;
    let sandbox = Sandbox::new(settings).unwrap();
    let acts = Acts::with(FIELDS, ACTS);
    // The other component has content of its own, so that it is another image of memory.
    let others = Acts::with(&format!("{FIELDS}(data (i32.const 3000) \"another tenant's\")"), ACTS);
    let mut limits = roomy();
    limits.cpu = std::time::Duration::from_millis(100);
    let mut handlers = Vec::new();
    for (site, acts) in [("one", &acts), ("two", &others)] {
        let component = sandbox.load(acts.component().into()).await.unwrap();
        handlers.push(Handler::new(Arc::clone(&component), site.into(), spec(limits, &[])));
    }
    (folder, acts, handlers.try_into().unwrap())
}

async fn status(handler: &Handler, path: &str) -> u16 {
    let host = Recorder::new();
    let status = match handler.call(get(path), host.clone()).await {
        Ok(response) => {
            let status = response.status().as_u16();
            crate::support::text(response).await;
            status
        }
        Err(ended) => ended.status().as_u16(),
    };
    host.end().await;
    status
}

#[tokio::test]
async fn what_one_guest_left_no_other_finds() {
    let (_folder, acts, handlers) = tenants().await;
    let path = |name: &str| acts.path(name);
    // The control: a guest that fills and looks finds it.
    assert_eq!(status(&handlers[0], &path("dirty-look")).await, 500);
    let mut looked = 0;
    for round in 0..750 {
        let dirty = &handlers[round % 2];
        let how = ["dirty", "dirty-trap", "dirty"][round % 3];
        let expected = if how == "dirty" { 200 } else { 500 };
        assert_eq!(status(dirty, &path(how)).await, expected, "{how}");
        if round % 100 == 0 {
            assert_eq!(status(dirty, &path("dirty-spin")).await, 503);
        }
        for handler in &handlers {
            let look = ["look", "look-wide"][round % 2];
            assert_eq!(status(handler, &path(look)).await, 200, "round {round}: leftovers");
            looked += 1;
        }
    }
    println!("{looked} instances looked and found nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_two_that_run_at_the_same_time() {
    let (_folder, acts, handlers) = tenants().await;
    let (dirty, look) = (acts.path("dirty"), acts.path("look-wide"));
    let run = |handler: Handler, path: String| async move {
        for _ in 0..300 {
            assert_eq!(status(&handler, &path).await, 200);
        }
    };
    let [one, two] = handlers;
    let filling = tokio::spawn(run(one, dirty));
    run(two, look).await;
    filling.await.unwrap();
}

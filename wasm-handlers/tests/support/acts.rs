//! What a hostile handler may try, one act a path, as WebAssembly text, and what must come of each.

#![allow(dead_code, unreachable_pub)]

use super::text::Acts;

/// The milliseconds of CPU time that [`CASES`] is written for.
pub const CPU: u64 = 60;
/// The milliseconds by the clock.
pub const WALL: u64 = 1000;

/// What must come of an act, within [`CPU`] and [`WALL`].
pub enum Comes {
    /// The answer of a good handler.
    Good,
    /// This end before a head, for this reason.
    Ends(&'static str, &'static str),
    /// A head, and then this end instead of the content's; any, where none is named.
    Breaks(&'static str),
    /// A whole answer without content, and then this end, which the visitor has no part in.
    Then(&'static str),
}
use Comes::{Breaks, Ends, Good, Then};

/// Every act and what must come of it.
pub const CASES: &[(&str, Comes)] = &[
    ("good", Good),
    ("trap", Ends("trapped", "unreachable")),
    ("divide", Ends("trapped", "divide by zero")),
    ("null-call", Ends("trapped", "uninitialized element")),
    ("spin", Ends("out_of_cpu", "60 ms")),
    ("deep", Ends("trapped", "stack")),
    ("exit", Ends("exited", "exit")),
    ("outside", Ends("trapped", "out of bounds memory access")),
    ("grow", Ends("out_of_memory", "128 MiB")),
    ("grow-kept", Good),
    ("tables", Ends("out_of_memory", "")),
    ("fill", Ends("out_of_cpu", "60 ms")),
    ("copy", Ends("out_of_cpu", "60 ms")),
    ("hang", Ends("timed_out", "1000 ms")),
    ("poll-copies", Ends("timed_out", "1000 ms")),
    ("poll-more", Ends("trapped", "limit")),
    ("poll-ready", Ends("out_of_cpu", "60 ms")),
    ("poll-nothing", Ends("trapped", "empty poll list")),
    ("poll-beyond", Ends("trapped", "")),
    ("pollables", Ends("trapped", "resource")),
    ("fields", Ends("trapped", "resource")),
    ("streams", Ends("trapped", "resource")),
    ("random", Ends("trapped", "")),
    ("long-name", Ends("trapped", "")),
    ("bad-pointer", Ends("trapped", "")),
    ("bad-return", Ends("trapped", "")),
    ("bad-text", Ends("trapped", "utf-8")),
    ("bad-handle", Ends("trapped", "handle")),
    ("wrong-handle", Ends("trapped", "handle")),
    ("dropped-twice", Ends("trapped", "handle")),
    ("given-away", Ends("trapped", "handle")),
    ("parent-first", Ends("trapped", "child")),
    ("set-twice", Then("trapped")),
    ("out-dropped", Ends("no_response", "")),
    ("out-dropped-spin", Ends("out_of_cpu", "")),
    ("injected", Good),
    ("silent", Ends("no_response", "")),
    ("head-trap", Then("trapped")),
    ("late-trap", Breaks("trapped")),
    ("late-spin", Breaks("out_of_cpu")),
    ("endless", Breaks("timed_out")),
    // How fast it is depends on its reader, and so does whether its CPU time or the clock runs out first.
    ("flood", Breaks("")),
    ("drip", Breaks("timed_out")),
    ("unflushed", Good),
    ("too-much", Ends("trapped", "budget")),
    ("busy-write", Breaks("out_of_cpu")),
    ("long-error", Ends("guest_error", "xxxx")),
    ("continue", Ends("guest_error", "100")),
    ("switching", Ends("guest_error", "101")),
    ("length-untrue", Ends("incomplete", "")),
    ("length-no-number", Good),
    ("blank-lines", Good),
];

/// The status of an end.
pub fn status(kind: &str) -> u16 {
    match kind {
        "out_of_cpu" => 503,
        "timed_out" => 504,
        _ => 500,
    }
}

/// A guest of all the acts.
pub fn hostile() -> Acts {
    let acts: Vec<_> = [COMPUTING, MEMORY, WAITING, HOARDING, HANDLES, ANSWERING].concat();
    Acts::with(FIELDS, &acts)
}

const FIELDS: &str = r#"
(table $spare 4 funcref)
(func $deep (param $n i64) (result i64)
  (i64.add (call $deep (i64.add (local.get $n) (i64.const 1))) (i64.const 1)))
(func $hour (result i32) (call $after (i64.const 3600000000000)))
;; So many copies of a handle, one behind the other from 128 KiB on.
(func $copies (param $handle i32) (param $count i32)
  (drop (memory.grow (i32.const 16)))
  (loop $next
    (local.set $count (i32.sub (local.get $count) (i32.const 1)))
    (i32.store (i32.add (i32.const 131072) (i32.shl (local.get $count) (i32.const 2))) (local.get $handle))
    (br_if $next (local.get $count))))
;; The fields of a response with one Content-Length.
(func $lengthy (param $value i32) (result i32)
  (local $fields i32)
  (local.set $fields (call $fields))
  (call $append (local.get $fields) (i32.const 1040) (i32.const 14) (local.get $value) (i32.const 3) (i32.const 256))
  (local.get $fields))
"#;

type Act = (&'static str, &'static str);

const COMPUTING: &[Act] = &[
    ("good", "(call $good (local.get $out))"),
    ("trap", "unreachable"),
    ("divide", "(drop (i32.div_u (i32.const 1) (i32.const 0)))"),
    ("null-call", "(call_indirect $spare (type $act) (i32.const 0) (i32.const 0) (i32.const 1))"),
    ("spin", "(loop $again (br $again))"),
    ("deep", "(drop (call $deep (i64.const 0)))"),
    ("exit", "(call $exit (i32.const 1))"),
];

const MEMORY: &[Act] = &[
    ("outside", "(drop (i32.load (i32.const -4)))"),
    ("grow", "(call $grow-all) unreachable"),
    ("grow-kept", "(call $grow-all) (call $good (local.get $out))"),
    (
        "tables",
        "(loop $more (br_if $more (i32.ge_s
           (table.grow $spare (ref.null func) (i32.const 65536)) (i32.const 0)))) unreachable",
    ),
    // The epoch is looked at before each of these only, however long they take.
    (
        "fill",
        "(drop (memory.grow (i32.const 1900)))
         (loop $again
           (memory.fill (i32.const 131072) (i32.const 7) (i32.const 124518400)) (br $again))",
    ),
    (
        "copy",
        "(drop (memory.grow (i32.const 1900)))
         (loop $again
           (memory.copy (i32.const 131072) (i32.const 62390272) (i32.const 62128128)) (br $again))",
    ),
];

const WAITING: &[Act] = &[
    ("hang", "(call $wait (i64.const 3600000000000))"),
    (
        "poll-copies",
        "(call $copies (call $hour) (i32.const 10000))
         (call $poll (i32.const 131072) (i32.const 10000) (i32.const 256))",
    ),
    (
        "poll-more",
        "(call $copies (call $hour) (i32.const 100000))
         (call $poll (i32.const 131072) (i32.const 100000) (i32.const 256))",
    ),
    (
        "poll-ready",
        "(call $copies (call $after (i64.const 0)) (i32.const 10000))
         (loop $again
           (call $poll (i32.const 131072) (i32.const 10000) (i32.const 256))
           ;; What it returns is thrown away, or memory would be what ends first.
           (global.set $heap (i32.const 65536)) (br $again))",
    ),
    ("poll-nothing", "(call $poll (i32.const 131072) (i32.const 0) (i32.const 256))"),
    ("poll-beyond", "(call $poll (i32.const 0) (i32.const 0x7fffffff) (i32.const 256))"),
];

const HOARDING: &[Act] = &[
    ("pollables", "(loop $more (drop (call $hour)) (br $more))"),
    ("fields", "(loop $more (drop (call $fields)) (br $more))"),
    (
        "streams",
        "(loop $more
           (call $response-body (call $response (call $fields)) (i32.const 256))
           (call $body-write (i32.load (i32.const 260)) (i32.const 256)) (br $more))",
    ),
    // Each copy is changed, so that the host cannot keep them as one; then all of them are held.
    (
        "hoard",
        "(local.set $a (call $fields))
         (loop $more
           (i32.store8 (i32.const 2048) (i32.add (i32.const 97) (i32.and (local.get $b) (i32.const 15))))
           (i32.store8 (i32.const 2049)
             (i32.add (i32.const 97) (i32.and (i32.shr_u (local.get $b) (i32.const 4)) (i32.const 15))))
           (i32.store8 (i32.const 2050) (i32.add (i32.const 97) (i32.shr_u (local.get $b) (i32.const 8))))
           (call $append (local.get $a) (i32.const 2048) (i32.const 3) (i32.const 2048) (i32.const 1) (i32.const 256))
           (local.set $b (i32.add (local.get $b) (i32.const 1)))
           (br_if $more (i32.lt_u (local.get $b) (i32.const 1600))))
         (local.set $b (i32.const 0))
         (loop $again
           (local.set $c (call $clone (local.get $a)))
           (call $append (local.get $c) (i32.const 1056) (i32.const 4) (i32.const 1168) (i32.const 1) (i32.const 256))
           (local.set $b (i32.add (local.get $b) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $b) (i32.const 1000))))
         (call $wait (i64.const 3600000000000))",
    ),
    ("random", "(call $random (i64.const 0x10000000000) (i32.const 256))"),
    (
        "long-name",
        "(drop (memory.grow (i32.const 1600)))
         (call $append (call $fields) (i32.const 0) (i32.const 0x6000000) (i32.const 0) (i32.const 1) (i32.const 256))",
    ),
];

const HANDLES: &[Act] = &[
    (
        "bad-pointer",
        "(call $append (call $fields) (i32.const -16) (i32.const 32) (i32.const 0) (i32.const 1) (i32.const 256))",
    ),
    (
        "bad-return",
        "(call $append (call $fields) (i32.const 1056) (i32.const 4) (i32.const 0) (i32.const 1) (i32.const -8))",
    ),
    (
        "bad-text",
        "(call $append (call $fields) (i32.const 1120) (i32.const 4) (i32.const 0) (i32.const 1) (i32.const 256))",
    ),
    ("bad-handle", "(call $drop-fields (i32.const 9999))"),
    ("wrong-handle", "(call $drop-fields (call $response (call $fields)))"),
    (
        "dropped-twice",
        "(local.set $a (call $fields)) (call $drop-fields (local.get $a)) (call $drop-fields (local.get $a))",
    ),
    (
        "given-away",
        "(local.set $a (call $fields)) (drop (call $response (local.get $a))) (call $drop-fields (local.get $a))",
    ),
    (
        "parent-first",
        "(drop (call $begin (local.get $out)))
         (call $body-finish (global.get $body) (i32.const 0) (i32.const 0) (i32.const 256))",
    ),
    (
        "set-twice",
        "(call $set (local.get $out) (call $response (call $fields)))
         (call $set (local.get $out) (call $response (call $fields)))",
    ),
    ("out-dropped", "(call $drop-outparam (local.get $out))"),
    ("out-dropped-spin", "(call $drop-outparam (local.get $out)) (loop $again (br $again))"),
    (
        "injected",
        "(call $append (call $fields) (i32.const 1056) (i32.const 4) (i32.const 1136) (i32.const 18) (i32.const 256))
         (if (i32.eqz (i32.load8_u (i32.const 256))) (then unreachable))
         (call $good (local.get $out))",
    ),
];

const ANSWERING: &[Act] = &[
    ("silent", ""),
    ("head-trap", "(call $set (local.get $out) (call $response (call $fields))) unreachable"),
    (
        "late-trap",
        "(local.set $a (call $begin (local.get $out)))
         (call $write-flush (local.get $a) (i32.const 1024) (i32.const 5) (i32.const 256))
         (call $wait (i64.const 5000000)) unreachable",
    ),
    (
        "late-spin",
        "(local.set $a (call $begin (local.get $out)))
         (call $write-flush (local.get $a) (i32.const 1024) (i32.const 5) (i32.const 256))
         (call $wait (i64.const 5000000)) (loop $again (br $again))",
    ),
    (
        "endless",
        "(local.set $a (call $begin (local.get $out)))
         (loop $more
           (call $wait (i64.const 1000000))
           (call $write-flush (local.get $a) (i32.const 4096) (i32.const 4096) (i32.const 256))
           (br_if $more (i32.eqz (i32.load8_u (i32.const 256)))))",
    ),
    (
        "flood",
        "(local.set $a (call $begin (local.get $out)))
         (loop $more
           (call $write-flush (local.get $a) (i32.const 4096) (i32.const 4096) (i32.const 256))
           (br_if $more (i32.eqz (i32.load8_u (i32.const 256)))))",
    ),
    (
        "drip",
        "(local.set $a (call $begin (local.get $out)))
         (loop $more (call $wait (i64.const 1000000)) (br $more))",
    ),
    (
        "unflushed",
        "(call $write (call $begin (local.get $out)) (i32.const 1024) (i32.const 5) (i32.const 256))",
    ),
    (
        "too-much",
        "(drop (memory.grow (i32.const 16)))
         (call $write (call $begin (local.get $out)) (i32.const 0) (i32.const 1048576) (i32.const 256))",
    ),
    (
        "busy-write",
        "(local.set $a (call $begin (local.get $out)))
         (loop $again (call $check-write (local.get $a) (i32.const 256)) (br $again))",
    ),
    (
        "long-error",
        "(drop (memory.grow (i32.const 80)))
         (memory.fill (i32.const 131072) (i32.const 120) (i32.const 4194304))
         (call $outparam-set (local.get $out) (i32.const 1) (i32.const 38) (i32.const 1) (i64.const 131072)
           (i32.const 4194304) (i32.const 0) (i32.const 0) (i32.const 0))",
    ),
    ("continue", "(drop (call $begin-with (local.get $out) (i32.const 100) (call $fields)))"),
    ("switching", "(drop (call $begin-with (local.get $out) (i32.const 101) (call $fields)))"),
    (
        "length-untrue",
        "(local.set $a (call $response (call $lengthy (i32.const 1168)))) (call $set (local.get $out) (local.get $a))",
    ),
    (
        "length-no-number",
        "(drop (call $lengthy (i32.const 1184)))
         (if (i32.eqz (i32.load8_u (i32.const 256))) (then unreachable))
         (call $good (local.get $out))",
    ),
    (
        "blank-lines",
        "(memory.fill (i32.const 65536) (i32.const 10) (i32.const 60000))
         (call $write (call $stdout) (i32.const 65536) (i32.const 60000) (i32.const 256))
         (call $good (local.get $out))",
    ),
];

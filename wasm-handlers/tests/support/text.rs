//! Guests written as WebAssembly text: acts of a few instructions each, wrapped into a component that
//! exports `wasi:http/incoming-handler`. Knows no sandbox and no edge; both levels of tests use it.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

/// What a guest of these tests may import.
const WORLD: &str = "package test:guests;\nworld guest {\n  include wasi:http/proxy@0.2.10;\n  \
                     import wasi:cli/environment@0.2.10;\n  import wasi:cli/exit@0.2.10;\n}\n";

/// The interfaces of `wasi:http` lie with those of the edge.
fn interfaces() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = ["wit", "../wasm-handlers/wit"];
    let found = beside.map(|folder| here.join(folder)).into_iter().find(|path| path.is_dir());
    found.expect("the WIT of wasi:http is part of the repository")
}

fn world() -> &'static (Resolve, WorldId) {
    static WORLDS: OnceLock<(Resolve, WorldId)> = OnceLock::new();
    WORLDS.get_or_init(|| {
        let mut resolve = Resolve::default();
        resolve.push_dir(interfaces()).unwrap();
        let package = resolve.push_str("guests.wit", WORLD).unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        (resolve, world)
    })
}

/// A component from a core module in text form, whose imports and exports are named as the component
/// model's tools name them.
pub fn component(core: &str) -> Vec<u8> {
    let mut module = wat::parse_str(core).unwrap_or_else(|error| panic!("{error}\n{core}"));
    let (resolve, world) = world();
    embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    encoder.and_then(|mut e| e.encode()).unwrap_or_else(|error| panic!("{error:#}\n{core}"))
}

/// A guest that does what the request's path says: its first two digits are an act's number.
pub struct Acts {
    names: Vec<&'static str>,
    text: String,
}

impl Acts {
    /// A guest with these acts, each a name and the instructions of a function that has `$request` and
    /// `$out`, the locals `$a`, `$b` and `$c`, and the helpers of [`PRELUDE`].
    pub fn new(acts: &[(&'static str, &str)]) -> Acts {
        Acts::with("", acts)
    }

    /// The same, with further fields of the module before them.
    pub fn with(fields: &str, acts: &[(&'static str, &str)]) -> Acts {
        let mut text = format!("(module\n{IMPORTS}\n{PRELUDE}\n{fields}\n");
        let mut table = String::new();
        for (name, body) in acts {
            text.push_str(&format!(
                "(func $act-{name} (param $request i32) (param $out i32) \
                 (local $a i32) (local $b i32) (local $c i32)\n{body})\n"
            ));
            table.push_str(&format!(" $act-{name}"));
        }
        text.push_str(&format!("(table $acts funcref (elem{table}))\n{DISPATCH})\n"));
        Acts { names: acts.iter().map(|(name, _)| *name).collect(), text }
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        component(&self.text)
    }

    /// Its text, with another allocator: instructions that give an address.
    pub fn text_with_allocator(&self, allocator: &str) -> String {
        let (before, rest) = self.text.split_once(ALLOCATOR_FROM).unwrap();
        let (_, after) = rest.split_once(ALLOCATOR_TO).unwrap();
        format!("{before}{ALLOCATOR_FROM}{allocator})\n{ALLOCATOR_TO}{after}")
    }

    /// The path of an act.
    pub fn path(&self, name: &str) -> String {
        let index = self.names.iter().position(|known| *known == name).expect(name);
        format!("/{index:02}")
    }

    /// The acts' names.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }
}

/// What stands before and behind the instructions of the allocator.
const ALLOCATOR_FROM: &str = "(param $len i32) (result i32)\n";
const ALLOCATOR_TO: &str = ";; Sends a head";

/// The host's functions by short names.
const IMPORTS: &str = r#"
(import "wasi:http/types@0.2.10" "[constructor]fields" (func $fields (result i32)))
(import "wasi:http/types@0.2.10" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
(import "wasi:http/types@0.2.10" "[method]fields.get" (func $get (param i32 i32 i32 i32)))
(import "wasi:http/types@0.2.10" "[method]fields.clone" (func $clone (param i32) (result i32)))
(import "wasi:http/types@0.2.10" "[resource-drop]fields" (func $drop-fields (param i32)))
(import "wasi:http/types@0.2.10" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
(import "wasi:http/types@0.2.10" "[method]incoming-request.headers" (func $headers (param i32) (result i32)))
(import "wasi:http/types@0.2.10" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
(import "wasi:http/types@0.2.10" "[method]outgoing-response.set-status-code" (func $set-status (param i32 i32) (result i32)))
(import "wasi:http/types@0.2.10" "[method]outgoing-response.body" (func $response-body (param i32 i32)))
(import "wasi:http/types@0.2.10" "[resource-drop]outgoing-response" (func $drop-response (param i32)))
(import "wasi:http/types@0.2.10" "[method]outgoing-body.write" (func $body-write (param i32 i32)))
(import "wasi:http/types@0.2.10" "[static]outgoing-body.finish" (func $body-finish (param i32 i32 i32 i32)))
(import "wasi:http/types@0.2.10" "[resource-drop]outgoing-body" (func $drop-body (param i32)))
(import "wasi:http/types@0.2.10" "[static]response-outparam.set" (func $outparam-set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
(import "wasi:http/types@0.2.10" "[resource-drop]response-outparam" (func $drop-outparam (param i32)))
(import "wasi:http/types@0.2.10" "[constructor]outgoing-request" (func $request-new (param i32) (result i32)))
(import "wasi:http/types@0.2.10" "[method]outgoing-request.set-scheme" (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.10" "[method]outgoing-request.set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.10" "[method]outgoing-request.set-path-with-query" (func $set-path (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.10" "[method]future-incoming-response.subscribe" (func $future-subscribe (param i32) (result i32)))
(import "wasi:http/types@0.2.10" "[method]future-incoming-response.get" (func $future-get (param i32 i32)))
(import "wasi:http/types@0.2.10" "[method]incoming-response.status" (func $status (param i32) (result i32)))
(import "wasi:http/outgoing-handler@0.2.10" "handle" (func $fetch (param i32 i32 i32 i32)))
(import "wasi:io/streams@0.2.10" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
(import "wasi:io/streams@0.2.10" "[method]output-stream.check-write" (func $check-write (param i32 i32)))
(import "wasi:io/streams@0.2.10" "[method]output-stream.subscribe" (func $stream-subscribe (param i32) (result i32)))
(import "wasi:io/streams@0.2.10" "[method]output-stream.blocking-write-and-flush" (func $write-flush (param i32 i32 i32 i32)))
(import "wasi:io/streams@0.2.10" "[resource-drop]output-stream" (func $drop-stream (param i32)))
(import "wasi:io/poll@0.2.10" "[method]pollable.block" (func $block (param i32)))
(import "wasi:io/poll@0.2.10" "[resource-drop]pollable" (func $drop-pollable (param i32)))
(import "wasi:io/poll@0.2.10" "poll" (func $poll (param i32 i32 i32)))
(import "wasi:clocks/monotonic-clock@0.2.10" "subscribe-duration" (func $after (param i64) (result i32)))
(import "wasi:random/random@0.2.10" "get-random-bytes" (func $random (param i64 i32)))
(import "wasi:cli/stdout@0.2.10" "get-stdout" (func $stdout (result i32)))
(import "wasi:cli/environment@0.2.10" "get-environment" (func $environment (param i32)))
(import "wasi:cli/exit@0.2.10" "exit" (func $exit (param i32)))
"#;

/// Memory, its allocator, and what good guests do. Below 64 KiB lie texts and what the host returns:
/// every function that returns more than a number does so at 256.
pub const PRELUDE: &str = r#"
(memory (export "memory") 2)
(global $heap (mut i32) (i32.const 65536))
(global $body (mut i32) (i32.const 0))
(data (i32.const 1024) "good\n")
(data (i32.const 1040) "content-length")
(data (i32.const 1056) "x-to")
(data (i32.const 1072) "cdn-loop")
(data (i32.const 1088) "/00")
(data (i32.const 1104) "bad\n")
(data (i32.const 1120) "\ff\fe\fd\fc")
(data (i32.const 1136) "x\0d\0aset-cookie: y=1")
(data (i32.const 1168) "100")
(data (i32.const 1184) "ten")
(func (export "cabi_realloc") (param $old i32) (param $was i32) (param $align i32) (param $len i32) (result i32)
  (local $at i32) (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
  (global.set $heap (i32.add (local.get $at) (local.get $len)))
  (block $room
    (br_if $room (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
    (drop (memory.grow (i32.add (i32.shr_u (local.get $len) (i32.const 16)) (i32.const 1)))))
  (local.get $at))
;; Sends a head made of a status and fields; gives the stream of its content.
(func $begin-with (param $out i32) (param $status i32) (param $fields i32) (result i32)
  (local $response i32)
  (local.set $response (call $response (local.get $fields)))
  (drop (call $set-status (local.get $response) (local.get $status)))
  (call $response-body (local.get $response) (i32.const 256))
  (global.set $body (i32.load (i32.const 260)))
  (call $set (local.get $out) (local.get $response))
  (call $body-write (global.get $body) (i32.const 256))
  (i32.load (i32.const 260)))
(func $begin (param $out i32) (result i32)
  (call $begin-with (local.get $out) (i32.const 200) (call $fields)))
(func $set (param $out i32) (param $response i32)
  (call $outparam-set (local.get $out) (i32.const 0) (local.get $response) (i32.const 0) (i64.const 0)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
(func $end (param $stream i32)
  (call $drop-stream (local.get $stream))
  (call $body-finish (global.get $body) (i32.const 0) (i32.const 0) (i32.const 256)))
;; Answers with a status and a text.
(func $tell (param $out i32) (param $status i32) (param $at i32) (param $length i32)
  (local $stream i32)
  (local.set $stream (call $begin-with (local.get $out) (local.get $status) (call $fields)))
  (call $write-flush (local.get $stream) (local.get $at) (local.get $length) (i32.const 256))
  (call $end (local.get $stream)))
(func $good (param $out i32)
  (call $tell (local.get $out) (i32.const 200) (i32.const 1024) (i32.const 5)))
(func $say (param $out i32) (param $status i32)
  (call $tell (local.get $out) (local.get $status) (i32.const 1104) (i32.const 4)))
(func $wait (param $nanoseconds i64)
  (local $pollable i32)
  (local.set $pollable (call $after (local.get $nanoseconds)))
  (call $block (local.get $pollable))
  (call $drop-pollable (local.get $pollable)))
;; Grows memory as far as it goes, page by page.
(func $grow-all (loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)))))
;; The first value of a field of the request: where it lies is left at 256 and 260.
(func $field (param $request i32) (param $name i32) (param $length i32) (result i32)
  (call $get (call $headers (local.get $request)) (local.get $name) (local.get $length) (i32.const 256))
  (if (i32.eqz (i32.load (i32.const 260))) (then (return (i32.const 0))))
  (i32.store (i32.const 264) (i32.load (i32.const 256)))
  (i32.store (i32.const 256) (i32.load (i32.load (i32.const 264))))
  (i32.store (i32.const 260) (i32.load offset=4 (i32.load (i32.const 264))))
  (i32.const 1))
;; Fetches from an authority with fields; gives the status, or 700 and the number of the error's kind.
(func $ask (param $at i32) (param $length i32) (param $fields i32) (result i32)
  (local $request i32) (local $future i32) (local $pollable i32)
  (local.set $request (call $request-new (local.get $fields)))
  (if (call $set-scheme (local.get $request) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0))
    (then (return (i32.const 790))))
  (if (call $set-authority (local.get $request) (i32.const 1) (local.get $at) (local.get $length))
    (then (return (i32.const 791))))
  (drop (call $set-path (local.get $request) (i32.const 1) (i32.const 1088) (i32.const 3)))
  (call $fetch (local.get $request) (i32.const 0) (i32.const 0) (i32.const 256))
  (if (i32.load8_u (i32.const 256))
    (then (return (i32.add (i32.const 700) (i32.load8_u (i32.const 264))))))
  (local.set $future (i32.load (i32.const 264)))
  (local.set $pollable (call $future-subscribe (local.get $future)))
  (call $block (local.get $pollable))
  (call $drop-pollable (local.get $pollable))
  (call $future-get (local.get $future) (i32.const 256))
  (if (i32.load8_u (i32.const 272))
    (then (return (i32.add (i32.const 700) (i32.load8_u (i32.const 280))))))
  (call $status (i32.load (i32.const 280))))
"#;

/// Finds the act by the first two digits of the path.
const DISPATCH: &str = r#"
(type $act (func (param i32 i32)))
(func (export "wasi:http/incoming-handler@0.2.10#handle") (param $request i32) (param $out i32)
  (local $path i32)
  (call $path (local.get $request) (i32.const 256))
  (local.set $path (i32.load (i32.const 260)))
  (call_indirect $acts (type $act) (local.get $request) (local.get $out)
    (i32.add
      (i32.mul (i32.sub (i32.load8_u offset=1 (local.get $path)) (i32.const 48)) (i32.const 10))
      (i32.sub (i32.load8_u offset=2 (local.get $path)) (i32.const 48)))))
"#;

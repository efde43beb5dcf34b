//! Components that nobody sane would upload: random ones, damaged ones, and bombs that are small to send
//! and costly to compile. The same number always makes the same one.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub
)]

use std::iter::repeat_n;

use arbitrary::{Arbitrary, Unstructured};
use wasm_encoder::{
    CodeSection, ComponentExportKind, ComponentExportSection, ComponentInstanceSection, ConstExpr,
    EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType,
    ImportSection, Module, ModuleSection, NestedComponentSection, TypeSection, ValType,
};

/// One of them.
pub struct Odd {
    /// What it is, for messages.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How many kinds [`odd`] goes through.
pub const KINDS: u64 = 8;

/// The component of a number: its kind goes round, its content is its own. `good` is a valid one, to
/// be damaged.
pub fn odd(number: u64, good: &[u8]) -> Odd {
    let mut random = Random(number);
    let (name, bytes) = match number % KINDS {
        0 => ("random bytes", [PREAMBLE, &random.bytes(2_000)].concat()),
        1 => ("random sections", sections(&mut random)),
        2 => ("a random module as a handler", handler(&module(&mut random))),
        3 => ("a random component", component(&mut random)),
        4 => ("flipped bits", flipped(&mut random, good)),
        5 => ("a cut", good[..random.below(good.len())].to_vec()),
        6 => ("a piece twice", doubled(&mut random, good)),
        _ => ("a random module, many times", nested(&module(&mut random), 1 + random.below(20))),
    };
    Odd { name: format!("{number}: {name}"), bytes }
}

/// Bombs, each a handler by its name: `scale` is about how much of everything.
pub fn bombs(scale: u32) -> Vec<Odd> {
    let many = |count: u32| scale.saturating_mul(count);
    let modules = [
        ("many functions", functions(many(1_000), &[0x0b])),
        ("deep blocks", functions(1, &blocks(many(400)))),
        ("a huge table of branches", functions(1, &branches(many(800).min(60_000)))),
        ("many locals", locals(many(400).min(49_000))),
        ("many live values", functions(many(1).min(40), &straight(many(500)))),
        ("many imports", imports(many(500).min(90_000))),
        ("many types", types(many(500).min(900_000))),
        ("many globals and exports", globals(many(500).min(90_000))),
        ("many calls", functions(many(20), &calls(500))),
    ];
    let mut all: Vec<_> = modules
        .into_iter()
        .map(|(name, module)| Odd { name: name.to_owned(), bytes: handler(&module) })
        .collect();
    all.push(Odd { name: "components in components".to_owned(), bytes: matryoshka(many(10)) });
    let empty = Module::new().finish();
    all.push(Odd { name: "many modules".to_owned(), bytes: nested(&empty, scale as usize * 20) });
    all
}

/// A component's preamble.
const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";
/// The interface that a handler exports: what it exports under that name, nobody looks at before it is
/// compiled.
const EXPORT: &str = "wasi:http/incoming-handler@0.2.3";

/// A component that holds a module and is a handler by its name alone.
pub fn handler(module: &[u8]) -> Vec<u8> {
    let mut component = wasm_encoder::Component::new();
    component.section(&wasm_encoder::RawSection { id: 1, data: module });
    exported(component)
}

fn exported(mut component: wasm_encoder::Component) -> Vec<u8> {
    let mut instances = ComponentInstanceSection::new();
    let nothing: [(&str, ComponentExportKind, u32); 0] = [];
    instances.export_items(nothing);
    component.section(&instances);
    let mut exports = ComponentExportSection::new();
    exports.export(EXPORT, ComponentExportKind::Instance, 0, None);
    component.section(&exports);
    component.finish()
}

/// A handler by its name that holds a module many times.
fn nested(module: &[u8], times: usize) -> Vec<u8> {
    let mut component = wasm_encoder::Component::new();
    for _ in 0..times {
        component.section(&wasm_encoder::RawSection { id: 1, data: module });
    }
    exported(component)
}

fn matryoshka(depth: u32) -> Vec<u8> {
    let mut inner = wasm_encoder::Component::new();
    inner.section(&ModuleSection(&Module::new()));
    for _ in 0..depth {
        let mut outer = wasm_encoder::Component::new();
        outer.section(&NestedComponentSection(&inner));
        inner = outer;
    }
    exported(inner)
}

/// A module of so many functions with one body.
fn functions(count: u32, body: &[u8]) -> Vec<u8> {
    with_bodies(count, || {
        let mut function = Function::new([(8, ValType::I64)]);
        function.raw(body.iter().copied());
        function
    })
}

fn with_bodies(count: u32, body: impl Fn() -> Function) -> Vec<u8> {
    let (mut types, mut functions, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([], []);
    for _ in 0..count {
        functions.function(0);
        code.function(&body());
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    module.finish()
}

/// Blocks in blocks.
fn blocks(depth: u32) -> Vec<u8> {
    let depth = depth as usize;
    let mut body: Vec<u8> = repeat_n([0x02, 0x40], depth).flatten().collect();
    body.extend(repeat_n(0x0b, depth + 1));
    body
}

/// A `br_table` of so many targets in as many blocks as a byte counts.
fn branches(count: u32) -> Vec<u8> {
    let mut body: Vec<u8> = repeat_n([0x02, 0x40], 100).flatten().collect();
    body.extend([0x41, 7, 0x0e]);
    body.extend(leb(count));
    body.extend((0..count).map(|n| u8::try_from(n % 100).unwrap()));
    body.push(0);
    body.extend(repeat_n(0x0b, 101));
    body
}

/// Straight code in which every local lives to the end.
fn straight(count: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for n in 0..count {
        let local = |k: u32| u8::try_from((n * 7 + k * 3) % 8).unwrap();
        // local.get a; local.get b; i64.mul; local.get c; i64.rotl; local.set d
        body.extend([0x20, local(0), 0x20, local(1), 0x7e, 0x20, local(2), 0x89, 0x21, local(3)]);
    }
    body.push(0x0b);
    body
}

fn calls(count: usize) -> Vec<u8> {
    let mut body: Vec<u8> = repeat_n([0x10, 0], count).flatten().collect();
    body.push(0x0b);
    body
}

/// One function of so many locals, all of them used.
fn locals(count: u32) -> Vec<u8> {
    with_bodies(1, || {
        let mut function = Function::new([(count, ValType::I64)]);
        for n in 1..count {
            // local.get n - 1; local.set n
            let step = [&[0x20][..], &leb(n - 1), &[0x21], &leb(n)].concat();
            function.raw(step);
        }
        function.raw([0x0b]);
        function
    })
}

fn imports(count: u32) -> Vec<u8> {
    let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
    types.ty().function([], []);
    for n in 0..count {
        imports.import("module", &format!("function-{n}"), EntityType::Function(0));
    }
    let mut module = Module::new();
    module.section(&types).section(&imports);
    module.finish()
}

fn types(count: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    for n in 0..count {
        let params = (0..16).map(|bit| if n >> bit & 1 == 0 { ValType::I32 } else { ValType::F64 });
        types.ty().function(params.collect::<Vec<_>>(), [ValType::I64]);
    }
    let mut module = Module::new();
    module.section(&types);
    module.finish()
}

fn globals(count: u32) -> Vec<u8> {
    let (mut globals, mut exports) = (GlobalSection::new(), ExportSection::new());
    for n in 0..count {
        let kind = GlobalType { val_type: ValType::I64, mutable: true, shared: false };
        globals.global(kind, &ConstExpr::i64_const(i64::from(n)));
        exports.export(&format!("global-{n}"), ExportKind::Global, n);
    }
    let mut module = Module::new();
    module.section(&globals).section(&exports);
    module.finish()
}

/// A valid module at random.
fn module(random: &mut Random) -> Vec<u8> {
    let config = wasm_smith::Config {
        // Without references there is nothing that needs a collector, which edges have not.
        gc_enabled: false,
        reference_types_enabled: false,
        threads_enabled: false,
        memory64_enabled: false,
        exceptions_enabled: false,
        ..wasm_smith::Config::default()
    };
    let bytes = random.bytes(4_000);
    let made = wasm_smith::Module::new(config, &mut Unstructured::new(&bytes));
    made.map(|module| module.to_bytes()).unwrap_or_default()
}

/// A valid component at random.
fn component(random: &mut Random) -> Vec<u8> {
    let bytes = random.bytes(4_000);
    let made = wasm_smith::Component::arbitrary(&mut Unstructured::new(&bytes));
    made.map(|component| component.to_bytes()).unwrap_or_default()
}

/// Sections of random kinds, lengths that are right, and content that is not.
fn sections(random: &mut Random) -> Vec<u8> {
    let mut bytes = PREAMBLE.to_vec();
    for _ in 0..1 + random.below(12) {
        let content = random.bytes(random.0 as usize % 64);
        bytes.push(u8::try_from(random.below(14)).unwrap());
        bytes.extend(leb(u32::try_from(content.len()).unwrap()));
        bytes.extend(content);
    }
    bytes
}

fn flipped(random: &mut Random, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..1 + random.below(8) {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    bytes
}

fn doubled(random: &mut Random, good: &[u8]) -> Vec<u8> {
    let (from, length) = (8 + random.below(good.len() - 8), random.below(400));
    let piece = &good[from..(from + length).min(good.len())];
    [&good[..from], piece, &good[from..]].concat()
}

fn leb(mut n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(n & 0x7f).unwrap();
        n >>= 7;
        bytes.push(if n == 0 { byte } else { byte | 0x80 });
        if n == 0 {
            return bytes;
        }
    }
}

/// Numbers that are no secret: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

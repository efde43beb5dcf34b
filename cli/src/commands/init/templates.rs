//! What `verge init` writes, by language. Text only: it touches no files.

use clap::ValueEnum;
use serde_json::{Value, json};

/// A file of this folder's templates.
macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("../../../templates/", $file))
    };
}

/// A file of an example handler, which the tests run: what is tested there is what is written here.
macro_rules! guest {
    ($file:literal) => {
        include_str!(concat!("../../../../wasm-handlers/guests/", $file))
    };
}

/// What the SDKs are made of, and the interfaces below them.
macro_rules! sdk {
    ($file:literal) => {
        include_str!(concat!("../../../../wasm-handlers/", $file))
    };
}

type Files = &'static [(&'static str, &'static str)];

const COMMON: Files =
    &[("verge.toml", template!("verge.toml")), ("README.md", template!("README.md"))];

const RUST: Files = &[
    ("Cargo.toml", template!("rust/Cargo.toml")),
    ("src/lib.rs", template!("rust/src/lib.rs")),
    (".gitignore", "/target\n"),
];

const JS: Files = &[
    ("handler.js", template!("js/handler.js")),
    ("greet.js", template!("js/greet.js")),
    ("greet.test.js", template!("js/greet.test.js")),
    ("package-lock.json", guest!("hello-js/package-lock.json")),
    (".npmrc", guest!("hello-js/.npmrc")),
    (".gitignore", "/node_modules\n/handler.wasm\n"),
    ("wit/world.wit", guest!("hello-js/wit/world.wit")),
];
const JS_PACKAGE: &str = guest!("hello-js/package.json");
/// How the example handler is built, too (scripts/guests.sh).
const JS_BUILD: &str = "node node_modules/@bytecodealliance/componentize-js/src/cli.js handler.js \
                        --wit wit --world-name handler -o handler.wasm";

/// The SDK for JavaScript and its interfaces: there, and built in once `wit/world.wit` includes them.
const JS_SDK: Files = &[
    ("verge/cache.js", sdk!("sdk/js/cache.js")),
    ("verge/client.js", sdk!("sdk/js/client.js")),
    ("verge/config.js", sdk!("sdk/js/config.js")),
    ("verge/edge.d.ts", sdk!("sdk/js/edge.d.ts")),
    ("verge/error.js", sdk!("sdk/js/error.js")),
    ("verge/index.js", sdk!("sdk/js/index.js")),
    ("verge/kv.js", sdk!("sdk/js/kv.js")),
    ("verge/log.js", sdk!("sdk/js/log.js")),
    ("verge/package.json", sdk!("sdk/js/package.json")),
    ("verge/secrets.js", sdk!("sdk/js/secrets.js")),
    ("verge/values.js", sdk!("sdk/js/values.js")),
    ("wit/deps/config.wit", sdk!("wit/deps/config.wit")),
    ("wit/deps/keyvalue.wit", sdk!("wit/deps/keyvalue.wit")),
    ("wit/deps/logging.wit", sdk!("wit/deps/logging.wit")),
    ("wit/deps/edge/cache.wit", sdk!("wit/cache.wit")),
    ("wit/deps/edge/client.wit", sdk!("wit/client.wit")),
    ("wit/deps/edge/secrets.wit", sdk!("wit/secrets.wit")),
    ("wit/deps/edge/types.wit", sdk!("wit/types.wit")),
    ("wit/deps/edge/world.wit", sdk!("wit/world.wit")),
];

const PYTHON: Files = &[
    ("handler.py", template!("python/handler.py")),
    ("test_handler.py", template!("python/test_handler.py")),
    ("app.py", guest!("hello-python/app.py")),
    ("edge.py", guest!("hello-python/edge.py")),
    ("build.py", guest!("hello-python/build.py")),
    ("requirements.txt", guest!("hello-python/requirements.txt")),
    (".gitignore", "/.venv\n/handler.wasm\n__pycache__/\n"),
    ("wit/world.wit", guest!("hello-python/wit/world.wit")),
];

const C: Files = &[
    ("handler.c", template!("c/handler.c")),
    ("greet.c", template!("c/greet.c")),
    ("greet.h", template!("c/greet.h")),
    ("test_greet.c", template!("c/test_greet.c")),
    ("edge.c", guest!("hello-c/edge.c")),
    ("edge.h", guest!("hello-c/edge.h")),
    ("bindings/component_type.c", guest!("hello-c/bindings/component_type.c")),
    ("bindings/handler.c", guest!("hello-c/bindings/handler.c")),
    ("bindings/handler.h", guest!("hello-c/bindings/handler.h")),
    ("build.py", guest!("hello-c/build.py")),
    ("requirements.txt", guest!("hello-c/requirements.txt")),
    (".gitignore", "/.venv\n/build\n/handler.wasm\n"),
];

/// The interfaces of WASI, for the languages whose tools read them.
const WIT: Files = &[
    ("wit/deps/cli.wit", guest!("hello-js/wit/deps/cli.wit")),
    ("wit/deps/clocks.wit", guest!("hello-js/wit/deps/clocks.wit")),
    ("wit/deps/filesystem.wit", guest!("hello-js/wit/deps/filesystem.wit")),
    ("wit/deps/http.wit", guest!("hello-js/wit/deps/http.wit")),
    ("wit/deps/io.wit", guest!("hello-js/wit/deps/io.wit")),
    ("wit/deps/random.wit", guest!("hello-js/wit/deps/random.wit")),
    ("wit/deps/sockets.wit", guest!("hello-js/wit/deps/sockets.wit")),
];

/// The language of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    Js,
    Python,
    C,
}

/// What the site file and the README say of a language.
struct Words {
    name: &'static str,
    source: &'static str,
    needs: &'static str,
    test: &'static str,
    cpu: &'static str,
}

/// The files of a new site: their paths and texts.
pub(super) fn files(language: Language, name: &str) -> Vec<(String, String)> {
    let (words, component) = (language.words(), language.component(name));
    let fill = |text: &str| {
        text.replace("{{name}}", name)
            .replace("{{component}}", &component)
            .replace("{{source}}", words.source)
            .replace("{{needs}}", words.needs)
            .replace("{{language}}", words.name)
            .replace("{{test}}", words.test)
            .replace("{{cpu}}", words.cpu)
    };
    let blanks = |(path, text): &(&str, &str)| ((*path).to_owned(), fill(text));
    let plain = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    let mut files: Vec<_> = COMMON.iter().map(blanks).collect();
    match language {
        Language::Rust => files.extend(RUST.iter().map(blanks)),
        Language::Js => {
            files.push(("package.json".to_owned(), package(name)));
            files.extend(JS.iter().chain(JS_SDK).chain(WIT).map(plain));
        }
        Language::Python => files.extend(PYTHON.iter().chain(WIT).map(plain)),
        Language::C => files.extend(C.iter().map(plain)),
    }
    files
}

/// The example handler's package under another name, with what npm is to run.
fn package(name: &str) -> String {
    let guest: Value = serde_json::from_str(JS_PACKAGE).unwrap_or_default();
    let package = json!({
        "name": name,
        "version": "0.1.0",
        "private": true,
        "type": "module",
        "scripts": { "build": JS_BUILD, "test": "node --test" },
        "devDependencies": guest.get("devDependencies"),
    });
    serde_json::to_string_pretty(&package).unwrap_or_default() + "\n"
}

// === impl Language ===

impl Language {
    /// Where its build puts the component.
    fn component(self, name: &str) -> String {
        match self {
            Language::Rust => {
                format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"))
            }
            Language::Js | Language::Python | Language::C => "handler.wasm".to_owned(),
        }
    }

    fn words(self) -> Words {
        match self {
            Language::Rust => Words {
                name: "Rust",
                source: "src/lib.rs",
                needs: "Rust with the target of WASI components (`rustup target add \
                        wasm32-wasip2`).",
                test: "cargo test",
                cpu: "50ms",
            },
            Language::Js => Words {
                name: "JavaScript",
                source: "handler.js",
                needs: "Node.js 20 or newer with npm.",
                test: "npm test",
                cpu: "50ms",
            },
            Language::Python => Words {
                name: "Python",
                source: "handler.py",
                needs: "Python 3.10 or newer with `venv` (on Debian: python3 and python3-venv).\n\
                        The build installs componentize-py into `.venv`.",
                test: "python3 -m unittest",
                // Starting Python takes a part of it in every request.
                cpu: "200ms",
            },
            Language::C => Words {
                name: "C",
                source: "handler.c",
                needs: "Python 3.10 or newer with `venv` (on Debian: python3 and python3-venv).\n\
                        The build installs a C compiler, zig, into `.venv`; its first run compiles \
                        the C library, too,\nwhich takes a minute.",
                test: ".venv/bin/python build.py test    # once `verge dev` or `deploy` has built it",
                cpu: "50ms",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::Site;
    use verge_config::site::Context;

    #[test]
    fn the_templates_are_valid_sites_and_leave_no_blanks() {
        for language in Language::value_variants() {
            let files = files(*language, "my-site");
            for (path, text) in &files {
                // A blank is a name in double braces; C has braces in braces, too.
                let mut inner = text.split("{{").skip(1);
                let is_blank = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase());
                assert!(!inner.any(is_blank), "{path}");
            }
            let (_, text) = files.iter().find(|(path, _)| path == "verge.toml").unwrap();
            let digest = format!("sha256:{}", "0".repeat(64));
            let component = match language {
                Language::Rust => "target/wasm32-wasip2/release/my_site.wasm",
                _ => "handler.wasm",
            };
            assert!(text.contains(component), "{text}");
            let (_, site) =
                Site::from_toml(&text.replace(component, &digest), Context::Fleet).unwrap();
            assert_eq!(&*site.name, "my-site");
        }
    }

    #[test]
    fn no_file_is_written_twice() {
        for language in Language::value_variants() {
            let mut paths: Vec<_> = files(*language, "my-site").into_iter().map(|f| f.0).collect();
            let count = paths.len();
            paths.sort();
            paths.dedup();
            assert_eq!(paths.len(), count, "{language:?}");
        }
    }

    #[test]
    fn the_sdk_for_javascript_is_whole_and_one_line_away() {
        for (path, text) in JS_SDK.iter().filter(|(path, _)| path.ends_with(".js")) {
            let code = text.lines().filter(|line| !line.starts_with(" *"));
            for (_, from) in code.filter_map(|line| line.split_once(" from \"./")) {
                let wanted = format!("verge/{}", from.trim_end_matches("\";"));
                assert!(JS_SDK.iter().any(|(path, _)| *path == wanted), "{wanted} of {path}");
            }
        }
        // The guest that the tests run is built to the template's world and this line.
        let line = "  include verge:edge/imports@0.1.0;";
        let world = |text: &'static str| text.lines().skip_while(|l| !l.starts_with("world"));
        let with: Vec<_> = world(guest!("capabilities-js/wit/world.wit")).collect();
        assert!(with.contains(&line));
        let without = with.into_iter().filter(|l| *l != line);
        assert!(without.eq(world(guest!("hello-js/wit/world.wit"))));
    }

    #[test]
    fn the_pinned_versions_are_those_of_the_tested_examples() {
        let pin = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("wstd")).map(str::to_owned);
            line.unwrap_or_default().split('"').nth(1).map(str::to_owned)
        };
        let guests = guest!("Cargo.toml");
        assert!(pin(guests).is_some());
        assert_eq!(pin(template!("rust/Cargo.toml")), pin(guests));
        let package: Value = serde_json::from_str(&package("my-site")).unwrap();
        assert!(package["devDependencies"]["@bytecodealliance/componentize-js"].is_string());
        assert!(JS_BUILD.contains("--world-name handler"));
        assert!(guest!("hello-js/wit/world.wit").contains("world handler"));
    }
}

//! `verge init`: writes a new site with a handler that builds and deploys as it is. Overwrites
//! nothing.

use crate::Ended;
use crate::error::CliError;
use crate::output::Output;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const SITE: &str = include_str!("../../templates/verge.toml");
const README: &str = include_str!("../../templates/README.md");

const RUST: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml")),
    ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs")),
    (".gitignore", "/target\n"),
];

/// The interfaces and the locked packages are those of the example handler, which the tests run: what
/// is tested there is what is written here.
macro_rules! guest {
    ($file:literal) => {
        include_str!(concat!("../../../wasm-handlers/guests/hello-js/", $file))
    };
}

const JS: [(&str, &str); 12] = [
    ("handler.js", include_str!("../../templates/js/handler.js")),
    ("package-lock.json", guest!("package-lock.json")),
    (".npmrc", guest!(".npmrc")),
    (".gitignore", "/node_modules\n/handler.wasm\n"),
    ("wit/world.wit", guest!("wit/world.wit")),
    ("wit/deps/cli.wit", guest!("wit/deps/cli.wit")),
    ("wit/deps/clocks.wit", guest!("wit/deps/clocks.wit")),
    ("wit/deps/filesystem.wit", guest!("wit/deps/filesystem.wit")),
    ("wit/deps/http.wit", guest!("wit/deps/http.wit")),
    ("wit/deps/io.wit", guest!("wit/deps/io.wit")),
    ("wit/deps/random.wit", guest!("wit/deps/random.wit")),
    ("wit/deps/sockets.wit", guest!("wit/deps/sockets.wit")),
];
const JS_PACKAGE: &str = guest!("package.json");
/// How the example handler is built, too (scripts/guests.sh).
const JS_BUILD: &str = "node node_modules/@bytecodealliance/componentize-js/src/cli.js handler.js \
                        --wit wit --world-name handler -o handler.wasm";

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder, made when it is not there; here when absent.
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// The language of the handler.
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// The site's name; made from the folder's when absent.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    Js,
}

#[derive(Serialize)]
struct Made {
    site: String,
    folder: PathBuf,
    files: Vec<String>,
}

pub(crate) fn run(args: &InitArgs, output: Output) -> Result<Ended, CliError> {
    let name = name(args)?;
    let files = files(args.lang, &name);
    let taken: Vec<&str> = files
        .iter()
        .map(|(path, _)| path.as_str())
        .filter(|path| args.folder.join(path).symlink_metadata().is_ok())
        .collect();
    if !taken.is_empty() {
        let folder = args.folder.display();
        let message = format!("{folder} has {} already; nothing was written", taken.join(", "));
        return Err(CliError::Usage(message));
    }
    for (path, text) in &files {
        let path = args.folder.join(path);
        write_new(&path, text).map_err(|error| CliError::file(&path, error))?;
    }
    let made = Made {
        site: name,
        folder: args.folder.clone(),
        files: files.into_iter().map(|(path, _)| path).collect(),
    };
    output.result(&made, |made| {
        let folder = made.folder.display();
        format!(
            "{} is in {folder}: {}\nnext: cd {folder} && verge dev",
            made.site,
            made.files.join(" ")
        )
    });
    Ok(Ended::Done)
}

/// The site's name: as given, or as near to the folder's as a name can be.
fn name(args: &InitArgs) -> Result<String, CliError> {
    let text = match &args.name {
        Some(name) => name.clone(),
        None => {
            let folder = fs::canonicalize(&args.folder).unwrap_or_else(|_| args.folder.clone());
            let last = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            let name: String =
                last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let name: String = name.trim_matches('-').chars().take(63).collect();
            name.trim_matches('-').to_owned()
        }
    };
    // It names a package and a library, too, and those begin with a letter.
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= 63
        && text.bytes().all(letters)
        && !text.ends_with('-');
    if good {
        Ok(text)
    } else {
        Err(CliError::Usage(format!(
            "{text:?} is not a site's name; give one with --name: 1 to 63 of a-z, 0-9 and hyphens, \
             a letter first"
        )))
    }
}

fn files(language: Language, name: &str) -> Vec<(String, String)> {
    let (component, source, needs, named) = match language {
        Language::Rust => {
            let library = name.replace('-', "_");
            let component = format!("target/wasm32-wasip2/release/{library}.wasm");
            let needs =
                "Rust with the target of WASI components (`rustup target add wasm32-wasip2`).";
            (component, "src/lib.rs", needs, "Rust")
        }
        Language::Js => {
            ("handler.wasm".to_owned(), "handler.js", "Node.js with npm.", "JavaScript")
        }
    };
    let fill = |text: &str| {
        text.replace("{{name}}", name)
            .replace("{{component}}", &component)
            .replace("{{source}}", source)
            .replace("{{needs}}", needs)
            .replace("{{language}}", named)
    };
    let mut files =
        vec![("verge.toml".to_owned(), fill(SITE)), ("README.md".to_owned(), fill(README))];
    match language {
        Language::Rust => {
            files.extend(RUST.map(|(path, text)| (path.to_owned(), fill(text))));
        }
        Language::Js => {
            files.push(("package.json".to_owned(), package(name)));
            files.extend(JS.map(|(path, text)| (path.to_owned(), text.to_owned())));
        }
    }
    files
}

/// The example handler's package under another name, with a build script.
fn package(name: &str) -> String {
    let guest: Value = serde_json::from_str(JS_PACKAGE).unwrap_or_default();
    let package = json!({
        "name": name,
        "version": "0.1.0",
        "private": true,
        "type": "module",
        "scripts": { "build": JS_BUILD },
        "devDependencies": guest.get("devDependencies"),
    });
    serde_json::to_string_pretty(&package).unwrap_or_default() + "\n"
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::Site;
    use verge_config::site::Context;

    #[test]
    fn the_templates_are_valid_sites_and_leave_no_blanks() {
        for language in [Language::Rust, Language::Js] {
            let files = files(language, "my-site");
            for (path, text) in &files {
                assert!(!text.contains("{{"), "{path}");
            }
            let (_, text) = files.iter().find(|(path, _)| path == "verge.toml").unwrap();
            let digest = format!("sha256:{}", "0".repeat(64));
            let component = match language {
                Language::Rust => "target/wasm32-wasip2/release/my_site.wasm",
                Language::Js => "handler.wasm",
            };
            let (_, site) =
                Site::from_toml(&text.replace(component, &digest), Context::Fleet).unwrap();
            assert_eq!(&*site.name, "my-site");
        }
    }

    #[test]
    fn the_pinned_versions_are_those_of_the_tested_examples() {
        let guests = include_str!("../../../wasm-handlers/guests/Cargo.toml");
        let pin = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("wstd")).map(str::to_owned);
            line.unwrap_or_default().split('"').nth(1).map(str::to_owned)
        };
        assert!(pin(guests).is_some());
        assert_eq!(pin(RUST[0].1), pin(guests));
        let package: Value = serde_json::from_str(&package("my-site")).unwrap();
        assert!(package["devDependencies"]["@bytecodealliance/componentize-js"].is_string());
        assert!(JS_BUILD.contains("--world-name handler"));
        assert!(JS[4].1.contains("world handler"));
    }

    #[test]
    fn names_come_from_folders() {
        let of = |folder: &str| {
            name(&InitArgs { folder: folder.into(), lang: Language::Rust, name: None })
        };
        assert_eq!(of("some/My Shop_2").unwrap(), "my-shop-2");
        assert!(of("some/42").is_err());
        let given = |text: &str| {
            let name = Some(text.to_owned());
            super::name(&InitArgs { folder: ".".into(), lang: Language::Rust, name })
        };
        assert!(given("shop").is_ok());
        for odd in ["", "Shop", "a_b", "-a", "a-", "1a"] {
            assert!(given(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("verge.toml"), "mine").unwrap();
        let name = Some("shop".to_owned());
        let args = InitArgs { folder: folder.path().to_owned(), lang: Language::Rust, name };
        let error = run(&args, Output::new(true)).unwrap_err();
        assert!(error.to_string().contains("verge.toml already"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

//! Builds handlers: finds the project that a component comes from and runs that project's own build.
//! Knows Cargo, npm and Python's `venv`; decides nothing about sites.

use crate::error::CliError;
use crate::output::Output;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;
use verge_config::site::{ComponentRef, SiteDocument};

/// A folder with a build of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Project {
    /// A Cargo package.
    Cargo(PathBuf),
    /// An npm package with a `build` script.
    Npm(PathBuf),
    /// A folder with a `build.py`, and a `requirements.txt` that says what it needs: Python, and what
    /// has its compiler from Python's registry.
    Python(PathBuf),
}

const PYTHON: &str = "install Python 3.10 or newer (on Debian: python3 and python3-venv)";

/// Builds every project that a component of the document comes from.
pub(crate) async fn build_all(
    folder: &Path,
    document: &SiteDocument,
    output: Output,
) -> Result<(), CliError> {
    for project in projects(folder, document) {
        project.build(output).await?;
    }
    Ok(())
}

/// The projects of a document's components.
pub(crate) fn projects(folder: &Path, document: &SiteDocument) -> BTreeSet<Project> {
    let paths = document.handlers.values().filter_map(|handler| {
        match ComponentRef::parse(&handler.component)? {
            ComponentRef::Path(path) => Some(path),
            ComponentRef::Digest(_) => None,
        }
    });
    paths.filter_map(|path| project_of(folder, Path::new(&path))).collect()
}

/// The project of a component: the nearest folder above it, within the site's own folder, that has
/// `Cargo.toml` where the component is below its `target/`, or `package.json` with a build script, or
/// `build.py` with `requirements.txt`. What lies elsewhere is somebody else's and is taken as it is.
pub(crate) fn project_of(folder: &Path, component: &Path) -> Option<Project> {
    if component.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return None;
    }
    component.ancestors().skip(1).find_map(|above| {
        let root = folder.join(above);
        let below = component.strip_prefix(above).ok()?;
        if below.starts_with("target") && root.join("Cargo.toml").is_file() {
            return Some(Project::Cargo(root));
        }
        if has_build_script(&root.join("package.json")) {
            return Some(Project::Npm(root));
        }
        let python = ["build.py", "requirements.txt"].iter().all(|name| root.join(name).is_file());
        python.then_some(Project::Python(root))
    })
}

fn has_build_script(package: &Path) -> bool {
    let text = fs::read_to_string(package).unwrap_or_default();
    let package: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    package.pointer("/scripts/build").is_some_and(serde_json::Value::is_string)
}

// === impl Project ===

impl Project {
    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Project::Cargo(folder) | Project::Npm(folder) | Project::Python(folder) => folder,
        }
    }

    async fn build(&self, output: Output) -> Result<(), CliError> {
        match self {
            Project::Cargo(_) => {
                let arguments = ["build", "--release", "--target", "wasm32-wasip2"];
                self.run("cargo", &arguments, "install Rust from https://rustup.rs", output).await
            }
            Project::Npm(folder) => self.build_npm(folder, output).await,
            Project::Python(folder) => self.build_python(folder, output).await,
        }
    }

    async fn build_npm(&self, folder: &Path, output: Output) -> Result<(), CliError> {
        let hint = "install Node.js from https://nodejs.org";
        if !folder.join("node_modules").is_dir() {
            let locked = folder.join("package-lock.json").is_file();
            let install = if locked { "ci" } else { "install" };
            // No build needs the packages' own scripts, which could do anything.
            let arguments =
                [install, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
            self.run("npm", &arguments, hint, output).await?;
        }
        self.run("npm", &["run", "--silent", "build"], hint, output).await
    }

    async fn build_python(&self, folder: &Path, output: Output) -> Result<(), CliError> {
        let failed = |error| CliError::file(folder, error);
        let venv = std::path::absolute(folder.join(".venv")).map_err(failed)?;
        let python = venv.join("bin/python");
        let wanted = fs::read(folder.join("requirements.txt")).map_err(failed)?;
        // What it was made from, kept in it: it is made anew when the requirements change, and after
        // an attempt that failed half-way.
        let stamp = venv.join(".requirements");
        if fs::read(&stamp).ok().as_ref() != Some(&wanted) {
            self.run("python3", &["-m", "venv", "--clear", ".venv"], PYTHON, output).await?;
            // Wheels only: a package's own build could do anything.
            let arguments = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary=:all:",
                "--requirement=requirements.txt",
            ];
            self.run(&python, &arguments, PYTHON, output).await?;
            fs::write(&stamp, &wanted).map_err(failed)?;
        }
        self.run(&python, &["build.py"], PYTHON, output).await
    }

    async fn run(
        &self,
        program: impl AsRef<Path>,
        arguments: &[&str],
        hint: &str,
        output: Output,
    ) -> Result<(), CliError> {
        let (folder, program) = (self.folder(), program.as_ref());
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let shown = format!("{name} {}", arguments.join(" "));
        output.note(&format!("building {}: {shown}", folder.display()));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            // Standard output is for results.
            .stdout(Stdio::from(std::io::stderr()))
            .kill_on_drop(true);
        // A build may need this very program, to make a component of a module.
        if let Ok(this) = std::env::current_exe() {
            command.env("VERGE", this);
        }
        // Flags meant for this machine's own target would spoil the handler's, and the component is
        // looked for where Cargo puts it by default.
        for name in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"]
        {
            command.env_remove(name);
        }
        let status = command
            .status()
            .await
            .map_err(|error| CliError::Build(format!("cannot run {name}: {error}; {hint}")))?;
        if status.success() {
            return Ok(());
        }
        let mut message = format!("{shown} in {} failed ({status})", folder.display());
        if program == OsStr::new("cargo") && !has_wasm_target().await {
            message.push_str("; the target is missing: run `rustup target add wasm32-wasip2`");
        }
        if arguments.contains(&"venv") {
            message.push_str("; on Debian, Python's venv is a package: python3-venv");
        }
        Err(CliError::Build(message))
    }
}

async fn has_wasm_target() -> bool {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().await;
    let Ok(sysroot) = sysroot else { return true };
    let root = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    Path::new(&root).join("lib/rustlib/wasm32-wasip2/lib").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_nearest_project_that_makes_the_component() {
        let site = tempfile::tempdir().unwrap();
        let at = site.path();
        write(at, "Cargo.toml", "");
        write(at, "js/package.json", r#"{"scripts": {"build": "x"}}"#);
        write(at, "plain/package.json", "{}");
        write(at, "deep/Cargo.toml", "");
        write(at, "py/build.py", "");
        write(at, "py/requirements.txt", "");
        write(at, "script/build.py", "");
        let find = |component: &str| project_of(at, Path::new(component));
        let release = "target/wasm32-wasip2/release/h.wasm";
        assert_eq!(find(release), Some(Project::Cargo(at.join(""))));
        assert_eq!(find(&format!("deep/{release}")), Some(Project::Cargo(at.join("deep"))));
        assert_eq!(find("js/h.wasm"), Some(Project::Npm(at.join("js"))));
        assert_eq!(find("js/build/h.wasm"), Some(Project::Npm(at.join("js"))));
        assert_eq!(find("py/h.wasm"), Some(Project::Python(at.join("py"))));
        assert_eq!(find("script/h.wasm"), None, "nothing says what its build needs");
        assert_eq!(find("plain/h.wasm"), None);
        assert_eq!(find("h.wasm"), None, "a file beside Cargo.toml is not Cargo's");
    }

    #[test]
    fn what_is_outside_of_the_site_is_not_built() {
        let outer = tempfile::tempdir().unwrap();
        write(outer.path(), "js/package.json", r#"{"scripts": {"build": "x"}}"#);
        let site = outer.path().join("site");
        fs::create_dir_all(&site).unwrap();
        assert_eq!(project_of(&site, Path::new("../js/h.wasm")), None);
        assert_eq!(project_of(&site, &outer.path().join("js/h.wasm")), None);
    }
}

//! One real binary: started, its output kept, killed by its pid when the test ends, however it ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How many bytes of a process's output are shown when a test fails.
const TAIL_BYTES: usize = 6_000;

/// A running binary.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// The path of one of the workspace's binaries: in `VERGE_BIN_DIR`, or beside the test's own.
///
/// # Panics
/// When it is not there: `make test` builds it first, `cargo test -p verge-tests` alone does not.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("VERGE_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            test.ancestors().nth(2).unwrap().to_path_buf()
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace`", path.display());
    path
}

/// The root of the repository.
///
/// # Panics
/// Never where cargo runs the tests.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// An example handler's component.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    let path = repository().join("wasm-handlers/guests/build").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `make guests`", path.display());
    path
}

impl Process {
    /// Starts a binary; both of its output streams go to one file in `folder`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, program: &Path, arguments: &[String], folder: &Path) -> Process {
        Process::start_in(&[], name, program, arguments, folder)
    }

    /// Starts a binary with these variables in its environment.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_in(
        environment: &[(String, String)],
        name: &str,
        program: &Path,
        arguments: &[String],
        folder: &Path,
    ) -> Process {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Process { name: name.to_owned(), child, log }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory now, in bytes.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.memory("VmRSS:")
    }

    /// The most that was resident since it started, or since [`Process::forget_peak`], in bytes.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.memory("VmHWM:")
    }

    /// From now on the peak is that of what comes.
    ///
    /// # Panics
    /// When the system does not let us.
    pub fn forget_peak(&self) {
        // 5: reset the peak resident set size (proc_pid_clear_refs(5)).
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// Bytes of the files in memory that it holds open: no part of what is resident.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn memory_files(&self) -> u64 {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let paths = open.map(|entry| entry.unwrap().path());
        let in_memory = paths.filter(|path| {
            fs::read_link(path).is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:"))
        });
        in_memory.filter_map(|path| fs::metadata(path).ok()).map(|about| about.blocks() * 512).sum()
    }

    fn memory(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it at once (SIGKILL) and collects it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// When there is no `kill` on this machine.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal("-TERM")
    }

    /// Sends it a signal by name (`-STOP`, `-CONT`, `-HUP`).
    ///
    /// # Errors
    /// When there is no `kill` on this machine.
    pub fn signal(&self, signal: &str) -> io::Result<()> {
        Command::new("kill").arg(signal).arg(self.pid().to_string()).status().map(drop)
    }

    /// Its exit code, when it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// What it has written so far, on both streams.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it has written.
    #[must_use]
    pub fn tail(&self) -> String {
        let output = self.output();
        let mut start = output.len().saturating_sub(TAIL_BYTES);
        while !output.is_char_boundary(start) {
            start += 1;
        }
        output[start..].to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- {} said at the end:\n{}\n----", self.name, self.tail());
        }
    }
}

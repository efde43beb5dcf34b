//! How a command fails: what people read, and the exit code.

use std::path::PathBuf;
use verge_config::Faults;
use verge_config::api::Problem;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The control plane or an edge answered with a problem document.
    #[error("{}: {}", .0.title, .0.detail)]
    Problem(Box<Problem>),
    /// A file or the flags have faults.
    #[error("{what} has faults")]
    Faults {
        /// Which file, or what else.
        what: String,
        /// All of them.
        faults: Faults,
    },
    /// No token, or none for this control plane.
    #[error("{0}")]
    NotLoggedIn(String),
    /// Whoever was asked did not answer, or not in a way that can be read.
    #[error("{url}: {message}")]
    Network {
        /// Who was asked.
        url: String,
        /// What happened.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The project's own build failed.
    #[error("{0}")]
    Build(String),
    /// The local control plane or edge failed.
    #[error("{0}")]
    Dev(String),
    /// What was asked makes no sense, in a way that the parser cannot tell.
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    pub(crate) fn file(path: impl Into<PathBuf>, error: std::io::Error) -> CliError {
        CliError::File { path: path.into(), error }
    }

    /// The exit code, as `verge --help` lists them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Problem(problem) => match problem.status {
                401 | 403 | 404 => 4,
                422 => 5,
                _ => 1,
            },
            CliError::Faults { .. } => 5,
            CliError::NotLoggedIn(_) => 4,
            CliError::Usage(_) => 2,
            CliError::Network { .. }
            | CliError::File { .. }
            | CliError::Build(_)
            | CliError::Dev(_) => 1,
        }
    }

    /// Every fault that the failure names.
    pub(crate) fn faults(&self) -> &[verge_config::Fault] {
        match self {
            CliError::Problem(problem) => &problem.faults,
            CliError::Faults { faults, .. } => &faults.0,
            _ => &[],
        }
    }

    /// The failure as a problem document, for programs.
    pub(crate) fn as_problem(&self) -> Problem {
        if let CliError::Problem(problem) = self {
            return (**problem).clone();
        }
        let kind = match self {
            CliError::Problem(_) | CliError::Faults { .. } => "invalid",
            CliError::NotLoggedIn(_) => "not-logged-in",
            CliError::Network { .. } => "network",
            CliError::File { .. } => "file",
            CliError::Build(_) => "build",
            CliError::Dev(_) => "dev",
            CliError::Usage(_) => "usage",
        };
        Problem {
            kind: format!("/problems/cli/{kind}"),
            title: "The command failed".to_owned(),
            // There was no response: zero is what no HTTP status is.
            status: 0,
            detail: self.to_string(),
            faults: self.faults().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16) -> CliError {
        CliError::Problem(Box::new(Problem {
            kind: "/problems/x".into(),
            title: "X".into(),
            status,
            detail: "y".into(),
            faults: Vec::new(),
        }))
    }

    #[test]
    fn exit_codes() {
        for (status, code) in [(401, 4), (403, 4), (404, 4), (422, 5), (409, 1), (500, 1), (429, 1)]
        {
            assert_eq!(problem(status).exit_code(), code, "{status}");
        }
        let faults = Faults::one("site", "is missing");
        assert_eq!(CliError::Faults { what: "verge.toml".into(), faults }.exit_code(), 5);
        assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
    }
}

//! `control.toml`: how a control plane runs.

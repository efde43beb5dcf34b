//! `edge.toml`: how an edge runs.

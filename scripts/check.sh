#!/bin/bash
# What `make check` runs: format, lints, the structure of the house, dependencies.
set -eu -o pipefail
cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}

echo "check: format"
$CARGO fmt --all --check

# The structure test needs the standard library alone, so that it answers before anything is built.
echo "check: structure"
mkdir -p target/structure
rustc --edition 2024 --test -o target/structure/structure tests/tests/structure.rs
target/structure/structure --quiet

echo "check: lints"
$CARGO clippy --workspace --all-targets --locked -- -D warnings

# Licences and sources need no network; advisories need a database that can be fetched.
if $CARGO deny --version >/dev/null 2>&1; then
    echo "check: dependencies (cargo-deny)"
    $CARGO deny --locked check licenses bans sources
    if timeout 120 $CARGO deny --locked fetch >/dev/null 2>&1; then
        $CARGO deny --locked check advisories
    else
        echo "check: advisories skipped: their database cannot be fetched from here"
    fi
elif $CARGO audit --version >/dev/null 2>&1; then
    echo "check: dependencies (cargo-audit)"
    if timeout 120 git ls-remote -q https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
        $CARGO audit
    else
        echo "check: advisories skipped: their database cannot be fetched from here"
    fi
else
    echo "check: dependencies skipped: neither cargo-deny nor cargo-audit is installed"
fi
echo "check: all good"

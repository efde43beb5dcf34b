#!/bin/bash
# What `make test` runs: every test of the workspace, and a count of them at the end.
set -eu -o pipefail
cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The binaries first: whole-system tests start them as they are.
$CARGO build --workspace --locked
status=0
$CARGO test --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
# What holds of the cache in memory holds of it on disk. Of the whole workspace, so that nothing is built
# anew: a package alone is built with other features.
[ $# -gt 0 ] || VERGE_CACHE_TIER=disk $CARGO test --workspace --locked --no-fail-fast --test behaviour 2>&1 |
    tee -a "$log" || status=$?
# The model of purges racing with fills has locks of its own, and so a build of the cache of its own.
[ $# -gt 0 ] || $CARGO test --workspace --locked --features verge-cache/model --test model 2>&1 |
    tee -a "$log" || status=$?

# Each test binary ends with one line: "test result: ok. 12 passed; 0 failed; 1 ignored; …".
awk '/^test result:/ { gsub(/;/, ""); binaries++
         for (i = 1; i < NF; i++) {
             if ($(i + 1) == "passed") passed += $i
             if ($(i + 1) == "failed") failed += $i
             if ($(i + 1) == "ignored") ignored += $i } }
     END { printf "\nmake test: %d tests ran in %d binaries: %d passed, %d failed; %d ignored\n",
               passed + failed, binaries, passed, failed, ignored
           exit (passed == 0) }' "$log" || status=1
exit "$status"

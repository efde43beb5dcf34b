#!/bin/bash
# Installs what the work needs and the machine lacks: `setup.sh base|site|bench`. Says nothing when
# there is nothing to do; says in one line what is missing when it may not install it itself.
set -eu -o pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Installs Debian packages: as root, through a sudo that asks no password, or not at all.
install_packages() {
    local as=""
    if [ "$(id -u)" != 0 ]; then
        if have sudo && sudo -n true 2>/dev/null; then
            as="sudo -n"
        else
            fail "missing: $*; install with: sudo apt-get install $*"
        fi
    fi
    have apt-get || fail "missing: $*; install them with this system's package manager"
    echo "setup: installing $*" >&2
    export DEBIAN_FRONTEND=noninteractive
    $as apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1 && return
    $as apt-get update -q >/dev/null || fail "apt-get update failed; needed: $*"
    $as apt-get install -y -q --no-install-recommends "$@" >/dev/null ||
        fail "apt-get could not install: $*"
}

base() {
    have cargo || fail "no cargo: install Rust 1.95 or newer (https://rustup.rs)"
    have cc || fail "no C compiler: install gcc"
    have python3 || fail "no python3: install Python 3.9 or newer"
    have node && have npm || fail "no node or npm: install Node.js 20 or newer"
    have cmake || install_packages cmake
}

# The assets of the real-input test: exactly what the lock file pins.
site() {
    local stamp=tests/site/node_modules/.verge-lock
    if ! cmp -s tests/site/package-lock.json "$stamp"; then
        echo "setup: installing the assets of the test site" >&2
        (cd tests/site && npm ci --ignore-scripts --no-audit --no-fund >/dev/null) ||
            fail "npm ci failed in tests/site"
        cp tests/site/package-lock.json "$stamp"
    fi
}

bench() {
    local missing=()
    # Debian keeps nginx where an ordinary user's PATH does not reach.
    have nginx || [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
    have wrk || missing+=(wrk)
    have taskset || missing+=(util-linux)
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

case "${1:-base}" in
base | site | bench) "${1:-base}" ;;
*) fail "usage: scripts/setup.sh base|site|bench" ;;
esac

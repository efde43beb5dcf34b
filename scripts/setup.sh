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
    have python3 || fail "no python3: install Python 3.10 or newer"
    # Debian has it as a package of its own.
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
    have node && have npm || fail "no node or npm: install Node.js 20 or newer"
    have cmake || install_packages cmake
}

# What the tests take from npm, exactly as the lock files pin it: the assets of the real-input test,
# and the public suite of HTTP caching tests.
site() {
    local folder stamp
    for folder in tests/site tests/conformance; do
        stamp=$folder/node_modules/.verge-lock
        if ! cmp -s $folder/package-lock.json "$stamp"; then
            echo "setup: installing what $folder pins" >&2
            (cd $folder && npm ci --ignore-scripts --no-audit --no-fund >/dev/null) ||
                fail "npm ci failed in $folder"
            cp $folder/package-lock.json "$stamp"
        fi
    done
}

# Installs servers for the comparisons, which start and stop them: the service that each package would
# start by itself is kept from starting, or it would hold ports and a core while we measure.
install_servers() {
    local policy=/usr/sbin/policy-rc.d written=""
    if [ "$(id -u)" = 0 ] && [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        written=yes
        # A policy that is left behind would keep services of other packages from starting.
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    install_packages "$@"
    if [ -n "$written" ]; then
        rm -f "$policy"
        trap - EXIT
    fi
}

bench() {
    local missing=() servers=()
    have wrk || missing+=(wrk)
    have h2load || missing+=(nghttp2-client)
    have openssl || missing+=(openssl)
    have taskset || missing+=(util-linux)
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
    # Debian keeps servers where an ordinary user's PATH does not reach.
    local PATH="$PATH:/usr/sbin"
    have nginx || servers+=(nginx-light)
    have varnishd || servers+=(varnish)
    have haproxy || servers+=(haproxy)
    have traffic_server || servers+=(trafficserver)
    [ ${#servers[@]} = 0 ] && return
    # A comparison goes on without a peer; it says which one.
    (install_servers "${servers[@]}") || echo "setup: going on without: ${servers[*]}" >&2
}

case "${1:-base}" in
base | site | bench) "${1:-base}" ;;
*) fail "usage: scripts/setup.sh base|site|bench" ;;
esac

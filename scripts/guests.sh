#!/usr/bin/env bash
# Builds the example handlers into wasm-handlers/guests/build. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-wasip2
guests=wasm-handlers/guests
out=$guests/build
# Flags meant for the machine's own target would spoil the guests'.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET || true

fail() {
    echo "guests: $*" >&2
    exit 1
}

has_target() {
    [ -n "$(ls "$(rustc --print sysroot)/lib/rustlib/$target/lib" 2>/dev/null)" ]
}

# The target: there already, or from rustup, or from the archive for this very compiler.
ensure_target() {
    has_target && return
    if command -v rustup >/dev/null && rustup target add $target >/dev/null 2>&1 && has_target; then
        return
    fi
    local version archive
    version=$(rustc --version | cut -d' ' -f2)
    archive="${VERGE_WASM_TARGET:-../shared/wasm-target}/rust-std-$version-$target.tar.xz"
    if [ -f "$archive" ]; then
        tar -xJf "$archive" -C "$(rustc --print sysroot)/lib/rustlib"
        has_target && return
    fi
    fail "rustc $version has no $target and it cannot be downloaded:" \
        "run 'rustup target add $target', or put $(basename "$archive") into the folder that" \
        "VERGE_WASM_TARGET names"
}

# Copies a file when it differs, so that its time tells when it last changed.
publish() {
    cmp -s "$1" "$2" || { cp "$1" "$2.tmp" && mv "$2.tmp" "$2"; }
}

build_rust() {
    CARGO_TARGET_DIR=target/guests cargo build --quiet --release --locked --target $target \
        --manifest-path $guests/Cargo.toml
    local name
    for name in hello-rust hello-raw-rust hello-p3-rust middleware-rust faulty-rust \
        capabilities-rust; do
        publish "target/guests/$target/release/${name//-/_}.wasm" "$out/$name.wasm"
    done
}

# The guests below take seconds to build, so each is built only when something of it changed.
sum_of() {
    find -L "$guests/$1" \( -name node_modules -o -name .venv -o -name build -o -name __pycache__ \) -prune \
        -o -type f -print0 | sort -z | xargs -0 sha256sum
}

is_built() {
    [ -f "$out/$1.wasm" ] && [ "$(cat "$out/.$1.sum" 2>/dev/null)" = "$(sum_of "$1")" ]
}

# Puts a guest's new component into place.
built() {
    mv "$out/$1.new.wasm" "$out/$1.wasm"
    sum_of "$1" >"$out/.$1.sum"
}

# What the lock file of the JavaScript guest pins; the others in JavaScript and C take their tools from there, too.
install_js() {
    local source=$guests/hello-js
    cmp -s $source/package-lock.json $source/node_modules/.verge-lock && return
    command -v npm >/dev/null || fail "node and npm are needed for the JavaScript guest; install nodejs"
    # No package of it needs its install scripts.
    (cd $source && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    cp $source/package-lock.json $source/node_modules/.verge-lock
}

# What a guest's requirements.txt pins, in a .venv beside it, as `verge dev` makes it for a site.
install_python() {
    local source=$guests/$1
    cmp -s "$source/requirements.txt" "$source/.venv/.requirements" && return
    python3 -m venv --clear "$source/.venv" >&2 ||
        fail "Python has no venv, which the guest $1 is built with; install python3-venv"
    "$source/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --only-binary=:all: --requirement="$source/requirements.txt" >&2
    cp "$source/requirements.txt" "$source/.venv/.requirements"
}

build_js() {
    is_built hello-js && return
    (cd $guests/hello-js && node node_modules/@bytecodealliance/componentize-js/src/cli.js handler.js \
        --wit wit --world-name handler -o ../build/hello-js.new.wasm >&2)
    built hello-js
}

# The SDK and the interfaces are links here, and the build follows none out of its folder: it gets what a
# developer's project has, the files themselves.
build_capabilities_js() {
    is_built capabilities-js && return
    local project=$out/capabilities-js
    rm -rf $project && cp -rL $guests/capabilities-js $project
    (cd $project && node ../../hello-js/node_modules/@bytecodealliance/componentize-js/src/cli.js handler.js \
        --wit wit --world-name handler -o ../capabilities-js.new.wasm >&2)
    built capabilities-js
}

build_python() {
    is_built hello-python && return
    install_python hello-python
    $guests/hello-python/.venv/bin/python $guests/hello-python/build.py $out/hello-python.new.wasm >&2
    built hello-python
}

# The module is made a component by jco here: the tests of the command line do it with `verge component`.
build_c() {
    is_built hello-c && return
    install_python hello-c
    local source=$guests/hello-c
    local jco=$guests/hello-js/node_modules/@bytecodealliance/jco/dist/jco.js
    $source/.venv/bin/python $source/build.py module >&2
    node $jco new $source/build/handler.module.wasm --wasi-reactor -o $out/hello-c.new.wasm >/dev/null
    built hello-c
}

mkdir -p $out
ensure_target
build_rust
install_js
# Each works on one core.
builds=()
for name in build_js build_capabilities_js build_python build_c; do
    $name &
    builds+=($!)
done
for build in "${builds[@]}"; do
    wait "$build"
done
echo "guests: $(cd $out && ls *.wasm | tr '\n' ' ')in $out"

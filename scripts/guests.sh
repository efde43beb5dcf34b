#!/usr/bin/env bash
# Builds the example handlers into wasm-handlers/guests/build. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-wasip2
guests=wasm-handlers/guests
out=$guests/build
# Flags meant for the machine's own target would spoil the guests'.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET || true

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
    echo "guests: rustc $version has no $target and it cannot be downloaded:" \
        "run 'rustup target add $target', or put $(basename "$archive") into the folder that" \
        "VERGE_WASM_TARGET names" >&2
    exit 1
}

# Copies a file when it differs, so that its time tells when it last changed.
publish() {
    cmp -s "$1" "$2" || { cp "$1" "$2.tmp" && mv "$2.tmp" "$2"; }
}

build_rust() {
    CARGO_TARGET_DIR=target/guests cargo build --quiet --release --locked --target $target \
        --manifest-path $guests/Cargo.toml
    local name
    for name in hello-rust hello-p3-rust faulty-rust capabilities-rust; do
        publish "target/guests/$target/release/${name//-/_}.wasm" "$out/$name.wasm"
    done
}

# The JavaScript guest takes seconds to build, so it is built only when something of it changed.
build_js() {
    local source=$guests/hello-js stamp=$out/.hello-js.sum sum
    sum=$(find -L $source -name node_modules -prune -o -type f -print0 | sort -z | xargs -0 sha256sum)
    if [ -f $out/hello-js.wasm ] && [ "$(cat $stamp 2>/dev/null)" = "$sum" ]; then
        return
    fi
    if ! command -v npm >/dev/null; then
        echo "guests: node and npm are needed for the JavaScript guest; install nodejs" >&2
        exit 1
    fi
    # No package of it needs its install scripts.
    (cd $source && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    (cd $source && node node_modules/@bytecodealliance/componentize-js/src/cli.js handler.js \
        --wit wit --world-name handler -o ../build/hello-js.tmp >&2)
    mv $out/hello-js.tmp $out/hello-js.wasm
    printf '%s\n' "$sum" >$stamp
}

mkdir -p $out
ensure_target
build_rust
build_js
echo "guests: $(cd $out && ls *.wasm | tr '\n' ' ')in $out"

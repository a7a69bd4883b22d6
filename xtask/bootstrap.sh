#!/bin/sh
# What `make` calls: finds (or gets) a C compiler and a Rust toolchain, then hands over to `cargo xtask "$@"`.
# Everything else, Debian packages included, is installed by `cargo xtask install`.
set -eu
cd "$(dirname "$0")/.."

# The oldest rustc that builds toci; the same as `rust-version` in Cargo.toml.
MIN_MINOR=95

say() { printf 'toci: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo -- "$@"
    else die "root is needed for: $*. Run make as root or install sudo."
    fi
}

apt_install() {
    command -v apt-get >/dev/null 2>&1 || die "please install by hand: $* (this is no Debian machine: apt-get is missing)"
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update </dev/null >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" </dev/null >&2
}

# Linking anything, xtask included, needs a C compiler.
command -v cc >/dev/null 2>&1 || apt_install build-essential

# `make` under sudo or in CI may lack what a login shell has in its PATH.
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export PATH

if ! command -v cargo >/dev/null 2>&1; then
    # Debian 12's own rustc (1.63) is too old, so the toolchain comes from rustup.
    [ -z "${TOCI_NO_RUSTUP:-}" ] || die "cargo is missing and TOCI_NO_RUSTUP is set: install rustup (https://rustup.rs) and run make again."
    command -v curl >/dev/null 2>&1 || apt_install curl ca-certificates
    say "no cargo: installing rustup into ~/.cargo and ~/.rustup (set TOCI_NO_RUSTUP=1 to forbid this)"
    installer=$(mktemp)
    if ! curl --proto '=https' --tlsv1.2 -sSf --connect-timeout 20 -o "$installer" https://sh.rustup.rs; then
        rm -f "$installer"
        die "cargo is missing and rustup could not be fetched. Debian 12's rustc is too old: install Rust 1.$MIN_MINOR or newer with rustup (https://rustup.rs), then run make again."
    fi
    sh "$installer" -y --profile minimal --no-modify-path --default-toolchain none >&2
    rm -f "$installer"
    command -v cargo >/dev/null 2>&1 || die "rustup was installed, but there is still no cargo in $PATH."
fi

rust_minor() { rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p'; }

# rust-toolchain.toml pins a toolchain. If it is neither installed nor to be had, any installed one that is new enough will do.
if [ -z "$(rust_minor)" ] && [ -z "${RUSTUP_TOOLCHAIN:-}" ]; then
    pinned=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
    # TOCI_NO_RUSTUP forbids fetching a toolchain too.
    if [ -n "${TOCI_NO_RUSTUP:-}" ] || ! rustup toolchain install "$pinned" --profile minimal --component clippy,rustfmt >&2; then
        for toolchain in $(rustup toolchain list 2>/dev/null | sed -e 's/ .*//' -e '/^nightly/d'); do
            RUSTUP_TOOLCHAIN=$toolchain
            export RUSTUP_TOOLCHAIN
            [ "$(rust_minor || echo 0)" -ge "$MIN_MINOR" ] 2>/dev/null && break
            unset RUSTUP_TOOLCHAIN
        done
        [ -n "${RUSTUP_TOOLCHAIN:-}" ] && say "Rust $pinned is not installed and could not be fetched: going on with $RUSTUP_TOOLCHAIN ($(rustc --version))"
    fi
fi
minor=$(rust_minor)
[ -n "$minor" ] || die "no Rust toolchain works here (rustc --version says nothing). Install one: rustup toolchain install 1.$MIN_MINOR.0"
[ "$minor" -ge "$MIN_MINOR" ] || die "$(rustc --version) is too old: toci needs 1.$MIN_MINOR or newer. Install one: rustup toolchain install 1.$MIN_MINOR.0"

exec cargo xtask "$@"

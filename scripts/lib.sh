# What the scripts share: installing what is missing, and the folder of compiled files. Sourced, not run.

# Runs a command as root, with sudo where needed.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "this needs root: $*" >&2
        return 1
    fi
}

# Installs those of the named Debian packages that are not there yet.
install_missing() {
    local missing=() package
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "no apt-get here; if the build fails, install the equivalents of: $*" >&2
        return 0
    fi
    for package in "$@"; do
        if ! dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
            missing+=("$package")
        fi
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    echo "installing: ${missing[*]}" >&2
    as_root apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
    # A redis-server that came with this is for the tests to start, not to run by itself.
    if [[ " ${missing[*]} " == *" redis-server "* ]] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now redis-server >&2 || true
    fi
}

# What a build needs: a C++ compiler, make (jemalloc) and libclang (the bindings to RocksDB); and cargo.
install_build_tools() {
    local packages=(libclang-dev)
    command -v c++ >/dev/null || packages+=(g++)
    command -v make >/dev/null || packages+=(make)
    install_missing "${packages[@]}"
    if ! command -v cargo >/dev/null; then
        # Where rustup puts it.
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        command -v cargo >/dev/null || { echo "cargo is missing: install Rust with https://rustup.rs" >&2; return 1; }
    fi
}

# The clients the tests use, and a Redis to compare with.
install_test_tools() {
    install_missing redis-tools redis-server
}

# The server to test: the binary that HAYPILE names, else one that is built; sets HAYPILE.
build_server() {
    [ -z "${HAYPILE:-}" ] || return 0
    install_build_tools
    cargo build --release
    HAYPILE=$(realpath "${CARGO_TARGET_DIR:-target}/release/haypile")
}

# Whether nothing listens on a port of this machine.
is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

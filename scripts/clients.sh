#!/usr/bin/env bash
# Runs client libraries (redis-py over RESP2 and RESP3, ioredis) and redis-benchmark against a fresh server: tests/clients/.
# Installs the libraries, in fixed versions, into the cache folder.
#
#   scripts/clients.sh             against haypile
#   scripts/clients.sh --redis     against the installed redis-server
#
# HAYPILE=PATH tests that binary instead of building one. Exits with an error when a check or a benchmark fails.
set -euo pipefail
[ -z "${HAYPILE:-}" ] || HAYPILE=$(realpath "$HAYPILE")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

readonly REDIS_PY=8.1.0 IOREDIS=5.11.1
# Requests of each benchmark.
readonly REQUESTS=10000
# Seconds for each program.
readonly LIMIT=180

cache="${HAYPILE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/haypile}/clients"
against=haypile
case "${1:-}" in
    '') ;;
    --redis) against=redis ;;
    *) echo "unknown option $1; see the head of $0" >&2; exit 2 ;;
esac

# Installs Debian's package of a program that is not there; it may well be there from elsewhere.
install_program() {
    command -v "$1" >/dev/null || install_missing "$2"
}

install_libraries() {
    install_test_tools
    install_program python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_missing python3-venv
    install_program node nodejs
    install_program npm npm
    # A folder for each version: what is there is whole.
    venv="$cache/redis-py-$REDIS_PY" npm="$cache/ioredis-$IOREDIS"
    mkdir -p "$cache"
    if [ ! -f "$venv/complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check "redis==$REDIS_PY" >&2
        touch "$venv/complete"
    fi
    if [ ! -f "$npm/complete" ]; then
        rm -rf "$npm"
        mkdir -p "$npm"
        npm install --prefix "$npm" --no-audit --no-fund --loglevel=error "ioredis@$IOREDIS" >&2
        touch "$npm/complete"
    fi
}

# Starts a server with an empty folder on a port that is free with the two that go with it; sets $server and $port.
start_server() {
    local command
    while true; do
        port=$((20000 + RANDOM % 2000))
        ! is_free $port || ! is_free $((port + 2000)) || ! is_free $((port + 10001)) || break
    done
    case "$against" in
        haypile) command=("$HAYPILE" --port "$port" --dir "$work/data") ;;
        redis) command=(redis-server --port "$port" --dir "$work" --save '') ;;
    esac
    "${command[@]}" >"$work/server.log" 2>&1 &
    server=$!
    for _ in {1..200}; do
        kill -0 "$server" 2>/dev/null || break
        is_free "$port" || return 0
        sleep 0.05
    done
    cat "$work/server.log" >&2
    echo "the server does not start" >&2
    return 1
}

# Runs a program, and keeps its last line for the end.
run() {
    local name=$1
    shift
    if ! timeout "$LIMIT" "$@" >"$work/out"; then
        failed+=("$name")
    fi
    totals+=("$(tail -n 1 "$work/out")")
}

# The full default set of redis-benchmark, which prints an error and may go on: only lines of results are right.
run_benchmarks() {
    local wrong
    if ! timeout "$LIMIT" redis-benchmark -p "$port" -n "$REQUESTS" -q --csv >"$work/out" 2>&1; then
        failed+=(redis-benchmark)
    fi
    # Redis 7 warns of settings that it cannot ask for: that would be one more line.
    wrong=$(grep -Evc '^"[^"]+"(,"[0-9.]+")+$|^"test","rps"' "$work/out" || true)
    if [ "$wrong" -gt 0 ]; then
        grep -Ev '^"[^"]+"(,"[0-9.]+")+$|^"test","rps"' "$work/out" >&2
        failed+=(redis-benchmark)
    fi
    totals+=("redis-benchmark: $(grep -Ec '^"[^"]+"(,"[0-9.]+")+$' "$work/out" || true) benchmarks of $REQUESTS requests, $wrong wrong lines")
}

work=$(mktemp -d)
server=''
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
trap 'exit 1' TERM INT

install_libraries
[ "$against" = redis ] || build_server
start_server
failed=() totals=()
run 'redis-py RESP2' "$venv/bin/python" tests/clients/redis_py.py "$port" 2
run 'redis-py RESP3' "$venv/bin/python" tests/clients/redis_py.py "$port" 3
run ioredis env NODE_PATH="$npm/node_modules" node tests/clients/ioredis.js "$port"
run_benchmarks
if ! kill -0 "$server" 2>/dev/null; then
    failed+=("the server, which ended by itself")
    tail -n 20 "$work/server.log" >&2
fi
printf '  %s\n' "${totals[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'clients against %s: FAILED:' "$against"
    printf ' %s;' "${failed[@]}"
    echo
    exit 1
fi
echo "clients against $against: all passed"

#!/usr/bin/env bash
# Measures how long a killed server takes to answer again, against the size of the log that its engines had not flushed; prints a table
# (docs/operations.md). Arguments: sizes in MB, default 0 64 256 512 1024. Environment: HAYPILE, the server to measure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

install_test_tools
build_server
[ $# -gt 0 ] || set -- 0 64 256 512 1024
dir=$(mktemp -d "${TMPDIR:-/tmp}/haypile-recovery-XXXXXX")
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null; rm -rf "$dir"' EXIT
port=9721
until is_free $port && is_free $((port + 2000)) && is_free $((port + 10001)); do port=$((port + 1)); done

# Starts the server; the milliseconds until it answered.
start() {
    local from to
    from=$(date +%s%N)
    # Nothing is flushed by itself: all of the log is to be replayed.
    "$HAYPILE" conf/haypile.conf --port "$port" --dir "$dir/data" --set max-write-buffer-size=4G --set write-buffer-size=4G \
        >>"$dir/log" 2>&1 &
    server=$!
    until [ "$(redis-cli -p "$port" ping 2>/dev/null)" = PONG ]; do
        kill -0 "$server" || { cat "$dir/log" >&2; exit 1; }
        sleep 0.005
    done
    to=$(date +%s%N)
    elapsed=$(((to - from) / 1000000))
    # Of all threads; clock ticks are 10 ms.
    cpu=$(awk '{ print ($14 + $15) * 10 }' "/proc/$server/stat")
}

printf '%-8s %12s %10s %12s %12s\n' value log records 'first PONG' 'processor'
for value in 100 4096; do
    for size in "$@"; do
        rm -rf "$dir/data"
        mkdir -p "$dir/data"
        start
        # A record is the value and about 70 bytes: header, command and key.
        count=$((size * 1000000 / (value + 70)))
        if [ "$count" -gt 0 ]; then
            redis-benchmark -p "$port" -q -t set -r 1000000000 -n "$count" -d "$value" -P 64 -c 8 >/dev/null
        fi
        kill -9 "$server"
        wait "$server" 2>/dev/null || true
        : >"$dir/log"
        start
        read -r bytes records < <(sed -n 's/.*replayed the binlog.* records=\([0-9]*\) bytes=\([0-9]*\).*/\2 \1/p' "$dir/log" |
            awk '{ bytes += $1; records += $2 } END { print bytes + 0, records + 0 }')
        printf '%-8s %9s MB %10s %9s ms %9s ms\n' "$value B" $((bytes / 1000000)) "$records" "$elapsed" "$cpu"
        kill -9 "$server"
        wait "$server" 2>/dev/null || true
    done
done

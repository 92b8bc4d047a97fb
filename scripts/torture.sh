#!/usr/bin/env bash
# Tortures real nodes under load and checks every key they hold (docs/testing.md). Exits with 1 at the first violation, after printing
# what is wrong, what was done, the nodes' logs and the seed that repeats the round.
#
#   scripts/torture.sh [--minutes N] [--seed S] [--kills N]
#
# --minutes N   rounds of faults on a cluster of three nodes for N minutes (default 5)
# --seed S      the first round is that of seed S (default: a fresh one)
# --kills N     instead: one node, killed N times with `sync : everysec`, and N times with `sync : no`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

minutes=5 kills=""
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] && [[ "$2" =~ ^[0-9]+$ ]] || usage
    case "$1" in
        --minutes) minutes=$2 ;;
        --seed) export HAYPILE_TEST_SEED=$2 ;;
        --kills) kills=$2 ;;
        *) usage ;;
    esac
    shift 2
done

if [ -n "$kills" ]; then
    export HAYPILE_TORTURE_KILLS=$kills
    tests=sigkill_again_and_again
else
    export HAYPILE_TORTURE_SECONDS=$((minutes * 60))
    tests=torture::torture
fi

install_build_tools
log=$(mktemp "${TMPDIR:-/tmp}/haypile-torture-XXXXXX.log")
cargo test --release --test faults --no-run 2>&1 | tail -1
# The rounds' own lines as they come; all of it, logs of the nodes included, only when something is wrong.
cargo test --release --test faults "$tests" -- --nocapture >"$log" 2>&1 &
child=$!
trap 'kill "$child" 2>/dev/null || true' EXIT
tail --pid="$child" -n +1 -f "$log" |
    grep --line-buffered -E '^(seed:|round [0-9]|  [0-9]+ (kills|operations)|[0-9]+ (kills|rounds)|sync )' || true
if wait "$child"; then
    rm -f "$log"
    exit 0
fi
cat "$log" >&2
echo "a violation; all of the above is in $log" >&2
exit 1

#!/usr/bin/env bash
# Measures Haypile beside Redis, Redis with an append-only file, and peers: the same load on each, one server at a time, and medians of
# several rounds. docs/performance.md says what is measured and how to read it; --help lists all options.
#
#   scripts/bench.sh                                   the table of targets, replication and recovery: about a quarter of an hour
#   scripts/bench.sh --matrix full                     more operations, values, pipelines, zipfian keys, data larger than the caches
#   scripts/bench.sh --peer 'Kvrocks=kvrocks --bind 127.0.0.1 --port {port} --dir {dir}'
#   scripts/bench.sh --sweep slots|connections|data|value|replicas
#   scripts/bench.sh --short                           the table alone, one round: a minute or two
#   scripts/bench.sh --guard                           what CI holds: a third of the ratios in scripts/bench/recorded.csv
#   ... --csv FILE --chart FILE.svg --doc              writes what was measured
#
# Environment: HAYPILE, the server to measure instead of a build of this checkout; TMPDIR, where the servers' data go: on a disk.
set -euo pipefail
# Files are named relative to where it was started.
from=$PWD
[ -z "${HAYPILE:-}" ] || HAYPILE=$(realpath "$HAYPILE")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

arguments=() chart="" runs=1
while [ $# -gt 0 ]; do
    arguments+=("$1")
    case "$1" in
        -h | --help) runs="" ;;
        --csv | --chart | --from)
            [ $# -ge 2 ] || { echo "$1 wants a file" >&2; exit 2; }
            [ "$1" != --chart ] || chart=1
            [ "$1" != --from ] || runs=""
            arguments+=("$(cd "$from" && realpath -m "$2")")
            shift
            ;;
    esac
    shift
done

[ -z "$runs" ] || { install_test_tools; build_server; }
command -v python3 >/dev/null || install_missing python3
python=python3
if [ -n "$chart" ] && ! python3 -c 'import matplotlib' 2>/dev/null; then
    # Debian's goes to Debian's Python, which need not be the first in PATH.
    install_missing python3 python3-matplotlib
    [ ! -x /usr/bin/python3 ] || python=/usr/bin/python3
fi
export HAYPILE PYTHONPATH=scripts PYTHONDONTWRITEBYTECODE=1
exec "$python" -m bench "${arguments[@]}"

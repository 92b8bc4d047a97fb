#!/usr/bin/env bash
# Runs Redis 7.0.15's own TCL suite, unmodified, against this server: a fresh one for each unit, two units at a time.
# tests/redis-suite/ says which units, how many tests Redis itself runs in each, and what is skipped and why.
#
#   scripts/redis-suite.sh                             all units
#   scripts/redis-suite.sh unit/type/hash unit/sort    only these
#   scripts/redis-suite.sh --redis [UNIT ...]          the same against the installed redis-server
#
# HAYPILE=PATH tests that binary instead of building one. Logs of the last run stay in the cache folder.
# Exits with an error when a test failed, was not reached or a server died, or when more than 5 % are skipped.
set -euo pipefail
[ -z "${HAYPILE:-}" ] || HAYPILE=$(realpath "$HAYPILE")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

readonly LISTS=$PWD/tests/redis-suite
readonly REDIS_VERSION=7.0.15
# Units that run at one time; each has a server and a client that keep about a core busy.
readonly JOBS=2
# Seconds for a unit, and for a single test of it.
readonly UNIT_LIMIT=300 TEST_LIMIT=100
readonly MAX_SKIPPED_PERCENT=5

cache="${HAYPILE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/haypile}/redis-suite"
against=haypile
units=()
for argument in "$@"; do
    case "$argument" in
        --redis) against=redis ;;
        -*) echo "unknown option $argument; see the head of $0" >&2; exit 2 ;;
        *) units+=("$argument") ;;
    esac
done

# Lines of a list in tests/redis-suite/ without comments and blank lines.
entries() {
    grep -Ev '^(#|[[:space:]]*$)' "$LISTS/$1" || true
}

# Puts Redis's source, as Debian has it, into the cache. Package lists go to a temporary folder, so that the machine's
# apt is as before.
fetch_suite() {
    source_tree="$cache/redis-$REDIS_VERSION"
    [ -x "$source_tree/runtest" ] && return 0
    install_missing dpkg-dev ca-certificates
    echo "fetching the source of Redis $REDIS_VERSION" >&2
    local apt="$work/apt" file options
    mkdir -p "$apt/sources" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/source"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ ! -f "$file" ] || sed -En 's/^deb([[:space:]])/deb-src\1/p' "$file" >"$apt/sources/$(basename "$file" .list).list"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [ ! -f "$file" ] || sed -E 's/^Types:.*/Types: deb-src/' "$file" >"$apt/sources/$(basename "$file")"
    done
    options=(-q -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$apt/sources" -o "Dir::State::Lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User="$(id -un)")
    # A source without deb-src fails alone; what counts is that the package is found.
    apt-get "${options[@]}" update >&2 || true
    local version
    version=$(apt-cache "${options[@]}" showsrc redis | sed -n 's/^Version: //p' | grep -F ":$REDIS_VERSION-" | sort -V | tail -1)
    [ -n "$version" ] || { echo "no source of Redis $REDIS_VERSION in this machine's apt sources" >&2; return 1; }
    (cd "$apt/source" && apt-get "${options[@]}" source "redis=$version" >&2)
    mkdir -p "$cache"
    rm -rf "$source_tree"
    mv "$apt/source/redis-$REDIS_VERSION" "$source_tree"
}

# A port that is free with the two that go with it. The residue of jobs keeps them apart.
free_port() {
    local port
    while true; do
        port=$((20000 + (RANDOM % (2000 / JOBS)) * JOBS + $1))
        if is_free $port && is_free $((port + 2000)) && is_free $((port + 10001)); then
            echo $port
            return
        fi
    done
}

# Starts a server on a port, with its data in a folder, and waits until it answers; sets $server.
start_server() {
    local port=$1 dir=$2 log=$3 command
    case "$against" in
        haypile) command=("$HAYPILE" --port "$port" --dir "$dir") ;;
        redis) command=(redis-server --port "$port" --dir "$dir" --save '' --enable-debug-command yes
            --enable-protected-configs yes --enable-module-command yes) ;;
    esac
    "${command[@]}" >"$log" 2>&1 &
    server=$!
    for _ in {1..200}; do
        kill -0 "$server" 2>/dev/null || break
        is_free "$port" || return 0
        sleep 0.05
    done
    echo "the server for port $port does not start: $log" >&2
    return 1
}

# Kills a process if there is one: end [SIGNAL] [PID].
end() {
    kill "$@" 2>/dev/null || true
}

# Runs a unit in a subshell of its own. Leaves NAME.log, NAME.server and NAME.state (ok, or what went wrong) in $logs.
run_unit() (
    unit=$1 job=$2
    name=${unit//\//-}
    dir="$work/$name"
    mkdir -p "$dir"
    state=ok server='' suite=''
    trap 'exit 1' TERM INT
    # The suite's process passes the signal on to those that it started.
    trap 'end $suite; end -9 $server; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
    port=$(free_port "$job")
    begin=$SECONDS
    if ! start_server "$port" "$dir" "$logs/$name.server"; then
        echo "the server did not start" >"$logs/$name.state"
        return
    fi
    # --durable: an error reply that a test did not expect fails that test alone instead of ending the run.
    cd "$source_tree"
    # The suite listens on a port of its own, and gives up when somebody has it already.
    for _ in 1 2 3 4 5; do
        TERM=dumb timeout --kill-after=5 "$UNIT_LIMIT" ./runtest --host 127.0.0.1 --port "$port" --durable \
            --baseport $((12032 + (RANDOM % 24) * 200 + job * 100)) --timeout "$TEST_LIMIT" "${skips[@]}" \
            --single "$unit" >"$logs/$name.log" 2>&1 &
        suite=$!
        wait "$suite" && code=0 || code=$?
        suite=
        grep -q 'address already in use' "$logs/$name.log" || break
    done
    [ "$code" -ne 124 ] || state="took longer than $UNIT_LIMIT s"
    if grep -q '^\[exception\]\|^\[TIMEOUT\]' "$logs/$name.log"; then
        state=$(grep -m1 -A3 '^\[exception\]\|^\[TIMEOUT\]' "$logs/$name.log" | tr '\n' ' ' | cut -c -300)
    fi
    if ! kill -0 "$server" 2>/dev/null; then
        wait "$server" && code=0 || code=$?
        state="the server ended by itself ($code)"
    fi
    echo "$state" >"$logs/$name.state"
    echo $((SECONDS - begin)) >"$logs/$name.seconds"
)

# Counts of a unit from its log, as one line: run passed failed skipped.
counts() {
    awk '
        /^\[ok\]: / { passed++ }
        /^\[err\]: / { failed++ }
        /^\[skip\]: / || /^\[ignore\]: .*Tag: .* denied$/ { skipped++ }
        END { print passed + failed, passed + 0, failed + 0, skipped + 0 }
    ' "$1"
}

report() {
    local row='%-28s %6s %7s %7s %8s %12s %5s\n' problems=() unit name log state
    local run passed failed skipped missing expected
    local all_run=0 all_passed=0 all_failed=0 all_skipped=0 all_missing=0 all_expected=0
    # shellcheck disable=SC2059
    printf "$row" unit run passed failed skipped 'not reached' s
    for unit in "${units[@]}"; do
        name=${unit//\//-} log="$logs/${unit//\//-}.log"
        expected=$(entries units | awk -v unit="$unit" '$1 == unit { print $2 }')
        state=$(cat "$logs/$name.state" 2>/dev/null || echo "did not run")
        [ "$state" = ok ] || problems+=("$unit: $state")
        [ -f "$log" ] || : >"$log"
        read -r run passed failed skipped < <(counts "$log")
        missing=$((${expected:-0} - run - skipped))
        [ "$missing" -ge 0 ] || missing=0
        # shellcheck disable=SC2059
        printf "$row" "$unit" "$run" "$passed" "$failed" "$skipped" "$missing" \
            "$(cat "$logs/$name.seconds" 2>/dev/null || echo -)"
        all_run=$((all_run + run)) all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed))
        all_skipped=$((all_skipped + skipped)) all_missing=$((all_missing + missing))
        all_expected=$((all_expected + run + skipped + missing))
    done

    if [ "$all_failed" -gt 0 ]; then
        printf '\nfailed:\n'
        for unit in "${units[@]}"; do
            sed -En 's/^\[err\]: (.{1,200}).*/  \1/p' "$logs/${unit//\//-}.log"
        done
    fi
    if [ "$all_skipped" -gt 0 ]; then
        printf '\nskipped, by reason:\n'
        for unit in "${units[@]}"; do
            sed -En 's/^\[skip\]: //p; s/^\[ignore\]: .*Tag: (.*) denied$/tag \1/p' "$logs/${unit//\//-}.log"
        done | reasons | sort | uniq -c | sort -rn
    fi
    if [ ${#problems[@]} -gt 0 ]; then
        printf '\nproblems:\n'
        printf '  %s\n' "${problems[@]}"
    fi
    printf '\nlogs in %s\n' "$logs"
    printf 'redis suite %s against %s: %d tests: %d run, %d passed, %d failed, %d skipped, %d not reached\n' \
        "$REDIS_VERSION" "$against" $all_expected $all_run $all_passed $all_failed $all_skipped $all_missing
    [ "$all_run" -gt 0 ] && [ "$all_failed" -eq 0 ] && [ "$all_missing" -eq 0 ] && [ ${#problems[@]} -eq 0 ] || return 1
    # A limit for the whole: what is skipped may be much of one unit.
    if [ $all = yes ] && [ $((all_skipped * 100)) -gt $((all_expected * MAX_SKIPPED_PERCENT)) ]; then
        echo "more than $MAX_SKIPPED_PERCENT % are skipped" >&2
        return 1
    fi
}

# Replaces skipped tests, one a line, by the reasons that the lists give. A name may hold what a pattern may not, so
# the lists are looked up literally; a line `/regex` is matched as such.
reasons() {
    awk -v skip="$LISTS/skip" -v tags="$LISTS/skip-tags" '
        function add(line, prefix,    at) {
            if (line ~ /^(#|[ \t]*$)/) return
            match(line, /.* # /)
            name = substr(line, 1, RLENGTH - 3)
            reason = substr(line, RLENGTH + 1)
            if (name ~ /^\//) { patterns[substr(name, 2)] = reason } else { known[prefix name] = reason }
        }
        BEGIN {
            while ((getline line < skip) > 0) add(line, "")
            while ((getline line < tags) > 0) add(line, "tag ")
        }
        {
            reason = ($0 in known) ? known[$0] : "no reason given: " $0
            if (!($0 in known)) for (pattern in patterns) if ($0 ~ pattern) reason = patterns[pattern]
            print reason
        }
    '
}

# Makes runtest's arguments of the skip lists; sets $skips.
read_skip_lists() {
    local line
    skips=()
    [ "$against" = haypile ] || return 0
    for list in skip skip-tags; do
        while IFS= read -r line; do
            [[ "$line" == *' # '* ]] || { echo "$LISTS/$list: no reason: $line" >&2; return 1; }
        done < <(entries $list)
    done
    entries skip | sed -E 's/^(.*) # .*$/\1/' >"$work/skip"
    skips+=(--skipfile "$work/skip")
    local tags
    tags=$(entries skip-tags | sed -E 's/^(.*) # .*$/-\1/' | tr '\n' ' ')
    [ -z "$tags" ] || skips+=(--tags "$tags")
}

# One job: takes units from the list until there are none.
work_off() {
    local job=$1 index unit
    while true; do
        # The next index, taken under a lock.
        index=$(flock "$work/next" bash -c 'n=$(cat "$0"); echo $((n + 1)) >"$0"; echo "$n"' "$work/next")
        [ "$index" -lt ${#units[@]} ] || return 0
        unit=${units[$index]}
        run_unit "$unit" "$job"
        echo "done: $unit ($(cat "$logs/${unit//\//-}.state"))" >&2
    done
}

work=$(mktemp -d)
jobs_started=()
# Each job is a process group of its own, so that it can be ended with all that it started.
trap 'for job in "${jobs_started[@]}"; do end -- -"$job"; done; wait; rm -rf "$work"' EXIT
trap 'exit 1' TERM INT

install_missing tcl
[ "$against" = haypile ] || install_test_tools
fetch_suite
[ "$against" = redis ] || build_server
all=no
[ ${#units[@]} -gt 0 ] || { all=yes; mapfile -t units < <(entries units | awk '{ print $1 }'); }
logs="$cache/last-$against"
mkdir -p "$logs"
rm -f "$logs"/*
read_skip_lists
echo 0 >"$work/next"
set -m
for ((job = 0; job < JOBS; job++)); do
    work_off "$job" &
    jobs_started+=($!)
done
set +m
wait
jobs_started=()
report

#!/usr/bin/env bash
# Fuzzes everything that parses bytes from outside or from disk, each target for so many seconds: scripts/fuzz.sh [SECONDS]
# HAYPILE_TEST_SEED repeats a run. What fails is printed with a line for tests/fuzz/found/. See docs/testing.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

install_build_tools
export HAYPILE_FUZZ_SECONDS="${1:-60}"
# The time of a target counts, not what it takes of a processor: many at once.
cargo test --release --lib fuzz:: -- --test-threads 6 --nocapture
cargo test --release --test fuzz -- --nocapture

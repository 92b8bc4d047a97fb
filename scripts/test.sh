#!/usr/bin/env bash
# Installs what the tests need and runs them all. With arguments, which go to cargo test, those of the plain build:
# scripts/test.sh --lib config
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

install_build_tools
install_test_tools
# Faults at every step against the disk (docs/testing.md): a build of its own, of this package only and unoptimised, which
# takes half a minute. First, so that what stays in the target folder is the plain server.
if [ $# -eq 0 ]; then
    cargo test --release --config 'profile.release.package.haypile.opt-level=0' --features failpoints --test failpoints
    # Each benchmark once, so that they go on working.
    cargo test --release --bench hot_paths
fi
exec cargo test --release "$@"

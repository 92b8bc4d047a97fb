#!/usr/bin/env bash
# Installs what the tests need and runs them all. Arguments go to cargo test: scripts/test.sh --lib config
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

install_build_tools
install_test_tools
exec cargo test --release "$@"

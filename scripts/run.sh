#!/usr/bin/env bash
# Installs what the build needs, builds, and starts the server on conf/haypile.conf with its data in ./data
# of this checkout. Arguments go to the server: scripts/run.sh --port 9321 --dir ./b
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

install_build_tools
cargo build --release
exec "${CARGO_TARGET_DIR:-target}/release/haypile" conf/haypile.conf "$@"

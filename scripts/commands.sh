#!/usr/bin/env bash
# Writes docs/commands.md from the command table. HAYPILE=PATH asks that binary instead of building one.
set -euo pipefail
[ -z "${HAYPILE:-}" ] || HAYPILE=$(realpath "$HAYPILE")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

build_server
# Not into the file at once: should it fail, the old one stays.
page=$("$HAYPILE" commands)
printf '%s\n' "$page" >docs/commands.md

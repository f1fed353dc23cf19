#!/usr/bin/env bash
# Builds everything with clang, warnings as errors, into a folder of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=build/clang
[ -e "$folder/build.ninja" ] || CC=clang meson setup "$folder" -Dwerror=true
ninja -C "$folder"

#!/usr/bin/env bash
# Functions and words that have no place in this program: overflowing, shell-running, or replaced by
# something of our own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

functions='strcpy|strcat|strncpy|strncat|sprintf|vsprintf|gets|system|popen|alloca|strtok|atoi|atol'
functions+='|tmpnam|tempnam|mktemp|setenv|putenv|longjmp'

! grep -rnE --include='*.[ch]' "(^|[^[:alnum:]_>.])($functions)\(|^[[:space:]]*goto " \
    cmd mirror bundle pool

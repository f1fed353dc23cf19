#!/bin/sh
# Makes a manual page: the prose of PAGE.in, the options from the program itself, the exit codes.
# usage: make.sh UVMIRROR VERSION PAGE.in >PAGE
set -eu
uvmirror=$1 version=$2 page=$3
here=$(dirname "$0")
command=$(basename "$page" .1.in)
command=${command#uvmirror-}
while IFS= read -r line; do
    case $line in
    @OPTIONS@) "$uvmirror" --mdoc-options "$command" ;;
    @EXIT@) cat "$here/exit.mdoc" ;;
    *) printf '%s\n' "$line" | sed "s/@DATE@/November 22, 2026/; s/@VERSION@/$version/" ;;
    esac
done <"$page"

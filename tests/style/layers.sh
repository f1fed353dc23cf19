#!/usr/bin/env bash
# Holds the arrows between the folders: cmd -> pool, bundle -> mirror -> mirror/base.
#
# A file may include headers of its own folder, the public header of the folders below it, and the
# libraries that belong to its folder; and each library has few files that know it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

declare -A may_include=(
    [mirror/base]="crypto gpgme"
    [mirror]="mirror/base/base.h jansson curl pcre2 zstd zlib"
    [bundle]="mirror/base/base.h mirror/mirror.h jansson archive zstd zlib"
    [pool]="mirror/base/base.h mirror/mirror.h jansson libvirt libxml2"
    [cmd]="mirror/base/base.h mirror/mirror.h bundle/bundle.h pool/pool.h jansson inih"
)

# In how many files of the program a library's header may stand.
declare -A most_files=(
    [crypto]=2 [gpgme]=2 [curl]=1 [pcre2]=1 [archive]=3 [zstd]=4 [zlib]=3 [libvirt]=3 [libxml2]=2
    [inih]=1
)

# The library that a system header belongs to; nothing for libc.
library_of() {
    case $1 in
        openssl/*) echo crypto ;;
        gpgme.h) echo gpgme ;;
        jansson.h) echo jansson ;;
        curl/*) echo curl ;;
        pcre2.h) echo pcre2 ;;
        archive.h | archive_entry.h) echo archive ;;
        zstd*.h) echo zstd ;;
        zlib.h) echo zlib ;;
        libvirt/*) echo libvirt ;;
        libxml/*) echo libxml2 ;;
        ini.h) echo inih ;;
    esac
}

# "<file> <header>" for every include of the program.
includes() {
    local sources
    sources=$(find cmd mirror bundle pool -name '*.[ch]')
    # shellcheck disable=SC2086  # no blanks in our file names
    sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]+([<"][^>"]+[>"]).*/\1/; T; F; p' \
        $sources | paste -d ' ' - -
}

wrong=0
complain() {
    printf '%s\n' "$*"
    wrong=1
}

declare -A users=()
while read -r file include; do
    folder=${file%/*}
    header=${include:1:-1}
    if [ "${include:0:1}" = '"' ]; then
        # Headers are named from the top of the tree.
        case $header in
            */*) from=${header%/*} ;;
            *) from=$folder ;;
        esac
        [ "$from" != "$folder" ] || continue
        wanted=$header
    else
        wanted=$(library_of "$header")
        [ -n "$wanted" ] || continue
        case " ${users[$wanted]:-} " in
            *" $file "*) ;;
            *) users[$wanted]="${users[$wanted]:-} $file" ;;
        esac
    fi
    case " ${may_include[$folder]:-} " in
        *" $wanted "*) ;;
        *) complain "$file: $folder/ may not include $include" ;;
    esac
done < <(includes)

for library in "${!most_files[@]}"; do
    read -ra files <<<"${users[$library]:-}"
    [ "${#files[@]}" -le "${most_files[$library]}" ] ||
        complain "$library: in ${#files[@]} files, at most ${most_files[$library]}: ${files[*]}"
done
exit "$wrong"

# shellcheck shell=bash
# Sourced after common.sh, in the top of the tree: builds into folders below build/.

# build_in FOLDER [MESON-OPTION...]: sets the folder up, or sets the options again; builds everything.
build_in() {
    local folder=$1
    shift
    if [ -e "$folder/build.ninja" ]; then
        meson configure "$folder" "$@"
    else
        meson setup "$folder" "$@"
    fi
    ninja -C "$folder"
}

# Under sudo the build folder is to belong to whom the tree belongs to, in the end.
give_build_back() {
    [ -z "${SUDO_UID:-}" ] || at_exit "chown -R '$SUDO_UID:${SUDO_GID:-$SUDO_UID}' build"
}

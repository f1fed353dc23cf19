# shellcheck shell=bash
# Sourced after common.sh: the two builds of the sample image, made once and kept in the cache.

sample_versions=(20241004 20241018)

# Puts the name of the folder with the builds (VERSION.qcow2) into the variable $1. The folder's name
# depends on the script that makes them, so that a change of it makes them anew.
prepare_samples() {
    local script folder version
    script=$(dirname "${BASH_SOURCE[0]}")/sample_image.sh
    folder=$(cache_dir)/samples-$(sha256sum "$script" | cut -c1-12)
    mkdir -p "$folder"
    for version in "${sample_versions[@]}"; do
        [ -s "$folder/$version.qcow2" ] || "$script" "$version" "$folder/$version.qcow2"
    done
    printf -v "$1" '%s' "$folder"
}

/*
 * Threat: a stream or a manifest names a path, signed or not. What is accepted is joined to a folder and
 * opened, as root: it must not lead out of the folder, nor into the mirror's own ones.
 */
#include <ctype.h>

#include "mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

static void check_segments(const char *path)
{
    uvm_auto_free char *copy = uvm_strdup(path);
    char *rest = copy;
    for (char *segment; (segment = strsep(&rest, "/"));) {
        FUZZ_HOLDS(*segment && strlen(segment) <= 255);
        FUZZ_HOLDS(strcmp(segment, ".") != 0 && strcmp(segment, "..") != 0);
    }
}

/* What one round of unescaping would make of it, in a server or in libcurl. */
static void check_unescaped(const char *path)
{
    for (const char *p = path; (p = strchr(p, '%')); p++) {
        if (!isxdigit((unsigned char)p[1]) || !isxdigit((unsigned char)p[2]))
            continue;
        char digits[] = {p[1], p[2], 0};
        long c = strtol(digits, NULL, 16);
        FUZZ_HOLDS(c != '.' && c != '/');
    }
}

static void check_accepted(const char *path)
{
    FUZZ_HOLDS(strlen(path) <= MIRROR_PATH_MAX && uvm_utf8_valid(path, strlen(path)));
    FUZZ_HOLDS(!strpbrk(path, "\\\n\r\t\033\177"));
    check_segments(path);
    check_unescaped(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_free char *path = uvm_strndup((const char *)data, size);
    uvm_auto_error err = UVM_ERROR_INIT, image_err = UVM_ERROR_INIT;
    bool sound = fuzz_outcome(mirror_path_check(path, &err), &err);
    bool sound_image = fuzz_outcome(mirror_image_path_check(path, &image_err), &image_err);
    if (sound)
        check_accepted(path);
    if (!sound_image)
        return 0;
    FUZZ_HOLDS(sound);
    FUZZ_HOLDS(strncmp(path, "streams/", 8) != 0 && strcmp(path, "streams") != 0);
    FUZZ_HOLDS(strncmp(path, "uvmirror/", 9) != 0 && strcmp(path, "uvmirror") != 0);
    return 0;
}

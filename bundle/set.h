/* set.h: what the files about a set of parts share. Internal to bundle/. */
#pragma once

#include "bundle/internal.h"

struct bundle_set {
    struct bundle_open_options options;
    struct uvm_strings folders, files; /* where to look; of the files, each must be a part */
    struct bundle_sums sums;           /* without parts when there are none */
    char *name;                        /* NAME.tar.zst */
    char *title;
    size_t count;
};

bool bundle_set_has_sums(const struct bundle_set *set);

const char *bundle_set_base_of(const char *path);

/* A regular file that is open, or -1 with errno. */
int bundle_set_open_regular(const char *path, struct stat *st);

/* Whether a file can be part `number`, as far as a glance tells. */
enum bundle_fit { BUNDLE_FITS, BUNDLE_OTHER, BUNDLE_ABSENT };
enum bundle_fit bundle_set_look(const struct bundle_set *set, const char *path, size_t number);

/* Whether it is, to the last byte; to be asked where there are sums. What cannot be read is not, with
 * a warning. */
bool bundle_set_is_part(const struct bundle_set *set, const char *path, size_t number, bool *ret_is,
                        struct uvm_error *err);

/* The file that is a part; of several, one that is sound. *ret_path NULL when there is none, and then
 * *ret_other, if not NULL, has its name, and is something else. The caller frees both. */
bool bundle_set_find_part(const struct bundle_set *set, size_t number, char **ret_path,
                          char **ret_other, struct uvm_error *err);

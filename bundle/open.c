/*
 * What BUNDLE arguments name: a file, standard input, parts of a split bundle in any places, or
 * folders of which the newest bundle is taken.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/internal.h"

#define SUFFIX         ".tar.zst"
#define FIRST_PART     ".001"
#define CANDIDATES_MAX 1000 /* files of a folder that are looked into */

/* Everything that was named, sorted. */
struct arguments {
    const struct bundle_open_options *options;
    struct bundle_set_places places; /* `files` are those that are no sums */
    struct uvm_strings sums;         /* files that were named */
    struct uvm_strings plain;        /* of the files, those whose name says nothing */
};

static void arguments_clear(struct arguments *a)
{
    uvm_strings_clear(&a->places.folders);
    uvm_strings_clear(&a->places.files);
    free(a->places.name);
    uvm_strings_clear(&a->sums);
    uvm_strings_clear(&a->plain);
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t len = strlen(s), tail = strlen(suffix);
    return len > tail && strcmp(s + len - tail, suffix) == 0;
}

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void add_once(struct uvm_strings *list, const char *s)
{
    if (!uvm_strings_has(list, s))
        uvm_strings_add(list, s);
}

static bool sort_argument(struct arguments *a, const char *argument, struct uvm_error *err)
{
    uvm_auto_free char *base = NULL;
    uvm_auto_free char *shown = uvm_printable(argument);
    struct stat st;
    if (stat(argument, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", shown);
    if (S_ISDIR(st.st_mode)) {
        add_once(&a->places.folders, argument);
        return true;
    }
    uvm_auto_free char *folder = uvm_dirname(argument);
    add_once(&a->places.folders, folder);
    if (ends_with(argument, BUNDLE_SUMS_SUFFIX)) {
        uvm_strings_add(&a->sums, argument);
        return true;
    }
    uvm_strings_add(&a->places.files, argument);
    if (bundle_part_number(argument, &base) == 0)
        uvm_strings_add(&a->plain, argument);
    else if (!a->places.name)
        a->places.name = uvm_strdup(base_of(base));
    return true;
}

static bool sort_arguments(struct arguments *a, const struct uvm_strings *arguments,
                           struct uvm_error *err)
{
    for (size_t i = 0; i < arguments->count; i++) {
        if (strcmp(arguments->items[i], "-") == 0)
            return uvm_fail(err, UVM_USAGE, "'-' (standard input) stands alone");
        if (!sort_argument(a, arguments->items[i], err))
            return false;
    }
    return true;
}

/* ---- the bundles of folders ---- */

enum kind { WHOLE, SUMS, UNSIGNED_PARTS, NOTHING };

/* Hidden files are none of ours: half-written ones look like that. */
static enum kind kind_of(const char *name)
{
    if (name[0] == '.')
        return NOTHING;
    if (ends_with(name, SUFFIX))
        return WHOLE;
    if (ends_with(name, SUFFIX BUNDLE_SUMS_SUFFIX))
        return SUMS;
    return ends_with(name, SUFFIX FIRST_PART) ? UNSIGNED_PARTS : NOTHING;
}

static int is_candidate(const struct dirent *entry)
{
    return kind_of(entry->d_name) != NOTHING;
}

static int compare_entries(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool list_candidates(const char *folder, struct uvm_strings *paths, struct uvm_error *err)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, is_candidate, compare_entries);
    if (count < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", folder);
    for (int i = 0; i < count; i++) {
        uvm_auto_free char *path = bundle_path_in(folder, entries[i]->d_name);
        uvm_strings_add(paths, path);
        free(entries[i]);
    }
    free(entries);
    return count <= CANDIDATES_MAX ||
           uvm_fail(err, UVM_SPACE, "%s: holds %d bundles, over the limit of %d: name one", folder,
                    count, CANDIDATES_MAX);
}

/* The best so far: a bundle that is whole, or the sums of one. */
struct newest {
    struct bundle_reader *reader;
    struct bundle_sums sums;
    uint64_t serial;
    struct uvm_error first; /* why the first one that was refused was */
};

static void newest_clear(struct newest *n)
{
    bundle_reader_free(n->reader);
    bundle_sums_clear(&n->sums);
    uvm_error_clear(&n->first);
}

/* Of two that carry one serial, the first stays. */
static bool is_newer(const struct newest *n, uint64_t serial)
{
    return serial > n->serial || (!n->reader && !n->sums.count);
}

static bool try_whole(const char *path, const struct bundle_open_options *options,
                      struct newest *best, struct uvm_error *why)
{
    UVM_AUTO(bundle_reader_free) struct bundle_reader *reader = NULL;
    if (!bundle_reader_open(path, options, &reader, why))
        return false;
    uint64_t serial = bundle_reader_manifest(reader)->serial;
    if (!is_newer(best, serial))
        return true;
    bundle_sums_clear(&best->sums);
    bundle_reader_free(best->reader);
    best->reader = UVM_STEAL(reader);
    best->serial = serial;
    return true;
}

/* The sums are signed, and say the serial: the parts may be elsewhere. */
static bool try_sums(const char *path, const struct bundle_open_options *options,
                     struct newest *best, struct uvm_error *why)
{
    __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums sums = {0};
    if (!bundle_sums_read(path, options->verifier, &sums, why))
        return false;
    if (!is_newer(best, sums.serial))
        return true;
    bundle_reader_free(UVM_STEAL(best->reader));
    bundle_sums_clear(&best->sums);
    best->serial = sums.serial;
    best->sums = sums;
    sums = (struct bundle_sums){0};
    return true;
}

/* A file that is refused does not stand in the way of the others, but is named: it may be the very
 * one that was meant. */
static bool try_candidate(const char *path, const struct bundle_open_options *options,
                          struct newest *best, struct uvm_error *err)
{
    uvm_auto_error why = UVM_ERROR_INIT;
    bool well = kind_of(base_of(path)) == WHOLE ? try_whole(path, options, best, &why)
                                                : try_sums(path, options, best, &why);
    if (well)
        return true;
    if (why.code == UVM_INTERRUPTED)
        return uvm_fail(err, why.code, "%s", why.message);
    uvm_warning(options->observer, "passed over: %s", why.message);
    if (best->first.code == UVM_OK)
        uvm_fail(&best->first, why.code, "%s", why.message);
    return true;
}

/* Among files of this kind in all folders. Parts that have no sums are taken note of. */
static bool find_newest(struct arguments *a, enum kind wanted, struct newest *best,
                        struct uvm_error *err)
{
    for (size_t f = 0; f < a->places.folders.count; f++) {
        uvm_auto_strings paths = {0};
        if (!list_candidates(a->places.folders.items[f], &paths, err))
            return false;
        for (size_t i = 0; i < paths.count; i++) {
            enum kind kind = kind_of(base_of(paths.items[i]));
            if (kind == UNSIGNED_PARTS && !a->places.name)
                bundle_part_number(base_of(paths.items[i]), &a->places.name);
            if ((kind == WHOLE || kind == SUMS) && (wanted == WHOLE || kind == wanted) &&
                !try_candidate(paths.items[i], a->options, best, err))
                return false;
        }
    }
    return true;
}

/* ---- opening ---- */

static bool open_set(const struct arguments *a, struct bundle_sums *sums,
                     struct bundle_reader **ret_reader, struct uvm_error *err)
{
    UVM_AUTO(bundle_set_free) struct bundle_set *set = NULL;
    return bundle_set_new(&a->places, sums, a->options, &set, err) &&
           bundle_reader_open_set(&set, a->options, ret_reader, err);
}

static bool open_unsigned(const struct arguments *a, struct bundle_reader **ret_reader,
                          struct uvm_error *err)
{
    uvm_warning(a->options->observer,
                "%s" BUNDLE_SUMS_SUFFIX " is not there: parts are taken by their numbers, and a "
                "damaged one cannot be named",
                a->places.name);
    return open_set(a, NULL, ret_reader, err);
}

static bool open_newest(struct arguments *a, enum kind wanted, struct bundle_reader **ret_reader,
                        struct uvm_error *err)
{
    __attribute__((cleanup(newest_clear))) struct newest best = {0};
    if (!find_newest(a, wanted, &best, err))
        return false;
    if (best.reader) {
        *ret_reader = UVM_STEAL(best.reader);
        return true;
    }
    if (best.sums.count)
        return open_set(a, &best.sums, ret_reader, err);
    if (best.first.code != UVM_OK)
        return uvm_fail(err, best.first.code, "%s", best.first.message);
    if (a->plain.count)
        return uvm_fail(err, UVM_USAGE, "one bundle at a time, or all parts of one that was split");
    if (a->places.name)
        return open_unsigned(a, ret_reader, err);
    uvm_auto_free char *folder = uvm_printable(a->places.folders.items[0]);
    return uvm_fail(err, UVM_FAILED, "%s: no bundle (*%s) in this folder", folder, SUFFIX);
}

/* Sums may have been named more than once: each stick has a copy. */
static bool open_by_sums(const struct arguments *a, struct bundle_reader **ret_reader,
                         struct uvm_error *err)
{
    __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums first = {0};
    if (!bundle_sums_read(a->sums.items[0], a->options->verifier, &first, err))
        return false;
    for (size_t i = 1; i < a->sums.count; i++) {
        __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums other = {0};
        if (!bundle_sums_read(a->sums.items[i], a->options->verifier, &other, err))
            return false;
        if (strcmp(other.id, first.id) != 0)
            return uvm_fail(err, UVM_USAGE, "one bundle at a time: these are parts of %s and %s",
                            first.id, other.id);
    }
    return open_set(a, &first, ret_reader, err);
}

static bool open_by_part(struct arguments *a, struct bundle_reader **ret_reader,
                         struct uvm_error *err)
{
    uvm_auto_free char *name = uvm_format("%s" BUNDLE_SUMS_SUFFIX, a->places.name);
    for (size_t i = 0; i < a->places.folders.count; i++) {
        uvm_auto_free char *path = bundle_path_in(a->places.folders.items[i], name);
        if (access(path, F_OK) == 0) {
            uvm_strings_add(&a->sums, path);
            return open_by_sums(a, ret_reader, err);
        }
    }
    return open_unsigned(a, ret_reader, err);
}

bool bundle_reader_new(const struct uvm_strings *arguments,
                       const struct bundle_open_options *options, struct bundle_reader **ret_reader,
                       struct uvm_error *err)
{
    __attribute__((cleanup(arguments_clear))) struct arguments a = {.options = options};
    if (arguments->count == 1 && strcmp(arguments->items[0], "-") == 0)
        return bundle_reader_open("-", options, ret_reader, err);
    if (!sort_arguments(&a, arguments, err))
        return false;
    if (arguments->count == 1 && a.plain.count == 1)
        return bundle_reader_open(arguments->items[0], options, ret_reader, err);
    if (a.sums.count)
        return open_by_sums(&a, ret_reader, err);
    if (a.places.name)
        return open_by_part(&a, ret_reader, err);
    return open_newest(&a, a.plain.count ? SUMS : WHOLE, ret_reader, err);
}

/* What a BUNDLE argument names: a file, standard input, or a folder whose newest bundle is taken.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "bundle/internal.h"

#define SUFFIX         ".tar.zst"
#define CANDIDATES_MAX 1000 /* files of a folder that are looked into */

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Hidden files are none of ours: half-written ones look like that. */
static int is_candidate(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    size_t suffix = strlen(SUFFIX);
    return entry->d_name[0] != '.' && len > suffix &&
           strcmp(entry->d_name + len - suffix, SUFFIX) == 0;
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
    const char *slash = folder[strlen(folder) - 1] == '/' ? "" : "/";
    for (int i = 0; i < count; i++) {
        uvm_auto_free char *path = uvm_format("%s%s%s", folder, slash, entries[i]->d_name);
        uvm_strings_add(paths, path);
        free(entries[i]);
    }
    free(entries);
    if (count > CANDIDATES_MAX)
        return uvm_fail(err, UVM_SPACE, "%s: holds %d bundles, over the limit of %d: name one",
                        folder, count, CANDIDATES_MAX);
    return count > 0 ||
           uvm_fail(err, UVM_FAILED, "%s: no bundle (*%s) in this folder", folder, SUFFIX);
}

/* Of two that carry one serial, the first in the order of names stays. */
static void keep_newer(struct bundle_reader **best, struct bundle_reader **other)
{
    if (*best && bundle_reader_manifest(*best)->serial >= bundle_reader_manifest(*other)->serial)
        return;
    bundle_reader_free(*best);
    *best = UVM_STEAL(*other);
}

/* A file that is refused does not stand in the way of the others, but is named: it may be the very
 * one that was meant. */
static bool try_candidate(const char *path, struct uvm_verifier *verifier,
                          const struct uvm_observer *observer, struct bundle_reader **best,
                          struct uvm_error *first, struct uvm_error *err)
{
    UVM_AUTO(bundle_reader_free) struct bundle_reader *reader = NULL;
    uvm_auto_error why = UVM_ERROR_INIT;
    if (bundle_reader_open(path, verifier, observer, &reader, &why)) {
        keep_newer(best, &reader);
        return true;
    }
    if (why.code == UVM_INTERRUPTED)
        return uvm_fail(err, why.code, "%s", why.message);
    uvm_warning(observer, "passed over: %s", why.message);
    if (first->code == UVM_OK)
        uvm_fail(first, why.code, "%s", why.message);
    return true;
}

static bool open_newest(const char *folder, struct uvm_verifier *verifier,
                        const struct uvm_observer *observer, struct bundle_reader **ret_reader,
                        struct uvm_error *err)
{
    uvm_auto_strings paths = {0};
    uvm_auto_error first = UVM_ERROR_INIT; /* why the first one that was refused was */
    UVM_AUTO(bundle_reader_free) struct bundle_reader *best = NULL;
    if (!list_candidates(folder, &paths, err))
        return false;
    for (size_t i = 0; i < paths.count; i++)
        if (!try_candidate(paths.items[i], verifier, observer, &best, &first, err))
            return false;
    if (!best)
        return uvm_fail(err, first.code, "%s", first.message);
    *ret_reader = UVM_STEAL(best);
    return true;
}

bool bundle_reader_new(const char *argument, struct uvm_verifier *verifier,
                       const struct uvm_observer *observer, struct bundle_reader **ret_reader,
                       struct uvm_error *err)
{
    if (strcmp(argument, "-") != 0 && is_folder(argument))
        return open_newest(argument, verifier, observer, ret_reader, err);
    return bundle_reader_open(argument, verifier, observer, ret_reader, err);
}

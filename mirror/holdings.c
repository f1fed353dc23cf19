/* All records of a mirror, as one of its streams sees them. */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "mirror/held.h"

/* ---- which there are ---- */

static int by_name(const void *a, const void *b)
{
    char *const *sa = a, *const *sb = b;
    return strcmp(*sa, *sb);
}

/* The content id of a record's file; NULL for another file. The caller frees it. */
static char *id_of_file(const char *name)
{
    size_t len = strlen(name), suffix = strlen(MIRROR_RECORD_SUFFIX);
    uvm_auto_free char *printable = uvm_printable(name);
    if (name[0] == '.' || len <= suffix || strcmp(name + len - suffix, MIRROR_RECORD_SUFFIX) != 0 ||
        strcmp(name, printable) != 0)
        return NULL;
    return uvm_strndup(name, len - suffix);
}

bool mirror_record_ids(const struct mirror_tree *t, struct uvm_strings *ret, struct uvm_error *err)
{
    uvm_auto_free char *folder = uvm_format("%s/" MIRROR_STREAMS_DIR, t->dir);
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOENT)
        return true;
    if (!dir)
        return uvm_fail_errno(err, UVM_FAILED, "%s", folder);
    uvm_auto_strings ids = {0};
    struct dirent *entry;
    while (errno = 0, (entry = readdir(dir))) {
        uvm_auto_free char *id = id_of_file(entry->d_name);
        if (id)
            uvm_strings_add(&ids, id);
    }
    int failed = errno; /* a list with a gap would let another stream's files go */
    closedir(dir);
    errno = failed;
    if (failed)
        return uvm_fail_errno(err, UVM_FAILED, "%s", folder);
    if (ids.count)
        qsort(ids.items, ids.count, sizeof *ids.items, by_name);
    *ret = ids;
    ids = (struct uvm_strings){0};
    return true;
}

/* ---- what they say ---- */

void mirror_holdings_clear(struct mirror_holdings *h)
{
    for (size_t i = 0; i < h->count; i++)
        mirror_record_clear(&h->others[i]);
    free(h->others);
    free(h->gap);
    mirror_record_clear(&h->own);
    *h = (struct mirror_holdings){0};
}

/* Takes the message of an error about something damaged, and leaves no error. */
static char *take_message(struct uvm_error *err)
{
    char *message = UVM_STEAL(err->message);
    *err = UVM_ERROR_INIT;
    return message;
}

/* A damaged one is as good as none. */
static bool load_own(const struct mirror_tree *t, const char *content_id,
                     const struct uvm_observer *observer, struct mirror_record *ret,
                     struct uvm_error *err)
{
    if (mirror_record_load(t, content_id, ret, err))
        return true;
    if (err->code != UVM_CONTENT)
        return false;
    uvm_auto_free char *why = take_message(err);
    uvm_warning(observer, "%s; it is written anew, with nothing but what this run chose", why);
    mirror_record_init(ret, content_id);
    return true;
}

static bool load_other(const struct mirror_tree *t, const char *content_id,
                       struct mirror_holdings *h, struct uvm_error *err)
{
    if (mirror_record_load(t, content_id, &h->others[h->count], err)) {
        h->count++;
        return true;
    }
    if (err->code != UVM_CONTENT)
        return false;
    mirror_record_advise(content_id, err);
    uvm_auto_free char *why = take_message(err);
    if (!h->gap)
        h->gap = UVM_STEAL(why);
    return true;
}

static bool load_others(const struct mirror_tree *t, const char *but, struct mirror_holdings *h,
                        struct uvm_error *err)
{
    uvm_auto_strings ids = {0};
    if (!mirror_record_ids(t, &ids, err))
        return false;
    h->others = uvm_grow(NULL, ids.count, sizeof *h->others);
    for (size_t i = 0; i < ids.count; i++)
        if ((!but || strcmp(ids.items[i], but) != 0) && !load_other(t, ids.items[i], h, err))
            return false;
    return true;
}

bool mirror_holdings_load(const struct mirror_tree *t, const char *content_id,
                          const struct uvm_observer *observer, struct mirror_holdings *ret,
                          struct uvm_error *err)
{
    mirror_auto_holdings h = {0};
    if ((content_id && !load_own(t, content_id, observer, &h.own, err)) ||
        !load_others(t, content_id, &h, err))
        return false;
    *ret = h;
    h = (struct mirror_holdings){0};
    return true;
}

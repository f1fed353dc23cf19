/*
 * Of which bundles the mirror keeps the small members. They are needed for `--again`, which is for parts
 * that did not survive a journey: within days, or weeks where a courier goes once a month. Of a nightly
 * bundle that is megabytes each; so what is plausibly still on its way stays, and the rest goes.
 *
 * Bundles that were split and those that were not are counted apart: the former alone can be asked for,
 * and no number of others pushes them out. Age is counted from the newest one, by what their ids say,
 * which is their serial: no clock has a part in it, and a mirror that is left alone keeps what it has.
 */
#include <string.h>
#include <unistd.h>

#include "bundle/internal.h"

#define DAY ((time_t)86400)

struct kept {
    const char *id; /* borrowed */
    time_t made;    /* 0: the id does not say */
    bool split;
};

/* "uvmirror-20241004T093000Z-1f2e3d4c" */
static time_t made_at(const char *id)
{
    struct tm tm = {0};
    const char *end = strptime(id, "uvmirror-%Y%m%dT%H%M%SZ-", &tm);
    time_t made = end ? timegm(&tm) : 0;
    return made > 0 ? made : 0;
}

static bool is_split(const struct mirror_tree *tree, const char *id)
{
    uvm_auto_free char *sums = bundle_kept_path(tree, id, BUNDLE_SUMS_NAME);
    return access(sums, F_OK) == 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;
    return x->made != y->made ? (x->made < y->made) - (x->made > y->made) : strcmp(y->id, x->id);
}

static struct kept *list_kept(const struct mirror_tree *tree, const struct uvm_strings *ids)
{
    struct kept *list = uvm_alloc((ids->count + 1) * sizeof *list);
    for (size_t i = 0; i < ids->count; i++)
        list[i] =
            (struct kept){ids->items[i], made_at(ids->items[i]), is_split(tree, ids->items[i])};
    qsort(list, ids->count, sizeof *list, newest_first);
    return list;
}

static void choose(const struct kept *list, size_t count, struct uvm_strings *stay)
{
    size_t seen[2] = {0};
    for (size_t i = 0; i < count; i++)
        if (list[i].made == 0 || seen[list[i].split]++ < BUNDLE_KEPT_MIN ||
            list[0].made - list[i].made <= BUNDLE_KEPT_DAYS * DAY)
            uvm_strings_add(stay, list[i].id);
}

char *bundle_kept_path(const struct mirror_tree *tree, const char *id, const char *name)
{
    return uvm_format("%s/uvmirror/bundles/%s/%s", mirror_tree_dir(tree), id, name);
}

void bundle_keep_newest(struct mirror_tree *tree, const struct uvm_observer *observer)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_strings ids = {0}, stay = {0};
    if (mirror_tree_kept(tree, &ids, &err)) {
        uvm_auto_free struct kept *list = list_kept(tree, &ids);
        choose(list, ids.count, &stay);
        if (mirror_tree_keep_only(tree, &stay, &err))
            return;
    }
    uvm_warning(observer, "what is kept of old bundles stays for now: %s", err.message);
}

bool bundle_is_swept(const struct mirror_tree *tree, const char *id)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    uvm_auto_strings ids = {0};
    if (made_at(id) == 0 || !mirror_tree_kept(tree, &ids, &ignored))
        return false;
    for (size_t i = 0; i < ids.count; i++)
        if (made_at(ids.items[i]) > made_at(id))
            return true;
    return false;
}

/* What is not to be kept of encoded images any more (cache.h). */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/cache.h"

static bool ends_with(const char *name, const char *end)
{
    size_t len = strlen(name), tail = strlen(end);
    return len >= tail && strcmp(name + len - tail, end) == 0;
}

static int visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

struct listing {
    char *name;
    struct timespec used;
};

/* The last used first. */
static int by_use(const void *a, const void *b)
{
    const struct listing *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? 1 : -1;
    if (x->used.tv_nsec != y->used.tv_nsec)
        return x->used.tv_nsec < y->used.tv_nsec ? 1 : -1;
    return strcmp(x->name, y->name);
}

struct listings {
    struct listing *items;
    size_t count;
};

static void listings_clear(struct listings *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->items[i].name);
    free(l->items);
}

static struct listings list_files(const struct bundle_cache *c)
{
    struct listings l = {0};
    struct dirent **entries = NULL;
    int count = scandir(c->path, &entries, visible, alphasort);
    for (int i = 0; i < count; i++) {
        struct stat st;
        if (fstatat(c->fd, entries[i]->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode)) {
            l.items = uvm_grow(l.items, l.count + 1, sizeof *l.items);
            l.items[l.count++] = (struct listing){uvm_strdup(entries[i]->d_name), st.st_mtim};
        }
        free(entries[i]);
    }
    free(entries);
    if (l.count)
        qsort(l.items, l.count, sizeof *l.items, by_use);
    return l;
}

/* Of the files from the last used on, the one at `at`: how many before it are of its image. */
static size_t later_used(const struct listings *l, size_t at, const char *end)
{
    size_t count = 0, stem = strcspn(l->items[at].name, ".");
    for (size_t i = 0; i < at; i++)
        count += ends_with(l->items[i].name, end) &&
                 strncmp(l->items[i].name, l->items[at].name, stem + 1) == 0;
    return count;
}

static bool is_held(const struct bundle_cache *c, const char *record)
{
    mirror_auto_json *json = bundle_cache_record(c, record);
    const char *image = json_string_value(json_object_get(json, "image"));
    return image && (uvm_digest_valid(UVM_SHA256, image) || uvm_digest_valid(UVM_SHA512, image)) &&
           mirror_tree_has_content(c->tree, image);
}

/* The member goes with its record; the record first, so that it never speaks of what is gone. */
static void sweep_records(const struct bundle_cache *c, const struct listings *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const char *name = l->items[i].name;
        if (!ends_with(name, BUNDLE_CACHE_RECORD_END) ||
            (later_used(l, i, BUNDLE_CACHE_RECORD_END) < BUNDLE_CACHE_MEMBERS && is_held(c, name)))
            continue;
        uvm_auto_free char *member =
            uvm_strndup(name, strlen(name) - strlen(BUNDLE_CACHE_RECORD_END));
        unlinkat(c->fd, name, 0);
        unlinkat(c->fd, member, 0);
    }
}

static void sweep_others(const struct bundle_cache *c, const struct listings *l)
{
    size_t blocks = 0;
    for (size_t i = 0; i < l->count; i++) {
        const char *name = l->items[i].name;
        uvm_auto_free char *record = uvm_format("%s" BUNDLE_CACHE_RECORD_END, name);
        bool keep =
            ends_with(name, BUNDLE_CACHE_RECORD_END) ||
            (ends_with(name, BUNDLE_CACHE_BLOCKS_END) ? blocks++ < BUNDLE_CACHE_BLOCKS
                                                      : faccessat(c->fd, record, F_OK, 0) == 0);
        if (!keep)
            unlinkat(c->fd, name, 0);
    }
}

void bundle_cache_sweep(const struct bundle_cache *c)
{
    __attribute__((cleanup(listings_clear))) struct listings l = list_files(c);
    sweep_records(c, &l);
    sweep_others(c, &l);
}

/*
 * What stays in a mirror and what goes.
 *
 *     await   awaits += the images of the selection
 *     hold    images = those of the selection, and of the old images those that stay
 *             awaits = of the old awaits those that stay
 *
 * An old image stays when the new file still lists it unchanged, and the fetch said nothing about
 * it: its product is not among those that were chosen from, or the filters hide it.
 *
 * What goes is found by its absence: a file that is verified, or that the old record named, and
 * whose path no record names any more. A record that cannot be read may name any, and then nothing
 * goes.
 */
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/held.h"
#include "mirror/model.h"

/* ---- the record after a fetch ---------------------------------------------------------------- */

/* A fetch that came to its end. */
struct fetched {
    const struct mirror_stream *stream;
    const struct mirror_filters *filters;
    json_t *products; /* {name: true} of those that were chosen from */
    json_t *paths;    /* {path: entry} of the images that were chosen */
};

static void fetched_clear(struct fetched *f)
{
    json_decref(f->products);
    json_decref(f->paths);
}

static struct fetched fetched_of(const struct mirror_stream *stream,
                                 const struct mirror_selection *selection,
                                 const struct mirror_filters *filters, json_t *chosen)
{
    struct fetched f = {stream, filters, json_object(), json_object()};
    const char *key;
    json_t *entry;
    for (size_t i = 0; i < selection->count; i++)
        json_object_set_new(f.products, selection->products[i].name, json_true());
    json_object_foreach(chosen, key, entry)
    {
        json_object_set(f.paths, json_string_value(json_object_get(entry, "path")), entry);
    }
    return f;
}

/* The image that the stream lists under a record's key. */
static bool find_listed(const struct mirror_stream *stream, const char *key,
                        struct mirror_image *ret)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    const char *version = strchr(key, '/') + 1, *item = strchr(version, '/') + 1;
    uvm_auto_free char *product = uvm_strndup(key, (size_t)(version - key) - 1);
    uvm_auto_free char *serial = uvm_strndup(version, (size_t)(item - version) - 1);
    return mirror_stream_image(stream, product, serial, item, ret, &ignored);
}

static bool says(const json_t *entry, const struct mirror_image *image)
{
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image known =
        mirror_record_image(entry);
    return strcmp(known.path, image->path) == 0 && mirror_same_content(&known, image);
}

static bool stays(const struct fetched *f, const struct mirror_image *image)
{
    const json_t *in_its_place = json_object_get(f->paths, image->path);
    if (in_its_place && !says(in_its_place, image))
        return false;
    return !json_object_get(f->products, image->product) ||
           !mirror_filters_match(f->filters, image->metadata);
}

/* Adds those of the old entries that stay and are not in `chosen` yet. */
static void keep_old(const struct fetched *f, json_t *old, const json_t *chosen, json_t *kept)
{
    const char *key;
    json_t *entry;
    json_object_foreach(old, key, entry)
    {
        __attribute__((cleanup(mirror_image_clear))) struct mirror_image image = {0};
        if (!json_object_get(chosen, key) && find_listed(f->stream, key, &image) &&
            says(entry, &image) && stays(f, &image))
            mirror_record_put(kept, &image);
    }
}

/* The limits of all products that have images. */
static void keep_limits(const struct mirror_record *old, const struct fetched *f, unsigned max,
                        struct mirror_record *next)
{
    const char *key;
    json_t *entry;
    json_object_foreach(next->images, key, entry)
    {
        uvm_auto_free char *product = uvm_strndup(key, strcspn(key, "/"));
        json_t *limit = json_object_get(old->max, product);
        if (json_object_get(f->products, product) || !limit)
            json_object_set_new(next->max, product, json_integer(max));
        else
            json_object_set(next->max, product, limit);
    }
}

static void record_of_fetch(const struct mirror_record *old, const struct mirror_stream *stream,
                            const struct mirror_choice *choice, struct mirror_record *ret)
{
    mirror_record_init(ret, stream->content_id);
    mirror_record_put_all(ret->images, choice->selection);
    __attribute__((cleanup(fetched_clear))) struct fetched f =
        fetched_of(stream, choice->selection, choice->filters, ret->images);
    keep_old(&f, old->images, ret->images, ret->images);
    keep_old(&f, old->awaits, ret->images, ret->awaits);
    keep_limits(old, &f, choice->max, ret);
}

/* ---- what goes ------------------------------------------------------------------------------- */

static void add_paths(json_t *images, json_t *paths)
{
    const char *key;
    json_t *entry;
    json_object_foreach(images, key, entry)
    {
        json_object_set_new(paths, json_string_value(json_object_get(entry, "path")), json_true());
    }
}

/* The paths that records name, with `next` in the place of the own one. */
static json_t *named_paths(const struct mirror_holdings *h, const struct mirror_record *next)
{
    json_t *named = json_object();
    add_paths(next->images, named);
    add_paths(next->awaits, named);
    for (size_t i = 0; i < h->count; i++) {
        add_paths(h->others[i].images, named);
        add_paths(h->others[i].awaits, named);
    }
    return named;
}

/* The paths of files that are ours. */
static json_t *own_paths(const struct mirror_tree *t, const struct mirror_record *old)
{
    json_t *own = json_object();
    add_paths(old->images, own);
    add_paths(old->awaits, own);
    for (size_t i = 0; i < json_array_size(old->superseded); i++)
        json_object_set_new(own, json_string_value(json_array_get(old->superseded, i)),
                            json_true());
    json_object_update(own, mirror_verified_files(t->verified));
    return own;
}

/* {path: size} of the files that nothing holds once `next` is the record. */
static json_t *find_superseded(const struct mirror_tree *t, const struct mirror_holdings *h,
                               const struct mirror_record *next)
{
    mirror_auto_json *named = named_paths(h, next), *own = own_paths(t, &h->own);
    json_t *superseded = json_object(), *ignored;
    const char *path;
    json_object_foreach(own, path, ignored)
    {
        uvm_auto_error err = UVM_ERROR_INIT;
        struct stat st;
        if (!json_object_get(named, path) && mirror_image_path_check(path, &err) &&
            mirror_beneath_stat(t->root_fd, path, &st))
            json_object_set_new(superseded, path, json_integer(st.st_size));
    }
    return superseded;
}

static void add_removed(struct mirror_removed *removed, const char *path, const json_t *size)
{
    uvm_strings_add(&removed->paths, path);
    removed->bytes += (uint64_t)json_integer_value(size);
}

/* An earlier run may have died between a file and its folders. */
static void finish_removal(const struct mirror_tree *t, const struct mirror_record *old)
{
    for (size_t i = 0; i < json_array_size(old->superseded); i++)
        mirror_beneath_remove_folders(t->root_fd,
                                      json_string_value(json_array_get(old->superseded, i)));
}

static void remove_superseded(struct mirror_tree *t, json_t *superseded,
                              const struct uvm_observer *observer, struct mirror_removed *removed)
{
    const char *path;
    json_t *size;
    json_object_foreach(superseded, path, size)
    {
        uvm_auto_error err = UVM_ERROR_INIT;
        if (!mirror_beneath_remove(t->root_fd, path, &err)) {
            uvm_warning(observer, "mirror folder %s: %s; the next run tries again", t->dir,
                        err.message);
            continue;
        }
        mirror_verified_forget(t->verified, path);
        add_removed(removed, path, size);
    }
}

/* ---- what came ------------------------------------------------------------------------------- */

static bool has_all(const struct mirror_tree *t, const struct mirror_product *product)
{
    for (size_t i = 0; i < product->image_count; i++)
        if (!mirror_tree_has(t, &product->images[i]))
            return false;
    return true;
}

void mirror_tree_drop_missing(const struct mirror_tree *t, struct mirror_selection *selection)
{
    size_t kept = 0;
    for (size_t i = 0; i < selection->count; i++) {
        if (has_all(t, &selection->products[i]))
            selection->products[kept++] = selection->products[i];
        else
            mirror_product_clear(&selection->products[i]);
    }
    selection->count = kept;
}

/* ---- hold ------------------------------------------------------------------------------------ */

static void name_origin(json_t *named, const struct mirror_record *r)
{
    if (r->origin)
        json_object_set_new(named, r->origin, json_true());
}

static void sweep_origins(const struct mirror_tree *t, const struct mirror_holdings *h,
                          const struct mirror_record *next)
{
    mirror_auto_json *named = json_object();
    name_origin(named, next);
    for (size_t i = 0; i < h->count; i++)
        name_origin(named, &h->others[i]);
    mirror_kept_sweep(t, named);
}

/* Puts `next` in the place of the own record, and then removes what that leaves. */
static bool replace_record(struct mirror_tree *t, const struct mirror_holdings *h,
                           struct mirror_record *next, const struct mirror_stream *stream,
                           const struct uvm_observer *observer, struct mirror_removed *removed,
                           struct uvm_error *err)
{
    mirror_auto_json *superseded = find_superseded(t, h, next);
    const char *path;
    json_t *size;
    json_object_foreach(superseded, path, size)
    {
        json_array_append_new(next->superseded, json_string(path));
    }
    next->source = uvm_printable(stream->source);
    next->path = uvm_strdup(stream->path);
    next->signer = uvm_strdup(stream->signer);
    next->updated = uvm_strdup(stream->updated);
    if (!mirror_kept_add(t, stream, &next->origin, err) ||
        (!mirror_record_equal(&h->own, next) && !mirror_record_save(t, next, err)))
        return false;
    if (h->gap) {
        uvm_warning(observer, "%s; until then nothing is removed from the mirror", h->gap);
        return true;
    }
    /* What takes the place of the old files may not have reached the disk yet. */
    if (json_object_size(superseded) > 0 && syncfs(t->root_fd) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "mirror folder %s", t->dir);
    sweep_origins(t, h, next);
    finish_removal(t, &h->own);
    remove_superseded(t, superseded, observer, removed);
    return true;
}

bool mirror_tree_hold(struct mirror_tree *t, const struct mirror_stream *stream,
                      const struct mirror_choice *choice, const struct uvm_observer *observer,
                      struct mirror_removed *removed, struct uvm_error *err)
{
    mirror_auto_holdings h = {0};
    mirror_auto_record next = {0};
    if (!mirror_holdings_load(t, stream->content_id, observer, &h, err))
        return false;
    if (mirror_record_is_newer(&h.own, stream) && !choice->allow_older)
        return true;
    record_of_fetch(&h.own, stream, choice, &next);
    return replace_record(t, &h, &next, stream, observer, removed, err);
}

bool mirror_held_replace(struct mirror_tree *t, const struct mirror_stream *stream,
                         const struct mirror_selection *selection,
                         const struct uvm_observer *observer, struct mirror_removed *removed,
                         struct uvm_error *err)
{
    mirror_auto_holdings h = {0};
    mirror_auto_record next = {0};
    if (!mirror_holdings_load(t, stream->content_id, observer, &h, err))
        return false;
    mirror_record_init(&next, stream->content_id);
    mirror_record_put_all(next.images, selection);
    for (size_t i = 0; i < selection->count; i++)
        json_object_set_new(next.max, selection->products[i].name, json_integer(0));
    return replace_record(t, &h, &next, stream, observer, removed, err);
}

bool mirror_tree_superseded(const struct mirror_tree *t, const struct mirror_stream *stream,
                            const struct mirror_choice *choice, struct mirror_removed *removed,
                            struct uvm_error *err)
{
    mirror_auto_holdings h = {0};
    mirror_auto_record next = {0};
    if (!mirror_holdings_load(t, stream->content_id, NULL, &h, err))
        return false;
    if (h.gap || (mirror_record_is_newer(&h.own, stream) && !choice->allow_older))
        return true;
    record_of_fetch(&h.own, stream, choice, &next);
    mirror_auto_json *known = json_object(), *superseded = find_superseded(t, &h, &next);
    for (size_t i = 0; i < removed->paths.count; i++)
        json_object_set_new(known, removed->paths.items[i], json_true());
    const char *path;
    json_t *size;
    json_object_foreach(superseded, path, size)
    {
        if (!json_object_get(known, path))
            add_removed(removed, path, size);
    }
    return true;
}

void mirror_removed_clear(struct mirror_removed *r)
{
    uvm_strings_clear(&r->paths);
    *r = (struct mirror_removed){0};
}

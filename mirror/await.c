/* Before a download: what is on its way, and whether it can stand beside what is there. */
#include <string.h>

#include "mirror/held.h"
#include "mirror/model.h"

/* ---- await ----------------------------------------------------------------------------------- */

/* The images that a record holds, as far as they are known there, as a selection. */
static struct mirror_selection held_images(const struct mirror_record *r)
{
    struct mirror_product *product = uvm_alloc(sizeof *product);
    product->images = uvm_grow(NULL, json_object_size(r->images), sizeof *product->images);
    const char *key;
    json_t *entry;
    json_object_foreach(r->images, key, entry)
    {
        product->images[product->image_count++] = mirror_record_image(entry);
    }
    return (struct mirror_selection){product, 1};
}

static bool check_clashes(const struct mirror_holdings *h, const struct mirror_selection *selection,
                          struct uvm_error *err)
{
    for (size_t i = 0; i < h->count; i++) {
        mirror_auto_selection held = held_images(&h->others[i]);
        struct mirror_selection both[] = {*selection, held};
        if (!mirror_selections_check(both, 2, err))
            return uvm_prefix(err,
                              "stream %s and stream %s, which the mirror holds, cannot share a "
                              "folder (give one of them another --mirror)",
                              h->own.content_id, h->others[i].content_id);
    }
    return true;
}

static void tell_change(const struct mirror_record *held, const struct mirror_stream *stream,
                        const struct uvm_observer *observer)
{
    if (!held->origin)
        return;
    uvm_auto_free char *from = uvm_printable(held->source), *to = uvm_printable(stream->source);
    uvm_auto_free char *old = mirror_brief(held->updated);
    uvm_auto_free char *new = mirror_brief(stream->updated ? stream->updated : "no date");
    if (strcmp(from, to) != 0)
        uvm_notice(observer, "%s: comes from %s now, came from %s before", held->content_id, to,
                   from);
    if (mirror_record_is_newer(held, stream))
        uvm_warning(observer,
                    "%s: what %s serves (%s) is older than what the mirror holds (%s): it lags "
                    "behind, or somebody passes old images off as new; nothing of it counts as "
                    "superseded, unless with --allow-older",
                    held->content_id, to, new, old);
}

bool mirror_held_await(struct mirror_tree *t, const struct mirror_stream *stream,
                       const struct mirror_selection *selection,
                       const struct uvm_observer *observer, struct uvm_error *err)
{
    mirror_auto_holdings h = {0};
    if (!mirror_holdings_load(t, stream->content_id, observer, &h, err) ||
        !check_clashes(&h, selection, err))
        return false;
    tell_change(&h.own, stream, observer);
    mirror_auto_json *before = json_copy(h.own.awaits), *wanted = json_object();
    mirror_record_put_all(wanted, selection);
    const char *key;
    json_t *entry;
    json_object_foreach(wanted, key, entry)
    {
        if (!json_equal(json_object_get(h.own.images, key), entry)) /* else it is held */
            json_object_set(h.own.awaits, key, entry);
    }
    return json_equal(before, h.own.awaits) || mirror_record_save(t, &h.own, err);
}

bool mirror_tree_await(struct mirror_tree *t, const struct mirror_stream *stream,
                       const struct mirror_selection *selection,
                       const struct uvm_observer *observer, struct uvm_error *err)
{
    if (strcmp(stream->content_id, MIRROR_LOCAL_ID) == 0)
        return uvm_fail(err, UVM_CONTENT,
                        "stream " MIRROR_LOCAL_ID " of %s holds another site's own images, and its "
                        "name belongs to this mirror's: 'uvmirror add' takes them in one by one",
                        stream->source);
    return mirror_held_await(t, stream, selection, observer, err);
}

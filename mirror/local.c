/*
 * The mirror's own stream, as a products file that nobody signed:
 *
 *     {"content_id": "uvmirror:local", "datatype": "image-downloads", "format": "products:1.0",
 *      "updated": ...,
 *      "products": {"local:bookworm:amd64":
 *        {"versions": {"20241004":
 *          {"release": "bookworm", "arch": "amd64", "version": "20241004", "label": "local", ...
 *           "items": {"disk1.img": {"ftype": "disk1.img", "path": ..., "sha256": ..., "size": ...
 *           }}}}}}}
 */
#include <string.h>

#include "mirror/local.h"
#include "mirror/model.h"

#define SOURCE      "local"
#define SOURCE_PATH "streams/v1/" MIRROR_LOCAL_ID ".json"

static void must(int failed)
{
    if (failed)
        abort(); /* out of memory, or a string that was checked before */
}

/* ---- the tree ---- */

static json_t *empty_tree(void)
{
    json_t *tree =
        json_pack("{s:s, s:s, s:s, s:s, s:{}}", "content_id", MIRROR_LOCAL_ID, "datatype",
                  "image-downloads", "format", "products:1.0", "updated", "", "products");
    must(!tree);
    return tree;
}

bool mirror_local_load(const struct mirror_tree *t, json_t **ret_tree, struct uvm_error *err)
{
    UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = NULL;
    if (!mirror_held_stream(t, MIRROR_LOCAL_ID, &stream, err))
        return false;
    *ret_tree = stream ? UVM_STEAL(stream->tree) : empty_tree();
    return true;
}

/* The member of that name, made when it is not there. Borrowed. */
static json_t *member(json_t *node, const char *name)
{
    if (!mirror_object_get(node, name))
        must(json_object_set_new(node, name, json_object()));
    return json_object_get(node, name);
}

void mirror_local_put(json_t *tree, const struct mirror_subject *subject,
                      const struct mirror_image *bytes)
{
    uvm_auto_free char *path = mirror_subject_path(subject);
    json_t *versions = member(member(member(tree, "products"), subject->product), "versions");
    json_t *version = json_deep_copy(subject->pairs);
    json_t *items = json_pack("{s:{s:s, s:s, s:s, s:s*, s:I}}", MIRROR_LOCAL_ITEM, "ftype",
                              MIRROR_LOCAL_ITEM, "path", path, "sha256", bytes->sha256, "sha512",
                              bytes->sha512, "size", (json_int_t)bytes->size);
    must(!version || !items);
    must(json_object_set_new(version, "items", items));
    must(json_object_set_new(versions, subject->version, version));
}

bool mirror_local_image(json_t *tree, const char *product, const char *version,
                        struct mirror_image *ret_image, struct uvm_error *err)
{
    struct mirror_stream view = {.tree = tree};
    return mirror_stream_image(&view, product, version, MIRROR_LOCAL_ITEM, ret_image, err);
}

/* ---- taking out ---- */

static bool is_let_through(json_t *tree, const char *product, const char *version,
                           const struct mirror_filters *filters)
{
    struct mirror_stream view = {.tree = tree};
    mirror_auto_json *metadata = mirror_stream_flatten(&view, product, version, MIRROR_LOCAL_ITEM);
    return metadata && mirror_filters_match(filters, metadata);
}

static size_t take_out_versions(json_t *tree, const char *product, json_t *versions,
                                const struct mirror_filters *filters)
{
    size_t taken = 0;
    const char *name;
    json_t *version;
    void *next;
    json_object_foreach_safe(versions, next, name, version)
    {
        if (is_let_through(tree, product, name, filters)) {
            json_object_del(versions, name);
            taken++;
        }
    }
    return taken;
}

size_t mirror_local_take_out(json_t *tree, const struct mirror_filters *filters)
{
    size_t taken = 0;
    const char *name;
    json_t *product, *products = mirror_object_get(tree, "products");
    void *next;
    json_object_foreach_safe(products, next, name, product)
    {
        json_t *versions = mirror_object_get(product, "versions");
        taken += take_out_versions(tree, name, versions, filters);
        if (json_object_size(versions) == 0)
            json_object_del(products, name);
    }
    return taken;
}

/* ---- the stream ---- */

/* A clock that went back must not make it older than it was: receivers would skip it. */
static void set_date(json_t *tree, time_t now)
{
    time_t before = mirror_date_parse(json_string_value(json_object_get(tree, "updated")));
    uvm_auto_free char *date = mirror_stream_time(now > before ? now : before + 1);
    must(json_object_set_new(tree, "updated", json_string(date)));
}

static bool select_all(const struct mirror_stream *stream, struct mirror_selection *ret_selection,
                       struct uvm_error *err)
{
    UVM_AUTO(mirror_filters_free) struct mirror_filters *none = NULL;
    return mirror_filters_new(NULL, 0, NULL, &none, err) &&
           mirror_stream_select(stream, none, 0, ret_selection, err);
}

bool mirror_local_stream(json_t *tree, time_t now, struct mirror_stream **ret_stream,
                         struct mirror_selection *ret_selection, struct uvm_error *err)
{
    UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = NULL;
    set_date(tree, now);
    uvm_auto_free char *json = json_dumps(tree, JSON_INDENT(1));
    must(!json);
    uvm_auto_free char *text = uvm_format("%s\n", json);
    if (!mirror_stream_parse(text, strlen(text), &stream, err) ||
        !uvm_buf_add(&stream->origin, text, strlen(text), err))
        return uvm_prefix(err, "the stream of added images");
    stream->source = uvm_strdup(SOURCE);
    stream->path = uvm_strdup(SOURCE_PATH);
    if (!select_all(stream, ret_selection, err))
        return uvm_prefix(err, "the stream of added images");
    *ret_stream = UVM_STEAL(stream);
    return true;
}

/* An image that the stream lists may have been lost (mirror_tree_check): it is held no more. */
static bool is_held(const struct mirror_record *record, const struct mirror_image *image,
                    const struct mirror_image *added)
{
    uvm_auto_free char *key = mirror_record_key(image->product, image->version, image->item);
    uvm_auto_free char *added_key =
        added ? mirror_record_key(added->product, added->version, added->item) : NULL;
    return (added_key && strcmp(key, added_key) == 0) || json_object_get(record->images, key);
}

static void drop_lost(struct mirror_product *product, const struct mirror_record *record,
                      const struct mirror_image *added)
{
    size_t kept = 0;
    for (size_t i = 0; i < product->image_count; i++)
        if (is_held(record, &product->images[i], added))
            product->images[kept++] = product->images[i];
        else
            mirror_image_clear(&product->images[i]);
    product->image_count = kept;
}

bool mirror_local_hold(struct mirror_tree *t, const struct mirror_stream *stream,
                       struct mirror_selection *selection, const struct mirror_image *added,
                       const struct uvm_observer *observer, struct mirror_removed *removed,
                       struct uvm_error *err)
{
    mirror_auto_record record = {0};
    if (!mirror_record_load(t, MIRROR_LOCAL_ID, &record, err))
        return mirror_record_advise(MIRROR_LOCAL_ID, err);
    for (size_t i = 0; i < selection->count; i++)
        drop_lost(&selection->products[i], &record, added);
    if (!mirror_held_replace(t, stream, selection, observer, removed, err))
        return false;
    mirror_vouch_sweep(t, selection);
    return true;
}

bool mirror_tree_add_remove(struct mirror_tree *t, const struct mirror_filters *filters, time_t now,
                            const struct uvm_observer *observer, struct mirror_removed *ret_removed,
                            struct uvm_error *err)
{
    mirror_auto_json *tree = NULL;
    UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = NULL;
    mirror_auto_selection left = {0};
    if (!mirror_local_load(t, &tree, err))
        return false;
    if (mirror_local_take_out(tree, filters) == 0)
        return uvm_fail(err, UVM_FAILED, "no image that was added matches");
    return mirror_local_stream(tree, now, &stream, &left, err) &&
           mirror_local_hold(t, stream, &left, NULL, observer, ret_removed, err);
}

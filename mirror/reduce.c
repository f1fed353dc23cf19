/*
 * What the mirror publishes of a stream: the products file without what was not chosen, and an
 * index of such files. Keys keep their order, since the order of flattened metadata follows from
 * it.
 */
#include "mirror/model.h"

#define DUMP_FLAGS JSON_INDENT(1)

/* A copy of an object, whose values are shared, with another value (owned) for one key. */
static json_t *copy_with(json_t *node, const char *key, json_t *value)
{
    json_t *copy = json_copy(node);
    json_object_set_new(copy, key, value);
    return copy;
}

/* {version: {item: true}} of what was chosen. */
static json_t *chosen_items(const struct mirror_product *product)
{
    json_t *chosen = json_object();
    for (size_t i = 0; i < product->image_count; i++) {
        const struct mirror_image *image = &product->images[i];
        if (!json_object_get(chosen, image->version))
            json_object_set_new(chosen, image->version, json_object());
        json_object_set_new(json_object_get(chosen, image->version), image->item, json_true());
    }
    return chosen;
}

static json_t *reduce_items(json_t *items, const json_t *chosen)
{
    json_t *out = json_object(), *item;
    const char *name;
    json_object_foreach(items, name, item)
    {
        if (json_object_get(chosen, name))
            json_object_set(out, name, item);
    }
    return out;
}

static json_t *reduce_versions(json_t *versions, const json_t *chosen)
{
    json_t *out = json_object(), *version;
    const char *name;
    json_object_foreach(versions, name, version)
    {
        const json_t *wanted = json_object_get(chosen, name);
        if (wanted) {
            json_t *items = reduce_items(mirror_object_get(version, "items"), wanted);
            json_object_set_new(out, name, copy_with(version, "items", items));
        }
    }
    return out;
}

static json_t *reduce_products(const json_t *products, const struct mirror_selection *selection)
{
    json_t *out = json_object();
    for (size_t i = 0; i < selection->count; i++) {
        json_t *product = mirror_object_get(products, selection->products[i].name);
        if (!product)
            continue;
        mirror_auto_json *chosen = chosen_items(&selection->products[i]);
        json_t *versions = reduce_versions(mirror_object_get(product, "versions"), chosen);
        json_object_set_new(out, selection->products[i].name,
                            copy_with(product, "versions", versions));
    }
    return out;
}

static char *dump(const json_t *tree)
{
    char *text = json_dumps(tree, DUMP_FLAGS);
    if (!text)
        abort();
    char *line = uvm_format("%s\n", text);
    free(text);
    return line;
}

char *mirror_stream_reduce(const struct mirror_stream *s, const struct mirror_selection *selection)
{
    json_t *products = reduce_products(json_object_get(s->tree, "products"), selection);
    mirror_auto_json *reduced = copy_with(s->tree, "products", products);
    return dump(reduced);
}

static json_t *index_entry(const struct mirror_stream *s, const struct mirror_selection *selection,
                           const char *suffix)
{
    json_t *entry = json_object(), *products = json_array();
    const char *datatype = json_string_value(json_object_get(s->tree, "datatype"));
    uvm_auto_free char *path = uvm_format("streams/v1/%s%s", s->content_id, suffix);
    for (size_t i = 0; i < selection->count; i++)
        json_array_append_new(products, json_string(selection->products[i].name));
    json_object_set_new(entry, "datatype", json_string(datatype ? datatype : "image-downloads"));
    json_object_set_new(entry, "format", json_string("products:1.0"));
    json_object_set_new(entry, "path", json_string(path));
    json_object_set_new(entry, "products", products);
    if (s->updated)
        json_object_set_new(entry, "updated", json_string(s->updated));
    return entry;
}

char *mirror_index_text(const struct mirror_stream *const *streams,
                        const struct mirror_selection *selections, size_t count, const char *suffix,
                        time_t now)
{
    mirror_auto_json *tree = json_object();
    json_t *index = json_object();
    uvm_auto_free char *updated = mirror_stream_time(now);
    for (size_t i = 0; i < count; i++)
        json_object_set_new(index, streams[i]->content_id,
                            index_entry(streams[i], &selections[i], suffix));
    json_object_set_new(tree, "format", json_string("index:1.0"));
    json_object_set_new(tree, "index", index);
    json_object_set_new(tree, "updated", json_string(updated));
    return dump(tree);
}

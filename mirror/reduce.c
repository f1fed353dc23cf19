/*
 * What the mirror publishes of a stream: the products file without what was not chosen, and an
 * index of such files. Keys keep their order, since the order of flattened metadata follows from
 * it.
 *
 * A value that fits in a line stands in one, so that the text is hardly larger than a minified one
 * and still can be clear-signed, which bounds a line. For an item of the usual size that is
 *
 *     {
 *      "products":{
 *       "com.ubuntu.cloud:server:24.04:amd64":{
 *        "arch":"amd64",
 *        "versions":{
 *         "20241004":{"items":{"disk1.img":{"ftype":"disk1.img","path":...}},"label":"release"}}}}}
 */
#include <stdio.h>

#include "mirror/model.h"

#define LINE_BYTES 1000

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

/* The product without what was not chosen of it. A new reference. */
static json_t *reduce_product(json_t *product, const struct mirror_product *selected)
{
    mirror_auto_json *chosen = chosen_items(selected);
    json_t *versions = reduce_versions(mirror_object_get(product, "versions"), chosen);
    return copy_with(product, "versions", versions);
}

/* The product as it is. A new reference. */
static json_t *keep_product(json_t *product, const struct mirror_product *selected)
{
    (void)selected;
    return json_incref(product);
}

/* ---- text ------------------------------------------------------------------------------------ */

static void put(FILE *out, const json_t *value)
{
    if (json_dumpf(value, out, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
        abort();
}

static void put_line_break(FILE *out, int depth)
{
    fprintf(out, "\n%*s", depth, "");
}

static int count_down(const char *text, size_t len, void *opaque)
{
    size_t *left = opaque;
    (void)text;
    if (len > *left)
        return -1; /* ends the dump */
    *left -= len;
    return 0;
}

static bool fits_in_a_line(const json_t *value)
{
    size_t left = LINE_BYTES;
    return json_dump_callback(value, count_down, &left, JSON_COMPACT | JSON_ENCODE_ANY) == 0;
}

static void put_value(FILE *out, json_t *value, int depth);

static void put_object(FILE *out, json_t *object, int depth)
{
    const char *key, *before = "{";
    json_t *value;
    json_object_foreach(object, key, value)
    {
        mirror_auto_json *name = json_string(key);
        fputs(before, out);
        put_line_break(out, depth);
        put(out, name);
        fputc(':', out);
        put_value(out, value, depth);
        before = ",";
    }
    fputc('}', out);
}

static void put_array(FILE *out, json_t *array, int depth)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        fputc(i ? ',' : '[', out);
        put_line_break(out, depth);
        put_value(out, json_array_get(array, i), depth);
    }
    fputc(']', out);
}

/* The parts of an object or list that is broken up stand `depth` + 1 blanks from the left. What is
 * empty, or is neither, is never broken. */
static void put_value(FILE *out, json_t *value, int depth)
{
    bool whole =
        (json_object_size(value) == 0 && json_array_size(value) == 0) || fits_in_a_line(value);
    if (whole)
        put(out, value);
    else if (json_is_object(value))
        put_object(out, value, depth + 1);
    else
        put_array(out, value, depth + 1);
}

char *mirror_json_lines(json_t *tree)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    put_value(out, tree, 0);
    fputc('\n', out);
    if (fclose(out) != 0 || !text)
        abort();
    return text;
}

/* ---- streams --------------------------------------------------------------------------------- */

static char *reduce(const struct mirror_stream *s, const struct mirror_selection *selection,
                    json_t *(*reduced)(json_t *product, const struct mirror_product *selected))
{
    const json_t *products = json_object_get(s->tree, "products");
    json_t *out = json_object();
    for (size_t i = 0; i < selection->count; i++) {
        json_t *product = mirror_object_get(products, selection->products[i].name);
        if (product)
            json_object_set_new(out, selection->products[i].name,
                                reduced(product, &selection->products[i]));
    }
    mirror_auto_json *tree = copy_with(s->tree, "products", out);
    return mirror_json_lines(tree);
}

char *mirror_stream_reduce(const struct mirror_stream *s, const struct mirror_selection *selection)
{
    return reduce(s, selection, reduce_product);
}

char *mirror_stream_reduce_products(const struct mirror_stream *s,
                                    const struct mirror_selection *selection)
{
    return reduce(s, selection, keep_product);
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
    uvm_auto_free char *text = json_dumps(tree, JSON_INDENT(1));
    if (!text)
        abort();
    return uvm_format("%s\n", text);
}

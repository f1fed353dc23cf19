/*
 * A products file: parsed, its aliases expanded, its items flattened.
 *
 *     {"format": "products:1.0", "content_id": ..., "updated": ..., KEY: VALUE ...
 *      "products": {PRODUCT: {KEY: VALUE ...
 *        "versions": {VERSION: {KEY: VALUE ...
 *          "items": {ITEM: {"path": ..., "size": ..., "sha256": ..., KEY: VALUE ...}}}}}}}
 */
#include <string.h>

#include "mirror/model.h"

#define FORMAT "products:1.0"

/* The object that holds a level's members, and the key under which a member's name is added. */
static const char *const level_members[MIRROR_LEVELS] = {NULL, "products", "versions", "items"};
static const char *const level_name_key[MIRROR_LEVELS] = {NULL, "product_name", "version_name",
                                                          "item_name"};

void mirror_stream_free(struct mirror_stream *s)
{
    if (!s)
        return;
    free(s->content_id);
    free(s->updated);
    free(s->source);
    free(s->path);
    free(s->signer);
    uvm_buf_clear(&s->origin);
    json_decref(s->tree);
    free(s);
}

/* ---- parsing --------------------------------------------------------------------------------- */

/* A content id becomes the name of the products file in the mirror's own streams. */
static bool content_id_sound(const char *id)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    if (!id || strlen(id) > MIRROR_NAME_MAX || id[0] == '.' || strchr(id, '/'))
        return false;
    uvm_auto_free char *printable = uvm_printable(id);
    return strcmp(id, printable) == 0 && mirror_path_check(id, &ignored);
}

static bool check_products(json_t *tree, struct uvm_error *err)
{
    const char *name;
    json_t *product, *products = mirror_object_get(tree, "products");
    if (!products)
        return uvm_fail(err, UVM_CONTENT, "'products' is missing or not an object");
    json_object_foreach(products, name, product)
    {
        if (!json_is_object(product)) {
            uvm_auto_free char *shown = mirror_brief(name);
            return uvm_fail(err, UVM_CONTENT, "product '%s' is not an object", shown);
        }
    }
    return true;
}

static bool check_stream(json_t *tree, struct uvm_error *err)
{
    const char *format = json_string_value(json_object_get(tree, "format"));
    if (!format || strcmp(format, FORMAT) != 0) {
        uvm_auto_free char *shown = mirror_brief(format);
        return uvm_fail(err, UVM_CONTENT, "format is '%s', not '" FORMAT "'", shown);
    }
    const char *id = json_string_value(json_object_get(tree, "content_id"));
    if (!content_id_sound(id)) {
        uvm_auto_free char *shown = mirror_brief(id);
        return uvm_fail(err, UVM_CONTENT, "content_id '%s' is missing or unsafe as a file's name",
                        shown);
    }
    return check_products(tree, err);
}

bool mirror_stream_parse(const void *text, size_t len, struct mirror_stream **ret_stream,
                         struct uvm_error *err)
{
    mirror_auto_json *tree = NULL;
    if (!mirror_json_parse(text, len, &tree, err) || !mirror_aliases_expand(tree, err) ||
        !check_stream(tree, err))
        return false;
    struct mirror_stream *s = uvm_alloc(sizeof *s);
    s->content_id = uvm_strdup(json_string_value(json_object_get(tree, "content_id")));
    s->updated = uvm_strdup(json_string_value(json_object_get(tree, "updated")));
    s->updated_at = mirror_date_parse(s->updated);
    s->tree = UVM_STEAL(tree);
    *ret_stream = s;
    return true;
}

static void count_items(json_t *version, struct mirror_counts *counts)
{
    const char *name;
    json_t *item;
    json_object_foreach(mirror_object_get(version, "items"), name, item)
    {
        counts->items += json_is_object(item);
    }
}

static void count_versions(json_t *product, struct mirror_counts *counts)
{
    const char *name;
    json_t *version;
    json_object_foreach(mirror_object_get(product, "versions"), name, version)
    {
        counts->versions += json_is_object(version);
        count_items(version, counts);
    }
}

struct mirror_counts mirror_stream_count(const struct mirror_stream *s)
{
    struct mirror_counts counts = {0};
    const char *name;
    json_t *product;
    json_object_foreach(json_object_get(s->tree, "products"), name, product)
    {
        counts.products++;
        count_versions(product, &counts);
    }
    return counts;
}

/* ---- items with what they inherit ------------------------------------------------------------ */

char *mirror_pedigree_get(const void *opaque, const char *key)
{
    const struct mirror_pedigree *p = opaque;
    for (int level = MIRROR_ITEM; level >= MIRROR_TOP; level--) {
        if (level != MIRROR_TOP && strcmp(key, level_name_key[level]) == 0)
            return uvm_strdup(p->names[level]);
        char *value = mirror_json_str(json_object_get(p->nodes[level], key));
        if (value)
            return value;
    }
    return NULL;
}

static void flatten_level(json_t *node, json_t *flat)
{
    const char *key;
    json_t *value;
    json_object_foreach(node, key, value)
    {
        uvm_auto_free char *text = mirror_json_str(value);
        if (text)
            json_object_set_new(flat, key, json_string(text));
    }
}

json_t *mirror_pedigree_flatten(const struct mirror_pedigree *p)
{
    mirror_auto_json *flat = json_object();
    for (int level = MIRROR_TOP; level < MIRROR_LEVELS; level++) {
        if (json_object_size(p->nodes[level]) > MIRROR_KEYS_MAX)
            return NULL;
        flatten_level(p->nodes[level], flat);
        if (level != MIRROR_TOP)
            json_object_set_new(flat, level_name_key[level], json_string(p->names[level]));
    }
    return UVM_STEAL(flat);
}

/* A key of the same name further down would make an item speak for another one. */
static bool names_agree(const struct mirror_pedigree *p, const struct mirror_image *image)
{
    return strcmp(image->product, p->names[MIRROR_PRODUCT]) == 0 &&
           strcmp(image->version, p->names[MIRROR_VERSION]) == 0 &&
           strcmp(image->item, p->names[MIRROR_ITEM]) == 0;
}

static bool pedigree_image(const struct mirror_pedigree *p, struct mirror_image *ret_image,
                           struct uvm_error *err)
{
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image image = {0};
    const char *path = json_string_value(json_object_get(p->nodes[MIRROR_ITEM], "path"));
    if (!path)
        return uvm_fail(err, UVM_CONTENT, "has no path");
    mirror_auto_json *metadata = mirror_pedigree_flatten(p);
    if (!metadata)
        return uvm_fail(err, UVM_CONTENT, "inherits from more than %d keys", MIRROR_KEYS_MAX);
    if (!mirror_image_from_metadata(metadata, path, &image, err))
        return false;
    if (!names_agree(p, &image))
        return uvm_fail(err, UVM_CONTENT, "claims to be %s %s %s", image.product, image.version,
                        image.item);
    *ret_image = image;
    image = (struct mirror_image){0};
    return true;
}

bool mirror_pedigree_image(const struct mirror_pedigree *p, struct mirror_image *ret_image,
                           struct uvm_error *err)
{
    if (pedigree_image(p, ret_image, err))
        return true;
    uvm_auto_free char *product = mirror_brief(p->names[MIRROR_PRODUCT]);
    uvm_auto_free char *version = mirror_brief(p->names[MIRROR_VERSION]);
    uvm_auto_free char *item = mirror_brief(p->names[MIRROR_ITEM]);
    return uvm_prefix(err, "item %s of %s %s", item, product, version);
}

static bool find_item(const struct mirror_stream *s, const char *product, const char *version,
                      const char *item, struct mirror_pedigree *ret)
{
    struct mirror_pedigree p = {.names = {NULL, product, version, item}, .nodes = {s->tree}};
    for (int level = MIRROR_PRODUCT; level < MIRROR_LEVELS; level++) {
        const json_t *members = mirror_object_get(p.nodes[level - 1], level_members[level]);
        p.nodes[level] = mirror_object_get(members, p.names[level]);
        if (!p.nodes[level])
            return false;
    }
    *ret = p;
    return true;
}

json_t *mirror_stream_flatten(const struct mirror_stream *s, const char *product,
                              const char *version, const char *item)
{
    struct mirror_pedigree p;
    return find_item(s, product, version, item, &p) ? mirror_pedigree_flatten(&p) : NULL;
}

bool mirror_stream_image(const struct mirror_stream *s, const char *product, const char *version,
                         const char *item, struct mirror_image *ret_image, struct uvm_error *err)
{
    struct mirror_pedigree p;
    if (find_item(s, product, version, item, &p))
        return mirror_pedigree_image(&p, ret_image, err);
    uvm_auto_free char *name = uvm_format("%s of %s %s", item, product, version);
    uvm_auto_free char *shown = mirror_brief(name);
    return uvm_fail(err, UVM_CONTENT, "there is no item %s", shown);
}

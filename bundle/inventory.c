/*
 * What receivers have, as a file, and what follows from it for a bundle:
 *
 *     {
 *       "type": "uvmirror-inventory",
 *       "version": 1,
 *       "host": "hv1",
 *       "created": "2026-11-22T09:30:00Z",
 *       "architecture": "amd64",
 *       "bundle_format": 2,
 *       "free_bytes": 53687091200,
 *       "serial": 1732267800,
 *       "trusted": ["4A3C...F100"],
 *       "images": [{"product": "...", "version": "...", "sha256": "...", "sha512": null}]
 *     }
 */
#include <string.h>

#include "bundle/internal.h"

#define VERSION     1
#define STOCK_MAX   100000
#define TRUSTED_MAX 1000
#define BYTES_MAX   ((uint64_t)1 << 60)
#define FORMATS_MAX 1000
#define JSON_LAYOUT JSON_INDENT(2)

static void stock_clear(struct bundle_stock *s)
{
    free(s->product);
    free(s->version);
    free(s->sha256);
    free(s->sha512);
}

void bundle_inventory_clear(struct bundle_inventory *i)
{
    for (size_t n = 0; n < i->stock_count; n++)
        stock_clear(&i->stock[n]);
    free(i->stock);
    free(i->host);
    free(i->architecture);
    uvm_strings_clear(&i->trusted);
    *i = (struct bundle_inventory){0};
}

void bundle_have_clear(struct bundle_have *h)
{
    for (size_t i = 0; i < h->count; i++)
        bundle_inventory_clear(&h->inventories[i]);
    free(h->inventories);
    *h = (struct bundle_have){0};
}

/* ---- as text ---- */

static json_t *texts_json(const struct uvm_strings *texts)
{
    json_t *list = json_array();
    for (size_t i = 0; i < texts->count; i++)
        json_array_append_new(list, json_string(texts->items[i]));
    return list;
}

static json_t *stock_json(const struct bundle_inventory *i)
{
    json_t *list = json_array();
    for (size_t n = 0; n < i->stock_count; n++) {
        const struct bundle_stock *s = &i->stock[n];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s?, s:s?}", "product", s->product, "version",
                                        s->version, "sha256", s->sha256, "sha512", s->sha512));
    }
    return list;
}

char *bundle_inventory_text(const struct bundle_inventory *i)
{
    uvm_auto_free char *created = uvm_time_text(i->created);
    mirror_auto_json *root = json_pack(
        "{s:s, s:i, s:s, s:s, s:s, s:i, s:I, s:I, s:o, s:o}", "type", BUNDLE_INVENTORY_TYPE,
        "version", VERSION, "host", i->host, "created", created, "architecture", i->architecture,
        "bundle_format", (int)i->format, "free_bytes", (json_int_t)i->free_bytes, "serial",
        (json_int_t)i->serial, "trusted", texts_json(&i->trusted), "images", stock_json(i));
    uvm_auto_free char *text = json_dumps(root, JSON_LAYOUT);
    if (!text)
        abort(); /* no memory: names are UTF-8 */
    return uvm_format("%s\n", text);
}

/* ---- from text ---- */

static bool parse_stock(const json_t *json, struct bundle_stock *s, struct uvm_error *err)
{
    return bundle_field_name(json, "product", &s->product, err) &&
           bundle_field_name(json, "version", &s->version, err) &&
           bundle_field_digests(json, &s->sha256, &s->sha512, err);
}

static bool parse_images(const json_t *root, struct bundle_inventory *i, struct uvm_error *err)
{
    const json_t *list = NULL;
    if (!bundle_field_list(root, "images", STOCK_MAX, &list, err))
        return false;
    i->stock = uvm_alloc((json_array_size(list) + 1) * sizeof *i->stock);
    for (size_t n = 0; n < json_array_size(list); n++) {
        i->stock_count++;
        if (!parse_stock(json_array_get(list, n), &i->stock[n], err))
            return uvm_prefix(err, "images[%zu]", n);
    }
    return true;
}

static bool parse_kind(const json_t *root, struct uvm_error *err)
{
    const char *type = NULL;
    uint64_t version = 0;
    if (!bundle_field_text(root, "type", &type, err))
        return false;
    if (strcmp(type, BUNDLE_INVENTORY_TYPE) != 0)
        return uvm_fail(err, UVM_CONTENT, "is of type %s, no inventory", type);
    if (!bundle_field_number(root, "version", UINT32_MAX, &version, err))
        return false;
    return version == VERSION || uvm_fail(err, UVM_CONTENT,
                                          "version %llu of an inventory is unknown to this "
                                          "uvmirror, which reads version %d",
                                          (unsigned long long)version, VERSION);
}

static bool parse_host(const json_t *root, struct bundle_inventory *i, struct uvm_error *err)
{
    const char *host = NULL, *created = NULL;
    uint64_t format = 0;
    if (!bundle_field_text(root, "host", &host, err) ||
        !bundle_field_text(root, "created", &created, err) ||
        !bundle_field_name(root, "architecture", &i->architecture, err) ||
        !bundle_field_number(root, "bundle_format", FORMATS_MAX, &format, err) ||
        !bundle_field_number(root, "free_bytes", BYTES_MAX, &i->free_bytes, err) ||
        !bundle_field_number(root, "serial", BUNDLE_TIME_MAX, &i->serial, err) ||
        !bundle_field_texts(root, "trusted", TRUSTED_MAX, &i->trusted, err))
        return false;
    if (format == 0)
        return bundle_field_wrong(err, "bundle_format", "above 0");
    if (!bundle_parse_time(created, &i->created))
        return bundle_field_wrong(err, "created", "a time like 2024-10-04T09:30:00Z");
    for (size_t n = 0; n < i->trusted.count; n++)
        if (!bundle_is_fingerprint(i->trusted.items[n]))
            return bundle_field_wrong(err, "trusted", "a list of fingerprints");
    i->host = uvm_strdup(host);
    i->format = (unsigned)format;
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct bundle_stock *x = a, *y = b;
    int order = strcmp(x->product, y->product);
    return order ? order : strcmp(x->version, y->version);
}

static bool sort_stock(struct bundle_inventory *i, struct uvm_error *err)
{
    qsort(i->stock, i->stock_count, sizeof *i->stock, by_name);
    for (size_t n = 1; n < i->stock_count; n++)
        if (by_name(&i->stock[n - 1], &i->stock[n]) == 0)
            return uvm_fail(err, UVM_CONTENT, "names %s %s twice", i->stock[n].product,
                            i->stock[n].version);
    return true;
}

bool bundle_inventory_parse(const void *text, size_t len, struct bundle_inventory *ret_inventory,
                            struct uvm_error *err)
{
    mirror_auto_json *root = NULL;
    __attribute__((cleanup(bundle_inventory_clear))) struct bundle_inventory i = {0};
    if (!mirror_json_parse(text, len, &root, err) || !parse_kind(root, err) ||
        !parse_host(root, &i, err) || !parse_images(root, &i, err) || !sort_stock(&i, err))
        return false;
    *ret_inventory = i;
    i = (struct bundle_inventory){0};
    return true;
}

/* ---- what follows from it ---- */

static const struct bundle_stock *find_stock(const struct bundle_inventory *i, char *product,
                                             char *version)
{
    const struct bundle_stock key = {.product = product, .version = version};
    return bsearch(&key, i->stock, i->stock_count, sizeof *i->stock, by_name);
}

static bool is_for(const struct mirror_image *image, const struct bundle_inventory *i)
{
    return strcmp(mirror_image_get(image, "arch"), i->architecture) == 0;
}

static bool has_image(const struct bundle_inventory *i, const struct mirror_image *image)
{
    const struct bundle_stock *s = find_stock(i, image->product, image->version);
    return s && bundle_same_file(s->sha256, s->sha512, image->sha256, image->sha512);
}

static bool has_stock(const struct bundle_inventory *i, const struct bundle_stock *stock)
{
    const struct bundle_stock *s = find_stock(i, stock->product, stock->version);
    return s && bundle_same_file(s->sha256, s->sha512, stock->sha256, stock->sha512);
}

bool bundle_have_everywhere(const struct bundle_have *h, const struct mirror_image *image)
{
    size_t receivers = 0;
    for (size_t n = 0; n < h->count; n++) {
        if (!is_for(image, &h->inventories[n]))
            continue;
        if (!has_image(&h->inventories[n], image))
            return false;
        receivers++;
    }
    return receivers > 0;
}

static bool lacks(const struct bundle_inventory *i, const struct mirror_image *image)
{
    return is_for(image, i) && !has_image(i, image);
}

/* Whether all that lack the image have this stock. */
static bool is_shared(const struct bundle_have *h, const struct mirror_image *image,
                      const struct bundle_stock *stock)
{
    for (size_t n = 0; n < h->count; n++)
        if (lacks(&h->inventories[n], image) && !has_stock(&h->inventories[n], stock))
            return false;
    return true;
}

static const struct bundle_inventory *first_that_lacks(const struct bundle_have *h,
                                                       const struct mirror_image *image)
{
    for (size_t n = 0; n < h->count; n++)
        if (lacks(&h->inventories[n], image))
            return &h->inventories[n];
    return NULL;
}

const struct bundle_stock *
bundle_have_base(const struct bundle_have *h, const struct mirror_image *image,
                 bool (*knows)(void *opaque, const struct bundle_stock *stock), void *opaque)
{
    const struct bundle_inventory *first = first_that_lacks(h, image);
    const struct bundle_stock *best = NULL;
    for (size_t n = 0; first && n < first->stock_count; n++) {
        const struct bundle_stock *s = &first->stock[n];
        bool candidate = strcmp(s->product, image->product) == 0 &&
                         strcmp(s->version, image->version) != 0 && (s->sha256 || s->sha512);
        if (candidate && (!best || strcmp(s->version, best->version) > 0) &&
            is_shared(h, image, s) && knows(opaque, s))
            best = s;
    }
    return best;
}

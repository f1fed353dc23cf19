/*
 * The second trust layer: what the vendor signed, against what the manifest says of it. A fetch
 * host that was taken over can sign any manifest; it cannot make the vendor's file say the same.
 */
#include <string.h>

#include "bundle/internal.h"

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* ---- images ---- */

static bool check_image(const struct mirror_stream *vendor, const struct mirror_image *image,
                        struct uvm_error *err)
{
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image theirs = {0};
    if (!mirror_stream_image(vendor, image->product, image->version, image->item, &theirs, err))
        return uvm_prefix(err, "%s %s %s", image->product, image->version, image->item);
    bool same = same_text(theirs.path, image->path) && theirs.size == image->size &&
                same_text(theirs.sha256, image->sha256) &&
                same_text(theirs.sha512, image->sha512) &&
                json_equal(theirs.metadata, image->metadata);
    return same || uvm_fail(err, UVM_TRUST, "%s %s %s is not what the vendor signed",
                            image->product, image->version, image->item);
}

/* ---- versions: the receiver retires what is not listed ---- */

/* By its metadata alone: an importable item that is unsound otherwise still counts as a version. */
static bool item_is_importable(const struct mirror_stream *vendor, const char *product,
                               const char *version, const char *item)
{
    mirror_auto_json *metadata = mirror_stream_flatten(vendor, product, version, item);
    if (!metadata)
        return false;
    uvm_auto_free char *name = uvm_strdup(item);
    struct mirror_image image = {.item = name, .metadata = metadata};
    return mirror_image_importable(&image);
}

static bool version_is_importable(const struct mirror_stream *vendor, const char *product,
                                  const char *version, json_t *json)
{
    const char *item;
    json_t *value;
    json_object_foreach(json_object_get(json, "items"), item, value)
    {
        if (item_is_importable(vendor, product, version, item))
            return true;
    }
    return false;
}

static json_t *vendor_versions(const struct mirror_stream *vendor, const char *product)
{
    json_t *products = json_object_get(vendor->tree, "products");
    return json_object_get(json_object_get(products, product), "versions");
}

/* A version that the vendor does not have could push a real one out of the newest few. */
static bool check_listed(const struct mirror_stream *vendor, const struct mirror_product *p,
                         struct uvm_error *err)
{
    json_t *versions = vendor_versions(vendor, p->name);
    for (size_t i = 0; i < p->versions.count; i++) {
        const char *version = p->versions.items[i];
        json_t *json = json_object_get(versions, version);
        if (!version_is_importable(vendor, p->name, version, json))
            return uvm_fail(err, UVM_TRUST, "%s: the vendor does not list version %s", p->name,
                            version);
    }
    return true;
}

static bool check_complete(const struct mirror_stream *vendor, const struct mirror_product *p,
                           struct uvm_error *err)
{
    const char *version;
    json_t *json;
    if (!p->complete)
        return true;
    json_object_foreach(vendor_versions(vendor, p->name), version, json)
    {
        if (!uvm_strings_has(&p->versions, version) &&
            version_is_importable(vendor, p->name, version, json))
            return uvm_fail(err, UVM_TRUST,
                            "%s is called complete, but lacks version %s that the vendor lists",
                            p->name, version);
    }
    return true;
}

static bool check_product(const struct mirror_stream *vendor, const struct mirror_product *p,
                          struct uvm_error *err)
{
    if (!check_listed(vendor, p, err) || !check_complete(vendor, p, err))
        return false;
    for (size_t i = 0; i < p->image_count; i++)
        if (!check_image(vendor, &p->images[i], err))
            return false;
    return true;
}

/* ---- the stream ---- */

static bool check_stream(const struct mirror_stream *vendor, const struct bundle_stream *stream,
                         struct uvm_error *err)
{
    if (!same_text(vendor->content_id, stream->content_id))
        return uvm_fail(err, UVM_TRUST, "the vendor's file is another stream");
    if (!same_text(vendor->updated, stream->updated) || vendor->updated_at != stream->updated_at)
        return uvm_fail(err, UVM_TRUST,
                        "the vendor's file was updated at another time than stated");
    for (size_t i = 0; i < stream->selection.count; i++)
        if (!check_product(vendor, &stream->selection.products[i], err))
            return false;
    return true;
}

/* Whatever is wrong with the vendor's file, the answer is the same: no trust. */
static bool distrust(const struct bundle_stream *stream, struct uvm_error *err)
{
    if (err->code == UVM_CONTENT)
        err->code = UVM_TRUST;
    return uvm_prefix(err, "origin of stream %s", stream->content_id);
}

bool bundle_origin_check(const struct bundle_stream *stream, const void *origin, size_t len,
                         struct uvm_verifier *vendor, struct uvm_signature *ret_sig,
                         struct uvm_error *err)
{
    uvm_auto_buf plain = {.max = MIRROR_JSON_MAX};
    uvm_auto_signature sig = {0};
    UVM_AUTO(mirror_stream_free) struct mirror_stream *theirs = NULL;
    if (!uvm_verifier_clearsigned(vendor, origin, len, &plain, &sig, err) ||
        !mirror_stream_parse(plain.data, plain.len, &theirs, err) ||
        !check_stream(theirs, stream, err))
        return distrust(stream, err);
    *ret_sig = sig;
    sig = (struct uvm_signature){0};
    return true;
}

/*
 * Where an image's payload is, and how it is encoded:
 *
 *     null                                              the receiver has it
 *     { "member": the image's path, "encoding": "plain", "size", "sha256" }
 *     { "member": "uvmirror/compact/<checksum of the image>", "encoding": "compact", "size", "sha256",
 *       "content": bytes, "base": null or { "product", "version", "sha256", "sha512", "bytes" } }
 *
 * A base is the content of an image that an earlier payload of the bundle brings, or else a volume of
 * the receiver.
 */
#include <string.h>

#include "bundle/internal.h"

/* ---- names ---- */

const char *bundle_image_digest(const struct mirror_image *image)
{
    return image->sha256 ? image->sha256 : image->sha512;
}

char *bundle_compact_member(const struct mirror_image *image)
{
    return uvm_format(BUNDLE_COMPACT_FOLDER "%s", bundle_image_digest(image));
}

bool bundle_same_file(const char *sha256, const char *sha512, const char *other_sha256,
                      const char *other_sha512)
{
    bool both256 = sha256 && other_sha256, both512 = sha512 && other_sha512;
    return (both256 || both512) && (!both256 || strcmp(sha256, other_sha256) == 0) &&
           (!both512 || strcmp(sha512, other_sha512) == 0);
}

void bundle_payload_clear(struct bundle_image *image)
{
    free(image->member);
    free(image->base.product);
    free(image->base.version);
    free(image->base.sha256);
    free(image->base.sha512);
    image->member = NULL;
    image->base = (struct bundle_base_name){0};
}

/* ---- to JSON ---- */

static json_t *text_or_null(const char *s)
{
    return s ? json_string(s) : json_null();
}

static json_t *base_json(const struct bundle_base_name *base)
{
    if (!base->product)
        return json_null();
    json_t *json = json_object();
    json_object_set_new(json, "product", json_string(base->product));
    json_object_set_new(json, "version", json_string(base->version));
    json_object_set_new(json, "sha256", text_or_null(base->sha256));
    json_object_set_new(json, "sha512", text_or_null(base->sha512));
    json_object_set_new(json, "bytes", json_integer((json_int_t)base->bytes));
    return json;
}

json_t *bundle_payload_json(const struct bundle_image *image)
{
    bool compact = image->encoding == BUNDLE_COMPACT;
    if (image->encoding == BUNDLE_NOT_CARRIED)
        return json_null();
    json_t *payload = json_object();
    json_object_set_new(payload, "member", json_string(image->member));
    json_object_set_new(payload, "encoding", json_string(compact ? "compact" : "plain"));
    json_object_set_new(payload, "size", json_integer((json_int_t)image->size));
    json_object_set_new(payload, "sha256", json_string(image->sha256));
    if (!compact)
        return payload;
    json_object_set_new(payload, "content", json_integer((json_int_t)image->content));
    json_object_set_new(payload, "base", base_json(&image->base));
    return payload;
}

/* ---- from JSON ---- */

static bool parse_base(const json_t *payload, struct bundle_image *image, struct uvm_error *err)
{
    const json_t *json = json_object_get(payload, "base");
    struct bundle_base_name *base = &image->base;
    if (json_is_null(json))
        return true;
    if (!json_is_object(json))
        return bundle_field_wrong(err, "base", "an object or null");
    if (!bundle_field_name(json, "product", &base->product, err) ||
        !bundle_field_name(json, "version", &base->version, err) ||
        !bundle_field_digests(json, &base->sha256, &base->sha512, err) ||
        !bundle_field_number(json, "bytes", image->content, &base->bytes, err))
        return uvm_prefix(err, "base");
    return base->sha256 || base->sha512 ||
           uvm_fail(err, UVM_CONTENT, "its base has no checksum, by which it could be known");
}

static bool parse_compact(const json_t *payload, unsigned format, struct bundle_image *image,
                          struct uvm_error *err)
{
    if (format < BUNDLE_FORMAT_COMPACT)
        return uvm_fail(err, UVM_CONTENT, "the encoding \"compact\" is not of format %u", format);
    if (!bundle_field_number(payload, "content", MIRROR_SIZE_MAX, &image->content, err))
        return false;
    if (image->content % MIRROR_CLUSTER != 0)
        return bundle_field_wrong(err, "content", "a multiple of 65536");
    return parse_base(payload, image, err);
}

bool bundle_payload_parse(const json_t *image, unsigned format, struct bundle_image *ret,
                          struct uvm_error *err)
{
    const json_t *payload = json_object_get(image, "payload");
    const char *member = NULL, *encoding = NULL;
    ret->encoding = BUNDLE_NOT_CARRIED;
    if (json_is_null(payload))
        return true;
    if (!json_is_object(payload))
        return bundle_field_wrong(err, "payload", "an object or null");
    if (!bundle_field_text(payload, "member", &member, err) ||
        !bundle_field_text(payload, "encoding", &encoding, err) ||
        !bundle_field_number(payload, "size", MIRROR_SIZE_MAX, &ret->size, err) ||
        !bundle_field_sha256(payload, ret->sha256, err))
        return false;
    bool compact = strcmp(encoding, "compact") == 0;
    if (!compact && strcmp(encoding, "plain") != 0)
        return uvm_fail(err, UVM_CONTENT, "the encoding \"%s\" is unknown to this uvmirror",
                        encoding);
    ret->encoding = compact ? BUNDLE_COMPACT : BUNDLE_PLAIN;
    ret->member = uvm_strdup(member);
    return !compact || parse_compact(payload, format, ret, err);
}

/* ---- bases ---- */

/* Which images of the manifest have this product and version: their indexes. */
static char *name_of(const char *product, const char *version)
{
    return uvm_format("%s %s", product, version); /* neither holds a blank */
}

static json_t *index_images(const struct bundle_manifest *m)
{
    json_t *index = json_object();
    for (size_t i = 0; i < m->image_count; i++) {
        uvm_auto_free char *name =
            name_of(m->images[i].image->product, m->images[i].image->version);
        if (m->images[i].encoding == BUNDLE_NOT_CARRIED)
            continue;
        json_t *list = json_object_get(index, name);
        if (!list) {
            list = json_array();
            json_object_set_new(index, name, list);
        }
        json_array_append_new(list, json_integer((json_int_t)i));
    }
    return index;
}

static bool is_base(const struct bundle_base_name *base, const struct bundle_image *candidate)
{
    return bundle_same_file(base->sha256, base->sha512, candidate->image->sha256,
                            candidate->image->sha512);
}

/* Of the images that have the base's name the one that is it, in a payload before number `before`. */
static const struct bundle_image *find_base(const struct bundle_manifest *m,
                                            const struct bundle_plan *plan, const json_t *list,
                                            const struct bundle_base_name *base, size_t before)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        size_t n = (size_t)json_integer_value(json_array_get(list, i));
        if (plan->item_of[n] < before && is_base(base, &m->images[n]))
            return &m->images[n];
    }
    return NULL;
}

static bool link_base(struct bundle_manifest *m, const struct bundle_plan *plan,
                      const json_t *index, size_t n, struct uvm_error *err)
{
    const struct mirror_image *image = m->images[n].image;
    struct bundle_base_name *base = &m->images[n].base;
    if (!base->product)
        return true;
    if (strcmp(base->product, image->product) == 0 && strcmp(base->version, image->version) == 0)
        return uvm_fail(err, UVM_CONTENT, "image %s is to be its own base", image->path);
    uvm_auto_free char *name = name_of(base->product, base->version);
    const json_t *list = json_object_get(index, name);
    if (!list)
        return true; /* the receiver's */
    base->image = find_base(m, plan, list, base, plan->item_of[n]);
    if (!base->image)
        return uvm_fail(err, UVM_CONTENT,
                        "the base of image %s, %s, is in the bundle, but not before it, or another "
                        "image",
                        image->path, name);
    return base->image->encoding == BUNDLE_COMPACT ||
           uvm_fail(err, UVM_CONTENT, "the base of image %s, %s, is not compact itself",
                    image->path, name);
}

static bool link_bases(struct bundle_manifest *m, const struct bundle_plan *plan,
                       struct uvm_error *err)
{
    mirror_auto_json *index = index_images(m);
    for (size_t n = 0; n < m->image_count; n++)
        if (!link_base(m, plan, index, n, err))
            return false;
    return true;
}

/* ---- payloads against images ---- */

/* A plain payload is the image: same name, same size, same checksum where the image states one. */
static bool check_plain(const struct bundle_plan_item *item, const struct bundle_image *bundled,
                        struct uvm_error *err)
{
    const struct mirror_image *image = bundled->image;
    if (strcmp(bundled->member, image->path) != 0)
        return uvm_fail(err, UVM_CONTENT, "image %s has the payload of another path", image->path);
    if (bundled->size != image->size || bundled->size != item->size ||
        strcmp(bundled->sha256, item->sha256) != 0 ||
        (image->sha256 && strcmp(bundled->sha256, image->sha256) != 0))
        return uvm_fail(err, UVM_CONTENT, "payload %s is not the image's own bytes", item->path);
    return true;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_base(const struct bundle_base_name *a, const struct bundle_base_name *b)
{
    return same_text(a->product, b->product) && same_text(a->version, b->version) &&
           same_text(a->sha256, b->sha256) && same_text(a->sha512, b->sha512) &&
           a->bytes == b->bytes;
}

/* A compact one has the name of the image's content; those who share it agree about everything. */
static bool check_compact(const struct bundle_plan_item *item, const struct bundle_image *bundled,
                          struct uvm_error *err)
{
    const struct bundle_image *first = item->images[0];
    const struct mirror_image *image = bundled->image, *other = first->image;
    uvm_auto_free char *member = bundle_compact_member(image);
    if (strcmp(bundled->member, member) != 0)
        return uvm_fail(err, UVM_CONTENT, "image %s has the payload of another image", image->path);
    if (bundled->size != first->size || strcmp(bundled->sha256, first->sha256) != 0 ||
        bundled->content != first->content || !same_base(&bundled->base, &first->base) ||
        image->size != other->size ||
        !bundle_same_file(image->sha256, image->sha512, other->sha256, other->sha512))
        return uvm_fail(err, UVM_CONTENT, "images do not agree about their payload %s", item->path);
    return true;
}

/* The checksums that one of the images states, or another one. */
struct stated {
    const char *sha256, *sha512;
};

static bool is_same(const char **stated, const char *digest)
{
    if (!*stated)
        *stated = digest;
    return !digest || strcmp(*stated, digest) == 0;
}

/* What reads the payload compares with one checksum of each type: it must be everybody's. */
static bool check_stated(struct stated *stated, const struct bundle_plan_item *item,
                         const struct mirror_image *image, struct uvm_error *err)
{
    return (is_same(&stated->sha256, image->sha256) && is_same(&stated->sha512, image->sha512)) ||
           uvm_fail(err, UVM_CONTENT, "images do not agree about their payload %s", item->path);
}

static bool check_item(const struct bundle_plan_item *item, struct uvm_error *err)
{
    struct stated stated = {0};
    for (size_t n = 0; n < item->image_count; n++) {
        const struct bundle_image *image = item->images[n];
        if (!(image->encoding == BUNDLE_COMPACT ? check_compact(item, image, err)
                                                : check_plain(item, image, err)) ||
            !check_stated(&stated, item, image->image, err))
            return false;
    }
    return true;
}

bool bundle_payloads_sound(struct bundle_manifest *m, const struct bundle_plan *plan,
                           struct uvm_error *err)
{
    for (size_t i = 0; i < plan->count; i++)
        if (!check_item(&plan->items[i], err))
            return false;
    return link_bases(m, plan, err);
}

/* ---- what must be read ---- */

bool *bundle_manifest_needs(const struct bundle_manifest *m,
                            bool (*wants)(void *opaque, const struct bundle_image *image),
                            void *opaque)
{
    bool *needs = uvm_alloc((m->image_count + 1) * sizeof *needs);
    UVM_AUTO(bundle_plan_free) struct bundle_plan *plan = bundle_plan_new(m);
    uvm_auto_free bool *items = uvm_alloc((plan->count + 1) * sizeof *items);
    for (size_t i = 0; i < m->image_count; i++)
        if (plan->item_of[i] != BUNDLE_PLAN_NOWHERE && wants(opaque, &m->images[i]))
            items[plan->item_of[i]] = true;
    for (size_t i = plan->count; i-- > 0;) /* a base stands before whatever refers to it */
        if (items[i] && plan->items[i].base)
            items[plan->items[i].base - plan->items] = true;
    for (size_t i = 0; i < m->image_count; i++)
        needs[i] = plan->item_of[i] != BUNDLE_PLAN_NOWHERE && items[plan->item_of[i]];
    return needs;
}

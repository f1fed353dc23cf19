/*
 * How each image of a bundle is carried: not at all where all receivers have it; compact, alone or as a
 * difference, where that was asked for and is worthwhile; else as it is.
 *
 * The base of an image is the version of its product that stands before it in the bundle, which is
 * newer; the first one that is carried may have one that its receivers have. Whoever needs an image must
 * have what the chain of its bases begins with.
 */
#include <string.h>

#include "bundle/cache.h"

struct carry {
    struct bundle_manifest *m;
    const struct bundle_create_options *o;
    struct bundle_cache *cache;
    json_t *uses; /* checksum of an image -> how many images of the bundle have it */
    size_t *root; /* for each compact image that with which the chain of its bases begins */
};

static void carry_clear(struct carry *c)
{
    bundle_cache_free(c->cache);
    json_decref(c->uses);
    free(c->root);
}

/* ---- what the receivers have ---- */

static void leave_out(struct bundle_image *image)
{
    bundle_payload_clear(image);
    image->encoding = BUNDLE_NOT_CARRIED;
    image->size = 0;
    image->sha256[0] = 0;
}

static void leave_out_what_is_there(struct bundle_manifest *m, const struct bundle_have *have)
{
    for (size_t i = 0; have && i < m->image_count; i++)
        if (bundle_have_everywhere(have, m->images[i].image))
            leave_out(&m->images[i]);
}

/* ---- bases ---- */

static void set_base(struct bundle_base_name *base, const char *product, const char *version,
                     const char *sha256, const char *sha512)
{
    *base = (struct bundle_base_name){
        .product = uvm_strdup(product),
        .version = uvm_strdup(version),
        .sha256 = uvm_strdup(sha256),
        .sha512 = uvm_strdup(sha512),
    };
}

static bool is_that_base(void *opaque, const struct bundle_stock *stock)
{
    const struct bundle_base_name *base = opaque;
    return strcmp(stock->version, base->version) == 0 &&
           bundle_same_file(stock->sha256, stock->sha512, base->sha256, base->sha512);
}

/* Images that share a payload may be for different receivers: what they stand on is in the bundle. */
static bool is_shared(const struct carry *c, const struct mirror_image *image)
{
    return json_integer_value(json_object_get(c->uses, bundle_image_digest(image))) != 1;
}

/* Whether all who need image `n` can have the content of image `on`. */
static bool may_stand_on(const struct carry *c, size_t n, size_t on)
{
    struct bundle_base_name *base = &c->m->images[c->root[on]].base;
    const struct mirror_image *image = c->m->images[n].image;
    return !base->product ||
           (!is_shared(c, image) && bundle_have_base(c->o->have, image, is_that_base, base));
}

/* The next newer version of the same item that stands compact before it, NULL when there is none. */
static const struct bundle_image *newer_image(const struct carry *c, size_t n)
{
    const struct mirror_image *image = c->m->images[n].image;
    for (size_t i = n; i-- > 0;) {
        const struct bundle_image *newer = &c->m->images[i];
        if (strcmp(newer->image->product, image->product) != 0)
            return NULL;
        if (newer->encoding == BUNDLE_COMPACT && strcmp(newer->image->item, image->item) == 0 &&
            strcmp(newer->image->version, image->version) != 0 && may_stand_on(c, n, i))
            return newer;
    }
    return NULL;
}

static bool is_carried(const struct bundle_manifest *m, const char *product, const char *version)
{
    for (size_t i = 0; i < m->image_count; i++)
        if (m->images[i].encoding != BUNDLE_NOT_CARRIED &&
            strcmp(m->images[i].image->product, product) == 0 &&
            strcmp(m->images[i].image->version, version) == 0)
            return true;
    return false;
}

/* What one receiver has and another one is to get from this bundle cannot be the base of both. */
static bool is_usable(void *opaque, const struct bundle_stock *stock)
{
    const struct carry *c = opaque;
    bool known = (stock->sha256 && bundle_cache_knows(c->cache, stock->sha256)) ||
                 (stock->sha512 && bundle_cache_knows(c->cache, stock->sha512));
    return known && !is_carried(c->m, stock->product, stock->version);
}

/* Receivers have what is imported alone. */
static bool may_have_stock(const struct carry *c, const struct mirror_image *image)
{
    return c->o->have && mirror_image_importable(image) && !is_shared(c, image);
}

static void choose_base(struct carry *c, size_t n, struct bundle_base_name *ret)
{
    const struct bundle_image *newer = newer_image(c, n);
    const struct mirror_image *image = c->m->images[n].image;
    if (newer) {
        set_base(ret, newer->image->product, newer->image->version, newer->image->sha256,
                 newer->image->sha512);
        c->root[n] = c->root[newer - c->m->images];
        return;
    }
    const struct bundle_stock *stock =
        may_have_stock(c, image) ? bundle_have_base(c->o->have, image, is_usable, c) : NULL;
    if (stock)
        set_base(ret, stock->product, stock->version, stock->sha256, stock->sha512);
}

/* The checksum of it that its blocks have as their name, and these. */
static struct bundle_blocks *base_blocks(const struct carry *c, const struct bundle_base_name *base,
                                         const char **ret_digest)
{
    const char *digests[] = {base->sha256, base->sha512};
    for (size_t i = 0; i < 2; i++) {
        struct bundle_blocks *blocks =
            digests[i] ? bundle_cache_blocks(c->cache, digests[i]) : NULL;
        *ret_digest = digests[i];
        if (blocks)
            return blocks;
    }
    *ret_digest = NULL;
    return NULL;
}

/* ---- each image ---- */

static void set_compact(struct bundle_image *image, const struct bundle_encoded *e,
                        struct bundle_base_name *base)
{
    bundle_payload_clear(image);
    image->encoding = BUNDLE_COMPACT;
    image->member = bundle_compact_member(image->image);
    image->size = e->size;
    memcpy(image->sha256, e->sha256, sizeof image->sha256);
    image->content = e->content;
    image->base = *base;
    image->base.bytes = e->base_bytes;
    *base = (struct bundle_base_name){0};
}

/* The image before it that has the same content, and is compact: it is for whoever needs this one, too. */
static const struct bundle_image *twin_of(const struct carry *c, size_t n)
{
    const char *digest = bundle_image_digest(c->m->images[n].image);
    if (!is_shared(c, c->m->images[n].image))
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (c->m->images[i].encoding == BUNDLE_COMPACT &&
            strcmp(bundle_image_digest(c->m->images[i].image), digest) == 0)
            return &c->m->images[i];
    return NULL;
}

static void share_payload(struct bundle_image *image, const struct bundle_image *twin)
{
    struct bundle_base_name base = {0};
    struct bundle_encoded encoded = {
        .size = twin->size, .content = twin->content, .base_bytes = twin->base.bytes};
    memcpy(encoded.sha256, twin->sha256, sizeof encoded.sha256);
    if (twin->base.product)
        set_base(&base, twin->base.product, twin->base.version, twin->base.sha256,
                 twin->base.sha512);
    set_compact(image, &encoded, &base);
}

static void base_clear(struct bundle_base_name *base)
{
    free(base->product);
    free(base->version);
    free(base->sha256);
    free(base->sha512);
    *base = (struct bundle_base_name){0};
}

/* What was encoded before, whichever of the base's checksums it was named by. */
static bool find_difference(const struct carry *c, struct bundle_cache_key key,
                            const struct bundle_base_name *base, struct bundle_encoded *ret)
{
    const char *digests[] = {base->sha256, base->sha512};
    for (size_t i = 0; i < 2; i++) {
        key.base = digests[i];
        if (key.base && bundle_cache_find(c->cache, &key, ret))
            return true;
    }
    return false;
}

/* An encoded image has at most the image's size, or is not kept. */
static bool check_room(const struct carry *c, const struct mirror_image *image,
                       struct uvm_error *err)
{
    uint64_t there;
    if (!bundle_cache_room(c->cache, &there, err))
        return false;
    if (image->size <= there)
        return true;
    uvm_auto_free char *needed = uvm_size_text(image->size), *free_text = uvm_size_text(there);
    return uvm_fail(err, UVM_SPACE, "%s: an encoded image needs up to %s, and %s are free",
                    bundle_cache_path(c->cache), needed, free_text);
}

/* A base whose blocks are not known any more is none. */
static bool find_or_encode(const struct carry *c, const struct bundle_image *image,
                           struct bundle_base_name *base, struct bundle_encoded *ret,
                           struct uvm_error *err)
{
    struct bundle_cache_key key = {.image = bundle_image_digest(image->image),
                                   .level = c->o->compact_level};
    if (base->product && find_difference(c, key, base, ret))
        return true;
    UVM_AUTO(bundle_blocks_free)
    struct bundle_blocks *blocks = base->product ? base_blocks(c, base, &key.base) : NULL;
    if (!blocks)
        base_clear(base);
    return bundle_cache_find(c->cache, &key, ret) ||
           (check_room(c, image->image, err) &&
            bundle_cache_fill(c->cache, image, &key, blocks, c->o->observer, ret, err));
}

static bool carry_one(struct carry *c, size_t n, struct uvm_error *err)
{
    struct bundle_image *image = &c->m->images[n];
    __attribute__((cleanup(base_clear))) struct bundle_base_name base = {0};
    const struct bundle_image *twin = twin_of(c, n);
    struct bundle_encoded encoded = {0};
    if (twin) {
        c->root[n] = c->root[twin - c->m->images];
        share_payload(image, twin);
        return true;
    }
    c->root[n] = n;
    choose_base(c, n, &base);
    if (!find_or_encode(c, image, &base, &encoded, err))
        return false;
    if (!base.product)
        c->root[n] = n;
    if (encoded.worthwhile)
        set_compact(image, &encoded, &base);
    return true;
}

/* ---- the whole ---- */

static void count_uses(struct carry *c)
{
    for (size_t i = 0; i < c->m->image_count; i++) {
        const char *digest = bundle_image_digest(c->m->images[i].image);
        json_int_t uses = json_integer_value(json_object_get(c->uses, digest));
        if (c->m->images[i].encoding != BUNDLE_NOT_CARRIED)
            json_object_set_new(c->uses, digest, json_integer(uses + 1));
    }
}

bool bundle_carry(struct bundle_manifest *m, const struct bundle_create_options *o,
                  struct uvm_error *err)
{
    __attribute__((cleanup(carry_clear))) struct carry c = {.m = m, .o = o};
    leave_out_what_is_there(m, o->have);
    if (!o->compact_level)
        return true;
    c.uses = json_object();
    c.root = uvm_alloc((m->image_count + 1) * sizeof *c.root);
    count_uses(&c);
    if (!bundle_cache_open(o->tree, &c.cache, err))
        return false;
    for (size_t i = 0; i < m->image_count; i++)
        if (m->images[i].encoding != BUNDLE_NOT_CARRIED &&
            (!uvm_go_on(o->observer, err) || !carry_one(&c, i, err)))
            return false;
    bundle_cache_sweep(c.cache);
    return true;
}

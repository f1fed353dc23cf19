/* What is published of a stream: the products of a release, and what older ones left. */
#include <string.h>

#include "mirror/publish.h"

bool mirror_publish_passed(const struct mirror_publisher *p, const char *content_id,
                           const char *product)
{
    uvm_auto_free char *key = uvm_format("%s\n%s", content_id, product);
    return json_object_get(p->passed, key) != NULL;
}

/* ---- which versions ---- */

static json_t *old_versions(const struct mirror_publisher *p, const char *content_id,
                            const char *product)
{
    const json_t *products = json_object_get(json_object_get(p->trees, content_id), "products");
    return mirror_object_get(json_object_get(products, product), "versions");
}

static bool brings(const struct mirror_product *product, const char *version)
{
    for (size_t i = 0; i < product->image_count; i++)
        if (strcmp(product->images[i].version, version) == 0)
            return true;
    return false;
}

/* A view that is complete knows what the source withdrew; another one only adds. */
static bool is_listed(const struct mirror_product *product, const char *version)
{
    return !product->complete || brings(product, version) ||
           uvm_strings_has(&product->versions, version);
}

/* Of those that stay, there or new, how many are newer. */
static size_t count_newer(json_t *old, const struct mirror_product *product, const char *version)
{
    mirror_auto_json *newer = json_object();
    const char *name;
    json_t *ignored;
    json_object_foreach(old, name, ignored)
    {
        if (is_listed(product, name) && mirror_version_compare(name, version) > 0)
            json_object_set_new(newer, name, json_true());
    }
    for (size_t i = 0; i < product->image_count; i++)
        if (mirror_version_compare(product->images[i].version, version) > 0)
            json_object_set_new(newer, product->images[i].version, json_true());
    return json_object_size(newer);
}

bool mirror_publish_keeps(const struct mirror_publisher *p, const struct mirror_release *release,
                          const struct mirror_product *product, const char *version)
{
    json_t *old = old_versions(p, release->content_id, product->name);
    return is_listed(product, version) &&
           (p->options.max == 0 || count_newer(old, product, version) < p->options.max);
}

/* ---- what was verified ---- */

struct proof {
    const struct mirror_publisher *p;
    const struct mirror_release *release;
    size_t images; /* that are as the release has them */
};

static const struct mirror_image *find_image(const struct mirror_release *r,
                                             const struct mirror_image *image)
{
    for (size_t i = 0; i < r->selection->count; i++) {
        const struct mirror_product *product = &r->selection->products[i];
        if (strcmp(product->name, image->product) != 0)
            continue;
        for (size_t k = 0; k < product->image_count; k++)
            if (strcmp(product->images[k].version, image->version) == 0 &&
                strcmp(product->images[k].item, image->item) == 0)
                return &product->images[k];
    }
    return NULL;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool is_verified(void *opaque, const struct mirror_image *image, struct uvm_error *err)
{
    struct proof *proof = opaque;
    const struct mirror_image *known = find_image(proof->release, image);
    if (!uvm_go_on(proof->p->options.observer, err))
        return false;
    proof->images++;
    if (known && strcmp(known->path, image->path) == 0 && known->size == image->size &&
        same_text(known->sha256, image->sha256) && same_text(known->sha512, image->sha512) &&
        json_equal(known->metadata, image->metadata))
        return true;
    uvm_auto_free char *title = mirror_image_title(image);
    return uvm_fail(err, UVM_TRUST, "%s in the products file is not what the manifest says", title);
}

bool mirror_publish_check_fresh(const struct mirror_publisher *p,
                                const struct mirror_release *release, struct uvm_error *err)
{
    struct proof proof = {p, release, 0};
    size_t images = 0;
    for (size_t i = 0; i < release->selection->count; i++)
        images += release->selection->products[i].image_count;
    if (!mirror_publish_each(json_object_get(p->fresh, release->content_id), is_verified, &proof,
                             err))
        return false;
    return proof.images == images ||
           uvm_fail(err, UVM_TRUST,
                    "the products file has %zu of the %zu images that the manifest names",
                    proof.images, images);
}

/* ---- merging ---- */

/* Another release may have brought other items of the same version. */
static json_t *merge_version(json_t *old, json_t *fresh)
{
    json_t *items = json_object(), *version = json_copy(fresh ? fresh : old);
    json_object_update(items, mirror_object_get(old, "items"));
    json_object_update(items, mirror_object_get(fresh, "items"));
    json_object_set_new(version, "items", items);
    return version;
}

static void keep_versions(const struct mirror_publisher *p, const struct mirror_release *release,
                          const struct mirror_product *product, json_t *from, json_t *to,
                          json_t *old, json_t *fresh)
{
    const char *name;
    json_t *ignored;
    json_object_foreach(from, name, ignored)
    {
        if (!json_object_get(to, name) && mirror_publish_keeps(p, release, product, name))
            json_object_set_new(
                to, name, merge_version(json_object_get(old, name), json_object_get(fresh, name)));
    }
}

static json_t *merge_product(const struct mirror_publisher *p, const struct mirror_release *release,
                             const struct mirror_product *product, json_t *fresh)
{
    json_t *merged = json_copy(fresh), *versions = json_object();
    json_t *old = old_versions(p, release->content_id, product->name);
    json_t *come = mirror_object_get(fresh, "versions");
    keep_versions(p, release, product, old, versions, old, come);
    keep_versions(p, release, product, come, versions, old, come);
    json_object_set_new(merged, "versions", versions);
    return merged;
}

json_t *mirror_publish_merge(const struct mirror_publisher *p, const struct mirror_release *release)
{
    json_t *fresh = json_object_get(p->fresh, release->content_id);
    json_t *old = json_object_get(p->trees, release->content_id);
    json_t *come = mirror_object_get(fresh, "products"), *products = json_object();
    size_t taken = 0;
    json_object_update(products, mirror_object_get(old, "products"));
    for (size_t i = 0; i < release->selection->count; i++) {
        const struct mirror_product *product = &release->selection->products[i];
        json_t *node = mirror_object_get(come, product->name);
        if (!node || mirror_publish_passed(p, release->content_id, product->name))
            continue;
        json_object_set_new(products, product->name, merge_product(p, release, product, node));
        taken++;
    }
    json_t *tree = json_copy(taken || !old ? fresh : old);
    json_object_set_new(tree, "products", products);
    return tree;
}

/* ---- walking ---- */

bool mirror_publish_find(const struct mirror_publisher *p, const char *content_id,
                         const struct mirror_image *image, struct mirror_pedigree *ret)
{
    static const char *const members[MIRROR_LEVELS] = {NULL, "products", "versions", "items"};
    *ret = (struct mirror_pedigree){.names = {NULL, image->product, image->version, image->item},
                                    .nodes = {json_object_get(p->trees, content_id)}};
    for (int level = MIRROR_PRODUCT; level < MIRROR_LEVELS; level++) {
        const json_t *below = mirror_object_get(ret->nodes[level - 1], members[level]);
        ret->nodes[level] = mirror_object_get(below, ret->names[level]);
        if (!ret->nodes[level])
            return false;
    }
    return true;
}

struct walk {
    bool (*each)(void *opaque, const struct mirror_image *image, struct uvm_error *err);
    void *opaque;
};

static bool visit(const struct walk *w, const struct mirror_pedigree *item, struct uvm_error *err)
{
    struct mirror_image image = {0};
    if (!mirror_pedigree_image(item, &image, err))
        return false;
    bool ok = w->each(w->opaque, &image, err);
    mirror_image_clear(&image);
    return ok;
}

static bool walk_items(const struct walk *w, struct mirror_pedigree item, struct uvm_error *err)
{
    json_object_foreach(mirror_object_get(item.nodes[MIRROR_VERSION], "items"),
                        item.names[MIRROR_ITEM], item.nodes[MIRROR_ITEM])
    {
        if (json_is_object(item.nodes[MIRROR_ITEM]) && !visit(w, &item, err))
            return false;
    }
    return true;
}

static bool walk_versions(const struct walk *w, struct mirror_pedigree item, struct uvm_error *err)
{
    json_object_foreach(mirror_object_get(item.nodes[MIRROR_PRODUCT], "versions"),
                        item.names[MIRROR_VERSION], item.nodes[MIRROR_VERSION])
    {
        if (!walk_items(w, item, err))
            return false;
    }
    return true;
}

bool mirror_publish_each(json_t *tree,
                         bool (*each)(void *opaque, const struct mirror_image *image,
                                      struct uvm_error *err),
                         void *opaque, struct uvm_error *err)
{
    const struct walk w = {each, opaque};
    struct mirror_pedigree item = {.nodes[MIRROR_TOP] = tree};
    json_object_foreach(mirror_object_get(tree, "products"), item.names[MIRROR_PRODUCT],
                        item.nodes[MIRROR_PRODUCT])
    {
        if (!walk_versions(&w, item, err))
            return false;
    }
    return true;
}

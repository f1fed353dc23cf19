/*
 * What is taken from a stream: of each product the newest versions that still have a matching item.
 *
 * Along the way it becomes known whether the view of a product is complete. A receiver deletes what
 * a complete product does not list, so in doubt a product is not complete.
 */
#include <string.h>

#include "mirror/model.h"

int mirror_version_compare(const char *a, const char *b)
{
    return strcmp(a, b); /* the byte order of UTF-8 is that of code points */
}

void mirror_product_clear(struct mirror_product *p)
{
    for (size_t i = 0; i < p->image_count; i++)
        mirror_image_clear(&p->images[i]);
    free(p->images);
    free(p->name);
    uvm_strings_clear(&p->versions);
    *p = (struct mirror_product){0};
}

void mirror_selection_clear(struct mirror_selection *s)
{
    for (size_t i = 0; i < s->count; i++)
        mirror_product_clear(&s->products[i]);
    free(s->products);
    *s = (struct mirror_selection){0};
}

/* Room for one more in an array that has no capacity of its own: it doubles at powers of two. */
static void *room_for_next(void *array, size_t count, size_t item_size)
{
    if (count & (count - 1))
        return array;
    return uvm_grow(array, count ? 2 * count : 1, item_size);
}

/* ---- one product ----------------------------------------------------------------------------- */

/* A version, as the filters show it. */
struct view {
    const char *name;
    json_t *node;
    bool matches;    /* has an item that is there and that all filters let through */
    bool importable; /* has an importable one that the implied filters let through */
    bool visible;    /* and the others too */
    bool lacking;    /* and it is not there */
};

struct chooser {
    const struct mirror_filters *filters;
    const struct mirror_stock *stock; /* NULL = all is there */
    unsigned max_versions;            /* of the product that the walk is at */
    struct mirror_pedigree at;        /* where the walk is */
};

static bool item_has(const struct mirror_pedigree *item, const char *key, const char *wanted)
{
    uvm_auto_free char *value = mirror_pedigree_get(item, key);
    return value && strcmp(value, wanted) == 0;
}

/* mirror_image_importable for an item that is no checked image yet. */
static bool item_importable(const struct mirror_pedigree *item)
{
    return strcmp(item->names[MIRROR_ITEM], "disk1.img") == 0 &&
           item_has(item, "ftype", "disk1.img") && item_has(item, "datatype", "image-downloads");
}

static bool item_matches(const struct chooser *c, enum mirror_filter_set set)
{
    struct mirror_values values = {mirror_pedigree_get, &c->at};
    return mirror_filters_match_values(c->filters, set, &values);
}

static bool item_is_there(const struct chooser *c)
{
    return !c->stock || c->stock->has(c->stock->opaque, &c->at);
}

static void enter(struct chooser *c, int level, const char *name, json_t *node)
{
    c->at.names[level] = name;
    c->at.nodes[level] = node;
}

static void look_at_version(struct chooser *c, struct view *view)
{
    const char *name;
    json_t *item;
    enter(c, MIRROR_VERSION, view->name, view->node);
    json_object_foreach(mirror_object_get(view->node, "items"), name, item)
    {
        enter(c, MIRROR_ITEM, name, item);
        if (!json_is_object(item) || !item_matches(c, MIRROR_FILTERS_IMPLIED))
            continue;
        bool matches = item_matches(c, MIRROR_FILTERS_GIVEN), importable = item_importable(&c->at);
        bool there = (matches || importable) && item_is_there(c);
        view->matches |= matches && there;
        view->importable |= importable;
        view->visible |= matches && importable;
        view->lacking |= importable && !there;
    }
}

static int newest_first(const void *a, const void *b)
{
    const struct view *va = a, *vb = b;
    return mirror_version_compare(vb->name, va->name);
}

/* All versions of the product that the walk is at, newest first. The caller frees them. */
static struct view *look_at_versions(struct chooser *c, size_t *ret_count)
{
    json_t *version, *versions = mirror_object_get(c->at.nodes[MIRROR_PRODUCT], "versions");
    struct view *views = uvm_grow(NULL, json_object_size(versions), sizeof *views);
    size_t count = 0;
    const char *name;
    json_object_foreach(versions, name, version)
    {
        if (!json_is_object(version))
            continue;
        views[count] = (struct view){.name = name, .node = version};
        look_at_version(c, &views[count++]);
    }
    qsort(views, count, sizeof *views, newest_first);
    *ret_count = count;
    return views;
}

static bool add_images(struct chooser *c, const struct view *view, struct mirror_product *product,
                       struct uvm_error *err)
{
    const char *name;
    json_t *item;
    enter(c, MIRROR_VERSION, view->name, view->node);
    json_object_foreach(mirror_object_get(view->node, "items"), name, item)
    {
        enter(c, MIRROR_ITEM, name, item);
        if (!json_is_object(item) || !item_matches(c, MIRROR_FILTERS_ALL) || !item_is_there(c))
            continue;
        product->images =
            room_for_next(product->images, product->image_count, sizeof *product->images);
        if (!mirror_pedigree_image(&c->at, &product->images[product->image_count], err))
            return false;
        product->image_count++;
    }
    return true;
}

/* Lists the importable versions; false when one of them is hidden, or has a name that can stand in
 * no list, when one of the newest `max` (0 = all) is not there, or when there is none. */
static bool list_versions(const struct view *views, size_t count, unsigned max,
                          struct uvm_strings *ret)
{
    bool complete = true;
    for (size_t i = 0; i < count; i++) {
        if (!views[i].importable)
            continue;
        bool sound = mirror_name_sound(views[i].name), wanted = !max || ret->count < max;
        complete = complete && sound && views[i].visible && !(wanted && views[i].lacking);
        if (sound)
            uvm_strings_add(ret, views[i].name);
    }
    return complete && ret->count > 0;
}

static bool choose_product(struct chooser *c, struct mirror_product *product, struct uvm_error *err)
{
    size_t count, chosen = 0;
    uvm_auto_free struct view *views = look_at_versions(c, &count);
    for (size_t i = 0; i < count; i++) {
        if (!views[i].matches)
            continue;
        if (c->max_versions && chosen == c->max_versions)
            break;
        chosen++;
        if (!add_images(c, &views[i], product, err))
            return false;
    }
    if (chosen) {
        product->name = uvm_strdup(c->at.names[MIRROR_PRODUCT]);
        product->complete = list_versions(views, count, c->max_versions, &product->versions);
    }
    return true;
}

static unsigned least_limit(unsigned a, unsigned b)
{
    return !a || (b && b < a) ? b : a;
}

bool mirror_stream_select_stock(const struct mirror_stream *s, const struct mirror_filters *filters,
                                unsigned max_versions, const struct mirror_stock *stock,
                                struct mirror_selection *ret_selection, struct uvm_error *err)
{
    struct chooser c = {.filters = filters, .stock = stock, .max_versions = max_versions};
    mirror_auto_selection selection = {0};
    const char *name;
    json_t *node;
    enter(&c, MIRROR_TOP, NULL, s->tree);
    json_object_foreach(json_object_get(s->tree, "products"), name, node)
    {
        __attribute__((cleanup(mirror_product_clear))) struct mirror_product product = {0};
        enter(&c, MIRROR_PRODUCT, name, node);
        if (stock)
            c.max_versions = least_limit(max_versions, stock->max(stock->opaque, name));
        if (!choose_product(&c, &product, err))
            return uvm_prefix(err, "%s", s->content_id);
        if (!product.image_count)
            continue;
        selection.products =
            room_for_next(selection.products, selection.count, sizeof *selection.products);
        selection.products[selection.count++] = product;
        product = (struct mirror_product){0};
    }
    if (!mirror_selections_check(&selection, 1, err))
        return uvm_prefix(err, "%s", s->content_id);
    *ret_selection = selection;
    selection = (struct mirror_selection){0};
    return true;
}

bool mirror_stream_select(const struct mirror_stream *s, const struct mirror_filters *filters,
                          unsigned max_versions, struct mirror_selection *ret_selection,
                          struct uvm_error *err)
{
    return mirror_stream_select_stock(s, filters, max_versions, NULL, ret_selection, err);
}

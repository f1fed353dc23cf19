/* The order of a bundle: which members follow the signature, and which images each payload serves.
 */
#include "bundle/internal.h"

/* Index of the payload's item, which is added when an image names it first. `known` maps names to
 * indexes. */
static size_t payload_item(struct bundle_plan *plan, json_t *known,
                           const struct bundle_image *image)
{
    const json_t *index = json_object_get(known, image->member);
    if (index)
        return (size_t)json_integer_value(index);
    json_object_set_new(known, image->member, json_integer((json_int_t)plan->count));
    plan->items[plan->count] = (struct bundle_plan_item){
        .path = image->member, .size = image->size, .sha256 = image->sha256};
    plan->payload_bytes += image->size;
    return plan->count++;
}

static size_t add_image(struct bundle_plan *plan, json_t *known, const struct bundle_image *image)
{
    if (image->encoding == BUNDLE_NOT_CARRIED)
        return BUNDLE_PLAN_NOWHERE;
    size_t n = payload_item(plan, known, image);
    struct bundle_plan_item *item = &plan->items[n];
    item->image_count++;
    if (!item->sha512 && image->encoding == BUNDLE_PLAIN)
        item->sha512 = image->image->sha512;
    return n;
}

static void link_items(struct bundle_plan *plan, const struct bundle_manifest *m)
{
    for (size_t i = 0; i < m->image_count; i++) {
        const struct bundle_image *base = m->images[i].base.image;
        if (base && plan->item_of[i] != BUNDLE_PLAN_NOWHERE)
            plan->items[plan->item_of[i]].base = &plan->items[plan->item_of[base - m->images]];
    }
}

/* Gives each payload the slice of `images_` that it needs, then fills the slices. */
static void share_out_images(struct bundle_plan *plan, const struct bundle_manifest *m)
{
    const struct bundle_image **next = plan->images_;
    for (size_t i = m->member_count; i < plan->count; i++) {
        plan->items[i].images = next;
        next += plan->items[i].image_count;
        plan->items[i].image_count = 0;
    }
    for (size_t i = 0; i < m->image_count; i++) {
        if (m->images[i].encoding == BUNDLE_NOT_CARRIED)
            continue;
        struct bundle_plan_item *item = &plan->items[plan->item_of[i]];
        plan->images_[(size_t)(item->images - plan->images_) + item->image_count++] = &m->images[i];
    }
}

struct bundle_plan *bundle_plan_new(const struct bundle_manifest *m)
{
    struct bundle_plan *plan = uvm_alloc(sizeof *plan);
    plan->items = uvm_grow(NULL, m->member_count + m->image_count + 1, sizeof *plan->items);
    plan->images_ = uvm_grow(NULL, m->image_count + 1, sizeof *plan->images_);
    for (size_t i = 0; i < m->member_count; i++)
        plan->items[plan->count++] = (struct bundle_plan_item){
            .path = m->members[i].path, .size = m->members[i].size, .sha256 = m->members[i].sha256};

    mirror_auto_json *known = json_object();
    plan->item_of = uvm_grow(NULL, m->image_count + 1, sizeof *plan->item_of);
    for (size_t i = 0; i < m->image_count; i++)
        plan->item_of[i] = add_image(plan, known, &m->images[i]);
    share_out_images(plan, m);
    link_items(plan, m);
    return plan;
}

void bundle_plan_free(struct bundle_plan *plan)
{
    if (!plan)
        return;
    free(plan->items);
    free(plan->item_of);
    free(plan->images_);
    free(plan);
}

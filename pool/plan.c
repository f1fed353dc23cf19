/*
 * plan.c: what an import will do, decided before anything is touched.
 *
 * The manifest stands for the source. Of each product that it names completely, the newest `max`
 * versions that it lists stay or come, every other version on the host is retired (simplestreams'
 * resolve_work with max_items). Products named incompletely only add; products that are not named
 * are left alone.
 */
#include "pool/import.h"

#include <limits.h>
#include <string.h>

#define WHY_NOT_IMPORTABLE "is not for uvtool's pool"
#define WHY_FILTERED       "does not match the filters"
#define WHY_OLDER          "of an older stream or bundle than this host has seen"
#define WHY_MAX            "older than the newest versions that are kept"
#define WHY_TWICE          "listed twice"
#define WHY_OTHERS         "of another architecture, and needs what only other hosts have"

struct planner {
    const struct pool_import_options *options;
    const struct pool_survey *survey;
    const struct pool_seen *seen;
    const struct uvm_observer *observer;
    struct pool_plan plan;
    json_t *products;         /* name -> in how many sources */
    json_t *steps;            /* volume name -> index of the step that deals with it */
    size_t candidates, older; /* products */
    size_t others;            /* images for hosts of other architectures */
};

void pool_plan_clear(struct pool_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        free(plan->steps[i].name);
        free(plan->steps[i].title);
    }
    free(plan->steps);
    pool_seen_clear(&plan->seen);
    *plan = (struct pool_plan){0};
}

static void planner_clear(struct planner *pl)
{
    pool_plan_clear(&pl->plan);
    json_decref(pl->products);
    json_decref(pl->steps);
}
#define auto_planner __attribute__((cleanup(planner_clear))) struct planner

/* ---- steps ----------------------------------------------------------------------------------- */

static struct pool_step *new_step(struct planner *pl, enum pool_action action, const char *reason)
{
    struct pool_plan *plan = &pl->plan;
    plan->steps = uvm_grow(plan->steps, plan->count + 1, sizeof(*plan->steps));
    struct pool_step *step = &plan->steps[plan->count++];
    *step = (struct pool_step){.action = action, .reason = reason};
    return step;
}

static void image_step(struct planner *pl, enum pool_action action,
                       const struct mirror_image *image, const char *reason)
{
    struct pool_step *step = new_step(pl, action, reason);
    step->image = image;
    step->name = pool_volume_name(image->product, image->version);
    step->title = mirror_image_title(image);
}

static void retire_step(struct planner *pl, const struct pool_entry *entry)
{
    struct pool_step *step = new_step(pl, POOL_RETIRE, NULL);
    step->name = uvm_strdup(entry->name);
    step->title = pool_entry_title(entry);
}

/* ---- one image ------------------------------------------------------------------------------- */

/* 1 = equal, 0 = differ, -1 = nothing to compare. */
static int compare_hex(const char *a, const char *b)
{
    return !a || !b ? -1 : strcasecmp(a, b) == 0;
}

static bool same_content(const struct mirror_image *image, const char *sha256, const char *sha512)
{
    return compare_hex(image->sha256, sha256) != 0 && compare_hex(image->sha512, sha512) != 0;
}

static bool check_usable(const struct mirror_image *image, const char *name, struct uvm_error *err)
{
    if (strlen(name) > NAME_MAX)
        return uvm_fail(err, UVM_CONTENT, "%s %s: makes a name of %zu bytes, and files have %d",
                        image->product, image->version, strlen(name), NAME_MAX);
    static const char *const wanted[] = {"release", "arch", "label"};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (!*mirror_image_get(image, wanted[i]))
            return uvm_fail(err, UVM_CONTENT, "%s %s: has no %s, and uvtool cannot do without",
                            image->product, image->version, wanted[i]);
    }
    return true;
}

/* The same product and version from a second source. */
static bool seen_twice(struct planner *pl, const struct mirror_image *image, const char *name,
                       bool *ret_twice, struct uvm_error *err)
{
    const json_t *known = json_object_get(pl->steps, name);
    *ret_twice = known != NULL;
    if (!known) {
        json_object_set_new(pl->steps, name, json_integer((json_int_t)pl->plan.count));
        return true;
    }
    const struct mirror_image *first = pl->plan.steps[json_integer_value(known)].image;
    if (!same_content(image, first->sha256, first->sha512))
        return uvm_fail(err, UVM_CONTENT, "%s %s: listed twice, with different checksums",
                        image->product, image->version);
    image_step(pl, POOL_SKIP, image, WHY_TWICE);
    return true;
}

/* A volume whose metadata is missing or damaged proves nothing. It is replaced, or compared when a
 * guest uses it, or may do so. */
static void plan_unproven(struct planner *pl, const struct mirror_image *image,
                          const struct pool_entry *entry)
{
    bool idle = entry->users.count == 0 && pl->survey->doubts.count == 0;
    image_step(pl, idle ? POOL_ADOPT : POOL_RELINK, image, NULL);
}

/* An image that is wanted. */
static bool plan_image(struct planner *pl, const struct mirror_image *image, struct uvm_error *err)
{
    uvm_auto_free char *name = pool_volume_name(image->product, image->version);
    const struct pool_entry *entry = pool_survey_entry(pl->survey, name);
    bool twice = false;
    if (!check_usable(image, name, err) || !seen_twice(pl, image, name, &twice, err))
        return false;
    if (twice)
        return true;
    if (!entry || entry->state == POOL_BROKEN) {
        image_step(pl, POOL_ADD, image, NULL);
        return true;
    }
    if (entry->state != POOL_READY || !entry->metadata) {
        plan_unproven(pl, image, entry);
        return true;
    }
    if (!same_content(image, json_string_value(json_object_get(entry->metadata, "sha256")),
                      json_string_value(json_object_get(entry->metadata, "sha512"))))
        return uvm_fail(err, UVM_CONTENT,
                        "%s %s: is on this host with another checksum than the bundle's",
                        image->product, image->version);
    image_step(pl, POOL_KEEP, image, NULL);
    return true;
}

/* ---- one product ----------------------------------------------------------------------------- */

/* How a product is looked at: which of its images can be taken, and which versions there are. */
struct view {
    const struct mirror_product *product;
    const struct mirror_image **images; /* importable, matching */
    size_t count;
    struct uvm_strings versions; /* among which the newest are kept */
    bool complete;
};

static void view_clear(struct view *v)
{
    free(v->images);
    uvm_strings_clear(&v->versions);
}
#define auto_view __attribute__((cleanup(view_clear))) struct view

static void add_version(struct view *v, const char *version)
{
    if (!uvm_strings_has(&v->versions, version))
        uvm_strings_add(&v->versions, version);
}

/* Sorts the product's images into those that count and those that are skipped. */
static void look_at(struct planner *pl, const struct mirror_product *product, struct view *v)
{
    const struct mirror_filters *filters = pl->options->filters;
    bool hidden = false;

    v->product = product;
    v->images = uvm_alloc((product->image_count + 1) * sizeof(const struct mirror_image *));
    for (size_t i = 0; i < product->image_count; i++) {
        const struct mirror_image *image = &product->images[i];
        if (!mirror_image_importable(image)) {
            image_step(pl, POOL_SKIP, image, WHY_NOT_IMPORTABLE);
        } else if (filters && !mirror_filters_match(filters, image->metadata)) {
            image_step(pl, POOL_SKIP, image, WHY_FILTERED);
            hidden = true;
        } else {
            v->images[v->count++] = image;
            add_version(v, image->version);
        }
    }
    /* A version in two sources, or hidden by a filter here, is no reason to retire another. */
    v->complete = product->complete && !hidden &&
                  json_integer_value(json_object_get(pl->products, product->name)) == 1;
    for (size_t i = 0; v->complete && i < product->versions.count; i++)
        add_version(v, product->versions.items[i]);
}

/* Whether a version is one of the newest `max` that are listed. */
static bool is_wanted(const struct view *v, const char *version, unsigned max)
{
    size_t newer = 0;
    if (!uvm_strings_has(&v->versions, version))
        return false;
    for (size_t i = 0; i < v->versions.count; i++) {
        if (mirror_version_compare(v->versions.items[i], version) > 0)
            newer++;
    }
    return max == 0 || newer < max;
}

/* Hosts of several architectures may share a bundle, and an image comes in full only where one of
 * those for which it was made lacks it. That this host cannot get the others' is nothing amiss. */
static bool is_for_others(const struct planner *pl, const struct mirror_image *image)
{
    const struct pool_import_options *o = pl->options;
    if (!o->obtainable || strcmp(mirror_image_get(image, "arch"), mirror_host_arch()) == 0)
        return false;
    uvm_auto_free char *name = pool_volume_name(image->product, image->version);
    const struct pool_entry *entry = pool_survey_entry(pl->survey, name);
    bool ready = entry && entry->state == POOL_READY && entry->metadata;
    return !ready && !o->obtainable(o->opaque, pl->survey, image);
}

/* Where a version that should be here stays away, no other one is retired for it. */
static void leave_to_others(struct planner *pl, struct view *v)
{
    size_t left = 0;
    for (size_t i = 0; i < v->count; i++) {
        const struct mirror_image *image = v->images[i];
        if (!is_for_others(pl, image)) {
            v->images[left++] = image;
            continue;
        }
        image_step(pl, POOL_SKIP, image, WHY_OTHERS);
        pl->others++;
        if (is_wanted(v, image->version, pl->options->max_versions))
            v->complete = false;
    }
    v->count = left;
}

static void skip_all(struct planner *pl, const struct view *v, const char *reason)
{
    for (size_t i = 0; i < v->count; i++)
        image_step(pl, POOL_SKIP, v->images[i], reason);
}

static void retire_others(struct planner *pl, const struct view *v)
{
    for (size_t i = 0; i < pl->survey->count; i++) {
        const struct pool_entry *e = &pl->survey->entries[i];
        if (e->state == POOL_READY && strcmp(e->product, v->product->name) == 0 &&
            !is_wanted(v, e->version, pl->options->max_versions))
            retire_step(pl, e);
    }
}

static bool plan_product(struct planner *pl, const struct pool_source *source,
                         const struct mirror_product *product, struct uvm_error *err)
{
    auto_view v = {0};
    bool lower = pl->options->flags & POOL_IMPORT_ALLOW_OLDER;
    struct pool_age age = {source->updated_at > 0 ? (uint64_t)source->updated_at : 0,
                           pl->options->serial};
    look_at(pl, product, &v);
    leave_to_others(pl, &v);
    if (v.count == 0)
        return true;

    pl->candidates++;
    if (pool_seen_older(pl->seen, source->content_id, product->name, age)) {
        struct pool_age seen = pool_seen_age(pl->seen, source->content_id, product->name);
        pool_plan_tell_older(product->name, age, seen,
                             lower ? POOL_OLDER_TAKEN : POOL_OLDER_SKIPPED, pl->observer);
        if (!lower) {
            pl->older++;
            skip_all(pl, &v, WHY_OLDER);
            return true;
        }
    }

    for (size_t i = 0; i < v.count; i++) {
        if (!is_wanted(&v, v.images[i]->version, pl->options->max_versions))
            image_step(pl, POOL_SKIP, v.images[i], WHY_MAX);
        else if (!plan_image(pl, v.images[i], err))
            return false;
    }
    if (v.complete)
        retire_others(pl, &v);
    pool_seen_note(&pl->plan.seen, source->content_id, product->name, age,
                   lower ? POOL_SEEN_SET : POOL_SEEN_RAISE);
    return true;
}

/* ---- its retirements -------------------------------------------------------------------------- */

bool pool_plan_retires(const struct pool_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->steps[i].action == POOL_RETIRE && strcmp(plan->steps[i].name, name) == 0)
            return true;
    }
    return false;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void count_products(struct planner *pl)
{
    for (size_t i = 0; i < pl->options->source_count; i++) {
        const struct mirror_selection *s = pl->options->sources[i].selection;
        for (size_t k = 0; k < s->count; k++) {
            json_int_t count =
                json_integer_value(json_object_get(pl->products, s->products[k].name));
            json_object_set_new(pl->products, s->products[k].name, json_integer(count + 1));
        }
    }
}

static bool plan_sources(struct planner *pl, struct uvm_error *err)
{
    for (size_t i = 0; i < pl->options->source_count; i++) {
        const struct pool_source *source = &pl->options->sources[i];
        for (size_t k = 0; k < source->selection->count; k++) {
            if (!plan_product(pl, source, &source->selection->products[k], err))
                return false;
        }
    }
    if (pl->older > 0 && pl->older == pl->candidates)
        return uvm_fail(
            err, UVM_TRUST,
            "everything in it is older than what this host has seen (--allow-older takes it)");
    return true;
}

bool pool_plan_make(const struct pool_import_options *options, const struct pool_survey *survey,
                    const struct pool_seen *seen, const struct uvm_observer *observer,
                    struct pool_plan *ret_plan, struct uvm_error *err)
{
    auto_planner pl = {.options = options, .survey = survey, .seen = seen, .observer = observer};
    pl.products = json_object();
    pl.steps = json_object();
    pool_seen_from_json(json_deep_copy(seen->tree), &pl.plan.seen);
    pool_plan_tell_unseen(survey, seen, options->serial, observer);
    count_products(&pl);
    if (!plan_sources(&pl, err))
        return false;
    if (pl.candidates > pl.older)
        pool_seen_note_created(&pl.plan.seen, options->created,
                               options->flags & POOL_IMPORT_ALLOW_OLDER ? POOL_SEEN_SET
                                                                        : POOL_SEEN_RAISE);
    pool_plan_tell_others(pl.others, pl.candidates > 0 ? POOL_OTHERS_TOO : POOL_OTHERS_ALONE,
                          observer);
    pool_plan_warn(&pl.plan, survey, observer);
    *ret_plan = pl.plan;
    pl.plan = (struct pool_plan){0};
    return true;
}

/*
 * plan-notice.c: what a person should know about a plan: what is older than it should be, what was
 * left out, and what uvt-kvm will make of it.
 */
#include "pool/import.h"

#include <inttypes.h>
#include <string.h>

#define WHY_UNPROVEN "its volume is here without metadata, in use, and not this image"
#define WHY_STAYS    "the newer one could not come"

#define CLOCK_SLACK 86400 /* seconds by which two hosts' clocks may differ without a word */

/* ---- age ------------------------------------------------------------------------------------- */

void pool_plan_tell_older(const char *product, struct pool_age age, struct pool_age seen,
                          enum pool_older how, const struct uvm_observer *observer)
{
    bool by_stream = age.updated && age.updated < seen.updated;
    uvm_auto_free char *is = uvm_time_text((time_t)(by_stream ? age.updated : age.serial));
    uvm_auto_free char *was = uvm_time_text((time_t)(by_stream ? seen.updated : seen.serial));
    const char *what = by_stream ? "its stream" : "the bundle";
    if (how == POOL_OLDER_TAKEN)
        uvm_warning(observer,
                    "%s: %s is of %s, older than the one of %s that this host has taken: taken all "
                    "the same, and remembered as the newest (--allow-older)",
                    product, what, is, was);
    else
        uvm_warning(
            observer,
            "%s: skipped: %s is of %s, and this host has taken one of %s (--allow-older takes "
            "it, should a wrong clock have made that one)",
            product, what, is, was);
}

void pool_plan_tell_others(size_t count, enum pool_others how, const struct uvm_observer *observer)
{
    const char *arch = mirror_host_arch();
    if (count == 0)
        return;
    if (how == POOL_OTHERS_ALONE)
        uvm_warning(observer,
                    "nothing to import: all of it is of other architectures than this host's, %s, "
                    "and needs what only other hosts have",
                    arch);
    else
        uvm_notice(observer,
                   "%zu image%s of other architectures than this host's, %s, skipped: not carried "
                   "in full, for hosts that have the rest",
                   count, count == 1 ? "" : "s", arch);
}

static bool has_images(const struct pool_survey *survey)
{
    for (size_t i = 0; i < survey->count; i++) {
        if (survey->entries[i].state == POOL_READY)
            return true;
    }
    return false;
}

void pool_plan_tell_unseen(const struct pool_survey *survey, const struct pool_seen *seen,
                           uint64_t serial, const struct uvm_observer *observer)
{
    uint64_t now = (uint64_t)time(NULL);
    if (has_images(survey) && json_object_size(json_object_get(seen->tree, "streams")) == 0)
        uvm_warning(observer,
                    "this host has images, but no record of how new they are: nothing keeps "
                    "an older bundle from superseding them this time");
    if (serial > now && serial - now > CLOCK_SLACK) {
        uvm_auto_free char *made = uvm_time_text((time_t)serial);
        uvm_auto_free char *here = uvm_time_text((time_t)now);
        uvm_warning(
            observer,
            "the bundle was made on %s, and it is %s here: one of the two clocks is wrong. If "
            "it is the one that made the bundle, those that follow will seem older",
            made, here);
    }
}

/* ---- an image that could not come ------------------------------------------------------------ */

void pool_plan_leave(struct pool_plan *plan, struct pool_step *step, const char *why,
                     const struct uvm_observer *observer)
{
    const struct mirror_image *image = step->image;
    step->action = POOL_SKIP;
    step->reason = WHY_UNPROVEN;
    plan->partial = true;
    uvm_warning(observer,
                "%s: its volume is here without metadata and in use: not replaced, and not "
                "taken for the image: %s",
                step->title, why);
    for (size_t i = 0; i < plan->count; i++) {
        struct pool_step *other = &plan->steps[i];
        uvm_auto_free char *product = NULL;
        uvm_auto_free char *version = NULL;
        if (other->action != POOL_RETIRE || !pool_volume_parse(other->name, &product, &version) ||
            strcmp(product, image->product) != 0)
            continue;
        other->action = POOL_KEEP;
        other->reason = WHY_STAYS;
    }
}

/* ---- what uvt-kvm will make of it ------------------------------------------------------------ */

static void count_image(json_t *groups, const json_t *metadata)
{
    uvm_auto_free char *group = uvm_format("release=%s arch=%s label=%s",
                                           json_string_value(json_object_get(metadata, "release")),
                                           json_string_value(json_object_get(metadata, "arch")),
                                           json_string_value(json_object_get(metadata, "label")));
    json_int_t count = json_integer_value(json_object_get(groups, group));
    json_object_set_new(groups, group, json_integer(count + 1));
}

/* uvt-kvm takes the image of a release, and stops when there are two; it prefers none to the wrong
 * arch. */
void pool_plan_warn(const struct pool_plan *plan, const struct pool_survey *survey,
                    const struct uvm_observer *observer)
{
    mirror_auto_json *groups = json_object();
    mirror_auto_json *added = json_object();
    const char *arch = mirror_host_arch();
    size_t images = 0, fitting = 0;

    for (size_t i = 0; i < plan->count; i++) {
        const struct pool_step *step = &plan->steps[i];
        if (!pool_step_wants_bytes(step))
            continue;
        images++;
        fitting += strcmp(mirror_image_get(step->image, "arch"), arch) == 0;
        count_image(groups, step->image->metadata);
        count_image(added, step->image->metadata);
    }
    for (size_t i = 0; images && i < survey->count; i++) {
        const struct pool_entry *e = &survey->entries[i];
        const char *has = json_string_value(json_object_get(e->metadata, "arch"));
        if (e->state != POOL_READY || !e->metadata || pool_plan_retires(plan, e->name))
            continue;
        fitting += has && strcmp(has, arch) == 0;
        count_image(groups, e->metadata);
    }

    const char *group;
    json_t *count;
    json_object_foreach(added, group, count)
    {
        uvm_auto_free char *shown = uvm_printable(group);
        if (json_integer_value(json_object_get(groups, group)) > 1)
            uvm_warning(observer, "several images will match %s: uvt-kvm asks for more filters",
                        shown);
    }
    if (images && !fitting)
        uvm_warning(observer, "no image is for this host's architecture, %s", arch);
}

/* What came of an import: for the one who watches, and for the receipt. */
#include <unistd.h>

#include "cmd/import.h"

/* What was done, and what would be done. */
static const struct {
    const char *done, *planned;
} action_words[] = {
    [POOL_SKIP] = {"skipped", "skip"},
    [POOL_KEEP] = {"kept", "keep"},
    [POOL_ADD] = {"added", "add"},
    [POOL_ADOPT] = {"replaced", "replace"},
    [POOL_RELINK] = {"linked again", "link again, if it proves to be the image,"},
    [POOL_RETIRE] = {"retired", "retire"},
};

static void print_step(const struct pool_step *step, bool dry_run)
{
    const char *reason = step->reason ? step->reason : "";
    const char *planned = action_words[step->action].planned;
    const char *word = dry_run ? planned : action_words[step->action].done;
    cmd_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s?, s:b}", "event", "image", "action", planned,
                             "title", step->title, "name", step->name, "reason", step->reason,
                             "done", step->done));
    if (step->action == POOL_KEEP || step->action == POOL_SKIP)
        cmd_detail("%s %s%s%s%s", word, step->title, *reason ? " (" : "", reason,
                   *reason ? ")" : "");
    else
        cmd_print("%s%s %s", dry_run ? "would " : "", word, step->title);
}

void cmd_import_print_steps(const struct import *i)
{
    size_t count;
    const struct pool_step *steps = pool_import_steps(i->plan, &count);
    for (size_t n = 0; n < count; n++)
        print_step(&steps[n], i->options->dry_run);
}

static size_t count_action(const struct import *i, enum pool_action action)
{
    size_t count, found = 0;
    const struct pool_step *steps = pool_import_steps(i->plan, &count);
    for (size_t n = 0; n < count; n++)
        found += steps[n].action == action;
    return found;
}

void cmd_import_print_summary(const struct import *i, const struct pool_cleaned *cleaned)
{
    size_t added = count_action(i, POOL_ADD) + count_action(i, POOL_ADOPT) +
                   count_action(i, POOL_RELINK),
           kept = count_action(i, POOL_KEEP), retired = count_action(i, POOL_RETIRE);
    bool dry = i->options->dry_run;
    cmd_print("%zu %s, %zu already there, %zu %s, %zu %s", added, dry ? "to import" : "imported",
              kept, retired, dry ? "to retire" : "retired", cleaned->deleted.count,
              dry ? "to delete" : "deleted");
    cmd_print_json(json_pack(
        "{s:s, s:b, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "event", "result", "dry_run", dry,
        "added", (int)added, "kept", (int)kept, "retired", (int)retired, "deleted",
        cmd_strings_json(&cleaned->deleted), "erased", cmd_strings_json(&cleaned->erased),
        "kept_for_guests", cmd_strings_json(&cleaned->kept), "doubts",
        cmd_strings_json(&cleaned->doubts), "origins_verified", cmd_origins_json(&i->input)));
}

/* Who is not root may not read what guests stand on: that is no news, and worth a line. */
void cmd_import_print_cleaned(const struct import *i, const struct pool_cleaned *cleaned)
{
    struct pool_cleaned shown = *cleaned;
    bool left = geteuid() != 0 && cleaned->doubts.count > 0;
    if (left) {
        shown.doubts = (struct uvm_strings){0};
        uvm_notice(cmd_observer(),
                   "images that are not needed any more are left for root to delete "
                   "('uvmirror clean'): %s",
                   cleaned->doubts.items[0]);
    }
    cmd_print_cleaned(&shown, i->options->dry_run);
}

/* ---- the receipt ---- */

void cmd_import_describe_request(const struct import_options *o, const struct pool_options *pool,
                                 const struct uvm_strings *filters, json_t *receipt)
{
    json_object_set_new(receipt, "dry_run", json_boolean(o->dry_run));
    json_object_set_new(receipt, "options",
                        json_pack("{s:i, s:b, s:b, s:b, s:b, s:b, s:o}", "max",
                                  (int)(o->max ? o->max : 1), "allow_older", o->trust.allow_older,
                                  "keep_compressed", o->keep_compressed, "no_clean", o->no_clean,
                                  "no_authentication", o->no_authentication, "require_origin",
                                  o->trust.require_origin, "filters", cmd_strings_json(filters)));
    json_object_set_new(receipt, "destination",
                        json_pack("{s:s, s:s, s:s, s:s}", "connect", pool->connect, "pool",
                                  pool->name, "metadata_dir", pool->metadata_dir, "state_dir",
                                  pool->state_dir));
}

static const char *outcome_of(const struct import *i, const struct pool_step *step)
{
    bool changes = step->action != POOL_SKIP && step->action != POOL_KEEP;
    if (i->options->dry_run || !changes)
        return i->options->dry_run ? action_words[step->action].planned
                                   : action_words[step->action].done;
    return i->carried_out && step->done ? action_words[step->action].done : "not done";
}

static json_t *step_json(const struct import *i, const struct pool_step *step)
{
    uvm_auto_free char *product = NULL;
    uvm_auto_free char *version = NULL;
    pool_volume_parse(step->name, &product, &version);
    json_t *node = json_pack("{s:s, s:s, s:s?, s:s?, s:s, s:s?}", "title", step->title, "name",
                             step->name, "product", product, "version", version, "outcome",
                             outcome_of(i, step), "reason", step->reason);
    if (step->image)
        json_object_update_new(node, json_pack("{s:s, s:I, s:s?, s:s?}", "path", step->image->path,
                                               "size", (json_int_t)step->image->size, "sha256",
                                               step->image->sha256, "sha512", step->image->sha512));
    return node;
}

static json_t *steps_json(const struct import *i)
{
    json_t *list = json_array();
    size_t count;
    const struct pool_step *steps = pool_import_steps(i->plan, &count);
    for (size_t n = 0; n < count; n++)
        json_array_append_new(list, step_json(i, &steps[n]));
    return list;
}

/* As far as the run came. */
void cmd_import_describe(const struct import *i, const struct pool_cleaned *cleaned,
                         json_t *receipt)
{
    if (i->input.reader)
        json_object_set_new(receipt, "bundle", cmd_bundle_json(&i->input));
    if (i->plan)
        json_object_set_new(receipt, "images", steps_json(i));
    if (i->carried_out)
        json_object_set_new(
            receipt, "cleanup",
            json_pack("{s:o, s:o, s:o, s:o, s:I}", "deleted", cmd_strings_json(&cleaned->deleted),
                      "erased", cmd_strings_json(&cleaned->erased), "kept",
                      cmd_strings_json(&cleaned->kept), "doubts",
                      cmd_strings_json(&cleaned->doubts), "freed", (json_int_t)cleaned->freed));
}

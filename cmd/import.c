/* uvmirror import: bundle -> verified -> pool and metadata -> cleanup. */
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

struct import_options {
    struct cmd_common common;
    struct cmd_trust trust;
    struct cmd_host host;
    bool no_authentication, allow_older, no_clean, keep_compressed, dry_run;
    unsigned max;
    uint64_t max_virtual;
};

static const struct cmd_option import_options[] = {
    {"max", 0, CMD_COUNT, "N", "versions of each product that stay ready (default 1)",
     offsetof(struct import_options, max)},
    {"no-clean", 0, CMD_FLAG, NULL, "do not delete superseded images that no guest uses",
     offsetof(struct import_options, no_clean)},
    {"keep-compressed", 0, CMD_FLAG, NULL,
     "store images as they came: smaller, but slower for every guest",
     offsetof(struct import_options, keep_compressed)},
    {"max-virtual-size", 0, CMD_BYTES, "SIZE", "refuse images with a larger disk (default 64T)",
     offsetof(struct import_options, max_virtual)},
    {"allow-older", 0, CMD_FLAG, NULL,
     "take a bundle that is older than what this host has seen, and remember it as the newest",
     offsetof(struct import_options, allow_older)},
    {"no-authentication", 0, CMD_FLAG, NULL,
     "accept streams whose vendor signature nobody checked when they were fetched",
     offsetof(struct import_options, no_authentication)},
    {"dry-run", 'n', CMD_FLAG, NULL, "say what would change, change nothing",
     offsetof(struct import_options, dry_run)},
    CMD_TRUST_OPTIONS(struct import_options),
    CMD_HOST_OPTIONS(struct import_options),
    CMD_COMMON_OPTIONS(struct import_options),
    {0},
};

/* ---- arguments: bundles and filters ---- */

static bool split_arguments(const struct uvm_strings *args, struct uvm_strings *bundles,
                            struct uvm_strings *filters, struct uvm_error *err)
{
    for (size_t i = 0; i < args->count; i++) {
        const char *arg = args->items[i];
        bool is_filter = strpbrk(arg, "=~") && access(arg, F_OK) < 0;
        uvm_strings_add(is_filter ? filters : bundles, arg);
    }
    return cmd_one_bundle(bundles, err);
}

/* ---- the run ---- */

struct import {
    const struct import_options *options;
    struct cmd_bundle_input input;
    struct mirror_filters *filters;
    struct pool_source *sources;
    struct pool *pool;
    struct pool_import *plan;
};

static void import_clear(struct import *i)
{
    pool_import_free(i->plan);
    pool_free(i->pool);
    free(i->sources);
    mirror_filters_free(i->filters);
    cmd_bundle_clear(&i->input);
}

/* Whoever has the vendor's keys checks for himself, and need not take the signer's word. */
static bool check_authentication(const struct import *i, struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(i->input.reader);
    for (size_t n = 0; n < m->stream_count; n++)
        if (!m->streams[n]->verified_by && !i->options->no_authentication && !i->input.vendor)
            return uvm_fail(err, UVM_TRUST,
                            "%s: stream %s was fetched without checking the vendor's signature "
                            "(--no-authentication accepts that)",
                            bundle_reader_name(i->input.reader), m->streams[n]->content_id);
    return true;
}

static bool make_plan(struct import *i, struct uvm_error *err)
{
    const struct import_options *o = i->options;
    const struct bundle_manifest *m = bundle_reader_manifest(i->input.reader);
    i->sources = uvm_alloc((m->stream_count + 1) * sizeof *i->sources);
    for (size_t n = 0; n < m->stream_count; n++)
        i->sources[n] = (struct pool_source){.content_id = m->streams[n]->content_id,
                                             .updated_at = m->streams[n]->updated_at,
                                             .selection = &m->streams[n]->selection};
    struct pool_import_options options = {
        .sources = i->sources,
        .source_count = m->stream_count,
        .serial = m->serial,
        .filters = i->filters,
        .max_versions = o->max ? o->max : 1,
        .max_virtual = o->max_virtual,
        .flags = (o->allow_older ? POOL_IMPORT_ALLOW_OLDER : 0) |
                 (o->keep_compressed ? POOL_IMPORT_KEEP_COMPRESSED : 0) |
                 (o->no_clean ? POOL_IMPORT_NO_CLEAN : 0) | (o->dry_run ? POOL_IMPORT_DRY_RUN : 0),
    };
    return pool_import_begin(i->pool, &options, &i->plan, err);
}

/* Of the images that share a payload, those that are wanted. */
static size_t wanted_images(struct import *i, const struct bundle_entry *entry,
                            const struct mirror_image **wanted)
{
    size_t count = 0;
    for (size_t n = 0; n < entry->image_count; n++)
        if (pool_import_wants(i->plan, entry->images[n]->image))
            wanted[count++] = entry->images[n]->image;
    return count;
}

static bool import_payload(struct import *i, const struct bundle_entry *entry,
                           struct uvm_error *err)
{
    uvm_auto_free const struct mirror_image **wanted =
        uvm_alloc((entry->image_count + 1) * sizeof *wanted);
    size_t count = wanted_images(i, entry, wanted);
    if (count == 0)
        return true; /* the reader passes over it, and checks it all the same */
    return pool_import_image(i->plan, wanted, count, bundle_reader_data(i->input.reader), err);
}

static bool import_entries(struct import *i, struct uvm_error *err)
{
    struct bundle_entry entry = {.kind = BUNDLE_ENTRY_MEMBER};
    while (entry.kind != BUNDLE_ENTRY_END) {
        if (!bundle_reader_next(i->input.reader, &entry, err))
            return false;
        bool ok = entry.kind == BUNDLE_ENTRY_PAYLOAD  ? import_payload(i, &entry, err)
                  : entry.kind == BUNDLE_ENTRY_MEMBER ? cmd_bundle_member(&i->input, &entry, err)
                                                      : true;
        if (!ok)
            return false;
    }
    return true;
}

/* ---- what happened ---- */

/* What was done, and what would be done. */
static const struct {
    const char *done, *planned;
} action_words[] = {
    [POOL_SKIP] = {"skipped", "skip"},     [POOL_KEEP] = {"kept", "keep"},
    [POOL_ADD] = {"added", "add"},         [POOL_ADOPT] = {"replaced", "replace"},
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

static void print_steps(const struct import *i)
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

static void print_summary(const struct import *i, const struct pool_cleaned *cleaned)
{
    size_t added = count_action(i, POOL_ADD) + count_action(i, POOL_ADOPT),
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

static bool clean_up(struct import *i, struct pool_cleaned *cleaned, struct uvm_error *err)
{
    bool ok = pool_import_clean(i->plan, cleaned, err);
    cmd_print_cleaned(cleaned, i->options->dry_run);
    return ok;
}

static bool carry_out(struct import *i, struct uvm_error *err)
{
    return i->options->dry_run || (import_entries(i, err) && pool_import_commit(i->plan, err));
}

static bool run_import(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct import_options *o = options;
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    uvm_auto_strings bundles = {0}, filters = {0};
    __attribute__((cleanup(import_clear))) struct import i = {.options = o};
    pool_auto_cleaned cleaned = {0};
    struct pool_options pool_options;
    if (!split_arguments(args, &bundles, &filters, err) ||
        !cmd_pool_options(&o->host, state, &pool_options, err))
        return false;
    if (filters.count && !mirror_filters_new((const char *const *)filters.items, filters.count,
                                             NULL, &i.filters, err))
        return false;
    if (!pool_open(&pool_options, &i.pool, err) || (!o->dry_run && !pool_lock(i.pool, err)) ||
        !cmd_bundle_open(&o->common, &o->trust, bundles.items[0], &i.input, err))
        return false;
    cmd_bundle_describe(&i.input, cmd_note);
    if (!check_authentication(&i, err) || !make_plan(&i, err))
        return false;
    /* What is in place is told, and what it supersedes is cleaned up, also when a part failed. */
    bool ok = carry_out(&i, err);
    if (!ok && err->code != UVM_PARTIAL)
        return false;
    print_steps(&i);
    uvm_auto_error failed = UVM_ERROR_INIT;
    bool cleaned_up = clean_up(&i, &cleaned, &failed);
    print_summary(&i, &cleaned);
    if (!cleaned_up && ok)
        return uvm_fail(err, failed.code, "%s", failed.message);
    if (!cleaned_up)
        uvm_warning(cmd_observer(), "%s", failed.message);
    return ok;
}

const struct cmd_command cmd_import = {
    .name = "import",
    .args = "[OPTION...] BUNDLE [FILTER...]",
    .summary = "verify a bundle and import its images into the pool",
    .details =
        "Verifies BUNDLE (a file, a folder that holds bundles, or '-' for standard input), imports "
        "its images into uvtool's libvirt pool and metadata, retires the versions that it "
        "supersedes, and deletes the superseded ones that no guest uses. A bundle with anything "
        "wrong in it changes nothing. Filters such as release=noble choose among its images.",
    .options = import_options,
    .options_size = sizeof(struct import_options),
    .run = run_import,
};

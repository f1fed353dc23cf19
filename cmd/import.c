/* uvmirror import: bundle -> verified -> pool and metadata -> cleanup. */
#include <string.h>
#include <unistd.h>

#include "cmd/import.h"

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
     offsetof(struct import_options, trust.allow_older)},
    {"no-authentication", 0, CMD_FLAG, NULL,
     "accept streams whose vendor signature nobody checked when they were fetched",
     offsetof(struct import_options, no_authentication)},
    {"report", 0, CMD_TEXT, "FILE",
     "write a receipt (JSON) there, also when the import fails; 'uvmirror show' prints it",
     offsetof(struct import_options, report)},
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
    return cmd_some_bundle(bundles, err);
}

/* ---- the run ---- */

static void import_clear(struct import *i)
{
    pool_import_free(i->plan);
    pool_free(i->pool);
    free(i->sources);
    free(i->needed);
    free(i->fetched);
    mirror_filters_free(i->filters);
    cmd_bundle_clear(&i->input);
    cmd_import_drop_base(i);
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
        .created = m->created,
        .filters = i->filters,
        .max_versions = o->max ? o->max : 1,
        .max_virtual = o->max_virtual,
        .flags = (o->trust.allow_older ? POOL_IMPORT_ALLOW_OLDER : 0) |
                 (o->keep_compressed ? POOL_IMPORT_KEEP_COMPRESSED : 0) |
                 (o->no_clean ? POOL_IMPORT_NO_CLEAN : 0) | (o->dry_run ? POOL_IMPORT_DRY_RUN : 0),
        .forecast = cmd_import_forecast,
        .obtainable = cmd_import_obtainable,
        .approve = cmd_import_approve,
        .opaque = i,
    };
    return pool_import_begin(i->pool, &options, &i->plan, err);
}

static bool import_entries(struct import *i, struct uvm_error *err)
{
    struct bundle_entry entry = {.kind = BUNDLE_ENTRY_MEMBER};
    while (entry.kind != BUNDLE_ENTRY_END) {
        if (!bundle_reader_next(i->input.reader, &entry, err))
            return false;
        bool ok = entry.kind == BUNDLE_ENTRY_PAYLOAD  ? cmd_import_payload(i, &entry, err)
                  : entry.kind == BUNDLE_ENTRY_MEMBER ? cmd_bundle_member(&i->input, &entry, err)
                                                      : true;
        if (!ok)
            return false;
    }
    return true;
}

/* ---- the whole ---- */

static bool clean_up(struct import *i, struct pool_cleaned *cleaned, struct uvm_error *err)
{
    bool ok = pool_import_clean(i->plan, cleaned, err);
    cmd_import_print_cleaned(i, cleaned);
    return ok;
}

static bool carry_out(struct import *i, struct uvm_error *err)
{
    return i->options->dry_run || (import_entries(i, err) && pool_import_commit(i->plan, err));
}

static bool open_all(struct import *i, const struct pool_options *pool,
                     const struct uvm_strings *bundle, struct uvm_error *err)
{
    const struct import_options *o = i->options;
    if (!pool_open(pool, &i->pool, err) || (!o->dry_run && !pool_lock(i->pool, err)) ||
        !cmd_bundle_open(&o->common, &o->trust, bundle, BUNDLE_READ, &i->input, err))
        return false;
    cmd_bundle_describe(&i->input, cmd_note);
    return true;
}

/* With its plan made. What is in place is told, and what it supersedes is cleaned up, also when a
 * part failed. */
static bool import_and_clean(struct import *i, struct pool_cleaned *cleaned, struct uvm_error *err)
{
    bool ok = carry_out(i, err);
    if (!ok && err->code != UVM_PARTIAL)
        return false;
    i->carried_out = true;
    cmd_import_print_steps(i);
    uvm_auto_error failed = UVM_ERROR_INIT;
    bool cleaned_up = clean_up(i, cleaned, &failed);
    cmd_import_print_summary(i, cleaned);
    if (!cleaned_up && ok)
        return uvm_fail(err, failed.code, "%s", failed.message);
    if (!cleaned_up)
        uvm_warning(cmd_observer(), "%s", failed.message);
    return ok;
}

static bool import_bundle(const struct import_options *o, const struct pool_options *pool,
                          const struct uvm_strings *bundle, const struct uvm_strings *filters,
                          struct cmd_receipt *receipt, struct uvm_error *err)
{
    __attribute__((cleanup(import_clear))) struct import i = {
        .options = o, .state_dir = pool->state_dir, .base_fd = -1};
    pool_auto_cleaned cleaned = {0};
    if (filters->count && !mirror_filters_new((const char *const *)filters->items, filters->count,
                                              NULL, &i.filters, err))
        return false;
    bool ok = open_all(&i, pool, bundle, err) &&
              cmd_bundle_check_authentication(&i.input, o->no_authentication, err) &&
              make_plan(&i, err) && import_and_clean(&i, &cleaned, err);
    cmd_import_describe(&i, &cleaned, receipt->tree);
    return ok;
}

static bool run_import(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct import_options *o = options;
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    uvm_auto_strings bundles = {0}, filters = {0};
    __attribute__((cleanup(cmd_receipt_clear))) struct cmd_receipt receipt = {.report = o->report};
    struct pool_options pool;
    if (!split_arguments(args, &bundles, &filters, err) ||
        !cmd_pool_options(&o->host, state, &pool, err))
        return false;
    uvm_auto_free char *bundle = cmd_join(&bundles, " ");
    cmd_receipt_begin(&receipt, bundle);
    cmd_import_describe_request(o, &pool, &filters, receipt.tree);
    if (!o->dry_run)
        receipt.folder = uvm_format("%s/receipts", state);
    /* An import that failed is undone when it returns. */
    bool ok = cmd_import_confine(o, &pool, err) &&
              import_bundle(o, &pool, &bundles, &filters, &receipt, err);
    return cmd_receipt_end(&receipt, ok ? CMD_RUN_WELL : CMD_RUN_FAILED, err);
}

const struct cmd_command cmd_import = {
    .name = "import",
    .args = "[OPTION...] BUNDLE... [FILTER...]",
    .summary = "verify a bundle and import its images into the pool",
    .details =
        "Verifies BUNDLE (a file, the parts of a split one, a folder that holds bundles, or "
        "'-' for standard input), imports "
        "its images into uvtool's libvirt pool and metadata, retires the versions that it "
        "supersedes, and deletes the superseded ones that no guest uses. A bundle with anything "
        "wrong in it changes nothing. Filters such as release=noble choose among its images.",
    .options = import_options,
    .options_size = sizeof(struct import_options),
    .run = run_import,
};

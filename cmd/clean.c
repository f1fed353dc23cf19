/* uvmirror clean: the cleanup alone. */
#include "cmd/cmd.h"

struct clean_options {
    struct cmd_common common;
    struct cmd_host host;
    bool dry_run;
};

static const struct cmd_option clean_options[] = {
    {"dry-run", 'n', CMD_FLAG, NULL, "say what would be deleted, delete nothing",
     offsetof(struct clean_options, dry_run)},
    CMD_HOST_OPTIONS(struct clean_options),
    CMD_COMMON_OPTIONS(struct clean_options),
    {0},
};

static void print_result(const struct pool_cleaned *c, bool dry_run)
{
    uvm_auto_free char *freed = uvm_size_text(c->freed);
    cmd_print("%zu image%s %s, %s %s; %zu kept", c->deleted.count, c->deleted.count == 1 ? "" : "s",
              dry_run ? "to delete" : "deleted", freed, dry_run ? "to free" : "freed",
              c->kept.count);
    cmd_print_json(json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:I}", "event", "result", "dry_run",
                             dry_run, "deleted", cmd_strings_json(&c->deleted), "erased",
                             cmd_strings_json(&c->erased), "kept", cmd_strings_json(&c->kept),
                             "doubts", cmd_strings_json(&c->doubts), "freed",
                             (json_int_t)c->freed));
}

static bool run_clean(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct clean_options *o = options;
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    struct pool_options pool_options;
    UVM_AUTO(pool_free) struct pool *pool = NULL;
    pool_auto_cleaned cleaned = {0};
    if (!cmd_no_arguments(args, err) || !cmd_pool_options(&o->host, state, &pool_options, err) ||
        !pool_open(&pool_options, &pool, err) || (!o->dry_run && !pool_lock(pool, err)))
        return false;
    bool ok = pool_clean(pool, o->dry_run ? POOL_CLEAN_DRY_RUN : 0, &cleaned, err);
    cmd_print_cleaned(&cleaned, o->dry_run);
    /* What was done is told also when a part failed. */
    if (ok || err->code == UVM_PARTIAL)
        print_result(&cleaned, o->dry_run);
    return ok;
}

const struct cmd_command cmd_clean = {
    .name = "clean",
    .args = "[OPTION...]",
    .summary = "delete superseded images that no guest uses",
    .details =
        "Deletes the images that have left the metadata and that no guest needs, directly or "
        "through any chain of backing files. When that cannot be told for sure, nothing is "
        "deleted. 'uvmirror import' ends with this.",
    .options = clean_options,
    .options_size = sizeof(struct clean_options),
    .run = run_clean,
};

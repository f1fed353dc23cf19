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
    if (!ok)
        return false;
    uvm_auto_free char *freed = uvm_size_text(cleaned.freed);
    cmd_print("%zu image%s %s, %s %s; %zu kept for guests", cleaned.deleted.count,
              cleaned.deleted.count == 1 ? "" : "s", o->dry_run ? "to delete" : "deleted", freed,
              o->dry_run ? "to free" : "freed", cleaned.kept.count);
    cmd_print_json(
        json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:I}", "event", "result", "dry_run", o->dry_run,
                  "deleted", cmd_strings_json(&cleaned.deleted), "erased",
                  cmd_strings_json(&cleaned.erased), "kept", cmd_strings_json(&cleaned.kept),
                  "doubts", cmd_strings_json(&cleaned.doubts), "freed", (json_int_t)cleaned.freed));
    return true;
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

/* uvmirror clean: the cleanup alone. */
#include <errno.h>
#include <string.h>

#include "cmd/cmd.h"

#define MAX_AGE_HOURS 1000000UL

struct clean_options {
    struct cmd_common common;
    struct cmd_host host;
    struct uvm_strings ignored_guests;
    bool dry_run, foreign;
    const char *foreign_age;
};

static const struct cmd_option clean_options[] = {
    {"dry-run", 'n', CMD_FLAG, NULL, "say what would be deleted, delete nothing",
     offsetof(struct clean_options, dry_run)},
    {"ignore-guest", 0, CMD_LIST, "NAME",
     "let this guest's files that cannot be read keep nothing: its disk is gone for good",
     offsetof(struct clean_options, ignored_guests)},
    {"foreign", 0, CMD_FLAG, NULL, "delete unused volumes with other names, too, but young ones",
     offsetof(struct clean_options, foreign)},
    {"foreign-age", 0, CMD_TEXT, "HOURS",
     "with --foreign, how long they must have been left as they are (default 24)",
     offsetof(struct clean_options, foreign_age)},
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
    if (c->foreign)
        cmd_note("%zu unused volume%s with other names %s left alone (see 'uvmirror list -v')",
                 c->foreign, c->foreign == 1 ? "" : "s", c->foreign == 1 ? "is" : "are");
    cmd_print_json(json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:I, s:I}", "event", "result",
                             "dry_run", dry_run, "deleted", cmd_strings_json(&c->deleted), "erased",
                             cmd_strings_json(&c->erased), "kept", cmd_strings_json(&c->kept),
                             "doubts", cmd_strings_json(&c->doubts), "overlooked",
                             cmd_strings_json(&c->overlooked), "foreign", (json_int_t)c->foreign,
                             "freed", (json_int_t)c->freed));
}

/* A way out, for whoever knows that there is nothing to lose. */
static void advise(const struct pool_cleaned *c)
{
    for (size_t i = 0; i < c->doubts.count; i++) {
        if (strncmp(c->doubts.items[i], "guest ", strlen("guest ")) != 0)
            continue;
        cmd_note("a guest whose disk is gone for good is passed over by 'uvmirror clean "
                 "--ignore-guest NAME'");
        return;
    }
}

static bool parse_age(const struct clean_options *o, time_t *ret_age, struct uvm_error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long hours = strtoul(o->foreign_age, &end, 10);
    if (!o->foreign)
        return uvm_fail(err, UVM_USAGE, "--foreign-age goes with --foreign");
    if (o->foreign_age[0] < '0' || o->foreign_age[0] > '9' || *end || errno ||
        hours > MAX_AGE_HOURS)
        return uvm_fail(err, UVM_USAGE, "--foreign-age '%s' is no number of hours", o->foreign_age);
    *ret_age = hours ? (time_t)hours * 3600 : POOL_FOREIGN_ANY_AGE;
    return true;
}

static bool run_clean(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct clean_options *o = options;
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    struct pool_options pool_options;
    UVM_AUTO(pool_free) struct pool *pool = NULL;
    pool_auto_cleaned cleaned = {0};
    time_t foreign_age = POOL_FOREIGN_AGE;
    if (o->foreign_age && !parse_age(o, &foreign_age, err))
        return false;
    if (!cmd_no_arguments(args, err) || !cmd_pool_options(&o->host, state, &pool_options, err) ||
        !pool_open(&pool_options, &pool, err) || (!o->dry_run && !pool_lock(pool, err)))
        return false;
    const struct pool_clean_options clean = {
        .flags = (o->dry_run ? POOL_CLEAN_DRY_RUN : 0) | (o->foreign ? POOL_CLEAN_FOREIGN : 0),
        .foreign_age = foreign_age,
        .ignored_guests = &o->ignored_guests,
    };
    bool ok = pool_clean(pool, &clean, &cleaned, err);
    cmd_print_cleaned(&cleaned, o->dry_run);
    advise(&cleaned);
    /* What was done is told also when the rest failed. */
    if (ok || err->code == UVM_PARTIAL || cleaned.deleted.count > 0 || cleaned.erased.count > 0)
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

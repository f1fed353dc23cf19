/* uvmirror list: the images of this host. */
#include "cmd/cmd.h"

struct list_options {
    struct cmd_common common;
    struct cmd_host host;
};

static const struct cmd_option list_options[] = {
    CMD_HOST_OPTIONS(struct list_options),
    CMD_COMMON_OPTIONS(struct list_options),
    {0},
};

static const char *field(const struct pool_entry *e, const char *key)
{
    const char *value = json_string_value(json_object_get(e->about, key));
    return value ? value : "-";
}

static void add_row(struct cmd_table *table, const struct pool_entry *e)
{
    uvm_auto_free char *size =
        e->state == POOL_BROKEN ? uvm_strdup("-") : uvm_size_text(e->allocation);
    uvm_auto_free char *users = cmd_join(&e->users, ", ");
    const char *release = e->about ? field(e, "release") : e->product ? e->product : e->name;
    cmd_table_row(table, (const char *[]){release, field(e, "arch"), field(e, "label"),
                                          e->version ? e->version : "-", pool_state_name(e->state),
                                          size, e->users.count ? users : "-"});
}

static json_t *entry_json(const struct pool_entry *e)
{
    /* The name of a foreign volume need not be UTF-8, and then JSON cannot hold it. */
    uvm_auto_free char *name = uvm_printable(e->name);
    return json_pack("{s:s, s:s?, s:s?, s:s, s:I, s:I, s:o, s:O?}", "name", name, "product",
                     e->product, "version", e->version, "state", pool_state_name(e->state),
                     "allocation", (json_int_t)e->allocation, "capacity", (json_int_t)e->capacity,
                     "users", cmd_strings_json(&e->users), "metadata", e->metadata);
}

/* Filters look at the metadata, as in 'uvt-simplestreams-libvirt query'; a retired image is known by
 * that of its product's other versions. */
static bool entry_matches(const struct mirror_filters *filters, const struct pool_entry *e)
{
    return !filters || (e->about && mirror_filters_match(filters, e->about));
}

static bool run_list(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct list_options *o = options;
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    struct pool_options pool_options;
    UVM_AUTO(pool_free) struct pool *pool = NULL;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    pool_auto_survey survey = {0};
    if (args->count &&
        !mirror_filters_new((const char *const *)args->items, args->count, NULL, &filters, err))
        return false;
    if (!cmd_pool_options(&o->host, state, &pool_options, err) ||
        !pool_open(&pool_options, &pool, err) || !pool_survey_take(pool, &survey, err))
        return false;
    struct cmd_table table = {.columns = 7};
    cmd_table_row(&table, (const char *[]){"RELEASE", "ARCH", "LABEL", "VERSION", "STATE", "SIZE",
                                           "USED-BY"});
    for (size_t i = 0; i < survey.count; i++) {
        const struct pool_entry *e = &survey.entries[i];
        bool shown = e->state == POOL_FOREIGN ? o->common.verbose || cmd_ui_json() : true;
        if (!shown || !entry_matches(filters, e))
            continue;
        add_row(&table, e);
        cmd_print_json(entry_json(e));
    }
    if (table.rows > 1)
        cmd_table_print(&table);
    else
        cmd_note("no images here%s",
                 args->count ? " that match" : "; 'uvmirror import' brings some");
    cmd_table_clear(&table);
    cmd_warn_doubts(&survey.doubts);
    return true;
}

const struct cmd_command cmd_list = {
    .name = "list",
    .args = "[OPTION...] [FILTER...]",
    .summary = "images on this host: state, size, which guests use them",
    .details =
        "Lists the images in the pool. STATE is 'ready' (new guests can be made from it), "
        "'retired' (superseded, but a guest still uses it), 'unused' (superseded, and the next "
        "cleanup deletes it) or 'broken' (metadata without volume). Filters such as "
        "release=noble choose by metadata.",
    .options = list_options,
    .options_size = sizeof(struct list_options),
    .run = run_list,
};

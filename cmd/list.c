/* uvmirror list: the images of this host. */
#include <string.h>

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

/* What fits beside the other columns on a terminal of 80. */
#define NAMES_WIDTH 26
/* Of what keeps an image, so much is told unless --verbose asks for all. */
#define REASONS_SHOWN 5

static const char *field(const struct pool_entry *e, const char *key)
{
    const char *value = json_string_value(json_object_get(e->about, key));
    return value ? value : "-";
}

/* "web1, web2, +3": as many names as fit, and one at least. */
static char *short_names(const struct uvm_strings *names)
{
    char *text = uvm_strdup(names->count ? names->items[0] : "-");
    size_t i = 1;
    for (; i < names->count; i++) {
        uvm_auto_free char *so_far = text;
        text = uvm_format("%s, %s", so_far, names->items[i]);
        if (strlen(text) + strlen(", +999") <= NAMES_WIDTH || i + 1 == names->count)
            continue;
        free(text);
        text = UVM_STEAL(so_far);
        break;
    }
    if (i >= names->count)
        return text;
    uvm_auto_free char *so_far = text;
    return uvm_format("%s, +%zu", so_far, names->count - i);
}

static void add_row(struct cmd_table *table, const struct pool_entry *e)
{
    uvm_auto_free char *size =
        e->state == POOL_BROKEN ? uvm_strdup("-") : uvm_size_text(e->allocation);
    bool doubted = e->state == POOL_RETIRED && e->names.count == 0;
    uvm_auto_free char *names = doubted ? uvm_strdup("not known") : short_names(&e->names);
    const char *release = e->about ? field(e, "release") : e->product ? e->product : e->name;
    cmd_table_row(table, (const char *[]){release, field(e, "arch"), field(e, "label"),
                                          e->version ? e->version : "-", pool_state_name(e->state),
                                          size, names});
}

/* Who needs an image, and through which files; of those without metadata, this is why they are still
 * there. */
static void print_reasons(const struct pool_entry *e, const struct uvm_strings *doubts, bool all)
{
    uvm_auto_free char *title = pool_entry_title(e);
    size_t count = e->users.count;
    size_t shown = all || count <= REASONS_SHOWN ? count : REASONS_SHOWN;
    bool retired = e->state == POOL_RETIRED;
    if (!retired && (!all || count == 0 || !e->product))
        return;
    cmd_print("\n%s is %s by", title, retired ? "kept" : "used");
    for (size_t i = 0; i < shown; i++)
        cmd_print("    %s", e->users.items[i]);
    if (shown < count)
        cmd_print("    and %zu more (see them with --verbose)", count - shown);
    if (count == 0)
        cmd_print("    what cannot be told (%zu warning%s)", doubts->count,
                  doubts->count == 1 ? "" : "s");
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

static bool is_shown(const struct list_options *o, const struct mirror_filters *filters,
                     const struct pool_entry *e)
{
    bool wanted = e->state != POOL_FOREIGN || o->common.verbose || cmd_ui_json();
    return wanted && entry_matches(filters, e);
}

static void print_entries(const struct list_options *o, const struct mirror_filters *filters,
                          const struct pool_survey *survey)
{
    struct cmd_table table = {.columns = 7};
    cmd_table_row(&table, (const char *[]){"RELEASE", "ARCH", "LABEL", "VERSION", "STATE", "SIZE",
                                           "USED-BY"});
    for (size_t i = 0; i < survey->count; i++) {
        if (!is_shown(o, filters, &survey->entries[i]))
            continue;
        add_row(&table, &survey->entries[i]);
        cmd_print_json(entry_json(&survey->entries[i]));
    }
    if (table.rows > 1)
        cmd_table_print(&table);
    else
        cmd_note("no images here%s", filters ? " that match" : "; 'uvmirror import' brings some");
    cmd_table_clear(&table);
    for (size_t i = 0; i < survey->count; i++) {
        if (is_shown(o, filters, &survey->entries[i]))
            print_reasons(&survey->entries[i], &survey->doubts, o->common.verbose);
    }
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
        !pool_open(&pool_options, &pool, err) || !pool_survey_take(pool, &survey, err) ||
        !uvm_go_on(cmd_observer(), err))
        return false;
    print_entries(o, filters, &survey);
    for (size_t i = 0; i < survey.overlooked.count; i++)
        uvm_warning(cmd_observer(), "ignored: %s", survey.overlooked.items[i]);
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

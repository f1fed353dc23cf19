/* What the receivers of a bundle have and can read (--have), and what follows: which architectures, which
 * format. */
#include <string.h>

#include "cmd/cmd.h"

/* ---- inventories ---- */

static bool read_inventory(const char *path, struct bundle_inventory *ret, struct uvm_error *err)
{
    uvm_auto_buf text = {0};
    uvm_auto_free char *shown = uvm_printable(path);
    if (!uvm_file_read(path, BUNDLE_INVENTORY_MAX, &text, err))
        return uvm_prefix(err, "--have");
    return bundle_inventory_parse(text.data ? text.data : "", text.len, ret, err) ||
           uvm_prefix(err, "--have: inventory %s", shown);
}

static bool read_inventories(struct cmd_outgoing *out, struct uvm_error *err)
{
    const struct uvm_strings *files = &out->options->have;
    struct bundle_have *have = &out->have;
    have->inventories = uvm_alloc((files->count + 1) * sizeof *have->inventories);
    for (; have->count < files->count; have->count++)
        if (!read_inventory(files->items[have->count], &have->inventories[have->count], err))
            return false;
    return true;
}

/* ---- architectures ---- */

static void list_architectures(const struct bundle_have *have, struct uvm_strings *list)
{
    for (size_t i = 0; i < have->count; i++)
        if (!uvm_strings_has(list, have->inventories[i].architecture))
            uvm_strings_add(list, have->inventories[i].architecture);
    if (list->count == 0)
        uvm_strings_add(list, mirror_host_arch());
}

/* A filter's key ends with a blank or its operator. */
static bool names_architecture(const struct uvm_strings *filters)
{
    static const char key[] = "arch";
    for (size_t i = 0; i < filters->count; i++)
        if (strncmp(filters->items[i], key, strlen(key)) == 0 &&
            strchr(" !=~", filters->items[i][strlen(key)]) && filters->items[i][strlen(key)])
            return true;
    return false;
}

static bool check_architectures(const struct uvm_strings *list, struct uvm_error *err)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i][strspn(list->items[i], "abcdefghijklmnopqrstuvwxyz0123456789")] != 0)
            return uvm_fail(err, UVM_USAGE, "--have: '%s' is no architecture", list->items[i]);
    return true;
}

bool cmd_outgoing_choose(struct cmd_outgoing *out, const struct uvm_strings *args,
                         struct uvm_error *err)
{
    uvm_auto_strings architectures = {0}, filters = {0};
    if (!read_inventories(out, err))
        return false;
    list_architectures(&out->have, &architectures);
    if (!check_architectures(&architectures, err))
        return false;
    if (architectures.count > 1 && !names_architecture(args)) {
        uvm_auto_free char *any = cmd_join(&architectures, "|");
        uvm_auto_free char *filter = uvm_format("arch~^(%s)$", any);
        uvm_strings_add(&filters, filter);
    }
    for (size_t i = 0; i < args->count; i++)
        uvm_strings_add(&filters, args->items[i]);
    return mirror_filters_new((const char *const *)filters.items, filters.count,
                              architectures.items[0], &out->filters, err);
}

/* ---- formats ---- */

static bool check_receivers(const struct cmd_outgoing *out, struct uvm_error *err)
{
    for (size_t i = 0; i < out->have.count; i++)
        if (out->have.inventories[i].format < BUNDLE_FORMAT_COMPACT)
            return uvm_fail(
                err, UVM_USAGE,
                "--compact: the uvmirror on %s reads bundles of format %u at most: update "
                "it, or do without",
                out->have.inventories[i].host, out->have.inventories[i].format);
    return true;
}

bool cmd_outgoing_check_format(const struct cmd_outgoing *out, struct uvm_error *err)
{
    const struct cmd_outgoing_options *o = out->options;
    if (o->format > BUNDLE_FORMAT)
        return uvm_fail(err, UVM_USAGE, "--format %u: this uvmirror writes formats 1 to %d",
                        o->format, BUNDLE_FORMAT);
    if (o->compact && o->format && o->format < BUNDLE_FORMAT_COMPACT)
        return uvm_fail(err, UVM_USAGE,
                        "--format %u: compact images are of format %d; do without --compact",
                        o->format, BUNDLE_FORMAT_COMPACT);
    if (o->compress_level && !o->compact)
        return uvm_fail(err, UVM_USAGE, "--compress-level is for --compact");
    if (o->compress_level > BUNDLE_COMPACT_LEVEL_MAX)
        return uvm_fail(err, UVM_USAGE, "--compress-level: at most %d", BUNDLE_COMPACT_LEVEL_MAX);
    return !o->compact || check_receivers(out, err);
}

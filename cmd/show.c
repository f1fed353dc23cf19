/* uvmirror show: look into a bundle without reading its images, or at the receipt of an import. */
#include "cmd/receipt.h"

#include <string.h>

struct show_options {
    struct cmd_common common;
    struct cmd_trust trust;
};

static const struct cmd_option show_options[] = {
    CMD_TRUST_OPTIONS(struct show_options),
    CMD_EXPIRY_OPTION(struct show_options),
    CMD_COMMON_OPTIONS(struct show_options),
    {0},
};

/* An item has a column only where it is not the usual one in every row: lines have 80 columns. */
static bool has_other_items(const struct bundle_manifest *m)
{
    for (size_t i = 0; i < m->image_count; i++)
        if (strcmp(m->images[i].image->item, "disk1.img") != 0)
            return true;
    return false;
}

static void print_images(const struct bundle_manifest *m)
{
    struct cmd_table table = {.columns = has_other_items(m) ? 7 : 6};
    cmd_table_row(
        &table, (const char *[]){"RELEASE", "ARCH", "LABEL", "VERSION", "SIZE", "CARRIED", "ITEM"});
    for (size_t i = 0; i < m->image_count; i++) {
        const struct mirror_image *image = m->images[i].image;
        uvm_auto_free char *size = uvm_size_text(image->size),
                           *carried = cmd_payload_text(&m->images[i]);
        cmd_table_row(&table, (const char *[]){mirror_image_get(image, "release"),
                                               mirror_image_get(image, "arch"),
                                               mirror_image_get(image, "label"), image->version,
                                               size, carried, image->item});
    }
    cmd_table_print(&table);
    cmd_table_clear(&table);
}

static bool run_show(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct show_options *o = options;
    __attribute__((cleanup(cmd_bundle_clear))) struct cmd_bundle_input input = {0};
    bool receipt = false;
    cmd_confine_reader();
    if (!cmd_some_bundle(args, err) ||
        (args->count == 1 && !cmd_receipt_show(args->items[0], &receipt, err)))
        return false;
    if (receipt)
        return true;
    if (!cmd_bundle_open(&o->common, &o->trust, args, BUNDLE_LOOK, &input, err))
        return false;
    struct bundle_entry entry = {.kind = BUNDLE_ENTRY_MEMBER};
    while (input.origins_left && entry.kind == BUNDLE_ENTRY_MEMBER) {
        if (!bundle_reader_next(input.reader, &entry, err) ||
            (entry.kind == BUNDLE_ENTRY_MEMBER && !cmd_bundle_member(&input, &entry, err)))
            return false;
    }
    cmd_bundle_describe(&input, cmd_print);
    cmd_bundle_print_uncompared(&input);
    cmd_print("%s", "");
    print_images(bundle_reader_manifest(input.reader));
    cmd_sizes_print(bundle_reader_manifest(input.reader));
    cmd_print_json(cmd_bundle_json(&input));
    return true;
}

const struct cmd_command cmd_show = {
    .name = "show",
    .args = "[OPTION...] BUNDLE...|RECEIPT",
    .summary = "what is in a bundle, who signed it, how old it is",
    .details =
        "Reads the beginning of BUNDLE (a file, the parts of a split one, a folder that holds "
        "bundles, or '-' for standard input), checks its signature and prints what it holds. The "
        "images themselves are not "
        "read: 'uvmirror verify' does that. Of a receipt that 'uvmirror import' wrote it prints "
        "what "
        "was imported, by whose signature, and what came of it.",
    .interrupted = "nothing was changed",
    .options = show_options,
    .options_size = sizeof(struct show_options),
    .run = run_show,
};

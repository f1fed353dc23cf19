/* One file or parts, and whether they are read back: what --split and its neighbours mean. */
#include <string.h>

#include "cmd/cmd.h"

static bool parse_split(const char *text, uint64_t *ret_size, struct uvm_error *err)
{
    static const struct cmd_option size = {.name = "split", .kind = CMD_BYTES};
    if (strcmp(text, "fat32") == 0 || strcmp(text, "auto") == 0) {
        *ret_size = BUNDLE_PART_FAT32;
        return true;
    }
    if (!cmd_option_set(&size, ret_size, text, err))
        return uvm_prefix(err, "neither 'fat32' nor 'auto'");
    return *ret_size >= BUNDLE_PART_MIN ||
           uvm_fail(err, UVM_USAGE, "--split: a part has at least %lluk",
                    (unsigned long long)(BUNDLE_PART_MIN >> 10));
}

bool cmd_outgoing_check_split(const struct cmd_outgoing *out, struct uvm_error *err)
{
    const struct cmd_outgoing_options *o = out->options;
    uint64_t size;
    if (o->read_back && o->no_read_back)
        return uvm_fail(err, UVM_USAGE, "--read-back or --no-read-back?");
    if (o->split && strcmp(cmd_outgoing_output(out), "-") == 0)
        return uvm_fail(err, UVM_USAGE, "--split: standard output takes no parts");
    return !o->split || parse_split(o->split, &size, err);
}

/* What cannot be written is told before anything is downloaded. */
bool cmd_outgoing_part_size(const struct cmd_outgoing *out, uint64_t *ret_size,
                            struct uvm_error *err)
{
    const char *split = out->options->split;
    uvm_auto_free char *folder = bundle_output_folder(cmd_outgoing_output(out));
    uint64_t limit = folder ? bundle_output_file_max(folder) : UINT64_MAX;
    uint64_t bundle = cmd_outgoing_estimate(out), size = 0;
    if (split && strcmp(split, "auto") != 0 && !parse_split(split, &size, err))
        return false;
    if (split && strcmp(split, "auto") == 0 && limit < bundle)
        size = limit;
    if ((size ? size : bundle) > limit) {
        uvm_auto_free char *largest = uvm_size_text(limit);
        return uvm_fail(err, UVM_SPACE,
                        "%s: its file system takes files of up to %s: split the bundle (--split "
                        "fat32)",
                        folder, largest);
    }
    if (size && bundle / size >= BUNDLE_PARTS_MAX)
        return uvm_fail(err, UVM_USAGE, "--split: there would be more than %d parts",
                        BUNDLE_PARTS_MAX);
    *ret_size = size;
    return true;
}

enum bundle_read_back cmd_outgoing_read_back(const struct cmd_outgoing_options *options)
{
    return options->read_back      ? BUNDLE_READ_BACK_ALWAYS
           : options->no_read_back ? BUNDLE_READ_BACK_NEVER
                                   : BUNDLE_READ_BACK_MEDIA;
}

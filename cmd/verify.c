/* uvmirror verify: every byte of a bundle is checked, nothing changes. */
#include "cmd/cmd.h"

struct verify_options {
    struct cmd_common common;
    struct cmd_trust trust;
};

static const struct cmd_option verify_options[] = {
    CMD_TRUST_OPTIONS(struct verify_options),
    CMD_EXPIRY_OPTION(struct verify_options),
    CMD_COMMON_OPTIONS(struct verify_options),
    {0},
};

static bool run_verify(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct verify_options *o = options;
    __attribute__((cleanup(cmd_bundle_clear))) struct cmd_bundle_input input = {0};
    cmd_confine_reader();
    if (!cmd_some_bundle(args, err) ||
        !cmd_bundle_open(&o->common, &o->trust, args, BUNDLE_CHECK, &input, err))
        return false;
    struct bundle_entry entry = {.kind = BUNDLE_ENTRY_MEMBER};
    while (entry.kind != BUNDLE_ENTRY_END) {
        if (!bundle_reader_next(input.reader, &entry, err) ||
            (entry.kind == BUNDLE_ENTRY_MEMBER && !cmd_bundle_member(&input, &entry, err)))
            return false;
    }
    cmd_bundle_describe(&input, cmd_print);
    cmd_print("%s: OK, every byte is what was signed", bundle_reader_name(input.reader));
    json_t *result = cmd_bundle_json(&input);
    json_object_set_new(result, "verified", json_true());
    cmd_print_json(result);
    return true;
}

const struct cmd_command cmd_verify = {
    .name = "verify",
    .args = "[OPTION...] BUNDLE...",
    .summary = "check a bundle fully, change nothing",
    .details =
        "Reads all of BUNDLE (a file, the parts of a split one, a folder that holds bundles, or "
        "'-' for "
        "standard input), and checks its signature and every byte of its content. Names the parts "
        "that are damaged. Nothing on this host changes.",
    .interrupted = "nothing was changed",
    .options = verify_options,
    .options_size = sizeof(struct verify_options),
    .run = run_verify,
};

/* uvmirror bundle: what the mirror holds -> bundle, without network; or parts of one, once more. */
#include <ctype.h>
#include <string.h>

#include "cmd/cmd.h"

#define TITLES_MAX 8 /* images that an error message names */

struct bundle_options {
    struct cmd_common common;
    struct cmd_outgoing_options out;
    const char *again, *parts;
};

static const struct cmd_option bundle_options[] = {
    CMD_OUTGOING_OPTIONS(struct bundle_options),
    {"max", 0, CMD_COUNT, "N",
     "versions of each product, newest first (default: as many as were fetched)",
     offsetof(struct bundle_options, out.max)},
    {"again", 0, CMD_TEXT, "BUNDLE-ID",
     "write parts of this bundle again, which was split, byte for byte",
     offsetof(struct bundle_options, again)},
    {"parts", 0, CMD_TEXT, "LIST", "with --again: the numbers of the parts, such as 3,7",
     offsetof(struct bundle_options, parts)},
    {"dry-run", 'n', CMD_FLAG, NULL, "say what would be bundled, write nothing",
     offsetof(struct bundle_options, out.dry_run)},
    CMD_COMMON_OPTIONS(struct bundle_options),
    {0},
};

/* Chooses from every held stream. */
static bool choose(struct cmd_outgoing *out, const struct mirror_filters *filters,
                   struct uvm_error *err)
{
    out->selections = uvm_alloc((out->count ? out->count : 1) * sizeof *out->selections);
    for (size_t i = 0; i < out->count; i++)
        if (!mirror_tree_select(out->tree, out->streams[i], filters, out->options->max,
                                &out->selections[i], err))
            return false;
    cmd_outgoing_drop_empty(out);
    return true;
}

/* Says what is there instead: most often it is of another architecture than the implied one. */
static bool fail_nothing(struct cmd_outgoing *out, struct uvm_error *err)
{
    static const char *const everything[] = {"arch~", "ftype~", "datatype~"};
    UVM_AUTO(mirror_filters_free) struct mirror_filters *all = NULL;
    __attribute__((cleanup(cmd_outgoing_clear))) struct cmd_outgoing held = {
        .common = out->common, .options = out->options};
    uvm_auto_strings titles = {0};
    size_t count;
    if (!mirror_filters_new(everything, 3, NULL, &all, err) ||
        !mirror_tree_held_streams(out->tree, &held.streams, &held.count, err))
        return false;
    held.tree = UVM_STEAL(out->tree);
    if (!choose(&held, all, err))
        return false;
    uvm_auto_free const struct mirror_image **images = cmd_outgoing_images(&held, &count);
    for (size_t i = 0; i < count && i < TITLES_MAX; i++) {
        uvm_auto_free char *title = mirror_image_title(images[i]);
        uvm_strings_add(&titles, title);
    }
    uvm_auto_free char *filters = cmd_join(mirror_filters_text(out->filters), " "),
                       *list = cmd_join(&titles, ", ");
    return uvm_fail(err, UVM_FAILED, "nothing in the mirror matches %s (it holds %s%s)", filters,
                    count ? list : "no image yet", count > TITLES_MAX ? ", ..." : "");
}

static bool look(struct cmd_outgoing *out, struct uvm_error *err)
{
    if (!mirror_tree_recall(out->tree, cmd_observer(), err) ||
        !mirror_tree_held_streams(out->tree, &out->streams, &out->count, err) ||
        !choose(out, out->filters, err))
        return false;
    return out->count ? mirror_selections_check(out->selections, out->count, err)
                      : fail_nothing(out, err);
}

static void print_dry_run(const struct cmd_outgoing *out)
{
    size_t count = cmd_outgoing_print(out);
    uvm_auto_free char *size = uvm_size_text(cmd_outgoing_estimate(out));
    cmd_print("%zu image%s; the bundle would have up to %s", count, count == 1 ? "" : "s", size);
    cmd_outgoing_forecast(out, CMD_ROOM_BOTH);
}

/* ---- parts, once more ---- */

/* "3,7": numbers, each one once; the array is the caller's. */
static bool parse_parts(const char *given, unsigned **ret_parts, size_t *ret_count,
                        struct uvm_error *err)
{
    const char *list = given;
    uvm_auto_free unsigned *parts = uvm_alloc(BUNDLE_PARTS_MAX * sizeof *parts);
    bool well = true, more = true, seen[BUNDLE_PARTS_MAX + 1] = {false};
    size_t count = 0;
    while (well && more) {
        char *end = NULL;
        unsigned long number = isdigit((unsigned char)*list) ? strtoul(list, &end, 10) : 0;
        well = number >= 1 && number <= BUNDLE_PARTS_MAX && (*end == ',' || *end == 0);
        if (!well)
            break;
        if (!seen[number])
            parts[count++] = (unsigned)number;
        seen[number] = true;
        more = *end == ',';
        list = end + 1;
    }
    if (!well)
        return uvm_fail(err, UVM_USAGE, "--parts: '%s' is no list of numbers such as 3,7", given);
    *ret_parts = UVM_STEAL(parts);
    *ret_count = count;
    return true;
}

static bool check_again(const struct bundle_options *o, const struct uvm_strings *args,
                        struct uvm_error *err)
{
    if (!o->again || !o->parts)
        return uvm_fail(err, UVM_USAGE, "--again BUNDLE-ID and --parts LIST belong together");
    if (o->out.split || o->out.max || o->out.format || o->out.sign_key || o->out.homedir ||
        o->out.dry_run || o->out.compact || o->out.compress_level || o->out.have.count)
        return uvm_fail(err, UVM_USAGE,
                        "--again writes what was written: of other options it knows --mirror, "
                        "--output and --read-back");
    if (o->out.output && strcmp(o->out.output, "-") == 0)
        return uvm_fail(err, UVM_USAGE, "--again: name the folder for the parts (-o)");
    return cmd_no_arguments(args, err);
}

static bool write_again(const struct bundle_options *o, const struct uvm_strings *args,
                        struct uvm_error *err)
{
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = NULL;
    uvm_auto_free unsigned *parts = NULL;
    uvm_auto_strings paths = {0}, safe_paths = {0};
    size_t count = 0;
    if (!check_again(o, args, err) || !parse_parts(o->parts, &parts, &count, err) ||
        !cmd_mirror_open(&o->common, o->out.mirror, CMD_MIRROR_LOOK, &tree, err) ||
        !mirror_tree_recall(tree, cmd_observer(), err))
        return false;
    struct bundle_again_options options = {
        .tree = tree,
        .id = o->again,
        .parts = parts,
        .part_count = count,
        .output = o->out.output ? o->out.output : ".",
        .read_back = cmd_outgoing_read_back(&o->out),
        .observer = cmd_observer(),
    };
    if (!bundle_again(&options, &paths, err))
        return false;
    for (size_t i = 0; i < paths.count; i++) {
        uvm_auto_free char *safe = uvm_printable(paths.items[i]);
        uvm_strings_add(&safe_paths, safe);
        cmd_print("%s", paths.items[i]);
    }
    cmd_print_json(json_pack("{s:s, s:s, s:o}", "event", "result", "id", o->again, "files",
                             cmd_strings_json(&safe_paths)));
    return true;
}

static bool run_bundle(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct bundle_options *o = options;
    __attribute__((cleanup(cmd_outgoing_clear))) struct cmd_outgoing out = {.common = &o->common,
                                                                            .options = &o->out};
    if (o->again || o->parts)
        return write_again(o, args, err);
    if (!cmd_outgoing_choose(&out, args, err) ||
        !cmd_mirror_open(&o->common, o->out.mirror,
                         o->out.dry_run ? CMD_MIRROR_LOOK : CMD_MIRROR_CHANGE, &out.tree, err) ||
        !cmd_outgoing_prepare(&out, err) || !look(&out, err))
        return false;
    if (!o->out.dry_run)
        return cmd_outgoing_check_room(&out, 0, CMD_ROOM_BOTH, err) &&
               cmd_outgoing_write(&out, NULL, err);
    print_dry_run(&out);
    return true;
}

const struct cmd_command cmd_bundle = {
    .name = "bundle",
    .args = "[OPTION...] [FILTER...]",
    .summary = "write a bundle from what the mirror holds, no network",
    .details =
        "Writes one signed bundle of the images that earlier fetches and adds brought into the "
        "mirror, of all its streams, as far as they match all FILTERs. Implied, unless a filter "
        "names the key: arch=(this host's), ftype=disk1.img, datatype=image-downloads.",
    .private = true,
    .interrupted = "no bundle was written, the mirror is as it was",
    .options = bundle_options,
    .options_size = sizeof(struct bundle_options),
    .run = run_bundle,
};

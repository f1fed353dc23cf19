/* uvmirror verify: every byte of a bundle is checked, nothing changes. */
#include "cmd/cmd.h"

struct verify_options {
    struct cmd_common common;
    struct cmd_trust trust;
    bool deep;
};

static const struct cmd_option verify_options[] = {
    {"deep", 0, CMD_FLAG, NULL,
     "make the vendor's own bytes of compact images again, and compare their checksums; "
     "comes with --require-origin and --origin-keyring",
     offsetof(struct verify_options, deep)},
    CMD_TRUST_OPTIONS(struct verify_options),
    CMD_EXPIRY_OPTION(struct verify_options),
    CMD_COMMON_OPTIONS(struct verify_options),
    {0},
};

struct verify {
    const struct verify_options *options;
    struct cmd_bundle_input input;
    bool deep;              /* asked for, or of a vendor's word */
    json_t *rebuilt, *left; /* titles; and objects that tell what they need */
};

static void verify_clear(struct verify *v)
{
    cmd_bundle_clear(&v->input);
    json_decref(v->rebuilt);
    json_decref(v->left);
}

/* ---- images, made again ---- */

/* With what the chain of its bases begins: NULL when all of it is in the bundle. */
static const struct bundle_base_name *outer_base(const struct bundle_image *image)
{
    while (image->base.image)
        image = image->base.image;
    return image->base.product ? &image->base : NULL;
}

static bool can_be_rebuilt(void *opaque, const struct bundle_image *image)
{
    (void)opaque;
    return image->encoding == BUNDLE_COMPACT && !outer_base(image);
}

static void leave(struct verify *v, const char *title, const struct bundle_base_name *base)
{
    uvm_auto_free char *needs = uvm_format("%s %s", base->product, base->version);
    cmd_print("%s needs %s, not rebuilt here", title, needs);
    json_array_append_new(v->left, json_pack("{s:s, s:s}", "title", title, "needs", needs));
}

static bool rebuild(struct verify *v, const struct bundle_entry *entry, const char *title,
                    struct uvm_error *err)
{
    const struct bundle_image *image = entry->images[0];
    struct bundle_image_options options = {.wants = can_be_rebuilt,
                                           .spool_dir = uvm_temporary_folder()};
    struct uvm_reader bytes;
    const void *data;
    const struct bundle_base_name *outer = outer_base(image);
    if (outer) {
        leave(v, title, outer);
        return true;
    }
    if (!bundle_reader_image(v->input.reader, &options, &bytes, err))
        return false;
    for (size_t len = 1; len > 0;)
        if (!bytes.read(bytes.opaque, &data, &len, err))
            return false;
    json_array_append_new(v->rebuilt, json_string(title));
    cmd_bundle_rebuilt(&v->input, entry);
    return true;
}

/* ---- the run ---- */

static bool check_payload(struct verify *v, const struct bundle_entry *entry, struct uvm_error *err)
{
    const struct bundle_image *image = entry->images[0];
    uvm_auto_free char *title = mirror_image_title(image->image);
    return !v->deep || image->encoding != BUNDLE_COMPACT || rebuild(v, entry, title, err);
}

static bool check_entries(struct verify *v, struct uvm_error *err)
{
    struct bundle_entry entry = {.kind = BUNDLE_ENTRY_MEMBER};
    while (entry.kind != BUNDLE_ENTRY_END) {
        if (!bundle_reader_next(v->input.reader, &entry, err))
            return false;
        bool ok = entry.kind == BUNDLE_ENTRY_MEMBER    ? cmd_bundle_member(&v->input, &entry, err)
                  : entry.kind == BUNDLE_ENTRY_PAYLOAD ? check_payload(v, &entry, err)
                                                       : true;
        if (!ok)
            return false;
    }
    return true;
}

/* That it can be made says nothing of the content that a receiver takes who asks no vendor. */
static void print_rebuilt(size_t count)
{
    cmd_print("%zu compact image%s rebuilt: the vendor's own bytes can be made of %s.", count,
              count == 1 ? "" : "s", count == 1 ? "it" : "them");
    cmd_print("%s", "A receiver with --require-origin takes the content from these bytes.");
}

static void print_result(struct verify *v)
{
    size_t rebuilt = json_array_size(v->rebuilt);
    cmd_bundle_describe(&v->input, cmd_print);
    cmd_print("%s: OK, every byte is what was signed", bundle_reader_name(v->input.reader));
    if (rebuilt)
        print_rebuilt(rebuilt);
    cmd_bundle_print_uncompared(&v->input);
    json_t *result = cmd_bundle_json(&v->input);
    json_object_set_new(result, "verified", json_true());
    if (v->deep) {
        json_object_set(result, "rebuilt", v->rebuilt);
        json_object_set(result, "not_rebuilt", v->left);
    }
    cmd_print_json(result);
}

static bool run_verify(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct verify_options *o = options;
    __attribute__((cleanup(verify_clear))) struct verify v = {
        .options = o, .rebuilt = json_array(), .left = json_array()};
    cmd_confine_reader();
    if (!cmd_some_bundle(args, err) ||
        !cmd_bundle_open(&o->common, &o->trust, args, BUNDLE_CHECK, &v.input, err))
        return false;
    v.deep = o->deep || v.input.vendor;
    if (!check_entries(&v, err))
        return false;
    print_result(&v);
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
        "that are damaged. Nothing on this host changes; --deep needs room in the folder for "
        "temporary "
        "files.",
    .interrupted = "nothing was changed",
    .options = verify_options,
    .options_size = sizeof(struct verify_options),
    .run = run_verify,
};

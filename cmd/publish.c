/* uvmirror publish: bundles -> verified -> a signed simplestreams tree for a web server. */
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

#define GRACE_SECONDS (24 * 60 * 60)

struct publish_options {
    struct cmd_common common;
    struct cmd_trust trust;
    const char *tree, *sign_key, *homedir;
    unsigned max, grace;
    bool no_authentication;
};

static const struct publish_options publish_defaults = {.max = 1, .grace = GRACE_SECONDS};

static const struct cmd_option publish_options[] = {
    {"tree", 0, CMD_TEXT, "DIR", "the folder that the web server serves",
     offsetof(struct publish_options, tree)},
    {"max", 0, CMD_COUNT, "N", "versions of each product that stay (default 1)",
     offsetof(struct publish_options, max)},
    {"grace", 0, CMD_SECONDS, "TIME",
     "how long files stay that the index ceased to name, such as 6h or 2d (default 1d)",
     offsetof(struct publish_options, grace)},
    {"allow-older", 0, CMD_FLAG, NULL,
     "take a bundle that is older than what was published, and go on from there",
     offsetof(struct publish_options, trust.allow_older)},
    {"no-authentication", 0, CMD_FLAG, NULL,
     "accept streams whose vendor signature nobody checked when they were fetched",
     offsetof(struct publish_options, no_authentication)},
    {"sign-key", 0, CMD_TEXT, "KEY", "sign with this key, when there are several",
     offsetof(struct publish_options, sign_key)},
    {"homedir", 0, CMD_TEXT, "DIR", "the GnuPG home folder of the signing key",
     offsetof(struct publish_options, homedir)},
    CMD_TRUST_OPTIONS(struct publish_options),
    CMD_COMMON_OPTIONS(struct publish_options),
    {0},
};

/* One bundle on its way into the tree. */
struct publish {
    const struct publish_options *options;
    struct mirror_publisher *publisher; /* borrowed */
    struct cmd_bundle_input input;
    struct mirror_release *releases;
    int base_fd;
    struct mirror_disk *base; /* of base_fd */
};

static void close_base(struct publish *p)
{
    mirror_disk_free(p->base);
    p->base = NULL;
    uvm_close_ptr(&p->base_fd);
}

static void publish_clear(struct publish *p)
{
    cmd_bundle_clear(&p->input); /* its thread may still read the base */
    close_base(p);
    free(p->releases);
}

/* ---- images ---- */

static bool read_base(void *opaque, uint64_t offset, void *data, size_t len, struct uvm_error *err)
{
    const struct publish *p = opaque;
    return mirror_disk_read(p->base, offset, data, len, err);
}

/* What a difference refers to is in the tree, or the bundle is for somebody else. */
static bool find_base(void *opaque, const struct bundle_image *image, struct bundle_base *ret_base,
                      struct uvm_error *err)
{
    struct publish *p = opaque;
    close_base(p);
    p->base_fd =
        mirror_publisher_open_image(p->publisher, image->base.product, image->base.version);
    if (p->base_fd < 0)
        return uvm_fail(err, UVM_CONTENT,
                        "it is a difference to %s %s, which is not published here: a full bundle "
                        "is needed",
                        image->base.product, image->base.version);
    off_t size = lseek(p->base_fd, 0, SEEK_END);
    if (!mirror_disk_open(p->base_fd, (uint64_t)size, MIRROR_VIRTUAL_MAX, cmd_observer(), &p->base,
                          err))
        return false;
    *ret_base = (struct bundle_base){read_base, p};
    return true;
}

static bool wants(void *opaque, const struct bundle_image *image)
{
    const struct publish *p = opaque;
    return mirror_publisher_wants(p->publisher, image->image);
}

/* The first of a payload's images was taken in: others of the same bytes have paths of their own. */
static bool share_payload(struct publish *p, const struct bundle_entry *entry, size_t first,
                          struct uvm_error *err)
{
    for (size_t i = first + 1; i < entry->image_count; i++)
        if (wants(p, entry->images[i]) &&
            !mirror_publisher_same(p->publisher, entry->images[first]->image,
                                   entry->images[i]->image, err))
            return false;
    return true;
}

static bool publish_payload(struct publish *p, const struct bundle_entry *entry,
                            struct uvm_error *err)
{
    const struct bundle_image_options options = {.find_base = find_base,
                                                 .wants = wants,
                                                 .opaque = p,
                                                 .spool_dir = p->options->tree,
                                                 .max_virtual = MIRROR_VIRTUAL_MAX};
    for (size_t i = 0; i < entry->image_count; i++) {
        struct uvm_reader bytes;
        if (!wants(p, entry->images[i]))
            continue;
        return bundle_reader_image(p->input.reader, &options, &bytes, err) &&
               mirror_publisher_image(p->publisher, entry->images[i]->image, bytes, err) &&
               share_payload(p, entry, i, err);
    }
    /* The reader checks it all the same; a later one may refer to it. */
    return bundle_reader_pass(p->input.reader, &options, err);
}

/* ---- streams ---- */

/* The site's own products files of the bundle are what is published, not the vendor's whole ones. */
static bool publish_member(struct publish *p, const struct bundle_entry *entry,
                           struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(p->input.reader);
    for (size_t i = 0; i < m->stream_count; i++) {
        uvm_auto_free char *name = uvm_format("streams/v1/%s.json", m->streams[i]->content_id);
        uvm_auto_buf text = {.max = BUNDLE_MEMBER_MAX};
        if (strcmp(entry->path, name) == 0)
            return bundle_reader_slurp(p->input.reader, &text, err) &&
                   mirror_publisher_products(p->publisher, m->streams[i]->content_id, text.data,
                                             text.len, err);
    }
    return cmd_bundle_member(&p->input, entry, err);
}

static bool begin(struct publish *p, struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(p->input.reader);
    p->releases = uvm_alloc((m->stream_count + 1) * sizeof *p->releases);
    for (size_t i = 0; i < m->stream_count; i++)
        p->releases[i] = (struct mirror_release){.content_id = m->streams[i]->content_id,
                                                 .updated_at = m->streams[i]->updated_at,
                                                 .serial = m->serial,
                                                 .selection = &m->streams[i]->selection};
    return mirror_publisher_begin(p->publisher, p->releases, m->stream_count, err);
}

static bool publish_entries(struct publish *p, struct uvm_error *err)
{
    struct bundle_entry entry = {.kind = BUNDLE_ENTRY_MEMBER};
    while (entry.kind != BUNDLE_ENTRY_END) {
        if (!bundle_reader_next(p->input.reader, &entry, err))
            return false;
        bool ok = entry.kind == BUNDLE_ENTRY_PAYLOAD  ? publish_payload(p, &entry, err)
                  : entry.kind == BUNDLE_ENTRY_MEMBER ? publish_member(p, &entry, err)
                                                      : true;
        if (!ok)
            return false;
    }
    return true;
}

/* ---- the whole ---- */

static void print_published(const struct publish *p, const struct mirror_published *done)
{
    uvm_auto_free char *tree = uvm_printable(p->options->tree);
    cmd_print("%s: %zu image%s published, %zu new, %zu no longer named, %zu file%s removed", tree,
              done->images, done->images == 1 ? "" : "s", done->added, done->dropped, done->removed,
              done->removed == 1 ? "" : "s");
    cmd_print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "event", "result", "bundle",
                             bundle_reader_manifest(p->input.reader)->id, "tree", tree, "images",
                             (json_int_t)done->images, "added", (json_int_t)done->added, "dropped",
                             (json_int_t)done->dropped, "removed", (json_int_t)done->removed));
}

static bool publish_bundle(const struct publish_options *o, struct mirror_publisher *publisher,
                           const char *argument, struct uvm_error *err)
{
    __attribute__((cleanup(publish_clear))) struct publish p = {
        .options = o, .publisher = publisher, .base_fd = -1};
    uvm_auto_strings bundle = {0};
    struct mirror_published done;
    uvm_strings_add(&bundle, argument);
    if (!cmd_bundle_open(&o->common, &o->trust, &bundle, BUNDLE_READ, &p.input, err) ||
        !cmd_bundle_check_authentication(&p.input, o->no_authentication, err))
        return false;
    cmd_bundle_describe(&p.input, cmd_note);
    if (!begin(&p, err) || !publish_entries(&p, err) ||
        !mirror_publisher_commit(publisher, &done, err))
        return uvm_prefix(err, "%s", bundle_reader_name(p.input.reader));
    print_published(&p, &done);
    return true;
}

static bool open_signer(const struct publish_options *o, struct uvm_signer **ret_signer,
                        struct uvm_error *err)
{
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    uvm_auto_free char *home = o->homedir ? uvm_strdup(o->homedir) : uvm_format("%s/gnupg", state);
    return uvm_signer_new(home, o->sign_key, ret_signer, err) || uvm_prefix(err, "%s", home);
}

static bool run_publish(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct publish_options *o = options;
    UVM_AUTO(uvm_signer_free) struct uvm_signer *signer = NULL;
    UVM_AUTO(mirror_publisher_free) struct mirror_publisher *publisher = NULL;
    struct mirror_publish_options tree = {.dir = o->tree,
                                          .now = time(NULL),
                                          .max = o->max,
                                          .grace_seconds = o->grace,
                                          .allow_older = o->trust.allow_older,
                                          .observer = cmd_observer()};
    if (!o->tree || !*o->tree)
        return uvm_fail(err, UVM_USAGE, "--tree DIR is missing: the folder that is served");
    if (!cmd_some_bundle(args, err) || !open_signer(o, &signer, err))
        return false;
    tree.signer = signer;
    if (!mirror_publisher_open(&tree, &publisher, err))
        return false;
    for (size_t i = 0; i < args->count; i++)
        if (!publish_bundle(o, publisher, args->items[i], err))
            return false;
    return true;
}

const struct cmd_command cmd_publish = {
    .name = "publish",
    .args = "[OPTION...] BUNDLE... --tree DIR",
    .summary = "turn bundles into a signed simplestreams tree for a web server",
    .details =
        "Verifies each BUNDLE (a file, the first part or the sums of a split one, a folder of "
        "which "
        "the newest is taken, or '-' for standard input) and puts its images into DIR, then "
        "products and an index that the site's key signs. The tree may be served meanwhile: "
        "whatever an index names is there before it, and stays for a time after it. Hosts of the "
        "site fetch from it with 'uvt-simplestreams-libvirt sync' or 'uvmirror fetch'.",
    .interrupted = "what the tree's index names is complete; run the same command again",
    .options = publish_options,
    .options_size = sizeof(struct publish_options),
    .defaults = &publish_defaults,
    .run = run_publish,
};

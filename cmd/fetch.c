/* uvmirror fetch: source -> verified streams -> selection -> mirror -> bundle. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"

#define DEFAULT_SOURCE "https://cloud-images.ubuntu.com/releases/"
#define DEFAULT_PATH   "streams/v1/index.sjson"

struct fetch_options {
    struct cmd_common common;
    const char *source, *path, *mirror, *output, *sign_key, *homedir;
    struct uvm_strings keyrings;
    bool no_authentication, no_bundle, dry_run;
    unsigned max;
};

static const struct cmd_option fetch_options[] = {
    {"source", 0, CMD_TEXT, "URL",
     "http, https or file URL, or a folder (default " DEFAULT_SOURCE ")",
     offsetof(struct fetch_options, source)},
    {"path", 0, CMD_TEXT, "PATH", "the index or products file below it (default " DEFAULT_PATH ")",
     offsetof(struct fetch_options, path)},
    {"keyring", 0, CMD_LIST, "FILE",
     "the vendor's public keys (default " CMD_VENDOR_KEYRING
     ", from package ubuntu-cloudimage-keyring)",
     offsetof(struct fetch_options, keyrings)},
    {"no-authentication", 0, CMD_FLAG, NULL,
     "do not check the vendor's signature; anybody on the way can then change the images",
     offsetof(struct fetch_options, no_authentication)},
    {"mirror", 0, CMD_TEXT, "DIR",
     "keep the mirrored images here (default: below the state folder)",
     offsetof(struct fetch_options, mirror)},
    {"max", 0, CMD_COUNT, "N", "versions of each product, newest first (default 1)",
     offsetof(struct fetch_options, max)},
    {"output", 'o', CMD_TEXT, "FILE",
     "the bundle, or a folder for it, or '-' (default: this folder)",
     offsetof(struct fetch_options, output)},
    {"sign-key", 0, CMD_TEXT, "KEY", "sign with this key, when there are several",
     offsetof(struct fetch_options, sign_key)},
    {"homedir", 0, CMD_TEXT, "DIR", "the GnuPG home folder of the signing key",
     offsetof(struct fetch_options, homedir)},
    {"no-bundle", 0, CMD_FLAG, NULL, "mirror only, write no bundle",
     offsetof(struct fetch_options, no_bundle)},
    {"dry-run", 'n', CMD_FLAG, NULL, "say what would be downloaded, change nothing",
     offsetof(struct fetch_options, dry_run)},
    CMD_COMMON_OPTIONS(struct fetch_options),
    {0},
};

/* What a run has found out; cleared as a whole. */
struct fetch {
    const struct fetch_options *options;
    struct mirror_filters *filters;
    struct uvm_verifier *vendor;
    struct mirror_source *source;
    struct mirror_stream **streams;
    struct mirror_selection *selections;
    size_t count;
    struct uvm_signer *signer;
    struct mirror_tree *tree;
};

static void fetch_clear(struct fetch *f)
{
    for (size_t i = 0; i < f->count; i++) {
        mirror_selection_clear(&f->selections[i]);
        mirror_stream_free(f->streams[i]);
    }
    free(f->selections);
    free(f->streams);
    mirror_tree_free(f->tree);
    uvm_signer_free(f->signer);
    mirror_source_free(f->source);
    uvm_verifier_free(f->vendor);
    mirror_filters_free(f->filters);
}

/* ---- what there is ---- */

static bool open_source(struct fetch *f, struct uvm_error *err)
{
    const struct fetch_options *o = f->options;
    const char *path = o->path ? o->path : DEFAULT_PATH;
    if (o->no_authentication) {
        uvm_warning(cmd_observer(),
                    "--no-authentication: the vendor's signature is not checked; whoever "
                    "controls the way to the source controls the images");
    } else if (!cmd_vendor_verifier(&o->keyrings, "--keyring", &f->vendor, err)) {
        return false;
    }
    struct mirror_source_options options = {
        .url = o->source ? o->source : DEFAULT_SOURCE,
        .path = path,
        .verifier = f->vendor,
        .network = MIRROR_NETWORK_DEFAULT,
        .observer = cmd_observer(),
    };
    return mirror_source_new(&options, &f->source, err);
}

static bool select_all(struct fetch *f, struct uvm_error *err)
{
    unsigned max = f->options->max ? f->options->max : 1;
    f->selections = uvm_alloc((f->count ? f->count : 1) * sizeof *f->selections);
    for (size_t i = 0; i < f->count; i++)
        if (!mirror_stream_select(f->streams[i], f->filters, max, &f->selections[i], err))
            return false;
    return mirror_selections_check(f->selections, f->count, err);
}

/* Streams in which nothing was chosen say nothing to a receiver: they are left out. */
static void drop_empty_streams(struct fetch *f)
{
    size_t kept = 0;
    for (size_t i = 0; i < f->count; i++) {
        if (f->selections[i].count == 0) {
            mirror_selection_clear(&f->selections[i]);
            mirror_stream_free(f->streams[i]);
            continue;
        }
        f->streams[kept] = f->streams[i];
        f->selections[kept++] = f->selections[i];
    }
    f->count = kept;
}

static bool look(struct fetch *f, struct uvm_error *err)
{
    if (!open_source(f, err) ||
        !mirror_source_streams(f->source, f->filters, &f->streams, &f->count, err) ||
        !select_all(f, err))
        return false;
    drop_empty_streams(f);
    if (f->count == 0) {
        uvm_auto_free char *filters = cmd_join(mirror_filters_text(f->filters), " ");
        return uvm_fail(err, UVM_SOURCE, "%s: nothing there matches %s",
                        mirror_source_url(f->source), filters);
    }
    return true;
}

/* ---- the images, one by one ---- */

static bool each_image(struct fetch *f,
                       bool (*visit)(struct fetch *f, const struct mirror_image *image,
                                     void *opaque, struct uvm_error *err),
                       void *opaque, struct uvm_error *err)
{
    for (size_t i = 0; i < f->count; i++)
        for (size_t p = 0; p < f->selections[i].count; p++) {
            const struct mirror_product *product = &f->selections[i].products[p];
            for (size_t n = 0; n < product->image_count; n++)
                if (!visit(f, &product->images[n], opaque, err))
                    return false;
        }
    return true;
}

struct plan {
    size_t images, missing;
    uint64_t bytes, missing_bytes;
};

static bool plan_image(struct fetch *f, const struct mirror_image *image, void *opaque,
                       struct uvm_error *err)
{
    (void)err;
    struct plan *plan = opaque;
    bool have = f->tree && mirror_tree_has(f->tree, image);
    plan->images++;
    plan->bytes += image->size;
    plan->missing += !have;
    plan->missing_bytes += have ? 0 : image->size;
    uvm_auto_free char *title = mirror_image_title(image), *size = uvm_size_text(image->size);
    if (f->options->dry_run)
        cmd_print("%s  %s, %s", title, size, have ? "in the mirror" : "to download");
    if (f->options->dry_run)
        cmd_print_json(json_pack("{s:s, s:s, s:s, s:s, s:I, s:b}", "event", "plan", "product",
                                 image->product, "version", image->version, "path", image->path,
                                 "size", (json_int_t)image->size, "in_mirror", have));
    return true;
}

static bool list_image(struct fetch *f, const struct mirror_image *image, void *opaque,
                       struct uvm_error *err)
{
    (void)f, (void)err;
    const struct mirror_image ***next = opaque;
    *(*next)++ = image;
    return true;
}

static bool fetch_images(struct fetch *f, const struct plan *plan, struct uvm_error *err)
{
    uvm_auto_free const struct mirror_image **images = uvm_alloc(plan->images * sizeof *images);
    const struct mirror_image **next = images;
    each_image(f, list_image, &next, err);
    UVM_AUTO(mirror_download_free)
    struct mirror_download *download =
        mirror_download_start(f->tree, f->source, images, plan->images, cmd_observer());
    return mirror_download_wait(download, err);
}

/* ---- mirror and bundle ---- */

static char *mirror_dir(const struct fetch_options *o)
{
    if (o->mirror)
        return uvm_strdup(o->mirror);
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    return uvm_format("%s/mirror", state);
}

static const char *output_of(const struct fetch_options *o)
{
    return o->output ? o->output : ".";
}

/* The mirror is opened for a dry run only when it is there: a dry run makes nothing. */
static bool open_tree(struct fetch *f, struct uvm_error *err)
{
    const struct fetch_options *o = f->options;
    uvm_auto_free char *dir = mirror_dir(o);
    uvm_auto_free char *own = uvm_format("%s/uvmirror", dir);
    if (o->dry_run && access(own, F_OK) < 0)
        return true;
    return mirror_tree_open(dir, &f->tree, err) &&
           (o->no_bundle || o->dry_run || bundle_output_check(output_of(o), f->tree, err));
}

/* Before the first byte: without a key there is no bundle, whatever was downloaded. */
static bool open_signer(struct fetch *f, struct uvm_error *err)
{
    const struct fetch_options *o = f->options;
    if (o->no_bundle || o->dry_run)
        return true;
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    uvm_auto_free char *home = o->homedir ? uvm_strdup(o->homedir) : uvm_format("%s/gnupg", state);
    return uvm_signer_new(home, o->sign_key, &f->signer, err) || uvm_prefix(err, "%s", home);
}

static bool check_room(const char *what, const char *dir, uint64_t need, struct uvm_error *err)
{
    uint64_t free_bytes;
    if (!uvm_free_space(dir, &free_bytes, err))
        return false;
    if (need <= free_bytes)
        return true;
    uvm_auto_free char *needed = uvm_size_text(need), *there = uvm_size_text(free_bytes);
    return uvm_fail(err, UVM_SPACE, "%s: the %s needs %s, and %s are free", dir, what, needed,
                    there);
}

/* Mirror and output may be one file system; then the room must do for both. */
static bool check_space(struct fetch *f, const struct plan *plan, struct uvm_error *err)
{
    uint64_t bundle = f->options->no_bundle
                          ? 0
                          : bundle_estimate((const struct mirror_stream *const *)f->streams,
                                            f->selections, f->count);
    uvm_auto_free char *out = bundle_output_folder(output_of(f->options));
    struct stat mirror_st, out_st;
    bool shared = bundle && out && stat(mirror_tree_dir(f->tree), &mirror_st) == 0 &&
                  stat(out, &out_st) == 0 && mirror_st.st_dev == out_st.st_dev;
    if (!check_room("mirror", mirror_tree_dir(f->tree), plan->missing_bytes + (shared ? bundle : 0),
                    err))
        return false;
    return shared || !bundle || !out || check_room("bundle", out, bundle, err);
}

static bool write_bundle(struct fetch *f, struct uvm_error *err)
{
    struct bundle_create_options options = {
        .tree = f->tree,
        .streams = (const struct mirror_stream *const *)f->streams,
        .selections = f->selections,
        .stream_count = f->count,
        .filters = mirror_filters_text(f->filters),
        .signer = f->signer,
        .now = time(NULL),
        .output = output_of(f->options),
        .observer = cmd_observer(),
    };
    __attribute__((cleanup(bundle_created_clear))) struct bundle_created created = {0};
    if (!bundle_create(&options, &created, err))
        return uvm_prefix(err, "bundle");
    cmd_note("signed %zu image%s with %s", created.manifest->image_count,
             created.manifest->image_count == 1 ? "" : "s", created.manifest->signer);
    if (created.path)
        cmd_print("%s", created.path);
    uvm_auto_free char *file = uvm_printable(created.path);
    if (created.path)
        cmd_print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:s}", "event", "result", "file", file,
                                 "id", created.manifest->id, "serial",
                                 (json_int_t)created.manifest->serial, "bytes",
                                 (json_int_t)created.bytes, "signer", created.manifest->signer));
    return true;
}

static bool print_dry_run(const struct plan *plan)
{
    uvm_auto_free char *bytes = uvm_size_text(plan->bytes),
                       *missing = uvm_size_text(plan->missing_bytes);
    cmd_print("%zu image%s, %s; to download: %zu, %s", plan->images, plan->images == 1 ? "" : "s",
              bytes, plan->missing, missing);
    return true;
}

static bool run_fetch(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct fetch_options *o = options;
    __attribute__((cleanup(fetch_clear))) struct fetch f = {.options = o};
    struct plan plan = {0};
    if (o->common.json && o->output && strcmp(o->output, "-") == 0)
        return uvm_fail(err, UVM_USAGE, "--json and a bundle cannot both go to standard output");
    if (!mirror_filters_new((const char *const *)args->items, args->count, mirror_host_arch(),
                            &f.filters, err) ||
        !open_signer(&f, err) || !open_tree(&f, err) || !look(&f, err) ||
        !each_image(&f, plan_image, &plan, err))
        return false;
    if (o->dry_run)
        return print_dry_run(&plan);
    return check_space(&f, &plan, err) && fetch_images(&f, &plan, err) &&
           (o->no_bundle || write_bundle(&f, err));
}

const struct cmd_command cmd_fetch = {
    .name = "fetch",
    .args = "[OPTION...] [FILTER...]",
    .summary = "mirror images and write a signed bundle",
    .details =
        "Downloads the newest images that match all FILTERs (such as release=noble) from a "
        "simplestreams source into the mirror, checks the vendor's signatures and checksums, and "
        "writes them into one signed bundle. Implied, unless a filter names the key: arch=(this "
        "host's), ftype=disk1.img, datatype=image-downloads.",
    .interrupted = "what was downloaded is kept: the same command goes on from there",
    .options = fetch_options,
    .options_size = sizeof(struct fetch_options),
    .run = run_fetch,
};

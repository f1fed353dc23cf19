/*
 * uvmirror fetch: source -> verified streams -> selection -> mirror -> bundle.
 *
 * The bundle is written while images arrive, where its manifest, which stands in front, can be known
 * by then. The mirror is completed first in any case: a bundle that fails leaves a good mirror.
 */
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

#define DEFAULT_SOURCE "https://cloud-images.ubuntu.com/releases/"
#define DEFAULT_PATH   "streams/v1/index.sjson"

struct fetch_options {
    struct cmd_common common;
    struct cmd_outgoing_options out;
    struct mirror_network network;
    const char *source, *path;
    struct uvm_strings keyrings;
    bool no_authentication, no_bundle, check, allow_older;
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
    {"max", 0, CMD_COUNT, "N", "versions of each product, newest first (default 1)",
     offsetof(struct fetch_options, out.max)},
    CMD_OUTGOING_OPTIONS(struct fetch_options),
    {"no-bundle", 0, CMD_FLAG, NULL, "mirror only, write no bundle",
     offsetof(struct fetch_options, no_bundle)},
    {"check", 0, CMD_FLAG, NULL,
     "hash every image of the mirror again first; damaged ones are downloaded anew",
     offsetof(struct fetch_options, check)},
    {"allow-older", 0, CMD_FLAG, NULL,
     "let a stream that is older than what the mirror holds replace it",
     offsetof(struct fetch_options, allow_older)},
    {"dry-run", 'n', CMD_FLAG, NULL,
     "say what would be downloaded, bundled and removed, change nothing",
     offsetof(struct fetch_options, out.dry_run)},
    {"jobs", 'j', CMD_COUNT, "N", "download so many files at once (default 4)",
     offsetof(struct fetch_options, network.jobs)},
    CMD_NETWORK_OPTIONS(struct fetch_options),
    CMD_COMMON_OPTIONS(struct fetch_options),
    {0},
};

/* What a run has found out; cleared as a whole. */
struct fetch {
    const struct fetch_options *options;
    struct uvm_verifier *vendor;
    struct mirror_source *source;
    struct cmd_outgoing out;
};

static void fetch_clear(struct fetch *f)
{
    cmd_outgoing_clear(&f->out);
    mirror_source_free(f->source);
    uvm_verifier_free(f->vendor);
}

/* ---- before the network ---- */

/* An option that has to do with the bundle alone; NULL = none was given. */
static const char *about_a_bundle(const struct cmd_outgoing_options *o)
{
    return o->output           ? "output"
           : o->split          ? "split"
           : o->sign_key       ? "sign-key"
           : o->homedir        ? "homedir"
           : o->format         ? "format"
           : o->read_back      ? "read-back"
           : o->no_read_back   ? "no-read-back"
           : o->compact        ? "compact"
           : o->compress_level ? "compress-level"
                               : NULL;
}

static bool check_options(const struct fetch_options *o, struct uvm_error *err)
{
    if (o->check && o->out.dry_run)
        return uvm_fail(err, UVM_USAGE, "--check repairs the mirror, --dry-run changes nothing");
    const char *vain = o->no_bundle ? about_a_bundle(&o->out) : NULL;
    if (vain)
        return uvm_fail(err, UVM_USAGE,
                        "--no-bundle and --%s: there is no bundle that it could be for", vain);
    if (o->network.jobs > MIRROR_JOBS_MAX)
        return uvm_fail(err, UVM_USAGE, "--jobs: at most %d at once", MIRROR_JOBS_MAX);
    return true;
}

/* The mirror is opened for a dry run only when it is there: a dry run makes nothing. */
static bool open_tree(struct fetch *f, struct uvm_error *err)
{
    uvm_auto_free char *dir = cmd_mirror_dir(&f->options->common, f->options->out.mirror);
    uvm_auto_free char *own = uvm_format("%s/uvmirror", dir);
    if (!f->options->out.dry_run)
        return mirror_tree_open(dir, &f->out.tree, err);
    return access(own, F_OK) < 0 || mirror_tree_look(dir, &f->out.tree, err);
}

static bool check_mirror(struct fetch *f, struct uvm_error *err)
{
    __attribute__((cleanup(mirror_checked_clear))) struct mirror_checked checked = {0};
    if (!mirror_tree_check(f->out.tree, cmd_observer(), &checked, err))
        return false;
    uvm_auto_free char *size = uvm_size_text(checked.bytes);
    for (size_t i = 0; i < checked.bad.count; i++)
        uvm_warning(cmd_observer(), "%s was damaged or missing in the mirror",
                    checked.bad.items[i]);
    cmd_note("checked the mirror: %zu image%s good, %s", checked.good, checked.good == 1 ? "" : "s",
             size);
    return true;
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
        .network = o->network,
        .observer = cmd_observer(),
    };
    return mirror_source_new(&options, &f->source, err);
}

static bool select_all(struct fetch *f, struct uvm_error *err)
{
    struct cmd_outgoing *out = &f->out;
    out->selections = uvm_alloc((out->count ? out->count : 1) * sizeof *out->selections);
    for (size_t i = 0; i < out->count; i++)
        if (!mirror_stream_select(out->streams[i], out->filters, out->options->max,
                                  &out->selections[i], err))
            return false;
    return mirror_selections_check(out->selections, out->count, err);
}

static bool look(struct fetch *f, struct uvm_error *err)
{
    struct cmd_outgoing *out = &f->out;
    if (!mirror_source_streams(f->source, out->filters, &out->streams, &out->count, err) ||
        !select_all(f, err))
        return false;
    cmd_outgoing_drop_empty(out);
    if (out->count == 0) {
        uvm_auto_free char *filters = cmd_join(mirror_filters_text(out->filters), " ");
        return uvm_fail(err, UVM_SOURCE, "%s: nothing there matches %s",
                        mirror_source_url(f->source), filters);
    }
    return true;
}

/* ---- the plan ---- */

struct plan {
    const struct mirror_image **images;
    size_t count, missing;
    uint64_t bytes, missing_bytes;
    /* The manifest can be written now: the SHA-256 of every image is signed, or known. */
    bool manifest_known;
};

static void plan_clear(struct plan *plan)
{
    free(plan->images);
}

static void make_plan(struct fetch *f, struct plan *plan)
{
    plan->images = cmd_outgoing_images(&f->out, &plan->count);
    plan->manifest_known = true;
    for (size_t i = 0; i < plan->count; i++) {
        const struct mirror_image *image = plan->images[i];
        bool have = f->out.tree && mirror_tree_has(f->out.tree, image);
        plan->bytes += image->size;
        plan->missing += !have;
        plan->missing_bytes += have ? 0 : image->size;
        plan->manifest_known = plan->manifest_known && (have || image->sha256);
    }
}

static struct mirror_choice choice_of(const struct fetch *f, size_t i)
{
    return (struct mirror_choice){
        .selection = &f->out.selections[i],
        .filters = f->out.filters,
        .max = f->out.options->max,
        .allow_older = f->options->allow_older,
    };
}

static bool print_superseded(const struct fetch *f, struct uvm_error *err)
{
    const struct cmd_outgoing *out = &f->out;
    mirror_auto_removed removed = {0};
    for (size_t i = 0; out->tree && i < out->count; i++) {
        struct mirror_choice choice = choice_of(f, i);
        if (!mirror_tree_superseded(out->tree, out->streams[i], &choice, &removed, err))
            return false;
    }
    cmd_print_removed(&removed, true);
    return true;
}

static bool print_dry_run(const struct fetch *f, const struct plan *plan, struct uvm_error *err)
{
    uvm_auto_free char *bytes = uvm_size_text(plan->bytes),
                       *missing = uvm_size_text(plan->missing_bytes),
                       *bundle = uvm_size_text(cmd_outgoing_estimate(&f->out));
    cmd_outgoing_print(&f->out);
    if (!print_superseded(f, err))
        return false;
    cmd_print("%zu image%s, %s; to download: %zu, %s", plan->count, plan->count == 1 ? "" : "s",
              bytes, plan->missing, missing);
    if (!f->options->no_bundle)
        cmd_print("the bundle would have up to %s", bundle);
    cmd_outgoing_forecast(&f->out, f->options->no_bundle ? CMD_ROOM_MIRROR : CMD_ROOM_BOTH);
    return true;
}

/* ---- mirror and bundle ---- */

static bool await(struct fetch *f, struct uvm_error *err)
{
    struct cmd_outgoing *out = &f->out;
    for (size_t i = 0; i < out->count; i++)
        if (!mirror_tree_await(out->tree, out->streams[i], &out->selections[i], cmd_observer(),
                               err))
            return false;
    return true;
}

static bool hold(struct fetch *f, struct uvm_error *err)
{
    struct cmd_outgoing *out = &f->out;
    mirror_auto_removed removed = {0};
    for (size_t i = 0; i < out->count; i++) {
        struct mirror_choice choice = choice_of(f, i);
        if (!mirror_tree_hold(out->tree, out->streams[i], &choice, cmd_observer(), &removed, err))
            return false;
    }
    cmd_print_removed(&removed, false);
    return true;
}

/* An image that does not come, tonight or ever, must not keep the products that did from replacing
 * their old versions in the mirror. The run has failed all the same. */
static void hold_what_came(struct fetch *f, const struct uvm_error *why)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (why->code != UVM_SOURCE && why->code != UVM_CONTENT)
        return;
    for (size_t i = 0; i < f->out.count; i++)
        mirror_tree_drop_missing(f->out.tree, &f->out.selections[i]);
    cmd_outgoing_drop_empty(&f->out);
    if (!hold(f, &err))
        uvm_warning(cmd_observer(), "%s", err.message);
}

/* Whether the bundle can be written while its images arrive. What goes to standard output cannot be
 * taken back: that waits for the mirror. An image is encoded when it is whole. */
static bool can_follow(const struct fetch *f, const struct plan *plan)
{
    const char *output = f->options->out.output;
    return !f->options->no_bundle && !f->options->out.compact && plan->missing > 0 &&
           plan->manifest_known && !(output && strcmp(output, "-") == 0);
}

static bool fill_mirror(struct fetch *f, const struct plan *plan, bool *ret_bundled,
                        struct uvm_error *bundle_err, struct uvm_error *err)
{
    cmd_ui_expect("download", plan->missing_bytes);
    UVM_AUTO(mirror_download_free)
    struct mirror_download *download =
        mirror_download_start(f->out.tree, f->source, plan->images, plan->count, cmd_observer());
    *ret_bundled = can_follow(f, plan) && cmd_outgoing_write(&f->out, download, bundle_err);
    return mirror_download_wait(download, err);
}

static bool mirror_and_bundle(struct fetch *f, const struct plan *plan, struct uvm_error *err)
{
    uvm_auto_error bundle_err = UVM_ERROR_INIT;
    bool bundled = false;
    if (!await(f, err))
        return false;
    if (!fill_mirror(f, plan, &bundled, &bundle_err, err)) {
        hold_what_came(f, err);
        return false;
    }
    if (!hold(f, err))
        return false;
    if (bundled || f->options->no_bundle)
        return true;
    /* A file that changed at the source while it was being bundled is whole in the mirror now. */
    if (bundle_err.code == UVM_OK || bundle_err.code == UVM_CONTENT)
        return cmd_outgoing_write(&f->out, NULL, err);
    *err = bundle_err;
    bundle_err = UVM_ERROR_INIT;
    return false;
}

static bool run_fetch(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct fetch_options *o = options;
    __attribute__((cleanup(fetch_clear))) struct fetch f = {
        .options = o, .out = {.common = &o->common, .options = &o->out}};
    __attribute__((cleanup(plan_clear))) struct plan plan = {0};
    if (!check_options(o, err) || !cmd_outgoing_choose(&f.out, args, err) ||
        !open_source(&f, err) || !open_tree(&f, err) ||
        !(o->no_bundle || cmd_outgoing_prepare(&f.out, err)) ||
        !(!o->check || check_mirror(&f, err)) || !look(&f, err))
        return false;
    make_plan(&f, &plan);
    if (o->out.dry_run)
        return print_dry_run(&f, &plan, err);
    /* What arrives now is yet to be encoded, which makes it smaller. */
    uint64_t needed = plan.missing_bytes * (o->out.compact ? 2 : 1);
    return cmd_outgoing_check_room(&f.out, needed, o->no_bundle ? CMD_ROOM_MIRROR : CMD_ROOM_BOTH,
                                   err) &&
           mirror_and_bundle(&f, &plan, err);
}

static const struct fetch_options fetch_defaults = {
    .out = {.max = 1},
    .network = MIRROR_NETWORK_DEFAULT,
};

const struct cmd_command cmd_fetch = {
    .name = "fetch",
    .args = "[OPTION...] [FILTER...]",
    .summary = "mirror images and write a signed bundle",
    .details =
        "Downloads the newest images that match all FILTERs (such as release=noble) from a "
        "simplestreams source into the mirror, checks the vendor's signatures and checksums, and "
        "writes them into one signed bundle. Implied, unless a filter names the key: arch=(this "
        "host's), ftype=disk1.img, datatype=image-downloads.",
    .private = true,
    .interrupted = "what was downloaded is kept: the same command goes on from there",
    .options = fetch_options,
    .options_size = sizeof(struct fetch_options),
    .defaults = &fetch_defaults,
    .run = run_fetch,
};

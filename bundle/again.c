/*
 * Parts of a bundle, written again. The mirror keeps a bundle's small members and the sums of its
 * parts; with the images, and the same libzstd, all its bytes come out as they did the first time:
 * zstd's output does not depend on how its input is cut into calls, nor on how many processors work.
 */
#include <errno.h>
#include <string.h>

#include "bundle/cache.h"

struct again {
    const struct bundle_again_options *options;
    struct bundle_draft draft;
    struct bundle_sums sums;
};

static void again_clear(struct again *a)
{
    bundle_draft_clear(&a->draft);
    bundle_sums_clear(&a->sums);
}

/* ---- what the mirror keeps ---- */

static bool recall(const struct again *a, const char *name, size_t max, struct uvm_buf *ret,
                   struct uvm_error *err)
{
    uvm_auto_free char *path = bundle_kept_path(a->options->tree, a->options->id, name);
    return uvm_file_read(path, max, ret, err);
}

static bool fail_unknown(const struct again *a, struct uvm_error *err)
{
    uvm_error_clear(err);
    if (bundle_is_swept(a->options->tree, a->options->id))
        return uvm_fail(
            err, UVM_FAILED,
            "the mirror in %s does not keep it: of split bundles it keeps the newest %d, "
            "and those of %d days before its newest one; write a new bundle",
            mirror_tree_dir(a->options->tree), BUNDLE_KEPT_MIN, BUNDLE_KEPT_DAYS);
    return uvm_fail(
        err, UVM_FAILED,
        "the mirror in %s has written no such bundle ('uvmirror show' prints a bundle's "
        "id)",
        mirror_tree_dir(a->options->tree));
}

static bool recall_manifest(struct again *a, struct uvm_error *err)
{
    struct bundle_draft *d = &a->draft;
    if (!recall(a, BUNDLE_MANIFEST_NAME, BUNDLE_MANIFEST_MAX, &d->text, err))
        return err->sys_errno == ENOENT ? fail_unknown(a, err) : false;
    if (!recall(a, BUNDLE_SIGNATURE_NAME, BUNDLE_SIGNATURE_MAX, &d->signature, err) ||
        !bundle_manifest_parse(d->text.data, d->text.len, &d->manifest, err))
        return false;
    d->contents = uvm_alloc((d->manifest->member_count + 1) * sizeof *d->contents);
    return true;
}

static bool recall_members(struct again *a, struct uvm_error *err)
{
    struct bundle_draft *d = &a->draft;
    for (size_t i = 0; i < d->manifest->member_count; i++)
        if (!recall(a, d->manifest->members[i].path, BUNDLE_MEMBER_MAX, &d->contents[i], err))
            return false;
    return true;
}

static bool recall_sums(struct again *a, struct uvm_error *err)
{
    uvm_auto_buf file = {0}, signed_text = {0}, text = {0};
    if (!recall(a, BUNDLE_SUMS_NAME, 2 * BUNDLE_SUMS_MAX, &file, err)) {
        if (err->sys_errno != ENOENT)
            return false;
        uvm_error_clear(err);
        return uvm_fail(err, UVM_USAGE, "it was not split: it has no parts");
    }
    return bundle_sums_unwrap(&file, &signed_text, err) &&
           uvm_cleartext_body(signed_text.data, signed_text.len, &text, err) &&
           bundle_sums_parse(text.data, text.len, &a->sums, err);
}

static bool is_held(const struct again *a, const struct bundle_cache *cache,
                    const struct bundle_image *image)
{
    UVM_AUTO(bundle_cached_free) struct bundle_cached *cached = NULL;
    uvm_auto_error ignored = UVM_ERROR_INIT;
    if (image->encoding == BUNDLE_COMPACT)
        return bundle_cached_open(cache, image, &cached, &ignored);
    return image->encoding == BUNDLE_NOT_CARRIED || mirror_tree_has(a->options->tree, image->image);
}

static bool has_compact(const struct bundle_manifest *m)
{
    for (size_t i = 0; i < m->image_count; i++)
        if (m->images[i].encoding == BUNDLE_COMPACT)
            return true;
    return false;
}

static bool check_images(const struct again *a, struct uvm_error *err)
{
    const struct bundle_manifest *m = a->draft.manifest;
    UVM_AUTO(bundle_cache_free) struct bundle_cache *cache = NULL;
    if (has_compact(m) && !bundle_cache_open(a->options->tree, &cache, err))
        return false;
    for (size_t i = 0; i < m->image_count; i++) {
        if (is_held(a, cache, &m->images[i]))
            continue;
        uvm_auto_free char *title = mirror_image_title(m->images[i].image);
        return uvm_fail(err, UVM_FAILED, "the mirror no longer holds %s: write a new bundle",
                        title);
    }
    return true;
}

static bool check_room(const struct again *a, struct uvm_error *err)
{
    const struct bundle_again_options *o = a->options;
    uint64_t need = 0, free_bytes;
    for (size_t i = 0; i < o->part_count; i++)
        need += a->sums.parts[o->parts[i] - 1].size;
    if (!uvm_free_space(o->output, &free_bytes, err))
        return false;
    if (need <= free_bytes)
        return true;
    uvm_auto_free char *needed = uvm_size_text(need), *there = uvm_size_text(free_bytes);
    return uvm_fail(err, UVM_SPACE, "%s: the parts need %s, and %s are free", o->output, needed,
                    there);
}

/* ---- the parts ---- */

static bool check_numbers(const struct again *a, struct uvm_error *err)
{
    const struct bundle_again_options *o = a->options;
    for (size_t i = 0; i < o->part_count; i++)
        if (o->parts[i] < 1 || o->parts[i] > a->sums.count)
            return uvm_fail(err, UVM_USAGE, "it has parts 1 to %zu, and no part %u", a->sums.count,
                            o->parts[i]);
    return true;
}

/* Another libzstd may put the same content into other bytes. */
static bool fail_other(const struct again *a, unsigned number, struct uvm_error *err)
{
    uvm_auto_free char *encoder = bundle_encoder_text();
    if (strcmp(encoder, a->sums.encoder) != 0)
        return uvm_fail(
            err, UVM_CONTENT,
            "part %u does not come out as it was signed: it was written by %s, and here "
            "is %s; write a new bundle",
            number, a->sums.encoder, encoder);
    return uvm_fail(err, UVM_CONTENT,
                    "part %u does not come out as it was signed, and nothing says why: write a new "
                    "bundle",
                    number);
}

static bool check_parts(const struct again *a, const struct bundle_sums *made,
                        struct uvm_error *err)
{
    const struct bundle_again_options *o = a->options;
    for (size_t i = 0; i < o->part_count; i++) {
        const struct bundle_part *signed_part = &a->sums.parts[o->parts[i] - 1];
        if (o->parts[i] > made->count || made->parts[o->parts[i] - 1].size != signed_part->size ||
            strcmp(made->parts[o->parts[i] - 1].sha256, signed_part->sha256) != 0)
            return fail_other(a, o->parts[i], err);
    }
    return true;
}

static bool write_parts(const struct again *a, const char *path, struct uvm_error *err)
{
    const struct bundle_again_options *o = a->options;
    UVM_AUTO(bundle_parts_free) struct bundle_parts *parts = NULL;
    const struct bundle_sums *made;
    uint64_t bytes;
    struct bundle_parts_options options = {
        .part_size = a->sums.parts[0].size,
        .read_back = bundle_read_back_for(o->read_back, o->output, o->tree),
        .only = o->parts,
        .only_count = o->part_count,
        .observer = o->observer,
    };
    if (!bundle_parts_new(path, &options, &parts, err))
        return false;
    struct bundle_write_options writing = {
        .manifest = a->draft.manifest,
        .text = &a->draft.text,
        .signature = &a->draft.signature,
        .contents = a->draft.contents,
        .tree = o->tree,
        .observer = o->observer,
        .name = path,
        .sink = bundle_parts_sink(parts),
    };
    return bundle_write(&writing, &bytes, err) && bundle_parts_finish(parts, &made, err) &&
           check_parts(a, made, err) && bundle_parts_commit(parts, NULL, err);
}

bool bundle_again(const struct bundle_again_options *options, struct uvm_strings *ret_paths,
                  struct uvm_error *err)
{
    __attribute__((cleanup(again_clear))) struct again a = {.options = options};
    if (!bundle_is_id(options->id))
        return uvm_fail(err, UVM_USAGE, "'%s' is no bundle's id ('uvmirror show' prints it)",
                        options->id);
    uvm_auto_free char *folder = bundle_output_folder(options->output);
    if (!folder || strcmp(folder, options->output) != 0)
        return uvm_fail(err, UVM_USAGE, "%s is no folder: the parts have their names",
                        options->output);
    if (!bundle_output_check(options->output, options->tree, err) || !recall_manifest(&a, err) ||
        !recall_sums(&a, err) || !check_numbers(&a, err) || !check_images(&a, err) ||
        !check_room(&a, err) || !recall_members(&a, err))
        return uvm_prefix(err, "bundle %s", options->id);
    uvm_auto_free char *path = bundle_path_in(options->output, a.sums.name);
    if (!write_parts(&a, path, err))
        return uvm_prefix(err, "bundle %s", options->id);
    for (size_t i = 0; i < options->part_count; i++) {
        uvm_auto_free char *part = bundle_part_name(path, options->parts[i]);
        uvm_strings_add(ret_paths, part);
    }
    return true;
}

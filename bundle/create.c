/* A bundle is composed, written to its place, and its small members are kept in the mirror. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bundle/internal.h"

void bundle_created_clear(struct bundle_created *created)
{
    free(created->path);
    bundle_manifest_free(created->manifest);
    *created = (struct bundle_created){0};
}

/* ---- what the mirror keeps ---- */

static bool keep(const struct bundle_draft *d, struct mirror_tree *tree, struct uvm_error *err)
{
    const struct bundle_manifest *m = d->manifest;
    mirror_tree_drop_half_kept(tree, BUNDLE_MANIFEST_NAME);
    if (!mirror_tree_keep(tree, m->id, BUNDLE_SIGNATURE_NAME, d->signature.data, d->signature.len,
                          err))
        return false;
    for (size_t i = 0; i < m->member_count; i++)
        if (!mirror_tree_keep(tree, m->id, m->members[i].path, d->contents[i].data,
                              d->contents[i].len, err))
            return false;
    return mirror_tree_keep(tree, m->id, BUNDLE_MANIFEST_NAME, d->text.data, d->text.len, err);
}

/* ---- output ---- */

/* An output in the making. */
struct output {
    const struct bundle_draft *draft;
    const struct bundle_create_options *options;
    struct bundle_created *created;
    enum bundle_read_back read_back; /* ALWAYS or NEVER */
};

static bool write_to(const struct output *out, struct bundle_sink sink, const char *name,
                     struct uvm_error *err)
{
    const struct bundle_draft *d = out->draft;
    struct bundle_write_options options = {
        .manifest = d->manifest,
        .text = &d->text,
        .signature = &d->signature,
        .contents = d->contents,
        .tree = out->options->tree,
        .download = out->options->download,
        .observer = out->options->observer,
        .name = name,
        .sink = sink,
    };
    return bundle_write(&options, &out->created->bytes, err) && keep(d, out->options->tree, err);
}

/* Standard output may be a file on a stick, too; what cannot be synced (a pipe) says so. */
static bool write_to_stdout(const struct output *out, struct uvm_error *err)
{
    static const char name[] = "standard output";
    __attribute__((cleanup(bundle_file_clear))) struct bundle_file file;
    bundle_file_init(&file, STDOUT_FILENO, name, BUNDLE_UNHASHED);
    file.observer = out->options->observer;
    if (!write_to(out, (struct bundle_sink){bundle_file_write, &file}, name, err))
        return false;
    if (fsync(STDOUT_FILENO) < 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP)
        return uvm_fail_errno(err, UVM_FAILED, "writing standard output");
    return true;
}

static bool read_back(const struct output *out, struct bundle_file *file, struct uvm_error *err)
{
    char sha256[UVM_DIGEST_HEX_MAX];
    struct bundle_check check = {.step = "read back", .name = file->name, .sha256 = sha256};
    if (!bundle_file_sync(file, sha256, err))
        return false;
    check.size = file->bytes;
    return bundle_file_read_back(file->fd, &check, out->options->observer, err);
}

/* A name that was asked for is the output itself. */
static bool is_generated(const struct output *out, const char *path)
{
    return strcmp(path, out->options->output) != 0;
}

static bool write_to_file(const struct output *out, const char *path, struct uvm_error *err)
{
    __attribute__((cleanup(bundle_file_clear))) struct bundle_file file = {.fd = -1};
    uvm_auto_outfile place = UVM_OUTFILE_INIT;
    bool hashed = out->read_back == BUNDLE_READ_BACK_ALWAYS;
    if (!uvm_outfile_open(&place, path, 0644, err))
        return false;
    bundle_file_init(&file, place.fd, path, hashed ? BUNDLE_HASHED : BUNDLE_UNHASHED);
    return write_to(out, (struct bundle_sink){bundle_file_write, &file}, path, err) &&
           (!hashed || read_back(out, &file, err)) &&
           (is_generated(out, path) ? uvm_outfile_commit_new(&place, err)
                                    : uvm_outfile_commit(&place, err)) &&
           bundle_sync_folder_of(path, out->read_back, err);
}

/* Signs the sums, and keeps them: parts can be written again by them. */
static bool sign_sums(const struct output *out, const struct bundle_sums *made,
                      struct uvm_buf *ret_file, struct uvm_error *err)
{
    const struct bundle_manifest *m = out->draft->manifest;
    uvm_auto_free char *encoder = bundle_encoder_text();
    uvm_auto_buf text = {0}, signed_text = {0};
    struct bundle_sums sums = *made; /* shallow: not to be cleared */
    sums.id = m->id;
    sums.serial = m->serial;
    sums.encoder = encoder;
    return bundle_sums_text(&sums, &text, err) &&
           uvm_signer_clearsigned(out->options->signer, text.data, text.len, &signed_text, err) &&
           bundle_sums_wrap(&signed_text, ret_file, err) &&
           mirror_tree_keep(out->options->tree, m->id, BUNDLE_SUMS_NAME, ret_file->data,
                            ret_file->len, err);
}

static bool write_to_parts(const struct output *out, const char *path, struct uvm_error *err)
{
    UVM_AUTO(bundle_parts_free) struct bundle_parts *parts = NULL;
    uvm_auto_buf sums_file = {0};
    const struct bundle_sums *sums;
    struct bundle_parts_options options = {.part_size = out->options->part_size,
                                           .read_back = out->read_back,
                                           .named = is_generated(out, path),
                                           .observer = out->options->observer};
    if (!bundle_parts_new(path, &options, &parts, err) ||
        !write_to(out, bundle_parts_sink(parts), path, err) ||
        !bundle_parts_finish(parts, &sums, err))
        return false;
    bool split = sums->count > 1;
    out->created->parts = split ? sums->count : 0;
    return (!split || sign_sums(out, sums, &sums_file, err)) &&
           bundle_parts_commit(parts, split ? &sums_file : NULL, err);
}

static bool write_to_place(struct output *out, struct uvm_error *err)
{
    const struct bundle_create_options *o = out->options;
    uvm_auto_free char *path = bundle_output_path(o->output, out->draft->manifest);
    bool written = o->part_size ? write_to_parts(out, path, err) : write_to_file(out, path, err);
    if (!written)
        return false;
    out->created->path = UVM_STEAL(path);
    out->created->read_back = out->read_back == BUNDLE_READ_BACK_ALWAYS;
    return true;
}

bool bundle_create(const struct bundle_create_options *o, struct bundle_created *ret_created,
                   struct uvm_error *err)
{
    __attribute__((cleanup(bundle_draft_clear))) struct bundle_draft draft = {0};
    struct bundle_created created = {0};
    if (!bundle_output_check(o->output, o->tree, err) || !bundle_draft_compose(&draft, o, err))
        return false;
    struct output out = {.draft = &draft,
                         .options = o,
                         .created = &created,
                         .read_back = bundle_read_back_for(o->read_back, o->output, o->tree)};
    if (!(strcmp(o->output, "-") == 0 ? write_to_stdout(&out, err) : write_to_place(&out, err)))
        return false;
    bundle_keep_newest(o->tree, o->observer);
    uvm_auto_free char *size = uvm_size_text(created.bytes);
    uvm_done(o->observer, "bundle", created.path ? created.path : "standard output", "%s", size);

    for (size_t i = 0; i < draft.manifest->member_count; i++)
        uvm_buf_clear(&draft.contents[i]);
    created.manifest = UVM_STEAL(draft.manifest);
    *ret_created = created;
    return true;
}

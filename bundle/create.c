/* From selections and a mirror to a bundle: serial, small members, manifest, signature, output. */
#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "bundle/internal.h"

/* What is gathered before the first byte is written. */
struct draft {
    struct bundle_manifest *manifest;
    struct uvm_buf *contents; /* of manifest->members, one each */
    struct uvm_buf text, signature;
};

static void draft_clear(struct draft *d)
{
    for (size_t i = 0; d->manifest && i < d->manifest->member_count; i++)
        uvm_buf_clear(&d->contents[i]);
    free(d->contents);
    uvm_buf_clear(&d->text);
    uvm_buf_clear(&d->signature);
    bundle_manifest_free(d->manifest);
}

void bundle_created_clear(struct bundle_created *created)
{
    free(created->path);
    bundle_manifest_free(created->manifest);
    *created = (struct bundle_created){0};
}

/* ---- selections that hold something ---- */

/* Streams of which nothing was chosen stay out of the bundle. Borrowed from the options. */
struct chosen {
    const struct mirror_stream **streams;
    struct mirror_selection *selections; /* shallow: not to be cleared */
    size_t count;
};

static void chosen_clear(struct chosen *c)
{
    free(c->streams);
    free(c->selections);
}

static bool choose(const struct bundle_create_options *o, struct chosen *c, struct uvm_error *err)
{
    c->streams = uvm_grow(NULL, o->stream_count, sizeof *c->streams);
    c->selections = uvm_grow(NULL, o->stream_count, sizeof *c->selections);
    size_t images = 0;
    for (size_t i = 0; i < o->stream_count; i++) {
        if (o->selections[i].count == 0)
            continue;
        c->streams[c->count] = o->streams[i];
        c->selections[c->count++] = o->selections[i];
        for (size_t p = 0; p < o->selections[i].count; p++)
            images += o->selections[i].products[p].image_count;
    }
    if (images == 0)
        return uvm_fail(err, UVM_FAILED, "no image is selected: there is nothing to bundle");
    if (images > BUNDLE_IMAGES_MAX)
        return uvm_fail(err, UVM_SPACE, "%zu images are selected, and a bundle holds at most %d",
                        images, BUNDLE_IMAGES_MAX);
    return mirror_selections_check(c->selections, c->count, err);
}

/* ---- small members ---- */

/* Takes the content over. */
static bool add_member(struct draft *d, char *path, struct uvm_buf *content, struct uvm_error *err)
{
    struct bundle_manifest *m = d->manifest;
    if (content->len > BUNDLE_MEMBER_MAX) {
        uvm_fail(err, UVM_SPACE, "%s has %zu bytes, over the limit of %zu", path, content->len,
                 BUNDLE_MEMBER_MAX);
        free(path);
        return false;
    }
    m->members = uvm_grow(m->members, m->member_count + 1, sizeof *m->members);
    d->contents = uvm_grow(d->contents, m->member_count + 1, sizeof *d->contents);
    struct bundle_member *member = &m->members[m->member_count];
    *member = (struct bundle_member){.path = path, .size = content->len};
    uvm_digest_bytes(UVM_SHA256, content->data ? content->data : "", content->len, member->sha256);
    d->contents[m->member_count] = (struct uvm_buf){0};
    uvm_buf_move(&d->contents[m->member_count++], content);
    return true;
}

static bool add_text(struct draft *d, char *path, const char *text, struct uvm_error *err)
{
    uvm_auto_buf content = {.max = BUNDLE_MEMBER_MAX};
    uvm_auto_free char *owned = path;
    return uvm_buf_add(&content, text, strlen(text), err) &&
           add_member(d, UVM_STEAL(owned), &content, err);
}

static bool add_signed(struct draft *d, struct uvm_signer *signer, char *path, const char *text,
                       struct uvm_error *err)
{
    uvm_auto_buf content = {0};
    uvm_auto_free char *owned = path;
    if (!uvm_signer_clearsigned(signer, text, strlen(text), &content, err))
        return uvm_prefix(err, "signing %s", path);
    return add_member(d, UVM_STEAL(owned), &content, err);
}

static char *origin_path(const struct mirror_stream *stream)
{
    return uvm_format("uvmirror/origin/%s.%s", stream->content_id,
                      stream->signer ? "sjson" : "json");
}

static bool add_origins(struct draft *d, const struct chosen *c, struct uvm_error *err)
{
    for (size_t i = 0; i < c->count; i++) {
        uvm_auto_buf copy = {.max = MIRROR_JSON_MAX};
        const struct uvm_buf *origin = &c->streams[i]->origin;
        if (!uvm_buf_add(&copy, origin->data ? origin->data : "", origin->len, err) ||
            !add_member(d, origin_path(c->streams[i]), &copy, err))
            return false;
    }
    return true;
}

/* Index and products, for whoever unpacks the bundle: signed by the site, since the vendor's
 * signature does not cover what was left out. */
static bool add_streams(struct draft *d, const struct chosen *c,
                        const struct bundle_create_options *o, struct uvm_error *err)
{
    uvm_auto_free char *plain =
        mirror_index_text(c->streams, c->selections, c->count, ".json", o->now);
    uvm_auto_free char *index =
        mirror_index_text(c->streams, c->selections, c->count, ".sjson", o->now);
    if (!add_text(d, uvm_strdup("streams/v1/index.json"), plain, err) ||
        !add_signed(d, o->signer, uvm_strdup("streams/v1/index.sjson"), index, err))
        return false;
    for (size_t i = 0; i < c->count; i++) {
        const char *id = c->streams[i]->content_id;
        uvm_auto_free char *text = mirror_stream_reduce(c->streams[i], &c->selections[i]);
        if (!add_text(d, uvm_format("streams/v1/%s.json", id), text, err) ||
            !add_signed(d, o->signer, uvm_format("streams/v1/%s.sjson", id), text, err))
            return false;
    }
    return true;
}

/* ---- manifest ---- */

static void copy_strings(struct uvm_strings *to, const struct uvm_strings *from)
{
    for (size_t i = 0; from && i < from->count; i++) {
        uvm_auto_free char *printable = uvm_printable(from->items[i]);
        uvm_strings_add(to, printable);
    }
}

static void copy_product(struct mirror_product *to, const struct mirror_product *from)
{
    *to = (struct mirror_product){.name = uvm_strdup(from->name), .complete = from->complete};
    copy_strings(&to->versions, &from->versions);
    to->images = uvm_grow(NULL, from->image_count, sizeof *to->images);
    for (size_t i = 0; i < from->image_count; i++)
        mirror_image_copy(&to->images[i], &from->images[i]);
    to->image_count = from->image_count;
}

static void add_stream(struct bundle_manifest *m, const struct mirror_stream *stream,
                       const struct mirror_selection *selection, const struct uvm_strings *filters)
{
    struct bundle_stream *s = uvm_alloc(sizeof *s);
    *s = (struct bundle_stream){
        .content_id = uvm_strdup(stream->content_id),
        .source = uvm_strdup(stream->source ? stream->source : ""),
        .path = uvm_strdup(stream->path ? stream->path : ""),
        .updated = uvm_strdup(stream->updated),
        .updated_at = stream->updated_at,
        .origin = origin_path(stream),
        .verified_by = uvm_strdup(stream->signer),
    };
    copy_strings(&s->filters, filters);
    s->selection.products = uvm_grow(NULL, selection->count, sizeof *s->selection.products);
    for (size_t i = 0; i < selection->count; i++)
        copy_product(&s->selection.products[s->selection.count++], &selection->products[i]);
    m->streams = uvm_grow(m->streams, m->stream_count + 1, sizeof(struct bundle_stream *));
    m->streams[m->stream_count++] = s;
}

static bool add_image(struct bundle_manifest *m, const struct bundle_stream *stream,
                      const struct mirror_image *image, const struct mirror_tree *tree,
                      struct uvm_error *err)
{
    struct bundle_image bundled = {
        .stream = stream, .image = image, .encoding = BUNDLE_PLAIN, .size = image->size};
    if (!mirror_tree_sha256(tree, image, bundled.sha256, err))
        return uvm_prefix(err, "%s", image->path);
    bundled.member = uvm_strdup(image->path);
    m->images = uvm_grow(m->images, m->image_count + 1, sizeof *m->images);
    m->images[m->image_count++] = bundled;
    return true;
}

static bool add_images(struct bundle_manifest *m, const struct mirror_tree *tree,
                       struct uvm_error *err)
{
    for (size_t s = 0; s < m->stream_count; s++)
        for (size_t p = 0; p < m->streams[s]->selection.count; p++) {
            const struct mirror_product *product = &m->streams[s]->selection.products[p];
            for (size_t i = 0; i < product->image_count; i++)
                if (!add_image(m, m->streams[s], &product->images[i], tree, err))
                    return false;
        }
    return true;
}

/* "uvmirror-20241004T093000Z-1f2e3d4c": the serial, and what sets it apart from another mirror's
 * bundle of the same second. */
static char *make_id(const struct bundle_manifest *m)
{
    uvm_auto_free char *name = bundle_file_name(m);
    uvm_auto_free char *text = bundle_manifest_text(m);
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA256, text, strlen(text), hex);
    return uvm_format("%.*s-%.8s", (int)strcspn(name, "."), name, hex);
}

static bool compose_manifest(struct draft *d, const struct chosen *c,
                             const struct bundle_create_options *o, struct uvm_error *err)
{
    struct bundle_manifest *m = d->manifest;
    m->format = 1;
    m->created = o->now;
    m->trailer = true;
    m->tool = uvm_strdup("uvmirror " UVM_VERSION);
    m->signer = uvm_strdup(uvm_signer_fingerprint(o->signer));
    m->id = uvm_strdup("");
    for (size_t i = 0; i < c->count; i++)
        add_stream(m, c->streams[i], &c->selections[i], o->filters);
    if (!add_images(m, o->tree, err) || !mirror_tree_next_serial(o->tree, o->now, &m->serial, err))
        return false;
    char *id = make_id(m);
    free(m->id);
    m->id = id;
    return true;
}

/* What no reader would take is not signed. */
static bool seal(struct draft *d, struct uvm_signer *signer, struct uvm_error *err)
{
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *again = NULL;
    uvm_auto_free char *text = bundle_manifest_text(d->manifest);
    d->text.max = BUNDLE_MANIFEST_MAX;
    if (!uvm_buf_add(&d->text, text, strlen(text), err) ||
        !bundle_manifest_parse(d->text.data, d->text.len, &again, err))
        return uvm_prefix(err, "these images do not make a sound bundle");
    return uvm_signer_detached(signer, d->text.data, d->text.len, &d->signature, err) ||
           uvm_prefix(err, "signing the manifest");
}

static bool compose(struct draft *d, const struct chosen *c, const struct bundle_create_options *o,
                    struct uvm_error *err)
{
    d->manifest = bundle_manifest_new();
    return add_origins(d, c, err) && add_streams(d, c, o, err) && compose_manifest(d, c, o, err) &&
           seal(d, o->signer, err);
}

/* ---- what the mirror keeps ---- */

static bool keep(const struct draft *d, struct mirror_tree *tree, struct uvm_error *err)
{
    const struct bundle_manifest *m = d->manifest;
    if (!mirror_tree_keep(tree, m->id, BUNDLE_MANIFEST_NAME, d->text.data, d->text.len, err) ||
        !mirror_tree_keep(tree, m->id, BUNDLE_SIGNATURE_NAME, d->signature.data, d->signature.len,
                          err))
        return false;
    for (size_t i = 0; i < m->member_count; i++)
        if (!mirror_tree_keep(tree, m->id, m->members[i].path, d->contents[i].data,
                              d->contents[i].len, err))
            return false;
    return true;
}

/* ---- output ---- */

static bool write_to(const struct draft *d, const struct bundle_create_options *o, int fd,
                     const char *name, uint64_t *ret_bytes, struct uvm_error *err)
{
    struct bundle_write_options options = {
        .manifest = d->manifest,
        .text = &d->text,
        .signature = &d->signature,
        .contents = d->contents,
        .tree = o->tree,
        .observer = o->observer,
        .name = name,
        .fd = fd,
    };
    return bundle_write(&options, ret_bytes, err) && keep(d, o->tree, err);
}

/* Standard output may be a file on a stick, too; what cannot be synced (a pipe) says so. */
static bool write_to_stdout(const struct draft *d, const struct bundle_create_options *o,
                            struct bundle_created *created, struct uvm_error *err)
{
    if (!write_to(d, o, STDOUT_FILENO, "standard output", &created->bytes, err))
        return false;
    if (fsync(STDOUT_FILENO) < 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP)
        return uvm_fail_errno(err, UVM_FAILED, "writing standard output");
    return true;
}

static bool write_to_file(const struct draft *d, const struct bundle_create_options *o,
                          struct bundle_created *created, struct uvm_error *err)
{
    uvm_auto_free char *path = bundle_output_path(o->output, d->manifest);
    uvm_auto_outfile file = UVM_OUTFILE_INIT;
    bundle_output_sweep(path);
    if (!uvm_outfile_open(&file, path, 0644, err))
        return false;
    flock(file.fd, LOCK_EX | LOCK_NB); /* only says that somebody still writes it */
    if (!write_to(d, o, file.fd, path, &created->bytes, err) || !uvm_outfile_commit(&file, err))
        return false;
    created->path = UVM_STEAL(path);
    return true;
}

bool bundle_create(const struct bundle_create_options *o, struct bundle_created *ret_created,
                   struct uvm_error *err)
{
    __attribute__((cleanup(draft_clear))) struct draft draft = {0};
    __attribute__((cleanup(chosen_clear))) struct chosen chosen = {0};
    struct bundle_created created = {0};
    if (!bundle_output_check(o->output, o->tree, err) || !choose(o, &chosen, err) ||
        !compose(&draft, &chosen, o, err))
        return false;
    bool written = strcmp(o->output, "-") == 0 ? write_to_stdout(&draft, o, &created, err)
                                               : write_to_file(&draft, o, &created, err);
    if (!written)
        return false;
    uvm_auto_free char *size = uvm_size_text(created.bytes);
    uvm_done(o->observer, "bundle", created.path ? created.path : "standard output", "%s", size);

    for (size_t i = 0; i < draft.manifest->member_count; i++)
        uvm_buf_clear(&draft.contents[i]);
    created.manifest = UVM_STEAL(draft.manifest);
    *ret_created = created;
    return true;
}

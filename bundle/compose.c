/* From selections and a mirror to everything of a bundle but its payloads. */
#include <string.h>

#include "bundle/internal.h"

void bundle_draft_clear(struct bundle_draft *d)
{
    for (size_t i = 0; d->manifest && i < d->manifest->member_count; i++)
        uvm_buf_clear(&d->contents[i]);
    free(d->contents);
    uvm_buf_clear(&d->text);
    uvm_buf_clear(&d->signature);
    bundle_manifest_free(d->manifest);
    *d = (struct bundle_draft){0};
}

/* ---- selections that hold something ---- */

static void chosen_clear(struct bundle_chosen *c)
{
    free(c->streams);
    free(c->selections);
}

static bool choose(const struct bundle_create_options *o, struct bundle_chosen *c,
                   struct uvm_error *err)
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
                       const struct mirror_selection *selection,
                       const struct bundle_create_options *o)
{
    const char *own_signer = bundle_is_own(stream) ? uvm_signer_fingerprint(o->signer) : NULL;
    struct bundle_stream *s = uvm_alloc(sizeof *s);
    *s = (struct bundle_stream){
        .content_id = uvm_strdup(stream->content_id),
        .source = uvm_strdup(stream->source ? stream->source : ""),
        .path = uvm_strdup(stream->path ? stream->path : ""),
        .updated = uvm_strdup(stream->updated),
        .updated_at = stream->updated_at,
        .origin = bundle_origin_path(stream),
        .verified_by = uvm_strdup(own_signer ? own_signer : stream->signer),
    };
    copy_strings(&s->filters, o->filters);
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

/* The lowest one that can say what is needed. */
static unsigned lowest_format(const struct bundle_manifest *m)
{
    for (size_t i = 0; i < m->image_count; i++)
        if (m->images[i].encoding == BUNDLE_COMPACT)
            return BUNDLE_FORMAT_COMPACT;
    return 1;
}

static bool add_content(struct bundle_manifest *m, const struct bundle_chosen *c,
                        const struct bundle_create_options *o, struct uvm_error *err)
{
    m->created = o->now;
    m->trailer = true;
    m->tool = uvm_strdup("uvmirror " UVM_VERSION);
    m->signer = uvm_strdup(uvm_signer_fingerprint(o->signer));
    m->id = uvm_strdup("");
    for (size_t i = 0; i < c->count; i++)
        add_stream(m, c->streams[i], &c->selections[i], o);
    if (!add_images(m, o->tree, err) || !bundle_carry(m, o, err))
        return false;
    m->format = lowest_format(m);
    return true;
}

static bool number(struct bundle_manifest *m, const struct bundle_create_options *o,
                   struct uvm_error *err)
{
    /* Another mirror may write into the same folder: its bundle of this second has the name. */
    do
        if (!mirror_tree_next_serial(o->tree, o->now, &m->serial, err))
            return false;
    while (bundle_output_is_taken(o->output, m));
    char *id = make_id(m);
    free(m->id);
    m->id = id;
    return true;
}

/* What no reader would take is not signed. */
static bool check(struct bundle_draft *d, struct uvm_error *err)
{
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *again = NULL;
    uvm_auto_free char *text = bundle_manifest_text(d->manifest);
    d->text.max = BUNDLE_MANIFEST_MAX;
    if (!uvm_buf_add(&d->text, text, strlen(text), err))
        return uvm_prefix(err, "%zu images are too many for one bundle, since its manifest has",
                          d->manifest->image_count);
    return bundle_manifest_parse(d->text.data, d->text.len, &again, err) ||
           uvm_prefix(err, "these images do not make a sound bundle");
}

static bool seal(struct bundle_draft *d, struct uvm_signer *signer, struct uvm_error *err)
{
    return uvm_signer_detached(signer, d->text.data, d->text.len, &d->signature, err) ||
           uvm_prefix(err, "signing the manifest");
}

bool bundle_draft_compose(struct bundle_draft *d, const struct bundle_create_options *o,
                          struct uvm_error *err)
{
    __attribute__((cleanup(chosen_clear))) struct bundle_chosen chosen = {0};
    d->manifest = bundle_manifest_new();
    return choose(o, &chosen, err) && add_content(d->manifest, &chosen, o, err) &&
           bundle_members_compose(d, &chosen, o, err) && number(d->manifest, o, err) &&
           check(d, err) && seal(d, o->signer, err);
}

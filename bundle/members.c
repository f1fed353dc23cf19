/* The small members of a new bundle: what vendors signed, and the reduced streams that the site signs.
 */
#include <string.h>

#include "bundle/internal.h"

/* ---- adding one ---- */

/* Takes path and content over. */
static void add_member(struct bundle_draft *d, char *path, struct uvm_buf *content)
{
    struct bundle_manifest *m = d->manifest;
    m->members = uvm_grow(m->members, m->member_count + 1, sizeof *m->members);
    d->contents = uvm_grow(d->contents, m->member_count + 1, sizeof *d->contents);
    struct bundle_member *member = &m->members[m->member_count];
    *member = (struct bundle_member){.path = path, .size = content->len};
    uvm_digest_bytes(UVM_SHA256, content->data ? content->data : "", content->len, member->sha256);
    d->contents[m->member_count] = (struct uvm_buf){0};
    uvm_buf_move(&d->contents[m->member_count++], content);
}

/* Takes the path over, as the next one does. */
static bool add_bytes(struct bundle_draft *d, char *path, const void *data, size_t len,
                      struct uvm_error *err)
{
    uvm_auto_buf content = {.max = BUNDLE_MEMBER_MAX};
    uvm_auto_free char *owned = path;
    if (!uvm_buf_add(&content, len ? data : "", len, err))
        return uvm_prefix(err, "%s", path);
    add_member(d, UVM_STEAL(owned), &content);
    return true;
}

static bool add_signed(struct bundle_draft *d, struct uvm_signer *signer, char *path,
                       const char *text, struct uvm_error *err)
{
    uvm_auto_buf content = {.max = BUNDLE_MEMBER_MAX};
    uvm_auto_free char *owned = path;
    if (!uvm_signer_clearsigned(signer, text, strlen(text), &content, err))
        return uvm_prefix(err, "signing %s", path);
    add_member(d, UVM_STEAL(owned), &content);
    return true;
}

/* ---- origins ---- */

#define CHECKSUMS_FOLDER BUNDLE_ORIGIN_FOLDER "checksums/"

bool bundle_is_own(const struct mirror_stream *stream)
{
    bool was_fetched = stream->signer || (stream->source && strstr(stream->source, "://"));
    return strcmp(stream->content_id, MIRROR_LOCAL_ID) == 0 && !was_fetched;
}

char *bundle_origin_path(const struct mirror_stream *stream)
{
    bool is_signed = stream->signer || bundle_is_own(stream);
    return uvm_format(BUNDLE_ORIGIN_FOLDER "%s.%s", stream->content_id,
                      is_signed ? "sjson" : "json");
}

/* Of the site's own stream a bundle tells what its products' view is made of, and nothing of other
 * products. */
static bool add_own_origin(struct bundle_draft *d, const struct mirror_stream *stream,
                           const struct mirror_selection *selection, struct uvm_signer *signer,
                           struct uvm_error *err)
{
    uvm_auto_free char *text = mirror_stream_reduce_products(stream, selection);
    return add_signed(d, signer, bundle_origin_path(stream), text, err);
}

static bool add_vendor_origin(struct bundle_draft *d, const struct mirror_stream *stream,
                              struct uvm_error *err)
{
    const struct uvm_buf *origin = &stream->origin;
    return add_bytes(d, bundle_origin_path(stream), origin->data, origin->len, err);
}

static bool has_member(const struct bundle_manifest *m, const char *path)
{
    for (size_t i = 0; i < m->member_count; i++)
        if (strcmp(m->members[i].path, path) == 0)
            return true;
    return false;
}

/* Checksum files that are equal, with equal signatures, are one member. */
static char *checksums_path(const struct mirror_origin *origin)
{
    const struct uvm_buf *parts[] = {&origin->checksums, &origin->signature};
    char hex[2][UVM_DIGEST_HEX_MAX], both[UVM_DIGEST_HEX_MAX];
    for (size_t i = 0; i < 2; i++)
        uvm_digest_bytes(UVM_SHA256, parts[i]->len ? parts[i]->data : "", parts[i]->len, hex[i]);
    uvm_auto_free char *pair = uvm_format("%s%s", hex[0], hex[1]);
    uvm_digest_bytes(UVM_SHA256, pair, strlen(pair), both);
    return uvm_format(CHECKSUMS_FOLDER "%s.sums", both);
}

static bool add_checksum_file(struct bundle_draft *d, const struct bundle_checksums *names,
                              const struct mirror_origin *origin, struct uvm_error *err)
{
    if (has_member(d->manifest, names->member))
        return true;
    const struct uvm_buf *sums = &origin->checksums, *sig = &origin->signature;
    return add_bytes(d, uvm_strdup(names->member), sums->data, sums->len, err) &&
           (!names->signature ||
            add_bytes(d, uvm_strdup(names->signature), sig->data, sig->len, err));
}

static bool add_checksums(struct bundle_draft *d, struct bundle_image *bundled,
                          const struct mirror_tree *tree, struct uvm_error *err)
{
    mirror_auto_origin origin = {0};
    if (!mirror_tree_origin(tree, bundled->image, &origin, err))
        return err->code == UVM_OK;
    struct bundle_checksums *names = &bundled->checksums;
    names->member = checksums_path(&origin);
    names->signature = origin.signature.len ? uvm_format("%s.sig", names->member) : NULL;
    names->name = uvm_strdup(origin.name);
    return add_checksum_file(d, names, &origin, err);
}

static bool add_all_checksums(struct bundle_draft *d, const char *content_id,
                              const struct mirror_tree *tree, struct uvm_error *err)
{
    struct bundle_manifest *m = d->manifest;
    for (size_t i = 0; i < m->image_count; i++) {
        struct bundle_image *bundled = &m->images[i];
        if (strcmp(bundled->stream->content_id, content_id) == 0 &&
            !add_checksums(d, bundled, tree, err))
            return uvm_prefix(err, "%s", bundled->image->path);
    }
    return true;
}

static bool add_origins(struct bundle_draft *d, const struct bundle_chosen *c,
                        const struct bundle_create_options *o, struct uvm_error *err)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct mirror_stream *stream = c->streams[i];
        bool ok = bundle_is_own(stream)
                      ? add_own_origin(d, stream, &c->selections[i], o->signer, err) &&
                            add_all_checksums(d, stream->content_id, o->tree, err)
                      : add_vendor_origin(d, stream, err);
        if (!ok)
            return false;
    }
    return true;
}

/* ---- streams ---- */

/* Index and products, for whoever unpacks the bundle: signed by the site, since the vendor's
 * signature does not cover what was left out. */
static bool add_streams(struct bundle_draft *d, const struct bundle_chosen *c,
                        const struct bundle_create_options *o, struct uvm_error *err)
{
    uvm_auto_free char *plain =
        mirror_index_text(c->streams, c->selections, c->count, ".json", o->now);
    uvm_auto_free char *index =
        mirror_index_text(c->streams, c->selections, c->count, ".sjson", o->now);
    if (!add_bytes(d, uvm_strdup("streams/v1/index.json"), plain, strlen(plain), err) ||
        !add_signed(d, o->signer, uvm_strdup("streams/v1/index.sjson"), index, err))
        return false;
    for (size_t i = 0; i < c->count; i++) {
        const char *id = c->streams[i]->content_id;
        uvm_auto_free char *text = mirror_stream_reduce(c->streams[i], &c->selections[i]);
        if (!add_bytes(d, uvm_format("streams/v1/%s.json", id), text, strlen(text), err) ||
            !add_signed(d, o->signer, uvm_format("streams/v1/%s.sjson", id), text, err))
            return false;
    }
    return true;
}

bool bundle_members_compose(struct bundle_draft *d, const struct bundle_chosen *c,
                            const struct bundle_create_options *o, struct uvm_error *err)
{
    return add_origins(d, c, o, err) && add_streams(d, c, o, err);
}

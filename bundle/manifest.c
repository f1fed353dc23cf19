/*
 * The manifest: the whole truth about a bundle, as JSON that a person can read.
 *
 *     { "format", "id", "serial", "created", "tool", "signer", "trailer", "critical": [],
 *       "streams": [ { "content_id", "source", "path", "updated", "updated_at", "filters": [],
 *                      "origin", "verified_by",
 *                      "products": [ { "name", "complete", "versions": [] } ] } ],
 *       "images":  [ { "stream", "product", "version", "item", "path", "size", "sha256", "sha512",
 *                      "metadata": {},
 *                      "payload": { "member", "encoding", "size", "sha256", ... } or null,
 *                      "origin": { "checksums", "signature", "name" } } ],
 *       "members": [ { "path", "size", "sha256" } ] }
 *
 * The images of a product stand together, products in the order of their stream, streams in theirs.
 * docs/bundle-format.md says what each field means.
 */
#include "bundle/internal.h"

/* ---- the struct ---- */

struct bundle_manifest *bundle_manifest_new(void)
{
    return uvm_alloc(sizeof(struct bundle_manifest));
}

static void free_stream(struct bundle_stream *s)
{
    if (!s)
        return;
    free(s->content_id);
    free(s->source);
    free(s->path);
    free(s->updated);
    uvm_strings_clear(&s->filters);
    free(s->origin);
    free(s->verified_by);
    mirror_selection_clear(&s->selection);
    free(s);
}

void bundle_manifest_free(struct bundle_manifest *m)
{
    if (!m)
        return;
    free(m->id);
    free(m->tool);
    free(m->signer);
    for (size_t i = 0; i < m->stream_count; i++)
        free_stream(m->streams[i]);
    free(m->streams);
    for (size_t i = 0; i < m->image_count; i++) {
        bundle_payload_clear(&m->images[i]);
        bundle_checksums_clear(&m->images[i].checksums);
    }
    free(m->images);
    for (size_t i = 0; i < m->member_count; i++)
        free(m->members[i].path);
    free(m->members);
    free(m);
}

/* ---- to JSON ---- */

static json_t *text_or_null(const char *s)
{
    return s ? json_string(s) : json_null();
}

static json_t *digest_or_null(const char *hex)
{
    return hex && *hex ? json_string(hex) : json_null();
}

static json_t *strings_json(const struct uvm_strings *list)
{
    json_t *array = json_array();
    for (size_t i = 0; i < list->count; i++)
        json_array_append_new(array, json_string(list->items[i]));
    return array;
}

static json_t *products_json(const struct mirror_selection *selection)
{
    json_t *array = json_array();
    for (size_t i = 0; i < selection->count; i++) {
        const struct mirror_product *p = &selection->products[i];
        json_t *product = json_object();
        json_object_set_new(product, "name", json_string(p->name));
        json_object_set_new(product, "complete", json_boolean(p->complete));
        json_object_set_new(product, "versions", strings_json(&p->versions));
        json_array_append_new(array, product);
    }
    return array;
}

static json_t *stream_json(const struct bundle_stream *s)
{
    json_t *stream = json_object();
    json_object_set_new(stream, "content_id", json_string(s->content_id));
    json_object_set_new(stream, "source", json_string(s->source));
    json_object_set_new(stream, "path", json_string(s->path));
    json_object_set_new(stream, "updated", text_or_null(s->updated));
    json_object_set_new(stream, "updated_at", json_integer(s->updated_at));
    json_object_set_new(stream, "filters", strings_json(&s->filters));
    json_object_set_new(stream, "origin", json_string(s->origin));
    json_object_set_new(stream, "verified_by", text_or_null(s->verified_by));
    json_object_set_new(stream, "products", products_json(&s->selection));
    return stream;
}

static json_t *image_json(const struct bundle_image *bundled)
{
    const struct mirror_image *i = bundled->image;
    json_t *image = json_object();
    json_object_set_new(image, "stream", json_string(bundled->stream->content_id));
    json_object_set_new(image, "product", json_string(i->product));
    json_object_set_new(image, "version", json_string(i->version));
    json_object_set_new(image, "item", json_string(i->item));
    json_object_set_new(image, "path", json_string(i->path));
    json_object_set_new(image, "size", json_integer((json_int_t)i->size));
    json_object_set_new(image, "sha256", digest_or_null(i->sha256));
    json_object_set_new(image, "sha512", digest_or_null(i->sha512));
    json_object_set(image, "metadata", i->metadata);
    json_object_set_new(image, "payload", bundle_payload_json(bundled));
    if (bundled->checksums.member)
        json_object_set_new(image, "origin", bundle_checksums_json(&bundled->checksums));
    return image;
}

static json_t *member_json(const struct bundle_member *m)
{
    json_t *member = json_object();
    json_object_set_new(member, "path", json_string(m->path));
    json_object_set_new(member, "size", json_integer((json_int_t)m->size));
    json_object_set_new(member, "sha256", json_string(m->sha256));
    return member;
}

char *bundle_manifest_text(const struct bundle_manifest *m)
{
    mirror_auto_json *root = json_object();
    uvm_auto_free char *created = uvm_time_text(m->created);
    json_object_set_new(root, "format", json_integer(m->format));
    json_object_set_new(root, "id", json_string(m->id));
    json_object_set_new(root, "serial", json_integer((json_int_t)m->serial));
    json_object_set_new(root, "created", json_string(created));
    json_object_set_new(root, "tool", json_string(m->tool));
    json_object_set_new(root, "signer", json_string(m->signer));
    if (m->trailer)
        json_object_set_new(root, "trailer", json_string(BUNDLE_TRAILER_CRC32));
    json_object_set_new(root, "critical", json_array());

    json_t *streams = json_array();
    for (size_t i = 0; i < m->stream_count; i++)
        json_array_append_new(streams, stream_json(m->streams[i]));
    json_object_set_new(root, "streams", streams);

    json_t *images = json_array();
    for (size_t i = 0; i < m->image_count; i++)
        json_array_append_new(images, image_json(&m->images[i]));
    json_object_set_new(root, "images", images);

    json_t *members = json_array();
    for (size_t i = 0; i < m->member_count; i++)
        json_array_append_new(members, member_json(&m->members[i]));
    json_object_set_new(root, "members", members);

    uvm_auto_free char *json = json_dumps(root, JSON_INDENT(1));
    return uvm_format("%s\n", json ? json : "");
}

/* ---- what is asked of one ---- */

char *bundle_file_name(const struct bundle_manifest *m)
{
    /* The serial, not `created`: two bundles of one second must not take each other's place. */
    char stamp[32];
    time_t serial = (time_t)m->serial;
    struct tm tm;
    gmtime_r(&serial, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    return uvm_format("uvmirror-%s.tar.zst", stamp);
}

uint64_t bundle_payload_bytes(const struct bundle_manifest *m)
{
    UVM_AUTO(bundle_plan_free) struct bundle_plan *plan = bundle_plan_new(m);
    return plan->payload_bytes;
}

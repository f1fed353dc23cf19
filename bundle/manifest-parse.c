/*
 * From JSON to a manifest. The text is signed by a key that this host trusts, but the host that
 * made it may be broken or taken over: every field is checked before anything uses it.
 */
#include <string.h>

#include "bundle/internal.h"

#define ID_MAX       100   /* bytes of a bundle's id */
#define CRITICAL_MAX 100   /* names of fields */
#define FILTERS_MAX  1000  /* of a stream */
#define VERSIONS_MAX 10000 /* of a product */
/* Origin, .json and .sjson of each stream; two indexes; checksum files with their signatures. */
#define MEMBERS_MAX (3 * MIRROR_STREAMS_MAX + 2 + 2 * BUNDLE_ORIGINS_MAX)

/* ---- the top ---- */

/* Names that a later writer may call critical without shutting this reader out. */
static bool is_known_field(const char *name)
{
    static const char *const known[] = {"format", "id",      "serial",   "created",
                                        "tool",   "signer",  "critical", "streams",
                                        "images", "members", "trailer"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    return false;
}

static bool check_format(const json_t *root, unsigned *ret_format, struct uvm_error *err)
{
    uint64_t format = 0;
    if (!bundle_field_number(root, "format", UINT32_MAX, &format, err))
        return false;
    if (format < 1 || format > BUNDLE_FORMAT)
        return uvm_fail(err, UVM_CONTENT,
                        "format version %llu is unknown to this uvmirror, which reads up to %d "
                        "(update it, or write the bundle with --format %d)",
                        (unsigned long long)format, BUNDLE_FORMAT, BUNDLE_FORMAT);
    uvm_auto_strings critical = {0};
    if (!bundle_field_texts(root, "critical", CRITICAL_MAX, &critical, err))
        return false;
    for (size_t i = 0; i < critical.count; i++)
        if (!is_known_field(critical.items[i]))
            return uvm_fail(err, UVM_CONTENT,
                            "it holds the critical field \"%s\", which this uvmirror does not know",
                            critical.items[i]);
    *ret_format = (unsigned)format;
    return true;
}

/* The id becomes a file name here and there. */
bool bundle_is_id(const char *id)
{
    size_t len = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");
    return len > 0 && len <= ID_MAX && id[len] == 0 && id[0] != '.';
}

/* Absent: the file ends with the tar archive. */
static bool parse_trailer(const json_t *root, struct bundle_manifest *m, struct uvm_error *err)
{
    const char *trailer = NULL;
    if (!json_object_get(root, "trailer"))
        return true;
    if (!bundle_field_text(root, "trailer", &trailer, err))
        return false;
    if (strcmp(trailer, BUNDLE_TRAILER_CRC32) != 0)
        return bundle_field_wrong(err, "trailer", "\"" BUNDLE_TRAILER_CRC32 "\"");
    m->trailer = true;
    return true;
}

static bool parse_top(const json_t *root, struct bundle_manifest *m, struct uvm_error *err)
{
    const char *id = NULL, *created = NULL, *tool = NULL, *signer = NULL;
    if (!bundle_field_text(root, "id", &id, err) ||
        !bundle_field_number(root, "serial", BUNDLE_TIME_MAX, &m->serial, err) ||
        !bundle_field_text(root, "created", &created, err) ||
        !bundle_field_text(root, "tool", &tool, err) ||
        !bundle_field_text(root, "signer", &signer, err) || !parse_trailer(root, m, err))
        return false;
    if (!bundle_is_id(id))
        return bundle_field_wrong(err, "id", "a name");
    if (m->serial == 0)
        return bundle_field_wrong(err, "serial", "above 0");
    if (!bundle_parse_time(created, &m->created))
        return bundle_field_wrong(err, "created", "a time like 2024-10-04T09:30:00Z");
    if (!bundle_is_fingerprint(signer))
        return bundle_field_wrong(err, "signer", "a fingerprint");
    m->id = uvm_strdup(id);
    m->tool = uvm_strdup(tool);
    m->signer = uvm_strdup(signer);
    return true;
}

/* ---- members ---- */

static bool parse_member(const json_t *json, struct bundle_member *m, struct uvm_error *err)
{
    const char *path = NULL;
    if (!bundle_field_text(json, "path", &path, err) || !mirror_path_check(path, err) ||
        !bundle_field_number(json, "size", BUNDLE_MEMBER_MAX, &m->size, err) ||
        !bundle_field_sha256(json, m->sha256, err))
        return false;
    m->path = uvm_strdup(path);
    return true;
}

static bool parse_members(const json_t *root, struct bundle_manifest *m, struct uvm_error *err)
{
    const json_t *array = NULL;
    if (!bundle_field_list(root, "members", MEMBERS_MAX, &array, err))
        return false;
    size_t count = json_array_size(array);
    m->members = uvm_alloc((count + 1) * sizeof *m->members);
    for (; m->member_count < count; m->member_count++)
        if (!parse_member(json_array_get(array, m->member_count), &m->members[m->member_count],
                          err))
            return uvm_prefix(err, "members[%zu]", m->member_count);
    return true;
}

/* ---- streams and their products ---- */

/* A version is listed once, newest first; the receiver retires by this list. */
static bool check_versions(const struct uvm_strings *versions, struct uvm_error *err)
{
    for (size_t i = 0; i < versions->count; i++) {
        const char *v = versions->items[i];
        if (!*v || strlen(v) > MIRROR_NAME_MAX)
            return uvm_fail(err, UVM_CONTENT,
                            "\"versions\" holds a name that is empty or too long");
        if (i > 0 && mirror_version_compare(versions->items[i - 1], v) <= 0)
            return uvm_fail(err, UVM_CONTENT, "\"versions\" is not in order, newest first: %s", v);
    }
    return true;
}

static bool parse_product(const json_t *json, struct mirror_product *p, struct uvm_error *err)
{
    const char *name = NULL;
    const json_t *complete = json_object_get(json, "complete");
    if (!bundle_field_text(json, "name", &name, err))
        return false;
    if (!json_is_boolean(complete))
        return bundle_field_wrong(err, "complete", "true or false");
    if (!bundle_field_texts(json, "versions", VERSIONS_MAX, &p->versions, err) ||
        !check_versions(&p->versions, err))
        return false;
    p->name = uvm_strdup(name);
    p->complete = json_is_true(complete);
    return true;
}

static bool parse_products(const json_t *json, struct mirror_selection *selection,
                           struct uvm_error *err)
{
    const json_t *array = NULL;
    if (!bundle_field_list(json, "products", BUNDLE_IMAGES_MAX, &array, err))
        return false;
    selection->products = uvm_alloc((json_array_size(array) + 1) * sizeof *selection->products);
    mirror_auto_json *seen = json_object();
    for (size_t i = 0; i < json_array_size(array); i++) {
        selection->count = i + 1; /* so that a half-parsed one is freed, too */
        struct mirror_product *p = &selection->products[i];
        if (!parse_product(json_array_get(array, i), p, err))
            return uvm_prefix(err, "products[%zu]", i);
        if (json_object_get(seen, p->name))
            return uvm_fail(err, UVM_CONTENT, "product %s is listed twice", p->name);
        json_object_set_new(seen, p->name, json_true());
    }
    return true;
}

static bool check_content_id(const char *id, struct uvm_error *err)
{
    if (strlen(id) > MIRROR_NAME_MAX || strchr(id, '/'))
        return bundle_field_wrong(err, "content_id", "a stream's name");
    return mirror_path_check(id, err);
}

static bool parse_stream(const json_t *json, struct bundle_stream *s, struct uvm_error *err)
{
    const char *id = NULL, *source = NULL, *path = NULL, *updated = NULL, *origin = NULL,
               *verified_by = NULL;
    uint64_t updated_at = 0;
    if (!bundle_field_text(json, "content_id", &id, err) || !check_content_id(id, err) ||
        !bundle_field_text(json, "source", &source, err) ||
        !bundle_field_text(json, "path", &path, err) ||
        !bundle_field_text_or_null(json, "updated", &updated, err) ||
        !bundle_field_number(json, "updated_at", BUNDLE_TIME_MAX, &updated_at, err) ||
        !bundle_field_texts(json, "filters", FILTERS_MAX, &s->filters, err) ||
        !bundle_field_text(json, "origin", &origin, err) ||
        !bundle_field_text_or_null(json, "verified_by", &verified_by, err) ||
        !parse_products(json, &s->selection, err))
        return false;
    if (verified_by && !bundle_is_fingerprint(verified_by))
        return bundle_field_wrong(err, "verified_by", "a fingerprint");
    s->content_id = uvm_strdup(id);
    s->source = uvm_strdup(source);
    s->path = uvm_strdup(path);
    s->updated = uvm_strdup(updated);
    s->updated_at = (time_t)updated_at;
    s->origin = uvm_strdup(origin);
    s->verified_by = uvm_strdup(verified_by);
    return true;
}

static bool parse_streams(const json_t *root, struct bundle_manifest *m, struct uvm_error *err)
{
    const json_t *array = NULL;
    if (!bundle_field_list(root, "streams", MIRROR_STREAMS_MAX, &array, err))
        return false;
    m->streams = uvm_alloc((json_array_size(array) + 1) * sizeof(struct bundle_stream *));
    for (size_t i = 0; i < json_array_size(array); i++) {
        m->streams[m->stream_count++] = uvm_alloc(sizeof(struct bundle_stream));
        if (!parse_stream(json_array_get(array, i), m->streams[i], err))
            return uvm_prefix(err, "streams[%zu]", i);
    }
    return true;
}

/* ---- images ---- */

/* The flattened metadata decide; the fields beside them must say the same. */
static bool same_text(const json_t *json, const char *key, const char *truth, struct uvm_error *err)
{
    const json_t *value = json_object_get(json, key);
    const char *said = json_string_value(value);
    bool same = truth ? said && strcmp(said, truth) == 0 : json_is_null(value);
    return same || uvm_fail(err, UVM_CONTENT, "\"%s\" is not what the metadata say", key);
}

static bool parse_image(const json_t *json, struct mirror_image *ret_image, struct uvm_error *err)
{
    const char *path = NULL;
    uint64_t size = 0;
    struct mirror_image image = {0};
    if (!bundle_field_text(json, "path", &path, err) ||
        !bundle_field_number(json, "size", MIRROR_SIZE_MAX, &size, err) ||
        !mirror_image_from_metadata(json_object_get(json, "metadata"), path, &image, err))
        return false;
    *ret_image = image;
    if (size != image.size)
        return uvm_fail(err, UVM_CONTENT, "\"size\" is not what the metadata say");
    return mirror_image_path_check(path, err) && same_text(json, "product", image.product, err) &&
           same_text(json, "version", image.version, err) &&
           same_text(json, "item", image.item, err) &&
           same_text(json, "sha256", image.sha256, err) &&
           same_text(json, "sha512", image.sha512, err);
}

/* Where in the manifest the next image may belong. */
struct place {
    size_t stream, product;
};

/* Images stand in the order of streams and products, so that one pass finds each one's home. A
 * product that is passed without an image is refused: nothing but a mistake lists it. */
static bool move_to(struct place *at, const struct bundle_manifest *m, const char *stream,
                    const char *product, struct uvm_error *err)
{
    for (; at->stream < m->stream_count; at->stream++, at->product = 0) {
        const struct bundle_stream *s = m->streams[at->stream];
        for (; at->product < s->selection.count; at->product++) {
            const struct mirror_product *p = &s->selection.products[at->product];
            if (strcmp(s->content_id, stream) == 0 && strcmp(p->name, product) == 0)
                return true;
            if (p->image_count == 0)
                return uvm_fail(err, UVM_CONTENT, "expected an image of %s in stream %s first",
                                p->name, s->content_id);
        }
    }
    return uvm_fail(err, UVM_CONTENT, "its product is not listed, or out of order");
}

static struct mirror_image *add_image(struct mirror_product *p)
{
    p->images = uvm_grow(p->images, p->image_count + 1, sizeof *p->images);
    struct mirror_image *image = &p->images[p->image_count++];
    *image = (struct mirror_image){0};
    return image;
}

static bool parse_one(const json_t *json, struct bundle_manifest *m, struct place *at,
                      struct bundle_image *bundled, struct uvm_error *err)
{
    const char *stream = NULL, *product = NULL;
    if (!bundle_field_text(json, "stream", &stream, err) ||
        !bundle_field_text(json, "product", &product, err) || !move_to(at, m, stream, product, err))
        return false;
    bundled->stream = m->streams[at->stream];
    struct mirror_selection *selection = &m->streams[at->stream]->selection;
    return parse_image(json, add_image(&selection->products[at->product]), err) &&
           bundle_payload_parse(json, m->format, bundled, err) &&
           bundle_checksums_parse(json, &bundled->checksums, err);
}

/* The products' arrays have stopped growing: pointers into them hold from here on. */
static void link_images(struct bundle_manifest *m)
{
    size_t next = 0;
    for (size_t s = 0; s < m->stream_count; s++)
        for (size_t p = 0; p < m->streams[s]->selection.count; p++) {
            const struct mirror_product *product = &m->streams[s]->selection.products[p];
            for (size_t i = 0; i < product->image_count; i++)
                m->images[next++].image = &product->images[i];
        }
}

/* What is parsed is dropped from `root`: ten thousand images are not to be in memory twice. */
static bool parse_images(const json_t *root, struct bundle_manifest *m, struct uvm_error *err)
{
    const json_t *array = NULL;
    if (!bundle_field_list(root, "images", BUNDLE_IMAGES_MAX, &array, err))
        return false;
    size_t count = json_array_size(array);
    m->images = uvm_alloc((count + 1) * sizeof *m->images);
    struct place at = {0};
    for (size_t i = 0; i < count; i++) {
        m->image_count = i + 1; /* so that a half-parsed one is freed, too */
        if (!parse_one(json_array_get(array, i), m, &at, &m->images[i], err))
            return uvm_prefix(err, "images[%zu]", i);
        json_array_set_new(json_object_get(root, "images"), i, json_null());
    }
    link_images(m);
    return true;
}

bool bundle_manifest_parse(const void *text, size_t len, struct bundle_manifest **ret_manifest,
                           struct uvm_error *err)
{
    mirror_auto_json *root = NULL;
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = bundle_manifest_new();
    bool sound = mirror_json_parse(text, len, &root, err) && check_format(root, &m->format, err) &&
                 parse_top(root, m, err) && parse_members(root, m, err) &&
                 parse_streams(root, m, err) && parse_images(root, m, err) &&
                 bundle_manifest_check(m, err);
    if (!sound)
        return uvm_prefix(err, "manifest");
    *ret_manifest = UVM_STEAL(m);
    return true;
}

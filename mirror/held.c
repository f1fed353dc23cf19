/*
 * The records of what a mirror holds, uvmirror/streams/<content_id>.json:
 *
 *     { "format": 1,
 *       "content_id": "com.ubuntu.cloud:released:download",
 *       "origin": "<sha256>",              the kept file; null until a fetch came to its end
 *       "source": "https://.../releases/", where that came from; with "path", and
 *       "path": "streams/v1/...",
 *       "signer": "<fingerprint>",         null = it was not verified
 *       "updated": "Fri, 04 Oct ...",      null = it does not say
 *       "max": { "<product>": 1 },         versions of each product that has images; 0 = all
 *       "images": { "<product>/<version>/<item>":
 *                     { "path": "...", "size": 612345678, "sha256": "...", "sha512": "..." } },
 *       "awaits": { as images },           what a fetch began to download
 *       "superseded": [ "<path>" ] }       what the last hold set out to remove
 *
 * What decides about removal stands in the record itself, so that it can be read without the
 * stream. A record is replaced as a whole after the file that it names is on the disk; what it
 * supersedes is removed after that, and a run that dies in between leaves the list of it.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "mirror/held.h"
#include "mirror/model.h"

#define RECORD_FORMAT 1
#define RECORD_MAX    MIRROR_JSON_MAX
#define FILE_MODE     0644

void mirror_record_clear(struct mirror_record *r)
{
    free(r->content_id);
    free(r->origin);
    free(r->source);
    free(r->path);
    free(r->signer);
    free(r->updated);
    json_decref(r->max);
    json_decref(r->images);
    json_decref(r->awaits);
    json_decref(r->superseded);
    *r = (struct mirror_record){0};
}

static char *record_file(const struct mirror_tree *t, const char *content_id)
{
    return uvm_format("%s/" MIRROR_STREAMS_DIR "/%s" MIRROR_RECORD_SUFFIX, t->dir, content_id);
}

/* ---- images in it ---- */

char *mirror_record_key(const char *product, const char *version, const char *item)
{
    return uvm_format("%s/%s/%s", product, version, item);
}

void mirror_record_put(json_t *images, const struct mirror_image *image)
{
    uvm_auto_free char *key = mirror_record_key(image->product, image->version, image->item);
    json_t *entry =
        json_pack("{s:s, s:I, s:s*, s:s*}", "path", image->path, "size", (json_int_t)image->size,
                  "sha256", image->sha256, "sha512", image->sha512);
    if (!entry || json_object_set_new(images, key, entry) < 0)
        abort();
}

void mirror_record_put_all(json_t *images, const struct mirror_selection *selection)
{
    for (size_t i = 0; i < selection->count; i++)
        for (size_t k = 0; k < selection->products[i].image_count; k++)
            mirror_record_put(images, &selection->products[i].images[k]);
}

struct mirror_image mirror_record_image(const json_t *entry)
{
    return (struct mirror_image){
        .path = uvm_strdup(json_string_value(json_object_get(entry, "path"))),
        .size = (uint64_t)json_integer_value(json_object_get(entry, "size")),
        .sha256 = uvm_strdup(json_string_value(json_object_get(entry, "sha256"))),
        .sha512 = uvm_strdup(json_string_value(json_object_get(entry, "sha512"))),
    };
}

/* ---- checking what was read ---- */

static bool is_key(const char *key)
{
    const char *version = strchr(key, '/');
    const char *item = version ? strchr(version + 1, '/') : NULL;
    return item && !strchr(item + 1, '/');
}

static bool is_path(const json_t *value)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    const char *path = json_string_value(value);
    return path && mirror_image_path_check(path, &ignored);
}

static bool is_between(const json_t *value, uint64_t max)
{
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
           (uint64_t)json_integer_value(value) <= max;
}

/* A checksum, or nothing. */
static bool is_sum(const json_t *value, enum uvm_digest_type type)
{
    const char *hex = json_string_value(value);
    return !value || (hex && uvm_digest_valid(type, hex));
}

static bool is_entry(const json_t *entry)
{
    const json_t *sha256 = json_object_get(entry, "sha256"),
                 *sha512 = json_object_get(entry, "sha512");
    return is_path(json_object_get(entry, "path")) &&
           is_between(json_object_get(entry, "size"), MIRROR_SIZE_MAX) && (sha256 || sha512) &&
           is_sum(sha256, UVM_SHA256) && is_sum(sha512, UVM_SHA512);
}

static bool are_images(json_t *images)
{
    const char *key;
    json_t *entry;
    json_object_foreach(images, key, entry)
    {
        if (!is_key(key) || !is_entry(entry))
            return false;
    }
    return json_is_object(images);
}

static bool are_limits(json_t *max)
{
    const char *product;
    json_t *limit;
    json_object_foreach(max, product, limit)
    {
        if (!is_between(limit, UINT_MAX))
            return false;
    }
    return json_is_object(max);
}

static bool are_paths(const json_t *paths)
{
    for (size_t i = 0; i < json_array_size(paths); i++)
        if (!is_path(json_array_get(paths, i)))
            return false;
    return json_is_array(paths);
}

static bool is_text(const json_t *value)
{
    return json_is_string(value) || json_is_null(value);
}

/* Where the kept file came from; nothing is held without one. */
static bool is_origin_sound(const json_t *top)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    const json_t *origin = json_object_get(top, "origin"), *path = json_object_get(top, "path");
    if (json_is_null(origin))
        return json_object_size(json_object_get(top, "images")) == 0;
    return json_is_string(origin) && is_sum(origin, UVM_SHA256) &&
           json_is_string(json_object_get(top, "source")) && json_is_string(path) &&
           mirror_path_check(json_string_value(path), &ignored) &&
           is_text(json_object_get(top, "signer")) && is_text(json_object_get(top, "updated"));
}

/* The name of what is wrong, NULL when all is fine. */
static const char *find_fault(const json_t *top, const char *content_id)
{
    const char *id = json_string_value(json_object_get(top, "content_id"));
    if (!id || strcmp(id, content_id) != 0)
        return "content_id";
    if (!are_images(json_object_get(top, "images")))
        return "images";
    if (!are_images(json_object_get(top, "awaits")))
        return "awaits";
    if (!are_limits(json_object_get(top, "max")))
        return "max";
    if (!are_paths(json_object_get(top, "superseded")))
        return "superseded";
    return is_origin_sound(top) ? NULL : "origin";
}

static bool check_format(const json_t *top, struct uvm_error *err)
{
    const json_t *format = json_object_get(top, "format");
    if (!json_is_integer(format) || json_integer_value(format) < 1)
        return uvm_fail(err, UVM_CONTENT, "it has no format version");
    if (json_integer_value(format) > RECORD_FORMAT)
        return uvm_fail(err, UVM_FAILED,
                        "a newer uvmirror wrote it (format %lld, this one knows %d): use that one "
                        "for this mirror",
                        (long long)json_integer_value(format), RECORD_FORMAT);
    return true;
}

static bool check_record(const json_t *top, const char *content_id, struct uvm_error *err)
{
    if (!check_format(top, err))
        return false;
    const char *fault = find_fault(top, content_id);
    return !fault || uvm_fail(err, UVM_CONTENT, "its '%s' makes no sense", fault);
}

/* ---- reading ---- */

static char *text_of(const json_t *top, const char *key)
{
    return uvm_strdup(json_string_value(json_object_get(top, key)));
}

static json_t *part_of(const json_t *top, const char *key)
{
    return json_incref(json_object_get(top, key));
}

static struct mirror_record record_of(const json_t *top)
{
    return (struct mirror_record){
        .content_id = text_of(top, "content_id"),
        .origin = text_of(top, "origin"),
        .source = text_of(top, "source"),
        .path = text_of(top, "path"),
        .signer = text_of(top, "signer"),
        .updated = text_of(top, "updated"),
        .max = part_of(top, "max"),
        .images = part_of(top, "images"),
        .awaits = part_of(top, "awaits"),
        .superseded = part_of(top, "superseded"),
    };
}

void mirror_record_init(struct mirror_record *r, const char *content_id)
{
    *r = (struct mirror_record){
        .content_id = uvm_strdup(content_id),
        .max = json_object(),
        .images = json_object(),
        .awaits = json_object(),
        .superseded = json_array(),
    };
}

bool mirror_record_load(const struct mirror_tree *t, const char *content_id,
                        struct mirror_record *ret, struct uvm_error *err)
{
    uvm_auto_free char *file = record_file(t, content_id);
    uvm_auto_buf text = {0};
    mirror_auto_json *top = NULL;
    if (!uvm_file_read(file, RECORD_MAX, &text, err)) {
        if (err->sys_errno == ENOENT) {
            uvm_error_clear(err);
            mirror_record_init(ret, content_id);
            return true;
        }
        if (err->code != UVM_SPACE)
            return false;
        err->code = UVM_CONTENT; /* no record of ours is that long */
        return uvm_prefix(err, "%s is damaged", file);
    }
    if (!mirror_json_parse(text.data, text.len, &top, err) || !check_record(top, content_id, err))
        return uvm_prefix(err, "%s%s", file, err->code == UVM_CONTENT ? " is damaged" : "");
    *ret = record_of(top);
    return true;
}

bool mirror_record_advise(const char *content_id, struct uvm_error *err)
{
    if (err->code != UVM_CONTENT)
        return false;
    uvm_auto_free char *message = UVM_STEAL(err->message);
    err->message = strcmp(content_id, MIRROR_LOCAL_ID) == 0
                       ? uvm_format("%s (remove it and add its images again)", message)
                       : uvm_format("%s (fetch that stream again)", message);
    return false;
}

/* ---- writing ---- */

static json_t *record_json(const struct mirror_record *r)
{
    json_t *top =
        json_pack("{s:i, s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:O, s:O, s:O, s:O}", "format",
                  RECORD_FORMAT, "content_id", r->content_id, "origin", r->origin, "source",
                  r->source, "path", r->path, "signer", r->signer, "updated", r->updated, "max",
                  r->max, "images", r->images, "awaits", r->awaits, "superseded", r->superseded);
    if (!top)
        abort();
    return top;
}

bool mirror_record_equal(const struct mirror_record *a, const struct mirror_record *b)
{
    mirror_auto_json *ja = record_json(a), *jb = record_json(b);
    return json_equal(ja, jb);
}

bool mirror_record_is_newer(const struct mirror_record *r, const struct mirror_stream *stream)
{
    return r->origin && mirror_date_parse(r->updated) > stream->updated_at;
}

bool mirror_record_save(const struct mirror_tree *t, const struct mirror_record *r,
                        struct uvm_error *err)
{
    uvm_auto_free char *file = record_file(t, r->content_id);
    mirror_auto_json *top = record_json(r);
    uvm_auto_free char *text = json_dumps(top, JSON_INDENT(1));
    if (!text)
        abort();
    if (strlen(text) > RECORD_MAX)
        return uvm_fail(err, UVM_SPACE, "%s: the record of what the mirror holds is too long",
                        r->content_id);
    if (!mirror_kept_folder(t, err) || !uvm_file_replace(file, FILE_MODE, text, strlen(text), err))
        return uvm_prefix(err, "cannot record what the mirror holds of %s", r->content_id);
    return true;
}

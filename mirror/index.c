/*
 * From an index to its streams.
 *
 *     index.sjson --GnuPG--> index:1.0 --for each entry--> products.sjson --GnuPG--> products:1.0
 *
 * Every file is fetched once and what was verified is what is used.
 */
#include <errno.h>
#include <string.h>

#include "mirror/source.h"

#define FORMAT_INDEX    "index:1.0"
#define FORMAT_PRODUCTS "products:1.0"

/* Of all files of one source together, as served: they are kept for the bundle. */
#define STREAMS_BYTES_MAX ((size_t)256 << 20)

/* A file of the source. */
struct document {
    struct uvm_buf served; /* as it came */
    struct uvm_buf plain;  /* the JSON in it; verified when there is a verifier */
    struct uvm_signature signature;
};

static void document_clear(struct document *d)
{
    uvm_buf_clear(&d->served);
    uvm_buf_clear(&d->plain);
    uvm_signature_clear(&d->signature);
}
#define auto_document __attribute__((cleanup(document_clear))) struct document

struct stream_list {
    struct mirror_stream **items;
    size_t count;
    size_t bytes;
};

static void stream_list_clear(struct stream_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mirror_stream_free(list->items[i]);
    free(list->items);
    *list = (struct stream_list){0};
}
#define auto_stream_list __attribute__((cleanup(stream_list_clear))) struct stream_list

/* ---- one file ---- */

static bool unwrap(struct mirror_source *s, struct document *d, struct uvm_error *err)
{
    struct uvm_verifier *verifier = mirror_source_verifier(s);
    if (!verifier)
        return uvm_cleartext_body(d->served.data, d->served.len, &d->plain, err);
    return uvm_verifier_clearsigned(verifier, d->served.data, d->served.len, &d->plain,
                                    &d->signature, err);
}

static bool fetch_document(struct mirror_source *s, const char *path, struct document *d,
                           struct uvm_error *err)
{
    if (!mirror_source_get_text(s, path, MIRROR_JSON_MAX, &d->served, err))
        return false;
    if (unwrap(s, d, err))
        return true;
    uvm_auto_free char *name = uvm_printable(path);
    return uvm_prefix(err, "%s%s", mirror_source_url(s), name);
}

/* ---- one stream ---- */

/* `content_id` is the key of the index entry, NULL when no index led here. */
static bool add_stream(struct mirror_source *s, const char *path, const char *content_id,
                       struct document *d, struct stream_list *list, struct uvm_error *err)
{
    UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = NULL;
    if (!mirror_stream_parse(d->plain.data, d->plain.len, &stream, err))
        return false;
    if (content_id && strcmp(content_id, stream->content_id) != 0) {
        uvm_auto_free char *want = uvm_printable(content_id);
        uvm_auto_free char *got = uvm_printable(stream->content_id);
        return uvm_fail(err, UVM_CONTENT, "it is the stream %s, but the index calls it %s", got,
                        want);
    }
    if (d->served.len > STREAMS_BYTES_MAX - list->bytes) {
        uvm_auto_free char *limit = uvm_size_text(STREAMS_BYTES_MAX);
        return uvm_fail(err, UVM_SPACE, "the source's streams have more than %s", limit);
    }
    list->bytes += d->served.len;
    stream->source = uvm_strdup(mirror_source_url(s));
    stream->path = uvm_strdup(path);
    stream->signer = mirror_source_verifier(s) ? uvm_strdup(d->signature.fingerprint) : NULL;
    uvm_buf_move(&stream->origin, &d->served);
    list->items = uvm_grow(list->items, list->count + 1, sizeof *list->items);
    list->items[list->count++] = UVM_STEAL(stream);
    return true;
}

static bool fetch_stream(struct mirror_source *s, const char *path, const char *content_id,
                         struct stream_list *list, struct uvm_error *err)
{
    auto_document d = {0};
    if (!fetch_document(s, path, &d, err))
        return false;
    if (add_stream(s, path, content_id, &d, list, err))
        return true;
    uvm_auto_free char *name = uvm_printable(path);
    return uvm_prefix(err, "%s%s", mirror_source_url(s), name);
}

/* ---- the index ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool is_filter_on(const char *filter, const char *key)
{
    size_t len = strlen(key);
    if (strncmp(filter, key, len) != 0)
        return false;
    len += strspn(filter + len, " ");
    return filter[len] && strchr("=!~", filter[len]);
}

/* Those of `filters` that speak about datatype, among them the implied one. An index entry has none
 * of an image's other keys: a filter on these must not see it. */
static bool datatype_filters(const struct mirror_filters *filters, struct mirror_filters **ret,
                             struct uvm_error *err)
{
    uvm_auto_strings chosen = {0};
    const struct uvm_strings *all = mirror_filters_text(filters);
    for (size_t i = 0; i < all->count; i++)
        if (is_filter_on(all->items[i], "datatype"))
            uvm_strings_add(&chosen, all->items[i]);
    uvm_strings_add(&chosen, "ftype~"); /* holds for all, so that none is implied */
    return mirror_filters_new((const char *const *)chosen.items, chosen.count, NULL, ret, err);
}

static bool is_followed(const json_t *entry, const struct mirror_filters *filters)
{
    if (strcmp(text_of(entry, "format"), FORMAT_PRODUCTS) != 0)
        return false;
    mirror_auto_json *metadata = json_pack("{s:s}", "datatype", text_of(entry, "datatype"));
    return metadata && mirror_filters_match(filters, metadata);
}

static bool follow(struct mirror_source *s, const json_t *entry, const char *content_id,
                   struct stream_list *list, struct uvm_error *err)
{
    const char *path = text_of(entry, "path");
    if (list->count == MIRROR_STREAMS_MAX)
        return uvm_fail(err, UVM_SPACE, "the index names more than %d streams", MIRROR_STREAMS_MAX);
    if (!mirror_path_check(path, err)) {
        uvm_auto_free char *name = uvm_printable(content_id);
        return uvm_prefix(err, "index entry %s", name);
    }
    return fetch_stream(s, path, content_id, list, err);
}

static bool follow_all(struct mirror_source *s, const json_t *index,
                       const struct mirror_filters *filters, struct stream_list *list,
                       struct uvm_error *err)
{
    UVM_AUTO(mirror_filters_free) struct mirror_filters *wanted = NULL;
    if (!datatype_filters(filters, &wanted, err))
        return false;
    void *at = json_object_iter(json_object_get(index, "index"));
    json_t *entries = json_object_get(index, "index");
    for (; at; at = json_object_iter_next(entries, at)) {
        const json_t *entry = json_object_iter_value(at);
        if (is_followed(entry, wanted) && !follow(s, entry, json_object_iter_key(at), list, err))
            return false;
    }
    if (list->count == 0)
        return uvm_fail(err, UVM_SOURCE, "%s: the index names no stream of images",
                        mirror_source_url(s));
    return true;
}

static bool parse_top(struct mirror_source *s, const struct document *d, json_t **ret_json,
                      struct uvm_error *err)
{
    mirror_auto_json *json = NULL;
    const char *format = "";
    bool ok = mirror_json_parse(d->plain.data, d->plain.len, &json, err);
    if (ok)
        format = text_of(json, "format");
    if (ok && strcmp(format, FORMAT_INDEX) != 0 && strcmp(format, FORMAT_PRODUCTS) != 0) {
        uvm_auto_free char *name = uvm_printable(format);
        ok = uvm_fail(err, UVM_CONTENT,
                      "format \"%s\" is neither " FORMAT_INDEX " nor " FORMAT_PRODUCTS, name);
    }
    if (!ok)
        return uvm_prefix(err, "%s%s", mirror_source_url(s), mirror_source_path(s));
    *ret_json = UVM_STEAL(json);
    return true;
}

/* ---- all of it ---- */

static bool fetch_top(struct mirror_source *s, struct document *d, struct uvm_error *err)
{
    if (fetch_document(s, mirror_source_path(s), d, err))
        return true;
    if (err->code == UVM_SOURCE && err->sys_errno == ENOENT) {
        uvm_auto_free char *message = UVM_STEAL(err->message);
        err->message = uvm_format("%s (is --source the folder that holds streams/v1?)", message);
    }
    return false;
}

/* Sets *ret_torn when the index was good and a file that it names was not there or not sound: what
 * a source looks like while it is being updated. */
static bool fetch_all(struct mirror_source *s, const struct mirror_filters *filters,
                      struct stream_list *list, bool *ret_torn, struct uvm_error *err)
{
    auto_document d = {0};
    mirror_auto_json *top = NULL;
    if (!fetch_top(s, &d, err) || !parse_top(s, &d, &top, err))
        return false;
    if (strcmp(text_of(top, "format"), FORMAT_PRODUCTS) == 0)
        return add_stream(s, mirror_source_path(s), NULL, &d, list, err);
    if (follow_all(s, top, filters, list, err))
        return true;
    *ret_torn =
        list->count < MIRROR_STREAMS_MAX && (err->code == UVM_CONTENT || err->code == UVM_TRUST ||
                                             (err->code == UVM_SOURCE && err->sys_errno == ENOENT));
    return false;
}

bool mirror_source_streams(struct mirror_source *s, const struct mirror_filters *filters,
                           struct mirror_stream ***ret_streams, size_t *ret_count,
                           struct uvm_error *err)
{
    auto_stream_list list = {0};
    bool torn = false;
    bool ok = fetch_all(s, filters, &list, &torn, err);
    if (!ok && torn) {
        uvm_notice(mirror_source_observer(s), "%s; reading the index again", err->message);
        uvm_error_clear(err);
        stream_list_clear(&list);
        ok = fetch_all(s, filters, &list, &torn, err);
    }
    if (!ok)
        return false;
    *ret_streams = UVM_STEAL(list.items);
    *ret_count = list.count;
    list.count = 0;
    return true;
}

/*
 * The vendors' files of the streams that a mirror holds, uvmirror/streams/<sha256>, and what is
 * read from them. They were verified when they were fetched; who signed is in the record, and the
 * checksum says that a file is still the one.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/held.h"
#include "mirror/model.h"

#define FILE_MODE  0644
#define ORIGIN_MAX MIRROR_JSON_MAX

/* ---- kept files ---- */

static char *origin_file(const struct mirror_tree *t, const char *name)
{
    return uvm_format("%s/" MIRROR_STREAMS_DIR "/%s", t->dir, name);
}

bool mirror_kept_folder(const struct mirror_tree *t, struct uvm_error *err)
{
    uvm_auto_fd fd = -1;
    const char *name;
    return mirror_beneath_parent(t->root_fd, MIRROR_STREAMS_DIR "/", &fd, &name, err);
}

/* Reads a kept file; UVM_CONTENT when it is not there or not what its name says. */
static bool read_origin(const struct mirror_tree *t, const char *name, struct uvm_buf *ret,
                        struct uvm_error *err)
{
    uvm_auto_free char *file = origin_file(t, name);
    uvm_auto_buf text = {0};
    char hex[UVM_DIGEST_HEX_MAX];
    if (!uvm_file_read(file, ORIGIN_MAX, &text, err)) {
        if (err->sys_errno == ENOENT || err->code == UVM_SPACE)
            err->code = UVM_CONTENT;
        return false;
    }
    uvm_digest_bytes(UVM_SHA256, text.data, text.len, hex);
    if (strcmp(hex, name) != 0)
        return uvm_fail(err, UVM_CONTENT, "%s is damaged", file);
    uvm_buf_move(ret, &text);
    return true;
}

bool mirror_kept_add(const struct mirror_tree *t, const struct mirror_stream *stream,
                     char **ret_name, struct uvm_error *err)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    uvm_auto_buf present = {0};
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA256, stream->origin.data, stream->origin.len, hex);
    uvm_auto_free char *file = origin_file(t, hex);
    if (!read_origin(t, hex, &present, &ignored) &&
        (!mirror_kept_folder(t, err) ||
         !uvm_file_replace(file, FILE_MODE, stream->origin.data, stream->origin.len, err)))
        return uvm_prefix(err, "cannot keep the file of stream %s", stream->content_id);
    *ret_name = uvm_strdup(hex);
    return true;
}

/* What an earlier hold kept, or a run that died was writing. */
static bool is_stale(const char *name, const json_t *named)
{
    bool unfinished = name[0] == '.' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
    return unfinished || (uvm_digest_valid(UVM_SHA256, name) && !json_object_get(named, name));
}

void mirror_kept_sweep(const struct mirror_tree *t, const json_t *named)
{
    uvm_auto_free char *folder = uvm_format("%s/" MIRROR_STREAMS_DIR, t->dir);
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (is_stale(entry->d_name, named))
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

/* ---- streams ---- */

static bool parse_origin(const struct mirror_record *r, struct uvm_buf *origin,
                         struct mirror_stream **ret_stream, struct uvm_error *err)
{
    UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = NULL;
    uvm_auto_buf plain = {0};
    if (!uvm_cleartext_body(origin->data, origin->len, &plain, err) ||
        !mirror_stream_parse(plain.data, plain.len, &stream, err))
        return false;
    if (strcmp(stream->content_id, r->content_id) != 0)
        return uvm_fail(err, UVM_CONTENT, "it is the stream %s", stream->content_id);
    stream->source = uvm_strdup(r->source);
    stream->path = uvm_strdup(r->path);
    stream->signer = uvm_strdup(r->signer);
    uvm_buf_move(&stream->origin, origin);
    *ret_stream = UVM_STEAL(stream);
    return true;
}

static bool read_stream(const struct mirror_tree *t, const struct mirror_record *r,
                        struct mirror_stream **ret_stream, struct uvm_error *err)
{
    uvm_auto_buf origin = {0};
    if (!read_origin(t, r->origin, &origin, err))
        return false;
    if (parse_origin(r, &origin, ret_stream, err))
        return true;
    return uvm_prefix(err, "%s/" MIRROR_STREAMS_DIR "/%s", t->dir, r->origin);
}

bool mirror_held_stream(const struct mirror_tree *t, const char *content_id,
                        struct mirror_stream **ret_stream, struct uvm_error *err)
{
    mirror_auto_record r = {0};
    struct mirror_stream *stream = NULL;
    if (!mirror_record_load(t, content_id, &r, err) ||
        (r.origin && !read_stream(t, &r, &stream, err))) {
        mirror_record_advise(content_id, err);
        uvm_auto_free char *shown = mirror_brief(content_id);
        return uvm_prefix(err, "stream %s", shown);
    }
    *ret_stream = stream;
    return true;
}

struct stream_list {
    struct mirror_stream **items;
    size_t count;
};

static void stream_list_clear(struct stream_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mirror_stream_free(list->items[i]);
    free(list->items);
}

bool mirror_tree_held_streams(const struct mirror_tree *t, struct mirror_stream ***ret_streams,
                              size_t *ret_count, struct uvm_error *err)
{
    __attribute__((cleanup(stream_list_clear))) struct stream_list list = {0};
    uvm_auto_strings ids = {0};
    if (!mirror_record_ids(t, &ids, err))
        return false;
    list.items = uvm_grow(NULL, ids.count, sizeof *list.items);
    for (size_t i = 0; i < ids.count; i++) {
        struct mirror_stream *stream = NULL;
        if (!mirror_held_stream(t, ids.items[i], &stream, err))
            return false;
        if (stream)
            list.items[list.count++] = stream;
    }
    *ret_streams = UVM_STEAL(list.items);
    *ret_count = list.count;
    list.count = 0;
    return true;
}

/* ---- choosing ---- */

struct stock {
    const struct mirror_tree *tree;
    struct mirror_record record;
};

static bool stock_has(const void *opaque, const struct mirror_pedigree *item)
{
    const struct stock *stock = opaque;
    uvm_auto_error ignored = UVM_ERROR_INIT;
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image image = {0};
    uvm_auto_free char *key = mirror_record_key(
        item->names[MIRROR_PRODUCT], item->names[MIRROR_VERSION], item->names[MIRROR_ITEM]);
    return json_object_get(stock->record.images, key) &&
           mirror_pedigree_image(item, &image, &ignored) && mirror_tree_has(stock->tree, &image);
}

static unsigned stock_max(const void *opaque, const char *product)
{
    const struct stock *stock = opaque;
    return (unsigned)json_integer_value(json_object_get(stock->record.max, product));
}

bool mirror_tree_select(const struct mirror_tree *t, const struct mirror_stream *stream,
                        const struct mirror_filters *filters, unsigned max_versions,
                        struct mirror_selection *ret_selection, struct uvm_error *err)
{
    struct stock stock = {.tree = t};
    if (!mirror_record_load(t, stream->content_id, &stock.record, err))
        return mirror_record_advise(stream->content_id, err);
    struct mirror_stock there = {stock_has, stock_max, &stock};
    bool ok = mirror_stream_select_stock(stream, filters, max_versions, &there, ret_selection, err);
    mirror_record_clear(&stock.record);
    return ok;
}

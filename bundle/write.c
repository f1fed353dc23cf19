/*
 * The writer: members in the manifest's order, through libarchive's pax writer into the zstd stage.
 *
 *     frame 1:  manifest.json, manifest.json.sig           (each: header, bytes, padding to 512)
 *     frame 2:  small members, payloads, 1,024 zero bytes
 *     trailer
 *
 * libarchive runs without buffers of its own, so that a frame ends exactly where a member does. The
 * tar depends on the manifest and the members alone: same owner, mode and time everywhere.
 */
#include <archive.h>
#include <archive_entry.h>

#include "bundle/cache.h"

struct writer {
    const struct bundle_write_options *options;
    struct bundle_stage *stage;
    struct archive *archive;
    struct uvm_error failure; /* the stage's, until it can be handed on */
    uint64_t payload_done, payload_total;
};

static void writer_clear(struct writer *w)
{
    if (w->failure.code == UVM_OK)
        uvm_fail(&w->failure, UVM_FAILED, "given up"); /* freeing must not write an archive's end */
    archive_write_free(w->archive);
    bundle_stage_free(w->stage);
    uvm_error_clear(&w->failure);
}

static void entry_free(struct archive_entry **entry)
{
    archive_entry_free(*entry);
}

/* ---- libarchive ---- */

/* libarchive never hears of a failure: it would forget to free what it holds then. Whoever called
 * it asks `failure` afterwards. */
static la_ssize_t pass_on(struct archive *archive, void *opaque, const void *data, size_t len)
{
    struct writer *w = opaque;
    (void)archive;
    if (w->failure.code == UVM_OK)
        bundle_stage_write(w->stage, data, len, &w->failure);
    return (la_ssize_t)len;
}

/* What became of a call of libarchive, which itself says that it went `well`. */
static bool outcome(struct writer *w, bool well, const char *path, struct uvm_error *err)
{
    if (w->failure.code != UVM_OK) {
        *err = w->failure;
        w->failure = UVM_ERROR_INIT;
        return false;
    }
    const char *why = archive_error_string(w->archive);
    return well ||
           uvm_fail(err, UVM_FAILED, "writing member %s: %s", path, why ? why : "unknown error");
}

static bool open_archive(struct writer *w, struct uvm_error *err)
{
    w->archive = archive_write_new();
    if (!w->archive)
        abort();
    bool ok = archive_write_set_format_pax_restricted(w->archive) == ARCHIVE_OK &&
              archive_write_add_filter_none(w->archive) == ARCHIVE_OK &&
              archive_write_set_bytes_per_block(w->archive, 0) == ARCHIVE_OK &&
              archive_write_set_bytes_in_last_block(w->archive, 1) == ARCHIVE_OK &&
              archive_write_open(w->archive, w, NULL, pass_on, NULL) == ARCHIVE_OK;
    return outcome(w, ok, "headers", err);
}

/* A name beyond ASCII is written well, but not without libarchive saying that it is no text. */
static bool header_written(int rc, const char *path)
{
    for (; rc == ARCHIVE_WARN && *path; path++)
        if (*path & 0x80)
            return true;
    return rc == ARCHIVE_OK;
}

static bool begin_member(struct writer *w, const char *path, uint64_t size, struct uvm_error *err)
{
    __attribute__((cleanup(entry_free))) struct archive_entry *entry = archive_entry_new();
    archive_entry_copy_pathname(entry, path);
    archive_entry_set_size(entry, (la_int64_t)size);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_uid(entry, 0);
    archive_entry_set_gid(entry, 0);
    archive_entry_set_mtime(entry, w->options->manifest->created, 0);
    bool well = header_written(archive_write_header(w->archive, entry), path);
    return outcome(w, well, path, err);
}

static bool add_data(struct writer *w, const char *path, const void *data, size_t len,
                     struct uvm_error *err)
{
    bool well = archive_write_data(w->archive, data, len) == (la_ssize_t)len;
    return outcome(w, well, path, err);
}

static bool end_member(struct writer *w, const char *path, struct uvm_error *err)
{
    bool well = archive_write_finish_entry(w->archive) == ARCHIVE_OK;
    return outcome(w, well, path, err);
}

static bool add_small(struct writer *w, const char *path, const struct uvm_buf *content,
                      struct uvm_error *err)
{
    return begin_member(w, path, content->len, err) &&
           add_data(w, path, content->data, content->len, err) && end_member(w, path, err);
}

/* ---- payloads ---- */

/* Whatever brings the bytes. */
struct payload {
    struct bundle_cache *cache;
    struct bundle_cached *cached; /* of a compact one */
    struct mirror_reader *reader; /* of a plain one */
};

static void payload_clear(struct payload *p)
{
    mirror_reader_free(p->reader);
    bundle_cached_free(p->cached);
    bundle_cache_free(p->cache);
}

/* A reader answers for the bytes: it reports their end only when they are what was signed. */
static bool open_payload(const struct writer *w, const struct bundle_image *bundled,
                         struct payload *p, struct uvm_error *err)
{
    const struct bundle_write_options *o = w->options;
    if (bundled->encoding == BUNDLE_COMPACT)
        return bundle_cache_open(o->tree, &p->cache, err) &&
               bundle_cached_open(p->cache, bundled, &p->cached, err);
    return o->download ? mirror_download_read(o->download, bundled->image, &p->reader, err)
                       : mirror_tree_read(o->tree, bundled->image, &p->reader, err);
}

/* Copies exactly `size` bytes into the tar; the reader must end there. */
static bool copy_payload(struct writer *w, struct uvm_reader bytes,
                         const struct bundle_plan_item *item, struct uvm_error *err)
{
    const struct bundle_write_options *o = w->options;
    uint64_t done = 0;
    for (;;) {
        const void *data = NULL;
        size_t len = 0;
        if (!uvm_go_on(o->observer, err) || !bytes.read(bytes.opaque, &data, &len, err))
            return false;
        if (len > item->size - done || (len == 0 && done < item->size))
            return uvm_fail(err, UVM_CONTENT, "%s does not have the %llu bytes that it should have",
                            item->path, (unsigned long long)item->size);
        if (len == 0)
            return true;
        if (!add_data(w, item->path, data, len, err))
            return false;
        done += len;
        w->payload_done += len;
        uvm_progress(o->observer, "bundle", o->name, w->payload_done, w->payload_total);
    }
}

static bool add_payload(struct writer *w, const struct bundle_plan_item *item,
                        struct uvm_error *err)
{
    __attribute__((cleanup(payload_clear))) struct payload p = {0};
    if (!open_payload(w, item->images[0], &p, err))
        return false;
    struct uvm_reader bytes =
        p.cached ? bundle_cached_bytes(p.cached) : mirror_reader_bytes(p.reader);
    return begin_member(w, item->path, item->size, err) && copy_payload(w, bytes, item, err) &&
           end_member(w, item->path, err);
}

/* ---- the whole ---- */

static bool write_first_frame(struct writer *w, struct uvm_error *err)
{
    return add_small(w, BUNDLE_MANIFEST_NAME, w->options->text, err) &&
           add_small(w, BUNDLE_SIGNATURE_NAME, w->options->signature, err) &&
           bundle_stage_end_frame(w->stage, err);
}

static bool write_second_frame(struct writer *w, const struct bundle_plan *plan,
                               struct uvm_error *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct bundle_plan_item *item = &plan->items[i];
        bool ok = item->images ? add_payload(w, item, err)
                               : add_small(w, item->path, &w->options->contents[i], err);
        if (!ok)
            return false;
    }
    bool well = archive_write_close(w->archive) == ARCHIVE_OK;
    return outcome(w, well, "end of archive", err) && bundle_stage_end_frame(w->stage, err) &&
           bundle_stage_end(w->stage, err);
}

bool bundle_write(const struct bundle_write_options *options, uint64_t *ret_bytes,
                  struct uvm_error *err)
{
    bundle_auto_locale locale = bundle_locale_enter();
    UVM_AUTO(bundle_plan_free)
    struct bundle_plan *plan = bundle_plan_new(options->manifest);
    __attribute__((cleanup(writer_clear))) struct writer w = {.options = options,
                                                              .payload_total = plan->payload_bytes};
    w.stage = bundle_stage_new(options->sink);
    if (!open_archive(&w, err) || !write_first_frame(&w, err) || !write_second_frame(&w, plan, err))
        return false;
    *ret_bytes = bundle_stage_bytes(w.stage);
    return true;
}

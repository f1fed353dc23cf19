/*
 * The tar reader: libarchive, held to what a bundle may contain. The bytes it parses are not
 * signed; what comes out is checked against the manifest by the caller.
 *
 *     [ header 512 | bytes, padded to 512 ] ...   pax headers where a name or size needs one
 *     1,024 zero bytes, and at most what fills a record of 10,240
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>

#include "bundle/internal.h"

/* POSIX.1-2001, pax, "ustar Interchange Format": the end-of-archive marker, and the record that tar
 * programs like to fill with more zeros (uvmirror does not). */
#define TAR_BLOCK  512
#define TAR_END    (2 * TAR_BLOCK)
#define TAR_RECORD 10240

struct bundle_untar {
    struct uvm_reader source;
    struct archive *archive;
    struct uvm_error failure; /* the source's, until it can be handed on */
    uint64_t total;           /* bytes that the source has delivered */
    uint64_t content_end;     /* of these, up to the last one that is not zero */
    bool opened;
    uint64_t size, seen; /* of the present member */
};

/* ---- the source ---- */

/* Cheap: it looks at a block from its end, and stops at the first byte that is not zero. */
static void remember_content(struct bundle_untar *t, const unsigned char *data, size_t len)
{
    size_t end = len;
    while (end > 0 && data[end - 1] == 0)
        end--;
    if (end > 0)
        t->content_end = t->total + end;
    t->total += len;
}

static bool pull(struct bundle_untar *t, const void **ret_data, size_t *ret_len,
                 struct uvm_error *err)
{
    if (!t->source.read(t->source.opaque, ret_data, ret_len, err))
        return false;
    if (*ret_len > 0)
        remember_content(t, *ret_data, *ret_len);
    return true;
}

static la_ssize_t feed(struct archive *archive, void *opaque, const void **ret_data)
{
    struct bundle_untar *t = opaque;
    size_t len = 0;
    if (t->failure.code == UVM_OK && pull(t, ret_data, &len, &t->failure))
        return (la_ssize_t)len;
    archive_set_error(archive, EIO, "its source failed");
    return ARCHIVE_FATAL;
}

/* ---- libarchive ---- */

struct bundle_untar *bundle_untar_new(struct uvm_reader source)
{
    struct bundle_untar *t = uvm_alloc(sizeof *t);
    t->source = source;
    t->archive = archive_read_new();
    if (!t->archive || archive_read_support_format_tar(t->archive) != ARCHIVE_OK)
        abort();
    return t;
}

void bundle_untar_free(struct bundle_untar *t)
{
    if (!t)
        return;
    archive_read_free(t->archive);
    uvm_error_clear(&t->failure);
    free(t);
}

/* The source's error is the cause, when there is one. */
static bool tar_failed(struct bundle_untar *t, struct uvm_error *err)
{
    if (t->failure.code != UVM_OK)
        return uvm_fail(err, t->failure.code, "%s", t->failure.message);
    const char *why = archive_error_string(t->archive);
    uvm_auto_free char *printable = uvm_printable(why ? why : "not a tar archive");
    return uvm_fail(err, UVM_CONTENT, "damaged tar data: %s", printable);
}

/* Opening reads the first header already, so it waits until a member is wanted. */
static bool open_archive(struct bundle_untar *t, struct uvm_error *err)
{
    if (t->opened)
        return true;
    t->opened = true;
    return archive_read_open(t->archive, t, NULL, feed, NULL) == ARCHIVE_OK || tar_failed(t, err);
}

/* A regular file that carries all of its bytes, and none of the things that tar can say besides. */
static bool is_plain_file(struct archive_entry *entry)
{
    return archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry) &&
           !archive_entry_symlink(entry) && archive_entry_sparse_count(entry) == 0 &&
           archive_entry_size_is_set(entry) && archive_entry_size(entry) >= 0;
}

bool bundle_untar_next(struct bundle_untar *t, const char **ret_path, uint64_t *ret_size,
                       struct uvm_error *err)
{
    bundle_auto_locale locale = bundle_locale_enter();
    struct archive_entry *entry;
    if (!open_archive(t, err))
        return false;
    int rc = archive_read_next_header(t->archive, &entry);
    if (rc == ARCHIVE_EOF && t->failure.code == UVM_OK) {
        *ret_path = NULL;
        return true;
    }
    if (rc != ARCHIVE_OK)
        return tar_failed(t, err);
    const char *path = archive_entry_pathname(entry);
    if (!path || !is_plain_file(entry)) {
        uvm_auto_free char *name = uvm_printable(path ? path : "?");
        return uvm_fail(err, UVM_CONTENT, "member %s is not a regular file", name);
    }
    t->size = (uint64_t)archive_entry_size(entry);
    t->seen = 0;
    *ret_path = path;
    *ret_size = t->size;
    return true;
}

bool bundle_untar_read(struct bundle_untar *t, const void **ret_data, size_t *ret_len,
                       struct uvm_error *err)
{
    const void *data;
    size_t len = 0;
    la_int64_t offset;
    while (len == 0) {
        int rc = archive_read_data_block(t->archive, &data, &len, &offset);
        if (rc == ARCHIVE_EOF && t->failure.code == UVM_OK) {
            *ret_len = 0;
            return t->seen == t->size || uvm_fail(err, UVM_CONTENT, "it ends too early");
        }
        if (rc != ARCHIVE_OK)
            return tar_failed(t, err);
        if ((uint64_t)offset != t->seen || len > t->size - t->seen)
            return uvm_fail(err, UVM_CONTENT, "it has holes, or more bytes than its header says");
    }
    t->seen += len;
    *ret_data = data;
    *ret_len = len;
    return true;
}

/* libarchive takes a missing marker for an end, and does not look behind one. At the end, the
 * position of the header that it last looked for is where the marker begins. */
bool bundle_untar_finish(struct bundle_untar *t, struct uvm_error *err)
{
    uint64_t marker = (uint64_t)archive_read_header_position(t->archive);
    uint64_t most = marker + TAR_END + TAR_RECORD - TAR_BLOCK;
    for (size_t len = 1; len > 0;) {
        const void *data = NULL;
        if (!pull(t, &data, &len, err))
            return false;
        if (t->total > most || t->content_end > marker)
            return uvm_fail(err, UVM_CONTENT, "there is more behind the end of the tar archive");
    }
    if (t->total < marker + TAR_END || (t->total - marker) % TAR_BLOCK != 0)
        return uvm_fail(err, UVM_CONTENT, "the tar archive does not end as it should");
    return true;
}

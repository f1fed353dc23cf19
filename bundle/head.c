/*
 * The first frame: all that is decoded before anything is trusted. It is small and bounded, and
 * holds exactly two members with plain headers, so that its size alone shows whether anything else
 * is in it.
 *
 *     header | manifest.json, padded | header | manifest.json.sig, padded
 */
#include <string.h>

#include "bundle/internal.h"

#define TAR_BLOCK ((size_t)512)
#define CHUNK     ((size_t)64 << 10)

/* Decoded, and compressed (some bytes may be spent on blocks that hold nothing). */
#define FRAME_MAX (2 * TAR_BLOCK + BUNDLE_MANIFEST_MAX + BUNDLE_SIGNATURE_MAX)
#define TAKEN_MAX (FRAME_MAX + FRAME_MAX / 64)

static size_t padded(size_t len)
{
    return (len + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
}

/* ---- the frame ---- */

static bool decode_frame(struct bundle_unzstd *u, struct uvm_buf *frame, struct uvm_error *err)
{
    uvm_auto_free char *chunk = uvm_alloc(CHUNK);
    for (;;) {
        size_t len = 0;
        if (!bundle_unzstd_read(u, chunk, CHUNK, &len, err))
            return false;
        if (len > FRAME_MAX - frame->len || bundle_unzstd_taken(u) > TAKEN_MAX)
            return uvm_fail(err, UVM_CONTENT,
                            "not a uvmirror bundle: its first frame is larger than a manifest");
        if (len == 0)
            return true;
        if (!uvm_buf_add(frame, chunk, len, err))
            return false;
    }
}

/* ---- its two members ---- */

/* Yields the whole frame as one block. */
struct memory {
    const struct uvm_buf *buf;
    bool done;
};

static bool read_memory(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct memory *memory = opaque;
    (void)err;
    *ret_data = memory->buf->data;
    *ret_len = memory->done ? 0 : memory->buf->len;
    memory->done = true;
    return true;
}

static bool read_member(struct bundle_untar *t, const char *wanted, size_t max,
                        struct uvm_buf *content, struct uvm_error *err)
{
    const char *path = NULL;
    uint64_t size;
    if (!bundle_untar_next(t, &path, &size, err))
        return false;
    if (!path || strcmp(path, wanted) != 0) {
        uvm_auto_free char *found = path ? uvm_printable(path) : uvm_strdup("nothing");
        return uvm_fail(err, UVM_CONTENT, "not a uvmirror bundle: found %s in the place of %s",
                        found, wanted);
    }
    if (size > max)
        return uvm_fail(err, UVM_CONTENT, "%s has %llu bytes, over the limit of %zu", wanted,
                        (unsigned long long)size, max);
    for (;;) {
        const void *data = NULL;
        size_t len = 0;
        if (!bundle_untar_read(t, &data, &len, err))
            return uvm_prefix(err, "%s", wanted);
        if (len == 0)
            return true;
        if (!uvm_buf_add(content, data, len, err))
            return false;
    }
}

static bool take_apart(const struct uvm_buf *frame, struct uvm_buf *manifest,
                       struct uvm_buf *signature, struct uvm_error *err)
{
    struct memory memory = {.buf = frame};
    struct uvm_reader source = {read_memory, &memory};
    UVM_AUTO(bundle_untar_free) struct bundle_untar *t = bundle_untar_new(source);
    if (!read_member(t, BUNDLE_MANIFEST_NAME, BUNDLE_MANIFEST_MAX, manifest, err) ||
        !read_member(t, BUNDLE_SIGNATURE_NAME, BUNDLE_SIGNATURE_MAX, signature, err))
        return false;
    if (frame->len != 2 * TAR_BLOCK + padded(manifest->len) + padded(signature->len))
        return uvm_fail(err, UVM_CONTENT,
                        "its first frame holds more than the manifest and its signature");
    return true;
}

bool bundle_head_read(struct bundle_unzstd *u, struct uvm_buf *ret_manifest,
                      struct uvm_buf *ret_signature, struct uvm_error *err)
{
    uvm_auto_buf frame = {.max = FRAME_MAX};
    uvm_auto_buf manifest = {.max = BUNDLE_MANIFEST_MAX};
    uvm_auto_buf signature = {.max = BUNDLE_SIGNATURE_MAX};
    if (!bundle_unzstd_begin(u, err) || !decode_frame(u, &frame, err) ||
        !take_apart(&frame, &manifest, &signature, err))
        return false;
    uvm_buf_move(ret_manifest, &manifest);
    uvm_buf_move(ret_signature, &signature);
    return true;
}

/*
 * A zstd decoder that minds the frames (RFC 8878, section 3.1). libarchive's runs through any
 * number of frames, skippable ones included, as if they were one: a bundle's trust begins at a
 * frame's border.
 *
 *     28 B5 2F FD | header | blocks ... | checksum      [trailer, see stage.c]
 */
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "bundle/internal.h"

#define IN_SIZE ((size_t)256 << 10)

struct bundle_unzstd {
    struct bundle_input *input; /* NULL: they come from `bytes` */
    struct uvm_reader bytes;
    const char *block; /* of `bytes`, what is left of it */
    size_t block_len;
    const bool *quit;
    ZSTD_DCtx *ctx;
    char *in;
    size_t pos, len; /* of what is left in `in` */
    uint64_t taken;
    uint32_t crc; /* of what was taken */
    bool input_ended;
    bool frame_ended;
};

static struct bundle_unzstd *make(void)
{
    struct bundle_unzstd *u = uvm_alloc(sizeof *u);
    u->frame_ended = true;
    u->in = uvm_alloc(IN_SIZE);
    u->ctx = ZSTD_createDCtx();
    if (!u->ctx ||
        ZSTD_isError(ZSTD_DCtx_setParameter(u->ctx, ZSTD_d_windowLogMax, BUNDLE_WINDOW_LOG)))
        abort();
    return u;
}

struct bundle_unzstd *bundle_unzstd_new(struct bundle_input *input, const bool *quit)
{
    struct bundle_unzstd *u = make();
    u->input = input;
    u->quit = quit;
    return u;
}

struct bundle_unzstd *bundle_unzstd_of(struct uvm_reader bytes)
{
    struct bundle_unzstd *u = make();
    u->bytes = bytes;
    return u;
}

void bundle_unzstd_free(struct bundle_unzstd *u)
{
    if (!u)
        return;
    ZSTD_freeDCtx(u->ctx);
    free(u->in);
    free(u);
}

uint64_t bundle_unzstd_taken(const struct bundle_unzstd *u)
{
    return u->taken;
}

static bool fetch(struct bundle_unzstd *u, void *data, size_t len, size_t *ret_len,
                  struct uvm_error *err)
{
    if (u->input)
        return bundle_input_read(u->input, data, len, u->quit, ret_len, err);
    const void *block = u->block;
    if (u->block_len == 0 && !u->bytes.read(u->bytes.opaque, &block, &u->block_len, err))
        return false;
    size_t part = len < u->block_len ? len : u->block_len;
    *ret_len = part;
    if (part == 0)
        return true;
    memcpy(data, block, part);
    u->block = (const char *)block + part;
    u->block_len -= part;
    return true;
}

bool bundle_unzstd_peek(struct bundle_unzstd *u, size_t want, const void **ret_data,
                        size_t *ret_len, struct uvm_error *err)
{
    if (u->len < want) {
        memmove(u->in, u->in + u->pos, u->len);
        u->pos = 0;
    }
    while (u->len < want && !u->input_ended) {
        size_t got;
        if (!fetch(u, u->in + u->len, IN_SIZE - u->len, &got, err))
            return false;
        u->input_ended = got == 0;
        u->len += got;
    }
    *ret_data = u->in + u->pos;
    *ret_len = u->len;
    return true;
}

bool bundle_unzstd_begin(struct bundle_unzstd *u, struct uvm_error *err)
{
    static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    const void *head;
    size_t len;
    if (!bundle_unzstd_peek(u, sizeof magic, &head, &len, err))
        return false;
    if (len < sizeof magic)
        return uvm_fail(err, UVM_CONTENT,
                        "it is truncated: it ends where a zstd frame should begin");
    if (memcmp(head, magic, sizeof magic) != 0)
        return uvm_fail(err, UVM_CONTENT,
                        "there is something else where a zstd frame should begin");
    ZSTD_DCtx_reset(u->ctx, ZSTD_reset_session_only);
    u->frame_ended = false;
    return true;
}

static void take(struct bundle_unzstd *u, size_t len)
{
    u->crc = (uint32_t)crc32_z(u->crc, (const unsigned char *)u->in + u->pos, len);
    u->pos += len;
    u->len -= len;
    u->taken += len;
}

/* One call of the decoder; it stops at the frame's end by itself. */
static bool step(struct bundle_unzstd *u, ZSTD_outBuffer *out, struct uvm_error *err)
{
    const void *data;
    size_t len;
    if (!bundle_unzstd_peek(u, 1, &data, &len, err))
        return false;
    ZSTD_inBuffer in = {data, len, 0};
    size_t before = out->pos;
    size_t rc = ZSTD_decompressStream(u->ctx, out, &in);
    if (ZSTD_isError(rc))
        return uvm_fail(err, UVM_CONTENT, "damaged zstd data: %s", ZSTD_getErrorName(rc));
    take(u, in.pos);
    u->frame_ended = rc == 0;
    if (rc != 0 && in.pos == 0 && out->pos == before)
        return uvm_fail(err, UVM_CONTENT, "it is truncated");
    return true;
}

bool bundle_unzstd_read(struct bundle_unzstd *u, void *data, size_t len, size_t *ret_len,
                        struct uvm_error *err)
{
    ZSTD_outBuffer out = {data, len, 0};
    while (out.pos < out.size && !u->frame_ended)
        if (!step(u, &out, err))
            return false;
    *ret_len = out.pos;
    return true;
}

static bool check_trailer(struct bundle_unzstd *u, struct uvm_error *err)
{
    unsigned char wanted[BUNDLE_TRAILER_SIZE];
    const void *found;
    size_t len;
    bundle_trailer_make(wanted, u->crc);
    if (!bundle_unzstd_peek(u, sizeof wanted, &found, &len, err))
        return false;
    if (len < sizeof wanted)
        return uvm_fail(err, UVM_CONTENT, "it is truncated: its last bytes are missing");
    if (memcmp(found, wanted, sizeof wanted) != 0)
        return uvm_fail(err, UVM_CONTENT,
                        "it is damaged: its bytes are not those that were written");
    take(u, sizeof wanted);
    return true;
}

bool bundle_unzstd_end(struct bundle_unzstd *u, enum bundle_ending ending, struct uvm_error *err)
{
    const void *data;
    size_t len;
    if (ending == BUNDLE_ENDS_WITH_TRAILER && !check_trailer(u, err))
        return false;
    if (!bundle_unzstd_peek(u, 1, &data, &len, err))
        return false;
    return len == 0 || uvm_fail(err, UVM_CONTENT, "there is something behind its end");
}

/*
 * Compressed clusters of a qcow2 file: raw deflate with a window of 4 KiB, or a frame of zstd. The L2
 * entry says in which sectors a cluster is, not how many bytes it has: what it inflates to tells the
 * end. What QEMU accepts (block/qcow2-threads.c), and nothing else, is accepted.
 */
#define ZLIB_CONST
#include <zlib.h>
#include <zstd.h>

#include "mirror/disk.h"

/* QEMU's parameters. */
#define WINDOW_BITS  (-12) /* raw */
#define MEMORY_LEVEL 9

/* No cluster is larger than 2 MiB, so no frame needs a larger window; but it may ask for one. */
#define ZSTD_WINDOW_LOG_MAX 21

struct mirror_codec {
    /* Each is set up when it is first wanted. */
    z_stream inflate, deflate;
    bool inflates, deflates;
    ZSTD_DCtx *zstd;
    void *room;
    size_t room_size;
};

struct mirror_codec *mirror_codec_new(void)
{
    return uvm_alloc(sizeof(struct mirror_codec));
}

void mirror_codec_free(struct mirror_codec *c)
{
    if (!c)
        return;
    if (c->inflates)
        inflateEnd(&c->inflate);
    if (c->deflates)
        deflateEnd(&c->deflate);
    ZSTD_freeDCtx(c->zstd);
    free(c->room);
    free(c);
}

void *mirror_codec_room(struct mirror_codec *c, size_t len)
{
    if (len > c->room_size) {
        free(c->room);
        c->room = uvm_grow(NULL, len, 1);
        c->room_size = len;
    }
    return c->room;
}

/* ---- inflating ------------------------------------------------------------------------------- */

/* In one call, so that a distance may reach back over everything there is, as QEMU has it. The stream
 * need not be at its end: what is behind a full cluster is padding. */
static bool inflate_deflate(struct mirror_codec *c, const void *packed, size_t len, void *data,
                            size_t size, size_t *ret_used)
{
    z_stream *z = &c->inflate;
    if (!c->inflates && inflateInit2(z, WINDOW_BITS) != Z_OK)
        abort();
    c->inflates = true;
    if (inflateReset(z) != Z_OK)
        abort();
    z->next_in = packed;
    z->avail_in = (uInt)len;
    z->next_out = data;
    z->avail_out = (uInt)size;
    int result = inflate(z, Z_FINISH);
    *ret_used = len - z->avail_in;
    return (result == Z_STREAM_END || result == Z_BUF_ERROR) && z->avail_out == 0;
}

/* Here the frame must end with the cluster. */
static bool inflate_zstd(struct mirror_codec *c, const void *packed, size_t len, void *data,
                         size_t size, size_t *ret_used)
{
    ZSTD_inBuffer in = {packed, len, 0};
    ZSTD_outBuffer out = {data, size, 0};
    size_t left = 1;
    if (!c->zstd && !(c->zstd = ZSTD_createDCtx()))
        abort();
    ZSTD_DCtx_reset(c->zstd, ZSTD_reset_session_and_parameters);
    ZSTD_DCtx_setParameter(c->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    while (out.pos < size) {
        size_t in_before = in.pos, out_before = out.pos;
        left = ZSTD_decompressStream(c->zstd, &out, &in);
        if (ZSTD_isError(left) || (in.pos == in_before && out.pos == out_before))
            return false;
    }
    *ret_used = in.pos;
    return left == 0;
}

bool mirror_codec_inflate(struct mirror_codec *c, const struct mirror_qcow2 *info,
                          const void *packed, size_t len, void *data, size_t *ret_used,
                          struct uvm_error *err)
{
    size_t size = (size_t)1 << info->cluster_bits, used = 0;
    bool ok = info->compression == 1 ? inflate_zstd(c, packed, len, data, size, &used)
                                     : inflate_deflate(c, packed, len, data, size, &used);
    if (!ok)
        return uvm_fail(err, UVM_CONTENT, "its compressed bytes do not make a cluster");
    *ret_used = used;
    return true;
}

/* ---- deflating ------------------------------------------------------------------------------- */

size_t mirror_codec_deflate(struct mirror_codec *c, const void *data, size_t len, void *ret_data)
{
    z_stream *z = &c->deflate;
    if (!c->deflates && deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS,
                                     MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    c->deflates = true;
    if (len == 0 || deflateReset(z) != Z_OK)
        abort();
    z->next_in = data;
    z->avail_in = (uInt)len;
    z->next_out = ret_data;
    z->avail_out = (uInt)(len - 1);
    return deflate(z, Z_FINISH) == Z_STREAM_END ? len - 1 - z->avail_out : 0;
}

const char *mirror_codec_version(void)
{
    return zlibVersion();
}

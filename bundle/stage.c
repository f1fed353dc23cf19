/*
 * The zstd stage of the writer: content in, frames out, and behind them a trailer.
 *
 *     frame | frame | 55 2A 4D 18  04 00 00 00  CRC-32 of all bytes before, little-endian
 *                     '-- a skippable frame (RFC 8878, section 3.1.2): zstd passes over it
 *
 * The trailer is there for damage, not for trust. zstd's blocks have bits that may flip without a
 * change of what they decode to (one in 300 of a small bundle, measured), and a stick that has
 * begun to die must not pass for a sound one.
 *
 * Vendor images are compressed inside. zstd notices, and passes them at the speed of memory; one
 * thread does.
 */
#include <zlib.h>
#include <zstd.h>

#include "bundle/internal.h"

#define OUT_SIZE ((size_t)1 << 20)

/* Twice what zstd takes at its highest level, 128 MiB: 0.8 % less to carry. */
#define THOROUGH_CHAIN_LOG 25

struct bundle_stage {
    struct bundle_sink sink;
    ZSTD_CCtx *ctx;
    char *out;
    size_t out_len;
    uint32_t crc; /* of all that was written */
    uint64_t written;
};

static void set(struct bundle_stage *stage, ZSTD_cParameter parameter, int value)
{
    if (ZSTD_isError(ZSTD_CCtx_setParameter(stage->ctx, parameter, value)))
        abort();
}

static struct bundle_stage *make(struct bundle_sink sink, int level)
{
    struct bundle_stage *stage = uvm_alloc(sizeof *stage);
    stage->sink = sink;
    stage->out = uvm_alloc(OUT_SIZE);
    stage->ctx = ZSTD_createCCtx();
    if (!stage->ctx)
        abort();
    set(stage, ZSTD_c_compressionLevel, level);
    set(stage, ZSTD_c_checksumFlag, 1);
    return stage;
}

struct bundle_stage *bundle_stage_new(struct bundle_sink sink)
{
    struct bundle_stage *stage = make(sink, BUNDLE_ZSTD_LEVEL);
    ZSTD_CCtx_setParameter(stage->ctx, ZSTD_c_nbWorkers,
                           BUNDLE_ZSTD_WORKERS); /* a libzstd without threads refuses */
    return stage;
}

struct bundle_stage *bundle_stage_new_long(struct bundle_sink sink, int level)
{
    struct bundle_stage *stage = make(sink, level);
    set(stage, ZSTD_c_windowLog, BUNDLE_WINDOW_LOG);
    if (level >= BUNDLE_COMPACT_LEVEL_MAX)
        set(stage, ZSTD_c_chainLog, THOROUGH_CHAIN_LOG);
    set(stage, ZSTD_c_enableLongDistanceMatching, 1);
    return stage;
}

void bundle_stage_free(struct bundle_stage *stage)
{
    if (!stage)
        return;
    ZSTD_freeCCtx(stage->ctx);
    free(stage->out);
    free(stage);
}

uint64_t bundle_stage_bytes(const struct bundle_stage *stage)
{
    return stage->written;
}

static bool put(struct bundle_stage *stage, const void *data, size_t len, struct uvm_error *err)
{
    if (!stage->sink.write(stage->sink.opaque, data, len, err))
        return false;
    stage->crc = (uint32_t)crc32_z(stage->crc, data, len);
    stage->written += len;
    return true;
}

static bool flush_out(struct bundle_stage *stage, struct uvm_error *err)
{
    size_t len = stage->out_len;
    stage->out_len = 0;
    return put(stage, stage->out, len, err);
}

/* One call of the encoder. *ret_done: all input is taken and, at the end of a frame, all is out. */
static bool step(struct bundle_stage *stage, ZSTD_inBuffer *in, ZSTD_EndDirective directive,
                 bool *ret_done, struct uvm_error *err)
{
    ZSTD_outBuffer out = {stage->out, OUT_SIZE, stage->out_len};
    size_t rest = ZSTD_compressStream2(stage->ctx, &out, in, directive);
    if (ZSTD_isError(rest))
        return uvm_fail(err, UVM_FAILED, "compressing: %s", ZSTD_getErrorName(rest));
    stage->out_len = out.pos;
    *ret_done = directive == ZSTD_e_end ? rest == 0 : in->pos == in->size;
    bool full = stage->out_len == OUT_SIZE;
    return !(full || (*ret_done && directive == ZSTD_e_end)) || flush_out(stage, err);
}

static bool encode(struct bundle_stage *stage, const void *data, size_t len,
                   ZSTD_EndDirective directive, struct uvm_error *err)
{
    ZSTD_inBuffer in = {data, len, 0};
    for (bool done = false; !done;)
        if (!step(stage, &in, directive, &done, err))
            return false;
    return true;
}

bool bundle_stage_write(struct bundle_stage *stage, const void *data, size_t len,
                        struct uvm_error *err)
{
    return encode(stage, data, len, ZSTD_e_continue, err);
}

bool bundle_stage_end_frame(struct bundle_stage *stage, struct uvm_error *err)
{
    return encode(stage, "", 0, ZSTD_e_end, err);
}

bool bundle_stage_end(struct bundle_stage *stage, struct uvm_error *err)
{
    unsigned char trailer[BUNDLE_TRAILER_SIZE];
    bundle_trailer_make(trailer, stage->crc);
    return put(stage, trailer, sizeof trailer, err);
}

/*
 * bundle_craft.h: makes bundles that production code would never write. A good bundle is taken
 * apart into parts (one per tar member), a test changes some, and they are put together again,
 * signed anew where the test wants a hostile signer.
 */
#pragma once

#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "bundle/internal.h"

#define CRAFT_BLOCK      512
#define CRAFT_PARTS_MAX  40
#define CRAFT_WINDOW_LOG 17

struct craft_part {
    char name[101];
    char link[101];
    char
        type; /* of ustar: '0' regular, '1' hard link, '2' symbolic link, '5' folder, 'x' pax, ... */
    uint64_t size; /* as the header says; `len` bytes follow */
    const char *data;
    size_t len;
};

struct craft {
    struct craft_part parts[CRAFT_PARTS_MAX];
    size_t count;
    size_t frame1; /* parts in the first frame */
    size_t marker; /* zero bytes that end the archive */
    int window_log;
    bool no_trailer;
    struct uvm_buf tail; /* raw bytes behind all that */
};

/* ---- tar ---- */

static inline void craft_octal(char *field, size_t width, uint64_t value)
{
    field[width - 1] = 0;
    for (size_t i = width - 1; i-- > 0; value >>= 3)
        field[i] = (char)('0' + (value & 7));
}

static inline void craft_header(unsigned char block[CRAFT_BLOCK], const struct craft_part *part)
{
    char *b = (char *)block;
    memset(b, 0, CRAFT_BLOCK);
    memcpy(b, part->name, strlen(part->name));
    craft_octal(b + 100, 8, 0644);
    craft_octal(b + 108, 8, 0);
    craft_octal(b + 116, 8, 0);
    craft_octal(b + 124, 12, part->size);
    craft_octal(b + 136, 12, 0);
    b[156] = part->type;
    memcpy(b + 157, part->link, strlen(part->link));
    memcpy(b + 257, "ustar\00000", 8);
    memset(b + 148, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < CRAFT_BLOCK; i++)
        sum += block[i];
    craft_octal(b + 148, 7, sum);
}

static inline void craft_add(struct uvm_buf *buf, const void *data, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!uvm_buf_add(buf, data, len, &err))
        abort();
}

static inline void craft_add_part(struct uvm_buf *tar, const struct craft_part *part)
{
    static const char zeros[CRAFT_BLOCK];
    unsigned char header[CRAFT_BLOCK];
    craft_header(header, part);
    craft_add(tar, header, sizeof header);
    craft_add(tar, part->data ? part->data : "", part->len);
    craft_add(tar, zeros, (CRAFT_BLOCK - part->len % CRAFT_BLOCK) % CRAFT_BLOCK);
}

/* ---- zstd ---- */

/* A frame whose content size is not stated, as a bundle's are. */
static inline void craft_add_frame(struct uvm_buf *out, const void *data, size_t len,
                                   int window_log)
{
    size_t bound = ZSTD_compressBound(len);
    uvm_auto_free char *frame = uvm_alloc(bound);
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, window_log);
    ZSTD_inBuffer in = {data, len, 0};
    ZSTD_outBuffer to = {frame, bound, 0};
    ZSTD_compressStream2(ctx, &to, &in, ZSTD_e_continue);
    if (ZSTD_compressStream2(ctx, &to, &in, ZSTD_e_end) != 0)
        abort();
    ZSTD_freeCCtx(ctx);
    craft_add(out, frame, to.pos);
}

static inline void craft_add_trailer(struct uvm_buf *file)
{
    unsigned char trailer[BUNDLE_TRAILER_SIZE];
    bundle_trailer_make(trailer,
                        (uint32_t)crc32(0, (const unsigned char *)file->data, (uInt)file->len));
    craft_add(file, trailer, sizeof trailer);
}

/* All frames of a file, one after the other. */
static inline void craft_decode(const struct uvm_buf *file, struct uvm_buf *tar)
{
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    ZSTD_inBuffer in = {file->data, file->len, 0};
    char block[65536];
    while (in.pos < in.size) {
        ZSTD_outBuffer out = {block, sizeof block, 0};
        if (ZSTD_isError(ZSTD_decompressStream(ctx, &out, &in)))
            abort();
        craft_add(tar, block, out.pos);
    }
    ZSTD_freeDCtx(ctx);
}

/* ---- apart and together ---- */

/* `tar` must outlive the result. Only for bundles whose members have plain headers. */
static inline struct craft craft_parse(const struct uvm_buf *tar)
{
    struct craft c = {.frame1 = 2, .marker = 2 * CRAFT_BLOCK, .window_log = CRAFT_WINDOW_LOG};
    for (size_t at = 0; tar->data[at];) {
        struct craft_part *part = &c.parts[c.count++];
        memcpy(part->name, tar->data + at, 100);
        part->type = tar->data[at + 156];
        part->size = part->len = (size_t)strtoull(tar->data + at + 124, NULL, 8);
        part->data = tar->data + at + CRAFT_BLOCK;
        at += CRAFT_BLOCK + (part->len + CRAFT_BLOCK - 1) / CRAFT_BLOCK * CRAFT_BLOCK;
    }
    return c;
}

static inline void craft_join(const struct craft *c, struct uvm_buf *file)
{
    uvm_auto_buf first = {0}, second = {0};
    uvm_auto_free char *zeros = uvm_alloc(c->marker);
    for (size_t i = 0; i < c->count; i++)
        craft_add_part(i < c->frame1 ? &first : &second, &c->parts[i]);
    craft_add(&second, zeros, c->marker);
    craft_add_frame(file, first.data ? first.data : "", first.len, CRAFT_WINDOW_LOG);
    craft_add_frame(file, second.data ? second.data : "", second.len, c->window_log);
    if (!c->no_trailer)
        craft_add_trailer(file);
    craft_add(file, c->tail.data ? c->tail.data : "", c->tail.len);
}

/* ---- changes ---- */

static inline struct craft_part craft_part(const char *name, char type, const void *data,
                                           size_t len)
{
    struct craft_part part = {.type = type, .size = len, .data = data, .len = len};
    memcpy(part.name, name, strnlen(name, sizeof part.name - 1));
    return part;
}

static inline void craft_insert(struct craft *c, size_t at, struct craft_part part)
{
    memmove(&c->parts[at + 1], &c->parts[at], (c->count - at) * sizeof part);
    c->parts[at] = part;
    c->count++;
}

static inline void craft_remove(struct craft *c, size_t at)
{
    c->count--;
    memmove(&c->parts[at], &c->parts[at + 1], (c->count - at) * sizeof c->parts[0]);
}

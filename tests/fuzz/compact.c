/*
 * Threat: whoever has stolen a site's key writes compact payloads as he likes, and before a member's end
 * anybody may have damaged it. Head, map, blocks, references to a base, and segments: nothing leads out of
 * bounds, and what is handed out is what was announced.
 *
 * The input is what stands in the zstd frame; its first byte says what it is decoded to, and whether there
 * is a base. If its highest bit is set, the rest is the member itself.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "bundle/compact.h"
#include "tests/fuzz/fuzz.h"

#define MAX_VIRTUAL ((uint64_t)1 << 24)
#define MAX_FILE    ((uint64_t)1 << 22)
#define PLAIN_MAX   ((size_t)64 << 10) /* of a member that is an input */

enum { HAS_BASE = 1, REBUILDS = 2, IS_MEMBER = 128 };

struct member {
    const uint8_t *data;
    size_t len;
};

static bool read_member(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct member *m = opaque;
    (void)err;
    *ret_data = m->data;
    *ret_len = m->len < 100 ? m->len : 100;
    m->data += *ret_len;
    m->len -= *ret_len;
    return true;
}

/* Every block of the base is full of the low bits of its number. */
static bool read_base(void *opaque, uint64_t offset, void *data, size_t len, struct uvm_error *err)
{
    (void)opaque;
    FUZZ_HOLDS(offset % BUNDLE_BLOCK == 0 && len % BUNDLE_BLOCK == 0 && len > 0);
    FUZZ_HOLDS(offset + len > offset && offset + len <= INT64_MAX && err->code == UVM_OK);
    for (size_t at = 0; at < len; at += BUNDLE_BLOCK)
        memset((uint8_t *)data + at, (int)((offset + at) / BUNDLE_BLOCK), BUNDLE_BLOCK);
    return true;
}

static bool drain(struct uvm_reader reader, uint64_t most, uint64_t *ret_bytes,
                  struct uvm_error *err)
{
    for (size_t len = 1; len;) {
        const void *data = NULL;
        if (!reader.read(reader.opaque, &data, &len, err))
            return false;
        *ret_bytes += len;
        FUZZ_HOLDS(*ret_bytes <= most);
    }
    return true;
}

static void check_extents(const struct mirror_content *content)
{
    uint64_t seen = 0, clusters = (content->virtual_size - 1) / MIRROR_CLUSTER + 1;
    for (size_t i = 0; i < content->extent_count; i++) {
        const struct mirror_extent *e = &content->extents[i];
        FUZZ_HOLDS(e->count > 0 && (i == 0 || e->first > seen) && e->first < clusters);
        FUZZ_HOLDS(e->count <= clusters - e->first);
        seen = e->first + e->count;
    }
}

static bool decode(const struct bundle_decode_options *options, bool rebuilds,
                   struct uvm_error *err)
{
    UVM_AUTO(bundle_decoder_free) struct bundle_decoder *d = NULL;
    uint64_t bytes = 0, wanted = rebuilds ? options->file_size : options->content;
    if (!bundle_decoder_new(options, &d, err))
        return false;
    const struct mirror_content *content = bundle_decoder_content(d);
    check_extents(content);
    FUZZ_HOLDS(mirror_content_bytes(content) == options->content);
    if (!drain(rebuilds ? bundle_decoder_image(d) : content->data, wanted, &bytes, err))
        return false;
    FUZZ_HOLDS(bytes == wanted);
    return true;
}

/* What the manifest would have to say for the head and the map to pass. */
static uint64_t content_of(const uint8_t *plain, size_t len, const struct bundle_compact_head *head)
{
    struct bundle_map map = {0};
    struct mirror_extent *extents = NULL;
    size_t count = 0, at = BUNDLE_COMPACT_HEAD;
    uvm_auto_error err = UVM_ERROR_INIT;
    for (uint32_t i = 0; i < head->records && at + BUNDLE_COMPACT_RECORD <= len; i++) {
        if (!bundle_map_get(&map, plain + at, &err))
            break;
        at += BUNDLE_COMPACT_RECORD;
    }
    uint64_t clusters = bundle_map_extents(&map, head->virtual_size, &extents, &count);
    bundle_map_clear(&map);
    free(extents);
    return clusters * MIRROR_CLUSTER;
}

static void set_manifest(struct bundle_decode_options *options, const uint8_t *plain, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_compact_head head;
    if (len < BUNDLE_COMPACT_HEAD || !bundle_compact_head_get(plain, MAX_VIRTUAL, &head, &err))
        return;
    options->file_size = head.file_size < MAX_FILE ? head.file_size : MAX_FILE;
    options->content = content_of(plain, len, &head);
}

static size_t wrap(const uint8_t *plain, size_t len, void *member, size_t room)
{
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, 1);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
    size_t size = ZSTD_compress2(ctx, member, room, plain, len);
    ZSTD_freeCCtx(ctx);
    FUZZ_HOLDS(!ZSTD_isError(size));
    return size;
}

/* The same of a member. */
static void set_manifest_of(struct bundle_decode_options *options, const struct member *member)
{
    uvm_auto_free uint8_t *plain = uvm_alloc(PLAIN_MAX);
    size_t len = ZSTD_decompress(plain, PLAIN_MAX, member->data, member->len);
    if (!ZSTD_isError(len))
        set_manifest(options, plain, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (size < 1)
        return 0;
    size_t len = size - 1, room = ZSTD_compressBound(len);
    uvm_auto_free uint8_t *packed = uvm_alloc(room);
    struct member member = {data + 1, len};
    struct bundle_base base = {read_base, NULL};
    struct bundle_decode_options options = {.member = {read_member, &member},
                                            .base = *data & HAS_BASE ? &base : NULL,
                                            .max_virtual = MAX_VIRTUAL,
                                            .keep_fd = -1};
    if (*data & IS_MEMBER) {
        set_manifest_of(&options, &member);
    } else {
        set_manifest(&options, data + 1, len);
        member = (struct member){packed, wrap(data + 1, len, packed, room)};
    }
    uvm_auto_fd keep = *data & REBUILDS ? memfd_create("content", MFD_CLOEXEC) : -1;
    options.keep_fd = keep;
    fuzz_outcome(decode(&options, *data & REBUILDS, &err), &err);
    return 0;
}

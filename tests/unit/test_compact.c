/* Compact payloads: real images of QEMU's own tools there and back, bases, and encodings that lie. */
#include "tests/unit/disk_world.h"

#include <sched.h>
#define ZLIB_CONST
#include <zlib.h>
#include <zstd.h>

#include "bundle/compact.h"

#define LEVEL 1

/* ---- bytes in memory ------------------------------------------------------------------------- */

static bool collect(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    return uvm_buf_add(opaque, data, len, err);
}

/* Yields a buffer in small steps. */
struct source {
    const struct uvm_buf *buf;
    size_t at;
};

static bool read_source(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct source *s = opaque;
    (void)err;
    *ret_len = s->buf->len - s->at < 4999 ? s->buf->len - s->at : 4999;
    *ret_data = s->buf->data + s->at;
    s->at += *ret_len;
    return true;
}

/* The content of a disk, where its blocks are wanted as a base. */
static bool read_base(void *opaque, uint64_t offset, void *data, size_t len, struct uvm_error *err)
{
    const struct uvm_buf *raw = opaque;
    memset(data, 0, len);
    if (offset < raw->len)
        memcpy(data, raw->data + offset, raw->len - offset < len ? raw->len - offset : len);
    return err->code == UVM_OK;
}

/* ---- encoding -------------------------------------------------------------------------------- */

struct encoded {
    struct uvm_buf member;
    struct bundle_encode_result result;
    uint64_t file_size;
};

static void clear_encoded(struct encoded *e)
{
    uvm_buf_clear(&e->member);
    bundle_blocks_free(e->result.blocks);
}
#define auto_encoded __attribute__((cleanup(clear_encoded))) struct encoded

static struct encoded encode(const char *path, const struct bundle_blocks *base)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_disk disk = open_disk(path);
    struct encoded e = {.member = {.max = 256 * MIB}, .file_size = file_size(path)};
    struct bundle_encode_options options = {.disk = disk.disk,
                                            .fd = disk.fd,
                                            .file_size = e.file_size,
                                            .base = base,
                                            .level = LEVEL,
                                            .title = path,
                                            .sink = {collect, &e.member}};
    if (!bundle_encode(&options, &e.result, &err))
        fail_msg("%s: %s", path, err.message);
    return e;
}

static struct encoded encode_worthwhile(const char *path, const struct bundle_blocks *base)
{
    struct encoded e = encode(path, base);
    if (!e.result.worthwhile)
        fail_msg("%s: not worthwhile", path);
    assert_true(e.member.len < e.file_size);
    return e;
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* What became of it. */
struct decoded {
    struct uvm_buf data;
    struct mirror_extent *extents;
    size_t extent_count;
    uint64_t virtual_size;
};

static void clear_decoded(struct decoded *d)
{
    uvm_buf_clear(&d->data);
    free(d->extents);
}
#define auto_decoded __attribute__((cleanup(clear_decoded))) struct decoded

enum want { CONTENT, IMAGE };

static bool decode(const struct encoded *e, struct uvm_buf *base, enum want want,
                   struct decoded *ret, struct uvm_error *err)
{
    UVM_AUTO(bundle_decoder_free) struct bundle_decoder *d = NULL;
    struct source source = {&e->member, 0};
    struct bundle_base from = {read_base, base};
    uvm_auto_fd keep = -1;
    if (want == IMAGE && !uvm_nameless_file(".", &keep, err))
        return false;
    struct bundle_decode_options options = {.member = {read_source, &source},
                                            .base = base ? &from : NULL,
                                            .file_size = e->file_size,
                                            .content = e->result.content,
                                            .max_virtual = MIRROR_VIRTUAL_MAX,
                                            .keep_fd = keep};
    if (!bundle_decoder_new(&options, &d, err))
        return false;
    const struct mirror_content *content = bundle_decoder_content(d);
    struct uvm_reader reader = want == IMAGE ? bundle_decoder_image(d) : content->data;
    ret->data.max = 256 * MIB;
    ret->virtual_size = content->virtual_size;
    ret->extent_count = content->extent_count;
    ret->extents = uvm_grow(NULL, content->extent_count + 1, sizeof *ret->extents);
    memcpy(ret->extents, content->extents ? content->extents : ret->extents,
           content->extent_count * sizeof *ret->extents);
    for (size_t len = 1; len;) {
        const void *data = NULL;
        if (!reader.read(reader.opaque, &data, &len, err) ||
            (len && !uvm_buf_add(&ret->data, data, len, err)))
            return false;
    }
    return true;
}

static void must_decode(const struct encoded *e, struct uvm_buf *base, enum want want,
                        struct decoded *ret)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!decode(e, base, want, ret, &err))
        fail_msg("%s", err.message);
}

static void must_refuse(const struct encoded *e, struct uvm_buf *base, const char *why)
{
    for (enum want want = CONTENT; want <= IMAGE; want++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        auto_decoded d = {0};
        assert_false(decode(e, base, want, &d, &err));
        assert_int_equal(err.code, UVM_CONTENT);
        if (!strstr(err.message, why))
            fail_msg("\"%s\" is not about \"%s\"", err.message, why);
    }
}

/* The content as one stretch of bytes: what a guest sees. */
static void assert_content(const struct decoded *d, const struct uvm_buf *raw)
{
    size_t at = 0, seen = 0;
    assert_int_equal(d->virtual_size, raw->len);
    for (size_t i = 0; i < d->extent_count; i++) {
        size_t first = d->extents[i].first * MIRROR_CLUSTER;
        size_t len = d->extents[i].count * MIRROR_CLUSTER;
        assert_true(first >= seen && len > 0 && at + len <= d->data.len && first < raw->len);
        assert_true(i == 0 || first > seen);
        assert_true(only_zeros(raw->data + seen, first - seen));
        size_t shown = len < raw->len - first ? len : raw->len - first;
        assert_memory_equal(d->data.data + at, raw->data + first, shown);
        assert_true(only_zeros(d->data.data + at + shown, len - shown));
        at += len;
        seen = first + shown;
    }
    assert_true(only_zeros(raw->data + seen, raw->len - seen));
    assert_int_equal(at, d->data.len);
}

/* There and back: the content is what QEMU says, the image what it was. */
static void assert_round_trip(const char *path, const struct encoded *e, struct uvm_buf *base)
{
    uvm_auto_buf raw = judge(path), image = slurp(path);
    auto_decoded content = {0}, rebuilt = {0};
    must_decode(e, base, CONTENT, &content);
    assert_content(&content, &raw);
    assert_int_equal(content.data.len, e->result.content);
    must_decode(e, base, IMAGE, &rebuilt);
    assert_int_equal(rebuilt.data.len, image.len);
    assert_memory_equal(rebuilt.data.data, image.data, image.len);
}

static void round_trip(const char *path)
{
    auto_encoded e = encode_worthwhile(path, NULL);
    assert_int_equal(e.result.base_blocks, 0);
    assert_round_trip(path, &e, NULL);
}

/* A member as its bytes within the frame. */
static void unpack(const struct uvm_buf *member, struct uvm_buf *ret_plain)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct source source = {member, 0};
    UVM_AUTO(bundle_unzstd_free)
    struct bundle_unzstd *u = bundle_unzstd_of((struct uvm_reader){read_source, &source});
    ret_plain->max = 64 * MIB;
    assert_true(bundle_unzstd_begin(u, &err));
    for (size_t len = 1; len;) {
        char block[4096];
        assert_true(bundle_unzstd_read(u, block, sizeof block, &len, &err));
        if (len)
            assert_true(uvm_buf_add(ret_plain, block, len, &err));
    }
}

/* ---- samples --------------------------------------------------------------------------------- */

/* Text here and there, noise, and holes; no multiple of anything but a sector. */
static void make_raw(const char *path)
{
    make_empty(path, 5 * MIB + 512);
    put_text(path, 0, 700 * KIB);
    put_noise(path, 1 * MIB + 3 * KIB, 90 * KIB);
    put_text(path, 3 * MIB - 5000, 60 * KIB);
    put_text(path, 5 * MIB - 70 * KIB, 70 * KIB + 512);
}

static void make_image(const char *raw, const char *path, const char *options)
{
    run("qemu-img convert -f raw -O qcow2 %s %s %s >qemu.log 2>&1", options, raw, path);
}

/* ---- round trips ----------------------------------------------------------------------------- */

static void test_every_cluster_size(void **state)
{
    static const char *const options[] = {
        "-c -o compat=0.10,cluster_size=512", "-c -o compat=1.1,cluster_size=512",
        "-c -o compat=0.10,cluster_size=4k",  "-c -o compat=1.1,cluster_size=16k",
        "-c -o compat=0.10,cluster_size=64k", "-c -o compat=1.1,cluster_size=64k",
        "-c -o compat=0.10,cluster_size=2M",  "-c -o compat=1.1,cluster_size=2M",
        "-o compat=0.10,cluster_size=512",    "-o compat=1.1,cluster_size=4k",
        "-o compat=1.1,cluster_size=64k",     "-o compat=1.1,cluster_size=2M",
        "-c -o compat=1.1,refcount_bits=1",   "-o compat=1.1,preallocation=metadata",
        "-c -m 8 -W -o compat=1.1",
    };
    (void)state;
    if (!have_qemu())
        skip();
    make_raw("disk.raw");
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        make_image("disk.raw", "disk.qcow2", options[i]);
        round_trip("disk.qcow2");
    }
}

/* Clusters anywhere, some of them given up again, zeros that are said and zeros that are stored. */
static void make_worn(const char *path)
{
    run("qemu-img create -q -f qcow2 %s 20M", path);
    run("qemu-io -c 'write -P 7 9M 200k' -c 'write -c -P 5 0 64k' -c 'write -P 3 1M 4k' "
        "-c 'write -P 9 15M 1M' -c 'discard 15M 512k' -c 'write -z 9M 64k' -c 'write -P 0 4M 64k' "
        "-c 'write -P 1 19M 64k' -c 'write -c -P 2 64k 64k' %s >qemu.log 2>&1",
        path);
}

static void test_a_worn_image(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_worn("worn.qcow2");
    round_trip("worn.qcow2");
}

static void test_a_tail_that_is_cut_off(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_raw("disk.raw");
    make_image("disk.raw", "disk.qcow2", "-c");
    auto_disk disk = open_disk("disk.qcow2");
    struct mirror_disk_walk walk = {0};
    struct mirror_disk_cluster cluster = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    uint64_t last = 0;
    for (bool end = false; !end;) {
        assert_true(mirror_disk_next(disk.disk, &walk, &cluster, &end, &err));
        if (!end && cluster.offset > last)
            last = cluster.offset;
    }
    uvm_auto_buf image = slurp("disk.qcow2");
    while (image.data[image.len - 1] == 0)
        image.len--;
    assert_true(image.len > last && image.len < file_size("disk.qcow2"));
    assert_int_equal(truncate("disk.qcow2", (off_t)image.len), 0);
    round_trip("disk.qcow2");
}

/* Deflates a cluster in a way that is not QEMU's. */
static size_t deflate_else(const void *data, size_t len, void *to)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_FILTERED), Z_OK);
    z.next_in = data;
    z.avail_in = (uInt)len;
    z.next_out = to;
    z.avail_out = (uInt)len;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return len - z.avail_out;
}

/* Puts another stream, of the same content, where the cluster's was. */
static bool exchange(const char *path, const struct disk *disk,
                     const struct mirror_disk_cluster *cluster)
{
    UVM_AUTO(mirror_codec_free) struct mirror_codec *codec = mirror_codec_new();
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free uint8_t *data = uvm_alloc(MIRROR_CLUSTER), *other = uvm_alloc(MIRROR_CLUSTER);
    size_t used = 0;
    assert_true(mirror_disk_cluster_read(disk->disk, cluster, codec, data, &used, &err));
    size_t len = deflate_else(data, MIRROR_CLUSTER, other);
    if (len > used)
        return false;
    write_at(path, cluster->offset, other, len);
    return true;
}

static void test_clusters_that_do_not_come_out_the_same(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_raw("disk.raw");
    make_image("disk.raw", "disk.qcow2", "-c");
    auto_encoded before = encode_worthwhile("disk.qcow2", NULL);
    auto_disk disk = open_disk("disk.qcow2");
    struct mirror_disk_walk walk = {0};
    struct mirror_disk_cluster cluster = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    size_t changed = 0;
    for (bool end = false; changed < 3 && !end;) {
        assert_true(mirror_disk_next(disk.disk, &walk, &cluster, &end, &err));
        changed += !end && cluster.compressed && exchange("disk.qcow2", &disk, &cluster);
    }
    assert_true(changed > 0);
    round_trip("disk.qcow2");
    auto_encoded after = encode_worthwhile("disk.qcow2", NULL);
    assert_true(after.member.len > before.member.len);
}

static void test_what_is_not_worthwhile(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_raw("disk.raw");
    make_image("disk.raw", "disk.qcow2", "-c -o compression_type=zstd");
    auto_encoded zstd = encode("disk.qcow2", NULL);
    assert_false(zstd.result.worthwhile);
    assert_int_equal(zstd.member.len, 0);
    assert_non_null(zstd.result.blocks);
    make_empty("noise.raw", MIB);
    put_noise("noise.raw", 0, MIB);
    make_image("noise.raw", "noise.qcow2", "-o cluster_size=512");
    uvm_auto_buf image = slurp("noise.qcow2");
    auto_encoded noise = encode("noise.qcow2", NULL);
    assert_true(!noise.result.worthwhile || noise.member.len < image.len);
}

/* Whatever the number of threads. */
static void test_one_encoding_alone(void **state)
{
    cpu_set_t all, one;
    (void)state;
    if (!have_qemu())
        skip();
    make_raw("disk.raw");
    make_image("disk.raw", "disk.qcow2", "-c");
    auto_encoded many = encode_worthwhile("disk.qcow2", NULL);
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all) && CPU_COUNT(&one) == 0)
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    auto_encoded single = encode_worthwhile("disk.qcow2", NULL);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(many.member.len, single.member.len);
    assert_memory_equal(many.member.data, single.member.data, many.member.len);
}

/* ---- bases ----------------------------------------------------------------------------------- */

/* A second build: much is the same, some of it elsewhere. */
static void make_second(const char *path)
{
    make_raw(path);
    put_noise(path, 200 * KIB, 5000);
    put_text(path, 4 * MIB, 30 * KIB);
    uvm_auto_buf raw = slurp(path);
    write_at(path, 2 * MIB, raw.data + 64 * KIB, 100 * KIB);
}

struct builds {
    struct encoded first, second;
    struct uvm_buf base; /* the content of the first one */
};

static void clear_builds(struct builds *b)
{
    clear_encoded(&b->first);
    clear_encoded(&b->second);
    uvm_buf_clear(&b->base);
}
#define auto_builds __attribute__((cleanup(clear_builds))) struct builds

static struct builds make_builds(void)
{
    make_raw("first.raw");
    make_second("second.raw");
    make_image("first.raw", "first.qcow2", "-c");
    make_image("second.raw", "second.qcow2", "-c");
    struct builds b = {.first = encode_worthwhile("first.qcow2", NULL)};
    b.second = encode_worthwhile("second.qcow2", b.first.result.blocks);
    b.base = judge("first.qcow2");
    return b;
}

static void test_a_difference(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    auto_builds b = make_builds();
    auto_encoded alone = encode_worthwhile("second.qcow2", NULL);
    assert_true(b.second.result.base_blocks > 200);
    assert_true(b.second.member.len < alone.member.len / 2);
    assert_round_trip("second.qcow2", &b.second, &b.base);
}

static void test_a_base_that_was_changed(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    auto_builds b = make_builds();
    must_refuse(&b.second, NULL, "refers to an older image");
    b.base.data[100 * KIB] ^= 1;
    must_refuse(&b.second, &b.base, "it was changed");
    b.base.len = MIB;
    must_refuse(&b.second, &b.base, "it was changed");
}

static void test_a_base_of_the_same_bytes(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    auto_builds b = make_builds();
    auto_encoded again = encode_worthwhile("first.qcow2", b.first.result.blocks);
    uvm_auto_buf plain = {0};
    unpack(&again.member, &plain);
    /* All but the last block, of which a guest sees a part alone. */
    assert_int_equal(bundle_get64((uint8_t *)plain.data + 40), 1);
    assert_round_trip("first.qcow2", &again, &b.base);
}

/* ---- lists of blocks ------------------------------------------------------------------------- */

static bool read_blocks(const struct uvm_buf *file, struct bundle_blocks **ret,
                        struct uvm_error *err)
{
    uvm_auto_fd fd = -1;
    make_empty("blocks", 0);
    if (file->len)
        write_at("blocks", 0, file->data, file->len);
    fd = open("blocks", O_RDONLY | O_CLOEXEC);
    return bundle_blocks_read(fd, ret, err);
}

static void test_lists_of_blocks(void **state)
{
    (void)state;
    UVM_AUTO(bundle_blocks_free) struct bundle_blocks *b = bundle_blocks_new(), *copy = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    uint8_t block[BUNDLE_BLOCK] = {0};
    struct bundle_block_id id;
    uint64_t found = 0;
    for (uint64_t i = 0; i < 5000; i++) {
        bundle_put64(block, i % 4000 + 1);
        bundle_block_id(block, &id);
        bundle_blocks_add(b, i * 3, &id);
    }
    uvm_auto_fd fd = open("list", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(bundle_blocks_write(b, fd, &err));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_true(bundle_blocks_read(fd, &copy, &err));
    UVM_AUTO(bundle_finder_free) struct bundle_finder *f = bundle_finder_new(copy);
    for (uint64_t i = 0; i < 5000; i++) {
        bundle_put64(block, i % 4000 + 1);
        bundle_block_id(block, &id);
        assert_true(bundle_finder_find(f, &id, &found));
        assert_int_equal(found, i % 4000 * 3);
        assert_true(bundle_blocks_has(copy, i * 3, &id));
        assert_false(bundle_blocks_has(copy, i * 3 + 1, &id));
        assert_false(bundle_blocks_has(copy, i * 3 + 3, &id));
    }
    bundle_put64(block, 4001);
    bundle_block_id(block, &id);
    assert_false(bundle_finder_find(f, &id, &found));
}

static void test_a_damaged_list_of_blocks(void **state)
{
    (void)state;
    UVM_AUTO(bundle_blocks_free) struct bundle_blocks *b = bundle_blocks_new();
    uvm_auto_error written = UVM_ERROR_INIT;
    for (uint64_t i = 0; i < 3; i++)
        bundle_blocks_add(b, i, &(struct bundle_block_id){{1, (uint8_t)i}});
    uvm_auto_fd fd = open("list", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(bundle_blocks_write(b, fd, &written));
    uvm_auto_buf file = slurp("list");
    size_t len = file.len;
    for (size_t i = 0; i <= 2 * len; i++) {
        UVM_AUTO(bundle_blocks_free) struct bundle_blocks *damaged = NULL;
        uvm_auto_error err = UVM_ERROR_INIT;
        /* A bit of each byte, then every length, then one byte more. */
        if (i < len)
            file.data[i] ^= 4;
        file.len = i < len ? len : i == 2 * len ? len + 1 : i - len;
        assert_false(read_blocks(&file, &damaged, &err));
        assert_int_equal(err.code, UVM_CONTENT);
        if (i < len)
            file.data[i] ^= 4;
    }
}

/* ---- encodings that lie ---------------------------------------------------------------------- */

enum frame { WITH_CHECKSUM, WITHOUT_CHECKSUM };

static void pack(const struct uvm_buf *plain, enum frame frame, struct uvm_buf *ret_member)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    size_t room = ZSTD_compressBound(plain->len);
    uvm_auto_free char *packed = uvm_alloc(room);
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, 1);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, frame == WITH_CHECKSUM);
    size_t len = ZSTD_compress2(ctx, packed, room, plain->data, plain->len);
    ZSTD_freeCCtx(ctx);
    assert_false(ZSTD_isError(len));
    uvm_buf_clear(ret_member);
    assert_true(uvm_buf_add(ret_member, packed, len, &err));
}

/* A small one with everything in it: zeros, carried blocks and some of a base; all kinds of segments. */
static void make_liar(struct encoded *ret, struct uvm_buf *ret_base, struct uvm_buf *ret_plain)
{
    make_empty("first.raw", 300 * KIB);
    put_text("first.raw", 0, 40 * KIB);
    make_image("first.raw", "first.qcow2", "-c -o cluster_size=16k");
    run("cp first.raw second.raw");
    put_text("second.raw", 16 * KIB, 8 * KIB);
    put_noise("second.raw", 150 * KIB, 10 * KIB);
    make_image("second.raw", "second.qcow2", "-c -o cluster_size=16k");
    auto_encoded first = encode("first.qcow2", NULL);
    *ret = encode_worthwhile("second.qcow2", first.result.blocks);
    *ret_base = judge("first.qcow2");
    unpack(&ret->member, ret_plain);
    assert_true(ret->result.base_blocks > 0);
}

static bool same_content(const struct decoded *a, const struct decoded *b)
{
    return a->virtual_size == b->virtual_size && a->extent_count == b->extent_count &&
           memcmp(a->extents, b->extents, a->extent_count * sizeof *a->extents) == 0 &&
           a->data.len == b->data.len && memcmp(a->data.data, b->data.data, a->data.len) == 0;
}

struct truth {
    struct uvm_buf *base;
    struct decoded content, image;
};

static void clear_truth(struct truth *t)
{
    clear_decoded(&t->content);
    clear_decoded(&t->image);
}

/* It is refused, or it shows: in the image, of which there is a checksum, or else in the content. */
static void assert_shows(const struct encoded *e, const struct truth *t, size_t at)
{
    uvm_auto_error content_err = UVM_ERROR_INIT, image_err = UVM_ERROR_INIT;
    auto_decoded content = {0}, image = {0};
    bool shown = decode(e, t->base, CONTENT, &content, &content_err);
    bool made = decode(e, t->base, IMAGE, &image, &image_err);
    bool image_same = made && image.data.len == t->image.data.len &&
                      memcmp(image.data.data, t->image.data.data, image.data.len) == 0;
    if (!shown)
        assert_true(content_err.code == UVM_CONTENT && image_err.code == UVM_CONTENT);
    if (shown && image_same && same_content(&content, &t->content))
        fail_msg("byte %zu may be anything", at);
}

static void test_every_change_shows(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    auto_encoded e = {0};
    uvm_auto_buf base = {0}, plain = {0};
    make_liar(&e, &base, &plain);
    __attribute__((cleanup(clear_truth))) struct truth t = {.base = &base};
    must_decode(&e, &base, CONTENT, &t.content);
    must_decode(&e, &base, IMAGE, &t.image);
    const uint8_t *head = (const uint8_t *)plain.data;
    size_t blocks = BUNDLE_COMPACT_HEAD + (bundle_get64(head + 32) >> 32) * BUNDLE_COMPACT_RECORD;
    size_t file = blocks + bundle_get64(head + 40) * BUNDLE_BLOCK;
    for (size_t i = 0; i < plain.len; i += i < blocks ? 1 : i < file ? 997 : 7) {
        char was = plain.data[i];
        plain.data[i] ^= (char)(1 << i % 8);
        pack(&plain, WITH_CHECKSUM, &e.member);
        assert_shows(&e, &t, i);
        plain.data[i] = was;
    }
}

static void test_every_cut_is_refused(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    auto_encoded e = {0};
    uvm_auto_buf base = {0}, plain = {0};
    make_liar(&e, &base, &plain);
    size_t whole = plain.len;
    for (size_t i = 0; i < whole; i += 1009) {
        plain.len = i;
        pack(&plain, WITH_CHECKSUM, &e.member);
        must_refuse(&e, &base, i < 16 ? "" : "ends too early");
    }
    plain.len = whole;
    pack(&plain, WITH_CHECKSUM, &e.member);
    whole = e.member.len;
    for (size_t i = 0; i < whole; i += 499) {
        e.member.len = i;
        must_refuse(&e, &base, "");
    }
}

/* A number in the head, or in a record of the map, that is none. */
static void test_numbers_that_lie(void **state)
{
    static const struct {
        size_t at;
        uint64_t value;
        const char *why;
    } lies[] = {
        {16, 0, "virtual size"},
        {16, UINT64_MAX, "virtual size"},
        {24, 1, "another image"},
        {32, 0, "records"},
        {32, UINT64_MAX & ~(uint64_t)UINT32_MAX, "records"},
        {40, 0, "not what its head says"},
        {48, 0, "checksum of no blocks"},
        {56, 0, "it was changed"},
        {BUNDLE_COMPACT_HEAD, UINT64_C(9) << 56 | 1, "record 0"},
        {BUNDLE_COMPACT_HEAD, 0, "record 0"},
        {BUNDLE_COMPACT_HEAD, UINT64_C(2) << 56 | UINT32_MAX, "its map is of"},
        {BUNDLE_COMPACT_HEAD, (UINT64_C(1) << 56) - 1, "record 0"},
        {BUNDLE_COMPACT_HEAD + 8, UINT64_MAX, "record 0"},
    };
    (void)state;
    if (!have_qemu())
        skip();
    auto_encoded e = {0};
    uvm_auto_buf base = {0}, plain = {0};
    make_liar(&e, &base, &plain);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        uint8_t *number = (uint8_t *)plain.data + lies[i].at;
        uint64_t was = bundle_get64(number);
        bundle_put64(number, lies[i].value);
        pack(&plain, WITH_CHECKSUM, &e.member);
        must_refuse(&e, &base, lies[i].why);
        bundle_put64(number, was);
    }
}

static void test_frames_that_lie(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    auto_encoded e = {0};
    uvm_auto_buf base = {0}, plain = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    make_liar(&e, &base, &plain);
    pack(&plain, WITHOUT_CHECKSUM, &e.member);
    must_refuse(&e, &base, "no checksum");
    pack(&plain, WITH_CHECKSUM, &e.member);
    assert_true(uvm_buf_add(&e.member, "", 1, &err));
    must_refuse(&e, &base, "behind its end");
    assert_true(uvm_buf_add(&plain, "", 1, &err));
    pack(&plain, WITH_CHECKSUM, &e.member);
    must_refuse(&e, &base, "behind the image's last byte");
    e.result.content += MIRROR_CLUSTER;
    must_refuse(&e, &base, "the manifest says");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_cluster_size, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_a_worn_image, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_a_tail_that_is_cut_off, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_clusters_that_do_not_come_out_the_same, enter_folder,
                                        leave_folder),
        cmocka_unit_test_setup_teardown(test_what_is_not_worthwhile, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_one_encoding_alone, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_a_difference, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_a_base_that_was_changed, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_a_base_of_the_same_bytes, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_lists_of_blocks, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_a_damaged_list_of_blocks, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_every_change_shows, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_every_cut_is_refused, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_numbers_that_lie, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_frames_that_lie, enter_folder, leave_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

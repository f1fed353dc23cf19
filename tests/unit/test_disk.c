/* mirror/disk.c, qcow2-cluster.c, disk-content.c: what QEMU's tools put into a file comes out of it. */
#include <endian.h>
#include <malloc.h>

#include "tests/unit/disk_world.h"

#define CLUSTER MIRROR_CLUSTER

/* ---- against QEMU ---- */

struct view {
    const char *path;
    struct mirror_disk *disk;
    const uint8_t *raw;
    size_t len; /* what QEMU shows: whole sectors */
};

static void check_bytes(const struct view *v, uint64_t at, const uint8_t *data, size_t len)
{
    size_t known = at < v->len ? (size_t)(v->len - at) : 0;
    if (known > len)
        known = len;
    if (memcmp(data, v->raw + (known ? at : 0), known) != 0)
        fail_msg("%s: wrong bytes in %zu at %llu", v->path, len, (unsigned long long)at);
    uint64_t size = mirror_disk_info(v->disk)->virtual_size;
    size_t behind = at < size ? (size_t)(size - at) : 0;
    if (behind < len && !only_zeros(data + behind, len - behind))
        fail_msg("%s: bytes behind the end", v->path);
}

static void check_read(const struct view *v, uint64_t at, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free uint8_t *data = uvm_alloc(len + 1);
    memset(data, 0xee, len + 1);
    if (!mirror_disk_read(v->disk, at, data, len, &err))
        fail_msg("%s: %s", v->path, err.message);
    check_bytes(v, at, data, len);
    assert_int_equal(data[len], 0xee);
}

static void check_reads(const struct view *v)
{
    uint32_t dice = 1;
    check_read(v, 0, v->len);
    check_read(v, v->len, 5000);
    check_read(v, UINT64_MAX - 5, 5);
    for (unsigned i = 0; i < 300; i++) {
        dice = dice * 1664525 + 1013904223;
        uint64_t at = dice % (v->len + 999);
        check_read(v, at, dice >> 20);
    }
    for (uint64_t at = 0; at < v->len; at += 4096)
        check_read(v, at, 4096);
}

/* Each stored cluster, and that nothing is left out but zeros. */
static void check_walk(const struct view *v)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_codec_free) struct mirror_codec *codec = mirror_codec_new();
    struct mirror_disk_walk walk = {0};
    struct mirror_disk_cluster c;
    size_t size = (size_t)1 << mirror_disk_info(v->disk)->cluster_bits, used;
    uvm_auto_free uint8_t *data = uvm_alloc(size);
    uint64_t behind = 0;
    for (bool end = false;; behind = (c.index + 1) * size) {
        assert_true(mirror_disk_next(v->disk, &walk, &c, &end, &err));
        uint64_t at = end ? v->len : c.index * size;
        if (behind < v->len)
            assert_true(only_zeros(v->raw + behind, (at < v->len ? at : v->len) - behind));
        if (end)
            break;
        assert_true(at >= behind && at < mirror_disk_info(v->disk)->virtual_size);
        if (!mirror_disk_cluster_read(v->disk, &c, codec, data, &used, &err))
            fail_msg("%s: %s", v->path, err.message);
        assert_true(used <= c.bytes && c.offset + c.bytes <= file_size(v->path));
        size_t known = v->len - at < size ? (size_t)(v->len - at) : size;
        assert_memory_equal(data, v->raw + at, known);
    }
    bool end = false;
    assert_true(mirror_disk_next(v->disk, &walk, &c, &end, &err) && end);
}

static void check_extents(const struct view *v, const struct mirror_content *content)
{
    uint64_t behind = 0, size = content->virtual_size, clusters = 0;
    assert_int_equal(size, mirror_disk_info(v->disk)->virtual_size);
    for (size_t i = 0; i < content->extent_count; i++) {
        const struct mirror_extent *e = &content->extents[i];
        assert_true(e->count > 0 && (i == 0 || e->first > behind));
        assert_true(only_zeros(v->raw + behind * CLUSTER, (e->first - behind) * CLUSTER));
        behind = e->first + e->count;
        clusters += e->count;
        assert_true((behind - 1) * CLUSTER < size);
    }
    if (behind * CLUSTER < v->len)
        assert_true(only_zeros(v->raw + behind * CLUSTER, v->len - behind * CLUSTER));
    assert_int_equal(mirror_content_bytes(content), clusters * CLUSTER);
}

/* The bytes of all extents, in blocks of any length. */
static void check_data(const struct view *v, const struct mirror_content *content)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    const void *block;
    size_t len = 1, extent = 0, done = 0;
    while (len > 0) {
        if (!content->data.read(content->data.opaque, &block, &len, &err))
            fail_msg("%s: %s", v->path, err.message);
        const uint8_t *p = block;
        for (size_t left = len; left > 0;) {
            assert_true(extent < content->extent_count);
            const struct mirror_extent *e = &content->extents[extent];
            size_t size = (size_t)e->count * CLUSTER, part = size - done;
            if (part > left)
                part = left;
            check_bytes(v, e->first * CLUSTER + done, p, part);
            p += part;
            left -= part;
            done += part;
            if (done == size) {
                extent++;
                done = 0;
            }
        }
    }
    assert_int_equal(extent, content->extent_count);
    assert_true(content->data.read(content->data.opaque, &block, &len, &err) && len == 0);
}

static void check_content(const struct view *v)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    if (!mirror_disk_reader_new(v->disk, NULL, &reader, &err))
        fail_msg("%s: %s", v->path, err.message);
    check_extents(v, mirror_disk_reader_content(reader));
    check_data(v, mirror_disk_reader_content(reader));
}

static void check_image(const char *path)
{
    uvm_auto_buf raw = judge(path);
    auto_disk d = open_disk(path);
    struct view v = {path, d.disk, (const uint8_t *)raw.data, raw.len};
    check_reads(&v);
    check_walk(&v);
    check_content(&v);
}

/* ---- images ---- */

/* Text, noise, holes small and large, and an end within a cluster of any size. */
static void make_raw(void)
{
    make_empty("disk.raw", 7 * MIB + 3 * KIB + 512);
    put_text("disk.raw", 0, 300 * KIB);
    put_noise("disk.raw", 400 * KIB, 200 * KIB);
    put_text("disk.raw", MIB + 4096, 512); /* two islands in a cluster */
    put_text("disk.raw", MIB + 24 * KIB, 512);
    put_noise("disk.raw", MIB + 140 * KIB, 4096);
    put_text("disk.raw", 3 * MIB - 512, 1024); /* over the edge of two */
    put_text("disk.raw", 4 * MIB, 2 * MIB + 7 * KIB);
    put_noise("disk.raw", 7 * MIB + 512, 3 * KIB);
}

static void make_image(const char *options, const char *flags)
{
    run("qemu-img convert -f raw -O qcow2 -o %s %s disk.raw disk.qcow2", options, flags);
}

static const char *const cluster_sizes[] = {"512", "4096", "65536", "262144", "2097152"};
#define SIZES (sizeof cluster_sizes / sizeof *cluster_sizes)

static void check_every_size(const char *options, const char *flags)
{
    make_raw();
    for (size_t i = 0; i < SIZES; i++) {
        uvm_auto_free char *all = uvm_format("%s,cluster_size=%s", options, cluster_sizes[i]);
        make_image(all, flags);
        check_image("disk.qcow2");
    }
}

/* Version 3, and version 2 once. */
static void test_uncompressed(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    check_every_size("compat=1.1", "");
    make_image("compat=0.10", "");
    check_image("disk.qcow2");
}

static void test_deflated(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    check_every_size("compat=1.1", "-c");
    make_image("compat=0.10,cluster_size=512", "-c");
    check_image("disk.qcow2");
}

static void test_zstd(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    check_every_size("compat=1.1,compression_type=zstd", "-c");
}

/* Holes before, between and behind; a table that is there for one cluster. */
static void test_a_sparse_disk(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    run("qemu-img create -q -f qcow2 sparse.qcow2 40G");
    run("qemu-io -c 'write -P 7 1G 64k' -c 'write -P 8 9G 130k' -c 'write -P 9 39G 1k' "
        "sparse.qcow2 >qemu.log");
    auto_disk d = open_disk("sparse.qcow2");
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    assert_true(mirror_disk_reader_new(d.disk, NULL, &reader, &err));
    const struct mirror_content *content = mirror_disk_reader_content(reader);
    static const struct mirror_extent expected[] = {{16384, 1}, {147456, 3}, {638976, 1}};
    assert_int_equal(content->extent_count, 3);
    assert_memory_equal(content->extents, expected, sizeof expected);
    char byte[2];
    assert_true(mirror_disk_read(d.disk, UINT64_C(9) << 30, byte, 1, &err) && byte[0] == 8);
    assert_true(mirror_disk_read(d.disk, (UINT64_C(39) << 30) + 1023, byte, 2, &err));
    assert_true(byte[0] == 9 && byte[1] == 0);
}

/* Zeros that are said to be there, with and without a place in the file: whatever is at that place. */
static void test_zero_clusters(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_raw();
    make_image("compat=1.1", "");
    run("qemu-io -c 'write -P 1 0 192k' -c 'write -z 64k 64k' -c 'write -z -u 128k 64k' "
        "-c 'write -z 2M 128k' disk.qcow2 >qemu.log");
    check_image("disk.qcow2");
    auto_disk d = open_disk("disk.qcow2");
    struct mirror_disk_walk walk = {0};
    struct mirror_disk_cluster c;
    uvm_auto_error err = UVM_ERROR_INIT;
    bool end;
    assert_true(mirror_disk_next(d.disk, &walk, &c, &end, &err) && c.index == 0);
    assert_true(mirror_disk_next(d.disk, &walk, &c, &end, &err) && c.index == 3);
}

/* As QEMU leaves a file that was written sparsely. */
static void test_a_last_cluster_that_is_cut_off(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    for (size_t i = 0; i < SIZES; i++) {
        make_empty("disk.raw", 4 * MIB);
        put_text("disk.raw", 0, 4 * MIB);
        uvm_auto_free char *options = uvm_format("cluster_size=%s", cluster_sizes[i]);
        make_image(options, "-W -m 1");
        assert_int_equal(truncate("disk.qcow2", (off_t)file_size("disk.qcow2") - 300), 0);
        check_image("disk.qcow2");
    }
}

/* Bytes that the file has and the guest does not. */
static void test_a_disk_that_ends_within_a_sector(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    for (size_t i = 0; i < SIZES; i++) {
        for (int packed = 0; packed < 2; packed++) {
            make_empty("disk.raw", 4 * MIB);
            put_text("disk.raw", 0, 4 * MIB);
            uvm_auto_free char *options = uvm_format("cluster_size=%s", cluster_sizes[i]);
            make_image(options, packed ? "-c" : "");
            /* In clusters of any size, of which some are wholly behind it. */
            write_number("disk.qcow2", 24, 8, 2 * MIB + 64 * KIB + 1);
            check_image("disk.qcow2");
        }
    }
}

static void test_disks_of_a_byte_and_of_nothing(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_empty("disk.raw", 512);
    put_text("disk.raw", 0, 512);
    make_image("compat=1.1", "");
    write_number("disk.qcow2", 24, 8, 1);
    auto_disk d = open_disk("disk.qcow2");
    uvm_auto_error err = UVM_ERROR_INIT;
    char first, read[3] = "xxx";
    fill_text(&first, 1, 1); /* as put_text has it */
    assert_true(mirror_disk_read(d.disk, 0, read, 3, &err));
    assert_true(read[0] == first && read[1] == 0 && read[2] == 0);
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    assert_true(mirror_disk_reader_new(d.disk, NULL, &reader, &err));
    const struct mirror_content *content = mirror_disk_reader_content(reader);
    assert_int_equal(content->extent_count, 1);
    const void *data;
    size_t len;
    assert_true(content->data.read(content->data.opaque, &data, &len, &err));
    assert_int_equal(len, CLUSTER);
    assert_memory_equal(data, &first, 1);
    assert_true(only_zeros((const char *)data + 1, CLUSTER - 1));

    run("qemu-img create -q -f qcow2 empty.qcow2 3G");
    auto_disk empty = open_disk("empty.qcow2");
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *none = NULL;
    assert_true(mirror_disk_reader_new(empty.disk, NULL, &none, &err));
    content = mirror_disk_reader_content(none);
    assert_int_equal(content->extent_count, 0);
    assert_true(content->data.read(content->data.opaque, &data, &len, &err) && len == 0);
}

/* ---- compressed clusters ---- */

static struct mirror_disk_cluster first_cluster(struct mirror_disk *d)
{
    struct mirror_disk_walk walk = {0};
    struct mirror_disk_cluster c;
    uvm_auto_error err = UVM_ERROR_INIT;
    bool end;
    assert_true(mirror_disk_next(d, &walk, &c, &end, &err) && !end);
    return c;
}

/* What QEMU deflated comes out the same: an image can be made again of its content. */
static void test_deflate_as_qemu_does(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_raw();
    for (size_t i = 0; i < SIZES; i++) {
        uvm_auto_free char *options = uvm_format("cluster_size=%s", cluster_sizes[i]);
        make_image(options, "-c");
        auto_disk d = open_disk("disk.qcow2");
        uvm_auto_buf file = slurp("disk.qcow2");
        UVM_AUTO(mirror_codec_free) struct mirror_codec *codec = mirror_codec_new();
        size_t size = (size_t)1 << mirror_disk_info(d.disk)->cluster_bits, used, packed = 0;
        uvm_auto_free uint8_t *data = uvm_alloc(size), *again = uvm_alloc(size);
        struct mirror_disk_walk walk = {0};
        struct mirror_disk_cluster c;
        uvm_auto_error err = UVM_ERROR_INIT;
        for (bool end;;) {
            assert_true(mirror_disk_next(d.disk, &walk, &c, &end, &err));
            if (end)
                break;
            assert_true(mirror_disk_cluster_read(d.disk, &c, codec, data, &used, &err));
            size_t len = mirror_codec_deflate(codec, data, size, again);
            assert_int_equal(len, c.compressed ? used : 0); /* noise is left as it is */
            assert_memory_equal(again, file.data + c.offset, len);
            packed += c.compressed;
        }
        assert_true(packed > 0);
    }
}

static bool reads_first(struct mirror_disk *d, void *data, struct uvm_error *err)
{
    UVM_AUTO(mirror_codec_free) struct mirror_codec *codec = mirror_codec_new();
    struct mirror_disk_cluster c = first_cluster(d);
    size_t used;
    return mirror_disk_cluster_read(d, &c, codec, data, &used, err);
}

/* Through the reader: the error comes where the cluster is, and no end behind it. */
static void check_damaged(struct mirror_disk *d, uint64_t before)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    assert_true(mirror_disk_reader_new(d, NULL, &reader, &err));
    struct uvm_reader data = mirror_disk_reader_content(reader)->data;
    const void *block;
    uint64_t done = 0;
    for (size_t len = 1; len > 0; done += len) {
        if (!data.read(data.opaque, &block, &len, &err))
            break;
    }
    assert_int_equal(err.code, UVM_CONTENT);
    assert_true(done <= before);
    uvm_error_clear(&err);
    size_t len;
    assert_false(data.read(data.opaque, &block, &len, &err));
}

static void test_what_does_not_inflate(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    static const char *const types[] = {"zlib", "zstd"};
    for (size_t i = 0; i < 2; i++) {
        uvm_auto_free char *options = uvm_format("compression_type=%s", types[i]);
        uvm_auto_free uint8_t *data = uvm_alloc(CLUSTER);
        uvm_auto_error err = UVM_ERROR_INIT;
        make_empty("disk.raw", 4 * MIB);
        put_text("disk.raw", 0, 4 * MIB);
        make_image(options, "-c");
        auto_disk d = open_disk("disk.qcow2");
        assert_true(reads_first(d.disk, data, &err));
        put_noise("disk.qcow2", first_cluster(d.disk).offset, 4096);
        assert_false(reads_first(d.disk, data, &err));
        assert_int_equal(err.code, UVM_CONTENT);
        check_damaged(d.disk, 0);
    }
}

/* A stream that would go on is taken as far as the cluster goes; one that ends before is not: in both,
 * as QEMU does. */
static void test_streams_of_another_length(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    for (int longer = 0; longer < 2; longer++) {
        make_empty("disk.raw", MIB);
        put_text("disk.raw", 0, 4096);
        make_image("cluster_size=4096", "-c");
        UVM_AUTO(mirror_codec_free) struct mirror_codec *codec = mirror_codec_new();
        uvm_auto_error err = UVM_ERROR_INIT;
        auto_disk d = open_disk("disk.qcow2");
        uint8_t data[8192], packed[8192];
        memset(data, 'a', sizeof data);
        size_t len = mirror_codec_deflate(codec, data, longer ? 8192 : 4095, packed);
        assert_true(len > 0 && len < first_cluster(d.disk).bytes);
        write_at("disk.qcow2", first_cluster(d.disk).offset, packed, len);
        memset(data, 0, sizeof data);
        bool qemu = system("qemu-img convert -O raw disk.qcow2 judge.raw 2>qemu.log") == 0;
        assert_int_equal(reads_first(d.disk, data, &err), longer);
        assert_int_equal(qemu, longer);
        if (longer) {
            assert_true(data[0] == 'a' && memcmp(data, data + 1, 4095) == 0 && data[4096] == 0);
            check_image("disk.qcow2");
        }
    }
}

static void test_what_does_not_deflate(void **state)
{
    (void)state;
    UVM_AUTO(mirror_codec_free) struct mirror_codec *codec = mirror_codec_new();
    uvm_auto_free uint8_t *data = uvm_alloc(CLUSTER), *packed = uvm_alloc(CLUSTER);
    fill_noise(data, CLUSTER, 1);
    assert_int_equal(mirror_codec_deflate(codec, data, CLUSTER, packed), 0);
    fill_text(data, CLUSTER, 1); /* the codec is none the worse */
    size_t len = mirror_codec_deflate(codec, data, CLUSTER, packed);
    assert_true(len > 0 && len < CLUSTER / 2);
    assert_int_equal(mirror_codec_deflate(codec, data, CLUSTER, packed), len);
    assert_int_equal(mirror_codec_deflate(codec, "a", 1, packed), 0);
}

/* ---- files that are refused ---- */

static void test_no_disk(void **state)
{
    (void)state;
    auto_disk d = {-1, NULL};
    uvm_auto_error err = UVM_ERROR_INIT;
    make_empty("disk.qcow2", 100000);
    assert_false(try_disk("disk.qcow2", &d, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    assert_null(d.disk);
}

static void test_a_file_that_becomes_shorter(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_empty("disk.raw", 4 * MIB);
    put_text("disk.raw", 0, 4 * MIB);
    make_image("compat=1.1", "");
    auto_disk d = open_disk("disk.qcow2");
    uvm_auto_error err = UVM_ERROR_INIT;
    char byte;
    assert_int_equal(truncate("disk.qcow2", 300 * KIB), 0);
    assert_false(mirror_disk_read(d.disk, 3 * MIB, &byte, 1, &err));
    assert_int_equal(err.code, UVM_FAILED);
}

static void test_stopped(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_raw();
    make_image("compat=1.1", "-c");
    auto_disk d = open_disk("disk.qcow2");
    atomic_bool stop = false;
    const struct uvm_observer observer = {.stop = &stop};
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    assert_true(mirror_disk_reader_new(d.disk, &observer, &reader, &err));
    struct uvm_reader data = mirror_disk_reader_content(reader)->data;
    const void *block;
    size_t len;
    assert_true(data.read(data.opaque, &block, &len, &err) && len > 0);
    stop = true;
    assert_false(data.read(data.opaque, &block, &len, &err));
    assert_int_equal(err.code, UVM_INTERRUPTED);
}

/* Compressed clusters, every `step`-th of the disk, all of them one; `tables` L2 tables. */
static void craft(const char *path, unsigned bits, uint64_t tables, uint64_t step)
{
    uint64_t size = UINT64_C(1) << bits, entries = size / 8, shared = 4 + tables;
    uvm_auto_free uint64_t *l1 = uvm_alloc(size), *l2 = uvm_alloc(size);
    uvm_auto_free uint16_t *refcounts = uvm_alloc(size);
    make_empty(path, 0);
    write_at(path, 0, "QFI\xfb\0\0\0\3", 8);
    write_number(path, 20, 4, bits);
    write_number(path, 24, 8, tables * entries * size);
    write_number(path, 36, 4, tables);
    write_number(path, 40, 8, 3 * size);
    write_number(path, 48, 8, size);
    write_number(path, 56, 4, 1);
    write_number(path, 96, 4, 4);
    write_number(path, 100, 4, 104);
    write_number(path, size, 8, 2 * size);
    for (uint64_t i = 0; i <= shared; i++)
        refcounts[i] = i < shared ? htobe16(1) : UINT16_MAX;
    for (uint64_t i = 0; i < tables; i++)
        l1[i] = htobe64(UINT64_C(1) << 63 | (4 + i) * size);
    for (uint64_t i = 0; i < entries; i += step)
        l2[i] = htobe64(UINT64_C(1) << 62 | shared * size);
    write_at(path, 2 * size, refcounts, size);
    write_at(path, 3 * size, l1, tables * 8);
    for (uint64_t i = 0; i < tables; i++)
        write_at(path, (4 + i) * size, l2, size);
    assert_int_equal(truncate(path, (off_t)((shared + 1) * size)), 0);
}

static enum uvm_code reader_verdict(const char *path)
{
    auto_disk d = open_disk(path);
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    bool ok = mirror_disk_reader_new(d.disk, NULL, &reader, &err);
    assert_int_equal(ok, err.code == UVM_OK);
    return err.code;
}

/* Few bytes that claim to be very many. */
static void test_too_much_content(void **state)
{
    (void)state;
    craft("bomb.qcow2", 21, 1, 1); /* 512 GiB: all that there may be */
    assert_int_equal(reader_verdict("bomb.qcow2"), UVM_OK);
    craft("bomb.qcow2", 21, 2, 1);
    assert_int_equal(reader_verdict("bomb.qcow2"), UVM_SPACE);
    craft("bomb.qcow2", 16, 256, 2); /* 4,096 extents a table */
    assert_int_equal(reader_verdict("bomb.qcow2"), UVM_OK);
    craft("bomb.qcow2", 16, 257, 2);
    assert_int_equal(reader_verdict("bomb.qcow2"), UVM_SPACE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter_folder, leave_folder)

/* Memory is never zeros by chance. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "max_malloc_fill_size=16777216";
}

int main(void)
{
    mallopt(M_PERTURB, 0xee);
    const struct CMUnitTest tests[] = {
        TEST(test_uncompressed),
        TEST(test_deflated),
        TEST(test_zstd),
        TEST(test_a_sparse_disk),
        TEST(test_zero_clusters),
        TEST(test_a_last_cluster_that_is_cut_off),
        TEST(test_a_disk_that_ends_within_a_sector),
        TEST(test_disks_of_a_byte_and_of_nothing),
        TEST(test_deflate_as_qemu_does),
        TEST(test_what_does_not_inflate),
        TEST(test_streams_of_another_length),
        TEST(test_what_does_not_deflate),
        TEST(test_no_disk),
        TEST(test_too_much_content),
        TEST(test_a_file_that_becomes_shorter),
        TEST(test_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* mirror/qcow2.c: a small sound header, and every field of it gone wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/mirror.h"

/* The image: header, refcount table, L1 table, one cluster each; 1 GiB in clusters of 64 KiB. */
#define CLUSTER   65536u
#define FILE_SIZE (4 * (uint64_t)CLUSTER)
#define VIRTUAL   ((uint64_t)1 << 30)

struct head {
    uint8_t bytes[MIRROR_QCOW2_HEAD];
};

static void put32(struct head *h, size_t at, uint32_t value)
{
    for (int i = 3; i >= 0; i--, value >>= 8)
        h->bytes[at + (size_t)i] = (uint8_t)value;
}

static void put64(struct head *h, size_t at, uint64_t value)
{
    put32(h, at, (uint32_t)(value >> 32));
    put32(h, at + 4, (uint32_t)value);
}

static struct head sound(uint32_t version)
{
    struct head h = {0};
    put32(&h, 0, 0x514649fb);
    put32(&h, 4, version);
    put32(&h, 20, 16);
    put64(&h, 24, VIRTUAL);
    put32(&h, 36, 2);
    put64(&h, 40, 2 * CLUSTER);
    put64(&h, 48, CLUSTER);
    put32(&h, 56, 1);
    if (version == 3) {
        put32(&h, 96, 4);
        put32(&h, 100, 112);
    }
    return h;
}

static bool accepts_file(const struct head *h, size_t len, uint64_t file_size)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_qcow2 info;
    bool ok = mirror_qcow2_check(h->bytes, len, file_size, MIRROR_VIRTUAL_MAX, &info, &err);
    assert_int_equal(err.code, ok ? UVM_OK : UVM_CONTENT);
    return ok;
}

static bool accepts(const struct head *h)
{
    return accepts_file(h, sizeof h->bytes, FILE_SIZE);
}

static bool accepts32(uint32_t version, size_t at, uint32_t value)
{
    struct head h = sound(version);
    put32(&h, at, value);
    return accepts(&h);
}

static bool accepts64(uint32_t version, size_t at, uint64_t value)
{
    struct head h = sound(version);
    put64(&h, at, value);
    return accepts(&h);
}

static void test_reads_a_sound_header(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct head h = sound(version);
        uvm_auto_error err = UVM_ERROR_INIT;
        struct mirror_qcow2 info;
        assert_true(mirror_qcow2_check(h.bytes, sizeof h.bytes, FILE_SIZE, VIRTUAL, &info, &err));
        assert_int_equal(info.version, version);
        assert_int_equal(info.cluster_bits, 16);
        assert_int_equal(info.virtual_size, VIRTUAL);
        assert_int_equal(info.l1_offset, 2 * CLUSTER);
        assert_int_equal(info.l1_entries, 2);
        assert_int_equal(info.refcount_offset, CLUSTER);
        assert_int_equal(info.refcount_clusters, 1);
        assert_int_equal(info.refcount_order, 4);
        assert_int_equal(info.compression, 0);
    }
}

static void test_other_formats(void **state)
{
    (void)state;
    struct head empty = {0};
    assert_false(accepts(&empty));
    memcpy(empty.bytes, "KDMV", 4);
    assert_false(accepts(&empty));
    assert_false(accepts32(3, 0, 0x514649fc));
    assert_false(accepts32(2, 4, 0));
    assert_false(accepts32(2, 4, 1));
    assert_false(accepts32(3, 4, 4));
}

static void test_what_reaches_out_of_the_file(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        assert_false(accepts64(version, 8, 200));
        assert_false(accepts64(version, 8, 40000));
        assert_false(accepts64(version, 8, UINT64_MAX));
        assert_false(accepts32(version, 16, 9));
        assert_false(accepts32(version, 32, 1));
        assert_false(accepts32(version, 32, 2));
        assert_false(accepts32(version, 60, 1));
        assert_true(accepts64(version, 64, 0x30000)); /* the place of no snapshots */
    }
}

static void test_features(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++)
        assert_false(accepts64(3, 72, UINT64_C(1) << bit)); /* 3 alone: no compression type */
    assert_true(accepts64(3, 80, UINT64_MAX));
    assert_true(accepts64(3, 88, 2));
    assert_false(accepts64(3, 88, 1)); /* dirty bitmaps */
    assert_true(accepts64(2, 72, 0));  /* version 2 has no such field: this is an extension's end */
}

static void test_compression_types(void **state)
{
    (void)state;
    struct head h = sound(3);
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_qcow2 info;
    put64(&h, 72, 8);
    h.bytes[104] = 1;
    assert_true(mirror_qcow2_check(h.bytes, sizeof h.bytes, FILE_SIZE, VIRTUAL, &info, &err));
    assert_int_equal(info.compression, 1);
    h.bytes[104] = 2;
    assert_false(accepts(&h));
    h.bytes[104] = 1;
    put64(&h, 72, 0);
    assert_false(accepts(&h));
    put64(&h, 72, 8 | 1);
    assert_false(accepts(&h));
    put64(&h, 72, 8);
    put32(&h, 100, 104); /* too short to hold the type */
    assert_false(accepts(&h));
}

static void test_geometry(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 40; bits++)
        if (bits < 9 || bits > 21)
            assert_false(accepts32(3, 20, bits));
    assert_false(accepts32(3, 20, UINT32_MAX));
    assert_false(accepts64(3, 24, 0));
    assert_true(accepts64(3, 24, 1));
    assert_true(accepts64(3, 24, VIRTUAL));
    assert_false(accepts64(3, 24, VIRTUAL + 1)); /* the L1 table is too small */
    assert_false(accepts64(3, 24, (uint64_t)1 << 60));
    assert_false(accepts64(3, 24, UINT64_MAX));
}

static void test_the_virtual_limit_is_the_callers(void **state)
{
    (void)state;
    struct head h = sound(3);
    struct mirror_qcow2 info;
    struct uvm_error err = UVM_ERROR_INIT;
    assert_false(mirror_qcow2_check(h.bytes, sizeof h.bytes, FILE_SIZE, VIRTUAL - 1, &info, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    uvm_error_clear(&err);
    put64(&h, 24, UINT64_MAX);
    assert_false(mirror_qcow2_check(h.bytes, sizeof h.bytes, FILE_SIZE, UINT64_MAX, &info, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    uvm_error_clear(&err);
}

/* The sound image in another cluster size, everything at its place. */
static bool accepts_cluster_bits(uint32_t bits)
{
    struct head h = sound(3);
    uint64_t cluster = (uint64_t)1 << bits;
    put32(&h, 20, bits);
    put64(&h, 24, cluster * cluster / 8);
    put32(&h, 36, 1);
    put64(&h, 40, 2 * cluster);
    put64(&h, 48, cluster);
    uint64_t file_size = 4 * cluster;
    size_t len = file_size < sizeof h.bytes ? (size_t)file_size : sizeof h.bytes;
    return accepts_file(&h, len, file_size);
}

static void test_cluster_sizes(void **state)
{
    (void)state;
    for (uint32_t bits = 9; bits <= 21; bits++)
        assert_true(accepts_cluster_bits(bits));
}

static void test_tables(void **state)
{
    static const size_t offsets[] = {40, 48};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_false(accepts64(3, offsets[i], 0));
        assert_false(accepts64(3, offsets[i], 1));
        assert_false(accepts64(3, offsets[i], CLUSTER + 512));
        assert_false(accepts64(3, offsets[i], FILE_SIZE));
        assert_false(accepts64(3, offsets[i], (uint64_t)1 << 62));
        assert_false(accepts64(3, offsets[i], UINT64_MAX - CLUSTER + 1));
    }
    assert_false(accepts64(3, 40, CLUSTER)); /* on top of the refcount table */
    assert_true(accepts64(3, 40, 3 * CLUSTER));
    assert_false(accepts32(3, 36, 0));
    assert_false(accepts32(3, 36, 1));
    assert_true(accepts32(3, 36, 3));
    assert_false(accepts32(3, 36, 16385)); /* beyond the file */
    assert_false(accepts32(3, 36, UINT32_MAX));
    assert_false(accepts32(3, 56, 0));
    assert_false(accepts32(3, 56, 2)); /* reaches into the L1 table */
    assert_false(accepts32(3, 56, 4)); /* beyond the file */
    assert_false(accepts32(3, 56, UINT32_MAX));
    assert_false(accepts32(3, 96, 7));
    assert_true(accepts32(3, 96, 6));
}

static void test_header_lengths(void **state)
{
    (void)state;
    assert_true(accepts32(3, 100, 104));
    assert_true(accepts32(3, 100, 120));
    assert_false(accepts32(3, 100, 0));
    assert_false(accepts32(3, 100, 72));
    assert_false(accepts32(3, 100, 105));
    assert_false(accepts32(3, 100, CLUSTER + 8));
    assert_false(accepts32(3, 100, UINT32_MAX));
}

static bool accepts_extension(uint32_t version, uint32_t type, uint32_t length)
{
    struct head h = sound(version);
    size_t at = version == 3 ? 112 : 72;
    put32(&h, at, type);
    put32(&h, at + 4, length);
    return accepts(&h);
}

static void test_extensions(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        assert_true(accepts_extension(version, 0x6803f857, 384)); /* names of features */
        assert_true(accepts_extension(version, 0x12345678, 5));
        assert_false(accepts_extension(version, 0x44415441, 8));  /* external data file */
        assert_false(accepts_extension(version, 0x0537be77, 16)); /* encryption */
        assert_false(accepts_extension(version, 0x12345678, CLUSTER));
        assert_false(accepts_extension(version, 0x12345678, UINT32_MAX));
    }
}

static void test_a_later_extension_is_seen(void **state)
{
    (void)state;
    struct head h = sound(3);
    put32(&h, 112, 0x6803f857);
    put32(&h, 116, 13); /* padded to 16 */
    put32(&h, 112 + 8 + 16, 0x44415441);
    put32(&h, 112 + 8 + 20, 4);
    assert_false(accepts(&h));
    put32(&h, 112 + 8 + 16, 0);
    assert_true(accepts(&h));
}

static void test_extensions_without_an_end(void **state)
{
    (void)state;
    struct head h = sound(3);
    put32(&h, 112, 0x12345678);
    put32(&h, 116, CLUSTER - 120); /* up to the cluster's end, as QEMU accepts */
    assert_true(accepts(&h));

    /* A cluster that is larger than what we see: its end cannot stand for the mark. */
    uint64_t cluster = (uint64_t)1 << 17;
    put32(&h, 20, 17);
    put64(&h, 40, 2 * cluster);
    put64(&h, 48, cluster);
    assert_false(accepts_file(&h, sizeof h.bytes, 4 * cluster));
    put32(&h, 116, 8);
    assert_true(accepts_file(&h, sizeof h.bytes, 4 * cluster));
}

static void test_short_heads(void **state)
{
    (void)state;
    struct head h = sound(3);
    for (size_t len = 0; len < 120; len++) {
        assert_false(accepts_file(&h, len, FILE_SIZE));
        assert_false(accepts_file(&h, len, len));
    }
    assert_false(accepts_file(&h, sizeof h.bytes - 1, FILE_SIZE));
    assert_false(accepts_file(&h, sizeof h.bytes, sizeof h.bytes - 1));
    assert_false(accepts_file(&h, sizeof h.bytes, 2 * CLUSTER + 15)); /* L1 cut off */
    assert_true(accepts_file(&h, sizeof h.bytes, 2 * CLUSTER + 16));
}

/* ---- backing files of overlays --------------------------------------------------------------- */

static bool backing(const struct head *h, size_t len, uint64_t *offset, uint32_t *size)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = mirror_qcow2_backing(h->bytes, len, offset, size, &err);
    assert_int_equal(err.code, ok ? UVM_OK : UVM_CONTENT);
    return ok;
}

static void test_finds_the_backing_name(void **state)
{
    (void)state;
    uint64_t offset;
    uint32_t size;
    for (uint32_t version = 1; version <= 3; version++) {
        struct head h = sound(version);
        put64(&h, 8, 40000);
        put32(&h, 16, 1023);
        assert_true(backing(&h, 512, &offset, &size));
        assert_int_equal(offset, 40000);
        assert_int_equal(size, 1023);
        put64(&h, 8, 0);
        assert_true(backing(&h, 512, &offset, &size));
        assert_int_equal(size, 0);
    }
}

static void test_other_files_have_no_backing_name(void **state)
{
    (void)state;
    struct head raw = {0};
    uint64_t offset = 1;
    uint32_t size = 1;
    assert_true(backing(&raw, sizeof raw.bytes, &offset, &size));
    assert_int_equal(size, 0);
    assert_true(backing(&raw, 0, &offset, &size));
    assert_int_equal(size, 0);
}

static void test_senseless_overlays(void **state)
{
    (void)state;
    uint64_t offset;
    uint32_t size;
    struct head h = sound(3);
    put64(&h, 8, 200);
    put32(&h, 16, 1024);
    assert_false(backing(&h, 512, &offset, &size));
    put32(&h, 16, 10);
    put64(&h, 8, UINT64_MAX);
    assert_false(backing(&h, 512, &offset, &size));
    put64(&h, 8, INT64_MAX - 9);
    assert_false(backing(&h, 512, &offset, &size));
    put64(&h, 8, 200);
    put32(&h, 4, 4);
    assert_false(backing(&h, 512, &offset, &size));
    put32(&h, 4, 3);
    assert_false(backing(&h, 19, &offset, &size));
    assert_true(backing(&h, 20, &offset, &size));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_sound_header),
        cmocka_unit_test(test_other_formats),
        cmocka_unit_test(test_what_reaches_out_of_the_file),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_compression_types),
        cmocka_unit_test(test_geometry),
        cmocka_unit_test(test_the_virtual_limit_is_the_callers),
        cmocka_unit_test(test_cluster_sizes),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_header_lengths),
        cmocka_unit_test(test_extensions),
        cmocka_unit_test(test_a_later_extension_is_seen),
        cmocka_unit_test(test_extensions_without_an_end),
        cmocka_unit_test(test_short_heads),
        cmocka_unit_test(test_finds_the_backing_name),
        cmocka_unit_test(test_other_files_have_no_backing_name),
        cmocka_unit_test(test_senseless_overlays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

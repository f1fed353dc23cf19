/* mirror/qcow2-tables.c: a small sound file, and every table of it gone wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "mirror/mirror.h"

/* The file: header, refcount table, refcount block, L1, L2, two data clusters, one that two
 * compressed ones share; one cluster of 512 bytes each. */
#define CLUSTER    512u
#define CLUSTERS   8u
#define COPIED     (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define MORE       (UINT64_C(1) << 61) /* a sector beyond the first */
enum { HEADER, REFTABLE, REFBLOCK, L1, L2, DATA, OTHER, SHARED };

struct file {
    uint8_t bytes[CLUSTERS * CLUSTER];
    size_t len;
};

static uint64_t at(unsigned cluster)
{
    return (uint64_t)cluster * CLUSTER;
}

static void put(struct file *f, uint64_t offset, unsigned bytes, uint64_t value)
{
    for (unsigned i = bytes; i-- > 0; value >>= 8)
        f->bytes[offset + i] = (uint8_t)value;
}

static void put_refcount(struct file *f, unsigned cluster, uint64_t value)
{
    put(f, at(REFBLOCK) + 2 * (uint64_t)cluster, 2, value);
}

static void put_l2(struct file *f, unsigned i, uint64_t entry)
{
    put(f, at(L2) + 8 * (uint64_t)i, 8, entry);
}

static struct file sound(unsigned version)
{
    struct file f = {.len = sizeof f.bytes};
    put(&f, 0, 4, 0x514649fb);
    put(&f, 4, 4, version);
    put(&f, 20, 4, 9);
    put(&f, 24, 8, 32768);
    put(&f, 36, 4, 1);
    put(&f, 40, 8, at(L1));
    put(&f, 48, 8, at(REFTABLE));
    put(&f, 56, 4, 1);
    if (version == 3) {
        put(&f, 96, 4, 4);
        put(&f, 100, 4, 104);
    }
    put(&f, at(REFTABLE), 8, at(REFBLOCK));
    for (unsigned c = 0; c < CLUSTERS; c++)
        put_refcount(&f, c, c == SHARED ? 2 : 1);
    put(&f, at(L1), 8, COPIED | at(L2));
    put_l2(&f, 0, COPIED | at(DATA));
    put_l2(&f, 5, COMPRESSED | at(SHARED));
    put_l2(&f, 6, COMPRESSED | (at(SHARED) + 100));
    put_l2(&f, 63, COPIED | at(OTHER));
    return f;
}

/* As it is; or with so many bytes behind it that are not there. */
static enum uvm_code verdict(const struct file *f, uint64_t size)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_free) struct mirror_disk *d = NULL;
    struct mirror_qcow2 info;
    uvm_auto_fd fd = memfd_create("file", MFD_CLOEXEC);
    assert_true(fd >= 0 && write(fd, f->bytes, f->len) == (ssize_t)f->len);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_true(mirror_qcow2_check(f->bytes, f->len, f->len, MIRROR_VIRTUAL_MAX, &info, &err));
    bool ok = mirror_disk_open(fd, size, MIRROR_VIRTUAL_MAX, NULL, &d, &err);
    assert_int_equal(ok, err.code == UVM_OK);
    return err.code;
}

static bool accepts(const struct file *f)
{
    enum uvm_code code = verdict(f, f->len);
    assert_true(code == UVM_OK || code == UVM_CONTENT);
    return code == UVM_OK;
}

static bool accepts_l2(unsigned version, unsigned i, uint64_t entry)
{
    struct file f = sound(version);
    put_l2(&f, i, entry);
    return accepts(&f);
}

static bool accepts_l1(uint64_t entry)
{
    struct file f = sound(3);
    put(&f, at(L1), 8, entry);
    return accepts(&f);
}

static bool accepts_refblock(uint64_t entry)
{
    struct file f = sound(3);
    put(&f, at(REFTABLE), 8, entry);
    return accepts(&f);
}

static bool accepts_refcount(unsigned cluster, uint64_t value)
{
    struct file f = sound(3);
    put_refcount(&f, cluster, value);
    return accepts(&f);
}

static void test_a_sound_file(void **state)
{
    (void)state;
    for (unsigned version = 2; version <= 3; version++) {
        struct file f = sound(version);
        assert_true(accepts(&f));
    }
}

static void test_the_last_cluster_may_be_cut_off(void **state)
{
    (void)state;
    struct file f = sound(3);
    f.len -= 511;
    assert_true(accepts(&f)); /* compressed ones count in sectors */
    put_l2(&f, 5, 0);
    put_l2(&f, 6, COPIED | at(SHARED));
    put_refcount(&f, SHARED, 1);
    assert_true(accepts(&f));
}

/* What leads there comes behind it. */
static void test_tables_ahead_of_their_tables(void **state)
{
    (void)state;
    struct file f = sound(3), swapped = f;
    memcpy(swapped.bytes + at(L1), f.bytes + at(L2), CLUSTER);
    memcpy(swapped.bytes + at(L2), f.bytes + at(L1), CLUSTER);
    put(&swapped, 40, 8, at(L2));
    put(&swapped, at(L2), 8, COPIED | at(L1));
    assert_true(accepts(&swapped));
    put(&swapped, at(L1), 8, COPIED | at(CLUSTERS));
    assert_false(accepts(&swapped));

    swapped = f;
    memcpy(swapped.bytes + at(REFTABLE), f.bytes + at(REFBLOCK), CLUSTER);
    memcpy(swapped.bytes + at(REFBLOCK), f.bytes + at(REFTABLE), CLUSTER);
    put(&swapped, 48, 8, at(REFBLOCK));
    put(&swapped, at(REFBLOCK), 8, at(REFTABLE));
    assert_true(accepts(&swapped));
    put(&swapped, at(REFTABLE) + 2 * SHARED, 2, 1);
    assert_false(accepts(&swapped));
}

static void test_l1_entries(void **state)
{
    (void)state;
    assert_true(accepts_l1(0));
    assert_true(accepts_l1(at(L2)));
    assert_false(accepts_l1(COPIED));
    assert_false(accepts_l1(at(L2) | 1));
    assert_false(accepts_l1(at(L2) | UINT64_C(1) << 56));
    assert_false(accepts_l1(at(L2) | UINT64_C(1) << 62));
    assert_false(accepts_l1(at(L1)));
    assert_false(accepts_l1(at(REFTABLE)));
    assert_false(accepts_l1(at(REFBLOCK)));
    assert_false(accepts_l1(at(CLUSTERS)));
    assert_false(accepts_l1(UINT64_C(0x00fffffffffffe00)));
}

static void test_an_l2_table_that_is_cut_off(void **state)
{
    (void)state;
    struct file f = sound(3);
    memset(f.bytes + at(L2), 0, CLUSTER);
    put(&f, at(L1), 8, at(SHARED));
    assert_true(accepts(&f));
    f.len--;
    assert_false(accepts(&f));
}

static void test_l2_entries(void **state)
{
    (void)state;
    assert_true(accepts_l2(3, 0, 0));
    assert_true(accepts_l2(3, 0, 1)); /* reads as zeros */
    assert_true(accepts_l2(3, 0, COPIED | at(DATA) | 1));
    assert_true(accepts_l2(3, 0, at(DATA)));
    assert_false(accepts_l2(2, 0, 1)); /* not in version 2 */
    assert_false(accepts_l2(2, 0, COPIED | at(DATA) | 1));
    for (unsigned bit = 1; bit < 62; bit++) {
        if (bit <= 8 || bit >= 56)
            assert_false(accepts_l2(3, 0, COPIED | at(DATA) | UINT64_C(1) << bit));
    }
    assert_false(accepts_l2(3, 0, COPIED)); /* the header, or nothing: neither is a copy */
    for (unsigned c = REFTABLE; c < CLUSTERS; c++)
        assert_int_equal(accepts_l2(3, 0, COPIED | at(c)), c == DATA);
    assert_false(accepts_l2(3, 0, at(CLUSTERS)));
    assert_false(accepts_l2(3, 0, UINT64_C(0x00fffffffffffe00)));
    assert_false(accepts_l2(3, 1, at(DATA))); /* twice */
}

static void test_compressed_clusters(void **state)
{
    (void)state;
    assert_true(accepts_l2(3, 5, COMPRESSED | (at(CLUSTERS) - 1)));
    assert_false(accepts_l2(3, 5, COMPRESSED | at(CLUSTERS)));
    assert_false(accepts_l2(3, 5, COMPRESSED | MORE | at(SHARED)));
    assert_false(accepts_l2(3, 5, COMPRESSED | (MORE - 1)));
    assert_false(accepts_l2(3, 5, COMPRESSED | COPIED | at(SHARED)));
    for (unsigned c = 0; c < SHARED; c++)
        assert_false(accepts_l2(3, 5, COMPRESSED | (at(c) + 7)));

    struct file f = sound(3); /* from one cluster into the next */
    put_l2(&f, 63, COMPRESSED | MORE | (at(OTHER) + 500));
    assert_false(accepts(&f)); /* the third in SHARED */
    put_refcount(&f, SHARED, 3);
    assert_true(accepts(&f));
}

static void test_refcount_tables(void **state)
{
    (void)state;
    assert_false(accepts_refblock(0));
    assert_false(accepts_refblock(at(REFBLOCK) | 1));
    assert_false(accepts_refblock(at(REFBLOCK) | 256));
    assert_false(accepts_refblock(at(REFTABLE)));
    assert_false(accepts_refblock(at(L1)));
    assert_false(accepts_refblock(at(DATA)));
    assert_false(accepts_refblock(at(CLUSTERS)));
    assert_false(accepts_refblock(UINT64_C(1) << 63));

    struct file f = sound(3);
    put(&f, at(REFTABLE) + 8, 8, at(REFBLOCK));
    assert_false(accepts(&f)); /* one block for two */
}

static void test_refcounts(void **state)
{
    (void)state;
    for (unsigned c = 0; c < CLUSTERS; c++) {
        assert_false(accepts_refcount(c, 0));
        /* Too high wastes space; but `copied` says that it is one. */
        assert_int_equal(accepts_refcount(c, 9), c != L2 && c != DATA && c != OTHER);
    }
    assert_false(accepts_refcount(SHARED, 1));
    assert_true(accepts_refcount(SHARED, UINT16_MAX));
}

static void test_refcounts_of_every_width(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= 6; order++) {
        struct file f = sound(3);
        put(&f, 96, 4, order);
        put_l2(&f, 6, 0); /* one bit cannot say two */
        memset(f.bytes + at(REFBLOCK), 0, CLUSTER);
        for (unsigned c = 0; c < CLUSTERS; c++) {
            unsigned bits = 1u << order, first = c * bits;
            if (bits < 8)
                f.bytes[at(REFBLOCK) + first / 8] |= (uint8_t)(1u << first % 8);
            else
                put(&f, at(REFBLOCK) + first / 8, bits / 8, 1);
        }
        assert_true(accepts(&f));
        put_l2(&f, 6, COMPRESSED | at(SHARED));
        assert_false(accepts(&f));
    }
}

/* A file of zeros, but for its beginning. */
static void test_too_many_clusters(void **state)
{
    (void)state;
    struct file f = sound(3);
    uint64_t most = MIRROR_QCOW2_CLUSTERS_MAX * CLUSTER;
    assert_int_equal(verdict(&f, most + 1), UVM_SPACE);
    assert_int_equal(verdict(&f, most), UVM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sound_file),
        cmocka_unit_test(test_the_last_cluster_may_be_cut_off),
        cmocka_unit_test(test_tables_ahead_of_their_tables),
        cmocka_unit_test(test_l1_entries),
        cmocka_unit_test(test_an_l2_table_that_is_cut_off),
        cmocka_unit_test(test_l2_entries),
        cmocka_unit_test(test_compressed_clusters),
        cmocka_unit_test(test_refcount_tables),
        cmocka_unit_test(test_refcounts),
        cmocka_unit_test(test_refcounts_of_every_width),
        cmocka_unit_test(test_too_many_clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

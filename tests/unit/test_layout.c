/* mirror/layout.c: the files that are made of contents, as QEMU sees them. */
#include <unistd.h>

#include "tests/unit/disk_world.h"

#define CLUSTER MIRROR_CLUSTER
#define TIB     (UINT64_C(1) << 40)

/* ---- making files ---- */

/* Nothing is written where there are zeros, so that large files take little room. */
static void write_sparse(int fd, uint64_t at, const void *data, size_t len)
{
    if (!only_zeros(data, len))
        assert_int_equal(pwrite(fd, data, len, (off_t)at), (ssize_t)len);
}

/* The body first, as it comes. */
static bool lay_out(const struct mirror_content *content, const char *path, struct uvm_error *err)
{
    UVM_AUTO(mirror_layout_free) struct mirror_layout *l = NULL;
    uvm_auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    if (!mirror_layout_new(content, &l, err))
        return false;
    size_t len;
    const void *front = mirror_layout_front(l, &len);
    uint64_t at = len;
    assert_int_equal(len % CLUSTER, 0);
    assert_int_equal(ftruncate(fd, (off_t)mirror_layout_file_size(l)), 0);
    struct uvm_reader body = mirror_layout_body(l);
    for (;; at += len) {
        const void *data;
        if (!body.read(body.opaque, &data, &len, err))
            return false;
        if (len == 0)
            break;
        write_sparse(fd, at, data, len);
    }
    assert_int_equal(at, mirror_layout_file_size(l));
    const void *end;
    assert_true(body.read(body.opaque, &end, &len, err) && len == 0); /* and again */
    front = mirror_layout_front(l, &len);
    write_sparse(fd, 0, front, len);
    return true;
}

static void lay_out_image(const char *path, const char *made)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_disk d = open_disk(path);
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    assert_true(mirror_disk_reader_new(d.disk, NULL, &reader, &err));
    if (!lay_out(mirror_disk_reader_content(reader), made, &err))
        fail_msg("%s: %s", path, err.message);
}

static void check_made(const char *made, const char *path)
{
    run("qemu-img check -q %s >qemu.log", made);
    run("qemu-img compare -q %s %s", made, path);
    auto_disk again = open_disk(made); /* our own reader is the stricter one */
    assert_int_equal(mirror_disk_info(again.disk)->cluster_bits, 16);
}

/* ---- as qemu-img ---- */

/* Cluster for cluster: the same places in the file, and the same tables. */
static void check_same_as_qemu(const char *path)
{
    lay_out_image(path, "made.qcow2");
    check_made("made.qcow2", path);
    run("qemu-img convert -m 1 -O qcow2 %s theirs.qcow2", path);
    assert_int_equal(file_size("made.qcow2"), file_size("theirs.qcow2"));
    run("qemu-img map --output=json theirs.qcow2 >theirs.map && "
        "qemu-img map --output=json made.qcow2 | cmp - theirs.map");
    uvm_auto_buf made = slurp("made.qcow2"), theirs = slurp("theirs.qcow2");
    assert_memory_equal(made.data + CLUSTER, theirs.data + CLUSTER, made.len - CLUSTER);
    assert_memory_equal(made.data, theirs.data, 112); /* they have extensions behind it */
}

static void test_the_same_as_qemu(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_empty("disk.raw", 600 * MIB); /* two L2 tables */
    put_text("disk.raw", 0, 3 * MIB);
    put_noise("disk.raw", 100 * MIB, 64 * KIB);
    put_text("disk.raw", 511 * MIB, 2 * MIB);
    put_text("disk.raw", 600 * MIB - 512, 512);
    run("qemu-img convert -f raw -O qcow2 -c disk.raw disk.qcow2");
    check_same_as_qemu("disk.qcow2");
    run("qemu-img convert -f raw -O qcow2 -o compat=0.10,cluster_size=4k disk.raw disk.qcow2");
    check_same_as_qemu("disk.qcow2");
}

static void test_nothing_at_all(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    run("qemu-img create -q -f qcow2 empty.qcow2 9G");
    lay_out_image("empty.qcow2", "made.qcow2");
    check_made("made.qcow2", "empty.qcow2");
    assert_int_equal(file_size("made.qcow2"), 4 * CLUSTER);
}

static void test_a_disk_of_a_byte(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    make_empty("disk.raw", 512);
    put_text("disk.raw", 0, 512);
    run("qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2");
    write_number("disk.qcow2", 24, 8, 1);
    lay_out_image("disk.qcow2", "made.qcow2");
    check_made("made.qcow2", "disk.qcow2");
    auto_disk made = open_disk("made.qcow2");
    assert_int_equal(mirror_disk_info(made.disk)->virtual_size, 1);
    uvm_auto_buf file = slurp("made.qcow2");
    assert_int_equal(file.len, 6 * CLUSTER);
    assert_true(file.data[5 * CLUSTER] != 0);
    assert_true(only_zeros(file.data + 5 * CLUSTER + 1, CLUSTER - 1));
}

/* ---- contents of any kind ---- */

/* Yields zeros in blocks of `step` bytes, but the number of the cluster at the beginning of every
 * 1,000th. */
struct source {
    uint64_t bytes, done, step;
    bool fails;
    uint8_t block[3 * MIRROR_CLUSTER];
};

static bool read_source(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct source *s = opaque;
    uint64_t left = s->bytes - s->done, len = left < s->step ? left : s->step;
    if (len == 0 && s->fails)
        return uvm_fail(err, UVM_TRUST, "not what was signed");
    memset(s->block, 0, sizeof s->block);
    for (uint64_t c = (s->done + CLUSTER - 1) / CLUSTER; c * CLUSTER < s->done + len; c++) {
        if (c % 1000 == 0)
            s->block[c * CLUSTER - s->done] = (uint8_t)(1 + c / 1000);
    }
    s->done += len;
    *ret_data = s->block;
    *ret_len = (size_t)len;
    return true;
}

static struct mirror_content content_of(struct source *s, uint64_t virtual_size,
                                        const struct mirror_extent *extents, size_t count)
{
    struct mirror_content c = {virtual_size, extents, count, {read_source, s}};
    if (s->step == 0)
        s->step = CLUSTER;
    s->bytes += mirror_content_bytes(&c);
    return c;
}

static void check_byte(struct mirror_disk *d, uint64_t cluster, uint8_t expected)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uint8_t byte = 0xee;
    assert_true(mirror_disk_read(d, cluster * CLUSTER, &byte, 1, &err));
    assert_int_equal(byte, expected);
}

/* More than one cluster of L1 table, an L2 table for one cluster, extents over the edges of tables. */
static void test_a_large_disk(void **state)
{
    (void)state;
    static const struct mirror_extent extents[] = {
        {0, 1}, {8191, 2}, {100000, 3000}, {81920000, 1}, {5 * TIB / CLUSTER - 1, 1}};
    if (!have_qemu())
        skip();
    struct source s = {.step = 100000};
    struct mirror_content c = content_of(&s, 5 * TIB - 1000, extents, 5);
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_int_equal(mirror_content_bytes(&c), 3005 * CLUSTER);
    assert_true(lay_out(&c, "made.qcow2", &err));
    run("qemu-img check -q made.qcow2 >qemu.log");
    auto_disk d = open_disk("made.qcow2");
    assert_int_equal(mirror_disk_info(d.disk)->virtual_size, 5 * TIB - 1000);
    check_byte(d.disk, 0, 1);
    check_byte(d.disk, 100996, 0);
    check_byte(d.disk, 100997, 2);
    check_byte(d.disk, 101997, 3);
    check_byte(d.disk, 102997, 4);
    check_byte(d.disk, 103000, 0); /* not there */
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    assert_true(mirror_disk_reader_new(d.disk, NULL, &reader, &err));
    const struct mirror_content *again = mirror_disk_reader_content(reader);
    assert_int_equal(again->extent_count, 5);
    assert_memory_equal(again->extents, extents, sizeof extents);
}

/* More than one refcount block: 32,768 clusters each. Around the edge, where the blocks count themselves. */
static void test_many_clusters(void **state)
{
    (void)state;
    if (!have_qemu())
        skip();
    for (uint64_t count = 32760; count <= 32761; count++) {
        const struct mirror_extent extent = {5, count};
        struct source s = {.step = 3 * CLUSTER};
        struct mirror_content c = content_of(&s, TIB, &extent, 1);
        uvm_auto_error err = UVM_ERROR_INIT;
        assert_true(lay_out(&c, "made.qcow2", &err));
        run("qemu-img check -q made.qcow2 >qemu.log");
        /* header, refcount table, L1, four L2 tables */
        uint64_t rest = count + 7, blocks = rest + 1 <= 32768 ? 1 : 2;
        assert_int_equal(file_size("made.qcow2"), (rest + blocks) * CLUSTER);
        auto_disk d = open_disk("made.qcow2");
        check_byte(d.disk, 5 + 32000, 33);
    }
}

static enum uvm_code refused(uint64_t virtual_size, const struct mirror_extent *extents,
                             size_t count)
{
    const struct mirror_content c = {virtual_size, extents, count, {read_source, NULL}};
    UVM_AUTO(mirror_layout_free) struct mirror_layout *l = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = mirror_layout_new(&c, &l, &err);
    assert_int_equal(ok, err.code == UVM_OK);
    return err.code;
}

static void test_contents_that_are_refused(void **state)
{
    (void)state;
    const struct mirror_extent back[] = {{5, 1}, {4, 1}}, twice[] = {{5, 2}, {6, 1}},
                               none[] = {{5, 0}};
    const struct mirror_extent outside[] = {{16, 1}}, over[] = {{15, 2}};
    const struct mirror_extent far[] = {{UINT64_MAX, 2}}, wide[] = {{2, UINT64_MAX}};
    const struct mirror_extent last[] = {{15, 1}}, all[] = {{0, MIRROR_QCOW2_CLUSTERS_MAX}};
    assert_int_equal(refused(MIB, back, 2), UVM_CONTENT);
    assert_int_equal(refused(MIB, twice, 2), UVM_CONTENT);
    assert_int_equal(refused(MIB, none, 1), UVM_CONTENT);
    assert_int_equal(refused(MIB, outside, 1), UVM_CONTENT);
    assert_int_equal(refused(MIB, over, 1), UVM_CONTENT);
    assert_int_equal(refused(MIB, far, 1), UVM_CONTENT);
    assert_int_equal(refused(MIB, wide, 1), UVM_CONTENT);
    assert_int_equal(refused(MIB - 65535, last, 1), UVM_OK);
    assert_int_equal(refused(MIB - 65536, last, 1), UVM_CONTENT);
    assert_int_equal(refused(0, NULL, 0), UVM_CONTENT);
    assert_int_equal(refused(1, NULL, 0), UVM_OK);
    assert_int_equal(refused(2048 * TIB, NULL, 0), UVM_OK); /* an L1 table of 32 MiB */
    assert_int_equal(refused(2048 * TIB + 1, NULL, 0), UVM_CONTENT);
    assert_int_equal(refused(UINT64_C(1) << 63, NULL, 0), UVM_CONTENT);
    assert_int_equal(refused(UINT64_MAX, NULL, 0), UVM_CONTENT);
    assert_int_equal(refused(TIB, all, 1), UVM_SPACE);
}

static void check_data_refused(struct source *s, const char *message)
{
    static const struct mirror_extent extents[] = {{1, 3}, {10, 5}};
    struct mirror_content c = content_of(s, MIB, extents, 2);
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_int_equal(lay_out(&c, "made.qcow2", &err), message == NULL);
    if (message)
        assert_string_equal(err.message, message);
}

/* The body's end says that all was right; so it must not come. */
static void test_data_of_a_wrong_length(void **state)
{
    (void)state;
    check_data_refused(&(struct source){0}, NULL);
    check_data_refused(&(struct source){.step = 7}, NULL);
    check_data_refused(&(struct source){.bytes = 1}, "content is longer than its extents");
    check_data_refused(&(struct source){.bytes = 1, .step = 70000},
                       "content is longer than its extents");
    check_data_refused(&(struct source){.bytes = CLUSTER}, "content is longer than its extents");
    check_data_refused(&(struct source){.bytes = (uint64_t)0 - 1},
                       "content is shorter than its extents");
    check_data_refused(&(struct source){.bytes = (uint64_t)0 - 5 * CLUSTER},
                       "content is shorter than its extents");
    check_data_refused(&(struct source){.fails = true}, "not what was signed");
    check_data_refused(&(struct source){.fails = true, .bytes = (uint64_t)0 - 9},
                       "not what was signed");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter_folder, leave_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_same_as_qemu),       TEST(test_nothing_at_all),
        TEST(test_a_disk_of_a_byte),       TEST(test_a_large_disk),
        TEST(test_many_clusters),          TEST(test_contents_that_are_refused),
        TEST(test_data_of_a_wrong_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

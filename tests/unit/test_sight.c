/* test_sight.c: what a guest sees of a content, however its bytes come. */
#include "pool/import.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CLUSTERS 6

/* A disk of a few clusters, of which each is told by a letter: '.' is zeros, and not stored; '0' is zeros
 * that are stored. Its bytes come in blocks of `step`. */
struct disk {
    struct mirror_extent extents[CLUSTERS];
    struct mirror_content content;
    char bytes[CLUSTERS * MIRROR_CLUSTER];
    size_t len, at, step;
    bool fails; /* at the end */
};

static bool read_disk(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct disk *d = opaque;
    size_t left = d->len - d->at;
    if (left == 0 && d->fails)
        return uvm_fail(err, UVM_CONTENT, "damaged");
    *ret_data = d->bytes + d->at;
    *ret_len = left < d->step ? left : d->step;
    d->at += *ret_len;
    return true;
}

static void add_cluster(struct disk *d, uint64_t index, char letter)
{
    struct mirror_content *c = &d->content;
    struct mirror_extent *last = c->extent_count ? &d->extents[c->extent_count - 1] : NULL;
    if (last && last->first + last->count == index)
        last->count++;
    else
        d->extents[c->extent_count++] = (struct mirror_extent){index, 1};
    /* Not the same in all of its blocks. */
    for (size_t i = 0; letter != '0' && i < MIRROR_CLUSTER; i += 1000)
        d->bytes[d->len + i] = (char)(letter + (char)(i % 7));
    d->len += MIRROR_CLUSTER;
}

static struct disk *make_disk(const char *clusters, size_t step)
{
    struct disk *d = uvm_alloc(sizeof(*d));
    d->step = step;
    d->content.virtual_size = CLUSTERS * MIRROR_CLUSTER;
    d->content.extents = d->extents;
    d->content.data = (struct uvm_reader){read_disk, d};
    for (uint64_t i = 0; clusters[i]; i++) {
        if (clusters[i] != '.')
            add_cluster(d, i, clusters[i]);
    }
    return d;
}

static void sight_of(const char *clusters, size_t step, char hex[UVM_DIGEST_HEX_MAX])
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free struct disk *d = make_disk(clusters, step);
    assert_true(pool_sight_read(&d->content, "a disk", NULL, hex, &err));
}

static void assert_sight(const char *a, size_t step, const char *b, bool same)
{
    char x[UVM_DIGEST_HEX_MAX], y[UVM_DIGEST_HEX_MAX];
    sight_of(a, 1 << 20, x);
    sight_of(b, step, y);
    assert_int_equal(strcmp(x, y) == 0, same);
}

static void test_blocks_of_any_size(void **state)
{
    (void)state;
    static const size_t steps[] = {1 << 20, MIRROR_CLUSTER, 4096, 4095, 4097, 12288, 10007, 1};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        assert_sight("a.bc.d", steps[i], "a.bc.d", true);
}

static void test_zeros_stored_or_not(void **state)
{
    (void)state;
    assert_sight("a.bc.d", 4096, "a0bc0d", true);
    assert_sight("a.....", 4096, "a0", true);
    assert_sight("......", 4096, "000000", true);
}

static void test_what_differs(void **state)
{
    (void)state;
    static const char *const others[] = {".abc.d", "ab.c.d", "a.cb.d", "a.bc..", "a.bcad", ""};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_sight("a.bc.d", 4096, others[i], false);
}

/* Whoever reads gets the same bytes as without, and every error. */
static void test_it_only_looks(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free struct disk *d = make_disk("ab.c", 5000);
    UVM_AUTO(pool_sight_free) struct pool_sight *sight = pool_sight_new(&d->content);
    const struct mirror_content *c = pool_sight_content(sight);
    const void *data;
    size_t len;
    assert_int_equal(c->extent_count, 2);
    assert_int_equal(c->virtual_size, d->content.virtual_size);
    for (size_t at = 0; at < d->len; at += len) {
        assert_true(c->data.read(c->data.opaque, &data, &len, &err));
        assert_ptr_equal(data, d->bytes + at);
    }
    d->fails = true;
    assert_false(c->data.read(c->data.opaque, &data, &len, &err));
    assert_int_equal(err.code, UVM_CONTENT);
}

/* More bytes than the extents tell are the reader's fault, and harm nobody here. */
static void test_too_long(void **state)
{
    (void)state;
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free struct disk *d = make_disk("abcd", 4096);
    d->content.extent_count = 0;
    assert_true(pool_sight_read(&d->content, "a disk", NULL, hex, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_of_any_size), cmocka_unit_test(test_zeros_stored_or_not),
        cmocka_unit_test(test_what_differs),       cmocka_unit_test(test_it_only_looks),
        cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

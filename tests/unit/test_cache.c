/* bundle/cache*.c: what the mirror keeps of encoded images, and for how long. */
#include "bundle_world.h"

#include "bundle/cache.h"

#include <dirent.h>
#include <sys/stat.h>

#define OTHER "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

#define auto_cache UVM_AUTO(bundle_cache_free) struct bundle_cache

static struct bundle_cache *open_cache(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_cache *cache = NULL;
    must(bundle_cache_open(all.tree, &cache, &err), &err);
    return cache;
}

/* An empty folder, as it is at first. */
static int set_up_cache(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of("mirror/uvmirror/compact");
    return uvm_remove_tree(path, &err) ? 0 : -1;
}

static const struct mirror_image *image(void)
{
    return &all.selection.products[0].images[0];
}

static void keep(const struct bundle_cache *cache, const struct bundle_cache_key *key,
                 const char *bytes, struct bundle_encoded *ret)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_outfile member = UVM_OUTFILE_INIT;
    *ret = (struct bundle_encoded){.worthwhile = true, .size = strlen(bytes), .content = 65536};
    uvm_digest_bytes(UVM_SHA256, bytes, strlen(bytes), ret->sha256);
    must(bundle_cache_begin(cache, key, &member, &err), &err);
    must(uvm_write_all(member.fd, bytes, strlen(bytes), &err), &err);
    must(bundle_cache_keep(cache, key, ret, NULL, &member, &err), &err);
}

static struct bundle_image bundled(const struct bundle_encoded *encoded)
{
    struct bundle_image b = {.image = image(), .encoding = BUNDLE_COMPACT, .size = encoded->size};
    memcpy(b.sha256, encoded->sha256, sizeof b.sha256);
    return b;
}

static size_t count_files(void)
{
    uvm_auto_free char *path = path_of("mirror/uvmirror/compact");
    DIR *dir = opendir(path);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}

static void test_it_is_found_again(void **state)
{
    (void)state;
    auto_cache *cache = open_cache();
    struct bundle_cache_key key = {image()->sha256, NULL, 3}, other = {image()->sha256, OTHER, 3},
                            higher = {image()->sha256, NULL, 4};
    struct bundle_encoded kept, found = {0};
    assert_false(bundle_cache_find(cache, &key, &found));
    keep(cache, &key, "member", &kept);
    assert_true(bundle_cache_find(cache, &key, &found));
    assert_memory_equal(&kept, &found, sizeof found);
    assert_false(bundle_cache_find(cache, &other, &found));
    assert_false(bundle_cache_find(cache, &higher, &found));
    bundle_cache_sweep(cache); /* the mirror holds the image */
    assert_true(bundle_cache_find(cache, &key, &found));
}

static void test_what_is_not_worthwhile_is_known(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_cache *cache = open_cache();
    struct bundle_cache_key key = {image()->sha256, NULL, 3};
    struct bundle_encoded kept = {.worthwhile = false}, found = {.worthwhile = true};
    uvm_auto_outfile member = UVM_OUTFILE_INIT;
    must(bundle_cache_begin(cache, &key, &member, &err), &err);
    must(bundle_cache_keep(cache, &key, &kept, NULL, &member, &err), &err);
    uvm_outfile_clear(&member);
    assert_true(bundle_cache_find(cache, &key, &found));
    assert_false(found.worthwhile);
    assert_int_equal(count_files(), 1);
}

static bool read_member(const struct bundle_cache *cache, const struct bundle_image *b,
                        struct uvm_buf *ret, struct uvm_error *err)
{
    UVM_AUTO(bundle_cached_free) struct bundle_cached *cached = NULL;
    const void *data;
    if (!bundle_cached_open(cache, b, &cached, err))
        return false;
    struct uvm_reader bytes = bundle_cached_bytes(cached);
    for (size_t len = 1; len > 0;)
        if (!bytes.read(bytes.opaque, &data, &len, err) || !uvm_buf_add(ret, data, len, err))
            return false;
    return true;
}

static void test_a_member_is_hashed_on_its_way(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_cache *cache = open_cache();
    struct bundle_cache_key key = {image()->sha256, NULL, 7};
    struct bundle_encoded kept, found;
    uvm_auto_buf good = {0}, bad = {0};
    keep(cache, &key, "member", &kept);
    struct bundle_image b = bundled(&kept);
    must(read_member(cache, &b, &good, &err), &err);
    assert_string_equal(good.data, "member");

    uvm_auto_free char *name = uvm_format("mirror/uvmirror/compact/%s.full.l7", image()->sha256);
    put(name, "Member", 6);
    assert_false(read_member(cache, &b, &bad, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    assert_non_null(strstr(err.message, "has changed since it was encoded"));
    assert_false(bundle_cache_find(cache, &key, &found));
}

static void test_a_member_of_another_manifest(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_cache *cache = open_cache();
    struct bundle_cache_key key = {image()->sha256, NULL, 3};
    struct bundle_encoded kept;
    uvm_auto_buf content = {0};
    keep(cache, &key, "member", &kept);
    struct bundle_image b = bundled(&kept);
    b.sha256[0] = b.sha256[0] == '0' ? '1' : '0';
    assert_false(read_member(cache, &b, &content, &err));
    assert_int_equal(err.code, UVM_FAILED);
    assert_non_null(strstr(err.message, "write a new bundle"));
}

static void test_damaged_records_are_not_there(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"worthwhile\":true}",
        "{\"worthwhile\":1}",
        "{\"worthwhile\":true,\"size\":6,\"sha256\":\"x\",\"content\":0,\"base_bytes\":0}"};
    auto_cache *cache = open_cache();
    struct bundle_cache_key key = {image()->sha256, NULL, 3};
    struct bundle_encoded kept, found;
    uvm_auto_free char *name =
        uvm_format("mirror/uvmirror/compact/%s.full.l3.json", image()->sha256);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        keep(cache, &key, "member", &kept);
        assert_true(bundle_cache_find(cache, &key, &found));
        put(name, texts[i], strlen(texts[i]));
        assert_false(bundle_cache_find(cache, &key, &found));
    }
}

static void test_a_member_that_is_cut_off_is_not_there(void **state)
{
    (void)state;
    auto_cache *cache = open_cache();
    struct bundle_cache_key key = {image()->sha256, NULL, 3};
    struct bundle_encoded kept, found;
    uvm_auto_free char *name = uvm_format("mirror/uvmirror/compact/%s.full.l3", image()->sha256);
    keep(cache, &key, "member", &kept);
    put(name, "mem", 3);
    assert_false(bundle_cache_find(cache, &key, &found));
}

static void test_blocks_that_are_damaged_are_not_there(void **state)
{
    (void)state;
    auto_cache *cache = open_cache();
    assert_false(bundle_cache_knows(cache, OTHER));
    put("mirror/uvmirror/compact/" OTHER ".blocks", "nonsense", 8);
    assert_true(bundle_cache_knows(cache, OTHER));
    assert_null(bundle_cache_blocks(cache, OTHER));
    assert_false(bundle_cache_knows(cache, OTHER));
}

/* Of a held image the last ones stay, of others none, and no leftovers. */
static void test_sweep(void **state)
{
    (void)state;
    auto_cache *cache = open_cache();
    struct bundle_encoded kept, found;
    for (int level = 1; level <= BUNDLE_CACHE_MEMBERS + 2; level++) {
        struct bundle_cache_key key = {image()->sha256, NULL, level};
        keep(cache, &key, "member", &kept);
        usleep(10000); /* a tick of the file system's clock */
    }
    struct bundle_cache_key gone = {OTHER, NULL, 1}, first = {image()->sha256, NULL, 1},
                            second = {image()->sha256, NULL, 2};
    keep(cache, &gone, "member", &kept);
    put("mirror/uvmirror/compact/" OTHER ".full.l9", "without record", 14);
    put("mirror/uvmirror/compact/stranger", "?", 1);
    assert_true(bundle_cache_find(cache, &first, &found)); /* counts as use */
    bundle_cache_sweep(cache);
    assert_int_equal(count_files(), 2 * BUNDLE_CACHE_MEMBERS);
    assert_true(bundle_cache_find(cache, &first, &found));
    assert_false(bundle_cache_find(cache, &second, &found));
    assert_false(bundle_cache_find(cache, &gone, &found));
}

static void test_blocks_are_kept_longer(void **state)
{
    (void)state;
    auto_cache *cache = open_cache();
    for (unsigned i = 0; i < BUNDLE_CACHE_BLOCKS + 3; i++) {
        uvm_auto_free char *name = uvm_format("mirror/uvmirror/compact/%064x.blocks", i);
        put(name, "", 0);
    }
    bundle_cache_sweep(cache);
    assert_int_equal(count_files(), BUNDLE_CACHE_BLOCKS);
}

static void test_what_a_killed_run_left(void **state)
{
    (void)state;
    put("mirror/uvmirror/compact/." OTHER ".full.l3.uvm-AbCdEf", "half", 4);
    assert_int_equal(count_files(), 1);
    auto_cache *cache = open_cache();
    struct bundle_cache_key key = {image()->sha256, NULL, 3};
    struct bundle_encoded kept;
    keep(cache, &key, "member", &kept);
    assert_int_equal(count_files(), 2);
}

/* --again takes no lock. */
static void test_what_another_process_writes_stays(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_cache *cache = open_cache();
    struct bundle_cache_key key = {image()->sha256, NULL, 3}, other = {image()->sha256, NULL, 4};
    struct bundle_encoded kept = {.worthwhile = true, .size = 6, .content = 65536}, another, found;
    uvm_auto_outfile member = UVM_OUTFILE_INIT;
    uvm_digest_bytes(UVM_SHA256, "member", 6, kept.sha256);
    must(bundle_cache_begin(cache, &key, &member, &err), &err);
    must(uvm_write_all(member.fd, "member", 6, &err), &err);
    auto_cache *again = open_cache();
    keep(again, &other, "other", &another);
    must(bundle_cache_keep(cache, &key, &kept, NULL, &member, &err), &err);
    assert_true(bundle_cache_find(again, &key, &found));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_it_is_found_again, set_up_cache),
        cmocka_unit_test_setup(test_what_is_not_worthwhile_is_known, set_up_cache),
        cmocka_unit_test_setup(test_a_member_is_hashed_on_its_way, set_up_cache),
        cmocka_unit_test_setup(test_a_member_of_another_manifest, set_up_cache),
        cmocka_unit_test_setup(test_damaged_records_are_not_there, set_up_cache),
        cmocka_unit_test_setup(test_a_member_that_is_cut_off_is_not_there, set_up_cache),
        cmocka_unit_test_setup(test_blocks_that_are_damaged_are_not_there, set_up_cache),
        cmocka_unit_test_setup(test_sweep, set_up_cache),
        cmocka_unit_test_setup(test_blocks_are_kept_longer, set_up_cache),
        cmocka_unit_test_setup(test_what_a_killed_run_left, set_up_cache),
        cmocka_unit_test_setup(test_what_another_process_writes_stays, set_up_cache),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* bundle/: everything that a reader must refuse. */
#include <sys/mman.h>

#include "bundle_world.h"

/* ---- damage ---- */

/* Whether these bytes decode to the good bundle's tar, in two frames and nothing else. */
static bool decodes_alike(int fd)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    bool quit = false;
    char name[] = "memory";
    struct bundle_input input = {.fd = fd, .name = name};
    UVM_AUTO(bundle_unzstd_free) struct bundle_unzstd *u = bundle_unzstd_new(&input, &quit);
    uvm_auto_free char *tar = uvm_alloc(all.tar.len + 1);
    size_t first, second;
    lseek(fd, 0, SEEK_SET);
    return bundle_unzstd_begin(u, &err) && bundle_unzstd_read(u, tar, all.tar.len, &first, &err) &&
           bundle_unzstd_begin(u, &err) &&
           bundle_unzstd_read(u, tar + first, all.tar.len + 1 - first, &second, &err) &&
           first + second == all.tar.len && memcmp(tar, all.tar.data, all.tar.len) == 0 &&
           bundle_unzstd_end(u, BUNDLE_ENDS_WITH_TRAILER, &err);
}

static bool is_thorough(void)
{
    return getenv("UVM_TEST_THOROUGH") != NULL;
}

static size_t first_frame(void)
{
    return ZSTD_findFrameCompressedSize(all.good.data, all.good.len);
}

/* All bits of the frames' heads, one of each other byte. */
static size_t bits_of(size_t byte)
{
    bool head = byte < 16 || (byte >= first_frame() && byte < first_frame() + 16);
    return head || is_thorough() ? 8 : 1;
}

/* No bit of a bundle is without meaning: each one that flips changes the content, or stops the
 * decoder. Here without signatures, and so for all bytes. */
static void test_every_bit_counts(void **state)
{
    (void)state;
    uvm_auto_fd fd = memfd_create("bundle", MFD_CLOEXEC);
    assert_int_equal(write(fd, all.good.data, all.good.len), all.good.len);
    assert_true(decodes_alike(fd));
    for (size_t i = 0; i < all.good.len; i++) {
        for (size_t n = 0; n < bits_of(i); n++) {
            char flipped = (char)(all.good.data[i] ^ 1 << (i + n) % 8);
            assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
            if (decodes_alike(fd))
                fail_msg("bit %zu of byte %zu does not count", (i + n) % 8, i);
        }
        assert_int_equal(pwrite(fd, &all.good.data[i], 1, (off_t)i), 1);
    }
}

/* The whole reader: where the second frame is hit, each takes a run of GnuPG. */
static size_t flip_step(size_t at)
{
    if (is_thorough())
        return 1;
    return at < first_frame() ? 5 : 101;
}

static void test_every_flipped_byte(void **state)
{
    (void)state;
    uvm_auto_free char *copy = uvm_alloc(all.good.len);
    memcpy(copy, all.good.data, all.good.len);
    for (size_t i = 0; i < all.good.len; i += flip_step(i)) {
        copy[i] = (char)(copy[i] ^ (1 << (i % 8)));
        uvm_auto_free char *message = NULL;
        enum uvm_code code = verify_bytes(copy, all.good.len, &message);
        if (code != UVM_CONTENT && code != UVM_TRUST)
            fail_msg("byte %zu flipped: code %d, %s", i, code, message);
        copy[i] = all.good.data[i];
    }
}

static void test_every_truncation(void **state)
{
    (void)state;
    for (size_t len = 0; len < all.good.len; len += flip_step(len)) {
        uvm_auto_free char *message = NULL;
        enum uvm_code code = verify_bytes(all.good.data, len, &message);
        if (code != UVM_CONTENT)
            fail_msg("cut at %zu: code %d, %s", len, code, message);
    }
    assert_int_equal(verify_bytes(all.good.data, all.good.len - 1, NULL), UVM_CONTENT);
}

static void test_appended(void **state)
{
    (void)state;
    static const char skippable[] = "\x50\x2a\x4d\x18\x01\x00\x00\x00x";
    struct craft c = good_parts();
    craft_add(&c.tail, "x", 1);
    expect(&c, UVM_CONTENT, "behind its end");
    uvm_buf_clear(&c.tail);
    craft_add_frame(&c.tail, "", 0, CRAFT_WINDOW_LOG);
    expect(&c, UVM_CONTENT, "behind its end");
    uvm_buf_clear(&c.tail);
    craft_add(&c.tail, skippable, sizeof skippable - 1);
    expect(&c, UVM_CONTENT, "behind its end");
    uvm_buf_clear(&c.tail);
}

static void test_skippable_in_front_and_between(void **state)
{
    (void)state;
    static const char skippable[] = "\x50\x2a\x4d\x18\x01\x00\x00\x00x";
    size_t first = ZSTD_findFrameCompressedSize(all.good.data, all.good.len);
    for (int between = 0; between < 2; between++) {
        uvm_auto_buf file = {0};
        size_t at = between ? first : 0;
        craft_add(&file, all.good.data, at);
        craft_add(&file, skippable, sizeof skippable - 1);
        craft_add(&file, all.good.data + at, all.good.len - at);
        assert_int_equal(verify_bytes(file.data, file.len, NULL), UVM_CONTENT);
    }
}

static void test_end_marker(void **state)
{
    (void)state;
    static const size_t good[] = {1024, 1536, 10240, 10752},
                        bad[] = {0, 512, 1023, 1025, 11264, 1 << 20};
    struct craft c = good_parts();
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        c.marker = good[i];
        expect(&c, UVM_OK, "");
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        c.marker = bad[i];
        expect(&c, UVM_CONTENT, "tar");
    }
}

/* The manifest decides whether there is a trailer. */
static void test_trailer(void **state)
{
    (void)state;
    struct craft c = good_parts();
    uvm_auto_buf signature = {0};
    uvm_auto_free char *text = good_manifest();
    c.no_trailer = true;
    expect(&c, UVM_CONTENT, "truncated");
    char *field = strstr(text, "\"trailer\": \"crc32\"");
    assert_non_null(field);
    memcpy(field, "\"tr_iler\"", 9);
    sign_manifest(&c, all.site, text, &signature);
    expect(&c, UVM_OK, "");
    c.no_trailer = false;
    expect(&c, UVM_CONTENT, "behind its end");
}

/* A zero block, then a member that only some readers would see. */
static void test_member_behind_the_marker(void **state)
{
    (void)state;
    struct craft c = good_parts();
    static char zeros[1024];
    for (size_t len = 512; len <= 1024; len += 512) {
        uvm_auto_buf first = {0}, second = {0}, file = {0};
        for (size_t i = 0; i < c.count; i++)
            craft_add_part(i < 2 ? &first : &second, &c.parts[i]);
        craft_add(&second, zeros, len);
        struct craft_part part = craft_part("evil", '0', "x", 1);
        craft_add_part(&second, &part);
        craft_add(&second, zeros, sizeof zeros);
        craft_add_frame(&file, first.data, first.len, BUNDLE_WINDOW_LOG);
        craft_add_frame(&file, second.data, second.len, BUNDLE_WINDOW_LOG);
        assert_int_equal(verify_bytes(file.data, file.len, NULL), UVM_CONTENT);
    }
}

/* ---- members ---- */

static void test_order_and_number(void **state)
{
    (void)state;
    struct craft c = good_parts();
    struct craft_part swap = c.parts[IMAGE_A];
    c.parts[IMAGE_A] = c.parts[IMAGE_B];
    c.parts[IMAGE_B] = swap;
    expect(&c, UVM_CONTENT, "found r/20241001.img where");

    c = good_parts();
    craft_insert(&c, IMAGE_B, c.parts[IMAGE_A]);
    expect(&c, UVM_CONTENT, "found r/20241004.img where");

    c = good_parts();
    craft_remove(&c, IMAGE_A);
    expect(&c, UVM_CONTENT, "found r/20241001.img where");

    c = good_parts();
    craft_remove(&c, IMAGE_B);
    expect(&c, UVM_CONTENT, "found the end where");

    c = good_parts();
    craft_insert(&c, PARTS, craft_part("etc/passwd", '0', "x", 1));
    expect(&c, UVM_CONTENT, "etc/passwd is not in the manifest");

    c = good_parts();
    craft_insert(&c, ORIGIN, craft_part("../../etc/passwd", '0', "x", 1));
    expect(&c, UVM_CONTENT, "found ../../etc/passwd where");
}

static void test_types(void **state)
{
    (void)state;
    static const char types[] = {'1', '2', '3', '4', '5', '6'};
    for (size_t i = 0; i < sizeof types; i++)
        for (size_t at = MANIFEST; at < PARTS; at += IMAGE_A) {
            struct craft c = good_parts();
            c.parts[at].type = types[i];
            strcpy(c.parts[at].link, "/etc/passwd");
            expect(&c, UVM_CONTENT, "");
            /* The same with the bytes that it should have had, where tar allows that. */
            c.parts[at].size = c.parts[at].len = 0;
            expect(&c, UVM_CONTENT, "");
        }
    struct craft c = good_parts();
    craft_insert(&c, IMAGE_A, craft_part("r", '5', NULL, 0));
    expect(&c, UVM_CONTENT, "not a regular file");
}

static char *pax_record(const char *key, const char *value)
{
    size_t len = strlen(key) + strlen(value) + 3;
    len += len + 1 > 9 ? 2 : 1;
    return uvm_format("%zu %s=%s\n", len, key, value);
}

static void test_pax(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
    } records[] = {
        {"path", "../../etc/passwd"},
        {"path", "r/other.img"},
        {"size", "-1"},
        {"size", "1"},
        {"size", "99999999999999999999"},
        {"linkpath", "/etc/passwd"},
        {"GNU.sparse.map", "0,1"},
        {"GNU.sparse.size", "1125899906842624"},
        {"GNU.sparse.name", "r/other.img"},
        {"GNU.sparse.realsize", "1125899906842624"},
    };
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        struct craft c = good_parts();
        uvm_auto_free char *record = pax_record(records[i].key, records[i].value);
        craft_insert(&c, IMAGE_A, craft_part("pax", 'x', record, strlen(record)));
        if (strcmp(records[i].key, "linkpath") == 0)
            c.parts[IMAGE_A + 1].type = '2';
        expect(&c, UVM_CONTENT, "");
        /* In the first frame nothing but plain headers is allowed. */
        c = good_parts();
        craft_insert(&c, SIGNATURE, craft_part("pax", 'x', record, strlen(record)));
        c.frame1 = 3;
        expect(&c, UVM_CONTENT, "");
    }
}

/* A header of old GNU tar, whose holes make 2^50 bytes out of 512. */
static void test_gnu_sparse(void **state)
{
    (void)state;
    struct craft c = good_parts();
    uvm_auto_buf first = {0}, second = {0}, file = {0};
    for (size_t i = 0; i < IMAGE_A; i++)
        craft_add_part(i < 2 ? &first : &second, &c.parts[i]);
    struct craft_part part = craft_part(c.parts[IMAGE_A].name, 'S', image_a, 512);
    unsigned char header[CRAFT_BLOCK];
    craft_header(header, &part);
    char *h = (char *)header;
    memcpy(h + 257, "ustar  ", 8);
    craft_octal(h + 386, 12, 0);
    craft_octal(h + 398, 12, 512);
    craft_octal(h + 483, 12, (uint64_t)1 << 32);
    unsigned sum = 8 * ' ';
    for (size_t i = 0; i < sizeof header; i++)
        sum += i >= 148 && i < 156 ? 0 : header[i];
    craft_octal(h + 148, 7, sum);
    craft_add(&second, header, sizeof header);
    craft_add(&second, image_a, 512);
    craft_add_frame(&file, first.data, first.len, BUNDLE_WINDOW_LOG);
    craft_add_frame(&file, second.data, second.len, CRAFT_WINDOW_LOG);
    uvm_auto_free char *message = NULL;
    assert_int_equal(verify_bytes(file.data, file.len, &message), UVM_CONTENT);
    assert_non_null(strstr(message, "not a regular file"));
}

static void test_content(void **state)
{
    (void)state;
    for (size_t at = ORIGIN; at < PARTS; at++) {
        struct craft c = good_parts();
        uvm_auto_free char *changed = uvm_alloc(c.parts[at].len);
        memcpy(changed, c.parts[at].data, c.parts[at].len);
        changed[c.parts[at].len / 2] ^= 1;
        c.parts[at].data = changed;
        expect(&c, UVM_CONTENT, "not what was signed");
        c.parts[at].len = --c.parts[at].size;
        expect(&c, UVM_CONTENT, "in the manifest");
    }
}

/* The end of a member is reported only when its bytes were right, and a refusal stays one. */
static void test_refused_for_good(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT, again = UVM_ERROR_INIT, next = UVM_ERROR_INIT;
    struct craft c = good_parts();
    uvm_auto_buf file = {0};
    uvm_auto_free char *path = path_of("case.tar.zst");
    UVM_AUTO(bundle_reader_free) struct bundle_reader *reader = NULL;
    c.parts[ORIGIN].data = c.parts[SJSON].data;
    craft_join(&c, &file);
    put("case.tar.zst", file.data, file.len);
    must(open_bundle(path, all.trust_site, NULL, &reader, &err), &err);
    struct bundle_entry entry;
    must(bundle_reader_next(reader, &entry, &err), &err);
    uvm_auto_buf content = {0};
    assert_false(bundle_reader_slurp(reader, &content, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    assert_null(content.data);
    assert_false(bundle_reader_slurp(reader, &content, &again));
    assert_false(bundle_reader_next(reader, &entry, &next));
}

/* ---- the first frame ---- */

static void test_frame_borders(void **state)
{
    (void)state;
    struct craft c = good_parts();
    c.frame1 = 3;
    expect(&c, UVM_CONTENT, "more than the manifest");
    c.frame1 = PARTS;
    expect(&c, UVM_CONTENT, "more than the manifest");
    c.frame1 = 1;
    expect(&c, UVM_CONTENT, "nothing in the place of uvmirror/manifest.json.sig");
    c.frame1 = 0;
    expect(&c, UVM_CONTENT, "");

    c = good_parts();
    uvm_auto_buf file = {0};
    craft_add_frame(&file, all.tar.data, all.tar.len, BUNDLE_WINDOW_LOG);
    assert_int_equal(verify_bytes(file.data, file.len, NULL), UVM_CONTENT);
}

static void test_window(void **state)
{
    (void)state;
    struct craft c = good_parts();
    c.window_log = BUNDLE_WINDOW_LOG;
    expect(&c, UVM_OK, "");
    c.window_log = 31;
    expect(&c, UVM_CONTENT, "zstd");
}

/* Four gigabytes of zeros in a few kilobytes, where the manifest should be. */
static void test_bomb(void **state)
{
    (void)state;
    uvm_auto_buf file = {0};
    size_t len = (size_t)64 << 20;
    uvm_auto_free char *zeros = uvm_alloc(len);
    struct craft_part part = craft_part(BUNDLE_MANIFEST_NAME, '0', zeros, 0);
    part.size = (uint64_t)4 << 30;
    craft_header((unsigned char *)zeros, &part);
    craft_add_frame(&file, zeros, len, CRAFT_WINDOW_LOG);
    uvm_auto_free char *message = NULL;
    assert_int_equal(verify_bytes(file.data, file.len, &message), UVM_CONTENT);
    assert_non_null(strstr(message, "larger than a manifest"));
}

static void test_signature(void **state)
{
    (void)state;
    uvm_auto_free char *text = good_manifest();
    uvm_auto_buf signature = {0};
    struct craft c = good_parts();
    sign_manifest(&c, all.stranger, text, &signature);
    expect(&c, UVM_TRUST, "");

    c = good_parts();
    c.parts[SIGNATURE].size = c.parts[SIGNATURE].len = 0;
    expect(&c, UVM_TRUST, "");

    c = good_parts();
    craft_remove(&c, SIGNATURE);
    expect(&c, UVM_CONTENT, "");

    c = good_parts();
    c.parts[MANIFEST].data = text;
    text[strlen(text) - 2] = ' ';
    expect(&c, UVM_TRUST, "");
}

static void test_trusted_but_wrong_manifest(void **state)
{
    (void)state;
    uvm_auto_buf signature = {0};
    struct craft c = good_parts();
    sign_manifest(&c, all.site, "{\"format\":9,\"critical\":[]}", &signature);
    expect(&c, UVM_CONTENT, "format version 9");
}

/* Both halves are signed by the site, but not with each other. */
static void test_manifest_of_another_bundle(void **state)
{
    (void)state;
    uvm_auto_free char *text = good_manifest();
    mirror_auto_json *root = json_loads(text, 0, NULL);
    uvm_auto_buf signature = {0};
    json_t *images = json_object_get(root, "images"), *image = json_array_get(images, 0);
    json_object_set_new(image, "size", json_integer(SIZE_B));
    json_object_set_new(json_object_get(image, "metadata"), "size", json_string("300"));
    json_object_set_new(json_object_get(image, "payload"), "size", json_integer(SIZE_B));
    uvm_auto_free char *other = json_dumps(root, 0);
    struct craft c = good_parts();
    sign_manifest(&c, all.site, other, &signature);
    expect(&c, UVM_CONTENT, "300 in the manifest");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_every_flipped_byte),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_appended),
        cmocka_unit_test(test_skippable_in_front_and_between),
        cmocka_unit_test(test_end_marker),
        cmocka_unit_test(test_member_behind_the_marker),
        cmocka_unit_test(test_order_and_number),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_pax),
        cmocka_unit_test(test_gnu_sparse),
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_refused_for_good),
        cmocka_unit_test(test_frame_borders),
        cmocka_unit_test(test_trailer),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_signature),
        cmocka_unit_test(test_trusted_but_wrong_manifest),
        cmocka_unit_test(test_manifest_of_another_bundle),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

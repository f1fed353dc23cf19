/* mirror/image.c and mirror/path.c: nothing unsafe gets into a struct mirror_image. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/mirror.h"

#define SHA256 "983b7be9dd1ed8c0b3118e309cdd2b2869b74ddcbb3e4c6c4c77e28e0a7b5e59"
#define SHA512 SHA256 SHA256
#define PATH   "server/releases/noble/disk1.img"

#define auto_image __attribute__((cleanup(mirror_image_clear))) struct mirror_image

static json_t *sound_metadata(void)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "datatype", "image-downloads",
                     "product_name", "com.ubuntu.cloud:server:24.04:amd64", "release", "noble",
                     "arch", "amd64", "version_name", "20241004", "ftype", "disk1.img", "size",
                     "226099712", "sha256", SHA256, "item_name", "disk1.img");
}

/* The sound metadata with one key set (NULL: removed), and another path. */
static enum uvm_code code_with(const char *key, const char *value, const char *path)
{
    mirror_auto_json *metadata = sound_metadata();
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    if (key && value)
        json_object_set_new(metadata, key, json_string(value));
    else if (key)
        json_object_del(metadata, key);
    bool ok = mirror_image_from_metadata(metadata, path, &image, &err);
    assert_true(ok == (err.code == UVM_OK));
    assert_true(ok == (image.path != NULL));
    return err.code;
}

static void test_takes_a_sound_item(void **state)
{
    (void)state;
    mirror_auto_json *metadata = sound_metadata();
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    auto_image copy = {0};
    assert_true(mirror_image_from_metadata(metadata, PATH, &image, &err));
    mirror_image_copy(&copy, &image);
    json_object_clear(metadata);
    mirror_image_clear(&image);
    assert_string_equal(copy.product, "com.ubuntu.cloud:server:24.04:amd64");
    assert_string_equal(copy.version, "20241004");
    assert_string_equal(copy.item, "disk1.img");
    assert_string_equal(copy.path, PATH);
    assert_int_equal(copy.size, 226099712);
    assert_string_equal(copy.sha256, SHA256);
    assert_null(copy.sha512);
    assert_string_equal(mirror_image_get(&copy, "release"), "noble");
    assert_string_equal(mirror_image_get(&copy, "label"), "");
    assert_int_equal(json_object_size(copy.metadata), 9);
}

static void test_names(void **state)
{
    static const char *const keys[] = {"product_name", "version_name", "item_name"};
    static const char *const bad[] = {
        NULL,    "",           "a b",      " a",       "a/b",      "a\nb",      "a\tb",
        "a\x7f", "a\xc2\x85z", "a\u00a0b", "a\u3000b", "a\u2028b", "\u202egnp", "a\u2009b",
    };
    (void)state;
    char longest[MIRROR_NAME_MAX + 2];
    memset(longest, 'x', sizeof longest);
    longest[MIRROR_NAME_MAX + 1] = 0;
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
            assert_int_equal(code_with(keys[k], bad[i], PATH), UVM_CONTENT);
        assert_int_equal(code_with(keys[k], longest, PATH), UVM_CONTENT);
        assert_int_equal(code_with(keys[k], longest + 1, PATH), UVM_OK);
        assert_int_equal(code_with(keys[k], "20220530_08:32", PATH), UVM_OK);
        assert_int_equal(code_with(keys[k], "k\u00e4se", PATH), UVM_OK);
    }
}

static void test_sizes(void **state)
{
    static const char *const bad[] = {
        NULL,
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1e3",
        "1.0",
        "0x10",
        "True",
        "1_0",
        "1125899906842625",
        "9223372036854775808",
        "18446744073709551617",
        "99999999999999999999999999",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(code_with("size", bad[i], PATH), UVM_CONTENT);
    assert_int_equal(code_with("size", "0", PATH), UVM_OK);
    assert_int_equal(code_with("size", "11", PATH), UVM_OK);
    assert_int_equal(code_with("size", "1125899906842624", PATH), UVM_OK);
}

static void test_checksums(void **state)
{
    (void)state;
    assert_int_equal(code_with("sha256", NULL, PATH), UVM_CONTENT);
    assert_int_equal(code_with("sha256", "", PATH), UVM_CONTENT);
    assert_int_equal(code_with("sha256", SHA256 "0", PATH), UVM_CONTENT);
    assert_int_equal(code_with("sha256", &SHA256[1], PATH), UVM_CONTENT);
    assert_int_equal(code_with("sha256", SHA512, PATH), UVM_CONTENT);
    /* One good checksum does not excuse a malformed one. */
    assert_int_equal(code_with("sha512", SHA256, PATH), UVM_CONTENT);
    assert_int_equal(code_with("sha512", "zz", PATH), UVM_CONTENT);
    assert_int_equal(code_with("sha512", SHA512, PATH), UVM_OK);
}

static void test_md5_alone_is_refused_by_name(void **state)
{
    (void)state;
    mirror_auto_json *metadata = sound_metadata();
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    json_object_del(metadata, "sha256");
    json_object_set_new(metadata, "md5", json_string("cc359f4dacbe04ed89ab786bd4d9a1b1"));
    assert_false(mirror_image_from_metadata(metadata, PATH, &image, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    assert_non_null(strstr(err.message, "MD5"));
}

static void test_the_strongest_checksum_counts(void **state)
{
    (void)state;
    mirror_auto_json *metadata = sound_metadata();
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image one = {0};
    auto_image two = {0};
    const char *hex;
    assert_true(mirror_image_from_metadata(metadata, PATH, &one, &err));
    assert_int_equal(mirror_image_digest(&one, &hex), UVM_SHA256);
    assert_string_equal(hex, SHA256);
    json_object_set_new(metadata, "sha512", json_string(SHA512));
    assert_true(mirror_image_from_metadata(metadata, PATH, &two, &err));
    assert_int_equal(mirror_image_digest(&two, &hex), UVM_SHA512);
    assert_string_equal(hex, SHA512);
}

static void test_upper_case_is_folded(void **state)
{
    (void)state;
    mirror_auto_json *metadata = sound_metadata();
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    char upper[] = SHA256;
    for (char *p = upper; *p; p++)
        if (*p >= 'a')
            *p = (char)(*p - 'a' + 'A');
    json_object_set_new(metadata, "sha256", json_string(upper));
    assert_true(mirror_image_from_metadata(metadata, PATH, &image, &err));
    assert_string_equal(image.sha256, SHA256);
    assert_string_equal(mirror_image_get(&image, "sha256"), upper);
}

static void test_metadata_are_strings_within_a_limit(void **state)
{
    (void)state;
    mirror_auto_json *metadata = sound_metadata();
    mirror_auto_json *list = json_array();
    auto_image image = {0};
    struct uvm_error err = UVM_ERROR_INIT;
    assert_false(mirror_image_from_metadata(list, PATH, &image, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    uvm_error_clear(&err);
    json_object_set_new(metadata, "supported", json_true());
    assert_false(mirror_image_from_metadata(metadata, PATH, &image, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    uvm_error_clear(&err);
    uvm_auto_free char *big = uvm_alloc(MIRROR_METADATA_MAX + 1);
    memset(big, 'x', MIRROR_METADATA_MAX);
    assert_int_equal(code_with("note", big, PATH), UVM_CONTENT);
    big[1000] = 0;
    assert_int_equal(code_with("note", big, PATH), UVM_OK);
}

static bool path_ok(const char *path)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = mirror_path_check(path, &err);
    assert_int_equal(err.code, ok ? UVM_OK : UVM_CONTENT);
    if (!ok && strlen(path) < 100) { /* the message shows it, in printable form */
        uvm_auto_free char *printable = uvm_printable(path);
        assert_non_null(strstr(err.message, printable));
        uvm_auto_free char *message = uvm_printable(err.message);
        assert_string_equal(message, err.message);
    }
    return ok;
}

static void test_paths(void **state)
{
    static const char *const good[] = {
        "a",
        "a/b.img",
        "..a/b..",
        ".../x",
        ".hidden",
        "a/20220530_08:32/x",
        "0.3.1~pre4/x",
        "a b/c",
        "k\u00e4se",
        "100%/x",
        "a%20b",
        "streams/v1/index.json",
        "http:x",
    };
    static const char *const bad[] = {
        "",          "/",          "/etc/passwd", "..",           "../x",      "a/../b",
        "a/..",      ".",          "./a",         "a/./b",        "a/.",       "a//b",
        "a/",        "//a",        "a\\b",        "a\nb",         "a\x01",     "a\x7f",
        "a\xc2\x85", "a/%2e%2e/b", "%2E%2E/x",    "a%2fb",        "a%2Fb",     "http://x/y",
        "file:///x", "\xff",       "a\xc0\xae",   "\xed\xa0\x80", "a\x1b[31m",
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(path_ok(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(path_ok(bad[i]));
}

static void test_path_lengths(void **state)
{
    (void)state;
    char path[MIRROR_PATH_MAX + 2];
    for (size_t i = 0; i < sizeof path; i++)
        path[i] = i % 200 == 199 ? '/' : 'x';
    path[MIRROR_PATH_MAX + 1] = 0;
    assert_false(path_ok(path));
    path[MIRROR_PATH_MAX] = 0;
    assert_true(path_ok(path));
    memset(path, 'x', 256);
    path[256] = 0;
    assert_false(path_ok(path));
    path[255] = 0;
    assert_true(path_ok(path));
}

static void test_image_paths_keep_out_of_the_mirrors_folders(void **state)
{
    (void)state;
    assert_int_equal(code_with(NULL, NULL, "uvmirror/lock"), UVM_CONTENT);
    assert_int_equal(code_with(NULL, NULL, "uvmirror"), UVM_CONTENT);
    assert_int_equal(code_with(NULL, NULL, "streams/v1/index.sjson"), UVM_CONTENT);
    assert_int_equal(code_with(NULL, NULL, "streams"), UVM_CONTENT);
    assert_int_equal(code_with(NULL, NULL, "../x"), UVM_CONTENT);
    assert_int_equal(code_with(NULL, NULL, NULL), UVM_CONTENT);
    assert_int_equal(code_with(NULL, NULL, "streams2/x"), UVM_OK);
    assert_int_equal(code_with(NULL, NULL, "a/uvmirror/x"), UVM_OK);
}

static bool importable_with(const char *key, const char *value)
{
    mirror_auto_json *metadata = sound_metadata();
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    if (key)
        json_object_set_new(metadata, key, json_string(value));
    assert_true(mirror_image_from_metadata(metadata, PATH, &image, &err));
    return mirror_image_importable(&image);
}

static void test_importable(void **state)
{
    (void)state;
    assert_true(importable_with(NULL, NULL));
    assert_false(importable_with("item_name", "disk.img"));
    assert_false(importable_with("ftype", "disk-kvm.img"));
    assert_false(importable_with("datatype", "image-ids"));
    assert_false(importable_with("datatype", ""));
}

static void test_titles(void **state)
{
    (void)state;
    mirror_auto_json *metadata = sound_metadata();
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image one = {0};
    auto_image two = {0};
    auto_image three = {0};
    assert_true(mirror_image_from_metadata(metadata, PATH, &one, &err));
    uvm_auto_free char *title = mirror_image_title(&one);
    assert_string_equal(title, "noble amd64 20241004");

    json_object_set_new(metadata, "release", json_string("\x1b[2Jx"));
    assert_true(mirror_image_from_metadata(metadata, PATH, &two, &err));
    uvm_auto_free char *printable = mirror_image_title(&two);
    assert_string_equal(printable, "?[2Jx amd64 20241004");

    json_object_del(metadata, "release");
    assert_true(mirror_image_from_metadata(metadata, PATH, &three, &err));
    uvm_auto_free char *product = mirror_image_title(&three);
    assert_string_equal(product, "com.ubuntu.cloud:server:24.04:amd64 20241004");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_a_sound_item),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_md5_alone_is_refused_by_name),
        cmocka_unit_test(test_the_strongest_checksum_counts),
        cmocka_unit_test(test_upper_case_is_folded),
        cmocka_unit_test(test_metadata_are_strings_within_a_limit),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_path_lengths),
        cmocka_unit_test(test_image_paths_keep_out_of_the_mirrors_folders),
        cmocka_unit_test(test_importable),
        cmocka_unit_test(test_titles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

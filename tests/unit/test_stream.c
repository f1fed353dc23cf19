/* mirror/stream.c, alias.c, date.c: products files of all sorts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/mirror.h"

#define SHA256      "983b7be9dd1ed8c0b3118e309cdd2b2869b74ddcbb3e4c6c4c77e28e0a7b5e59"
#define auto_stream UVM_AUTO(mirror_stream_free) struct mirror_stream
#define auto_image  __attribute__((cleanup(mirror_image_clear))) struct mirror_image
#define HEAD        "\"format\":\"products:1.0\",\"content_id\":\"test:download\","
#define PRODUCTS(p) "{" HEAD "\"products\":{" p "}}"
#define ITEM_KEYS   "\"path\":\"a/b\",\"size\":11,\"sha256\":\"" SHA256 "\""

static struct mirror_stream *parse(const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_stream *s = NULL;
    if (!mirror_stream_parse(text, strlen(text), &s, &err))
        fail_msg("%s", err.message);
    return s;
}

static bool refuses(const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_stream *s = NULL;
    bool ok = mirror_stream_parse(text, strlen(text), &s, &err);
    assert_true(ok || err.code == UVM_CONTENT);
    assert_true(ok == (s != NULL));
    return !ok;
}

static void check_text(char *text, const char *expected)
{
    assert_string_equal(text, expected);
    free(text);
}

/* ---- parsing --------------------------------------------------------------------------------- */

static void test_parses_the_smallest(void **state)
{
    (void)state;
    auto_stream *s = parse(PRODUCTS(""));
    assert_string_equal(s->content_id, "test:download");
    assert_null(s->updated);
    assert_int_equal(s->updated_at, 0);
    struct mirror_counts counts = mirror_stream_count(s);
    assert_int_equal(counts.products + counts.versions + counts.items, 0);
}

static void test_refuses_what_is_no_products_file(void **state)
{
    (void)state;
    assert_true(refuses(""));
    assert_true(refuses("[]"));
    assert_true(refuses("{}"));
    assert_true(refuses("{\"format\":\"index:1.0\",\"content_id\":\"x\",\"products\":{}}"));
    assert_true(refuses("{\"format\":\"products:2.0\",\"content_id\":\"x\",\"products\":{}}"));
    assert_true(refuses("{\"format\":1,\"content_id\":\"x\",\"products\":{}}"));
    assert_true(refuses("{" HEAD "\"x\":1}"));
    assert_true(refuses("{" HEAD "\"products\":[]}"));
    assert_true(refuses(PRODUCTS("\"p\":1")));
    assert_true(refuses(PRODUCTS("\"p\":{},\"q\":[]")));
    assert_true(refuses(PRODUCTS("\"p\":{},\"p\":{}")));
}

static bool refuses_content_id(const char *json)
{
    uvm_auto_free char *text =
        uvm_format("{\"format\":\"products:1.0\",\"content_id\":%s,\"products\":{}}", json);
    return refuses(text);
}

static void test_content_ids_are_names_of_files(void **state)
{
    static const char *const bad[] = {
        "null",         "7",          "\"\"",          "\".\"",      "\"..\"",
        "\".x\"",       "\"a/b\"",    "\"/x\"",        "\"a\\\\b\"", "\"a\\nb\"",
        "\"a\\u0007\"", "\"%2e%2E\"", "\"a\\u202eb\"",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_true(refuses_content_id(bad[i]));
    assert_true(refuses("{\"format\":\"products:1.0\",\"products\":{}}"));
    assert_false(refuses_content_id("\"com.ubuntu.cloud:released:download\""));
    char longest[MIRROR_NAME_MAX + 4];
    memset(longest, 'x', sizeof longest);
    longest[0] = longest[MIRROR_NAME_MAX + 2] = '"';
    longest[MIRROR_NAME_MAX + 3] = 0;
    assert_true(refuses_content_id(longest));
    longest[MIRROR_NAME_MAX + 1] = '"';
    longest[MIRROR_NAME_MAX + 2] = 0;
    assert_false(refuses_content_id(longest));
}

static void test_counts_objects_only(void **state)
{
    (void)state;
    auto_stream *s =
        parse(PRODUCTS("\"p\":{\"versions\":{\"1\":{\"items\":{\"a\":{},\"b\":{},\"c\":7}},"
                       "\"2\":{\"items\":{}},\"3\":{},\"4\":[]}},"
                       "\"q\":{\"versions\":[]},\"r\":{}"));
    struct mirror_counts counts = mirror_stream_count(s);
    assert_int_equal(counts.products, 3);
    assert_int_equal(counts.versions, 3);
    assert_int_equal(counts.items, 2);
}

/* ---- flattening ------------------------------------------------------------------------------ */

static char *flat_text(const struct mirror_stream *s, const char *product, const char *version,
                       const char *item)
{
    mirror_auto_json *flat = mirror_stream_flatten(s, product, version, item);
    return flat ? json_dumps(flat, JSON_COMPACT) : NULL;
}

static void test_flattens_in_order(void **state)
{
    (void)state;
    auto_stream *s =
        parse("{" HEAD "\"who\":\"top\",\"list\":[1],\"products\":{\"p\":{\"arch\":\"amd64\","
              "\"supported\":true,\"requirements\":{\"secureboot\":\"false\"},\"who\":\"product\","
              "\"none\":null,\"versions\":{\"v\":{\"f\":1.5,\"items\":{\"i\":{\"size\":11,"
              "\"arch\":\"arm64\",\"supported\":false}}}}}}}");
    check_text(flat_text(s, "p", "v", "i"),
               "{\"format\":\"products:1.0\",\"content_id\":\"test:download\",\"who\":\"product\","
               "\"arch\":\"arm64\",\"supported\":\"False\",\"product_name\":\"p\",\"f\":\"1.5\","
               "\"version_name\":\"v\",\"size\":\"11\",\"item_name\":\"i\"}");
    assert_null(flat_text(s, "x", "v", "i"));
    assert_null(flat_text(s, "p", "x", "i"));
    assert_null(flat_text(s, "p", "v", "x"));
}

static void test_a_list_does_not_hide_an_inherited_value(void **state)
{
    (void)state;
    auto_stream *s = parse(PRODUCTS("\"p\":{\"k\":\"v\",\"versions\":{\"v\":{\"k\":[],\"items\":"
                                    "{\"i\":{\"k\":null}}}}}"));
    mirror_auto_json *flat = mirror_stream_flatten(s, "p", "v", "i");
    assert_string_equal(json_string_value(json_object_get(flat, "k")), "v");
}

static void test_a_flood_of_keys_is_refused(void **state)
{
    (void)state;
    auto_stream *s =
        parse(PRODUCTS("\"p\":{\"versions\":{\"v\":{\"items\":{\"i\":{" ITEM_KEYS "}}}}}"));
    for (int i = 0; i <= MIRROR_KEYS_MAX; i++) {
        uvm_auto_free char *key = uvm_format("k%d", i);
        json_object_set_new(s->tree, key, json_true());
    }
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    assert_null(mirror_stream_flatten(s, "p", "v", "i"));
    assert_false(mirror_stream_image(s, "p", "v", "i", &image, &err));
    assert_int_equal(err.code, UVM_CONTENT);
}

/* ---- images ---------------------------------------------------------------------------------- */

static enum uvm_code image_code(const char *product_keys, const char *version,
                                const char *item_keys)
{
    uvm_auto_free char *text =
        uvm_format(PRODUCTS("\"p\":{%s\"versions\":{\"%s\":{\"items\":{\"i\":{%s}}}}}"),
                   product_keys, version, item_keys);
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    auto_stream *s = parse(text);
    bool ok = mirror_stream_image(s, "p", version, "i", &image, &err);
    assert_true(ok == (err.code == UVM_OK));
    return err.code;
}

static void test_images(void **state)
{
    (void)state;
    assert_int_equal(image_code("", "1", ITEM_KEYS), UVM_OK);
    assert_int_equal(image_code("\"size\":11,\"sha256\":\"" SHA256 "\",", "1", "\"path\":\"a\""),
                     UVM_OK);
    assert_int_equal(image_code("\"path\":\"a\",", "1", "\"size\":11,\"sha256\":\"" SHA256 "\""),
                     UVM_CONTENT); /* a path is not inherited */
    assert_int_equal(image_code("", "1", "\"path\":1,\"size\":1,\"sha256\":\"" SHA256 "\""),
                     UVM_CONTENT);
    assert_int_equal(
        image_code("", "1", "\"path\":\"a\",\"size\":\"11\",\"sha256\":\"" SHA256 "\""), UVM_OK);
    assert_int_equal(image_code("", "1", "\"path\":\"a\",\"size\":1e3,\"sha256\":\"" SHA256 "\""),
                     UVM_CONTENT);
    assert_int_equal(image_code("", "1", "\"path\":\"a\",\"size\":-1,\"sha256\":\"" SHA256 "\""),
                     UVM_CONTENT);
    assert_int_equal(image_code("", "1", "\"path\":\"a\",\"size\":true,\"sha256\":\"" SHA256 "\""),
                     UVM_CONTENT);
    assert_int_equal(image_code("", "1", "\"path\":\"../a\",\"size\":1,\"sha256\":\"" SHA256 "\""),
                     UVM_CONTENT);
    assert_int_equal(image_code("", "1", "\"path\":\"a\",\"size\":1,\"md5\":\"x\""), UVM_CONTENT);
    assert_int_equal(image_code("", "1 2", ITEM_KEYS), UVM_CONTENT);
    assert_int_equal(image_code("", "", ITEM_KEYS), UVM_CONTENT);
}

static void test_an_item_speaks_for_itself_only(void **state)
{
    (void)state;
    assert_int_equal(image_code("", "1", ITEM_KEYS ",\"version_name\":\"9\""), UVM_CONTENT);
    assert_int_equal(image_code("", "1", ITEM_KEYS ",\"product_name\":\"q\""), UVM_CONTENT);
    assert_int_equal(image_code("\"product_name\":\"q\",", "1", ITEM_KEYS), UVM_OK);
    assert_int_equal(image_code("", "1", ITEM_KEYS ",\"item_name\":\"q\""), UVM_OK);
}

static void test_a_missing_item_is_said(void **state)
{
    (void)state;
    auto_stream *s = parse(PRODUCTS(""));
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    assert_false(mirror_stream_image(s, "p\x1b", "v", "i", &image, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    assert_non_null(strstr(err.message, "p? v"));
}

/* ---- aliases --------------------------------------------------------------------------------- */

/* The tree behind `table` and `rest` after expansion; NULL when it is refused. */
static char *expanded(const char *table, const char *rest)
{
    uvm_auto_free char *text =
        uvm_format("{\"_aliases\":%s," HEAD "%s\"products\":{}}", table, rest);
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_stream *s = NULL;
    if (!mirror_stream_parse(text, strlen(text), &s, &err)) {
        assert_int_equal(err.code, UVM_CONTENT);
        return NULL;
    }
    assert_null(json_object_get(s->tree, "_aliases"));
    json_object_del(s->tree, "format");
    json_object_del(s->tree, "content_id");
    json_object_del(s->tree, "products");
    return json_dumps(s->tree, JSON_COMPACT);
}

/* Expected: what simplestreams' expand_tree makes of the same tree. */
static void test_aliases_expand(void **state)
{
    (void)state;
    check_text(expanded("{\"r\":{\"x\":{\"region\":\"us\",\"n\":1}}}", "\"r\":\"x\","),
               "{\"r\":\"x\",\"region\":\"us\",\"n\":1}");
    check_text(expanded("{\"r\":{\"x\":{\"k\":\"new\"}}}", "\"k\":\"old\",\"r\":\"x\","),
               "{\"k\":\"new\",\"r\":\"x\"}");
    check_text(expanded("{\"r\":{\"x\":{\"k\":1}}}", "\"a\":[{\"r\":\"x\"},[{\"r\":\"x\"}]],"),
               "{\"a\":[{\"r\":\"x\",\"k\":1},[{\"r\":\"x\",\"k\":1}]]}");
    /* What an alias adds is not looked up in the same object, but the table itself expands first. */
    check_text(
        expanded("{\"b\":{\"y\":{\"c\":2}},\"a\":{\"x\":{\"b\":\"y\"}}}", "\"o\":{\"a\":\"x\"},"),
        "{\"o\":{\"a\":\"x\",\"b\":\"y\",\"c\":2}}");
    check_text(expanded("{\"b\":{\"y\":{\"c\":2}},\"a\":{\"x\":{\"b\":\"y\"}}}", "\"a\":\"x\","),
               "{\"a\":\"x\",\"b\":\"y\"}");
}

/* An entry that replaces the table which it stands in is still read to its end. */
static void test_an_alias_replaces_its_table(void **state)
{
    (void)state;
    UVM_AUTO(mirror_stream_free)
    struct mirror_stream *s =
        parse("{\"_aliases\":{\"crsn\":{\"u\":{\"region\":\"1\",\"_aliases\":\"gone\",\"zone\":"
              "\"x\"}}}," HEAD "\"products\":{},\"crsn\":\"u\"}");
    assert_string_equal(json_string_value(json_object_get(s->tree, "zone")), "x");
}

static void test_aliases_that_say_nothing(void **state)
{
    (void)state;
    check_text(expanded("{}", "\"r\":\"x\","), "{\"r\":\"x\"}");
    check_text(expanded("[]", "\"r\":\"x\","), "{\"r\":\"x\"}");
    check_text(expanded("{\"r\":{}}", "\"r\":\"x\","), "{\"r\":\"x\"}");
    check_text(expanded("{\"r\":null}", "\"r\":\"x\","), "{\"r\":\"x\"}");
    check_text(expanded("{\"r\":{\"x\":{\"k\":1}}}", "\"r\":\"\","), "{\"r\":\"\"}");
    check_text(expanded("{\"r\":{\"x\":{\"k\":1}}}", "\"r\":7,"), "{\"r\":7}");
    check_text(expanded("{\"r\":{\"x\":{\"k\":[1]}}}", "\"r\":7,"), "{\"r\":7}");
}

static void test_aliases_that_are_refused(void **state)
{
    (void)state;
    assert_null(expanded("{\"r\":{\"x\":{\"k\":1}}}", "\"r\":\"y\","));
    assert_null(expanded("{\"r\":{\"x\":\"k\"}}", "\"r\":\"x\","));
    assert_null(expanded("{\"r\":[1]}", "\"r\":\"x\","));
    assert_null(expanded("{\"r\":{\"x\":{\"k\":{\"r\":\"x\"}}}}", "\"r\":\"x\","));
    assert_null(expanded("{\"r\":{\"x\":{\"k\":[]}}}", "\"r\":\"x\","));
}

/* 100,000 uses of a 100 kB alias would be 10 GB. */
static void test_aliases_do_not_fill_the_memory(void **state)
{
    (void)state;
    mirror_auto_json *tree =
        json_pack("{s:s, s:s, s:{}}", "format", "products:1.0", "content_id", "x", "products");
    json_t *pairs = json_object(), *uses = json_array();
    for (int i = 0; i < 10000; i++) {
        uvm_auto_free char *key = uvm_format("key%d", i);
        json_object_set_new(pairs, key, json_true());
    }
    for (int i = 0; i < 100000; i++)
        json_array_append_new(uses, json_pack("{s:s}", "r", "x"));
    json_object_set_new(tree, "_aliases", json_pack("{s:{s:o}}", "r", "x", pairs));
    json_object_set_new(tree, "uses", uses);
    uvm_auto_free char *text = json_dumps(tree, JSON_COMPACT);
    assert_true(refuses(text));
}

/* ---- times ----------------------------------------------------------------------------------- */

static time_t updated_at(const char *date)
{
    uvm_auto_free char *text = uvm_format("{" HEAD "\"updated\":\"%s\",\"products\":{}}", date);
    auto_stream *s = parse(text);
    assert_string_equal(s->updated, date);
    return s->updated_at;
}

static void test_dates_are_understood(void **state)
{
    (void)state;
    assert_int_equal(updated_at("Fri, 04 Oct 2024 09:30:00 +0000"), 1728034200);
    assert_int_equal(updated_at("Sat, 04 May 2013 01:58:57 +0000"), 1367632737);
    assert_int_equal(updated_at("4 Oct 2024 09:30 +0000"), 1728034200);
    assert_int_equal(updated_at("Fri,  4 oct 2024  11:30:00 +0200 "), 1728034200);
    assert_int_equal(updated_at("Fri, 04 Oct 2024 04:00:00 -0530"), 1728034200);
    assert_int_equal(updated_at("Fri, 04 Oct 2024 09:30:00 GMT"), 1728034200);
    assert_int_equal(updated_at("Fri, 04 Oct 2024 09:30:00 UTC"), 1728034200);
    assert_int_equal(updated_at("Thu, 29 Feb 2024 00:00:00 +0000"), 1709164800);
    assert_int_equal(updated_at("Sat, 31 Dec 2016 23:59:60 +0000"), 1483228800);
    assert_int_equal(updated_at("Tue, 19 Jan 2038 03:14:08 +0000"), (time_t)1 << 31);
}

static void test_other_dates_are_not(void **state)
{
    static const char *const bad[] = {
        "",
        "now",
        "2024-10-04T09:30:00Z",
        "Fri, 04 Oct 2024",
        "Fri, 04 Oct 2024 09:30:00",
        "Fri 04 Oct 2024 09:30:00 +0000",
        "Fri, 04 Okt 2024 09:30:00 +0000",
        "Fri, 31 Feb 2024 09:30:00 +0000",
        "Fri, 00 Oct 2024 09:30:00 +0000",
        "Fri, 04 Oct 24 09:30:00 +0000",
        "Fri, 04 Oct 12024 09:30:00 +0000",
        "Fri, 04 Oct 2024 24:00:00 +0000",
        "Fri, 04 Oct 2024 09:60:00 +0000",
        "Fri, 04 Oct 2024 09:30:61 +0000",
        "Fri, 04 Oct 2024 09:30:00 0000",
        "Fri, 04 Oct 2024 09:30:00 +000",
        "Fri, 04 Oct 2024 09:30:00 +0060",
        "Fri, 04 Oct 2024 09:30:00 +0000 x",
        "Thu, 01 Jan 1970 00:00:00 +0100",
        "Wed, 31 Dec 1969 23:59:59 +0000",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(updated_at(bad[i]), 0);
    auto_stream *s = parse("{" HEAD "\"updated\":7,\"products\":{}}");
    assert_null(s->updated);
}

static void test_times_are_printed(void **state)
{
    (void)state;
    check_text(mirror_stream_time(0), "Thu, 01 Jan 1970 00:00:00 +0000");
    check_text(mirror_stream_time(1728034200), "Fri, 04 Oct 2024 09:30:00 +0000");
    check_text(mirror_stream_time((time_t)1 << 31), "Tue, 19 Jan 2038 03:14:08 +0000");
}

/* ---- real streams ---------------------------------------------------------------------------- */

/* NULL when the fixtures are not there. */
static struct mirror_stream *fixture(const char *name)
{
    const char *dir = getenv("UVM_FIXTURES");
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0};
    struct mirror_stream *s = NULL;
    uvm_auto_free char *path = uvm_format("%s/%s", dir ? dir : ".", name);
    if (!dir || !uvm_file_read(path, MIRROR_JSON_MAX, &text, &err))
        return NULL;
    if (!mirror_stream_parse(text.data, text.len, &s, &err))
        fail_msg("%s: %s", name, err.message);
    return s;
}

static void check_counts(const struct mirror_stream *s, size_t products, size_t versions,
                         size_t items)
{
    struct mirror_counts counts = mirror_stream_count(s);
    assert_int_equal(counts.products, products);
    assert_int_equal(counts.versions, versions);
    assert_int_equal(counts.items, items);
}

static void test_ubuntu(void **state)
{
    (void)state;
    auto_stream *s = fixture("ubuntu-released/com.ubuntu.cloud:released:download.json");
    if (!s)
        skip();
    assert_string_equal(s->content_id, "com.ubuntu.cloud:released:download");
    check_counts(s, 16, 174, 1405);
    /* Expected: simplestreams' products_exdata. */
    check_text(flat_text(s, "com.ubuntu.cloud:server:10.04:amd64", "20150427", "disk1.img"),
               "{\"content_id\":\"com.ubuntu.cloud:released:download\","
               "\"creator\":\"climdb-download-streams-export\","
               "\"datatype\":\"image-downloads\",\"format\":\"products:1.0\","
               "\"license\":\"https://ubuntu.com/legal/intellectual-property-policy\","
               "\"updated\":\"Thu, 22 Aug 2024 03:28:23 +0000\","
               "\"aliases\":\"10.04,l,lucid\",\"arch\":\"amd64\",\"os\":\"ubuntu\","
               "\"release\":\"lucid\",\"release_codename\":\"Lucid Lynx\","
               "\"release_title\":\"10.04 LTS\",\"support_eol\":\"2013-05-09\","
               "\"supported\":\"False\",\"version\":\"10.04\","
               "\"product_name\":\"com.ubuntu.cloud:server:10.04:amd64\","
               "\"label\":\"release\","
               "\"pubname\":\"ubuntu-lucid-10.04-amd64-server-20150427\","
               "\"version_name\":\"20150427\",\"ftype\":\"disk1.img\","
               "\"md5\":\"cc359f4dacbe04ed89ab786bd4d9a1b1\","
               "\"path\":\"server/releases/lucid/release-20150427/"
               "ubuntu-10.04-server-cloudimg-amd64-disk1.img\","
               "\"sha256\":\"983b7be9dd1ed8c0b3118e309cdd2b2869b74ddcbb3e4c6c4c77e28e0a7b5e59\","
               "\"size\":\"226099712\",\"item_name\":\"disk1.img\"}");
}

static void test_cirros(void **state)
{
    (void)state;
    auto_stream *s = fixture("cirros/net.cirros-cloud:devel:download.json");
    if (!s)
        skip();
    assert_string_equal(s->updated, "Sat, 04 May 2013 01:58:57 +0000");
    assert_int_equal(s->updated_at, 1367632737);
    assert_true(mirror_stream_count(s).items > 0);
}

static void test_lxd(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_image image = {0};
    auto_stream *s = fixture("lxd/images.linuxcontainers.org-2022-jammy.json");
    if (!s)
        skip();
    check_counts(s, 1, 1, 5);
    assert_null(s->updated);
    assert_true(mirror_stream_image(s, "ubuntu:jammy:amd64:default", "20220530_08:32", "disk.qcow2",
                                    &image, &err));
    assert_string_equal(image.path, "images/ubuntu/jammy/amd64/default/20220530_08:32/disk.qcow2");
    assert_string_equal(mirror_image_get(&image, "label"), "");
    auto_stream *other = fixture("lxd/lxd-products.json");
    mirror_auto_json *flat = mirror_stream_flatten(other, "debian:bookworm:amd64:default",
                                                   "20260508_0431", "disk.qcow2");
    assert_non_null(flat);
    assert_null(json_object_get(flat, "requirements"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parses_the_smallest),
        cmocka_unit_test(test_refuses_what_is_no_products_file),
        cmocka_unit_test(test_content_ids_are_names_of_files),
        cmocka_unit_test(test_counts_objects_only),
        cmocka_unit_test(test_flattens_in_order),
        cmocka_unit_test(test_a_list_does_not_hide_an_inherited_value),
        cmocka_unit_test(test_a_flood_of_keys_is_refused),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_an_item_speaks_for_itself_only),
        cmocka_unit_test(test_a_missing_item_is_said),
        cmocka_unit_test(test_aliases_expand),
        cmocka_unit_test(test_an_alias_replaces_its_table),
        cmocka_unit_test(test_aliases_that_say_nothing),
        cmocka_unit_test(test_aliases_that_are_refused),
        cmocka_unit_test(test_aliases_do_not_fill_the_memory),
        cmocka_unit_test(test_dates_are_understood),
        cmocka_unit_test(test_other_dates_are_not),
        cmocka_unit_test(test_times_are_printed),
        cmocka_unit_test(test_ubuntu),
        cmocka_unit_test(test_cirros),
        cmocka_unit_test(test_lxd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* mirror/reduce.c: how a reduced stream is printed. What is in it: see test_select.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/mirror.h"

#define VERSIONS     500
#define SIGNED_LINE  19000 /* what can be clear-signed (base.h) */
#define LONG_TEXT    30000
#define NESTING      1500
#define HEX          "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define PRODUCT_NAME "com.example:24.04:amd64"

static json_t *item(int version, const char *name)
{
    uvm_auto_free char *path = uvm_format("r/%d/%s", version, name);
    return json_pack("{s:s, s:s, s:s, s:i}", "ftype", name, "path", path, "sha256", HEX, "size",
                     version);
}

/* A stream of one product; every version has two items. */
static json_t *big_tree(void)
{
    json_t *versions = json_object();
    for (int i = 1; i <= VERSIONS; i++) {
        uvm_auto_free char *name = uvm_format("%d", 20200000 + i);
        json_object_set_new(versions, name,
                            json_pack("{s:s, s:{s:o, s:o}}", "label", "release", "items",
                                      "disk1.img", item(i, "disk1.img"), "root", item(i, "root")));
    }
    return json_pack("{s:s, s:s, s:s, s:{s:{s:s, s:o}}}", "format", "products:1.0", "content_id",
                     "test:download", "datatype", "image-downloads", "products", PRODUCT_NAME,
                     "arch", "amd64", "versions", versions);
}

static struct mirror_stream *stream_of(const json_t *tree)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *text = json_dumps(tree, JSON_COMPACT);
    struct mirror_stream *s = NULL;
    if (!mirror_stream_parse(text, strlen(text), &s, &err))
        fail_msg("%s", err.message);
    return s;
}

/* Everything that is there, of at most `max` versions. */
static void select_all(const struct mirror_stream *s, unsigned max, struct mirror_selection *ret)
{
    static const char *const any[] = {"ftype~", "arch~"};
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    assert_true(mirror_filters_new(any, 2, NULL, &filters, &err));
    if (!mirror_stream_select(s, filters, max, ret, &err))
        fail_msg("%s", err.message);
}

static size_t longest_line(const char *text)
{
    size_t longest = 0;
    for (size_t len; *text; text += len + 1) {
        len = strcspn(text, "\n");
        longest = len > longest ? len : longest;
        assert_int_equal(text[len], '\n');
    }
    return longest;
}

/* Prints all of it and reads it back as the same; the caller frees it. */
static char *reprint(json_t *tree)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_stream_free) struct mirror_stream *s = stream_of(tree), *again = NULL;
    mirror_auto_selection all = {0};
    select_all(s, 0, &all);
    uvm_auto_free char *text = mirror_stream_reduce(s, &all);
    assert_true(mirror_stream_parse(text, strlen(text), &again, &err));
    uvm_auto_free char *before = json_dumps(tree, JSON_COMPACT);
    uvm_auto_free char *after = json_dumps(again->tree, JSON_COMPACT);
    assert_string_equal(before, after); /* in the same order, too */
    return UVM_STEAL(text);
}

/* A minified stream of 60 MiB must not become one of 90, which nobody would read. */
static void test_is_hardly_larger_than_minified(void **state)
{
    (void)state;
    mirror_auto_json *tree = big_tree();
    uvm_auto_free char *minified = json_dumps(tree, JSON_COMPACT);
    uvm_auto_free char *text = reprint(tree);
    assert_in_range(strlen(text), strlen(minified), strlen(minified) * 21 / 20);
    assert_in_range(longest_line(text), 100, SIGNED_LINE);
}

static void test_breaks_whatever_is_wide(void **state)
{
    (void)state;
    mirror_auto_json *tree = big_tree();
    json_t *list = json_array(), *nested = json_object();
    for (int i = 0; i < SIGNED_LINE; i++)
        json_array_append_new(list, json_integer(i));
    for (int i = 0; i < NESTING; i++)
        nested = json_pack("{s:s, s:o}", "a", "some text in every level", "b", nested);
    json_object_set_new(tree, "list", list);
    json_object_set_new(tree, "nested", nested);
    json_object_set_new(tree, "empty", json_array());
    json_object_set_new(tree, "quote", json_string("a \"b\"\n\\ \xc3\xa9 \x01"));
    json_object_set_new(tree, "k\"\\e\ny", json_real(0.1));
    uvm_auto_free char *text = reprint(tree);
    assert_in_range(longest_line(text), 100, SIGNED_LINE);
}

/* A text cannot be broken. Whoever signs it must say so, and not cut it. */
static void test_leaves_a_long_text_alone(void **state)
{
    (void)state;
    mirror_auto_json *tree = big_tree();
    uvm_auto_free char *longer = uvm_alloc(LONG_TEXT + 1);
    memset(longer, 'x', LONG_TEXT);
    json_object_set_new(tree, "license", json_string(longer));
    uvm_auto_free char *text = reprint(tree);
    assert_in_range(longest_line(text), LONG_TEXT, LONG_TEXT + 100);
}

static void test_whole_products(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_json *tree = big_tree();
    json_t *products = json_object_get(tree, "products");
    json_object_set_new(products, "other", json_deep_copy(json_object_get(products, PRODUCT_NAME)));
    UVM_AUTO(mirror_stream_free) struct mirror_stream *s = stream_of(tree), *again = NULL;
    mirror_auto_selection newest = {0};
    select_all(s, 1, &newest);
    newest.count = 1; /* the other product was not chosen */
    uvm_auto_free char *text = mirror_stream_reduce_products(s, &newest);
    newest.count = 2;
    assert_true(mirror_stream_parse(text, strlen(text), &again, &err));
    struct mirror_counts counts = mirror_stream_count(again);
    assert_int_equal(counts.products, 1);
    assert_int_equal(counts.versions, VERSIONS);
    assert_int_equal(counts.items, 2 * VERSIONS);
    assert_non_null(json_object_get(json_object_get(again->tree, "products"), PRODUCT_NAME));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_hardly_larger_than_minified),
        cmocka_unit_test(test_breaks_whatever_is_wide),
        cmocka_unit_test(test_leaves_a_long_text_alone),
        cmocka_unit_test(test_whole_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

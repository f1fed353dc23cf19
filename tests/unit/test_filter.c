/* mirror/filter.c: the grammar and meaning of simplestreams filters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/mirror.h"

/* One filter against {"key": value}; the key is missing when value is NULL. Nothing is implied for
 * "arch"; the implied others hold. */
static bool holds(const char *filter, const char *value)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *f = NULL;
    mirror_auto_json *metadata =
        json_pack("{s:s, s:s}", "ftype", "disk1.img", "datatype", "image-downloads");
    if (value)
        json_object_set_new(metadata, "key", json_string(value));
    assert_true(mirror_filters_new(&filter, 1, NULL, &f, &err));
    return mirror_filters_match(f, metadata);
}

static enum uvm_code parse_code(const char *filter)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *f = NULL;
    mirror_filters_new(&filter, 1, NULL, &f, &err);
    return err.code;
}

static void test_operators(void **state)
{
    (void)state;
    assert_true(holds("key=abc", "abc"));
    assert_false(holds("key=abc", "abcd"));
    assert_false(holds("key!=abc", "abc"));
    assert_true(holds("key!=abc", "abcd"));
    assert_true(holds("key~b", "abc"));
    assert_false(holds("key~^b", "abc"));
    assert_false(holds("key!~b", "abc"));
    assert_true(holds("key!~x", "abc"));
}

static void test_a_missing_key_is_the_empty_string(void **state)
{
    (void)state;
    assert_true(holds("key=", NULL));
    assert_true(holds("key~^$", NULL));
    assert_true(holds("key!=x", NULL));
    assert_false(holds("key~.", NULL));
    assert_false(holds("key!=", NULL));
}

/* Expected: what simplestreams' ItemFilter makes of the same text. */
static void test_grammar(void **state)
{
    (void)state;
    assert_true(holds("key  =  abc", "abc"));
    assert_true(holds("key=abc ", "abc "));
    assert_false(holds("key=abc ", "abc"));
    assert_true(holds("key==abc", "=abc"));
    assert_true(holds("key=a=b", "a=b"));
    assert_true(holds("key=abc\n", "abc"));
    assert_true(holds("key~", "anything"));
    assert_true(holds("key=", ""));
    assert_int_equal(parse_code("a|b-c_d=1"), UVM_OK);
    assert_int_equal(parse_code("k\u00e4se=1"), UVM_OK);
    assert_int_equal(parse_code("|=1"), UVM_OK);
    assert_int_equal(parse_code(""), UVM_USAGE);
    assert_int_equal(parse_code("key"), UVM_USAGE);
    assert_int_equal(parse_code("=x"), UVM_USAGE);
    assert_int_equal(parse_code(" key=x"), UVM_USAGE);
    assert_int_equal(parse_code("key<5"), UVM_USAGE);
    assert_int_equal(parse_code("key! =x"), UVM_USAGE);
    assert_int_equal(parse_code("a.b=x"), UVM_USAGE);
    assert_int_equal(parse_code("key=a\nb"), UVM_USAGE);
    assert_int_equal(parse_code("key=\xff"), UVM_USAGE);
}

static void test_regular_expressions_are_pythons(void **state)
{
    (void)state;
    assert_true(holds("key~^\\d{8}(\\.\\d+)?$", "20240605.1"));
    assert_true(holds("key~(?i)LTS", "24.04 lts"));
    assert_true(holds("key~(?P<c>.)(?P=c)", "aabc"));
    assert_true(holds("key~^(?!focal|jammy)", "noble"));
    assert_true(holds("key~^(jammy|noble)$", "noble"));
    assert_true(holds("key~^a.c$", "a\u00e4c"));
    assert_true(holds("key~^\\w+$", "k\u00e4se"));
    assert_true(holds("key~^\\d$", "\u0663"));
    assert_true(holds("key~a$", "a\n"));
    assert_false(holds("key~a.b", "a\nb"));
    assert_true(holds("key~a.b", "a\rb"));
    assert_false(holds("key~ABC", "abc"));
}

static void test_a_wrong_regular_expression_is_named(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *f = NULL;
    const char *filters[] = {"release=noble", "key~(unclosed"};
    assert_false(mirror_filters_new(filters, 2, NULL, &f, &err));
    assert_null(f);
    assert_int_equal(err.code, UVM_USAGE);
    assert_non_null(strstr(err.message, "key~(unclosed"));
    assert_int_equal(parse_code("key~*"), UVM_USAGE);
    assert_int_equal(parse_code("key~[z-a]"), UVM_USAGE);
    assert_int_equal(parse_code("key=*"), UVM_OK);
}

/* Neither form of a filter lets through what could not be decided. */
static void test_runaway_expressions_match_nothing(void **state)
{
    (void)state;
    const char *value = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!";
    assert_false(holds("key~^(a+)+$", value));
    assert_false(holds("key!~^(a+)+$", value));
    uvm_auto_free char *big = uvm_alloc(MIRROR_METADATA_MAX + 2);
    memset(big, 'a', MIRROR_METADATA_MAX + 1);
    assert_false(holds("key~a", big));
    assert_false(holds("key!~a", big));
}

static void test_implied_filters(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *f = NULL;
    const char *filters[] = {"release=noble"};
    assert_true(mirror_filters_new(filters, 1, "amd64", &f, &err));
    const struct uvm_strings *text = mirror_filters_text(f);
    assert_int_equal(text->count, 4);
    assert_string_equal(text->items[0], "arch=amd64");
    assert_string_equal(text->items[1], "ftype=disk1.img");
    assert_string_equal(text->items[2], "datatype=image-downloads");
    assert_string_equal(text->items[3], "release=noble");

    mirror_auto_json *metadata =
        json_pack("{s:s, s:s, s:s, s:s}", "arch", "amd64", "ftype", "disk1.img", "datatype",
                  "image-downloads", "release", "jammy");
    assert_true(mirror_filters_match_implied(f, metadata));
    assert_false(mirror_filters_match(f, metadata));
    json_object_set_new(metadata, "release", json_string("noble"));
    assert_true(mirror_filters_match(f, metadata));
    json_object_set_new(metadata, "arch", json_string("arm64"));
    assert_false(mirror_filters_match_implied(f, metadata));
    assert_false(mirror_filters_match(f, metadata));
}

static void test_a_filter_takes_the_place_of_an_implied_one(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *f = NULL;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *none = NULL;
    const char *filters[] = {"arch~.", "ftype!=x", "datatype=", "arch!=i386"};
    assert_true(mirror_filters_new(filters, 4, "amd64", &f, &err));
    assert_int_equal(mirror_filters_text(f)->count, 4);
    assert_string_equal(mirror_filters_text(f)->items[0], "arch~.");
    mirror_auto_json *metadata = json_pack("{s:s}", "arch", "arm64");
    assert_true(mirror_filters_match_implied(f, metadata));
    assert_true(mirror_filters_match(f, metadata));
    json_object_set_new(metadata, "arch", json_string("i386"));
    assert_false(mirror_filters_match(f, metadata));

    assert_true(mirror_filters_new(NULL, 0, NULL, &none, &err));
    assert_int_equal(mirror_filters_text(none)->count, 2);
}

static void test_values_compare_as_python_prints_them(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *f = NULL;
    const char *filters[] = {"ftype=", "datatype=", "supported=True", "n=1.5"};
    mirror_auto_json *metadata = json_pack("{s:b, s:f}", "supported", 1, "n", 1.5);
    assert_true(mirror_filters_new(filters, 4, NULL, &f, &err));
    assert_true(mirror_filters_match(f, metadata));
    json_object_set_new(metadata, "supported", json_false());
    assert_false(mirror_filters_match(f, metadata));
}

static void test_host_arch(void **state)
{
    (void)state;
    const char *arch = mirror_host_arch();
    assert_non_null(arch);
    assert_true(strlen(arch) > 0);
#ifdef __x86_64__
    assert_string_equal(arch, "amd64");
#elif defined(__aarch64__)
    assert_string_equal(arch, "arm64");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operators),
        cmocka_unit_test(test_a_missing_key_is_the_empty_string),
        cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_regular_expressions_are_pythons),
        cmocka_unit_test(test_a_wrong_regular_expression_is_named),
        cmocka_unit_test(test_runaway_expressions_match_nothing),
        cmocka_unit_test(test_implied_filters),
        cmocka_unit_test(test_a_filter_takes_the_place_of_an_implied_one),
        cmocka_unit_test(test_values_compare_as_python_prints_them),
        cmocka_unit_test(test_host_arch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

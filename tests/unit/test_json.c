/* mirror/json.c: what is JSON, and how its values read in Python. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/mirror.h"

static bool parses(const char *text, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    json_t *tree = NULL;
    bool ok = mirror_json_parse(text, len, &tree, &err);
    assert_int_equal(err.code, ok ? UVM_OK : UVM_CONTENT);
    assert_true(ok == (tree != NULL));
    assert_true(ok == (err.message == NULL));
    json_decref(tree);
    return ok;
}

#define PARSES(text) parses(text, sizeof(text) - 1)

static void test_accepts_an_object(void **state)
{
    (void)state;
    assert_true(PARSES("{}"));
    assert_true(PARSES(" \n{\"a\": [1, 2.5, true, null, {\"b\": \"\\u00e4\"}]}\n\n"));
    assert_true(PARSES("{\"a\": 9223372036854775807}"));
    assert_true(PARSES("{\"[\": \"{\\\"[,,,\"}"));
}

static void test_refuses_the_rest(void **state)
{
    (void)state;
    assert_false(PARSES(""));
    assert_false(PARSES("[]"));
    assert_false(PARSES("\"x\""));
    assert_false(PARSES("{\"a\": 1, \"a\": 1}"));
    assert_false(PARSES("{\"b\": {\"a\": 1, \"a\": 2}}"));
    assert_false(PARSES("{} {}"));
    assert_false(PARSES("{}x"));
    assert_false(PARSES("{\"a\": 1"));
    assert_false(PARSES("{'a': 1}"));
    assert_false(PARSES("{\"a\": NaN}"));
    assert_false(PARSES("{\"a\": 9223372036854775808}"));
    assert_false(PARSES("{\"a\": 1e999}"));
    assert_false(PARSES("{\"a\": \"\\u0000\"}"));
    assert_false(PARSES("{\"a\": \"x\0y\"}"));
    assert_false(PARSES("{}\0"));
    assert_false(PARSES("\xef\xbb\xbf{}"));
    assert_false(PARSES("{\"a\": \"\xff\"}"));
    assert_false(PARSES("{\"a\": \"\xc0\xaf\"}"));
    assert_false(PARSES("{\"a\": \"\xed\xa0\x80\"}"));
}

static void test_refuses_deep_nesting(void **state)
{
    (void)state;
    enum { DEPTH = 3000 };
    char text[2 * DEPTH + 8] = "{\"a\":";
    memset(text + 5, '[', DEPTH);
    memset(text + 5 + DEPTH, ']', DEPTH);
    text[5 + 2 * DEPTH] = '}';
    assert_false(parses(text, 6 + 2 * DEPTH));
    text[6 + 100] = '}';
    memset(text + 5 + 50, ']', 50);
    text[5 + 100] = '}';
    assert_true(parses(text, 6 + 100));
}

static void test_refuses_too_much(void **state)
{
    (void)state;
    size_t len = MIRROR_JSON_MAX + 1;
    uvm_auto_free char *text = uvm_alloc(len);
    memset(text, ' ', len);
    memcpy(text, "{}", 2);
    assert_true(parses(text, len - 1));
    assert_false(parses(text, len));

    /* 16 MiB of empty objects would be gigabytes in memory. */
    len = MIRROR_JSON_MAX / 2;
    memcpy(text, "{\"a\":[", 6);
    for (size_t i = 6; i < len; i += 3)
        memcpy(text + i, "{},", 3);
    assert_false(parses(text, len));
}

/* A size limit must not be passed by hiding structure behind quotes that are none. */
static void test_counts_values_outside_strings_only(void **state)
{
    (void)state;
    size_t len = MIRROR_JSON_MAX / 2;
    uvm_auto_free char *text = uvm_alloc(len);
    memset(text, ',', len);
    memcpy(text, "{\"a\":\"\\\"", 8);
    memcpy(text + len - 2, "\"}", 2);
    assert_true(parses(text, len));
}

static void check_str(const char *json, const char *expected)
{
    mirror_auto_json *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    uvm_auto_free char *text = mirror_json_str(value);
    if (expected)
        assert_string_equal(text, expected);
    else
        assert_null(text);
}

static void test_scalars_read_as_in_python(void **state)
{
    (void)state;
    check_str("true", "True");
    check_str("false", "False");
    check_str("\"true\"", "true");
    check_str("\"\"", "");
    check_str("0", "0");
    check_str("-0", "0");
    check_str("-9223372036854775808", "-9223372036854775808");
    check_str("null", NULL);
    check_str("[]", NULL);
    check_str("{\"a\": 1}", NULL);
    assert_null(mirror_json_str(NULL));
}

/* Expected: what python3's str(json.loads(...)) prints. */
static void test_floats_read_as_in_python(void **state)
{
    static const char *const pairs[][2] = {
        {"0.0", "0.0"},
        {"-0.0", "-0.0"},
        {"1.0", "1.0"},
        {"1.5", "1.5"},
        {"0.1", "0.1"},
        {"-12.04", "-12.04"},
        {"1e3", "1000.0"},
        {"24.04", "24.04"},
        {"100000.0", "100000.0"},
        {"0.0001", "0.0001"},
        {"0.00012345", "0.00012345"},
        {"0.00001", "1e-05"},
        {"0.000015", "1.5e-05"},
        {"1e15", "1000000000000000.0"},
        {"9999999999999998.0", "9999999999999998.0"},
        {"1e16", "1e+16"},
        {"12345678901234567.0", "1.2345678901234568e+16"},
        {"1.5e300", "1.5e+300"},
        {"-2.5e-7", "-2.5e-07"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"5.684341886080802e-14", "5.684341886080802e-14"},
        {"9007199254740993.0", "9007199254740992.0"},
        {"5e-324", "5e-324"},
        {"2.2250738585072014e-308", "2.2250738585072014e-308"},
        {"1.7976931348623157e308", "1.7976931348623157e+308"},
        {"99.99999999999999", "99.99999999999999"},
        {"9.5367431640625e-07", "9.5367431640625e-07"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        check_str(pairs[i][0], pairs[i][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts_an_object),
        cmocka_unit_test(test_refuses_the_rest),
        cmocka_unit_test(test_refuses_deep_nesting),
        cmocka_unit_test(test_refuses_too_much),
        cmocka_unit_test(test_counts_values_outside_strings_only),
        cmocka_unit_test(test_scalars_read_as_in_python),
        cmocka_unit_test(test_floats_read_as_in_python),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

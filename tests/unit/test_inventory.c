/* test_inventory.c: what receivers have, and what a bundle need not carry for it. */
#include "bundle/bundle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define A   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B   "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C   "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define KEY "4A3C4A3C4A3C4A3C4A3C4A3C4A3C4A3C4A3CF100"

/* ---- texts ----------------------------------------------------------------------------------- */

/* An inventory with the fields of the format changed or, by null, taken away. */
static char *text_with(const char *changes)
{
    mirror_auto_json *root = json_pack(
        "{s:s, s:i, s:s, s:s, s:s, s:i, s:i, s:i, s:[s], s:[{s:s, s:s, s:s, s:n}]}", "type",
        BUNDLE_INVENTORY_TYPE, "version", 1, "host", "hv1", "created", "2026-11-22T09:30:00Z",
        "architecture", "amd64", "bundle_format", 2, "free_bytes", 1000, "serial", 7, "trusted",
        KEY, "images", "product", "noble", "version", "1", "sha256", A, "sha512");
    mirror_auto_json *change = json_loads(changes, 0, NULL);
    assert_non_null(change);
    json_object_update(root, change);
    return json_dumps(root, 0);
}

static enum uvm_code parse(const char *text, struct bundle_inventory *ret)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    return bundle_inventory_parse(text, strlen(text), ret, &err) ? UVM_OK : err.code;
}

static void comes_back_as_it_was_written(void **state)
{
    (void)state;
    struct bundle_inventory first = {0}, second = {0};
    uvm_auto_free char *text = text_with("{}");
    assert_int_equal(parse(text, &first), UVM_OK);
    assert_string_equal(first.host, "hv1");
    assert_int_equal(first.format, 2);
    assert_int_equal(first.serial, 7);
    assert_string_equal(first.trusted.items[0], KEY);
    assert_int_equal(first.stock_count, 1);
    assert_string_equal(first.stock[0].sha256, A);
    assert_null(first.stock[0].sha512);
    uvm_auto_free char *written = bundle_inventory_text(&first);
    assert_int_equal(parse(written, &second), UVM_OK);
    uvm_auto_free char *again = bundle_inventory_text(&second);
    assert_string_equal(written, again);
    bundle_inventory_clear(&first);
    bundle_inventory_clear(&second);
}

static void refuses_what_is_wrong(void **state)
{
    (void)state;
    static const char *const changes[] = {
        "{\"type\": \"other\"}",
        "{\"version\": 2}",
        "{\"version\": \"1\"}",
        "{\"host\": \"a\\nb\"}",
        "{\"host\": 1}",
        "{\"created\": \"2026-11-22\"}",
        "{\"architecture\": \"\"}",
        "{\"architecture\": \"a b\"}",
        "{\"bundle_format\": 0}",
        "{\"free_bytes\": -1}",
        "{\"serial\": -1}",
        "{\"trusted\": [\"me\"]}",
        "{\"trusted\": 1}",
        "{\"images\": {}}",
        "{\"images\": [1]}",
        "{\"images\": [{\"product\": \"p\", \"version\": \"1\", \"sha256\": \"A\", \"sha512\": "
        "null}]}",
        "{\"images\": [{\"product\": \"p q\", \"version\": \"1\", \"sha256\": null, \"sha512\": "
        "null}]}",
        "{\"images\": [{\"product\": \"p\", \"sha256\": null, \"sha512\": null}]}",
        "{\"images\": [{\"product\": \"p\", \"version\": \"1\", \"sha256\": null}]}",
        "{\"images\": [{\"product\": \"p\", \"version\": \"1\", \"sha256\": null, \"sha512\": "
        "null},"
        "             {\"product\": \"p\", \"version\": \"1\", \"sha256\": null, \"sha512\": "
        "null}]}",
    };
    struct bundle_inventory i = {0};
    for (size_t n = 0; n < sizeof changes / sizeof *changes; n++) {
        uvm_auto_free char *text = text_with(changes[n]);
        assert_int_equal(parse(text, &i), UVM_CONTENT);
    }
    assert_int_equal(parse("", &i), UVM_CONTENT);
    assert_int_equal(parse("[]", &i), UVM_CONTENT);
}

static void takes_fields_that_it_does_not_know(void **state)
{
    (void)state;
    struct bundle_inventory i = {0};
    uvm_auto_free char *text = text_with("{\"colour\": \"blue\"}");
    assert_int_equal(parse(text, &i), UVM_OK);
    bundle_inventory_clear(&i);
}

/* ---- choices --------------------------------------------------------------------------------- */

/* Up to three receivers, each with versions of one product: "1a 2b" has version 1 with checksum A. */
static struct bundle_have receivers(const char *arch, const char *one, const char *two,
                                    const char *three)
{
    const char *const all[] = {one, two, three};
    struct bundle_have h = {.inventories = calloc(3, sizeof(struct bundle_inventory))};
    assert_non_null(h.inventories);
    for (size_t n = 0; n < 3 && all[n]; n++) {
        mirror_auto_json *images = json_array();
        for (const char *at = all[n]; *at; at += at[2] ? 3 : 2) {
            const char *sum = at[1] == 'a' ? A : at[1] == 'b' ? B : at[1] == 'c' ? C : NULL;
            json_array_append_new(images,
                                  json_pack("{s:s, s:s%, s:s?, s:n}", "product", "noble", "version",
                                            at, (size_t)1, "sha256", sum, "sha512"));
        }
        mirror_auto_json *change = json_pack("{s:s, s:O}", "architecture", arch, "images", images);
        uvm_auto_free char *changes = json_dumps(change, 0);
        uvm_auto_free char *text = text_with(changes);
        assert_int_equal(parse(text, &h.inventories[h.count++]), UVM_OK);
    }
    return h;
}

static struct mirror_image image(const char *version, const char *sha256)
{
    return (struct mirror_image){.product = uvm_strdup("noble"),
                                 .version = uvm_strdup(version),
                                 .sha256 = uvm_strdup(sha256),
                                 .metadata = json_pack("{s:s}", "arch", "amd64")};
}

static bool everywhere(const char *arch, const char *one, const char *two, const char *three)
{
    struct bundle_have h = receivers(arch, one, two, three);
    struct mirror_image wanted = image("2", B);
    bool result = bundle_have_everywhere(&h, &wanted);
    mirror_image_clear(&wanted);
    bundle_have_clear(&h);
    return result;
}

static void what_all_have_is_everywhere(void **state)
{
    (void)state;
    assert_true(everywhere("amd64", "2b", "1a 2b", "2b"));
    assert_false(everywhere("amd64", "2b", "1a", "2b"));
    assert_false(everywhere("amd64", "2b", "2c", NULL)); /* another file of that name */
    assert_false(everywhere("amd64", "2-", NULL, NULL)); /* who knows what it is */
    assert_false(everywhere("arm64", "2b", NULL, NULL)); /* nobody it is for */
    assert_false(everywhere("amd64", NULL, NULL, NULL));
}

static bool knows(void *opaque, const struct bundle_stock *stock)
{
    const char *const *unknown = opaque;
    return !*unknown || strcmp(stock->version, *unknown) != 0;
}

static void base_is(const char *expected, const char *unknown, const char *one, const char *two,
                    const char *three)
{
    struct bundle_have h = receivers("amd64", one, two, three);
    struct mirror_image wanted = image("9", C);
    const struct bundle_stock *base = bundle_have_base(&h, &wanted, knows, &unknown);
    assert_int_equal(base != NULL, expected != NULL);
    if (expected)
        assert_string_equal(base->version, expected);
    mirror_image_clear(&wanted);
    bundle_have_clear(&h);
}

static void the_newest_that_those_have_who_lack_it(void **state)
{
    (void)state;
    base_is("2", NULL, "1a 2b", NULL, NULL);
    base_is("1", NULL, "1a 2b", "1a", NULL);
    base_is("1", NULL, "1a 2b", "1a 2c", NULL); /* their version 2 differ */
    base_is("2", NULL, "1a 2b", "1a 9c", NULL); /* the other one needs nothing */
    base_is("1", "2", "1a 2b", NULL, NULL);     /* version 2 is not known to the mirror */
    base_is(NULL, NULL, "1a", "2b", NULL);
    base_is(NULL, NULL, "1-", NULL, NULL);
    base_is(NULL, NULL, "9c", NULL, NULL);
    base_is("1", NULL, "1a 9b", NULL, NULL); /* has another file under that version */
    base_is(NULL, NULL, NULL, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_as_it_was_written),
        cmocka_unit_test(refuses_what_is_wrong),
        cmocka_unit_test(takes_fields_that_it_does_not_know),
        cmocka_unit_test(what_all_have_is_everywhere),
        cmocka_unit_test(the_newest_that_those_have_who_lack_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

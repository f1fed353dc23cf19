/* mirror/select.c, clash.c, reduce.c: what is taken from a stream, and what is published of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/mirror.h"

#define SHA_A "983b7be9dd1ed8c0b3118e309cdd2b2869b74ddcbb3e4c6c4c77e28e0a7b5e59"
#define SHA_B "083b7be9dd1ed8c0b3118e309cdd2b2869b74ddcbb3e4c6c4c77e28e0a7b5e59"

#define auto_stream  UVM_AUTO(mirror_stream_free) struct mirror_stream
#define auto_filters UVM_AUTO(mirror_filters_free) struct mirror_filters

/* ---- streams made for a test ----------------------------------------------------------------- */

static json_t *new_tree(void)
{
    return json_pack("{s:s, s:s, s:s, s:{}}", "content_id", "test:download", "datatype",
                     "image-downloads", "format", "products:1.0", "products");
}

static json_t *member(json_t *node, const char *key)
{
    if (!json_object_get(node, key))
        json_object_set_new(node, key, json_object());
    return json_object_get(node, key);
}

/* Adds an item at a path of its own; borrowed. */
static json_t *add_item(json_t *tree, const char *product, const char *version, const char *item)
{
    json_t *p = member(json_object_get(tree, "products"), product);
    json_object_set_new(p, "arch", json_string("amd64"));
    json_t *node = member(member(member(member(p, "versions"), version), "items"), item);
    uvm_auto_free char *path = uvm_format("images/%s/%s/%s", product, version, item);
    json_object_set_new(node, "ftype", json_string(item));
    json_object_set_new(node, "path", json_string(path));
    json_object_set_new(node, "size", json_integer(11));
    json_object_set_new(node, "sha256", json_string(SHA_A));
    return node;
}

static json_t *add_at(json_t *tree, const char *version, const char *path, int size,
                      const char *sha256)
{
    json_t *node = add_item(tree, "p", version, "disk1.img");
    json_object_set_new(node, "path", json_string(path));
    json_object_set_new(node, "size", json_integer(size));
    json_object_set_new(node, "sha256", json_string(sha256));
    return node;
}

static struct mirror_stream *stream_of(json_t *tree)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_stream *s = NULL;
    uvm_auto_free char *text = json_dumps(tree, 0);
    if (!mirror_stream_parse(text, strlen(text), &s, &err))
        fail_msg("%s", err.message);
    return s;
}

/* Selects with up to two filters; the code of the error, if there is one. */
static enum uvm_code select_code(json_t *tree, const char *one, const char *two, unsigned max,
                                 struct mirror_selection *ret)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_filters *f = NULL;
    auto_stream *s = stream_of(tree);
    const char *filters[] = {one, two};
    assert_true(mirror_filters_new(filters, !!one + (one && two), "amd64", &f, &err));
    bool ok = mirror_stream_select(s, f, max, ret, &err);
    assert_true(ok == (err.code == UVM_OK));
    assert_true(ok || ret->count == 0);
    return err.code;
}

static void select_ok(json_t *tree, const char *one, const char *two, unsigned max,
                      struct mirror_selection *ret)
{
    assert_int_equal(select_code(tree, one, two, max, ret), UVM_OK);
}

static enum uvm_code code_of(json_t *tree)
{
    mirror_auto_selection selection = {0};
    return select_code(tree, NULL, NULL, 0, &selection);
}

/* "version/item version/item" of a product's images. */
static char *images_text(const struct mirror_product *p)
{
    char *text = uvm_strdup("");
    for (size_t i = 0; i < p->image_count; i++) {
        char *longer =
            uvm_format("%s%s%s/%s", text, i ? " " : "", p->images[i].version, p->images[i].item);
        free(text);
        text = longer;
    }
    return text;
}

static void check_images(const struct mirror_product *p, const char *expected)
{
    uvm_auto_free char *text = images_text(p);
    assert_string_equal(text, expected);
}

static void check_versions(const struct mirror_product *p, bool complete, size_t count,
                           const char *newest)
{
    assert_int_equal(p->complete, complete);
    assert_int_equal(p->versions.count, count);
    if (count)
        assert_string_equal(p->versions.items[0], newest);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static void test_takes_the_newest_by_code_point(void **state)
{
    (void)state;
    mirror_auto_json *tree = new_tree();
    mirror_auto_selection one = {0};
    mirror_auto_selection three = {0};
    mirror_auto_selection all = {0};
    add_item(tree, "q", "20240605", "disk1.img");
    add_item(tree, "q", "20240128_01", "disk1.img");
    add_item(tree, "q", "current", "disk1.img");
    add_item(tree, "q", "20240605.1", "disk1.img");
    add_item(tree, "p", "1", "disk1.img");
    select_ok(tree, NULL, NULL, 1, &one);
    assert_int_equal(one.count, 2);
    assert_string_equal(one.products[0].name, "q"); /* in the stream's order */
    assert_string_equal(one.products[1].name, "p");
    check_images(&one.products[0], "current/disk1.img");
    check_versions(&one.products[0], true, 4, "current");
    assert_string_equal(one.products[0].versions.items[3], "20240128_01");
    select_ok(tree, NULL, NULL, 3, &three);
    check_images(&three.products[0], "current/disk1.img 20240605.1/disk1.img 20240605/disk1.img");
    select_ok(tree, NULL, NULL, 0, &all);
    assert_int_equal(all.products[0].image_count, 4);
}

static void test_versions_compare_by_code_point(void **state)
{
    (void)state;
    assert_true(mirror_version_compare("20240605", "20240605.1") < 0);
    assert_true(mirror_version_compare("9", "10") > 0);
    assert_true(mirror_version_compare("a", "Z") > 0);
    assert_true(mirror_version_compare("\uffee", "\U0001f600") < 0); /* UTF-16 would differ */
    assert_int_equal(mirror_version_compare("x", "x"), 0);
}

static void test_max_counts_versions_that_still_match(void **state)
{
    (void)state;
    mirror_auto_json *tree = new_tree();
    mirror_auto_selection selection = {0};
    add_item(tree, "p", "3", "tar.gz");
    add_item(tree, "p", "2", "disk1.img");
    add_item(tree, "p", "1", "disk1.img");
    member(member(member(member(tree, "products"), "p"), "versions"), "4");
    select_ok(tree, NULL, NULL, 1, &selection);
    check_images(&selection.products[0], "2/disk1.img");
    check_versions(&selection.products[0], true, 2, "2");
}

static void test_items_come_in_the_streams_order(void **state)
{
    (void)state;
    mirror_auto_json *tree = new_tree();
    mirror_auto_selection selection = {0};
    add_item(tree, "p", "1", "zz");
    add_item(tree, "p", "1", "disk1.img");
    add_item(tree, "p", "1", "aa");
    select_ok(tree, "ftype~.", NULL, 1, &selection);
    check_images(&selection.products[0], "1/zz 1/disk1.img 1/aa");
    check_versions(&selection.products[0], true, 1, "1");
}

static void test_nothing_matches(void **state)
{
    (void)state;
    mirror_auto_json *tree = new_tree();
    mirror_auto_selection selection = {0};
    add_item(tree, "p", "1", "disk1.img");
    select_ok(tree, "release=none", NULL, 1, &selection);
    assert_int_equal(selection.count, 0);
}

static void test_odd_nodes_are_skipped(void **state)
{
    (void)state;
    mirror_auto_json *tree = new_tree();
    mirror_auto_selection selection = {0};
    add_item(tree, "p", "1", "disk1.img");
    json_t *versions = member(member(member(tree, "products"), "p"), "versions");
    json_object_set_new(versions, "7", json_string("x"));
    json_object_set_new(versions, "8", json_pack("{s:[]}", "items"));
    json_object_set_new(versions, "9", json_pack("{s:{s:n}}", "items", "disk1.img"));
    json_object_set_new(member(member(tree, "products"), "q"), "versions", json_array());
    select_ok(tree, NULL, NULL, 0, &selection);
    assert_int_equal(selection.count, 1);
    check_images(&selection.products[0], "1/disk1.img");
    check_versions(&selection.products[0], true, 1, "1");
}

/* ---- completeness ---------------------------------------------------------------------------- */

static json_t *two_versions(void)
{
    json_t *tree = new_tree();
    add_item(tree, "p", "2", "disk1.img");
    add_item(tree, "p", "2", "root.tar.gz");
    add_item(tree, "p", "1", "disk1.img");
    return tree;
}

static void check_complete(const char *one, const char *two, bool complete, size_t versions)
{
    mirror_auto_json *tree = two_versions();
    mirror_auto_selection selection = {0};
    select_ok(tree, one, two, 1, &selection);
    assert_int_equal(selection.count, 1);
    check_versions(&selection.products[0], complete, versions, "2");
}

static void test_a_filter_that_hides_a_version_makes_a_product_incomplete(void **state)
{
    (void)state;
    check_complete(NULL, NULL, true, 2);
    check_complete("version_name=2", NULL, false, 2);
    check_complete("version_name=1", NULL, false, 2);
    check_complete("path~/2/", NULL, false, 2);
}

static void test_a_filter_that_hides_nothing_does_not(void **state)
{
    (void)state;
    check_complete("arch=amd64", NULL, true, 2);
    check_complete("product_name=p", NULL, true, 2);
    check_complete("version_name~^[12]$", NULL, true, 2);
    check_complete("ftype~.", NULL, true, 2);
}

static void test_other_items_say_nothing_of_the_importable_ones(void **state)
{
    (void)state;
    check_complete("ftype=root.tar.gz", NULL, false, 2);
    check_complete("item_name=root.tar.gz", "ftype~.", false, 2);
    mirror_auto_json *tree = new_tree();
    mirror_auto_selection selection = {0};
    add_item(tree, "p", "1", "root.tar.gz");
    select_ok(tree, "ftype=root.tar.gz", NULL, 1, &selection);
    check_images(&selection.products[0], "1/root.tar.gz");
    check_versions(&selection.products[0], false, 0, NULL);
}

static void test_unsound_items_that_nobody_chose(void **state)
{
    (void)state;
    mirror_auto_json *tree = two_versions();
    mirror_auto_selection older = {0};
    mirror_auto_selection hidden = {0};
    mirror_auto_selection chosen = {0};
    json_object_del(add_item(tree, "p", "1", "disk1.img"), "sha256");
    select_ok(tree, NULL, NULL, 1, &older); /* --max leaves it out */
    check_versions(&older.products[0], true, 2, "2");
    select_ok(tree, "version_name=2", NULL, 0, &hidden);
    check_versions(&hidden.products[0], false, 2, "2");
    assert_int_equal(select_code(tree, NULL, NULL, 2, &chosen), UVM_CONTENT);
}

static void test_a_version_that_cannot_be_listed_is_a_gap(void **state)
{
    (void)state;
    mirror_auto_json *tree = two_versions();
    mirror_auto_selection selection = {0};
    add_item(tree, "p", "0 x", "disk1.img");
    select_ok(tree, NULL, NULL, 1, &selection);
    check_images(&selection.products[0], "2/disk1.img");
    check_versions(&selection.products[0], false, 2, "2");
}

/* ---- paths ----------------------------------------------------------------------------------- */

static void test_unsound_paths_are_refused(void **state)
{
    static const char *const bad[] = {"../x", "/x",        "streams/v1/x", "uvmirror/serial",
                                      "a\\b", "http://x/y"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mirror_auto_json *tree = new_tree();
        add_at(tree, "1", bad[i], 1, SHA_A);
        assert_int_equal(code_of(tree), UVM_CONTENT);
    }
}

static enum uvm_code code_of_two(const char *path, int size, const char *sha256)
{
    mirror_auto_json *tree = new_tree();
    add_at(tree, "1", "a/b", 1, SHA_A);
    add_at(tree, "2", path, size, sha256);
    return code_of(tree);
}

static void test_one_path_has_one_content(void **state)
{
    (void)state;
    assert_int_equal(code_of_two("a/b", 1, SHA_A), UVM_OK);
    assert_int_equal(code_of_two("a/b", 1, SHA_B), UVM_CONTENT);
    assert_int_equal(code_of_two("a/b", 2, SHA_A), UVM_CONTENT);
    assert_int_equal(code_of_two("a/c", 2, SHA_B), UVM_OK);
}

/* Three speak of one path; the first and the last have no checksum of one kind. */
static void test_contents_are_compared_across_kinds(void **state)
{
    (void)state;
    mirror_auto_json *tree = new_tree();
    add_at(tree, "1", "a", 1, SHA_A);
    json_object_set_new(add_at(tree, "2", "a", 1, SHA_A), "sha512", json_string(SHA_A SHA_A));
    assert_int_equal(code_of(tree), UVM_OK);
    json_t *last = add_at(tree, "3", "a", 1, SHA_A);
    json_object_set_new(last, "sha512", json_string(SHA_B SHA_B));
    assert_int_equal(code_of(tree), UVM_CONTENT);
}

static void test_incomparable_contents_are_refused(void **state)
{
    (void)state;
    mirror_auto_json *tree = new_tree();
    add_at(tree, "1", "a", 1, SHA_A);
    json_t *other = add_at(tree, "2", "a", 1, SHA_A);
    json_object_del(other, "sha256");
    json_object_set_new(other, "sha512", json_string(SHA_A SHA_A));
    assert_int_equal(code_of(tree), UVM_CONTENT);
}

static enum uvm_code code_of_paths(const char *a, const char *b, const char *c)
{
    mirror_auto_json *tree = new_tree();
    add_at(tree, "1", a, 1, SHA_A);
    add_at(tree, "2", b, 1, SHA_A);
    add_at(tree, "3", c, 1, SHA_A);
    return code_of(tree);
}

static void test_no_path_is_the_folder_of_another(void **state)
{
    (void)state;
    assert_int_equal(code_of_paths("a", "b", "a/c"), UVM_CONTENT);
    assert_int_equal(code_of_paths("a/b/c/d", "x", "a/b"), UVM_CONTENT);
    /* These stand between the two in the order of bytes. */
    assert_int_equal(code_of_paths("a", "a-b", "a/c"), UVM_CONTENT);
    assert_int_equal(code_of_paths("a", "a b", "a/c"), UVM_CONTENT);
    assert_int_equal(code_of_paths("a/x", "a!/c", "a"), UVM_CONTENT);
    assert_int_equal(code_of_paths("a", "a-b", "ab/c"), UVM_OK);
    assert_int_equal(code_of_paths("a/b", "a/c", "ab"), UVM_OK);
    assert_int_equal(code_of_paths("a-/b", "a", "a.b/a"), UVM_OK);
}

static void test_clashes_across_streams(void **state)
{
    (void)state;
    mirror_auto_json *one = new_tree();
    mirror_auto_json *two = new_tree();
    struct mirror_selection selections[2] = {0};
    struct uvm_error err = UVM_ERROR_INIT;
    add_at(one, "1", "a/b", 1, SHA_A);
    add_at(two, "1", "a", 1, SHA_A);
    select_ok(one, NULL, NULL, 1, &selections[0]);
    select_ok(two, NULL, NULL, 1, &selections[1]);
    assert_true(mirror_selections_check(selections, 1, &err));
    assert_true(mirror_selections_check(selections + 1, 1, &err));
    assert_true(mirror_selections_check(NULL, 0, &err));
    assert_false(mirror_selections_check(selections, 2, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    uvm_error_clear(&err);
    mirror_selection_clear(&selections[0]);
    mirror_selection_clear(&selections[1]);
}

/* ---- published ------------------------------------------------------------------------------- */

static void test_reduces_to_the_selection(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_filters *f = NULL;
    const char *filters[] = {"product_name=p"};
    mirror_auto_json *tree = two_versions();
    mirror_auto_selection selection = {0};
    add_item(tree, "q", "1", "disk1.img");
    json_object_set_new(member(tree, "_aliases"), "arch",
                        json_pack("{s:{s:s}}", "amd64", "bits", "64"));
    json_object_set_new(tree, "license", json_string("free"));
    json_t *product = json_object_get(json_object_get(tree, "products"), "p");
    json_object_set_new(product, "requirements", json_pack("{s:s}", "secureboot", "false"));
    auto_stream *s = stream_of(tree);
    assert_true(mirror_filters_new(filters, 1, "amd64", &f, &err));
    assert_true(mirror_stream_select(s, f, 1, &selection, &err));

    uvm_auto_free char *text = mirror_stream_reduce(s, &selection);
    uvm_auto_free char *again = mirror_stream_reduce(s, &selection);
    assert_string_equal(text, again);
    assert_int_equal(text[strlen(text) - 1], '\n');
    auto_stream *reduced = NULL;
    assert_true(mirror_stream_parse(text, strlen(text), &reduced, &err));
    struct mirror_counts counts = mirror_stream_count(reduced);
    assert_int_equal(counts.products, 1);
    assert_int_equal(counts.versions, 1);
    assert_int_equal(counts.items, 1);
    assert_int_equal(mirror_stream_count(s).items, 4); /* the stream itself is untouched */
    assert_non_null(strstr(text, "secureboot"));
}

static void test_flattened_metadata_survive_reduction(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_filters *f = NULL;
    mirror_auto_json *tree = two_versions();
    mirror_auto_selection selection = {0};
    json_object_set_new(tree, "_aliases", json_pack("{s:{s:{s:f}}}", "arch", "amd64", "x", 0.1));
    auto_stream *s = stream_of(tree);
    assert_true(mirror_filters_new(NULL, 0, "amd64", &f, &err));
    assert_true(mirror_stream_select(s, f, 1, &selection, &err));
    uvm_auto_free char *text = mirror_stream_reduce(s, &selection);
    auto_stream *reduced = NULL;
    assert_true(mirror_stream_parse(text, strlen(text), &reduced, &err));
    mirror_auto_json *one = mirror_stream_flatten(s, "p", "2", "disk1.img");
    mirror_auto_json *two = mirror_stream_flatten(reduced, "p", "2", "disk1.img");
    uvm_auto_free char *before = json_dumps(one, 0);
    uvm_auto_free char *after = json_dumps(two, 0);
    assert_non_null(strstr(before, "\"x\": \"0.1\""));
    assert_string_equal(before, after); /* in the same order, too */
}

static void test_index(void **state)
{
    (void)state;
    mirror_auto_json *tree = two_versions();
    mirror_auto_selection selection = {0};
    json_object_set_new(tree, "updated", json_string("Sat, 04 May 2013 01:58:57 +0000"));
    auto_stream *s = stream_of(tree);
    select_ok(tree, NULL, NULL, 1, &selection);
    const struct mirror_stream *const streams[] = {s};
    uvm_auto_free char *text = mirror_index_text(streams, &selection, 1, ".sjson", 1728034200);
    assert_string_equal(text, "{\n"
                              " \"format\": \"index:1.0\",\n"
                              " \"index\": {\n"
                              "  \"test:download\": {\n"
                              "   \"datatype\": \"image-downloads\",\n"
                              "   \"format\": \"products:1.0\",\n"
                              "   \"path\": \"streams/v1/test:download.sjson\",\n"
                              "   \"products\": [\n"
                              "    \"p\"\n"
                              "   ],\n"
                              "   \"updated\": \"Sat, 04 May 2013 01:58:57 +0000\"\n"
                              "  }\n"
                              " },\n"
                              " \"updated\": \"Fri, 04 Oct 2024 09:30:00 +0000\"\n"
                              "}\n");
}

/* ---- Ubuntu's stream, against simplestreams -------------------------------------------------- */

/* What simplestreams' mirror writer takes for the same filters and max_items: how many items, and the
 * first digits of the SHA-256 of "product version item\n", sorted. */
static const struct {
    const char *filters[2];
    const char *arch;
    unsigned max;
    size_t count;
    const char *digest;
} expected[] = {
    {{NULL}, "amd64", 1, 8, "3d29b4282905a05c"},
    {{NULL}, "amd64", 0, 20, "5bc52c6e66044bfd"},
    {{NULL}, NULL, 1, 14, "dfafd037721b9306"},
    {{NULL}, NULL, 3, 18, "b4852b0dff6cef51"},
    {{"release=noble"}, "amd64", 1, 1, "05abdaf58650b35b"},
    {{"release=noble"}, NULL, 0, 13, "487b61145d539e41"},
    {{"release~^(jammy|noble|focal)$"}, "amd64", 2, 2, "85fa2c0ea5b034b8"},
    {{"release~^(jammy|noble)$", "arch~."}, "amd64", 1, 1, "05abdaf58650b35b"},
    {{"supported=True"}, "amd64", 1, 2, "993bed235e6cadeb"},
    {{"supported!=True"}, "amd64", 1, 6, "49b509b11ed0dc37"},
    {{"supported=true"}, "amd64", 1, 0, "e3b0c44298fc1c14"},
    {{"version~^2"}, "amd64", 0, 15, "984bbd5ab00fb403"},
    {{"version_name~^2024"}, "amd64", 0, 14, "9ad64bbcd6c05d6c"},
    {{"ftype=manifest"}, "amd64", 1, 9, "0533b332a9e8b497"},
    {{"ftype~(tar|root)", "arch=amd64"}, "amd64", 2, 29, "6a10f702b31d1ff3"},
    {{"ftype!~img", "arch~64"}, "amd64", 1, 51, "f6c8ee60667098e9"},
    {{"ftype~."}, "amd64", 0, 204, "3d263e113052b37f"},
    {{"label=release", "release!~^(lucid|precise)$"}, "amd64", 1, 7, "0a8312a17762119c"},
    {{"nosuch="}, "amd64", 1, 8, "3d29b4282905a05c"},
    {{"nosuch~^$"}, "amd64", 1, 8, "3d29b4282905a05c"},
    {{"nosuch=x"}, "amd64", 1, 0, "e3b0c44298fc1c14"},
    {{"nosuch!=x"}, "amd64", 1, 8, "3d29b4282905a05c"},
    {{"aliases~(^|,)default(,|$)"}, "amd64", 1, 1, "05abdaf58650b35b"},
    {{"arch  =  arm64"}, "amd64", 1, 0, "e3b0c44298fc1c14"},
    {{"arch=amd64 "}, "amd64", 1, 0, "e3b0c44298fc1c14"},
    {{"release_title~LTS$"}, "amd64", 1, 2, "f7edcb5aa2084660"},
    {{"pubname~-\\d{8}(\\.\\d+)?$"}, "amd64", 1, 8, "3d29b4282905a05c"},
    {{"size~^\\d{9}$"}, "amd64", 2, 9, "0fb48c2f4972ed9b"},
    {{"sha256~^[0-7]"}, "amd64", 1, 4, "ed25fe053fe83e07"},
    {{"item_name~kvm", "ftype~kvm"}, "amd64", 1, 2, "54bad3de62399218"},
    {{"release~(?i)NOBLE"}, "amd64", 1, 1, "05abdaf58650b35b"},
    {{"product_name~(?P<a>\\d)\\d\\.(?=04)"}, "amd64", 1, 4, "61ca38b013855e65"},
    {{"datatype=none"}, "amd64", 1, 0, "e3b0c44298fc1c14"},
    {{"support_eol~^20(2[5-9]|3)"}, "amd64", 1, 1, "05abdaf58650b35b"},
    {{"os=ubuntu", "release~l"}, "arm64", 1, 0, "e3b0c44298fc1c14"},
};

static int by_text(const void *a, const void *b)
{
    const char *const *sa = a, *const *sb = b;
    return strcmp(*sa, *sb);
}

static void digest_selection(const struct mirror_selection *s, size_t *ret_count,
                             char hex[UVM_DIGEST_HEX_MAX])
{
    uvm_auto_strings lines = {0};
    for (size_t i = 0; i < s->count; i++)
        for (size_t j = 0; j < s->products[i].image_count; j++) {
            const struct mirror_image *image = &s->products[i].images[j];
            uvm_auto_free char *line =
                uvm_format("%s %s %s\n", image->product, image->version, image->item);
            uvm_strings_add(&lines, line);
        }
    struct uvm_digest *digest = uvm_digest_new(UVM_SHA256);
    if (lines.count)
        qsort(lines.items, lines.count, sizeof *lines.items, by_text);
    for (size_t i = 0; i < lines.count; i++)
        uvm_digest_update(digest, lines.items[i], strlen(lines.items[i]));
    uvm_digest_finish(digest, hex);
    uvm_digest_free(digest);
    *ret_count = lines.count;
}

/* NULL when the fixtures are not there. */
static struct mirror_stream *ubuntu(void)
{
    const char *dir = getenv("UVM_FIXTURES");
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0};
    struct mirror_stream *s = NULL;
    uvm_auto_free char *path =
        uvm_format("%s/ubuntu-released/com.ubuntu.cloud:released:download.json", dir ? dir : ".");
    if (!dir || !uvm_file_read(path, MIRROR_JSON_MAX, &text, &err))
        return NULL;
    assert_true(mirror_stream_parse(text.data, text.len, &s, &err));
    return s;
}

static void test_selects_what_simplestreams_selects(void **state)
{
    (void)state;
    auto_stream *s = ubuntu();
    if (!s)
        skip();
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const char *const *filters = expected[i].filters;
        uvm_auto_error err = UVM_ERROR_INIT;
        auto_filters *f = NULL;
        mirror_auto_selection selection = {0};
        char hex[UVM_DIGEST_HEX_MAX];
        size_t count;
        assert_true(
            mirror_filters_new(filters, !!filters[0] + !!filters[1], expected[i].arch, &f, &err));
        if (!mirror_stream_select(s, f, expected[i].max, &selection, &err))
            fail_msg("row %zu: %s", i, err.message);
        digest_selection(&selection, &count, hex);
        hex[strlen(expected[i].digest)] = 0;
        if (count != expected[i].count || strcmp(hex, expected[i].digest) != 0)
            fail_msg("row %zu (%s): %zu items, %s", i, filters[0] ? filters[0] : "", count, hex);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_the_newest_by_code_point),
        cmocka_unit_test(test_versions_compare_by_code_point),
        cmocka_unit_test(test_max_counts_versions_that_still_match),
        cmocka_unit_test(test_items_come_in_the_streams_order),
        cmocka_unit_test(test_nothing_matches),
        cmocka_unit_test(test_odd_nodes_are_skipped),
        cmocka_unit_test(test_a_filter_that_hides_a_version_makes_a_product_incomplete),
        cmocka_unit_test(test_a_filter_that_hides_nothing_does_not),
        cmocka_unit_test(test_other_items_say_nothing_of_the_importable_ones),
        cmocka_unit_test(test_unsound_items_that_nobody_chose),
        cmocka_unit_test(test_a_version_that_cannot_be_listed_is_a_gap),
        cmocka_unit_test(test_unsound_paths_are_refused),
        cmocka_unit_test(test_one_path_has_one_content),
        cmocka_unit_test(test_contents_are_compared_across_kinds),
        cmocka_unit_test(test_incomparable_contents_are_refused),
        cmocka_unit_test(test_no_path_is_the_folder_of_another),
        cmocka_unit_test(test_clashes_across_streams),
        cmocka_unit_test(test_reduces_to_the_selection),
        cmocka_unit_test(test_flattened_metadata_survive_reduction),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_selects_what_simplestreams_selects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* mirror/held.c, holdings.c, kept.c, await.c, retain.c: what a mirror holds, and what goes. */
#include <stdio.h>

#include "held_world.h"

#define SHA_OF_NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* ---- one stream ------------------------------------------------------------------------------ */

static void test_a_held_stream_comes_back(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p/1", "p1");
    fetch(&w, s, 2, NULL);
    UVM_AUTO(mirror_stream_free) struct mirror_stream *held = NULL;
    assert_true(mirror_held_stream(w.tree, "one", &held, &w.err));
    assert_string_equal(held->content_id, "one");
    assert_string_equal(held->source, w.url);
    assert_string_equal(held->path, "streams/v1/one.sjson");
    assert_string_equal(held->signer, SIGNER);
    assert_string_equal(held->updated, UPDATED);
    uvm_auto_free char *text = json_dumps(s, 0);
    assert_int_equal(held->origin.len, strlen(text));
    assert_memory_equal(held->origin.data, text, strlen(text));
    check_selected(&w, s, 0, "p/1 complete");
}

static void test_an_armored_file_is_read_again(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p/1", "p1");
    w.armored = true;
    fetch(&w, s, 1, NULL);
    UVM_AUTO(mirror_stream_free) struct mirror_stream *held = NULL;
    assert_true(mirror_held_stream(w.tree, "one", &held, &w.err));
    assert_int_equal(mirror_stream_count(held).items, 1);
    assert_memory_equal(held->origin.data, "-----BEGIN PGP", 14);
}

static void test_streams_come_in_the_order_of_their_names(void **state)
{
    (void)state;
    auto_world w = new_world();
    for (const char *name = "hbgecadf"; *name; name++) {
        char id[] = {*name, 0};
        mirror_auto_json *s = new_stream(id);
        uvm_auto_free char *path = uvm_format("img/%s", id);
        add(s, "p", "1", path, path);
        fetch(&w, s, 1, NULL);
    }
    check_streams(&w, "a b c d e f g h");
}

static void test_an_empty_mirror_holds_nothing(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    check_streams(&w, "");
    check_selected(&w, s, 0, "");
    UVM_AUTO(mirror_stream_free) struct mirror_stream *held = NULL;
    assert_true(mirror_held_stream(w.tree, "one", &held, &w.err));
    assert_null(held);
}

/* ---- what goes ------------------------------------------------------------------------------- */

static void test_a_newer_version_takes_the_place_of_an_older(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p/1/disk", "old");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "");
    add(s, "p", "2", "img/p/2/disk", "newer");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/p/1/disk");
    assert_int_equal(w.removed.bytes, strlen("old"));
    assert_false(there(&w, "img/p/1"));
    assert_true(there(&w, "img/p/2/disk"));
    check_selected(&w, s, 0, "p/2 complete");
    reopen(&w);
    assert_false(on_record(&w, "img/p/1/disk"));
}

static void test_as_many_versions_stay_as_were_asked_for(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "1");
    add(s, "p", "2", "img/2", "2");
    add(s, "p", "3", "img/3", "3");
    fetch(&w, s, 2, NULL);
    check_selected(&w, s, 0, "p/3 p/2 complete");
    check_selected(&w, s, 5, "p/3 p/2 complete");
    check_selected(&w, s, 1, "p/3 complete");
    fetch(&w, s, 0, NULL);
    check_selected(&w, s, 0, "p/3 p/2 p/1 complete");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/1 img/2");
}

static void test_products_that_were_not_chosen_from_stay(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    add(s, "q", "1", "img/q1", "q1");
    add(s, "q", "2", "img/q2", "q2");
    fetch(&w, s, 2, "product_name=q");
    add(s, "q", "3", "img/q3", "q3");
    fetch(&w, s, 1, "product_name=p");
    check_removed(&w, "");
    check_selected(&w, s, 0, "p/1 complete q/2 q/1");
    /* Even though the filters do not hide it. */
    auto_choice c = choose(&w, s, 1, "product_name=p");
    UVM_AUTO(mirror_filters_free) struct mirror_filters *all = filters_of(NULL);
    struct mirror_choice choice = {&c.selection, all, 1, false};
    must(mirror_tree_hold(w.tree, c.stream, &choice, NULL, &w.removed, &w.err), &w.err);
    check_removed(&w, "");
    check_selected(&w, s, 0, "p/1 complete q/2 q/1");
}

static void test_what_the_filters_hide_stays(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "1");
    add(s, "p", "2", "img/2", "2");
    add(s, "p", "3", "img/3", "3");
    fetch(&w, s, 2, "version_name=1");
    fetch(&w, s, 2, "version_name!=1");
    check_removed(&w, "");
    fetch(&w, s, 1, "version_name!=1");
    check_removed(&w, "img/2");
    assert_true(there(&w, "img/1"));
}

static void test_what_the_source_no_longer_lists_goes(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one"), *shorter = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    add(s, "q", "1", "img/q1", "q1");
    fetch(&w, s, 1, NULL);
    add(shorter, "p", "1", "img/p1", "p1");
    fetch(&w, shorter, 1, "product_name=p");
    check_removed(&w, "img/q1");
    check_selected(&w, shorter, 0, "p/1 complete");
}

static void test_what_the_source_lists_otherwise_goes(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    add(s, "q", "1", "img/q1", "before");
    fetch(&w, s, 1, NULL);
    add(s, "q", "1", "img/q1", "after!"); /* as long */
    fetch(&w, s, 1, "product_name=p");
    check_removed(&w, "img/q1");
    add(s, "p", "1", "img/moved", "p1");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/p1");
    check_selected(&w, s, 0, "p/1 complete q/1 complete");
}

/* A path that two images share, of which one goes. */
static void test_a_shared_file_stays(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *one = new_stream("one"), *two = new_stream("two");
    add(one, "p", "1", "img/shared", "shared");
    add(one, "q", "1", "img/shared", "shared");
    add(two, "r", "1", "img/shared", "shared");
    fetch(&w, one, 1, NULL);
    fetch(&w, two, 1, NULL);
    add(one, "p", "2", "img/p2", "p2");
    fetch(&w, one, 1, NULL);
    check_removed(&w, "");
    add(one, "q", "2", "img/q2", "q2");
    fetch(&w, one, 1, NULL);
    check_removed(&w, "");
    add(two, "r", "2", "img/r2", "r2");
    fetch(&w, two, 1, NULL);
    check_removed(&w, "img/shared");
}

/* An old image that stays must not be taken for what stands in its place now. */
static void test_a_replaced_file_is_held_once(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/a", "before");
    fetch(&w, s, 1, NULL);
    add(s, "q", "1", "img/a", "after");
    fetch(&w, s, 1, "product_name=q");
    check_removed(&w, "");
    check_record(&w, "one", "images", "q/1/disk1.img");
}

static void test_files_of_nobody_stay(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p/1/disk", "p1");
    fetch(&w, s, 1, NULL);
    put(w.dir, "img/p/1/notes", "mine");
    put(w.dir, "img/p/other/file", "mine");
    add(s, "p", "2", "img/p/2/disk", "p2");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/p/1/disk");
    assert_true(there(&w, "img/p/1/notes"));
    assert_true(there(&w, "img/p/other/file"));
}

static void test_links_are_not_followed(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1/disk", "p1");
    add(s, "q", "1", "deep/1/disk", "q1");
    fetch(&w, s, 1, NULL);
    put(w.dir, "../outside/disk", "p1");
    replace_by_link(&w, "img/1/disk", "../../../outside/disk");
    unlink_in(&w, "deep/1/disk");
    replace_by_link(&w, "deep/1", "../../outside");
    add(s, "p", "2", "img/2/disk", "p2");
    add(s, "q", "2", "deep/2/disk", "q2");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "");
    assert_true(there(&w, "../outside/disk"));
}

/* Whatever a damaged list of verified files says. */
static void test_the_mirrors_own_files_stay(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "1");
    fetch(&w, s, 1, NULL);
    put(w.dir, "../outside/victim", "mine");
    verify_by_hand(&w, "uvmirror/serial", "7");
    verify_by_hand(&w, "streams/v1/index.json", "7");
    reopen(&w);
    fetch(&w, s, 1, NULL);
    check_removed(&w, "");
    assert_true(there(&w, "uvmirror/serial"));
    assert_true(there(&w, "streams/v1/index.json"));
}

static void test_a_dry_run_says_what_goes(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    add(s, "p", "2", "img/2", "two");
    fetch(&w, s, 2, NULL);
    add(s, "p", "3", "img/3", "three");
    check_superseded(&w, s, 1, "img/1 img/2", 6);
    check_superseded(&w, s, 2, "img/1", 3);
    check_superseded(&w, s, 0, "", 0);
    assert_true(there(&w, "img/1"));
    assert_true(on_record(&w, "img/1"));
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/1 img/2");
    check_superseded(&w, s, 1, "", 0);
}

static void test_several_dry_runs_name_a_file_once(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *one = new_stream("one"), *two = new_stream("two");
    add(one, "p", "1", "img/1", "one");
    add(two, "r", "1", "img/r", "r");
    verify_by_hand(&w, "img/left", "left");
    reopen(&w);
    mirror_auto_removed removed = {0};
    superseded(&w, one, 1, &removed);
    superseded(&w, two, 1, &removed);
    assert_int_equal(removed.paths.count, 1);
    assert_int_equal(removed.bytes, 4);
}

static void test_old_streams_files_go(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *one = new_stream("one"), *two = new_stream("two");
    add(one, "p", "1", "img/1", "1");
    add(two, "p", "1", "img/r", "r");
    fetch(&w, one, 1, NULL);
    fetch(&w, two, 1, NULL);
    assert_int_equal(count_in(&w, "uvmirror/streams"), 4);
    add(one, "p", "2", "img/2", "2");
    fetch(&w, one, 1, NULL);
    assert_int_equal(count_in(&w, "uvmirror/streams"), 4);
    check_streams(&w, "one two");
}

/* ---- before the download --------------------------------------------------------------------- */

static void test_what_is_awaited_stays(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *one = new_stream("one"), *two = new_stream("two");
    add(one, "p", "1", "img/p1", "p1");
    add(one, "q", "1", "img/q1", "q1");
    add(two, "r", "1", "img/r1", "r1");
    await_ok(&w, one, 1, "product_name=p");
    download(&w, one, 1, "product_name=p");
    fetch(&w, two, 1, NULL); /* another stream comes to its end */
    fetch(&w, one, 1, "product_name=q");
    check_removed(&w, "");
    assert_true(there(&w, "img/p1"));
    check_selected(&w, one, 0, "q/1 complete");
    check_record(&w, "one", "awaits", "p/1/disk1.img");
    fetch(&w, one, 1, NULL);
    check_record(&w, "one", "awaits", "");
    check_selected(&w, one, 0, "p/1 complete q/1 complete");
}

static void test_what_was_awaited_in_vain_goes(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    await_ok(&w, s, 1, NULL);
    download(&w, s, 1, NULL);
    add(s, "p", "2", "img/p2", "p2");
    await_ok(&w, s, 1, NULL);
    check_record(&w, "one", "awaits", "p/1/disk1.img p/2/disk1.img");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/p1");
    check_record(&w, "one", "awaits", "");
}

/* A checksum more does not make it another image, and what is held is not awaited. */
static void test_what_is_held_is_not_awaited_for_ever(void **state)
{
    (void)state;
    char hex[UVM_DIGEST_HEX_MAX];
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    json_t *item = add(s, "p", "1", "img/p1", "p1");
    add(s, "q", "1", "img/q1", "q1");
    fetch(&w, s, 1, NULL);
    uvm_digest_bytes(UVM_SHA512, "p1", 2, hex);
    json_object_set_new(item, "sha512", json_string(hex));
    await_ok(&w, s, 1, NULL);
    check_record(&w, "one", "awaits", "p/1/disk1.img");
    fetch(&w, s, 1, "product_name=q");
    check_record(&w, "one", "images", "q/1/disk1.img p/1/disk1.img");
    check_record(&w, "one", "awaits", "");
}

static void test_awaiting_keeps_what_is_held(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one"), *newer = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    fetch(&w, s, 1, NULL);
    add(newer, "p", "2", "img/p2", "p2");
    await_ok(&w, newer, 1, NULL);
    check_selected(&w, s, 0, "p/1 complete");
    check_record(&w, "one", "images", "p/1/disk1.img");
    check_record(&w, "one", "awaits", "p/2/disk1.img");
}

/* Nothing new: nothing is written. */
static void test_a_quiet_night_writes_nothing(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    fetch(&w, s, 1, NULL);
    ino_t before = inode_of(&w, "uvmirror/streams/one.json");
    fetch(&w, s, 1, NULL);
    assert_int_equal(inode_of(&w, "uvmirror/streams/one.json"), before);
}

static void test_a_clash_names_both_streams(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *one = new_stream("one"), *two = new_stream("two");
    add(one, "p", "1", "img/a", "of one");
    add(one, "p", "2", "img/b", "of one");
    add(two, "p", "1", "img/a", "of two");
    fetch(&w, one, 0, NULL);
    refuse_await(&w, two, UVM_CONTENT, "stream two and stream one");
    assert_false(there(&w, "uvmirror/streams/two.json"));
    json_object_del(json_object_get(two, "products"), "p");
    add(two, "p", "1", "img/b/c", "below");
    refuse_await(&w, two, UVM_CONTENT, "'img/b' is the folder of another, 'img/b/c'");
    add(one, "p", "2", "img/b", "its own"); /* may be replaced */
    await_ok(&w, one, 0, NULL);
}

static void test_an_older_stream_is_told(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    fetch(&w, s, 1, NULL);
    await_ok(&w, s, 1, NULL);
    assert_string_equal(w.said, "");
    json_object_set_new(s, "updated", json_string("Thu, 03 Oct 2024 09:30:00 +0000"));
    await_ok(&w, s, 1, NULL);
    assert_non_null(strstr(w.said, "is older than what the mirror holds (" UPDATED ")"));
    json_object_del(s, "updated");
    await_ok(&w, s, 1, NULL);
    assert_non_null(strstr(w.said, "(no date) is older"));
    json_object_set_new(s, "updated", json_string("Sat, 05 Oct 2024 09:30:00 +0000"));
    await_ok(&w, s, 1, NULL);
    assert_string_equal(w.said, "");
}

static void test_an_older_stream_supersedes_nothing(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *before = new_stream("one"), *s = new_stream("one");
    add(before, "p", "1", "img/p1", "p1");
    json_object_set_new(before, "updated", json_string("Thu, 03 Oct 2024 09:30:00 +0000"));
    add(s, "p", "1", "img/p1", "p1");
    add(s, "p", "2", "img/p2", "p2");
    fetch(&w, s, 1, NULL);
    fetch(&w, before, 1, NULL); /* somebody replays it */
    check_removed(&w, "");
    check_superseded(&w, before, 1, "", 0);
    check_selected(&w, s, 0, "p/2 complete");
    assert_true(there(&w, "img/p2"));

    w.allow_older = true;
    check_superseded(&w, before, 1, "img/p2", 2);
    fetch(&w, before, 1, NULL);
    check_removed(&w, "img/p2");
    check_selected(&w, before, 0, "p/1 complete");
}

/* Of what was chosen, one image did not come. */
static void test_what_came_is_told_from_what_did_not(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    add(s, "q", "1", "img/q1", "q1");
    add(s, "q", "2", "img/q2", "q2");
    download(&w, s, 0, "product_name=p");
    download(&w, s, 1, "product_name=q");
    auto_choice c = choose(&w, s, 0, NULL);
    assert_int_equal(c.selection.count, 2);
    mirror_tree_drop_missing(w.tree, &c.selection);
    assert_int_equal(c.selection.count, 1);
    assert_string_equal(c.selection.products[0].name, "p");
}

static void test_another_source_is_told(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    fetch(&w, s, 1, NULL);
    free(w.url);
    w.url = uvm_strdup("https://elsewhere.example/");
    await_ok(&w, s, 1, NULL);
    assert_non_null(strstr(w.said, "comes from https://elsewhere.example/ now"));
}

/* ---- choosing among what is held ------------------------------------------------------------- */

static void test_what_is_not_held_makes_a_product_incomplete(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "1");
    add(s, "p", "2", "img/2", "2");
    add(s, "p", "3", "img/3", "3");
    fetch(&w, s, 2, "version_name!=3");
    check_selected(&w, s, 0, "p/2 p/1");
    fetch(&w, s, 2, NULL);
    check_selected(&w, s, 0, "p/3 p/2 complete");
    unlink_in(&w, "img/2");
    check_selected(&w, s, 0, "p/3");
    check_selected(&w, s, 1, "p/3 complete");
    unlink_in(&w, "img/3");
    check_selected(&w, s, 0, "");
}

static void test_an_item_that_is_not_held_is_passed_over(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "1");
    add_item(s, "p", "1", "root.tar.xz", "img/1.tar", "tar");
    fetch(&w, s, 1, NULL);
    check_selected_by(&w, s, "ftype~", 0, "p/1 complete");
    fetch(&w, s, 1, "ftype=root.tar.xz");
    check_removed(&w, "");
    check_selected_by(&w, s, "ftype~", 0, "p/1 p/1 complete");
}

static void test_filters_choose_among_what_is_held(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "1");
    add(s, "p", "2", "img/2", "2");
    add(s, "q", "1", "img/q", "q");
    fetch(&w, s, 2, NULL);
    check_selected_by(&w, s, "version_name=1", 0, "p/1 q/1 complete");
    check_selected_by(&w, s, "product_name=q", 0, "q/1 complete");
}

/* ---- records that are not what they should be ------------------------------------------------- */

#define ENTRY(path) "{\"path\": \"" path "\", \"size\": 0, \"sha256\": \"" SHA_OF_NOTHING "\"}"
#define RECORD_WITH(images, max, superseded, origin)                                               \
    "{\"format\": 1, \"content_id\": \"one\", \"source\": \"s\", \"path\": \"p\", "                \
    "\"signer\": null, \"updated\": null, \"awaits\": {}, \"images\": {" images "}, "              \
    "\"max\": " max ", \"superseded\": " superseded ", \"origin\": " origin "}"
#define RECORD(images) RECORD_WITH(images, "{}", "[]", "\"" SHA_OF_NOTHING "\"")

static const char *const sound = RECORD("\"p/1/i\": " ENTRY("img/1"));

static const char *const damaged[] = {
    "",
    "{",
    "[]",
    "{}",
    "{\"format\": 0}",
    "{\"format\": 1, \"content_id\": \"two\"}",
    RECORD("\"p/1\": " ENTRY("img/1")),
    RECORD("\"p/1/2/3\": " ENTRY("img/1")),
    RECORD("\"p/1/i\": " ENTRY("../outside/victim")),
    RECORD("\"p/1/i\": " ENTRY("uvmirror/serial")),
    RECORD("\"p/1/i\": {\"path\": \"a\", \"size\": 1}"),
    RECORD("\"p/1/i\": {\"path\": \"a\", \"size\": -1, \"sha256\": \"" SHA_OF_NOTHING "\"}"),
    RECORD("\"p/1/i\": {\"path\": \"a\", \"size\": 1, \"sha256\": \"xyz\"}"),
    RECORD_WITH("", "{\"p\": -1}", "[]", "null"),
    RECORD_WITH("", "{}", "[\"../outside/victim\"]", "null"),
    RECORD_WITH("", "{}", "{}", "null"),
    RECORD_WITH("", "{}", "[]", "\"../../outside\""),
    RECORD_WITH("\"p/1/i\": " ENTRY("img/1"), "{}", "[]", "null"), /* held, of no stream */
};

static void test_a_damaged_record_is_named(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_record r = {0};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        put(w.dir, "uvmirror/streams/one.json", damaged[i]);
        refuse_streams(&w, UVM_CONTENT, "uvmirror/streams/one.json is damaged");
        refuse_streams(&w, UVM_CONTENT, "(fetch that stream again)");
    }
    put(w.dir, "uvmirror/streams/one.json", sound);
    must(mirror_record_load(w.tree, "one", &r, &w.err), &w.err);
}

static void test_a_damaged_record_is_written_anew(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    fetch(&w, s, 1, NULL);
    put(w.dir, "uvmirror/streams/one.json", "");
    await_ok(&w, s, 1, NULL);
    assert_non_null(strstr(w.said, "it is written anew"));
    fetch(&w, s, 1, NULL);
    check_selected(&w, s, 0, "p/1 complete");
    put(w.dir, "uvmirror/streams/one.json", "{");
    hold(&w, s, 1, NULL); /* without await */
    check_selected(&w, s, 0, "p/1 complete");
}

static void test_nothing_goes_beside_a_damaged_record(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *one = new_stream("one"), *two = new_stream("two");
    add(one, "p", "1", "img/p1", "p1");
    add(two, "r", "1", "img/r1", "r1");
    fetch(&w, one, 1, NULL);
    fetch(&w, two, 1, NULL);
    put(w.dir, "uvmirror/streams/two.json", "");
    add(one, "p", "2", "img/p2", "p2");
    fetch(&w, one, 1, NULL);
    check_removed(&w, "");
    assert_non_null(strstr(w.said, "two.json is damaged"));
    assert_non_null(strstr(w.said, "nothing is removed"));
    assert_true(there(&w, "img/p1") && there(&w, "img/r1"));
    check_superseded(&w, one, 1, "", 0);
    fetch(&w, two, 1, NULL); /* heals it */
    check_removed(&w, "img/p1");
    assert_true(there(&w, "img/r1"));
    check_streams(&w, "one two");
}

static void test_a_newer_record_is_left_alone(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *one = new_stream("one"), *two = new_stream("two");
    add(one, "p", "1", "img/p1", "p1");
    add(two, "p", "1", "img/p1", "p1");
    put(w.dir, "uvmirror/streams/one.json", "{\"format\": 2}");
    refuse_streams(&w, UVM_FAILED, "a newer uvmirror wrote it (format 2");
    refuse_await(&w, one, UVM_FAILED, "a newer uvmirror wrote it");
    refuse_await(&w, two, UVM_FAILED, "a newer uvmirror wrote it");
}

static void test_a_damaged_kept_file_is_named(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    fetch(&w, s, 1, NULL);
    uvm_auto_free char *origin = origin_of(&w, "one");
    put(w.dir, origin, "");
    refuse_streams(&w, UVM_CONTENT, "is damaged (fetch that stream again)");
    unlink_in(&w, origin);
    refuse_streams(&w, UVM_CONTENT, "(fetch that stream again)");
    fetch(&w, s, 1, NULL);
    check_streams(&w, "one");
}

/* ---- runs that died --------------------------------------------------------------------------- */

static void test_a_run_that_died_before_the_record_is_finished(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p1", "p1");
    fetch(&w, s, 1, NULL);
    put(w.dir, "uvmirror/streams/" SHA_OF_NOTHING, "");             /* kept, not named yet */
    put(w.dir, "uvmirror/streams/.one.json.abcdef", "{\"format\""); /* half a record */
    put(w.dir, "uvmirror/streams/." SHA_OF_NOTHING ".abcdef", "x"); /* half a file */
    fetch(&w, s, 1, NULL);
    assert_int_equal(count_in(&w, "uvmirror/streams"), 2);
    check_selected(&w, s, 0, "p/1 complete");
}

/* The record is on the disk, the old file still there, and nobody else remembers it. */
static void test_a_run_that_died_before_the_removal_is_finished(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/p/1/disk", "p1");
    fetch(&w, s, 1, NULL);
    add(s, "p", "2", "img/p/2/disk", "p2");
    fetch(&w, s, 1, NULL);
    put(w.dir, "img/p/1/disk", "p1");
    lose_verified(&w);
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/p/1/disk");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "");
    check_selected(&w, s, 0, "p/2 complete");
}

static void test_a_run_that_died_in_the_removal_is_finished(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/deep/1/disk", "p1");
    fetch(&w, s, 1, NULL);
    add(s, "p", "2", "img/2/disk", "p2");
    fetch(&w, s, 1, NULL);
    uvm_auto_free char *folder = path_in(&w, "img/deep");
    assert_int_equal(mkdir(folder, 0755), 0); /* the file is gone, and one of its folders */
    fetch(&w, s, 1, NULL);
    assert_false(there(&w, "img/deep"));
    assert_true(there(&w, "img/2/disk"));
}

static void test_a_run_that_died_in_the_download_is_finished(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "1");
    fetch(&w, s, 1, NULL);
    add(s, "p", "2", "img/2", "2");
    await_ok(&w, s, 1, NULL);
    download(&w, s, 1, NULL);
    lose_verified(&w);
    add(s, "p", "3", "img/3", "3");
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/1 img/2");
    check_selected(&w, s, 0, "p/3 complete");
}

/* A vendor's file replaced in place, and the end of the run missing. */
static void test_what_was_replaced_under_the_record_is_not_held(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one"), *newer = new_stream("one");
    add(s, "p", "current", "img/a", "before");
    fetch(&w, s, 1, NULL);
    add(newer, "p", "current", "img/a", "after!");
    await_ok(&w, newer, 1, NULL);
    download(&w, newer, 1, NULL);
    check_selected(&w, s, 0, "");
    fetch(&w, newer, 1, NULL);
    check_removed(&w, "");
    check_selected(&w, newer, 0, "p/current complete");
}

/* As somebody who may write the records, but not in a folder of images. */
static void hold_without_rights(struct world *w, const json_t *json, const char *folder)
{
    uvm_auto_free char *own = path_in(w, "uvmirror"), *streams = path_in(w, MIRROR_STREAMS_DIR),
                       *images = path_in(w, folder);
    bool is_root = geteuid() == 0;
    assert_int_equal(chmod(images, 0555), 0);
    if (is_root)
        assert_int_equal(chown(own, NOBODY, NOBODY) | chown(streams, NOBODY, NOBODY), 0);
    if (is_root)
        assert_int_equal(seteuid(NOBODY), 0);
    hold(w, json, 1, NULL);
    if (is_root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(images, 0755), 0);
}

static void test_a_file_that_cannot_be_removed_is_tried_again(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/old/1", "1");
    fetch(&w, s, 1, NULL);
    add(s, "p", "2", "img/new/2", "2");
    await_ok(&w, s, 1, NULL);
    download(&w, s, 1, NULL);
    hold_without_rights(&w, s, "img/old");
    check_removed(&w, "");
    assert_non_null(strstr(w.said, "cannot remove img/old/1"));
    assert_true(there(&w, "img/old/1"));
    lose_verified(&w);
    fetch(&w, s, 1, NULL);
    check_removed(&w, "img/old/1");
}

/* ---- a stream that is made here --------------------------------------------------------------- */

static void test_a_stream_is_held_with_exactly_these_images(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream(MIRROR_LOCAL_ID);
    add(s, "p", "1", "local/1", "1");
    add(s, "p", "2", "local/2", "2");
    replace(&w, s);
    check_removed(&w, "");
    check_selected(&w, s, 0, "p/2 p/1 complete");
    json_object_del(json_object_get(product_of(s, "p"), "versions"), "1");
    replace(&w, s);
    check_removed(&w, "local/1");
    check_selected(&w, s, 0, "p/2 complete");
    put(w.dir, "uvmirror/streams/" MIRROR_LOCAL_ID ".json", "");
    refuse_streams(&w, UVM_CONTENT, "add its images again");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_held_stream_comes_back),
        cmocka_unit_test(test_an_armored_file_is_read_again),
        cmocka_unit_test(test_streams_come_in_the_order_of_their_names),
        cmocka_unit_test(test_an_empty_mirror_holds_nothing),
        cmocka_unit_test(test_a_newer_version_takes_the_place_of_an_older),
        cmocka_unit_test(test_as_many_versions_stay_as_were_asked_for),
        cmocka_unit_test(test_products_that_were_not_chosen_from_stay),
        cmocka_unit_test(test_what_the_filters_hide_stays),
        cmocka_unit_test(test_what_the_source_no_longer_lists_goes),
        cmocka_unit_test(test_what_the_source_lists_otherwise_goes),
        cmocka_unit_test(test_a_shared_file_stays),
        cmocka_unit_test(test_a_replaced_file_is_held_once),
        cmocka_unit_test(test_files_of_nobody_stay),
        cmocka_unit_test(test_links_are_not_followed),
        cmocka_unit_test(test_the_mirrors_own_files_stay),
        cmocka_unit_test(test_a_dry_run_says_what_goes),
        cmocka_unit_test(test_several_dry_runs_name_a_file_once),
        cmocka_unit_test(test_old_streams_files_go),
        cmocka_unit_test(test_what_is_awaited_stays),
        cmocka_unit_test(test_what_was_awaited_in_vain_goes),
        cmocka_unit_test(test_what_is_held_is_not_awaited_for_ever),
        cmocka_unit_test(test_awaiting_keeps_what_is_held),
        cmocka_unit_test(test_a_quiet_night_writes_nothing),
        cmocka_unit_test(test_a_clash_names_both_streams),
        cmocka_unit_test(test_an_older_stream_is_told),
        cmocka_unit_test(test_an_older_stream_supersedes_nothing),
        cmocka_unit_test(test_what_came_is_told_from_what_did_not),
        cmocka_unit_test(test_another_source_is_told),
        cmocka_unit_test(test_what_is_not_held_makes_a_product_incomplete),
        cmocka_unit_test(test_an_item_that_is_not_held_is_passed_over),
        cmocka_unit_test(test_filters_choose_among_what_is_held),
        cmocka_unit_test(test_a_damaged_record_is_named),
        cmocka_unit_test(test_a_damaged_record_is_written_anew),
        cmocka_unit_test(test_nothing_goes_beside_a_damaged_record),
        cmocka_unit_test(test_a_newer_record_is_left_alone),
        cmocka_unit_test(test_a_damaged_kept_file_is_named),
        cmocka_unit_test(test_a_run_that_died_before_the_record_is_finished),
        cmocka_unit_test(test_a_run_that_died_before_the_removal_is_finished),
        cmocka_unit_test(test_a_run_that_died_in_the_removal_is_finished),
        cmocka_unit_test(test_a_run_that_died_in_the_download_is_finished),
        cmocka_unit_test(test_what_was_replaced_under_the_record_is_not_held),
        cmocka_unit_test(test_a_file_that_cannot_be_removed_is_tried_again),
        cmocka_unit_test(test_a_stream_is_held_with_exactly_these_images),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

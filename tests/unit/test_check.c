/* mirror/check.c: a mirror hashed again. */
#include <stdio.h>

#include "held_world.h"

/* ---- helpers --------------------------------------------------------------------------------- */

static void check(struct world *w, struct mirror_checked *ret)
{
    struct uvm_observer observer = observer_of(w);
    w->said[0] = 0;
    must(mirror_tree_check(w->tree, &observer, ret, &w->err), &w->err);
}

static void assert_checked(struct world *w, size_t good, uint64_t bytes, const char *bad)
{
    __attribute__((cleanup(mirror_checked_clear))) struct mirror_checked checked = {0};
    uvm_auto_free char *text = uvm_strdup("");
    check(w, &checked);
    for (size_t i = 0; i < checked.bad.count; i++)
        append(&text, checked.bad.items[i]);
    assert_string_equal(text, bad);
    assert_int_equal(checked.good, good);
    assert_int_equal(checked.bytes, bytes);
}

/* Other bytes, and nothing else that would show it. */
static void rot(const struct world *w, const char *name, const char *text)
{
    struct stat st;
    uvm_auto_free char *path = path_in(w, name);
    uvm_auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    assert_int_equal(st.st_size, strlen(text));
    assert_int_equal(pwrite(fd, text, strlen(text), 0), strlen(text));
    struct timespec times[] = {st.st_atim, st.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
}

/* Whether the list of verified files, as it is on the disk, depends on this start of the machine
 * for that file. */
static bool is_of_this_boot(struct world *w, const char *path)
{
    reopen(w); /* which writes it */
    mirror_auto_json *verified = read_json(w, "uvmirror/verified.json");
    const json_t *entry = json_object_get(json_object_get(verified, "files"), path);
    assert_non_null(entry);
    return json_object_get(entry, "boot");
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_an_empty_mirror_is_good(void **state)
{
    (void)state;
    auto_world w = new_world();
    assert_checked(&w, 0, 0, "");
}

static void test_good_images_get_a_record_that_lasts(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    add(s, "q", "1", "img/2", "three");
    fetch(&w, s, 1, NULL);
    assert_true(is_of_this_boot(&w, "img/1"));
    assert_checked(&w, 2, 8, "");
    assert_false(is_of_this_boot(&w, "img/1"));
    check_selected(&w, s, 0, "p/1 complete q/1 complete");
}

static void test_bad_images_are_taken_out(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/good", "one");
    add(s, "q", "1", "img/rotten/disk", "three");
    add(s, "r", "1", "img/gone", "four");
    add(s, "s", "1", "img/longer", "five");
    fetch(&w, s, 1, NULL);
    rot(&w, "img/rotten/disk", "thr33");
    unlink_in(&w, "img/gone");
    put(w.dir, "img/longer", "five and more");
    assert_true(on_record(&w, "img/rotten/disk"));
    assert_checked(&w, 1, 3, "img/rotten/disk img/gone img/longer");
    assert_non_null(strstr(w.said, "img/rotten/disk is not the image any more"));
    assert_false(there(&w, "img/rotten") || there(&w, "img/longer"));
    assert_false(on_record(&w, "img/rotten/disk"));
    check_record(&w, "one", "images", "p/1/disk1.img");
    check_selected(&w, s, 0, "p/1 complete");
    assert_checked(&w, 1, 3, "");
    fetch(&w, s, 1, NULL);
    check_selected(&w, s, 0, "p/1 complete q/1 complete r/1 complete s/1 complete");
    assert_checked(&w, 4, 16, "");
}

/* A power cut may bring back what was removed. */
static void test_a_bad_image_that_came_back_goes_again(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    add(s, "q", "1", "img/2", "two");
    fetch(&w, s, 1, NULL);
    rot(&w, "img/2", "TWO");
    assert_checked(&w, 1, 3, "img/2");
    put(w.dir, "img/2", "TWO");
    fetch(&w, s, 1, "product_name=p");
    check_removed(&w, "img/2");
}

static void test_files_without_a_record_are_hashed_too(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    add(s, "q", "1", "img/2", "two");
    fetch(&w, s, 1, NULL);
    lose_verified(&w); /* as after a start of the machine */
    check_selected(&w, s, 0, "");
    rot(&w, "img/2", "TWO");
    assert_checked(&w, 1, 3, "img/2");
    check_selected(&w, s, 0, "p/1 complete");
}

/* One stream signs its SHA-256, the other its SHA-512: one look serves both. */
static void test_a_shared_file_is_hashed_once(void **state)
{
    (void)state;
    char hex[UVM_DIGEST_HEX_MAX];
    auto_world w = new_world();
    mirror_auto_json *one = new_stream("one"), *two = new_stream("two");
    add(one, "p", "1", "img/1", "shared");
    json_t *item = add(two, "q", "1", "img/1", "shared");
    uvm_digest_bytes(UVM_SHA512, "shared", 6, hex);
    json_object_set_new(item, "sha512", json_string(hex));
    fetch(&w, one, 1, NULL);
    fetch(&w, two, 1, NULL);
    lose_verified(&w);
    assert_checked(&w, 1, 6, "");
    check_selected(&w, one, 0, "p/1 complete");
    check_selected(&w, two, 0, "q/1 complete");
    rot(&w, "img/1", "SHARED");
    assert_checked(&w, 0, 0, "img/1");
    check_record(&w, "one", "images", "");
    check_record(&w, "two", "images", "");
}

static void test_what_is_no_file_is_bad_and_stays(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/link", "one");
    add(s, "q", "1", "img/folder", "two");
    add(s, "r", "1", "img/fifo", ""); /* as much as can be read from it */
    add(s, "s", "1", "img/below/link", "four");
    fetch(&w, s, 1, NULL);
    put(w.dir, "../outside/link", "one");
    replace_by_link(&w, "img/link", "../../outside/link");
    unlink_in(&w, "img/folder");
    put(w.dir, "img/folder/mine", "mine");
    unlink_in(&w, "img/fifo");
    uvm_auto_free char *fifo = path_in(&w, "img/fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    put(w.dir, "../outside/link", "four");
    unlink_in(&w, "img/below/link");
    replace_by_link(&w, "img/below", "../../outside");
    assert_checked(&w, 0, 0, "img/link img/folder img/fifo img/below/link");
    assert_true(there(&w, "img/folder/mine") && there(&w, "../outside/link"));
}

/* Stops the run behind the first image that is found bad. */
static void stop_at_warning(void *opaque, const struct uvm_event *event)
{
    if (event->kind == UVM_EVENT_WARNING)
        *(atomic_bool *)opaque = 1;
}

static void test_interrupted(void **state)
{
    (void)state;
    auto_world w = new_world();
    atomic_bool stop = 0;
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    add(s, "q", "1", "img/2", "two");
    fetch(&w, s, 1, NULL);
    rot(&w, "img/1", "ONE");
    rot(&w, "img/2", "TWO");
    struct uvm_observer observer = {stop_at_warning, (void *)(uintptr_t)&stop, &stop};
    struct mirror_checked checked = {0};
    assert_false(mirror_tree_check(w.tree, &observer, &checked, &w.err));
    assert_int_equal(w.err.code, UVM_INTERRUPTED);
    assert_null(checked.bad.items);
    assert_true(!there(&w, "img/1") && there(&w, "img/2"));
    check_record(&w, "one", "images", "q/1/disk1.img"); /* what was found is not forgotten */
}

static void test_a_damaged_record(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    fetch(&w, s, 1, NULL);
    put(w.dir, "uvmirror/streams/one.json", "");
    struct mirror_checked checked = {0};
    assert_false(mirror_tree_check(w.tree, NULL, &checked, &w.err));
    assert_int_equal(w.err.code, UVM_CONTENT);
    assert_non_null(strstr(w.err.message, "one.json is damaged"));
    assert_non_null(strstr(w.err.message, "fetch that stream again"));
}

static void count_events(void *opaque, const struct uvm_event *event)
{
    int *counts = opaque;
    assert_string_equal(event->step, "verify");
    assert_string_equal(event->subject, "img/1");
    counts[event->kind]++;
    if (event->kind == UVM_EVENT_PROGRESS)
        assert_int_equal(event->total, 3);
}

static void test_it_is_never_silent(void **state)
{
    (void)state;
    auto_world w = new_world();
    int counts[UVM_EVENT_WARNING + 1] = {0};
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    fetch(&w, s, 1, NULL);
    struct uvm_observer observer = {count_events, counts, NULL};
    __attribute__((cleanup(mirror_checked_clear))) struct mirror_checked checked = {0};
    must(mirror_tree_check(w.tree, &observer, &checked, &w.err), &w.err);
    assert_true(counts[UVM_EVENT_PROGRESS] > 0);
    assert_int_equal(counts[UVM_EVENT_DONE], 1);
}

/* ---- what nothing is known about ------------------------------------------------------------- */

static void test_the_mirror_is_known_again(void **state)
{
    (void)state;
    auto_world w = new_world();
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    add(s, "q", "1", "img/2", "two");
    add(s, "r", "1", "img/3", "three");
    fetch(&w, s, 1, NULL);
    lose_verified(&w);
    rot(&w, "img/2", "TWO");
    unlink_in(&w, "img/3");
    must(mirror_tree_recall(w.tree, NULL, &w.err), &w.err);
    check_selected(&w, s, 0, "p/1 complete");
    assert_true(there(&w, "img/2"));
    check_record(&w, "one", "images", "p/1/disk1.img q/1/disk1.img r/1/disk1.img");
    assert_false(is_of_this_boot(&w, "img/1"));
}

static void test_what_is_known_is_not_hashed(void **state)
{
    (void)state;
    auto_world w = new_world();
    int counts[UVM_EVENT_WARNING + 1] = {0};
    mirror_auto_json *s = new_stream("one");
    add(s, "p", "1", "img/1", "one");
    fetch(&w, s, 1, NULL);
    struct uvm_observer observer = {count_events, counts, NULL};
    must(mirror_tree_recall(w.tree, &observer, &w.err), &w.err);
    assert_int_equal(counts[UVM_EVENT_PROGRESS] + counts[UVM_EVENT_DONE], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_mirror_is_good),
        cmocka_unit_test(test_good_images_get_a_record_that_lasts),
        cmocka_unit_test(test_bad_images_are_taken_out),
        cmocka_unit_test(test_a_bad_image_that_came_back_goes_again),
        cmocka_unit_test(test_files_without_a_record_are_hashed_too),
        cmocka_unit_test(test_a_shared_file_is_hashed_once),
        cmocka_unit_test(test_what_is_no_file_is_bad_and_stays),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_a_damaged_record),
        cmocka_unit_test(test_it_is_never_silent),
        cmocka_unit_test(test_the_mirror_is_known_again),
        cmocka_unit_test(test_what_is_known_is_not_hashed),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

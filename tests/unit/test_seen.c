/* test_seen.c: the rollback record. */
#include "pool/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "own_folder.h"

#define CONTENT "com.ubuntu.cloud:released:download"
#define PRODUCT "com.ubuntu.cloud:server:24.04:amd64"

static int warnings;

static void count_warnings(void *opaque, const struct uvm_event *event)
{
    (void)opaque;
    warnings += event->kind == UVM_EVENT_WARNING;
}

static const struct uvm_observer observer = {.event = count_warnings};

static int begin(void **state)
{
    warnings = 0;
    return enter_folder(state);
}

static bool older(const struct pool_seen *s, uint64_t updated, uint64_t serial)
{
    return pool_seen_older(s, CONTENT, PRODUCT, (struct pool_age){updated, serial});
}

static void note(struct pool_seen *s, uint64_t updated, uint64_t serial, enum pool_seen_how how)
{
    pool_seen_note(s, CONTENT, PRODUCT, (struct pool_age){updated, serial}, how);
}

static void an_empty_record_knows_nothing_older(void **state)
{
    pool_auto_seen seen = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_true(pool_seen_read(*state, &observer, &seen, &err));
    assert_false(older(&seen, 0, 0));
    assert_false(older(&seen, 1, 1));
    assert_int_equal(warnings, 0);
}

static void either_time_or_serial_makes_older(void **state)
{
    (void)state;
    pool_auto_seen seen = {0};
    pool_seen_from_json(NULL, &seen);
    note(&seen, 100, 50, POOL_SEEN_RAISE);
    assert_false(older(&seen, 100, 50)); /* the same bundle again */
    assert_false(older(&seen, 101, 51));
    assert_true(older(&seen, 99, 51));
    assert_true(older(&seen, 101, 49));
    assert_false(older(&seen, 0, 50)); /* a stream without a time */
    assert_true(older(&seen, 0, 49));
    assert_false(pool_seen_older(&seen, CONTENT, "another", (struct pool_age){1, 1}));
    assert_false(pool_seen_older(&seen, "another", PRODUCT, (struct pool_age){1, 1}));
}

static void raises_each_on_its_own_and_lowers_when_told(void **state)
{
    (void)state;
    pool_auto_seen seen = {0};
    pool_seen_from_json(NULL, &seen);
    note(&seen, 100, 50, POOL_SEEN_RAISE);
    note(&seen, 0, 60, POOL_SEEN_RAISE);
    assert_true(older(&seen, 99, 60));
    assert_true(older(&seen, 100, 59));
    note(&seen, 10, 5, POOL_SEEN_SET);
    assert_false(older(&seen, 10, 5));
}

static void the_newest_bundle_is_the_latest_or_what_was_set(void **state)
{
    pool_auto_seen seen = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_int_equal(pool_newest_created(*state), 0);
    pool_seen_from_json(NULL, &seen);
    assert_int_equal(pool_seen_created(&seen), 0);
    pool_seen_note_created(&seen, 100, POOL_SEEN_RAISE);
    pool_seen_note_created(&seen, 90, POOL_SEEN_RAISE);
    assert_int_equal(pool_seen_created(&seen), 100);
    assert_true(pool_seen_write(&seen, *state, &err));
    assert_int_equal(pool_newest_created(*state), 100);
    pool_seen_note_created(&seen, 90, POOL_SEEN_SET);
    assert_int_equal(pool_seen_created(&seen), 90);
    pool_seen_note_created(&seen, 0, POOL_SEEN_SET); /* unknown */
    assert_int_equal(pool_seen_created(&seen), 90);
}

static void comes_back_from_disk(void **state)
{
    pool_auto_seen seen = {0};
    pool_auto_seen again = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    pool_seen_from_json(NULL, &seen);
    note(&seen, 100, 50, POOL_SEEN_RAISE);
    pool_seen_note_created(&seen, 60, POOL_SEEN_RAISE);
    assert_true(pool_seen_write(&seen, *state, &err));
    assert_true(pool_seen_read(*state, &observer, &again, &err));
    assert_true(json_equal(seen.tree, again.tree));
    assert_int_equal(warnings, 0);
}

static void a_damaged_record_is_empty_with_a_warning(void **state)
{
    static const char *const texts[] = {
        "", "{", "[]", "{}", "{\"version\": 1, \"streams\": 3}", "{\"streams\": {}}"};
    uvm_auto_free char *path = uvm_format("%s/seen.json", (char *)*state);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        pool_auto_seen seen = {0};
        uvm_auto_error err = UVM_ERROR_INIT;
        assert_true(uvm_file_replace(path, 0644, texts[i], strlen(texts[i]), &err));
        assert_true(pool_seen_read(*state, &observer, &seen, &err));
        assert_int_equal(warnings, (int)i + 1);
        assert_int_equal(pool_newest_created(*state), 0);
        assert_false(older(&seen, 1, 1));
        note(&seen, 100, 50, POOL_SEEN_RAISE);
        assert_true(older(&seen, 1, 1));
    }
}

static void refuses_a_record_of_another_version(void **state)
{
    static const char text[] = "{\"version\": 2, \"streams\": {}}";
    uvm_auto_free char *path = uvm_format("%s/seen.json", (char *)*state);
    pool_auto_seen seen = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_true(uvm_file_replace(path, 0644, text, strlen(text), &err));
    assert_false(pool_seen_read(*state, &observer, &seen, &err));
    assert_int_equal(err.code, UVM_FAILED);
    assert_non_null(strstr(err.message, "another version"));
    assert_int_equal(pool_newest_created(*state), 0);
}

static void odd_values_in_it_do_no_harm(void **state)
{
    (void)state;
    pool_auto_seen seen = {0};
    pool_seen_from_json(json_pack("{s:i, s:s, s:{s:[], s:{s:i}, s:{s:{s:i, s:s}}}}", "version", 1,
                                  "created", "x", "streams", "a", "b", PRODUCT, 3, CONTENT, PRODUCT,
                                  "updated", -7, "serial", "x"),
                        &seen);
    assert_false(older(&seen, 1, 1));
    assert_int_equal(pool_seen_created(&seen), 0);
    pool_seen_note(&seen, "a", PRODUCT, (struct pool_age){100, 50}, POOL_SEEN_RAISE);
    assert_true(pool_seen_older(&seen, "a", PRODUCT, (struct pool_age){1, 1}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_record_knows_nothing_older, begin, leave_folder),
        cmocka_unit_test(either_time_or_serial_makes_older),
        cmocka_unit_test(raises_each_on_its_own_and_lowers_when_told),
        cmocka_unit_test_setup_teardown(the_newest_bundle_is_the_latest_or_what_was_set, begin,
                                        leave_folder),
        cmocka_unit_test_setup_teardown(comes_back_from_disk, begin, leave_folder),
        cmocka_unit_test_setup_teardown(a_damaged_record_is_empty_with_a_warning, begin,
                                        leave_folder),
        cmocka_unit_test_setup_teardown(refuses_a_record_of_another_version, begin, leave_folder),
        cmocka_unit_test(odd_values_in_it_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

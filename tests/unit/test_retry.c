/* When to try again, how fast to go, and what headers say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/header.h"
#include "mirror/pace.h"
#include "mirror/retry.h"

/* ---- retries ---- */

static void test_delays_double(void **state)
{
    static const uint64_t seconds[] = {1, 2, 4, 8, 16, 32, 60, 60, 60};
    struct mirror_retry r = {.allowed = sizeof seconds / sizeof *seconds, .patience = 1000};
    uint64_t ms = 0;
    (void)state;
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        assert_true(mirror_retry_next(&r, 0, 0, &ms));
        assert_in_range(ms, seconds[i] * 1000, seconds[i] * 1000 * 9 / 8);
        assert_int_equal(r.failures, i + 1);
    }
    ms = 7;
    assert_false(mirror_retry_next(&r, 0, 0, &ms));
    assert_int_equal(ms, 7);
}

static void test_what_the_server_asks_for(void **state)
{
    struct mirror_retry r = {.allowed = 3, .patience = 1000};
    uint64_t ms = 0;
    (void)state;
    assert_true(mirror_retry_next(&r, 0, 7, &ms));
    assert_int_equal(ms, 7000);
    assert_true(mirror_retry_next(&r, 0, 86400, &ms));
    assert_int_equal(ms, 300000);
    assert_true(mirror_retry_next(&r, 0, UINT64_MAX, &ms));
    assert_int_equal(ms, 300000);
    assert_false(mirror_retry_next(&r, 0, 7, &ms));
}

static void test_progress_counts_anew(void **state)
{
    struct mirror_retry r = {.allowed = 1, .patience = 1000, .furthest = 100};
    uint64_t ms, at = 100 + MIRROR_RETRY_PROGRESS;
    (void)state;
    assert_true(mirror_retry_next(&r, 100, 0, &ms));
    assert_true(mirror_retry_next(&r, at, 0, &ms));                              /* enough */
    assert_false(mirror_retry_next(&r, at + MIRROR_RETRY_PROGRESS - 1, 0, &ms)); /* not enough */
    at = r.furthest;
    assert_false(mirror_retry_next(&r, 0, 0, &ms));  /* it began anew, */
    assert_false(mirror_retry_next(&r, at, 0, &ms)); /* which is no progress */
    assert_true(mirror_retry_next(&r, at + MIRROR_RETRY_PROGRESS, 0, &ms));
}

static void test_no_retries(void **state)
{
    struct mirror_retry r = {.allowed = 0, .patience = 1000};
    uint64_t ms;
    (void)state;
    assert_false(mirror_retry_next(&r, 0, 0, &ms));
    assert_false(mirror_retry_next(&r, 10 * MIRROR_RETRY_PROGRESS, 5, &ms));
}

/* ---- the pace ---- */

static void test_pace(void **state)
{
    struct mirror_pace p = {.rate = 1000000, .at = 5000};
    uint64_t now = 5000, bytes = 0;
    (void)state;
    assert_int_equal(mirror_pace_wait(&p, now), 0);
    while (now < 15000) {
        mirror_pace_take(&p, 100000);
        bytes += 100000;
        uint64_t wait = mirror_pace_wait(&p, now);
        now += wait ? wait : 1;
        mirror_pace_wait(&p, now);
    }
    assert_in_range(bytes, 9500000, 10400000); /* in ten seconds */
    /* An idle hour does not make up for an hour. */
    assert_int_equal(mirror_pace_wait(&p, now += 3600000), 0);
    mirror_pace_take(&p, 1250000);
    assert_in_range(mirror_pace_wait(&p, now), 1000, 1001);
}

static void test_slow_pace(void **state)
{
    struct mirror_pace p = {.rate = 10};
    uint64_t now = 0;
    (void)state;
    mirror_pace_take(&p, 100);
    for (; mirror_pace_wait(&p, now) > 0; now++) /* asked every millisecond */
        assert_in_range(now, 0, 10100);
    assert_in_range(now, 9900, 10100);
}

static void test_no_pace(void **state)
{
    struct mirror_pace p = {0};
    (void)state;
    mirror_pace_take(&p, SIZE_MAX / 2);
    assert_int_equal(mirror_pace_wait(&p, 1), 0);
}

/* ---- headers ---- */

static void test_ranges(void **state)
{
    static const struct {
        const char *range;
        bool fits;
    } cases[] = {
        {"bytes 100-299/300", true},
        {"Bytes 100-299/300", true},
        {"bytes 100-299/*", true},
        {NULL, false},
        {"", false},
        {"bytes", false},
        {"bytes */300", false},
        {"bytes 99-299/300", false},
        {"bytes 100-298/300", false},
        {"bytes 100-300/301", false},
        {"bytes 100-299/301", false},
        {"bytes 100-299", false},
        {"bytes 100-299/", false},
        {"bytes 100-299/300 ", false},
        {"bytes -100-299/300", false},
        {"bytes +100-299/300", false},
        {"bytes 18446744073709551716-299/300", false}, /* 2^64 + 100 */
        {"items 100-299/300", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (mirror_header_range_fits(cases[i].range, 100, 300) != cases[i].fits)
            fail_msg("%s", cases[i].range);
}

static void test_lengths(void **state)
{
    (void)state;
    assert_int_equal(mirror_header_length("0"), 0);
    assert_int_equal(mirror_header_length("18446744073709551614"), UINT64_MAX - 1);
    assert_true(mirror_header_length("18446744073709551616") == MIRROR_SIZE_UNKNOWN);
    assert_true(mirror_header_length(NULL) == MIRROR_SIZE_UNKNOWN);
    assert_true(mirror_header_length("") == MIRROR_SIZE_UNKNOWN);
    assert_true(mirror_header_length("-1") == MIRROR_SIZE_UNKNOWN);
    assert_true(mirror_header_length("12, 12") == MIRROR_SIZE_UNKNOWN);
}

static void test_validators(void **state)
{
    static const char date[] = "Fri, 04 Oct 2024 09:30:00 GMT";
    static const char *const bad[] = {
        "W/\"x\"", "x", "\"", "", "\"a\"b\"", "\"a", "\"\x1f\"", "\"caf\xc3\xa9\"", date};
    uvm_auto_free char *longest = uvm_alloc(MIRROR_VALIDATOR_MAX + 2);
    (void)state;
    memset(longest, '"', MIRROR_VALIDATOR_MAX + 1);
    memset(longest + 1, 'x', MIRROR_VALIDATOR_MAX - 1);
    assert_string_equal(mirror_header_validator("\"x\"", date), "\"x\"");
    assert_string_equal(mirror_header_validator("\"\"", NULL), "\"\"");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_null(mirror_header_validator(bad[i], NULL));
        assert_ptr_equal(mirror_header_validator(bad[i], date), date);
        assert_int_equal(mirror_header_validator_ok(bad[i]), bad[i] == date);
    }
    assert_null(mirror_header_validator(longest, "yesterday"));
    longest[MIRROR_VALIDATOR_MAX] = 0;
    longest[MIRROR_VALIDATOR_MAX - 1] = '"';
    assert_non_null(mirror_header_validator(longest, NULL));
    assert_null(mirror_header_validator(NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delays_double),
        cmocka_unit_test(test_what_the_server_asks_for),
        cmocka_unit_test(test_progress_counts_anew),
        cmocka_unit_test(test_no_retries),
        cmocka_unit_test(test_pace),
        cmocka_unit_test(test_slow_pace),
        cmocka_unit_test(test_no_pace),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_validators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

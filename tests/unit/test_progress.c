/* cmd/progress.c and cmd/block.c: the steps that run, as lines; and cmd_columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "cmd/cmd.h"
#include "cmd/progress.h"

#define MB ((uint64_t)1000000)
#define GB ((uint64_t)1000 * MB)

#define auto_progress __attribute__((cleanup(cmd_progress_clear))) struct cmd_progress

enum { START = 1000, ROWS = 24, WIDE = 200 };

static void move(struct cmd_progress *p, const char *step, const char *subject, uint64_t done,
                 uint64_t total, int64_t now)
{
    struct uvm_event event = {UVM_EVENT_PROGRESS, step, subject, NULL, done, total};
    cmd_progress_move(p, &event, now);
    cmd_progress_tick(p, now);
}

static void end(struct cmd_progress *p, enum uvm_event_kind kind, const char *subject, int64_t now)
{
    struct uvm_event event = {kind, "download", subject, NULL, 0, 0};
    cmd_progress_end(p, &event, now);
}

/* Downloads `subject` at a steady 10 MB/s from `from` for so many seconds. */
static int64_t download(struct cmd_progress *p, const char *subject, uint64_t from, uint64_t total,
                        unsigned seconds)
{
    for (unsigned i = 0; i <= 10 * seconds; i++)
        move(p, "download", subject, from + i * MB, total, START + 100 * i);
    return START + 1000 * (int64_t)seconds;
}

static void expect_block(const struct cmd_progress *p, size_t rows, size_t columns, int64_t now,
                         const char *wanted)
{
    uvm_auto_free char *block = cmd_progress_block(p, rows, columns, now);
    assert_string_equal(block, wanted);
}

static void nothing_runs_no_lines(void **state)
{
    (void)state;
    auto_progress p = {0};
    expect_block(&p, ROWS, WIDE, START, "");
    move(&p, "download", "a", 1, 2, START);
    end(&p, UVM_EVENT_DONE, "a", START);
    end(&p, UVM_EVENT_DONE, "a", START);
    expect_block(&p, ROWS, WIDE, START, "");
}

static void a_line_at_each_width(void **state)
{
    (void)state;
    auto_progress p = {0};
    int64_t now = download(&p, "noble amd64 20241004", 105 * MB, 1004 * MB, 10);
    expect_block(&p, ROWS, 199, now,
                 "download noble amd64 20241004   20 % of 1.00 GB  10.0 MB/s  1:20 left\n");
    expect_block(&p, ROWS, 79, now,
                 "download noble amd64 20241004   20 % of 1.00 GB  10.0 MB/s  1:20 left\n");
    expect_block(&p, ROWS, 63, now,
                 "download noble am..   20 % of 1.00 GB  10.0 MB/s  1:20 left\n");
    expect_block(&p, ROWS, 39, now, "noble amd64 2..  20 % 10.0 MB/s 1:20\n");
    expect_block(&p, ROWS, 20, now, "noble amd6..  20 %\n");
}

static void no_line_is_wider_than_it_may(void **state)
{
    (void)state;
    auto_progress p = {0};
    cmd_progress_expect(&p, "download", 900 * GB);
    /* All figures at their widest; nearly ten days are left. */
    move(&p, "download", "日本語の名前は一文字で二桁", 0, 100 * GB, START);
    move(&p, "download", "日本語の名前は一文字で二桁", 999 * 300, 100 * GB, START + 1000);
    move(&p, "compare", "no total, and a name that is rather longer than the terminal", 0, 0,
         START);
    move(&p, "bundle", "", 5, 5, START);
    for (size_t columns = 0; columns < 150; columns++) {
        uvm_auto_free char *block = cmd_progress_block(&p, ROWS, columns, START + 2000);
        for (char *save, *line = strtok_r(block, "\n", &save); line;
             line = strtok_r(NULL, "\n", &save))
            assert_true(cmd_columns(line) <= columns);
    }
}

/* What a resumed transfer had before it began says nothing about its rate; what it did a minute ago
 * neither. */
static void the_rate_is_that_of_the_last_seconds(void **state)
{
    (void)state;
    auto_progress p = {0};
    int64_t now = download(&p, "a", 5 * GB, 9 * GB, 60);
    struct cmd_step *s = &p.steps[0];
    assert_true(s->rate.per_second > 9.9 * MB && s->rate.per_second < 10.1 * MB);
    for (int i = 1; i <= 200; i++)
        move(&p, "download", "a", s->done + 100000, 9 * GB, now + 100 * i);
    assert_true(s->rate.per_second < 1.2 * MB);
    now += 20000;
    /* After a minute without anything it comes back to speed at once. */
    for (int i = 1; i <= 100; i++)
        move(&p, "download", "a", s->done + MB, 9 * GB, now + 60000 + 100 * i);
    assert_true(s->rate.per_second > 8.5 * MB);
}

static void a_step_that_starts_over_has_no_negative_rate(void **state)
{
    (void)state;
    auto_progress p = {0};
    int64_t now = download(&p, "a", 0, 1 * GB, 10);
    move(&p, "download", "a", 0, 1 * GB, now + 300);
    assert_true(p.steps[0].rate.per_second > 0 && p.steps[0].rate.per_second < 10.1 * MB);
    uvm_auto_free char *block = cmd_progress_block(&p, ROWS, WIDE, now + 300);
    assert_non_null(strstr(block, "download a    0 % of 1.00 GB  9."));
}

static void what_waits_says_so(void **state)
{
    (void)state;
    auto_progress p = {0};
    int64_t now = download(&p, "a", 0, 1 * GB, 10);
    cmd_progress_tick(&p, now + 65000);
    expect_block(&p, ROWS, WIDE, now + 65000, "download a   10 % of 1.00 GB    waiting  1:05\n");
    expect_block(&p, ROWS, 39, now + 65000, "a  10 %   waiting 1:05\n");
}

static void without_a_total_there_is_no_time_left(void **state)
{
    (void)state;
    auto_progress p = {0};
    for (unsigned i = 0; i <= 50; i++)
        move(&p, "compare", "a", i * MB, 0, START + 100 * i);
    expect_block(&p, ROWS, WIDE, START + 5000, "compare a           50.0 MB  10.0 MB/s\n");
}

static void one_transfer_has_no_line_of_the_total(void **state)
{
    (void)state;
    auto_progress p = {0};
    cmd_progress_expect(&p, "download", 1 * GB);
    move(&p, "download", "a", 0, 1 * GB, START);
    move(&p, "bundle", "b", 0, 1 * GB, START);
    expect_block(&p, ROWS, WIDE, START,
                 "download a    0 % of 1.00 GB\n"
                 "bundle b      0 % of 1.00 GB\n");
}

/* Those that ended, that run, and that were announced; each at 10 MB/s. */
static void the_total_is_that_of_one_kind_of_step(void **state)
{
    (void)state;
    auto_progress p = {0};
    for (unsigned i = 0; i <= 40; i++) {
        move(&p, "download", "a", i * MB, 82 * MB, START + 100 * i);
        move(&p, "download", "b", i * MB, 60 * MB, START + 100 * i);
        move(&p, "bundle", "c", 7, 9 * GB, START + 100 * i);
    }
    uvm_auto_free char *block = cmd_progress_block(&p, ROWS, WIDE, START + 4000);
    assert_non_null(strstr(block, "download total   56 % of  142 MB "));
    assert_true(p.totals[0].rate.per_second > 19 * MB && p.totals[0].rate.per_second < 21 * MB);

    cmd_progress_expect(&p, "download", 200 * MB);
    end(&p, UVM_EVENT_DONE, "b", START + 4000);
    uvm_auto_free char *later = cmd_progress_block(&p, ROWS, WIDE, START + 4000);
    assert_non_null(strstr(later, "download a "));
    assert_null(strstr(later, "download b "));
    assert_non_null(strstr(later, "download total   50 % of  200 MB"));

    /* What failed is not waited for. */
    end(&p, UVM_EVENT_FAILED, "a", START + 4000);
    move(&p, "download", "d", 0, 20 * MB, START + 4000);
    uvm_auto_free char *last = cmd_progress_block(&p, ROWS, WIDE, START + 4000);
    assert_null(strstr(last, "download a "));
    assert_non_null(strstr(last, "download total   50 % of  118 MB"));
}

static size_t lines_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void what_has_no_room_is_counted(void **state)
{
    (void)state;
    auto_progress p = {0};
    for (char name[] = "a"; *name < 'a' + 12; (*name)++)
        move(&p, "download", name, 0, 10 * MB, START);
    expect_block(&p, 5, WIDE, START,
                 "download a        0 % of 10.0 MB\n"
                 "and 11 more\n"
                 "download total    0 % of  120 MB\n");
    expect_block(&p, 4, WIDE, START,
                 "download a        0 % of 10.0 MB\n"
                 "download total    0 % of  120 MB\n");
    uvm_auto_free char *block = cmd_progress_block(&p, 100, WIDE, START);
    assert_int_equal(lines_of(block), 8);
    assert_non_null(strstr(block, "\nand 6 more\n"));
    for (size_t rows = 0; rows < 20; rows++) {
        uvm_auto_free char *small = cmd_progress_block(&p, rows, WIDE, START);
        assert_true(lines_of(small) >= 1 && lines_of(small) <= (rows > 3 ? rows - 2 : 1));
    }
}

static void a_subject_is_in_one_step_at_a_time(void **state)
{
    (void)state;
    auto_progress p = {0};
    move(&p, "verify", "a", 10 * MB, 10 * MB, START);
    move(&p, "download", "a", 5 * MB, 10 * MB, START);
    expect_block(&p, ROWS, WIDE, START, "download a   50 % of 10.0 MB\n");
}

static void what_never_ends_is_forgotten_at_last(void **state)
{
    (void)state;
    auto_progress p = {0};
    for (unsigned i = 0; i < 3 * CMD_STEPS_MAX; i++) {
        uvm_auto_free char *name = uvm_format("%u", i);
        move(&p, "download", name, 0, 10, START + i);
        move(&p, "bundle", "b", i, 1000, START + i);
    }
    assert_int_equal(p.count, CMD_STEPS_MAX);
    uvm_auto_free char *block = cmd_progress_block(&p, ROWS, WIDE, START);
    assert_non_null(strstr(block, "bundle b "));
}

static void a_subject_does_not_speak_to_the_terminal(void **state)
{
    (void)state;
    auto_progress p = {0};
    move(&p, "download", "\033[2J\xff", 0, 10, START);
    expect_block(&p, ROWS, WIDE, START, "download ?[2J?    0 % of    10 B\n");
}

static void expect_log(struct cmd_progress *p, int64_t now, const char *wanted)
{
    uvm_auto_free char *log = cmd_progress_log(p, now);
    assert_string_equal(log, wanted);
}

static void a_log_gets_a_line_now_and_then(void **state)
{
    (void)state;
    auto_progress p = {0};
    int64_t now = download(&p, "a", 0, 1 * GB, 29);
    expect_log(&p, now, "");
    now = START + 30000;
    move(&p, "download", "a", 301 * MB, 1 * GB, now);
    uvm_auto_free char *first = cmd_progress_log(&p, now);
    assert_non_null(strstr(first, "download a: 30 % of 1.00 GB, 10."));
    assert_non_null(strstr(first, " MB/s, 1:"));
    assert_non_null(strstr(first, " left\n"));
    expect_log(&p, now + 1000, "");
    /* 9 % are not worth a line, 10 % are. */
    move(&p, "download", "a", 391 * MB, 1 * GB, now + 40000);
    expect_log(&p, now + 40000, "");
    move(&p, "download", "a", 402 * MB, 1 * GB, now + 41000);
    uvm_auto_free char *more = cmd_progress_log(&p, now + 41000);
    assert_non_null(strstr(more, "download a: 40 % of 1.00 GB, "));
    /* Silence is, after two minutes. */
    expect_log(&p, now + 160999, "");
    expect_log(&p, now + 161000, "download a: 40 % of 1.00 GB, waiting for 2:00\n");
}

static void columns_are_those_of_the_terminal(void **state)
{
    (void)state;
    assert_int_equal(cmd_columns(""), 0);
    assert_int_equal(cmd_columns("abc"), 3);
    assert_int_equal(cmd_columns("äöü"), 3);
    assert_int_equal(cmd_columns("画像"), 4);
    assert_int_equal(cmd_columns("e\xcc\x81"), 1); /* an accent of its own */
    assert_int_equal(cmd_columns("\xc3"), 1);      /* half a character ends somewhere, too */
    uvm_auto_free char *whole = cmd_columns_cut("äöü", 3), *cut = cmd_columns_cut("画像画像", 7),
                       *narrow = cmd_columns_cut("画像", 3), *none = cmd_columns_cut("a", 0);
    assert_string_equal(whole, "äöü");
    assert_string_equal(cut, "画像..");
    assert_string_equal(narrow, "画");
    assert_string_equal(none, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_runs_no_lines),
        cmocka_unit_test(a_line_at_each_width),
        cmocka_unit_test(no_line_is_wider_than_it_may),
        cmocka_unit_test(the_rate_is_that_of_the_last_seconds),
        cmocka_unit_test(a_step_that_starts_over_has_no_negative_rate),
        cmocka_unit_test(what_waits_says_so),
        cmocka_unit_test(without_a_total_there_is_no_time_left),
        cmocka_unit_test(one_transfer_has_no_line_of_the_total),
        cmocka_unit_test(the_total_is_that_of_one_kind_of_step),
        cmocka_unit_test(what_has_no_room_is_counted),
        cmocka_unit_test(a_subject_is_in_one_step_at_a_time),
        cmocka_unit_test(what_never_ends_is_forgotten_at_last),
        cmocka_unit_test(a_subject_does_not_speak_to_the_terminal),
        cmocka_unit_test(a_log_gets_a_line_now_and_then),
        cmocka_unit_test(columns_are_those_of_the_terminal),
    };
    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}

/* cmd/option.c, and small words of cmd/. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "cmd/cmd.h"

struct options {
    struct cmd_common common;
    bool flag;
    const char *text;
    struct uvm_strings list;
    unsigned number;
    uint64_t bytes;
    unsigned seconds;
};

static const struct cmd_option table[] = {
    {"flag", 'f', CMD_FLAG, NULL, "a flag", offsetof(struct options, flag)},
    {"text", 't', CMD_TEXT, "TEXT", "a text", offsetof(struct options, text)},
    {"list", 0, CMD_LIST, "ITEM", "a list", offsetof(struct options, list)},
    {"number", 0, CMD_NUMBER, "N", "a number", offsetof(struct options, number)},
    {"bytes", 0, CMD_BYTES, "SIZE", "a size", offsetof(struct options, bytes)},
    {"seconds", 0, CMD_SECONDS, "TIME", "a time", offsetof(struct options, seconds)},
    CMD_COMMON_OPTIONS(struct options),
    {0},
};

static const struct cmd_command command = {
    .name = "try", .args = "", .options = table, .options_size = sizeof(struct options)};

/* Splits `line` at blanks and parses it. */
static bool parse(const char *line, struct options *options, struct uvm_strings *args,
                  struct uvm_error *err)
{
    uvm_auto_strings words = {0};
    uvm_auto_free char *copy = uvm_format("try %s", line);
    for (char *save, *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        uvm_strings_add(&words, word);
    bool help = false;
    *options = (struct options){0};
    bool ok = cmd_options_parse(&command, (int)words.count, words.items, options, args, &help, err);
    /* Texts are borrowed from the words, which go now. */
    options->text = options->text && strcmp(options->text, "x") == 0 ? "x"
                    : options->text                                  ? "?"
                                                                     : NULL;
    return ok;
}

static void test_empty_values(void **state)
{
    (void)state;
    for (const struct cmd_option *o = table; o->name; o++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        struct options filled = {0};
        if (o->kind == CMD_FLAG)
            continue;
        assert_false(cmd_option_set(o, &filled, "", &err));
        assert_int_equal(err.code, UVM_USAGE);
        assert_non_null(strstr(err.message, o->name));
    }
}

static void test_all_kinds(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_strings args = {0};
    struct options o;
    assert_true(parse("one -f --text=x --list a --list=b two --number 7 --bytes 3k -q three", &o,
                      &args, &err));
    assert_true(o.flag && o.common.quiet && !o.common.json);
    assert_string_equal(o.text, "x");
    assert_int_equal(o.list.count, 2);
    assert_string_equal(o.list.items[1], "b");
    assert_int_equal(o.number, 7);
    assert_int_equal(o.bytes, 3072);
    assert_int_equal(args.count, 3);
    assert_string_equal(args.items[2], "three");
    cmd_options_clear(&command, &o);
}

static void test_wrong_lines(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"--nope", "there is no option '--nope'"},
        {"-x", "there is no option '-x'"},
        {"--text", "missing after '--text'"},
        {"-t", "missing after '-t'"},
        {"--flag=1", "no value is expected"},
        {"--number -1", "not a number"},
        {"--number 1x", "not a number"},
        {"--number 1000001", "not a number"},
        {"--bytes 1X", "not a size"},
        {"--bytes kk", "not a size"},
        {"--bytes 99999999999999999999", "not a size"},
        {"--bytes 18000000000G", "not a size"},
        {"--seconds 3w", "not a time"},
        {"--seconds 5mm", "not a time"},
        {"--seconds h", "not a time"},
        {"--seconds 2000d", "not a time"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        uvm_auto_strings args = {0};
        struct options o;
        assert_false(parse(lines[i][0], &o, &args, &err));
        assert_int_equal(err.code, UVM_USAGE);
        if (!strstr(err.message, lines[i][1]))
            fail_msg("'%s': %s", lines[i][0], err.message);
        cmd_options_clear(&command, &o);
    }
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        unsigned seconds;
    } times[] = {{"--seconds 90", 90},
                 {"--seconds 90s", 90},
                 {"--seconds 15m", 900},
                 {"--seconds 6h", 21600},
                 {"--seconds 2d", 172800}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        uvm_auto_strings args = {0};
        struct options o;
        assert_true(parse(times[i].line, &o, &args, &err));
        assert_int_equal(o.seconds, times[i].seconds);
    }
}

static void test_age(void **state)
{
    (void)state;
    static const struct {
        time_t created, now;
        const char *text;
    } ages[] = {{1000, 1000, "0 seconds old"},
                {1000, 1061, "1 minute old"},
                {1000, 1000 + 3 * 86400, "3 days old"},
                {8200, 1000, "from the future by 2 hours (check the clocks)"}};
    for (size_t i = 0; i < sizeof ages / sizeof *ages; i++) {
        uvm_auto_free char *text = cmd_age_text(ages[i].created, ages[i].now);
        assert_string_equal(text, ages[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_values), cmocka_unit_test(test_all_kinds),
        cmocka_unit_test(test_wrong_lines),  cmocka_unit_test(test_times),
        cmocka_unit_test(test_age),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

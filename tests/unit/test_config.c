/* cmd/config.c: the host's policy against the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd/cmd.h"

struct options {
    struct cmd_common common;
    struct cmd_trust trust;
    struct cmd_host host;
};

static const struct cmd_option table[] = {
    CMD_TRUST_OPTIONS(struct options),
    CMD_HOST_OPTIONS(struct options),
    CMD_COMMON_OPTIONS(struct options),
    {0},
};

static const struct cmd_command command = {
    .name = "try", .args = "", .options = table, .options_size = sizeof(struct options)};

/* A run with this configuration and command line, as main.c goes about it. */
struct run {
    char path[32];
    struct cmd_config config;
    struct options options;
    struct uvm_strings words, args;
    struct uvm_error err;
    bool ok;
};

static void run_clear(struct run *r)
{
    cmd_options_clear(&command, &r->options);
    cmd_config_clear(&r->config);
    uvm_strings_clear(&r->words);
    uvm_strings_clear(&r->args);
    uvm_error_clear(&r->err);
    unlink(r->path);
}
#define auto_run __attribute__((cleanup(run_clear))) struct run

static void try(struct run *r, const char *config, const char *line)
{
    strcpy(r->path, "/tmp/uvmirror-conf-XXXXXX");
    uvm_auto_fd fd = mkstemp(r->path);
    assert_true(uvm_write_all(fd, config, strlen(config), &r->err));
    uvm_auto_free char *copy = uvm_format("try %s", line);
    for (char *save, *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        uvm_strings_add(&r->words, word);
    bool help = false;
    r->ok = cmd_config_load(r->path, &r->config, &r->err) &&
            cmd_config_apply(&r->config, &command, &r->options, &r->err) &&
            cmd_options_parse(&command, (int)r->words.count, r->words.items, &r->options, &r->args,
                              &help, &r->err) &&
            cmd_config_check(&r->config, &command, &r->options, &r->err);
}

static void test_everything_is_set(void **state)
{
    (void)state;
    auto_run r = {0};
    try(&r,
        "# policy\n"
        "require-origin = yes\n"
        "origin-keyring = /etc/a.gpg\n"
        "origin-keyring = /etc/b.gpg\n"
        "max-age=30\n"
        "\n"
        "pool = big\n"
        "metadata-dir = /srv/metadata\n"
        "connect = qemu:///session\n",
        "");
    assert_true(r.ok);
    assert_true(r.options.trust.require_origin);
    assert_int_equal(r.options.trust.origin_keyrings.count, 2);
    assert_string_equal(r.options.trust.origin_keyrings.items[1], "/etc/b.gpg");
    assert_int_equal(r.options.trust.max_age, 30);
    assert_string_equal(r.options.host.pool, "big");
    assert_string_equal(r.options.host.metadata_dir, "/srv/metadata");
    assert_string_equal(r.options.host.connect, "qemu:///session");
}

static void test_missing_file_is_fine(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct cmd_config config = {0};
    assert_true(cmd_config_load("/nonexistent/uvmirror.conf", &config, &err));
    assert_int_equal(config.names.count, 0);
    cmd_config_clear(&config);
    assert_false(cmd_config_load("/", &config, &err));
    assert_int_equal(err.code, UVM_FAILED);
}

static void test_command_line_may_tighten(void **state)
{
    (void)state;
    auto_run r = {0};
    try(&r, "max-age = 30\nrequire-origin = no\nconnect = qemu:///session\n",
        "--max-age 7 --require-origin --connect qemu:///system");
    assert_true(r.ok);
    assert_int_equal(r.options.trust.max_age, 7);
    assert_true(r.options.trust.require_origin);
    assert_string_equal(r.options.host.connect, "qemu:///system");
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"max-age = 30\n", "--max-age 31", "allows at most 30"},
        {"max-age = 30\n", "--max-age 0", "allows at most 30"},
        {"origin-keyring = /etc/a.gpg\n", "--origin-keyring x.gpg", "may not change"},
        {"max-age = soon\n", "", "not a number"},
        {"require-origin = maybe\n", "", "neither yes nor no"},
        {"\nrequier-origin = yes\n", "", "line 2: there is no setting 'requier-origin'"},
        {"[policy]\nmax-age = 1\n", "", "no sections"},
        {"max-age 30\n", "", "line 1: this is no 'key = value'"},
        {"state-dir = /tmp\n", "", "no setting 'state-dir'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        auto_run r = {0};
        try(&r, cases[i][0], cases[i][1]);
        assert_false(r.ok);
        assert_int_equal(r.err.code, UVM_USAGE);
        if (!strstr(r.err.message, cases[i][2]))
            fail_msg("'%s' with '%s': %s", cases[i][0], cases[i][1], r.err.message);
    }
}

/* inih cuts long lines; what is cut must not pass for the whole. */
static void test_a_long_line(void **state)
{
    (void)state;
    auto_run r = {0};
    uvm_auto_free char *config = uvm_format("origin-keyring = /%0500d\n", 7);
    try(&r, config, "");
    assert_false(r.ok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_is_set),
        cmocka_unit_test(test_missing_file_is_fine),
        cmocka_unit_test(test_command_line_may_tighten),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_a_long_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

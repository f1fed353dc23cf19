/*
 * The host's policy and defaults: /etc/uvmirror/uvmirror.conf, lines of "key = value" whose keys are
 * options' names.
 *
 *     require-origin = yes
 *     origin-keyring = /etc/uvmirror/vendor.gpg      (may stand several times)
 *     max-age = 30
 *     pool, metadata-dir, connect                    (defaults)
 *
 * The file sets an option before the command line does. What it says of trust is policy: the command
 * line may ask for more, never for less.
 */
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"

enum rule {
    RULE_DEFAULT, /* the command line decides */
    RULE_YES,     /* a flag that the command line cannot take back */
    RULE_AT_MOST, /* a number: the command line may name a smaller one, 0 is none */
    RULE_FIXED,   /* a list that the command line may not add to */
};

static const struct key {
    const char *name;
    enum rule rule;
} keys[] = {
    {"require-origin", RULE_YES}, {"origin-keyring", RULE_FIXED}, {"max-age", RULE_AT_MOST},
    {"pool", RULE_DEFAULT},       {"metadata-dir", RULE_DEFAULT}, {"connect", RULE_DEFAULT},
};

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

/* ---- the file ---- */

struct reading {
    struct cmd_config *config;
    struct uvm_error *err;
};

static int on_line(void *opaque, const char *section, const char *name, const char *value)
{
    struct reading *reading = opaque;
    if (reading->err->code != UVM_OK)
        return 0;
    uvm_auto_free char *safe = uvm_printable(*section ? section : name);
    if (*section)
        return uvm_fail(reading->err, UVM_USAGE, "there are no sections here, such as [%s]", safe);
    if (!find_key(name))
        return uvm_fail(reading->err, UVM_USAGE, "there is no setting '%s'", safe);
    uvm_strings_add(&reading->config->names, name);
    uvm_strings_add(&reading->config->values, value);
    return 1;
}

static void close_file(FILE **file)
{
    if (*file)
        fclose(*file);
}

void cmd_config_clear(struct cmd_config *config)
{
    uvm_strings_clear(&config->names);
    uvm_strings_clear(&config->values);
    free(config->path);
    *config = (struct cmd_config){0};
}

bool cmd_config_load(const char *path, struct cmd_config *ret_config, struct uvm_error *err)
{
    __attribute__((cleanup(cmd_config_clear))) struct cmd_config config = {.path =
                                                                               uvm_strdup(path)};
    __attribute__((cleanup(close_file))) FILE *file = fopen(path, "re");
    struct reading reading = {&config, err};
    if (!file && errno != ENOENT && errno != ENOTDIR)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    int line = file ? ini_parse_file(file, on_line, &reading) : 0;
    if (err->code != UVM_OK)
        return uvm_prefix(err, "%s, line %d", path, line);
    if (line > 0)
        return uvm_fail(err, UVM_USAGE, "%s, line %d: this is no 'key = value'", path, line);
    if (file && ferror(file))
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    *ret_config = config;
    config = (struct cmd_config){0};
    return true;
}

/* ---- into the options, before the command line ---- */

static bool is_one_of(const char *value, const char *const *words)
{
    for (; *words; words++)
        if (strcasecmp(value, *words) == 0)
            return true;
    return false;
}

/* Sets *ret_on when the flag is to be set. */
static bool parse_flag(const char *value, bool *ret_on, struct uvm_error *err)
{
    static const char *const yes[] = {"yes", "true", "on", "1", NULL};
    static const char *const no[] = {"no", "false", "off", "0", NULL};
    uvm_auto_free char *safe = uvm_printable(value);
    *ret_on = is_one_of(value, yes);
    return *ret_on || is_one_of(value, no) ||
           uvm_fail(err, UVM_USAGE, "'%s' is neither yes nor no", safe);
}

static bool apply(const struct cmd_option *option, void *options, const char *value,
                  struct uvm_error *err)
{
    bool on = true;
    return (option->kind != CMD_FLAG || parse_flag(value, &on, err)) &&
           (!on || cmd_option_set(option, options, value, err));
}

bool cmd_config_apply(const struct cmd_config *config, const struct cmd_command *command,
                      void *options, struct uvm_error *err)
{
    for (size_t i = 0; i < config->names.count; i++) {
        const struct cmd_option *option = cmd_option_find(command, config->names.items[i]);
        if (option && !apply(option, options, config->values.items[i], err))
            return uvm_prefix(err, "%s: %s", config->path, option->name);
    }
    return true;
}

/* ---- and behind it ---- */

static const char *last_value(const struct cmd_config *config, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < config->names.count; i++)
        if (strcmp(config->names.items[i], name) == 0)
            value = config->values.items[i];
    return value;
}

static size_t count_values(const struct cmd_config *config, const char *name)
{
    size_t count = 0;
    for (size_t i = 0; i < config->names.count; i++)
        count += strcmp(config->names.items[i], name) == 0;
    return count;
}

static bool check_at_most(const struct cmd_config *config, const struct cmd_option *option,
                          const void *options, struct uvm_error *err)
{
    unsigned given = *(const unsigned *)((const char *)options + option->offset);
    unsigned limit = (unsigned)strtoul(last_value(config, option->name), NULL, 10);
    return limit == 0 || (given > 0 && given <= limit) ||
           uvm_fail(err, UVM_USAGE, "--%s: %s allows at most %u", option->name, config->path,
                    limit);
}

static bool check_fixed(const struct cmd_config *config, const struct cmd_option *option,
                        const void *options, struct uvm_error *err)
{
    const struct uvm_strings *given = (const void *)((const char *)options + option->offset);
    return given->count == count_values(config, option->name) ||
           uvm_fail(err, UVM_USAGE, "--%s: it is set by %s, which an option may not change",
                    option->name, config->path);
}

bool cmd_config_check(const struct cmd_config *config, const struct cmd_command *command,
                      const void *options, struct uvm_error *err)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct cmd_option *option = cmd_option_find(command, keys[i].name);
        if (!option || !last_value(config, keys[i].name))
            continue;
        if ((keys[i].rule == RULE_AT_MOST && !check_at_most(config, option, options, err)) ||
            (keys[i].rule == RULE_FIXED && !check_fixed(config, option, options, err)))
            return false;
    }
    return true;
}

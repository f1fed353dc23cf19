/* Options: parsing, --help and the manual's list, all from a command's table. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"

enum { WIDTH = 80, HELP_COLUMN = 26 };

#define SECONDS_MAX 100000000 /* three years */

static const struct cmd_option help_option = {"help", 'h', CMD_FLAG, NULL, "print this text", 0};

static size_t count_options(const struct cmd_command *command)
{
    size_t n = 0;
    while (command->options[n].name)
        n++;
    return n;
}

const struct cmd_option *cmd_option_find(const struct cmd_command *command, const char *name)
{
    for (const struct cmd_option *o = command->options; o->name; o++)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

/* ---- values ---- */

static bool parse_number(const char *text, uint64_t max, uint64_t *ret, const char **ret_rest)
{
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || value > max)
        return false;
    *ret = value;
    *ret_rest = end;
    return true;
}

static bool parse_bytes(const char *text, uint64_t *ret)
{
    static const char units[] = "kMGT";
    uint64_t value;
    const char *rest;
    if (!parse_number(text, UINT64_MAX, &value, &rest))
        return false;
    if (*rest) {
        const char *unit = strchr(units, *rest == 'K' ? 'k' : *rest);
        unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
        if (!unit || rest[1] || value > UINT64_MAX >> shift)
            return false;
        value <<= shift;
    }
    *ret = value;
    return true;
}

/* "90", "15m", "6h", "2d" */
static bool parse_seconds(const char *text, unsigned *ret)
{
    static const struct {
        char unit;
        unsigned seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    uint64_t value;
    const char *rest;
    if (!parse_number(text, SECONDS_MAX, &value, &rest))
        return false;
    for (size_t i = 0; *rest && i < sizeof units / sizeof *units; i++)
        if (units[i].unit == *rest && !rest[1]) {
            value *= units[i].seconds;
            rest++;
        }
    if (*rest || value > SECONDS_MAX)
        return false;
    *ret = (unsigned)value;
    return true;
}

bool cmd_option_set(const struct cmd_option *option, void *options, const char *text,
                    struct uvm_error *err)
{
    void *at = (char *)options + option->offset;
    uint64_t number;
    const char *rest;
    if (option->kind != CMD_FLAG && !*text)
        return uvm_fail(err, UVM_USAGE, "--%s: its value is empty", option->name);
    switch (option->kind) {
    case CMD_FLAG:
        *(bool *)at = true;
        return true;
    case CMD_TEXT:
        *(const char **)at = text;
        return true;
    case CMD_LIST:
        uvm_strings_add(at, text);
        return true;
    case CMD_NUMBER:
        if (parse_number(text, 1000000, &number, &rest) && !*rest) {
            *(unsigned *)at = (unsigned)number;
            return true;
        }
        return uvm_fail(err, UVM_USAGE, "--%s: '%s' is not a number from 0 to 1000000",
                        option->name, text);
    case CMD_COUNT:
        if (parse_number(text, 1000000, &number, &rest) && !*rest && number > 0) {
            *(unsigned *)at = (unsigned)number;
            return true;
        }
        return uvm_fail(err, UVM_USAGE, "--%s: '%s' is not a number from 1 to 1000000",
                        option->name, text);
    case CMD_BYTES:
        if (parse_bytes(text, at))
            return true;
        return uvm_fail(err, UVM_USAGE, "--%s: '%s' is not a size (such as 512M or 10G)",
                        option->name, text);
    case CMD_SECONDS:
        if (parse_seconds(text, at))
            return true;
        return uvm_fail(err, UVM_USAGE, "--%s: '%s' is not a time (such as 90, 15m, 6h or 2d)",
                        option->name, text);
    }
    return true;
}

/* ---- help ---- */

static char *option_label(const struct cmd_option *option)
{
    uvm_auto_free char *letter =
        option->letter ? uvm_format("-%c, ", option->letter) : uvm_strdup("    ");
    return uvm_format("  %s--%s%s%s", letter, option->name, option->arg ? "=" : "",
                      option->arg ? option->arg : "");
}

/* Prints text word by word from `column` on, continued at `indent`. */
static void print_wrapped(const char *text, size_t column, size_t indent)
{
    bool first = true;
    while (*text) {
        size_t len = strcspn(text, " ");
        if (!first && column + 1 + len > WIDTH - 1) {
            printf("\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        printf("%s%.*s", first ? "" : " ", (int)len, text);
        column += len + (first ? 0 : 1);
        first = false;
        text += len;
        while (*text == ' ')
            text++;
    }
    printf("\n");
}

static void print_option(const struct cmd_option *option)
{
    uvm_auto_free char *label = option_label(option);
    printf("%s", label);
    if (strlen(label) + 2 > HELP_COLUMN)
        printf("\n%*s", HELP_COLUMN, "");
    else
        printf("%*s", (int)(HELP_COLUMN - strlen(label)), "");
    print_wrapped(option->help, HELP_COLUMN, HELP_COLUMN);
}

static void print_help(const struct cmd_command *command)
{
    printf("Usage: uvmirror %s %s\n\n", command->name, command->args);
    print_wrapped(command->details, 0, 0);
    printf("\nOptions:\n");
    for (const struct cmd_option *o = command->options; o->name; o++)
        print_option(o);
    print_option(&help_option);
    printf("\nSee uvmirror-%s(1) for examples and exit codes.\n", command->name);
}

void cmd_options_print_mdoc(const struct cmd_command *command)
{
    printf(".Bl -tag -width Ds\n");
    for (size_t i = 0; i <= count_options(command); i++) {
        const struct cmd_option *o =
            i < count_options(command) ? &command->options[i] : &help_option;
        printf(".It ");
        if (o->letter)
            printf("Fl %c , ", o->letter);
        printf("Fl \\-%s", o->name);
        if (o->arg)
            printf(" Ns = Ns Ar %s", o->arg);
        printf("\n%c%s.\n", toupper((unsigned char)o->help[0]), o->help + 1);
    }
    printf(".El\n");
}

/* ---- parsing ---- */

enum { LONG_OPTION = 1000 };

/* getopt's three complaints: ':' for a missing value, '?' for an unknown option or a value too
 * many. */
static bool fail_option(const struct cmd_command *command, int c, char **argv,
                        struct uvm_error *err)
{
    uvm_auto_free char *given =
        optopt && optopt < LONG_OPTION ? uvm_format("-%c", optopt) : uvm_strdup(argv[optind - 1]);
    const char *why = c == ':'                ? "a value is missing after"
                      : optopt >= LONG_OPTION ? "no value is expected in"
                                              : "there is no option";
    return uvm_fail(err, UVM_USAGE, "%s '%s' (see 'uvmirror %s --help')", why, given,
                    command->name);
}

bool cmd_options_parse(const struct cmd_command *command, int argc, char **argv, void *options,
                       struct uvm_strings *ret_args, bool *ret_help, struct uvm_error *err)
{
    size_t count = count_options(command), letters_len = 1;
    uvm_auto_free struct option *longs = uvm_alloc((count + 2) * sizeof *longs);
    uvm_auto_free char *letters = uvm_alloc(2 * count + 4);
    letters[0] = ':';
    for (size_t i = 0; i <= count; i++) {
        const struct cmd_option *o = i < count ? &command->options[i] : &help_option;
        longs[i] = (struct option){o->name, o->arg ? required_argument : no_argument, NULL,
                                   LONG_OPTION + (int)i};
        if (!o->letter)
            continue;
        letters[letters_len++] = o->letter;
        if (o->arg)
            letters[letters_len++] = ':';
    }

    optind = 0;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        if (c == '?' || c == ':')
            return fail_option(command, c, argv, err);
        const struct cmd_option *o = NULL;
        if (c >= LONG_OPTION)
            o = (size_t)(c - LONG_OPTION) < count ? &command->options[c - LONG_OPTION]
                                                  : &help_option;
        for (size_t i = 0; !o && i <= count; i++) {
            const struct cmd_option *candidate = i < count ? &command->options[i] : &help_option;
            if (candidate->letter == c)
                o = candidate;
        }
        if (o == &help_option) {
            print_help(command);
            *ret_help = true;
            return true;
        }
        if (!cmd_option_set(o, options, optarg, err))
            return false;
    }
    for (int i = optind; i < argc; i++)
        uvm_strings_add(ret_args, argv[i]);
    return true;
}

void cmd_options_clear(const struct cmd_command *command, void *options)
{
    for (const struct cmd_option *o = command->options; o->name; o++)
        if (o->kind == CMD_LIST)
            uvm_strings_clear((struct uvm_strings *)((char *)options + o->offset));
}

/* uvmirror: finds the subcommand, runs it, and turns its error into an exit status. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"

static const struct cmd_command *const commands[] = {
    &cmd_fetch, &cmd_add,       &cmd_bundle,  &cmd_import, &cmd_verify, &cmd_show,   &cmd_list,
    &cmd_clean, &cmd_inventory, &cmd_publish, &cmd_key,    &cmd_init,   &cmd_doctor,
};

static const struct cmd_command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static void print_overview(FILE *to)
{
    fprintf(to,
            "Usage: uvmirror COMMAND [OPTION...] [ARGUMENT...]\n\n"
            "Carries Ubuntu cloud images to libvirt hosts without network, in one signed file\n\n"
            "Commands:\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(to, "\n'uvmirror COMMAND --help' lists a command's options. Start with uvmirror(1).\n");
}

static bool check_color(const struct cmd_common *common, struct uvm_error *err)
{
    const char *when = common->color ? common->color : "auto";
    if (strcmp(when, "auto") == 0 || strcmp(when, "always") == 0 || strcmp(when, "never") == 0)
        return true;
    return uvm_fail(err, UVM_USAGE, "--color: '%s' is not auto, always or never", when);
}

/* Ctrl-C reaches GnuPG too, which then finds this or that wrong with a signature: nothing is, but
 * somebody wanted to stop. */
static void explain_interrupt(const struct cmd_command *command, struct uvm_error *err)
{
    if (err->code == UVM_TRUST) {
        uvm_error_clear(err);
        uvm_fail(err, UVM_INTERRUPTED, "interrupted");
    }
    if (err->code != UVM_INTERRUPTED || !command->interrupted)
        return;
    uvm_auto_free char *message = UVM_STEAL(err->message);
    err->message = uvm_format("%s; %s", message, command->interrupted);
}

/* The command's own defaults, then the host's configuration, then the command line. Help is given
 * even where the configuration is wrong. */
static bool fill_options(const struct cmd_command *command, int argc, char **argv, void *options,
                         struct uvm_strings *args, struct cmd_config *config, bool *ret_help,
                         struct uvm_error *err)
{
    uvm_auto_error wrong = UVM_ERROR_INIT;
    if (command->defaults)
        memcpy(options, command->defaults, command->options_size);
    bool configured = cmd_config_load(CMD_CONFIG_FILE, config, &wrong) &&
                      cmd_config_apply(config, command, options, &wrong);
    if (!cmd_options_parse(command, argc, argv, options, args, ret_help, err) || *ret_help)
        return *ret_help;
    if (!configured) {
        *err = wrong;
        wrong = UVM_ERROR_INIT;
        return false;
    }
    return cmd_config_check(config, command, options, err) && check_color(options, err);
}

static int run(const struct cmd_command *command, int argc, char **argv)
{
    uvm_auto_free void *options = uvm_alloc(command->options_size);
    uvm_auto_strings args = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    __attribute__((cleanup(cmd_config_clear))) struct cmd_config config = {0};
    bool help = false;
    bool ok = fill_options(command, argc, argv, options, &args, &config, &help, &err);
    if (ok && !help) {
        cmd_ui_start(options);
        ok = command->run(options, &args, &err);
    }
    bool written = cmd_ui_end();
    if (ok && !written)
        ok = uvm_fail_errno(&err, UVM_FAILED, "standard output");
    if (!ok && cmd_ui_stopped())
        explain_interrupt(command, &err);
    if (!ok)
        cmd_print_error(command->name, &err);
    cmd_options_clear(command, options);
    return ok ? UVM_OK : (int)err.code;
}

/* Hidden; the build makes the manual's list of options from it. */
static int print_mdoc(const char *name)
{
    const struct cmd_command *command = name ? find_command(name) : NULL;
    if (!command)
        return UVM_USAGE;
    cmd_options_print_mdoc(command);
    return UVM_OK;
}

/* Else the first file that is opened takes the place of standard output, and the output. */
static void fill_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY); /* writing stays an error */
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    fill_standard_streams();
    signal(SIGPIPE, SIG_IGN); /* EPIPE and EFBIG are errors like others */
    signal(SIGXFSZ, SIG_IGN);
    mode_t strict = umask(022); /* what a host shares is not to be hidden, nor open to everybody */
    const char *name = argc > 1 ? argv[1] : "";
    const struct cmd_command *command = find_command(name);
    if (command && command->private)
        umask(strict | 022);
    if (command)
        return run(command, argc - 1, argv + 1);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        const struct cmd_command *about = argc > 2 ? find_command(argv[2]) : NULL;
        if (about)
            return run(about, 2, (char *[]){argv[2], (char[]){"--help"}, NULL});
        print_overview(stdout);
        return UVM_OK;
    }
    if (strcmp(name, "--version") == 0) {
        printf("uvmirror %s\n", UVM_VERSION);
        return UVM_OK;
    }
    if (strcmp(name, "--mdoc-options") == 0)
        return print_mdoc(argc > 2 ? argv[2] : NULL);
    if (*name)
        fprintf(stderr, "uvmirror: there is no command '%s'\n", name);
    print_overview(stderr);
    return UVM_USAGE;
}

/*
 * Output. Results go to standard output, everything about the way there to standard error: moving
 * lines on a terminal, plain lines elsewhere. With --json both become one JSON object per line on
 * standard output. Events come from any thread.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/screen.h"

static struct {
    bool json, quiet, verbose, color;
} ui;

static atomic_bool stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    atomic_store(&stop, true);
}

static void watch_signals(void)
{
    /* The second Ctrl-C ends the program as usual: whoever insists is obeyed, and the journal
     * knows. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        /* What nohup(1), or a shell's "&", lets pass stays so. */
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

void cmd_ui_start(const struct cmd_common *common)
{
    bool terminal = isatty(STDERR_FILENO);
    const char *term = getenv("TERM");
    bool dumb = !term || strcmp(term, "dumb") == 0;
    bool moving = terminal && !dumb && !common->no_progress;
    setvbuf(stdout, NULL, _IOLBF, 0); /* results and notes keep their order in a log */
    ui.json = common->json;
    ui.quiet = common->quiet;
    ui.verbose = common->verbose;
    ui.color = common->color && strcmp(common->color, "always") == 0;
    if (!common->color || strcmp(common->color, "auto") == 0)
        ui.color = terminal && !dumb && !getenv("NO_COLOR");
    cmd_screen_start(ui.json || ui.quiet ? CMD_SCREEN_BARE
                     : moving            ? CMD_SCREEN_MOVING
                                         : CMD_SCREEN_LOG);
    watch_signals();
}

bool cmd_ui_json(void)
{
    return ui.json;
}

bool cmd_ui_stopped(void)
{
    return atomic_load(&stop);
}

void cmd_ui_expect(const char *step, uint64_t bytes)
{
    cmd_screen_expect(step, bytes);
}

bool cmd_ui_end(void)
{
    return cmd_screen_end();
}

/* ---- lines ---- */

static void write_line(FILE *to, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static void write_line(FILE *to, const char *format, va_list args)
{
    uvm_auto_free char *text = uvm_vformat(format, args);
    uvm_auto_free char *line = uvm_format("%s\n", text);
    cmd_screen_write(to, line);
}

void cmd_print(const char *format, ...)
{
    if (ui.json)
        return;
    va_list args;
    va_start(args, format);
    write_line(stdout, format, args);
    va_end(args);
}

void cmd_note(const char *format, ...)
{
    if (ui.json || ui.quiet)
        return;
    va_list args;
    va_start(args, format);
    write_line(stderr, format, args);
    va_end(args);
}

void cmd_detail(const char *format, ...)
{
    if (ui.json || ui.quiet || !ui.verbose)
        return;
    va_list args;
    va_start(args, format);
    write_line(stderr, format, args);
    va_end(args);
}

void cmd_print_json(json_t *object)
{
    uvm_auto_free char *text = ui.json ? json_dumps(object, JSON_COMPACT) : NULL;
    uvm_auto_free char *line = text ? uvm_format("%s\n", text) : NULL;
    if (line)
        cmd_screen_write(stdout, line);
    json_decref(object);
}

static const char *paint(const char *code)
{
    return ui.color ? code : "";
}

/* `text` is printable. */
static void print_warning(const char *text)
{
    uvm_auto_free char *line =
        uvm_format("%swarning:%s %s\n", paint("\033[1;33m"), paint("\033[0m"), text);
    cmd_screen_write(stderr, line);
}

void cmd_print_error(const char *command, const struct uvm_error *err)
{
    uvm_auto_free char *safe = uvm_printable(err->message ? err->message : "unknown error");
    if (ui.json)
        cmd_print_json(json_pack("{s:s, s:s, s:i, s:s}", "event", "error", "command", command,
                                 "code", (int)err->code, "message", safe));
    uvm_auto_free char *line =
        uvm_format("%suvmirror:%s %s: %s\n", paint("\033[1;31m"), paint("\033[0m"), command, safe);
    cmd_screen_write(stderr, line);
}

/* ---- events ---- */

/* A subject may be a file name, which need not be UTF-8, as JSON is. */
static void print_progress_json(const struct uvm_event *event)
{
    uvm_auto_free char *subject = uvm_printable(event->subject);
    cmd_print_json(json_pack("{s:s, s:s, s:s, s:I, s:I}", "event", "progress", "step", event->step,
                             "subject", subject, "done", (json_int_t)event->done, "total",
                             (json_int_t)event->total));
}

static void on_progress(const struct uvm_event *event)
{
    if (cmd_screen_move(event) && ui.json)
        print_progress_json(event);
}

/* "download" -> "downloaded": what is over reads differently from what goes on. */
static const char *past_tense(const char *step)
{
    static const char *const verbs[][2] = {
        {"download", "downloaded"}, {"verify", "verified"}, {"bundle", "wrote"},
        {"make", "made"},           {"upload", "uploaded"}, {"compare", "compared"},
        {"delete", "deleted"},      {"copy", "copied"},
    };
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i][0], step) == 0)
            return verbs[i][1];
    return step;
}

static void on_done(const struct uvm_event *event)
{
    cmd_screen_end_of(event);
    uvm_auto_free char *subject = uvm_printable(event->subject), *text = uvm_printable(event->text);
    if (ui.json)
        cmd_print_json(json_pack("{s:s, s:s, s:s, s:s?}", "event", "done", "step", event->step,
                                 "subject", subject, "text", event->text ? text : NULL));
    cmd_note("%s %s%s%s", past_tense(event->step), subject, *text ? ": " : "", text);
}

static void on_failed(const struct uvm_event *event)
{
    cmd_screen_end_of(event);
    uvm_auto_free char *subject = uvm_printable(event->subject);
    if (ui.json)
        cmd_print_json(json_pack("{s:s, s:s, s:s}", "event", "failed", "step", event->step,
                                 "subject", subject));
}

static void on_text(const struct uvm_event *event)
{
    bool warning = event->kind == UVM_EVENT_WARNING;
    uvm_auto_free char *safe = uvm_printable(event->text);
    if (ui.json)
        cmd_print_json(
            json_pack("{s:s, s:s}", "event", warning ? "warning" : "notice", "text", safe));
    if (warning)
        print_warning(safe);
    else
        cmd_note("%s", safe);
}

static void on_event(void *opaque, const struct uvm_event *event)
{
    (void)opaque;
    switch (event->kind) {
    case UVM_EVENT_PROGRESS:
        on_progress(event);
        break;
    case UVM_EVENT_DONE:
        on_done(event);
        break;
    case UVM_EVENT_FAILED:
        on_failed(event);
        break;
    case UVM_EVENT_NOTICE:
    case UVM_EVENT_WARNING:
        on_text(event);
        break;
    }
}

const struct uvm_observer *cmd_observer(void)
{
    static const struct uvm_observer observer = {on_event, NULL, &stop};
    return &observer;
}

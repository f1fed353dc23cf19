/*
 * Output. Results go to standard output, everything about the way there to standard error: a moving
 * line on a terminal, a plain line per finished step elsewhere. With --json both become one JSON
 * object per line on standard output.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cmd/cmd.h"

enum { REDRAW_MS = 100, JSON_MS = 1000, LINE_MAX_COLUMNS = 200 };

static struct {
    bool json, quiet, verbose, moving, color;
    bool drawn; /* a moving line stands on the terminal */
    int64_t drawn_at;
    /* The step that moves, to tell its rate from. */
    char *step, *subject;
    int64_t began_at;
    uint64_t began_with;
} ui;

static atomic_bool stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

static void watch_signals(void)
{
    /* The second Ctrl-C ends the program as usual: whoever insists is obeyed, and the journal
     * knows. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

void cmd_ui_start(const struct cmd_common *common)
{
    bool terminal = isatty(STDERR_FILENO);
    const char *term = getenv("TERM");
    bool dumb = !term || strcmp(term, "dumb") == 0;
    setvbuf(stdout, NULL, _IOLBF, 0); /* results and notes keep their order in a log */
    ui.json = common->json;
    ui.quiet = common->quiet;
    ui.verbose = common->verbose;
    ui.moving = terminal && !dumb && !common->no_progress && !common->json && !common->quiet;
    ui.color = common->color && strcmp(common->color, "always") == 0;
    if (!common->color || strcmp(common->color, "auto") == 0)
        ui.color = terminal && !dumb && !getenv("NO_COLOR");
    watch_signals();
}

bool cmd_ui_json(void)
{
    return ui.json;
}

/* ---- lines ---- */

static void erase_line(void)
{
    if (ui.drawn)
        fputs("\r\033[K", stderr);
    ui.drawn = false;
}

void cmd_print(const char *format, ...)
{
    if (ui.json)
        return;
    erase_line();
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

__attribute__((format(printf, 1, 0))) static void note(const char *format, va_list args)
{
    erase_line();
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

void cmd_note(const char *format, ...)
{
    if (ui.json || ui.quiet)
        return;
    va_list args;
    va_start(args, format);
    note(format, args);
    va_end(args);
}

void cmd_detail(const char *format, ...)
{
    if (ui.json || ui.quiet || !ui.verbose)
        return;
    va_list args;
    va_start(args, format);
    note(format, args);
    va_end(args);
}

void cmd_print_json(json_t *object)
{
    if (ui.json) {
        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
    }
    json_decref(object);
}

static const char *paint(const char *code)
{
    return ui.color ? code : "";
}

/* `text` is printable. */
static void print_warning(const char *text)
{
    erase_line();
    fprintf(stderr, "%swarning:%s %s\n", paint("\033[1;33m"), paint("\033[0m"), text);
}

void cmd_print_error(const char *command, const struct uvm_error *err)
{
    uvm_auto_free char *safe = uvm_printable(err->message ? err->message : "unknown error");
    erase_line();
    if (ui.json)
        cmd_print_json(json_pack("{s:s, s:s, s:i, s:s}", "event", "error", "command", command,
                                 "code", (int)err->code, "message", safe));
    fprintf(stderr, "%suvmirror:%s %s: %s\n", paint("\033[1;31m"), paint("\033[0m"), command, safe);
}

bool cmd_ui_end(void)
{
    erase_line();
    free(UVM_STEAL(ui.step));
    free(UVM_STEAL(ui.subject));
    fflush(stderr);
    return fflush(stdout) == 0 && !ferror(stdout);
}

/* ---- progress ---- */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool same_step(const struct uvm_event *event)
{
    return ui.step && strcmp(ui.step, event->step) == 0 && strcmp(ui.subject, event->subject) == 0;
}

static void begin_step(const struct uvm_event *event)
{
    free(ui.step);
    free(ui.subject);
    ui.step = uvm_strdup(event->step);
    ui.subject = uvm_strdup(event->subject);
    ui.began_at = now_ms();
    ui.began_with = event->done;
}

/* "1:05 left", "40 s left"; empty while it cannot be told. */
static char *time_left(const struct uvm_event *event, double rate)
{
    if (event->total <= event->done || rate < 1)
        return uvm_strdup("");
    double seconds = (double)(event->total - event->done) / rate;
    if (seconds >= 360000)
        return uvm_strdup("");
    unsigned s = (unsigned)seconds + 1;
    return s < 60 ? uvm_format(", %u s left", s) : uvm_format(", %u:%02u left", s / 60, s % 60);
}

static char *progress_text(const struct uvm_event *event)
{
    double seconds = (double)(now_ms() - ui.began_at) / 1000;
    double rate = seconds > 0.3 ? (double)(event->done - ui.began_with) / seconds : 0;
    uvm_auto_free char *done = uvm_size_text(event->done), *total = uvm_size_text(event->total),
                       *speed = uvm_size_text((uint64_t)rate), *left = time_left(event, rate);
    if (event->total == 0)
        return uvm_format("%s", event->done ? done : "...");
    unsigned percent = (unsigned)(100.0 * (double)event->done / (double)event->total);
    return rate < 1 ? uvm_format("%3u %% of %s", percent, total)
                    : uvm_format("%3u %% of %s, %s/s%s", percent, total, speed, left);
}

static size_t terminal_columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20)
        return 80;
    return size.ws_col < LINE_MAX_COLUMNS ? size.ws_col : LINE_MAX_COLUMNS;
}

static void draw(const struct uvm_event *event)
{
    uvm_auto_free char *subject = uvm_printable(event->subject), *text = progress_text(event);
    uvm_auto_free char *line = uvm_format("%s %s: %s", event->step, subject, text);
    size_t columns = terminal_columns() - 1, len = strlen(line), text_len = strlen(text) + 2;
    /* The figures matter more than the name: it is cut when the terminal is narrow. */
    if (len > columns && text_len + 10 < columns) {
        free(line);
        line = uvm_format("%s %.*s..: %s", event->step,
                          (int)(columns - text_len - strlen(event->step) - 3), subject, text);
    }
    fprintf(stderr, "\r%.*s\033[K", (int)columns, line);
    fflush(stderr);
    ui.drawn = true;
}

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
    if (!same_step(event))
        begin_step(event);
    if (!ui.moving && !ui.json)
        return;
    int64_t now = now_ms();
    if (now - ui.drawn_at < (ui.json ? JSON_MS : REDRAW_MS))
        return;
    ui.drawn_at = now;
    if (ui.moving)
        draw(event);
    else
        print_progress_json(event);
}

/* "download" -> "downloaded": what is over reads differently from what goes on. */
static const char *past_tense(const char *step)
{
    static const char *const verbs[][2] = {
        {"download", "downloaded"}, {"verify", "verified"}, {"bundle", "wrote"},
        {"make", "made"},           {"upload", "uploaded"}, {"convert", "converted"},
        {"delete", "deleted"},
    };
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i][0], step) == 0)
            return verbs[i][1];
    return step;
}

static void on_done(const struct uvm_event *event)
{
    uvm_auto_free char *subject = uvm_printable(event->subject), *text = uvm_printable(event->text);
    if (ui.json)
        cmd_print_json(json_pack("{s:s, s:s, s:s, s:s?}", "event", "done", "step", event->step,
                                 "subject", subject, "text", event->text ? text : NULL));
    cmd_note("%s %s%s%s", past_tense(event->step), subject, *text ? ": " : "", text);
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
        break;
    case UVM_EVENT_NOTICE:
    case UVM_EVENT_WARNING:
        on_text(event);
        break;
    }
}

bool cmd_ui_stopped(void)
{
    return stop != 0;
}

const struct uvm_observer *cmd_observer(void)
{
    static const struct uvm_observer observer = {on_event, NULL, &stop};
    return &observer;
}

/* ---- tables ---- */

void cmd_table_row(struct cmd_table *table, const char *const *cells)
{
    size_t used = table->rows * table->columns;
    table->cells = uvm_grow(table->cells, used + table->columns, sizeof *table->cells);
    for (size_t i = 0; i < table->columns; i++)
        table->cells[used + i] = uvm_printable(cells[i]);
    table->rows++;
}

/* Columns on the screen: UTF-8 sequences count once. */
static size_t screen_width(const char *s)
{
    size_t width = 0;
    for (; *s; s++)
        width += ((unsigned char)*s & 0xc0) != 0x80;
    return width;
}

void cmd_table_print(const struct cmd_table *table)
{
    if (ui.json)
        return;
    erase_line();
    uvm_auto_free size_t *widths = uvm_alloc(table->columns * sizeof *widths);
    for (size_t i = 0; i < table->rows * table->columns; i++) {
        size_t width = screen_width(table->cells[i]);
        if (width > widths[i % table->columns])
            widths[i % table->columns] = width;
    }
    for (size_t i = 0; i < table->rows * table->columns; i++) {
        size_t column = i % table->columns;
        bool last = column + 1 == table->columns;
        int padding = last ? 0 : (int)(widths[column] - screen_width(table->cells[i]) + 2);
        printf("%s%*s%s", table->cells[i], padding, "", last ? "\n" : "");
    }
}

void cmd_table_clear(struct cmd_table *table)
{
    for (size_t i = 0; i < table->rows * table->columns; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct cmd_table){.columns = table->columns};
}

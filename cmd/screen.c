/*
 * The terminal, and the thread that draws on it.
 *
 * `running` guards what runs, and is never held during output. `output` guards the streams and what
 * is drawn, and is taken first. Moving lines are drawn by a thread of their own, so that what waits
 * shows that it waits, also when nothing happens.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/progress.h"
#include "cmd/screen.h"

enum { REDRAW_MS = 100, LOG_LOOK_MS = 1000, JSON_MS = 1000, USUAL_ROWS = 24, USUAL_COLUMNS = 80 };

static struct {
    enum cmd_screen_mode mode;
    pthread_mutex_t output, running;
    /* Guarded by `output`: the moving lines on the terminal; the cursor is below them. */
    char *drawn;
    bool paused;     /* there are to be none */
    int write_errno; /* why standard output could not be written, 0 = it could */
    /* Guarded by `running`. */
    struct cmd_progress progress;
    pthread_cond_t end;
    bool ending, watched;
    pthread_t watcher;
} screen = {
    .output = PTHREAD_MUTEX_INITIALIZER,
    .running = PTHREAD_MUTEX_INITIALIZER,
    .end = PTHREAD_COND_INITIALIZER,
};

static volatile sig_atomic_t continued;

static void on_continue(int signal_number)
{
    (void)signal_number;
    continued = 1;
}

void cmd_screen_start(enum cmd_screen_mode mode)
{
    struct sigaction action = {.sa_handler = on_continue, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGCONT, &action, NULL);
    screen.mode = mode;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the terminal ---- */

static struct winsize terminal_size(void)
{
    struct winsize size = {0};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
        return (struct winsize){.ws_row = USUAL_ROWS, .ws_col = USUAL_COLUMNS};
    return size;
}

/* A shell that sent us to the background has the terminal for itself. */
static bool in_background(void)
{
    pid_t foreground = tcgetpgrp(STDERR_FILENO);
    return foreground >= 0 && foreground != getpgrp();
}

/* What is to stand below the text: the moving lines as of now. */
static char *moving_lines(const struct winsize *size)
{
    if (screen.mode != CMD_SCREEN_MOVING || screen.paused || in_background())
        return uvm_strdup("");
    int64_t now = now_ms();
    pthread_mutex_lock(&screen.running);
    cmd_progress_tick(&screen.progress, now);
    /* Nothing stands in the last column: there some terminals go on to the next line. */
    char *lines = cmd_progress_block(&screen.progress, size->ws_row, (size_t)size->ws_col - 1, now);
    pthread_mutex_unlock(&screen.running);
    return lines;
}

/* Brings the cursor to where the drawn lines begin. A terminal that became narrower has wrapped
 * them; one that the shell has printed on since is left as it is. */
static char *cursor_up(const struct winsize *size)
{
    size_t rows = 0;
    if (continued)
        free(UVM_STEAL(screen.drawn));
    continued = 0;
    for (const char *line = screen.drawn; line && *line; line = strchr(line, '\n') + 1) {
        uvm_auto_free char *text = uvm_strndup(line, strcspn(line, "\n"));
        size_t columns = cmd_columns(text);
        rows += columns ? (columns + size->ws_col - 1) / size->ws_col : 1;
    }
    return rows ? uvm_format("\r\033[%zuA", rows) : uvm_strdup("");
}

/* Each line erases what stood behind it. */
static char *lines_over_lines(const char *lines)
{
    char *text = uvm_strdup("");
    while (*lines) {
        size_t len = strcspn(lines, "\n");
        char *longer = uvm_format("%s%.*s\033[K\n", text, (int)len, lines);
        free(text);
        text = longer;
        lines += len + 1;
    }
    return text;
}

/* Draws the moving lines anew, with `text` above them, in one write: nothing flickers. `output` is
 * held. */
static void show(const char *text)
{
    struct winsize size = terminal_size();
    uvm_auto_free char *up = cursor_up(&size), *lines = moving_lines(&size);
    if (!*text && strcmp(lines, screen.drawn ? screen.drawn : "") == 0)
        return;
    uvm_auto_free char *over = lines_over_lines(lines);
    uvm_auto_free char *all =
        uvm_format("%s%s%s%s%s", up, *up && *text ? "\033[J" : "", text, over, *up ? "\033[J" : "");
    fwrite(all, 1, strlen(all), stderr);
    free(screen.drawn);
    screen.drawn = UVM_STEAL(lines);
}

/* The reason for a failure is known now, and no more at the end. `output` is held. */
static void write_stdout(const char *text)
{
    bool failed = fputs(text, stdout) < 0 || fflush(stdout) != 0;
    if (screen.write_errno == 0 && (failed || ferror(stdout)))
        screen.write_errno = failed ? errno : EIO;
}

/* A result replaces the lines, which come back below it. */
static void show_result(const char *text)
{
    struct winsize size = terminal_size();
    uvm_auto_free char *up = cursor_up(&size);
    if (*up)
        fprintf(stderr, "%s\033[J", up);
    free(UVM_STEAL(screen.drawn));
    write_stdout(text);
    show("");
}

void cmd_screen_write(FILE *to, const char *lines)
{
    pthread_mutex_lock(&screen.output);
    if (to == stdout && screen.mode == CMD_SCREEN_MOVING)
        show_result(lines);
    else if (to == stdout)
        write_stdout(lines);
    else if (screen.mode != CMD_SCREEN_MOVING)
        fwrite(lines, 1, strlen(lines), to);
    else
        show(lines);
    pthread_mutex_unlock(&screen.output);
}

static void set_paused(bool paused)
{
    pthread_mutex_lock(&screen.output);
    screen.paused = paused;
    if (screen.mode == CMD_SCREEN_MOVING)
        show("");
    pthread_mutex_unlock(&screen.output);
}

void cmd_screen_pause(void)
{
    set_paused(true);
}

void cmd_screen_resume(void)
{
    set_paused(false);
}

/* `output` is held. */
static void write_log(void)
{
    pthread_mutex_lock(&screen.running);
    int64_t now = now_ms();
    cmd_progress_tick(&screen.progress, now);
    uvm_auto_free char *lines = cmd_progress_log(&screen.progress, now);
    pthread_mutex_unlock(&screen.running);
    fwrite(lines, 1, strlen(lines), stderr);
}

/* ---- the one who watches what runs ---- */

static bool ended_within(int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&screen.running);
    if (!screen.ending)
        pthread_cond_clockwait(&screen.end, &screen.running, CLOCK_MONOTONIC, &until);
    bool ended = screen.ending;
    pthread_mutex_unlock(&screen.running);
    return ended;
}

static void *watch(void *opaque)
{
    (void)opaque;
    while (!ended_within(screen.mode == CMD_SCREEN_MOVING ? REDRAW_MS : LOG_LOOK_MS)) {
        pthread_mutex_lock(&screen.output);
        if (screen.mode == CMD_SCREEN_MOVING)
            show("");
        else
            write_log();
        pthread_mutex_unlock(&screen.output);
    }
    return NULL;
}

/* `running` is held. Signals stay with the other threads. Without a watcher less is to be seen. */
static void start_watcher(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    screen.watched = pthread_create(&screen.watcher, NULL, watch, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

bool cmd_screen_move(const struct uvm_event *event)
{
    int64_t now = now_ms();
    pthread_mutex_lock(&screen.running);
    struct cmd_step *s = cmd_progress_move(&screen.progress, event, now);
    bool due = !s->announced || now - s->told_at >= JSON_MS;
    if (screen.mode == CMD_SCREEN_BARE && due) {
        s->announced = true;
        s->told_at = now;
    }
    if (screen.mode != CMD_SCREEN_BARE && !screen.watched && !screen.ending)
        start_watcher();
    pthread_mutex_unlock(&screen.running);
    return due;
}

void cmd_screen_end_of(const struct uvm_event *event)
{
    int64_t now = now_ms();
    pthread_mutex_lock(&screen.running);
    cmd_progress_end(&screen.progress, event, now);
    pthread_mutex_unlock(&screen.running);
}

void cmd_screen_expect(const char *step, uint64_t bytes)
{
    pthread_mutex_lock(&screen.running);
    cmd_progress_expect(&screen.progress, step, bytes);
    pthread_mutex_unlock(&screen.running);
}

bool cmd_screen_end(void)
{
    pthread_mutex_lock(&screen.running);
    screen.ending = true;
    pthread_cond_signal(&screen.end);
    cmd_progress_clear(&screen.progress);
    pthread_mutex_unlock(&screen.running);
    if (screen.watched)
        pthread_join(screen.watcher, NULL);
    screen.watched = false;
    pthread_mutex_lock(&screen.output);
    if (screen.mode == CMD_SCREEN_MOVING)
        show("");
    free(UVM_STEAL(screen.drawn));
    write_stdout(""); /* what others have written there */
    int failed = screen.write_errno;
    pthread_mutex_unlock(&screen.output);
    errno = failed;
    return failed == 0;
}

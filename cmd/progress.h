/*
 * progress.h: the steps that run, and how they look. Internal to cmd/.
 *
 * Knows neither clock nor terminal: times are given (milliseconds of a clock that only goes
 * forward) and lines come back as text. Not locked: that is the caller's matter.
 */
#pragma once

#include "mirror/base/base.h"

/* How fast a count of bytes grows, as an average over the last seconds: a transfer that was
 * resumed, or stands still, shows what it does now. */
struct cmd_rate {
    int64_t began_at, looked_at, moved_at;
    uint64_t moved; /* since looked_at */
    double per_second;
};

/* A step that runs, in the words of struct uvm_event. */
struct cmd_step {
    char *step, *subject;
    char *title; /* both, printable */
    uint64_t done, total;
    struct cmd_rate rate;
    int64_t told_at; /* when a line about it was last written to a log, or as JSON */
    uint64_t told_done;
    bool announced; /* as JSON */
};

/* All steps of one name. */
struct cmd_total {
    char *step, *title;
    uint64_t expected; /* 0 = was not announced */
    uint64_t ended;    /* bytes of those that are done */
    struct cmd_rate rate;
};

struct cmd_progress {
    struct cmd_step *steps; /* oldest first */
    size_t count;
    struct cmd_total *totals;
    size_t total_count;
};
void cmd_progress_clear(struct cmd_progress *p);

/* More steps than this do not run at once: the one that was silent for longest is forgotten. */
#define CMD_STEPS_MAX ((size_t)64)

/* Takes note of UVM_EVENT_PROGRESS. A subject is in one step at a time: the step that it was in
 * before is over. The step is returned; it is valid until the next call. */
struct cmd_step *cmd_progress_move(struct cmd_progress *p, const struct uvm_event *event,
                                   int64_t now);

/* Takes note of UVM_EVENT_DONE or UVM_EVENT_FAILED. */
void cmd_progress_end(struct cmd_progress *p, const struct uvm_event *event, int64_t now);

void cmd_progress_expect(struct cmd_progress *p, const char *step, uint64_t bytes);

/* Brings the rates up to the present; to be called a few times per second, or less. */
void cmd_progress_tick(struct cmd_progress *p, int64_t now);

/* The lines for a terminal of that size, each with a newline; none when nothing runs. A line per
 * step, oldest first, then the totals; what has no room is counted. The caller frees it. */
char *cmd_progress_block(const struct cmd_progress *p, size_t rows, size_t columns, int64_t now);

/* The lines for a log: about each step that runs for long and of which nothing was told for a
 * while; mostly none. The caller frees it. */
char *cmd_progress_log(struct cmd_progress *p, int64_t now);

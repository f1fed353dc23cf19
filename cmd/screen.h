/*
 * screen.h: where lines meet what runs. Internal to cmd/.
 *
 * Every function may be called by any thread. What is printed stands above the moving lines, and a
 * terminal that stands still (Ctrl-S) holds up whoever prints, but no transfer that reports bytes.
 */
#pragma once

#include <stdio.h>

#include "mirror/base/base.h"

enum cmd_screen_mode {
    CMD_SCREEN_BARE,   /* what runs shows nowhere, but its JSON may be due */
    CMD_SCREEN_LOG,    /* now and then a line about what takes long */
    CMD_SCREEN_MOVING, /* moving lines on the terminal that standard error is */
};

/* Before anything else, while there is one thread. */
void cmd_screen_start(enum cmd_screen_mode mode);

/* Writes whole lines to standard output or standard error. */
void cmd_screen_write(FILE *to, const char *lines);

/* Takes note of UVM_EVENT_PROGRESS. True when the last JSON object about this step is old enough
 * for another one, which counts as printed then. */
bool cmd_screen_move(const struct uvm_event *event);
/* Takes note of UVM_EVENT_DONE or UVM_EVENT_FAILED. */
void cmd_screen_end_of(const struct uvm_event *event);
void cmd_screen_expect(const char *step, uint64_t bytes);

/* While somebody is asked something, no lines move below the question. */
void cmd_screen_pause(void);
void cmd_screen_resume(void);

/* Takes the moving lines away for good. False, with errno, when standard output
 * could not be written. */
bool cmd_screen_end(void);

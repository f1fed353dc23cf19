/* receipt.h: the receipt of an import: what was asked, of which bundle, signed by whom, and what came
 * of it. receipt.c writes them, receipt-show.c shows them. */
#pragma once

#include "cmd/cmd.h"

#define CMD_RECEIPT_FORMAT 1
#define CMD_RECEIPT_MAX    ((size_t)32 << 20) /* bytes of one */
#define CMD_RECEIPTS_KEPT  100

/*
 *     {"receipt": 1, "tool": "uvmirror 0.1.0", "host": ..., "user": ..., "started": <time>,
 *      "ended": <time>, "options": {...}, "destination": {"connect", "pool", "metadata_dir",
 *      "state_dir"}, "argument": <as given>, "bundle": {as 'show --json' prints it} or null,
 *      "images": [{"title", "name", "product", "version", "outcome", "reason", and unless it was
 *      there before: "path", "size", "sha256", "sha512"}], "cleanup": {"deleted", "erased", "kept",
 *      "doubts", "freed"} or null, "dry_run": bool, "exit_code": N, "error": <text> or null}
 */
struct cmd_receipt {
    json_t *tree;
    const char *report; /* of --report; NULL = none */
    char *folder;       /* where past receipts are kept; NULL = not kept */
};

void cmd_receipt_begin(struct cmd_receipt *r, const char *argument);
void cmd_receipt_clear(struct cmd_receipt *r);

/* Writes it, durably, to both places, with the outcome of the run: `ok`, else the error *err. True
 * when the run and the report went well; a report that could not be written makes a good run
 * UVM_FAILED, and is a warning else. A kept receipt that cannot be written is a warning. */
enum cmd_outcome { CMD_RUN_FAILED, CMD_RUN_WELL };
bool cmd_receipt_end(struct cmd_receipt *r, enum cmd_outcome outcome, struct uvm_error *err);

/* Prints the receipt that is in that file. *ret_shown is false, without error, when it is another
 * file. It is not signed: it says what its writer says. */
bool cmd_receipt_show(const char *path, bool *ret_shown, struct uvm_error *err);

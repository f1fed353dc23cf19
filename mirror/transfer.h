/*
 * transfer.h: bytes of one file on their way from a source, whatever kind of source it is.
 *
 * A transfer hands its bytes to a sink, front to back, and tells a waiter how it ended. Trust:
 * whatever a source answers is hostile; the sink decides what becomes of it, and how much of it is
 * too much.
 */
#pragma once

#include "mirror/base/base.h"

#define MIRROR_SIZE_UNKNOWN UINT64_MAX

/* What a source says before the first byte. All of it are promises, not facts. */
struct mirror_answer {
    uint64_t offset;       /* where the bytes that come stand in the file */
    uint64_t total;        /* size of the whole file, or MIRROR_SIZE_UNKNOWN */
    const char *validator; /* when it starts at 0: names this version of the file (RFC 9110, section
                              13.1.5), or NULL; printable ASCII of at most MIRROR_VALIDATOR_MAX
                              bytes, borrowed */
};
#define MIRROR_VALIDATOR_MAX 512

/* Where the bytes of a file go. Both functions may refuse, which ends the transfer. */
struct mirror_sink {
    /* Called once for each answer, also when no byte follows: when a transfer broke off and goes
     * on, it is called again. answer->offset is either how far the sink is (at first: the offset
     * asked for), or 0: from the start, what came before does not count. */
    bool (*start)(void *opaque, const struct mirror_answer *answer, struct uvm_error *err);
    bool (*write)(void *opaque, const void *data, size_t len, struct uvm_error *err);
    void *opaque;
};

/* Who waits for the end of a transfer. Called exactly once; `failure` holds UVM_OK when all went
 * well, and may be taken over. It may begin another transfer. */
struct mirror_waiter {
    void (*end)(void *opaque, struct uvm_error *failure);
    void *opaque;
};

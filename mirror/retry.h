/* retry.h: how often something is tried again, and after how long. */
#pragma once

#include "mirror/mirror.h"

#define MIRROR_RETRY_MS          1000 /* before the first retry */
#define MIRROR_RETRY_DELAYS_MAX  60   /* times that: no delay is longer */
#define MIRROR_RETRY_AFTER_MAX_S 300  /* a server may ask for more, in vain */

struct mirror_retry {
    unsigned allowed;  /* failures in a row that are forgiven */
    unsigned failures; /* so far */
    unsigned patience; /* ms before the first retry */
    uint64_t furthest; /* position in the file that was reached before */
};

/* After a failure with the transfer at `position`. False when it was one too many; else *ret_ms is
 * how long to wait. `asked_seconds` is the server's Retry-After, 0 = none. What a source sends again
 * and again is no progress: only bytes beyond all that were there before make retries count anew. */
bool mirror_retry_next(struct mirror_retry *r, uint64_t position, uint64_t asked_seconds,
                       uint64_t *ret_ms);

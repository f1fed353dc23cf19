/* When to try again. */
#include <sys/random.h>

#include "mirror/retry.h"

#define JITTER 8 /* up to one part in so many is added, so that not all hosts come back at once */

static uint64_t with_jitter(uint64_t ms)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
        random = 0;
    return ms + random % (ms / JITTER + 1);
}

static uint64_t delay(const struct mirror_retry *r)
{
    uint64_t times = 1;
    for (unsigned i = 1; i < r->failures && times < MIRROR_RETRY_DELAYS_MAX; i++)
        times *= 2;
    if (times > MIRROR_RETRY_DELAYS_MAX)
        times = MIRROR_RETRY_DELAYS_MAX;
    return with_jitter(times * r->patience);
}

bool mirror_retry_next(struct mirror_retry *r, uint64_t position, uint64_t asked_seconds,
                       uint64_t *ret_ms)
{
    if (position >= r->furthest && position - r->furthest >= MIRROR_RETRY_PROGRESS)
        r->failures = 0;
    if (position > r->furthest)
        r->furthest = position;
    if (r->failures == r->allowed)
        return false;
    r->failures++;
    if (asked_seconds > MIRROR_RETRY_AFTER_MAX_S)
        asked_seconds = MIRROR_RETRY_AFTER_MAX_S;
    *ret_ms = asked_seconds > 0 ? asked_seconds * 1000 : delay(r);
    return true;
}

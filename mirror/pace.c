/* A bucket of tokens. libcurl's own limit lets bursts of several seconds' worth pass. */
#include "mirror/pace.h"

#define SAVED_MS 250 /* so much of an idle time may be made up for */

void mirror_pace_take(struct mirror_pace *p, size_t bytes)
{
    p->credit -= (double)bytes;
}

uint64_t mirror_pace_wait(struct mirror_pace *p, uint64_t now)
{
    if (p->rate == 0)
        return 0;
    double per_ms = (double)p->rate / 1000;
    p->credit += per_ms * (double)(now - p->at);
    p->at = now;
    if (p->credit > per_ms * SAVED_MS)
        p->credit = per_ms * SAVED_MS;
    return p->credit >= 0 ? 0 : (uint64_t)(-p->credit / per_ms) + 1;
}

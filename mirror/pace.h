/* pace.h: a rate that is not passed, measured over little more than a second. */
#pragma once

#include "mirror/base/base.h"

struct mirror_pace {
    uint64_t rate; /* bytes per second; 0 = no limit */
    double credit; /* bytes that may come now; below zero, they came too early */
    uint64_t at;   /* ms: when it was reckoned */
};

/* Bytes have come. */
void mirror_pace_take(struct mirror_pace *p, size_t bytes);

/* Milliseconds to wait before more may come. `now` never goes back. */
uint64_t mirror_pace_wait(struct mirror_pace *p, uint64_t now);

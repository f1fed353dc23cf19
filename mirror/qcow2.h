/* qcow2.h: what qcow2.c (the header) and qcow2-tables.c (all other structure) share. */
#pragma once

#include "mirror/mirror.h"

static inline uint32_t mirror_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t mirror_be64(const uint8_t *p)
{
    return (uint64_t)mirror_be32(p) << 32 | mirror_be32(p + 4);
}

/* qcow2.h: what the files share that know qcow2's format. */
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

/* An entry of an L2 table. A cluster is compressed, or it reads as zeros, or it is where the entry says
 * (0 = nowhere, which reads as zeros as well). */
#define MIRROR_QCOW2_COPIED     (UINT64_C(1) << 63)
#define MIRROR_QCOW2_COMPRESSED (UINT64_C(1) << 62)
#define MIRROR_QCOW2_ZERO       UINT64_C(1)
#define MIRROR_QCOW2_OFFSET     UINT64_C(0x00fffffffffffe00)
#define MIRROR_QCOW2_SECTOR     UINT64_C(512)

/* Where a compressed cluster is: sectors, of which the first and the last may be others' as well. */
static inline uint64_t mirror_qcow2_packed_at(const struct mirror_qcow2 *info, uint64_t entry)
{
    return entry & ((UINT64_C(1) << (70 - info->cluster_bits)) - 1);
}

static inline uint64_t mirror_qcow2_packed_sectors(const struct mirror_qcow2 *info, uint64_t entry)
{
    return ((entry & (MIRROR_QCOW2_COMPRESSED - 1)) >> (70 - info->cluster_bits)) + 1;
}

/* All of it, or UVM_FAILED, also where the file ends. */
bool mirror_read_at(int fd, uint64_t offset, void *data, size_t len, struct uvm_error *err);

/* Everything behind the head, which mirror_qcow2_check has accepted. */
bool mirror_qcow2_check_tables(const struct mirror_qcow2 *info, int fd, uint64_t file_size,
                               const struct uvm_observer *observer, struct uvm_error *err);

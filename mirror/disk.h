/* disk.h: what the files of mirror_disk share. */
#pragma once

#include "mirror/qcow2.h"

/* Prefixes which cluster of the disk it is. */
bool mirror_disk_fail_cluster(const struct mirror_disk_cluster *cluster, struct uvm_error *err);

int mirror_disk_fd(const struct mirror_disk *d);

/* A room for `len` bytes of a file, which the codec keeps. */
void *mirror_codec_room(struct mirror_codec *c, size_t len);

/* Inflates one cluster of a disk. *ret_used: bytes of `packed` that it takes. */
bool mirror_codec_inflate(struct mirror_codec *c, const struct mirror_qcow2 *info,
                          const void *packed, size_t len, void *data, size_t *ret_used,
                          struct uvm_error *err);

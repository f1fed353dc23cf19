/* folder.h: files of a folder, handed on like those of a web server, one at a time. */
#pragma once

#include "mirror/transfer.h"

struct mirror_folder;
struct mirror_folder *mirror_folder_new(void);
void mirror_folder_free(struct mirror_folder *l);
UVM_DEFINE_AUTO(struct mirror_folder *, mirror_folder_free)

/* Begins to read a file from `offset` on, or from its start if it is not as long; none may be under
 * way. The failure that the waiter gets names the file: UVM_SOURCE (missing, not readable, not a
 * regular file), or what the sink said. */
void mirror_folder_begin(struct mirror_folder *l, const char *file, uint64_t offset,
                         const struct mirror_sink *sink, const struct mirror_waiter *waiter);

/* Reads the next block. */
void mirror_folder_step(struct mirror_folder *l);

/* Ends it without telling its waiter. */
void mirror_folder_drop(struct mirror_folder *l);

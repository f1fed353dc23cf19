/* verified.h: the record of what was verified in a mirror (uvmirror/verified.json). */
#pragma once

#include <sys/stat.h>

#include "mirror/mirror.h"

/* Threads may ask and set at the same time. */
struct mirror_verified;

/* Reads the record at `path`. It only saves work, so nothing about it is an error: when it is
 * missing, empty or damaged, or an entry does not describe the regular file of that name below
 * `root_fd`, the file is simply not known. */
struct mirror_verified *mirror_verified_load(const char *path, int root_fd);
/* The same, and what becomes known is forgotten in the end. */
struct mirror_verified *mirror_verified_look(const char *path, int root_fd);
void mirror_verified_free(struct mirror_verified *v); /* writes what is not written yet */
UVM_DEFINE_AUTO(struct mirror_verified *, mirror_verified_free)

/* Whether the file at `path` (below the mirror) is as it was when it was verified, and its checksum
 * of that type is known; `hex` is untouched when not. */
bool mirror_verified_get(struct mirror_verified *v, const char *path, const struct stat *st,
                         enum uvm_digest_type type, char hex[UVM_DIGEST_HEX_MAX]);

/* The path of a file on record with this checksum, which may have changed since; NULL when there is
 * none. The caller frees it. */
char *mirror_verified_find(struct mirror_verified *v, enum uvm_digest_type type, const char *hex);

/* How sure it is that the bytes are on the disk. */
enum mirror_durability {
    MIRROR_IN_CACHE, /* written, not synced: the entry counts until the machine starts again */
    MIRROR_ON_DISK,
};

/* Puts a file on record. `sha512` may be NULL. The record reaches the disk at the latest a few
 * seconds later, with the next file or tick, or when it is freed. */
void mirror_verified_set(struct mirror_verified *v, const char *path, const struct stat *st,
                         const char *sha256, const char *sha512, enum mirror_durability durability);

/* Takes a file off the record again. */
void mirror_verified_forget(struct mirror_verified *v, const char *path);

/* All files on record, as the keys of an object. Borrowed until the next change, of which there must
 * be none by another thread. */
json_t *mirror_verified_files(const struct mirror_verified *v);

/* Writes what has waited for a few seconds. For long loops to call now and then. */
void mirror_verified_tick(struct mirror_verified *v);

/* Whether this machine can tell one start from the next; if not, MIRROR_IN_CACHE is never enough.
 */
bool mirror_verified_knows_boot(const struct mirror_verified *v);

/*
 * partial.h: an image that is not complete yet.
 *
 *     uvmirror/partial/<hex>          its bytes so far; <hex> is the checksum that it is to have
 *     uvmirror/partial/<hex>.from     where they are from:
 *                                         <URL>
 *                                         <validator: a strong ETag, or a Last-Modified>
 *
 * The name of a partial file is the content that it is to have, so what a run left behind can be
 * taken up by any later one. Nothing is believed about the bytes: they are hashed again. ".from"
 * only saves a transfer that would come to a wrong checksum; when it is missing, torn or odd, the
 * download goes on without.
 */
#pragma once

#include "mirror/sums.h"
#include "mirror/tree.h"

struct mirror_partial {
    struct mirror_tree *tree;
    const struct mirror_image *image;
    const char *name; /* borrowed from the image: its strongest checksum */
    int fd;           /* its position is where the next byte goes */
    struct mirror_sums sums;
    bool doubts; /* whether `doubted` is the image: the file is as it was */
    struct uvm_buf doubted;
};
#define MIRROR_PARTIAL_DOUBT ((size_t)256 << 10) /* no page of a hotel's network is as long */
void mirror_partial_init(struct mirror_partial *p, struct mirror_tree *tree,
                         const struct mirror_image *image);
void mirror_partial_clear(struct mirror_partial *p); /* the files stay */

/* Opens or makes it, with the position at its start and no byte hashed. One that is longer than the
 * image is emptied. UVM_FAILED, also for anything but a plain file. */
bool mirror_partial_open(struct mirror_partial *p, struct uvm_error *err);

/* Back to no byte. */
bool mirror_partial_empty(struct mirror_partial *p, struct uvm_error *err);

/* The same, but what there is goes only when MIRROR_PARTIAL_DOUBT others have come, or the whole image:
 * a source that does not say how much it sends may answer with a page of its own. */
void mirror_partial_doubt(struct mirror_partial *p);

/* How many bytes have come since it was last empty. */
uint64_t mirror_partial_bytes(const struct mirror_partial *p);

/* Adds bytes, which must not be more than the image still has (UVM_CONTENT). */
bool mirror_partial_write(struct mirror_partial *p, const void *data, size_t len,
                          struct uvm_error *err);

/* Opens a file of the mirror that is on record with the same checksum; -1 when there is none. The
 * caller closes it. */
int mirror_partial_twin(const struct mirror_partial *p);

/* Adds, behind the bytes that are hashed, up to `len` that the twin has there: not hashed, and the
 * position stays before them. False when the image has no more, or the twin gives none. */
bool mirror_partial_copy(const struct mirror_partial *p, int twin_fd, size_t len);

/* What to name the version by, of which these bytes are; NULL when that is not known, or when they
 * came from another URL. The caller frees it. */
char *mirror_partial_validator(const struct mirror_partial *p, const char *url);

/* Records where bytes come from, from the first one on; `validator` NULL forgets it. Not synced. */
void mirror_partial_note(const struct mirror_partial *p, const char *url, const char *validator);

/* Closes it. It stays for the next run only if there are bytes in it. */
void mirror_partial_keep(struct mirror_partial *p);

/* Closes and removes it. */
void mirror_partial_drop(struct mirror_partial *p);

/* Gives a complete file, whose checksums hold, its place in the tree, and puts it on record. */
bool mirror_partial_place(struct mirror_partial *p, struct uvm_error *err);

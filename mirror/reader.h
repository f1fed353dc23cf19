/* reader.h: what a reader of an image is made of. */
#pragma once

#include "mirror/tree.h"

/* First in a larger struct. */
struct mirror_reader {
    bool (*read)(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err);
    void (*free)(struct mirror_reader *r);
};

/* As mirror_tree_read, for an image that the tree is known to have: no byte is hashed, but the file
 * must be, from here to its end, the one on record. */
bool mirror_reader_open_known(const struct mirror_tree *t, const struct mirror_image *image,
                              struct mirror_reader **ret_reader, struct uvm_error *err);

/* UVM_CONTENT, with advice, unless the open file of an image is the one on record. */
bool mirror_reader_check_known(const struct mirror_tree *t, const struct mirror_image *image,
                               int fd, struct uvm_error *err);

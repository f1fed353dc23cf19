/* intake.h: the bytes of an image that is added, on their way into the mirror. */
#pragma once

#include "mirror/local.h"
#include "mirror/place.h"
#include "mirror/sums.h"

/* An image that came in whole and is a sound qcow2, still below uvmirror/partial. */
struct mirror_intake {
    struct mirror_tree *tree;
    int fd;
    struct mirror_sums sums; /* of all of it */
};
#define MIRROR_INTAKE_INIT ((struct mirror_intake){.fd = -1})

/* Lets go of it: what was not placed is removed. */
void mirror_intake_clear(struct mirror_intake *intake);
#define mirror_auto_intake __attribute__((cleanup(mirror_intake_clear))) struct mirror_intake

/* Copies or downloads the image. The sums in `expected`, of which there may be none, must be right;
 * SHA-512 is computed when one of them is. Errors as mirror_tree_add; nothing is left then. */
bool mirror_intake_take(struct mirror_tree *t, const struct mirror_addition *addition,
                        const struct mirror_image *expected, const char *title,
                        struct mirror_intake *ret_intake, struct uvm_error *err);

/* What is known of it, as far as an image of a record is: borrowed. */
struct mirror_image mirror_intake_image(struct mirror_intake *intake);

/* Gives it its place in the mirror as this image, durably, and puts it on record. */
bool mirror_intake_place(struct mirror_intake *intake, const struct mirror_image *image,
                         struct uvm_error *err);

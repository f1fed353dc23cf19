/* sums.h: the checksums of one image, while its bytes go by. */
#pragma once

#include "mirror/mirror.h"

struct mirror_sums {
    struct uvm_digest *sha256, *sha512; /* sha512 NULL when it is not signed */
    uint64_t bytes;                     /* so far */
    char sha256_hex[UVM_DIGEST_HEX_MAX], sha512_hex[UVM_DIGEST_HEX_MAX];
};
void mirror_sums_clear(struct mirror_sums *s);

/* Begins, also anew. SHA-256 is computed even when only SHA-512 is signed: the record has it. */
void mirror_sums_start(struct mirror_sums *s, const struct mirror_image *image);
void mirror_sums_add(struct mirror_sums *s, const void *data, size_t len);

/* Ends the computation, and fails (UVM_CONTENT) unless everything that is signed about the bytes
 * holds. */
bool mirror_sums_check(struct mirror_sums *s, const struct mirror_image *image,
                       struct uvm_error *err);

/* Checksums of an image. */
#include <string.h>

#include "mirror/sums.h"

void mirror_sums_clear(struct mirror_sums *s)
{
    uvm_digest_free(s->sha256);
    uvm_digest_free(s->sha512);
    *s = (struct mirror_sums){0};
}

void mirror_sums_start(struct mirror_sums *s, const struct mirror_image *image)
{
    mirror_sums_clear(s);
    s->sha256 = uvm_digest_new(UVM_SHA256);
    s->sha512 = image->sha512 ? uvm_digest_new(UVM_SHA512) : NULL;
}

void mirror_sums_add(struct mirror_sums *s, const void *data, size_t len)
{
    uvm_digest_update(s->sha256, data, len);
    if (s->sha512)
        uvm_digest_update(s->sha512, data, len);
    s->bytes += len;
}

bool mirror_sums_check(struct mirror_sums *s, const struct mirror_image *image,
                       struct uvm_error *err)
{
    uvm_digest_finish(s->sha256, s->sha256_hex);
    if (s->sha512)
        uvm_digest_finish(s->sha512, s->sha512_hex);
    if (s->bytes != image->size)
        return uvm_fail(err, UVM_CONTENT, "it has %llu bytes, the stream signs %llu",
                        (unsigned long long)s->bytes, (unsigned long long)image->size);
    if ((image->sha256 && strcmp(image->sha256, s->sha256_hex) != 0) ||
        (image->sha512 && strcmp(image->sha512, s->sha512_hex) != 0))
        return uvm_fail(err, UVM_CONTENT, "its checksum is not the signed one");
    return true;
}

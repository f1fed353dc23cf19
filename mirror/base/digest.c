/* SHA-2 through libcrypto, which uses the CPU's instructions for it. */
#include <openssl/evp.h>
#include <string.h>

#include "mirror/base/base.h"

struct uvm_digest {
    EVP_MD_CTX *ctx;
};

static const EVP_MD *md_of(enum uvm_digest_type type)
{
    return type == UVM_SHA512 ? EVP_sha512() : EVP_sha256();
}

/* libcrypto's digests fail only without memory or with a broken installation. */
static void must(int ok)
{
    if (ok != 1)
        abort();
}

struct uvm_digest *uvm_digest_new(enum uvm_digest_type type)
{
    struct uvm_digest *d = uvm_alloc(sizeof *d);
    d->ctx = EVP_MD_CTX_new();
    must(d->ctx != NULL);
    must(EVP_DigestInit_ex(d->ctx, md_of(type), NULL));
    return d;
}

void uvm_digest_update(struct uvm_digest *d, const void *data, size_t len)
{
    must(EVP_DigestUpdate(d->ctx, data, len));
}

void uvm_digest_finish(struct uvm_digest *d, char hex[UVM_DIGEST_HEX_MAX])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    must(EVP_DigestFinal_ex(d->ctx, raw, &len));
    for (unsigned i = 0; i < len; i++) {
        hex[2 * i] = digits[raw[i] >> 4];
        hex[2 * i + 1] = digits[raw[i] & 15];
    }
    hex[2 * len] = 0;
}

void uvm_digest_free(struct uvm_digest *d)
{
    if (!d)
        return;
    EVP_MD_CTX_free(d->ctx);
    free(d);
}

void uvm_digest_bytes(enum uvm_digest_type type, const void *data, size_t len,
                      char hex[UVM_DIGEST_HEX_MAX])
{
    UVM_AUTO(uvm_digest_free) struct uvm_digest *d = uvm_digest_new(type);
    uvm_digest_update(d, data, len);
    uvm_digest_finish(d, hex);
}

bool uvm_digest_valid(enum uvm_digest_type type, const char *hex)
{
    size_t want = type == UVM_SHA512 ? 128 : 64;
    return strlen(hex) == want && strspn(hex, "0123456789abcdef") == want;
}

/* Base64 (RFC 4648, section 4) through libcrypto. */
#include <openssl/evp.h>
#include <string.h>

#include "mirror/base/base.h"

char *uvm_base64(const char *s)
{
    size_t len = strlen(s);
    if (len > UVM_BASE64_MAX)
        abort();
    char *coded = uvm_alloc((len + 2) / 3 * 4 + 1);
    EVP_EncodeBlock((unsigned char *)coded, (const unsigned char *)s, (int)len);
    return coded;
}

char *uvm_base64_decode(const char *coded)
{
    size_t len = strlen(coded);
    if (len % 4 != 0 || len > UVM_BASE64_MAX)
        return NULL;
    uvm_auto_free char *plain = uvm_alloc(len / 4 * 3 + 1);
    if (EVP_DecodeBlock((unsigned char *)plain, (const unsigned char *)coded, (int)len) < 0)
        return NULL;
    return UVM_STEAL(plain);
}

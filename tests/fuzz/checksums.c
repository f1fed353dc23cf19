/*
 * Threat: a checksum file is downloaded, and read before anybody has signed it: a line that is read past
 * its end, or one that vouches for a file that it does not name.
 *
 * The input: a file's name, a newline, then the checksum file.
 */
#include "mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

/* "" when it gives no sum. */
static void find(const char *text, size_t len, const char *name, char hex[UVM_DIGEST_HEX_MAX])
{
    uvm_auto_error err = UVM_ERROR_INIT;
    enum uvm_digest_type type = UVM_SHA256;
    *hex = 0;
    if (fuzz_outcome(mirror_checksums_find(text, len, name, &type, hex, &err), &err))
        FUZZ_HOLDS(uvm_digest_valid(type, hex));
    else
        FUZZ_HOLDS(err.code == UVM_CONTENT);
}

/* What is found stands there as it is, but for the case of its digits, and so does the name. */
static void check_found(const char *text, size_t len, const char *name, const char *hex)
{
    uvm_auto_free char *copy = uvm_alloc(len + 1);
    for (size_t i = 0; i < len; i++)
        copy[i] = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 'a' : text[i]);
    FUZZ_HOLDS(memmem(copy, len, hex, strlen(hex)));
    FUZZ_HOLDS(memmem(text, len, name, strlen(name)));
}

/* Lines that are no sums change nothing. */
static void check_among_others(const char *text, size_t len, const char *name, const char *hex)
{
    static const char above[] = "# nothing\n\n", below[] = "\nnothing";
    size_t longer = len + sizeof above + sizeof below - 2;
    uvm_auto_free char *copy = uvm_alloc(longer);
    char again[UVM_DIGEST_HEX_MAX];
    memcpy(copy, above, sizeof above - 1);
    memcpy(copy + sizeof above - 1, text, len);
    memcpy(copy + sizeof above - 1 + len, below, sizeof below - 1);
    find(copy, longer, name, again);
    FUZZ_HOLDS(strcmp(hex, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
    if (!newline)
        return 0;
    uvm_auto_free char *name = uvm_strndup((const char *)data, (size_t)(newline - data));
    size_t len = size - (size_t)(newline + 1 - data);
    uvm_auto_free char *text = uvm_alloc(len ? len : 1); /* no zero byte behind it */
    char hex[UVM_DIGEST_HEX_MAX];
    memcpy(text, newline + 1, len);
    find(text, len, name, hex);
    if (*hex)
        check_found(text, len, name, hex);
    check_among_others(text, len, name, hex);
    return 0;
}

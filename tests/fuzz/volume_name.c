/*
 * Threat: any program may name volumes and metadata files. A name that is taken for ours decides what is
 * listed, replaced and deleted: it must be exactly the one that its product and version have.
 */
#include "pool/pool.h"
#include "tests/fuzz/fuzz.h"

#define WHITE " \t\n\v\f\r"

static void check_ours(const char *name, const char *product, const char *version)
{
    uvm_auto_free char *again = pool_volume_name(product, version);
    FUZZ_HOLDS(strcmp(again, name) == 0);
    FUZZ_HOLDS(*product && !strpbrk(product, WHITE) && uvm_utf8_valid(product, strlen(product)));
    FUZZ_HOLDS(*version && !strchr(WHITE, *version) && uvm_utf8_valid(version, strlen(version)));
}

static bool parse(const char *name)
{
    char *product = NULL, *version = NULL;
    if (!pool_volume_parse(name, &product, &version)) {
        FUZZ_HOLDS(!product && !version);
        return false;
    }
    check_ours(name, product, version);
    free(product);
    free(version);
    return true;
}

/* Does what an image's product and version may be (mirror.h) come back? */
static void try_names(const char *plain)
{
    const char *blank = strchr(plain, ' ');
    if (!blank)
        return;
    uvm_auto_free char *product = uvm_strndup(plain, (size_t)(blank - plain));
    uvm_auto_free char *name = pool_volume_name(product, blank + 1);
    bool usual = *product && blank[1] && !strpbrk(product, WHITE) && !strpbrk(blank + 1, WHITE) &&
                 uvm_utf8_valid(plain, strlen(plain));
    FUZZ_HOLDS(parse(name) || !usual);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_free char *text = uvm_strndup((const char *)data, size);
    if (strlen(text) > UVM_BASE64_MAX / 2)
        return 0;
    parse(text);
    try_names(text);
    return 0;
}

/*
 * names.c: uvtool's names for volumes and metadata files.
 *
 *     x-uvt-b64-Y29tLnVidW50dS5jbG91ZDpzZXJ2ZXI6MjQuMDQ6YW1kNjQgMjAyNDEwMDQ=
 *     |--------||---------------------------------------------------------|
 *      prefix    base64 of "<product> <version>", '-' for '+', '_' for '/', padding kept
 */
#include "pool/pool.h"

#include <string.h>

#define POOL_PREFIX "x-uvt-b64-"
#define POOL_WHITE  " \t\n\v\f\r"

static void swap_characters(char *s, char from, char to)
{
    for (; *s; s++) {
        if (*s == from)
            *s = to;
    }
}

char *pool_volume_name(const char *product, const char *version)
{
    uvm_auto_free char *plain = uvm_format("%s %s", product, version);
    uvm_auto_free char *coded = uvm_base64(plain);
    swap_characters(coded, '+', '-');
    swap_characters(coded, '/', '_');
    return uvm_format("%s%s", POOL_PREFIX, coded);
}

/* The bytes behind the prefix, decoded; NULL when they are no base64 or hold a NUL. */
static char *decode(const char *name)
{
    size_t prefix = strlen(POOL_PREFIX);
    if (strncmp(name, POOL_PREFIX, prefix) != 0)
        return NULL;

    uvm_auto_free char *coded = uvm_strdup(name + prefix);
    swap_characters(coded, '-', '+');
    swap_characters(coded, '_', '/');
    return uvm_base64_decode(coded);
}

bool pool_volume_parse(const char *name, char **ret_product, char **ret_version)
{
    uvm_auto_free char *plain = decode(name);
    char *blank = plain ? strchr(plain, ' ') : NULL;
    /* uvtool splits at the first white space of any kind, and takes all of it for the separator. */
    if (!blank || blank == plain || !blank[1] ||
        strcspn(plain, POOL_WHITE) != (size_t)(blank - plain) || strchr(POOL_WHITE, blank[1]))
        return false;
    if (!uvm_utf8_valid(plain, strlen(plain)))
        return false;

    uvm_auto_free char *product = uvm_strndup(plain, (size_t)(blank - plain));
    uvm_auto_free char *version = uvm_strdup(blank + 1);
    /* Only a name that encodes again to itself is ours: this also refuses stray padding bits,
     * blanks that the decoder skips, and an embedded NUL. */
    uvm_auto_free char *again = pool_volume_name(product, version);
    if (strcmp(again, name) != 0)
        return false;

    *ret_product = UVM_STEAL(product);
    *ret_version = UVM_STEAL(version);
    return true;
}

const char *pool_state_name(enum pool_state state)
{
    switch (state) {
    case POOL_READY:
        return "ready";
    case POOL_RETIRED:
        return "retired";
    case POOL_UNUSED:
        return "unused";
    case POOL_BROKEN:
        return "broken";
    case POOL_FOREIGN:
        return "foreign";
    }
    return "unknown";
}

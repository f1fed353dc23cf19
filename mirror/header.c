/* Fields of an HTTP answer. */
#include <string.h>
#include <strings.h>

#include "mirror/header.h"

static bool parse_number(const char **p, uint64_t *ret)
{
    uint64_t value = 0;
    const char *start = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(**p - '0'), &value))
            return false;
    *ret = value;
    return *p > start;
}

bool mirror_header_range_fits(const char *range, uint64_t offset, uint64_t size)
{
    uint64_t first, last, total = size;
    if (!range || strncasecmp(range, "bytes ", 6) != 0)
        return false;
    const char *p = range + 6;
    if (!parse_number(&p, &first) || *p++ != '-' || !parse_number(&p, &last) || *p++ != '/')
        return false;
    if (*p == '*')
        p++;
    else if (!parse_number(&p, &total))
        return false;
    return *p == 0 && first == offset && total == size && last == size - 1;
}

uint64_t mirror_header_length(const char *length)
{
    uint64_t size;
    return length && parse_number(&length, &size) && *length == 0 ? size : MIRROR_SIZE_UNKNOWN;
}

/* ---- validators ---- */

static bool is_printable_ascii(const char *s)
{
    size_t len = strnlen(s, MIRROR_VALIDATOR_MAX + 1);
    for (size_t i = 0; i < len; i++)
        if (s[i] < 0x20 || s[i] > 0x7e)
            return false;
    return len > 0 && len <= MIRROR_VALIDATOR_MAX;
}

/* opaque-tag = DQUOTE *etagc DQUOTE; a weak one starts with "W/" */
static bool is_strong_etag(const char *s)
{
    size_t len = strlen(s);
    return len >= 2 && s[0] == '"' && strchr(s + 1, '"') == s + len - 1;
}

/* IMF-fixdate: "Sun, 06 Nov 1994 08:49:37 GMT" (section 5.6.7) */
static bool is_date(const char *s)
{
    size_t len = strlen(s);
    return len == strlen("Sun, 06 Nov 1994 08:49:37 GMT") && s[3] == ',' &&
           strcmp(s + len - 4, " GMT") == 0;
}

bool mirror_header_validator_ok(const char *validator)
{
    return is_printable_ascii(validator) && (is_strong_etag(validator) || is_date(validator));
}

bool mirror_header_validator_strong(const char *validator)
{
    return validator && is_strong_etag(validator);
}

const char *mirror_header_validator(const char *etag, const char *last_modified)
{
    if (etag && mirror_header_validator_ok(etag) && is_strong_etag(etag))
        return etag;
    if (last_modified && mirror_header_validator_ok(last_modified) && is_date(last_modified))
        return last_modified;
    return NULL;
}

/*
 * The frame of a clear-signed text (RFC 4880, section 7):
 *
 *     -----BEGIN PGP SIGNED MESSAGE-----
 *     Hash: SHA512
 *
 *     the text, lines that begin with '-' escaped as "- -"
 *     -----BEGIN PGP SIGNATURE-----
 *     ...
 *     -----END PGP SIGNATURE-----
 *
 * GnuPG skips what stands before, and stops after; here nothing is accepted there.
 */
#include <string.h>

#include "mirror/base/cleartext.h"

struct lines {
    const char *at, *end;
};

/* The next line without its end ("\n" or "\r\n"); false at the end of the text. */
static bool next_line(struct lines *l, const char **ret_line, size_t *ret_len)
{
    if (l->at == l->end)
        return false;
    const char *newline = memchr(l->at, '\n', (size_t)(l->end - l->at));
    const char *end = newline ? newline : l->end;
    *ret_line = l->at;
    *ret_len = (size_t)(end - l->at);
    if (*ret_len && end[-1] == '\r')
        --*ret_len;
    l->at = newline ? newline + 1 : l->end;
    return true;
}

static bool line_is(const char *line, size_t len, const char *text)
{
    while (len && (line[len - 1] == ' ' || line[len - 1] == '\t'))
        len--;
    return len == strlen(text) && memcmp(line, text, len) == 0;
}

static bool only_blank(const char *at, const char *end)
{
    for (; at < end; at++)
        if (*at != '\n' && *at != '\r' && *at != ' ' && *at != '\t')
            return false;
    return true;
}

/* Headers up to the empty line; only "Hash:" is one that may stand there. */
static bool skip_hash_headers(struct lines *l)
{
    const char *line;
    size_t len;
    while (next_line(l, &line, &len)) {
        if (len == 0)
            return true;
        if (len < 6 || memcmp(line, "Hash: ", 6) != 0)
            return false;
    }
    return false;
}

/* Lines up to the one that is exactly `mark`; false when another line looks like armor. */
static bool skip_to_mark(struct lines *l, const char *mark)
{
    const char *line;
    size_t len;
    while (next_line(l, &line, &len)) {
        if (len == 0 || line[0] != '-' || (len > 1 && line[1] == ' '))
            continue;
        return line_is(line, len, mark);
    }
    return false;
}

bool uvm_is_one_cleartext(const char *text, size_t len)
{
    struct lines l = {text, text + len};
    const char *line;
    size_t line_len;
    return next_line(&l, &line, &line_len) &&
           line_is(line, line_len, "-----BEGIN PGP SIGNED MESSAGE-----") && skip_hash_headers(&l) &&
           skip_to_mark(&l, "-----BEGIN PGP SIGNATURE-----") &&
           skip_to_mark(&l, "-----END PGP SIGNATURE-----") && only_blank(l.at, l.end);
}

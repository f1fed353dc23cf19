/*
 * What stands around and between the parts that GnuPG verifies. The frame of a clear-signed text
 * (RFC 4880, section 7):
 *
 *     -----BEGIN PGP SIGNED MESSAGE-----
 *     Hash: SHA512
 *
 *     the text, lines that begin with '-' escaped as "- -"
 *     -----BEGIN PGP SIGNATURE-----
 *     ...
 *     -----END PGP SIGNATURE-----
 *
 * GnuPG skips what stands before, and stops after; here nothing is accepted there. It also writes
 * more than the text to its output when there are keys in the armor, and less when a line is long:
 * uvm_cleartext_reads() holds its output against the text.
 */
#include <string.h>

#include "mirror/base/cleartext.h"

#define CLEARTEXT_BEGIN "-----BEGIN PGP SIGNED MESSAGE-----"
#define SIGNATURE_BEGIN "-----BEGIN PGP SIGNATURE-----"
#define SIGNATURE_END   "-----END PGP SIGNATURE-----"

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

/* Up to the first line of the text that is signed. */
static bool skip_head(struct lines *l)
{
    const char *line;
    size_t len;
    return next_line(l, &line, &len) && line_is(line, len, CLEARTEXT_BEGIN) && skip_hash_headers(l);
}

bool uvm_is_one_cleartext(const char *text, size_t len)
{
    struct lines l = {text, text + len};
    return skip_head(&l) && skip_to_mark(&l, SIGNATURE_BEGIN) && skip_to_mark(&l, SIGNATURE_END) &&
           only_blank(l.at, l.end);
}

/* White space at the end of a line is not signed (RFC 4880, section 7.1). */
static size_t signed_len(const char *line, size_t len)
{
    while (len && (line[len - 1] == ' ' || line[len - 1] == '\t' || line[len - 1] == '\r'))
        len--;
    return len;
}

bool uvm_cleartext_reads(const char *text, size_t len, const char *plain, size_t plain_len)
{
    struct lines l = {text, text + len}, p = {plain, plain + plain_len};
    const char *line, *read;
    size_t line_len, read_len;
    if (!skip_head(&l))
        return false;
    while (next_line(&l, &line, &line_len)) {
        bool dashed = line_len && line[0] == '-';
        if (dashed && (line_len < 2 || line[1] != ' '))
            return p.at == p.end; /* the mark */
        size_t escape = dashed ? 2 : 0;
        line_len = signed_len(line, line_len);
        line_len = line_len > escape ? line_len - escape : 0;
        if (!next_line(&p, &read, &read_len) || signed_len(read, read_len) != line_len ||
            memcmp(line + escape, read, line_len) != 0)
            return false;
    }
    return false;
}

bool uvm_cleartext_fits(const char *text, size_t len)
{
    struct lines l = {text, text + len};
    const char *line;
    size_t line_len;
    while (next_line(&l, &line, &line_len))
        if (line_len > UVM_CLEARTEXT_LINE_MAX)
            return false;
    return true;
}

bool uvm_cleartext_body(const void *text, size_t len, struct uvm_buf *ret_plain,
                        struct uvm_error *err)
{
    uvm_auto_buf plain = {.max = len + 1}; /* the last line may have no end */
    struct lines l = {text, (const char *)text + len};
    const char *line = NULL;
    size_t line_len = 0;
    if (!uvm_buf_add(&plain, "", 0, err))
        return false;
    if (!next_line(&l, &line, &line_len) || !line_is(line, line_len, CLEARTEXT_BEGIN)) {
        if (!uvm_buf_add(&plain, text, len, err))
            return false;
        uvm_buf_move(ret_plain, &plain);
        return true;
    }
    while (next_line(&l, &line, &line_len) && line_len > 0)
        continue; /* headers */
    while (next_line(&l, &line, &line_len) && !line_is(line, line_len, SIGNATURE_BEGIN)) {
        size_t escape = line_len >= 2 && memcmp(line, "- ", 2) == 0 ? 2 : 0;
        if (!uvm_buf_add(&plain, line + escape, line_len - escape, err) ||
            !uvm_buf_add(&plain, "\n", 1, err))
            return false;
    }
    uvm_buf_move(ret_plain, &plain);
    return true;
}

bool uvm_is_bare_signature(const char *sig, size_t len)
{
    struct lines l = {sig, sig + len};
    const char *line;
    size_t line_len;
    if (len && (sig[0] & 0x80)) /* a packet (RFC 4880, section 4.2): GnuPG reads all of them */
        return true;
    while (!only_blank(l.at, l.end)) {
        if (!next_line(&l, &line, &line_len))
            return false;
        if (only_blank(line, line + line_len))
            continue;
        if (!line_is(line, line_len, SIGNATURE_BEGIN) || !skip_to_mark(&l, SIGNATURE_END))
            return false;
    }
    return true;
}

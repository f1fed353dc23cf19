/*
 * Checksum files, as distributions publish them beside their images:
 *
 *     <hex>  NAME               sha256sum(1) and sha512sum(1); two blanks
 *     <hex> *NAME               the same, of a file read as binary
 *     SHA256 (NAME) = <hex>     BSD's, and sha256sum --tag; SHA512 too
 *
 * The number of digits says which sum it is. Other lines are passed over: comments, other sums, and
 * the armor of a file that was signed and is read unverified.
 */
#include <string.h>

#include "mirror/model.h"

enum { TYPES = 2 };

static const struct {
    size_t hex_len;
    const char *tag; /* what a line of BSD starts with */
    const char *name;
} types[TYPES] = {
    [UVM_SHA256] = {64, "SHA256 (", "SHA-256"},
    [UVM_SHA512] = {128, "SHA512 (", "SHA-512"},
};

/* Bytes within the text. */
struct span {
    const char *at;
    size_t len;
};

struct entry {
    enum uvm_digest_type type;
    struct span name, hex;
};

/* ---- lines ---- */

/* Takes the next line off the text, without its end. */
static struct span take_line(struct span *text)
{
    const char *newline = memchr(text->at, '\n', text->len);
    struct span line = {text->at, newline ? (size_t)(newline - text->at) : text->len};
    size_t taken = line.len + (newline ? 1 : 0);
    *text = (struct span){text->at + taken, text->len - taken};
    if (line.len && line.at[line.len - 1] == '\r')
        line.len--;
    return line;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static size_t hex_digits(struct span s)
{
    size_t n = 0;
    while (n < s.len && is_hex(s.at[n]))
        n++;
    return n;
}

static bool starts_with(struct span s, const char *text)
{
    size_t len = strlen(text);
    return s.len >= len && memcmp(s.at, text, len) == 0;
}

static struct span behind(struct span s, size_t len)
{
    return (struct span){s.at + len, s.len - len};
}

static bool parse_plain(struct span line, enum uvm_digest_type type, struct entry *ret)
{
    size_t len = types[type].hex_len;
    if (hex_digits(line) != len)
        return false;
    struct span rest = behind(line, len);
    if (!starts_with(rest, "  ") && !starts_with(rest, " *"))
        return false;
    *ret = (struct entry){type, behind(rest, 2), {line.at, len}};
    return true;
}

/* A name may hold anything, so it is what stands between the tag and the digits at the end. */
static bool parse_bsd(struct span line, enum uvm_digest_type type, struct entry *ret)
{
    static const char equals[] = ") = ";
    size_t tag = strlen(types[type].tag), len = types[type].hex_len + strlen(equals);
    if (!starts_with(line, types[type].tag) || line.len < tag + len)
        return false;
    struct span end = behind(line, line.len - len);
    struct span hex = behind(end, strlen(equals));
    if (!starts_with(end, equals) || hex_digits(hex) != hex.len)
        return false;
    *ret = (struct entry){type, {line.at + tag, line.len - tag - len}, hex};
    return true;
}

static bool parse_line(struct span line, struct entry *ret)
{
    for (int type = 0; type < TYPES; type++)
        if (parse_plain(line, type, ret) || parse_bsd(line, type, ret))
            return true;
    return false;
}

static bool is_name(struct span written, const char *name)
{
    struct span s = starts_with(written, "./") ? behind(written, 2) : written;
    return s.len == strlen(name) && memcmp(s.at, name, s.len) == 0;
}

/* ---- what is said of one name ---- */

/* A sum of each type, "" when there is none. */
struct sums {
    char hex[TYPES][UVM_DIGEST_HEX_MAX];
};

static void fold(struct span digits, char hex[UVM_DIGEST_HEX_MAX])
{
    for (size_t i = 0; i < digits.len; i++)
        hex[i] = (char)(digits.at[i] >= 'A' && digits.at[i] <= 'F' ? digits.at[i] - 'A' + 'a'
                                                                   : digits.at[i]);
    hex[digits.len] = 0;
}

static bool note(struct sums *sums, const struct entry *entry, const char *name,
                 struct uvm_error *err)
{
    char hex[UVM_DIGEST_HEX_MAX] = "";
    fold(entry->hex, hex);
    char *known = sums->hex[entry->type];
    if (*known && strcmp(known, hex) != 0) {
        uvm_auto_free char *shown = mirror_brief(name);
        return uvm_fail(err, UVM_CONTENT, "the checksum file gives two different %s sums for '%s'",
                        types[entry->type].name, shown);
    }
    memcpy(known, hex, sizeof hex);
    return true;
}

bool mirror_checksums_find(const void *text, size_t len, const char *name,
                           enum uvm_digest_type *ret_type, char ret_hex[UVM_DIGEST_HEX_MAX],
                           struct uvm_error *err)
{
    struct sums sums = {0};
    struct entry entry;
    for (struct span rest = {text, len}; rest.len > 0;)
        if (parse_line(take_line(&rest), &entry) && is_name(entry.name, name) &&
            !note(&sums, &entry, name, err))
            return false;
    enum uvm_digest_type type = *sums.hex[UVM_SHA512] ? UVM_SHA512 : UVM_SHA256;
    if (!*sums.hex[type]) {
        uvm_auto_free char *shown = mirror_brief(name);
        return uvm_fail(err, UVM_CONTENT,
                        "the checksum file gives no SHA-256 or SHA-512 sum for '%s'", shown);
    }
    memcpy(ret_hex, sums.hex[type], UVM_DIGEST_HEX_MAX);
    *ret_type = type;
    return true;
}

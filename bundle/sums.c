/*
 * The sums of a split bundle: which bytes are its parts. A text, clear-signed by the site:
 *
 *     # uvmirror-parts 1
 *     # bundle uvmirror-20241004T093000Z-1f2e3d4c
 *     # serial 1728034200
 *     # encoder libzstd 1.5.4, level 3, 1 worker
 *     # part of 4294967295 bytes, begins 5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
 *     6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b  NAME.tar.zst.001
 *     # part of ...
 *
 * "begins" is the SHA-256 of a part's first BUNDLE_PART_HEAD bytes, by which it is known again without
 * a look at the rest. `sha256sum --check` reads the lines without '#'.
 *
 * The file around that text begins with nine bytes that make it a skippable frame of zstd (RFC 8878,
 * section 3.1.2) and a line for GnuPG to pass over:
 *
 *     50 2A 4D 18 | size of all that follows, little-endian | 0A | -----BEGIN PGP SIGNED MESSAGE-----
 *
 * Thus `cat NAME.tar.zst.* | tar --zstd -x` works although the pattern takes in this file, too. It is
 * filled up with empty lines until no byte of the size has its highest bit set: the file stays ASCII.
 */
#include <endian.h>
#include <string.h>
#include <zstd.h>

#include "bundle/internal.h"

#define MAGIC          "\x50\x2a\x4d\x18"
#define FRAME_HEAD     8
#define TITLE          "# uvmirror-parts "
#define VERSION        "1"
#define HEX            64
#define SIZE_MAX_BYTES ((uint64_t)1 << 50)
#define TEXT_MAX       200 /* bytes of a line's free text */

void bundle_sums_clear(struct bundle_sums *s)
{
    free(s->name);
    free(s->id);
    free(s->encoder);
    free(s->parts);
    *s = (struct bundle_sums){0};
}

struct bundle_part *bundle_sums_add(struct bundle_sums *s)
{
    s->parts = uvm_grow(s->parts, s->count + 1, sizeof *s->parts);
    s->parts[s->count] = (struct bundle_part){0};
    return &s->parts[s->count++];
}

char *bundle_part_name(const char *name, size_t number)
{
    return uvm_format("%s.%03zu", name, number);
}

/* sha256sum writes other names in a way of its own. */
bool bundle_sums_name_fits(const char *name)
{
    uvm_auto_free char *printable = uvm_printable(name);
    return *name && strcmp(name, printable) == 0 && !strpbrk(name, "/\\") &&
           strlen(name) <= TEXT_MAX;
}

char *bundle_encoder_text(void)
{
    return uvm_format("libzstd %s, level %d, %d worker", ZSTD_versionString(), BUNDLE_ZSTD_LEVEL,
                      BUNDLE_ZSTD_WORKERS);
}

/* ---- writing ---- */

static bool add_line(struct uvm_buf *text, char *line, struct uvm_error *err)
{
    uvm_auto_free char *owned = line;
    return uvm_buf_add(text, owned, strlen(owned), err);
}

bool bundle_sums_text(const struct bundle_sums *s, struct uvm_buf *ret_text, struct uvm_error *err)
{
    uvm_auto_buf text = {.max = BUNDLE_SUMS_MAX};
    if (!add_line(&text,
                  uvm_format(TITLE VERSION "\n# bundle %s\n# serial %llu\n# encoder %s\n", s->id,
                             (unsigned long long)s->serial, s->encoder),
                  err))
        return false;
    for (size_t i = 0; i < s->count; i++) {
        const struct bundle_part *part = &s->parts[i];
        uvm_auto_free char *name = bundle_part_name(s->name, i + 1);
        if (!add_line(&text,
                      uvm_format("# part of %llu bytes, begins %s\n%s  %s\n",
                                 (unsigned long long)part->size, part->head, part->sha256, name),
                      err))
            return false;
    }
    uvm_buf_move(ret_text, &text);
    return true;
}

static bool is_ascii(const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] & 0x80)
            return false;
    return true;
}

bool bundle_sums_wrap(const struct uvm_buf *signed_text, struct uvm_buf *ret_file,
                      struct uvm_error *err)
{
    uint32_t size = (uint32_t)signed_text->len + 1, stored = htole32(size);
    while (!is_ascii((const unsigned char *)&stored, sizeof stored))
        stored = htole32(++size);
    uvm_auto_buf file = {.max = 2 * BUNDLE_SUMS_MAX};
    if (!uvm_buf_add(&file, MAGIC, strlen(MAGIC), err) ||
        !uvm_buf_add(&file, &stored, sizeof stored, err) || !uvm_buf_add(&file, "\n", 1, err) ||
        !uvm_buf_add(&file, signed_text->data, signed_text->len, err))
        return false;
    while (file.len < FRAME_HEAD + size)
        if (!uvm_buf_add(&file, "\n", 1, err))
            return false;
    uvm_buf_move(ret_file, &file);
    return true;
}

/* ---- reading ---- */

bool bundle_sums_unwrap(const struct uvm_buf *file, struct uvm_buf *ret_signed,
                        struct uvm_error *err)
{
    uint32_t size;
    size_t skip = 0;
    if (file->len > FRAME_HEAD && memcmp(file->data, MAGIC, strlen(MAGIC)) == 0) {
        memcpy(&size, file->data + strlen(MAGIC), sizeof size);
        if (le32toh(size) != file->len - FRAME_HEAD || file->data[FRAME_HEAD] != '\n')
            return uvm_fail(err, UVM_CONTENT, "it is truncated or damaged");
        skip = FRAME_HEAD + 1;
    }
    uvm_auto_buf text = {.max = 2 * BUNDLE_SUMS_MAX};
    if (!uvm_buf_add(&text, file->data + skip, file->len - skip, err))
        return false;
    uvm_buf_move(ret_signed, &text);
    return true;
}

/* The lines of the text; what must begin with `lead` is returned without it, NULL when it does not. */
struct lines {
    struct uvm_strings all;
    size_t next;
    size_t number; /* of the line that was looked at last */
};

static const char *take_line(struct lines *l, const char *lead)
{
    const char *line = l->next < l->all.count ? l->all.items[l->next] : "";
    size_t len = strlen(lead);
    l->number = l->next + 1;
    if (strncmp(line, lead, len) != 0)
        return NULL;
    l->next++;
    return line + len;
}

static void split_lines(const char *text, size_t len, struct lines *l)
{
    const char *end = text + len;
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *stop = newline ? newline : end;
        uvm_auto_free char *line = uvm_strndup(text, (size_t)(stop - text));
        uvm_strings_add(&l->all, line);
        text = stop + 1;
    }
}

static bool parse_number(const char *text, uint64_t max, uint64_t *ret, const char **ret_rest)
{
    uint64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9' && value <= max; p++)
        value = value * 10 + (uint64_t)(*p - '0');
    *ret = value;
    *ret_rest = p;
    return p > text && value <= max;
}

static bool is_plain_text(const char *text)
{
    uvm_auto_free char *printable = uvm_printable(text);
    return *text && strlen(text) <= TEXT_MAX && strcmp(text, printable) == 0;
}

static bool parse_head(struct lines *l, struct bundle_sums *s)
{
    const char *rest = "x", *id, *serial, *encoder;
    if (!(id = take_line(l, "# bundle ")) || !bundle_is_id(id) ||
        !(serial = take_line(l, "# serial ")) ||
        !parse_number(serial, BUNDLE_TIME_MAX, &s->serial, &rest) || *rest ||
        !(encoder = take_line(l, "# encoder ")) || !is_plain_text(encoder))
        return false;
    s->id = uvm_strdup(id);
    s->encoder = uvm_strdup(encoder);
    return true;
}

static bool copy_sum(char to[UVM_DIGEST_HEX_MAX], const char *text)
{
    if (strlen(text) < HEX)
        return false;
    memcpy(to, text, HEX);
    to[HEX] = 0;
    return uvm_digest_valid(UVM_SHA256, to);
}

/* The first part's name says what the others are called. */
static bool parse_name(struct bundle_sums *s, const char *name)
{
    size_t len = strlen(name), tail = strlen(".001");
    if (s->name || len <= tail)
        return s->name != NULL;
    s->name = uvm_strndup(name, len - tail);
    return bundle_sums_name_fits(s->name);
}

static bool parse_part(struct lines *l, struct bundle_sums *s)
{
    struct bundle_part part = {0};
    const char *rest, *size = take_line(l, "# part of ");
    if (!size || !parse_number(size, SIZE_MAX_BYTES, &part.size, &rest) || part.size == 0 ||
        strncmp(rest, " bytes, begins ", strlen(" bytes, begins ")) != 0 ||
        !copy_sum(part.head, rest + strlen(" bytes, begins ")))
        return false;
    const char *line = take_line(l, "");
    if (!line || !copy_sum(part.sha256, line) || line[HEX] != ' ' || line[HEX + 1] != ' ' ||
        !parse_name(s, line + HEX + 2))
        return false;
    *bundle_sums_add(s) = part;
    return true;
}

static bool parse_lines(struct lines *l, struct bundle_sums *s, struct uvm_error *err)
{
    bool well = parse_head(l, s);
    while (well && l->next < l->all.count && s->count < BUNDLE_PARTS_MAX)
        well = parse_part(l, s);
    return (well && s->count > 0 && l->next == l->all.count) ||
           uvm_fail(err, UVM_CONTENT, "line %zu of the sums is not what it should be", l->number);
}

/* Only what would be written like that is taken: whatever was not looked at above shows here. */
static bool is_canonical(const struct bundle_sums *s, const char *text, size_t len,
                         struct uvm_error *err)
{
    uvm_auto_buf again = {0};
    if (!bundle_sums_text(s, &again, err))
        return false;
    bool same = (len == again.len || len + 1 == again.len) && memcmp(text, again.data, len) == 0;
    return same || uvm_fail(err, UVM_CONTENT, "the sums are not written as they should be");
}

static bool check_sizes(const struct bundle_sums *s, struct uvm_error *err)
{
    for (size_t i = 0; i + 1 < s->count; i++)
        if (s->parts[i].size != s->parts[0].size || s->parts[i + 1].size > s->parts[0].size)
            return uvm_fail(err, UVM_CONTENT, "the parts do not have one size");
    return true;
}

static void lines_clear(struct lines *l)
{
    uvm_strings_clear(&l->all);
}

bool bundle_sums_parse(const void *text, size_t len, struct bundle_sums *ret_sums,
                       struct uvm_error *err)
{
    __attribute__((cleanup(lines_clear))) struct lines l = {0};
    __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums s = {0};
    if (len > BUNDLE_SUMS_MAX || !uvm_utf8_valid(text, len))
        return uvm_fail(err, UVM_CONTENT, "the sums are no text, or too long");
    split_lines(text, len, &l);
    const char *version = take_line(&l, TITLE);
    if (!version)
        return uvm_fail(err, UVM_CONTENT, "not the sums of a split bundle");
    if (strcmp(version, VERSION) != 0) {
        uvm_auto_free char *found = uvm_printable(version);
        return uvm_fail(err, UVM_CONTENT,
                        "the sums have version %s, and this uvmirror reads " VERSION, found);
    }
    if (!parse_lines(&l, &s, err) || !is_canonical(&s, text, len, err) || !check_sizes(&s, err))
        return false;
    *ret_sums = s;
    s = (struct bundle_sums){0};
    return true;
}

bool bundle_sums_read(const char *path, struct uvm_verifier *verifier, struct bundle_sums *ret_sums,
                      struct uvm_error *err)
{
    uvm_auto_buf file = {0}, signed_text = {0}, text = {.max = BUNDLE_SUMS_MAX};
    uvm_auto_signature who = {0};
    uvm_auto_free char *shown = uvm_printable(path);
    if (!uvm_file_read(path, 2 * BUNDLE_SUMS_MAX, &file, err))
        return false;
    if (!bundle_sums_unwrap(&file, &signed_text, err) ||
        !uvm_verifier_clearsigned(verifier, signed_text.data, signed_text.len, &text, &who, err) ||
        !bundle_sums_parse(text.data, text.len, ret_sums, err))
        return uvm_prefix(err, "%s", shown);
    return true;
}

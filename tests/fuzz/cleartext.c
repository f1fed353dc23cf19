/*
 * Threat: a vendor's file whose frame GnuPG and we read differently: text before, between or behind what is
 * signed. What passes is one message, and holds nothing that can be added to it.
 */
#include "mirror/base/cleartext.h"
#include "tests/fuzz/fuzz.h"

#define BEGIN     "-----BEGIN PGP SIGNED MESSAGE-----"
#define SIGNATURE "-----BEGIN PGP SIGNATURE-----"
#define END       "-----END PGP SIGNATURE-----"

static void add(struct uvm_buf *buf, const char *text, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    FUZZ_HOLDS(uvm_buf_add(buf, text, len, &err));
}

static bool is_message(const char *before, const char *text, const char *behind)
{
    uvm_auto_free char *all = uvm_format("%s%s%s", before, text, behind);
    return uvm_is_one_cleartext(all, strlen(all));
}

static size_t count(const char *text, const char *what)
{
    size_t times = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
        times++;
    return times;
}

/* The text within, by hand: between the first empty line and the signature, without "- ". */
static void unwrap(const char *text, struct uvm_buf *plain)
{
    const char *line = strchr(text, '\n') + 1;
    for (; *line != '\n' && strncmp(line, "\r\n", 2) != 0; line = strchr(line, '\n') + 1)
        FUZZ_HOLDS(strncmp(line, "Hash: ", 6) == 0);
    for (line = strchr(line, '\n') + 1; strncmp(line, SIGNATURE, strlen(SIGNATURE)) != 0;
         line = strchr(line, '\n') + 1) {
        size_t escape = strncmp(line, "- ", 2) == 0 ? 2 : 0;
        FUZZ_HOLDS(escape || *line != '-');
        add(plain, line + escape, strcspn(line, "\n") - escape);
        add(plain, "\n", 1);
    }
}

static void check_read(const char *text)
{
    uvm_auto_buf plain = {0};
    unwrap(text, &plain);
    add(&plain, "", 0);
    FUZZ_HOLDS(uvm_cleartext_reads(text, strlen(text), plain.data, plain.len));
    add(&plain, "x\n", 2);
    FUZZ_HOLDS(!uvm_cleartext_reads(text, strlen(text), plain.data, plain.len));
}

static void check_message(const char *text)
{
    FUZZ_HOLDS(strncmp(text, BEGIN, strlen(BEGIN)) == 0 && strstr(text, END));
    FUZZ_HOLDS(is_message("", text, "\n \r\n"));
    FUZZ_HOLDS(!is_message("", text, "x"));
    FUZZ_HOLDS(!is_message("x", text, ""));
    FUZZ_HOLDS(!is_message("\n", text, ""));
    FUZZ_HOLDS(!is_message("", text, text));
    /* Whatever looks like armor a second time is escaped. */
    FUZZ_HOLDS(count(text, "\n" BEGIN) == 0 && count(text, "\n" SIGNATURE) == 1);
    FUZZ_HOLDS(count(text, "\n" END) == 1);
    check_read(text);
}

/* Armored; of a binary one GnuPG reads all. */
static void check_signature(const char *sig)
{
    uvm_auto_free char *more = uvm_format("%sx\n", sig);
    FUZZ_HOLDS(!uvm_is_bare_signature(more, strlen(more)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    bool message = uvm_is_one_cleartext(text, size), signature = uvm_is_bare_signature(text, size);
    uvm_cleartext_fits(text, size);
    uvm_cleartext_reads(text, size, text, size);
    if (size == 0 || memchr(text, 0, size)) /* below, they are strings */
        return 0;
    uvm_auto_free char *copy = uvm_strndup(text, size);
    if (message)
        check_message(copy);
    if (signature && !(data[0] & 0x80))
        check_signature(copy);
    return 0;
}

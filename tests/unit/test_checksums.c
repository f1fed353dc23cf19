/* mirror/checksums.c and mirror/origin.c: what a checksum file says, and whose word that is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mirror/mirror.h"
#include "scripted_server.h"

#define NAME "debian-12-generic.qcow2"

static char root[] = "/tmp/test-checksums-XXXXXX";
static struct uvm_signer *signer, *stranger;
static struct uvm_verifier *verifier;
/* Sums of three contents, of both types. */
static char a256[UVM_DIGEST_HEX_MAX], b256[UVM_DIGEST_HEX_MAX];
static char a512[UVM_DIGEST_HEX_MAX], b512[UVM_DIGEST_HEX_MAX];

static void must(bool ok, const struct uvm_error *err)
{
    if (!ok)
        fail_msg("%s", err->message);
}

/* ---- lines ---- */

/* What is found, as "<hex>"; "" for none, "clash" for two. */
static const char *find_in(const void *text, size_t len, const char *name)
{
    static char hex[UVM_DIGEST_HEX_MAX];
    uvm_auto_error err = UVM_ERROR_INIT;
    enum uvm_digest_type type = UVM_SHA256;
    if (mirror_checksums_find(text, len, name, &type, hex, &err)) {
        assert_true(uvm_digest_valid(type, hex));
        return hex;
    }
    assert_int_equal(err.code, UVM_CONTENT);
    return strstr(err.message, "two different") ? "clash" : "";
}

/* The text is made of a format in which %s is a sum. */
static const char *find(const char *format, const char *hex)
{
    uvm_auto_free char *text = uvm_alloc(strlen(format) + 2 * UVM_DIGEST_HEX_MAX);
    const char *mark = strstr(format, "%s");
    strncat(text, format, (size_t)(mark - format));
    strcat(strcat(text, hex), mark + 2);
    /* a copy without a closing zero: what reads on is caught */
    uvm_auto_free char *bare = uvm_alloc(strlen(text));
    memcpy(bare, text, strlen(text));
    return find_in(bare, strlen(text), NAME);
}

static void test_forms(void **state)
{
    (void)state;
    assert_string_equal(find("%s  " NAME "\n", a256), a256);
    assert_string_equal(find("%s *" NAME "\n", a256), a256);
    assert_string_equal(find("%s  ./" NAME "\n", a256), a256);
    assert_string_equal(find("SHA256 (" NAME ") = %s\n", a256), a256);
    assert_string_equal(find("SHA256 (./" NAME ") = %s\n", a256), a256);
    assert_string_equal(find("%s  " NAME, a512), a512);
    assert_string_equal(find("SHA512 (" NAME ") = %s", a512), a512);
    assert_string_equal(find("# a comment\n\n%s  " NAME "\r\nelse\r\n", a256), a256);
    assert_string_equal(find("\n%s  other\n", a256), "");
}

static void test_upper_case(void **state)
{
    (void)state;
    char upper[UVM_DIGEST_HEX_MAX];
    for (size_t i = 0; i < sizeof upper; i++)
        upper[i] = (char)(a256[i] >= 'a' && a256[i] <= 'f' ? a256[i] - 32 : a256[i]);
    assert_string_equal(find("%s  " NAME "\n", upper), a256);
    assert_string_equal(find("SHA256 (" NAME ") = %s\n", upper), a256);
}

static void test_not_a_sum(void **state)
{
    static const char *const forms[] = {
        "%s " NAME,
        "%s\t" NAME,
        " %s  " NAME,
        "0%s  " NAME,
        "%s0  " NAME,
        "%s   " NAME,
        "%s  " NAME " ",
        "%s  x" NAME,
        "%s  a/" NAME,
        "%s  " NAME "x",
        "%s  ././" NAME,
        "SHA512 (" NAME ") = %s",
        "MD5 (" NAME ") = %s",
        "SHA3-256 (" NAME ") = %s",
        "SHA256(" NAME ")= %s",
        "SHA256 (" NAME ") = %s ",
        "SHA256 (" NAME ") =%s",
        "SHA256 (" NAME ") = x%s",
        "\\%s  " NAME,
        "- %s  " NAME,
        "%s",
        "%s  ",
        "%s *",
        "SHA256 () = %s",
    };
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (*find(forms[i], a256))
            fail_msg("found in: %s", forms[i]);
    assert_string_equal(find_in("", 0, NAME), "");
    assert_string_equal(find_in(NULL, 0, NAME), "");
}

static void test_a_zero_byte_ends_nothing(void **state)
{
    (void)state;
    uvm_auto_free char *text = uvm_format("%s  " NAME "?x\n%s  " NAME "\n", b256, a256);
    size_t len = strlen(text);
    *strchr(text, '?') = 0;
    assert_string_equal(find_in(text, len, NAME), a256);
}

static void test_names_of_any_kind(void **state)
{
    (void)state;
    uvm_auto_free char *bsd = uvm_format("SHA256 (a) = (b) = %s\n", a256);
    assert_string_equal(find_in(bsd, strlen(bsd), "a) = (b"), a256);
    uvm_auto_free char *plain = uvm_format("%s  two  blanks *\n", a256);
    assert_string_equal(find_in(plain, strlen(plain), "two  blanks *"), a256);
}

static void test_more_than_one(void **state)
{
    (void)state;
    uvm_auto_free char *same = uvm_format("%s  " NAME "\nSHA256 (" NAME ") = %s\n", a256, a256);
    assert_string_equal(find_in(same, strlen(same), NAME), a256);
    uvm_auto_free char *two = uvm_format("%s  " NAME "\n%s *" NAME "\n", a256, b256);
    assert_string_equal(find_in(two, strlen(two), NAME), "clash");
    /* the stronger one counts, wherever it stands; and a clash of the weaker is one, too */
    uvm_auto_free char *both = uvm_format("%s  " NAME "\n%s  " NAME "\n", a512, a256);
    assert_string_equal(find_in(both, strlen(both), NAME), a512);
    uvm_auto_free char *mixed =
        uvm_format("%s  " NAME "\n%s  " NAME "\n%s  " NAME "\n", a512, a256, b256);
    assert_string_equal(find_in(mixed, strlen(mixed), NAME), "clash");
    uvm_auto_free char *others = uvm_format("%s  x\n%s  " NAME "\n%s  y\n", b256, a256, b256);
    assert_string_equal(find_in(others, strlen(others), NAME), a256);
}

/* ---- origins ---- */

static void put(const char *name, const void *data, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = uvm_format("%s/%s", root, name);
    must(uvm_file_replace(path, 0644, data, len, &err), &err);
}

static struct uvm_signer *make_signer(const char *name, struct uvm_verifier **ret_verifier)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *home = uvm_format("%s/%s", root, name);
    uvm_auto_free char *ring = uvm_format("%s/%s.gpg", root, name);
    uvm_auto_buf key = {0};
    uvm_auto_strings rings = {0};
    char fingerprint[UVM_FINGERPRINT_MAX];
    struct uvm_signer *made = NULL;
    must(uvm_key_generate(home, name, 0, fingerprint, &err), &err);
    must(uvm_signer_new(home, NULL, &made, &err), &err);
    must(uvm_key_export(home, fingerprint, &key, &err), &err);
    must(uvm_file_replace(ring, 0644, key.data, key.len, &err), &err);
    uvm_strings_add(&rings, ring);
    must(uvm_verifier_new(&rings, ret_verifier, &err), &err);
    return made;
}

static struct mirror_image image_of(const char *hex256, const char *hex512)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_image image = {0};
    mirror_auto_json *metadata = json_pack(
        "{s:s, s:s, s:s, s:s, s:s*, s:s*}", "product_name", "local:bookworm:amd64", "version_name",
        "1", "item_name", "disk1.img", "size", "1", "sha256", hex256, "sha512", hex512);
    must(mirror_image_from_metadata(metadata, "local/" NAME, &image, &err), &err);
    return image;
}

static void fill(struct uvm_buf *buf, const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    must(uvm_buf_add(buf, text, strlen(text), &err), &err);
}

static struct mirror_origin origin_of(const char *text)
{
    struct mirror_origin origin = {.name = uvm_strdup(NAME)};
    fill(&origin.checksums, text);
    return origin;
}

static struct mirror_origin clearsigned(struct uvm_signer *by, const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_origin origin = {.name = uvm_strdup(NAME)};
    must(uvm_signer_clearsigned(by, text, strlen(text), &origin.checksums, &err), &err);
    return origin;
}

static struct mirror_origin detached(struct uvm_signer *by, const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_origin origin = origin_of(text);
    must(uvm_signer_detached(by, text, strlen(text), &origin.signature, &err), &err);
    return origin;
}

/* 0 when it vouches for the image, else the code. */
static int check(struct mirror_origin origin, const char *hex256, const char *hex512)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature sig = {0};
    struct mirror_image image = image_of(hex256, hex512);
    if (mirror_origin_check(&origin, &image, verifier, &sig, &err))
        assert_string_equal(sig.fingerprint, uvm_signer_fingerprint(signer));
    else
        assert_string_equal(sig.fingerprint, "");
    mirror_image_clear(&image);
    mirror_origin_clear(&origin);
    return (int)err.code;
}

static void test_check(void **state)
{
    (void)state;
    uvm_auto_free char *bsd = uvm_format("# Fedora: 1 byte\nSHA256 (" NAME ") = %s\n", a256);
    uvm_auto_free char *plain = uvm_format("%s  " NAME "\n", a512);
    assert_int_equal(check(clearsigned(signer, bsd), a256, NULL), UVM_OK);
    assert_int_equal(check(clearsigned(signer, bsd), a256, a512), UVM_OK);
    assert_int_equal(check(detached(signer, plain), a256, a512), UVM_OK);
    /* other bytes, or a sum that the image does not have */
    assert_int_equal(check(clearsigned(signer, bsd), b256, NULL), UVM_TRUST);
    assert_int_equal(check(detached(signer, plain), a256, NULL), UVM_TRUST);
    assert_int_equal(check(detached(signer, plain), a256, b512), UVM_TRUST);
    /* nobody's word, or a stranger's */
    assert_int_equal(check(origin_of(plain), a256, a512), UVM_TRUST);
    assert_int_equal(check(clearsigned(stranger, bsd), a256, NULL), UVM_TRUST);
    assert_int_equal(check(detached(stranger, plain), a256, a512), UVM_TRUST);
    /* not a word about it */
    assert_int_equal(check(clearsigned(signer, "nothing\n"), a256, NULL), UVM_TRUST);
}

static void test_check_what_was_changed(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *text = uvm_format("%s  " NAME "\n", a512);
    struct mirror_origin origin = detached(signer, text);
    memcpy(strstr(origin.checksums.data, a512), b512, strlen(b512));
    assert_int_equal(check(origin, b256, b512), UVM_TRUST);
    /* a signature of another text */
    struct mirror_origin other = detached(signer, "nothing\n");
    uvm_buf_clear(&other.checksums);
    fill(&other.checksums, text);
    assert_int_equal(check(other, a256, a512), UVM_TRUST);
    /* lines around the signed ones */
    struct mirror_origin around = clearsigned(signer, "nothing\n");
    must(uvm_buf_add(&around.checksums, text, strlen(text), &err), &err);
    assert_int_equal(check(around, a256, a512), UVM_TRUST);
}

static void test_check_needs_a_key(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature sig = {0};
    uvm_auto_free char *text = uvm_format("%s  " NAME "\n", a512);
    mirror_auto_origin origin = detached(signer, text);
    struct mirror_image image = image_of(a256, a512);
    assert_false(mirror_origin_check(&origin, &image, NULL, &sig, &err));
    assert_int_equal(err.code, UVM_TRUST);
    mirror_image_clear(&image);
}

static void test_read_without_a_key(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    enum uvm_digest_type type;
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_auto_free char *text = uvm_format("%s  " NAME "\n", a512);
    mirror_auto_origin origin = clearsigned(stranger, text);
    must(mirror_origin_read(&origin, NULL, &type, hex, NULL, &err), &err);
    assert_int_equal(type, UVM_SHA512);
    assert_string_equal(hex, a512);
    assert_false(mirror_origin_read(&origin, verifier, &type, hex, NULL, &err));
    assert_int_equal(err.code, UVM_TRUST);
}

/* ---- where it comes from ---- */

static bool get(const char *checksums, const char *signature, unsigned flags,
                struct mirror_origin *ret, struct uvm_error *err)
{
    struct mirror_origin_request request = {
        .checksums = checksums,
        .signature = signature,
        .image = "https://example.org/x/debian-12-generic%2Eqcow2",
        .flags = flags,
        .network = MIRROR_NETWORK_DEFAULT,
    };
    return mirror_origin_get(&request, ret, err);
}

static void test_get_files(void **state)
{
    uvm_auto_free char *sums = uvm_format("%s/SHA512SUMS", root);
    uvm_auto_free char *other = uvm_format("%s/elsewhere", root);
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    put("SHA512SUMS", "sums", 4);
    put("elsewhere", "sig", 3);
    put("SHA512SUMS.sign", "beside", 6);
    mirror_auto_origin plain = {0}, named = {0}, beside = {0};
    must(get(sums, NULL, 0, &plain, &err), &err);
    assert_string_equal(plain.name, NAME);
    assert_string_equal(plain.checksums.data, "sums");
    assert_int_equal(plain.signature.len, 0);
    must(get(sums, other, MIRROR_ORIGIN_SIGNED, &named, &err), &err);
    assert_string_equal(named.signature.data, "sig");
    must(get(sums, NULL, MIRROR_ORIGIN_SIGNED, &beside, &err), &err);
    assert_string_equal(beside.signature.data, "beside");
    assert_null(beside.signer);
}

static void test_get_what_is_clearsigned(void **state)
{
    uvm_auto_free char *sums = uvm_format("%s/CHECKSUM", root);
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_origin origin = {0}, signed_text = clearsigned(signer, "x\n");
    (void)state;
    put("CHECKSUM", signed_text.checksums.data, signed_text.checksums.len);
    put("CHECKSUM.asc", "not this one", 12);
    must(get(sums, NULL, MIRROR_ORIGIN_SIGNED, &origin, &err), &err);
    assert_int_equal(origin.signature.len, 0);
}

static void assert_no_get(const char *checksums, const char *signature, unsigned flags,
                          enum uvm_code code, const char *words)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_origin origin = {0};
    assert_false(get(checksums, signature, flags, &origin, &err));
    if (err.code != code || !strstr(err.message, words))
        fail_msg("code %d: %s", err.code, err.message);
    assert_null(origin.name);
}

static void test_get_what_is_not_there(void **state)
{
    uvm_auto_free char *none = uvm_format("%s/none", root);
    uvm_auto_free char *bare = uvm_format("%s/bare", root);
    uvm_auto_free char *large = uvm_format("%s/large", root);
    uvm_auto_free char *zeros = uvm_alloc(MIRROR_CHECKSUMS_MAX + 1);
    (void)state;
    put("bare", "x", 1);
    put("large", zeros, MIRROR_CHECKSUMS_MAX + 1);
    assert_no_get(none, NULL, 0, UVM_SOURCE, "none");
    assert_no_get(bare, none, 0, UVM_SOURCE, "signature");
    assert_no_get(bare, NULL, MIRROR_ORIGIN_SIGNED, UVM_TRUST, "--signature");
    assert_no_get(large, NULL, 0, UVM_SPACE, "large");
    assert_no_get(bare, large, 0, UVM_SPACE, "signature");
    assert_no_get(root, NULL, 0, UVM_SOURCE, "regular");
    assert_no_get("https://example.org/", NULL, 0, UVM_USAGE, "names no file");
    assert_no_get("https://example.org", NULL, 0, UVM_USAGE, "names no file");
    assert_no_get("ftp://example.org/x", NULL, 0, UVM_USAGE, "http");
    assert_no_get("https://u:secret@example.org/x?y", NULL, 0, UVM_USAGE, "'example.org/x?y'");
    assert_no_get("https://example.org/%zz", NULL, 0, UVM_USAGE, "escape");
}

/* SHA256SUMS and its signature; every other name is not there. */
static void answer_sums(struct server *s, int fd, const char *request, int number)
{
    (void)s, (void)number;
    if (strstr(request, "GET /a%20b/SHA256SUMS "))
        server_ok(fd, "sums", 4);
    else if (strstr(request, "GET /a%20b/SHA256SUMS.asc "))
        server_ok(fd, "sig", 3);
    else if (strstr(request, "GET /forbidden.gpg "))
        server_say(fd, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n"
                       "Connection: close\r\n\r\n");
    else if (strstr(request, "GET /forbidden "))
        server_ok(fd, "sums", 4);
    else
        server_say(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"
                       "Connection: close\r\n\r\n");
}

static void test_get_urls(void **state)
{
    struct server server = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_origin origin = {0};
    (void)state;
    server_start(&server, answer_sums);
    uvm_auto_free char *url = uvm_format("%sa%%20b/SHA256SUMS", server.url);
    uvm_auto_free char *none = uvm_format("%snone", server.url);
    uvm_auto_free char *forbidden = uvm_format("%sforbidden", server.url);
    must(get(url, NULL, MIRROR_ORIGIN_SIGNED, &origin, &err), &err);
    assert_string_equal(origin.checksums.data, "sums");
    assert_string_equal(origin.signature.data, "sig");
    assert_no_get(none, NULL, 0, UVM_SOURCE, "404");
    assert_no_get(url, none, 0, UVM_SOURCE, "404");
    assert_no_get(forbidden, NULL, MIRROR_ORIGIN_SIGNED, UVM_SOURCE, "403");
    server_stop(&server);
}

/* ---- all of them ---- */

static int set_up(void **state)
{
    struct uvm_verifier *ignored = NULL;
    (void)state;
    if (!mkdtemp(root))
        return 1;
    uvm_digest_bytes(UVM_SHA256, "a", 1, a256);
    uvm_digest_bytes(UVM_SHA256, "b", 1, b256);
    uvm_digest_bytes(UVM_SHA512, "a", 1, a512);
    uvm_digest_bytes(UVM_SHA512, "b", 1, b512);
    signer = make_signer("signer", &verifier);
    stranger = make_signer("stranger", &ignored);
    uvm_verifier_free(ignored);
    return 0;
}

static int tear_down(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    uvm_signer_free(signer);
    uvm_signer_free(stranger);
    uvm_verifier_free(verifier);
    return uvm_remove_tree(root, &err) ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_upper_case),
        cmocka_unit_test(test_not_a_sum),
        cmocka_unit_test(test_a_zero_byte_ends_nothing),
        cmocka_unit_test(test_names_of_any_kind),
        cmocka_unit_test(test_more_than_one),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_check_what_was_changed),
        cmocka_unit_test(test_check_needs_a_key),
        cmocka_unit_test(test_read_without_a_key),
        cmocka_unit_test(test_get_files),
        cmocka_unit_test(test_get_what_is_clearsigned),
        cmocka_unit_test(test_get_what_is_not_there),
        cmocka_unit_test(test_get_urls),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

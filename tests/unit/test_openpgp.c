/* mirror/base: gnupg.c, gnupg-agent.c, gnupg-home.c, keyring.c, openpgp.c, signer.c, verify.c and
 * cleartext.c, with real GnuPG. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "mirror/base/base.h"

static char *dir;
static char *site_home, *other_home;
static char site[UVM_FINGERPRINT_MAX], other[UVM_FINGERPRINT_MAX];
static struct uvm_strings site_ring;
static const char text[] = "{\"a\": 1}\n- a dash\nlast\n";

static void must(bool ok, struct uvm_error *err)
{
    if (!ok)
        fail_msg("%s", err->message);
}

static char *export_key(const char *home, const char *fingerprint, const char *name)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf key = {0};
    char *path = uvm_format("%s/%s", dir, name);
    must(uvm_key_export(home, fingerprint, &key, &err), &err);
    must(uvm_file_replace(path, 0644, key.data, key.len, &err), &err);
    return path;
}

static int make_keys(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    dir = uvm_strdup("/tmp/uvmirror-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    site_home = uvm_format("%s/site", dir);
    other_home = uvm_format("%s/other", dir);
    must(uvm_key_generate(site_home, "Site <site@example.org>", 0, site, &err), &err);
    must(uvm_key_generate(other_home, "Other", 3600, other, &err), &err);
    uvm_auto_free char *ring = export_key(site_home, site, "site.gpg");
    uvm_strings_add(&site_ring, ring);
    return 0;
}

static int remove_keys(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    must(uvm_remove_tree(dir, &err), &err);
    uvm_strings_clear(&site_ring);
    free(site_home);
    free(other_home);
    free(dir);
    return 0;
}

static struct uvm_verifier *site_verifier(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct uvm_verifier *v = NULL;
    must(uvm_verifier_new(&site_ring, &v, &err), &err);
    return v;
}

static void sign_with(const char *home, bool clear, struct uvm_buf *out)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(uvm_signer_free) struct uvm_signer *s = NULL;
    must(uvm_signer_new(home, NULL, &s, &err), &err);
    must(clear ? uvm_signer_clearsigned(s, text, sizeof text - 1, out, &err)
               : uvm_signer_detached(s, text, sizeof text - 1, out, &err),
         &err);
}

static void test_detached_round_trip(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf sig = {0};
    sign_with(site_home, false, &sig);
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = site_verifier();
    uvm_auto_signature who = {0};
    must(uvm_verifier_detached(v, text, sizeof text - 1, sig.data, sig.len, &who, &err), &err);
    assert_string_equal(who.fingerprint, site);
    assert_string_equal(who.user_id, "Site <site@example.org>");
    assert_true(who.made > 1700000000);
}

static void refused(struct uvm_verifier *v, const void *data, size_t len, const struct uvm_buf *sig,
                    const char *because)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature who = {0};
    assert_false(uvm_verifier_detached(v, data, len, sig->data, sig->len, &who, &err));
    assert_int_equal(err.code, UVM_TRUST);
    if (!strstr(err.message, because))
        fail_msg("'%s' does not say '%s'", err.message, because);
}

static void test_detached_refuses(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf good = {0}, bad = {0}, both = {0}, none = {0};
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = site_verifier();
    sign_with(site_home, false, &good);
    sign_with(other_home, false, &bad);
    refused(v, "other", 5, &good, "content was changed");
    refused(v, text, sizeof text - 1, &bad, "not trusted here");
    refused(v, text, sizeof text - 1, &none, "not signed");
    must(uvm_buf_add(&none, "hello", 5, &err), &err);
    refused(v, text, sizeof text - 1, &none, "not signed");
    must(uvm_buf_add(&both, good.data, good.len, &err), &err);
    must(uvm_buf_add(&both, bad.data, bad.len, &err), &err);
    refused(v, text, sizeof text - 1, &both, "not trusted here");
    /* GnuPG alone would pass over what stands around an armor: a second signature, too. */
    static const char *const around[][2] = {
        {"junk\n", ""}, {"", "junk"}, {"", "\x88\x75\x04"}, {"-\n", ""}};
    for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
        uvm_auto_buf more = {0};
        must(uvm_buf_add(&more, around[i][0], strlen(around[i][0]), &err), &err);
        must(uvm_buf_add(&more, good.data, good.len, &err), &err);
        must(uvm_buf_add(&more, around[i][1], strlen(around[i][1]), &err), &err);
        refused(v, text, sizeof text - 1, &more, "more than signatures");
    }
    uvm_auto_signature who = {0};
    must(uvm_buf_add(&good, "\r\n \n", 4, &err), &err);
    must(uvm_verifier_detached(v, text, sizeof text - 1, good.data, good.len, &who, &err), &err);
}

static void test_clearsigned_round_trip(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf signed_text = {0}, plain = {0};
    sign_with(site_home, true, &signed_text);
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = site_verifier();
    uvm_auto_signature who = {0};
    must(uvm_verifier_clearsigned(v, signed_text.data, signed_text.len, &plain, &who, &err), &err);
    assert_string_equal(plain.data, text);
    assert_string_equal(who.fingerprint, site);
}

/* Puts `extra` into a good clear-signed text at `mark` (NULL: at its end); it must be refused. */
static void refused_with(struct uvm_verifier *v, const struct uvm_buf *good, const char *mark,
                         const char *extra)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature who = {0};
    uvm_auto_buf plain = {0};
    const char *at = mark ? strstr(good->data, mark) : good->data + good->len;
    assert_non_null(at);
    uvm_auto_free char *bad = uvm_format("%.*s%s%s", (int)(at - good->data), good->data, extra, at);
    assert_false(uvm_verifier_clearsigned(v, bad, strlen(bad), &plain, &who, &err));
    assert_int_equal(err.code, UVM_TRUST);
    assert_null(plain.data);
}

static void test_clearsigned_refuses(void **state)
{
    (void)state;
    uvm_auto_buf good = {0}, bad = {0}, plain = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature who = {0};
    sign_with(site_home, true, &good);
    sign_with(other_home, true, &bad);
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = site_verifier();
    refused_with(v, &good, "-----BEGIN PGP SIGNED", "before\n");
    refused_with(v, &good, "-----BEGIN PGP SIGNED", "\n");
    refused_with(v, &good, NULL, "after");
    refused_with(v, &good, NULL, good.data); /* two messages */
    refused_with(v, &good, "last", "changed ");
    refused_with(v, &good, "last", "-----BEGIN PGP SIGNED MESSAGE-----\n");
    refused_with(v, &good, "Hash:", "NotDashEscaped: yes\n");
    refused_with(v, &good, "Hash:", "Comment: hi\n");
    refused_with(v, &good, "-----END PGP", "-----BEGIN PGP SIGNATURE-----\n");
    for (size_t cut = 0; cut < good.len - 1; cut += 7)
        assert_false(uvm_verifier_clearsigned(v, good.data, cut, &plain, &who, &err));
    assert_false(uvm_verifier_clearsigned(v, bad.data, bad.len, &plain, &who, &err));
    assert_non_null(strstr(err.message, "not trusted here"));
    assert_false(uvm_verifier_clearsigned(v, text, sizeof text - 1, &plain, &who, &err));
    assert_string_equal(err.message, "is not signed");
    uvm_auto_buf spaces = {0};
    must(uvm_buf_add(&spaces, good.data, good.len, &err), &err);
    must(uvm_buf_add(&spaces, "\r\n  \n", 5, &err), &err);
    must(uvm_verifier_clearsigned(v, spaces.data, spaces.len, &plain, &who, &err), &err);
}

/* `gpg` in a home folder of the test, for what the library does not do itself. */
static void gpg(const char *home, const char *args)
{
    uvm_auto_free char *command =
        uvm_format("gpg --homedir %s --batch --quiet --yes %s >%s/gpg.log 2>&1", home, args, dir);
    if (system(command) != 0)
        fail_msg("%s", command);
}

static void read_scratch(const char *name, struct uvm_buf *buf)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = uvm_format("%s/%s", dir, name);
    must(uvm_file_read(path, 1 << 20, buf, &err), &err);
}

/* Each of these keys or signatures is genuine; none may count. */
static void test_old_keys_and_weak_hashes(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *message = uvm_format("%s/message", dir);
    must(uvm_file_replace(message, 0644, text, sizeof text - 1, &err), &err);
    uvm_auto_free char *home = uvm_format("%s/rsa", dir);
    must(uvm_make_dirs(home, 0700, &err), &err);

    uvm_auto_free char *make = uvm_format(
        "--passphrase '' --faked-system-time 20200101T000000 --quick-gen-key old rsa2048 sign 1y");
    gpg(home, make);
    uvm_auto_free char *sign_old = uvm_format(
        "--faked-system-time 20200102T000000 -u old -o %s/old.sig --detach-sign %s", dir, message);
    gpg(home, sign_old);
    gpg(home,
        "--passphrase '' --faked-system-time 20200101T000000 --quick-gen-key new rsa2048 sign "
        "never");
    uvm_auto_free char *sign_weak =
        uvm_format("--digest-algo SHA1 -u new -o %s/weak.sig --detach-sign %s", dir, message);
    gpg(home, sign_weak);
    uvm_auto_free char *sign_short =
        uvm_format("--default-sig-expire 30d --faked-system-time "
                   "20200102T000000 -u new -o %s/short.sig --detach-sign %s",
                   dir, message);
    gpg(home, sign_short);
    gpg(home,
        "--passphrase '' --faked-system-time 20500101T000000 --quick-gen-key late rsa2048 sign "
        "never");
    uvm_auto_free char *sign_late =
        uvm_format("--faked-system-time 20500102T000000 -u late -o %s/late.sig --detach-sign %s",
                   dir, message);
    gpg(home, sign_late);
    uvm_auto_free char *export_all = uvm_format("-o %s/rsa.gpg --export", dir);
    gpg(home, export_all);

    uvm_auto_strings ring = {0};
    uvm_auto_free char *ring_path = uvm_format("%s/rsa.gpg", dir);
    uvm_strings_add(&ring, ring_path);
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = NULL;
    must(uvm_verifier_new(&ring, &v, &err), &err);
    uvm_auto_buf old = {0}, weak = {0}, expiring = {0};
    read_scratch("old.sig", &old);
    read_scratch("weak.sig", &weak);
    read_scratch("short.sig", &expiring);
    refused(v, text, sizeof text - 1, &old, "expired");
    refused(v, text, sizeof text - 1, &weak, "too weak");
    refused(v, text, sizeof text - 1, &expiring, "signature by");
    /* A clock that stands in the past is no reason to refuse: who shows the bundle's age says so. */
    uvm_auto_buf late = {0};
    uvm_auto_signature who = {0};
    read_scratch("late.sig", &late);
    must(uvm_verifier_detached(v, text, sizeof text - 1, late.data, late.len, &who, &err), &err);
    assert_true(who.made > time(NULL));
    uvm_auto_free char *stop = uvm_format("gpgconf --homedir %s --kill gpg-agent", home);
    assert_int_equal(system(stop), 0);
}

/* What the text between the marks says, must be what GnuPG makes of it. */
static void test_reads_what_stands_there(void **state)
{
    (void)state;
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = site_verifier();
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature who = {0};
    uvm_auto_buf good = {0}, keyed = {0}, plain = {0};
    sign_with(site_home, true, &good);
    uvm_auto_free char *path = uvm_format("%s/good.asc", dir);
    must(uvm_file_replace(path, 0644, good.data, good.len, &err), &err);
    /* A key in the armor, behind the signature: GnuPG lists it on its output. */
    uvm_auto_free char *add_key =
        uvm_format("cd %s && sed '/BEGIN PGP SIGNATURE/,$d' good.asc >keyed.asc &&"
                   " { sed -n '/BEGIN PGP SIGNATURE/,$p' good.asc | gpg --dearmor;"
                   " gpg --dearmor <site.gpg; } 2>/dev/null | gpg --enarmor 2>/dev/null |"
                   " sed 's/ARMORED FILE/SIGNATURE/; /^Comment/d' >>keyed.asc",
                   dir);
    assert_int_equal(system(add_key), 0);
    read_scratch("keyed.asc", &keyed);
    assert_false(uvm_verifier_clearsigned(v, keyed.data, keyed.len, &plain, &who, &err));
    assert_non_null(strstr(err.message, "more than signatures behind it"));
    assert_null(plain.data);
    uvm_error_clear(&err);

    /* White space at the end of a line is nobody's, and GnuPG takes it off. */
    const char *dash = strstr(good.data, "a dash") + strlen("a dash");
    uvm_auto_free char *spaced =
        uvm_format("%.*s \t\r%s", (int)(dash - good.data), good.data, dash);
    must(uvm_verifier_clearsigned(v, spaced, strlen(spaced), &plain, &who, &err), &err);
    assert_null(strchr(plain.data, '\t'));
}

static void sign_line(size_t len, struct uvm_buf *ret_signed, struct uvm_error *err)
{
    UVM_AUTO(uvm_signer_free) struct uvm_signer *s = NULL;
    must(uvm_signer_new(site_home, NULL, &s, err), err);
    uvm_auto_free char *line = uvm_alloc(len + 2);
    memset(line, 'x', len);
    line[len] = '\n';
    uvm_signer_clearsigned(s, line, len + 1, ret_signed, err);
}

/* GnuPG cuts long lines, and calls the signature over the rest good. */
static void test_long_lines(void **state)
{
    (void)state;
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = site_verifier();
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature who = {0};
    uvm_auto_buf good = {0}, plain = {0};
    sign_line(19001, &good, &err);
    assert_int_equal(err.code, UVM_SPACE);
    uvm_error_clear(&err);
    sign_line(19000, &good, &err);
    must(uvm_verifier_clearsigned(v, good.data, good.len, &plain, &who, &err), &err);
    assert_int_equal(plain.len, 19001);
    uvm_auto_free char *path = uvm_format("%s/long", dir), *line = uvm_alloc(30001);
    memset(line, 'x', 30000);
    must(uvm_file_replace(path, 0644, line, 30000, &err), &err);
    uvm_auto_free char *sign = uvm_format("-u %s -o %s/long.asc --clearsign %s", site, dir, path);
    gpg(site_home, sign);
    uvm_auto_free char *stop = uvm_format("gpgconf --homedir %s --kill gpg-agent", site_home);
    assert_int_equal(system(stop), 0);
    uvm_auto_buf cut = {0};
    read_scratch("long.asc", &cut);
    const char *end = strstr(cut.data, "\n-----BEGIN PGP SIGNATURE");
    assert_non_null(end);
    uvm_auto_free char *longer = uvm_format("%.*sMORE%s", (int)(end - cut.data), cut.data, end);
    uvm_auto_buf nothing = {0};
    assert_false(uvm_verifier_clearsigned(v, longer, strlen(longer), &nothing, &who, &err));
    assert_int_equal(err.code, UVM_TRUST);
}

static void test_keyrings(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_strings rings = {0};
    struct uvm_verifier *v = NULL;
    assert_false(uvm_verifier_new(&rings, &v, &err));
    uvm_strings_add(&rings, "/nonexistent.gpg");
    assert_false(uvm_verifier_new(&rings, &v, &err));
    assert_int_equal(err.code, UVM_TRUST);
    uvm_strings_clear(&rings);
    uvm_auto_free char *junk = uvm_format("%s/junk.gpg", dir);
    must(uvm_file_replace(junk, 0644, "junk", 4, &err), &err);
    uvm_strings_add(&rings, junk);
    assert_false(uvm_verifier_new(&rings, &v, &err));
    assert_int_equal(err.code, UVM_TRUST);

    uvm_auto_buf bytes = {0};
    uvm_auto_keys keys = {0};
    must(uvm_file_read(site_ring.items[0], UVM_KEYRING_MAX, &bytes, &err), &err);
    must(uvm_keys_read(bytes.data, bytes.len, &keys, &err), &err);
    assert_int_equal(keys.count, 1);
    assert_string_equal(keys.items[0].fingerprint, site);
    assert_int_equal(keys.items[0].expires, 0);
}

/* A key of an hour, and what is known of the time beside the clock. */
static void test_a_clock_that_is_behind(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf sig = {0};
    uvm_auto_strings ring = {0};
    uvm_auto_free char *path = export_key(other_home, other, "other-clock.gpg");
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = NULL;
    uvm_auto_signature who = {0};
    sign_with(other_home, false, &sig);
    uvm_strings_add(&ring, path);
    must(uvm_verifier_new(&ring, &v, &err), &err);
    static const time_t harmless[] = {0, 1, 1800};
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        time_t newest = harmless[i] > 1 ? time(NULL) + harmless[i] : harmless[i];
        must(uvm_verifier_not_before(v, newest, "a bundle", &err), &err);
        must(uvm_verifier_detached(v, text, sizeof text - 1, sig.data, sig.len, &who, &err), &err);
        uvm_signature_clear(&who);
    }
    static const time_t late[] = {7200, (time_t)UINT32_MAX * 2};
    for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
        must(uvm_verifier_not_before(v, time(NULL) + late[i], "a bundle is newer", &err), &err);
        refused(v, text, sizeof text - 1, &sig, "a key that expired on 20");
        refused(v, text, sizeof text - 1, &sig, ", but a bundle is newer)");
    }
}

static void test_signers(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct uvm_signer *s = NULL;
    uvm_auto_free char *empty = uvm_format("%s/no-such-home", dir);
    assert_false(uvm_signer_new(empty, NULL, &s, &err));
    assert_non_null(strstr(err.message, "key generate"));
    assert_false(uvm_signer_new(site_home, "nobody@example.org", &s, &err));
    char second[UVM_FINGERPRINT_MAX];
    must(uvm_key_generate(other_home, "Second", 3600, second, &err), &err);
    assert_false(uvm_signer_new(other_home, NULL, &s, &err));
    assert_non_null(strstr(err.message, "--sign-key"));
    must(uvm_signer_new(other_home, second, &s, &err), &err);
    assert_string_equal(uvm_signer_fingerprint(s), second);
    uvm_signer_free(s);
    uvm_auto_keys keys = {0};
    must(uvm_keys_secret(other_home, &keys, &err), &err);
    assert_int_equal(keys.count, 2);
    assert_true(keys.items[0].has_secret && keys.items[0].expires > 0);
}

/* The user's own GnuPG settings play no part. */
static void test_hostile_gnupghome(void **state)
{
    (void)state;
    uvm_auto_buf sig = {0};
    sign_with(other_home, false, &sig);
    setenv("GNUPGHOME", other_home, 1);
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = site_verifier();
    refused(v, text, sizeof text - 1, &sig, "not trusted here");
    unsetenv("GNUPGHOME");
}

/* ---- keyrings, and who vouches for whom ---- */

static void read_ring(const char *name, struct uvm_keys *keys)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf bytes = {0};
    read_scratch(name, &bytes);
    must(uvm_keys_read(bytes.data, bytes.len, keys, &err), &err);
}

static void test_a_keyring_without_a_key(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf one = {0}, both = {0}, rest = {0}, nothing = {0};
    must(uvm_key_export(site_home, site, &one, &err), &err);
    must(uvm_key_export(other_home, other, &both, &err), &err);
    must(uvm_buf_add(&both, one.data, one.len, &err), &err);
    must(uvm_keyring_without(both.data, both.len, other, &rest, &err), &err);
    uvm_auto_keys left = {0};
    must(uvm_keys_read(rest.data, rest.len, &left, &err), &err);
    assert_int_equal(left.count, 1);
    assert_true(uvm_keys_has(&left, site) && !uvm_keys_has(&left, other));
    must(uvm_keyring_without(one.data, one.len, site, &nothing, &err), &err);
    assert_int_equal(nothing.len, 0);
    assert_false(uvm_keyring_without(one.data, one.len, other, &nothing, &err));
    assert_int_equal(err.code, UVM_TRUST);
}

static void assert_voucher(const struct uvm_strings *trusted, const struct uvm_buf *ring,
                           const char *fingerprint, const char *expected)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    char voucher[UVM_FINGERPRINT_MAX];
    must(uvm_key_voucher(trusted, ring->data, ring->len, fingerprint, voucher, &err), &err);
    assert_string_equal(voucher, expected);
}

/* The site vouches for the other key, which keeps no trace in the site's home folder. */
static void test_a_voucher(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf plain = {0}, certified = {0}, again = {0}, exported = {0};
    must(uvm_key_export(other_home, other, &plain, &err), &err);
    UVM_AUTO(uvm_signer_free) struct uvm_signer *s = NULL;
    must(uvm_signer_new(site_home, NULL, &s, &err), &err);
    must(uvm_signer_certify(s, plain.data, plain.len, other, &certified, &err), &err);
    assert_voucher(&site_ring, &plain, other, "");
    assert_voucher(&site_ring, &certified, other, site);
    assert_false(uvm_key_export(site_home, other, &again, &err));
    uvm_error_clear(&err);

    /* What a key gains is taken over; and a keyring that only adds to another one is no failure. */
    must(uvm_key_import(other_home, certified.data, certified.len, &err), &err);
    must(uvm_key_export(other_home, other, &exported, &err), &err);
    assert_voucher(&site_ring, &exported, other, site);
    uvm_auto_strings rings = {0};
    uvm_auto_free char *bare = uvm_format("%s/bare.gpg", dir);
    uvm_auto_free char *more = uvm_format("%s/more.gpg", dir);
    must(uvm_file_replace(bare, 0644, plain.data, plain.len, &err), &err);
    must(uvm_file_replace(more, 0644, certified.data, certified.len, &err), &err);
    uvm_strings_add(&rings, bare);
    uvm_strings_add(&rings, more);
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = NULL;
    must(uvm_verifier_new(&rings, &v, &err), &err);
    assert_voucher(&rings, &certified, other, other);
    uvm_auto_keys keys = {0};
    read_ring("more.gpg", &keys);
    assert_int_equal(keys.count, 1);
}

/* Who exchanges a home folder locks it for himself; a signer, for as long as it lives. */
static void test_a_signer_locks_its_home(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_fd home = open(site_home, O_RDONLY | O_DIRECTORY);
    struct uvm_signer *s = NULL;
    must(uvm_signer_new(site_home, NULL, &s, &err), &err);
    assert_int_equal(flock(home, LOCK_SH | LOCK_NB), 0);
    assert_int_equal(flock(home, LOCK_EX | LOCK_NB), -1);
    uvm_signer_free(s);
    assert_int_equal(flock(home, LOCK_EX | LOCK_NB), 0);
    assert_false(uvm_signer_new(site_home, NULL, &s, &err));
    assert_int_equal(err.code, UVM_BUSY);
}

/* ---- what killed processes left ---- */

/* A process that does this and then waits to be killed. */
static pid_t start(void (*what)(void))
{
    int pipe_fds[2];
    char ready = 0;
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        what();
        while (write(pipe_fds[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    close(pipe_fds[1]);
    assert_int_equal(read(pipe_fds[0], &ready, 1), 1);
    close(pipe_fds[0]);
    return pid;
}

static void end(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void make_verifier(void)
{
    site_verifier();
}

static size_t count_in(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, NULL);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    return (size_t)count - 2; /* . and .. */
}

/* Folders of a verifier's name that are none of ours to remove. */
static char *make_hostile(const char *tmp)
{
    uvm_auto_free char *target = uvm_format("%s/target", tmp);
    uvm_auto_free char *link = uvm_format("%s/uvmirror-keys-link00", tmp);
    uvm_auto_free char *other_user = uvm_format("%s/uvmirror-keys-other0", tmp);
    uvm_auto_free char *longer = uvm_format("%s/uvmirror-keys-longer0", tmp);
    char *folders[] = {target, other_user, longer};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        uvm_auto_free char *below = uvm_format("%s/below", folders[i]);
        assert_int_equal(mkdir(folders[i], 0700), 0);
        assert_int_equal(mkdir(below, 0700), 0);
    }
    assert_int_equal(symlink(target, link), 0);
    if (geteuid() == 0)
        assert_int_equal(chown(other_user, 65534, 65534), 0);
    else
        assert_true(uvm_remove_tree(other_user, &(struct uvm_error){0}));
    return UVM_STEAL(target);
}

static void test_a_killed_verifiers_home_goes(void **state)
{
    (void)state;
    uvm_auto_free char *tmp = uvm_format("%s/tmp", dir);
    assert_int_equal(mkdir(tmp, 0700), 0);
    uvm_auto_free char *target = make_hostile(tmp);
    size_t hostile = count_in(tmp);
    setenv("TMPDIR", tmp, 1);
    pid_t killed = start(make_verifier), alive = start(make_verifier);
    end(killed);
    assert_int_equal(count_in(tmp), hostile + 2);
    uvm_verifier_free(site_verifier());
    assert_int_equal(count_in(tmp), hostile + 1);
    assert_int_equal(count_in(target), 1);
    end(alive);
    uvm_verifier_free(site_verifier());
    assert_int_equal(count_in(tmp), hostile);
    unsetenv("TMPDIR");
}

/* ---- agents ---- */

static bool has_agent(const char *home)
{
    uvm_auto_free char *ask =
        uvm_format("gpg-connect-agent --homedir %s --no-autostart 'GETINFO pid' "
                   "/bye 2>%s/gpg.log | grep -q ^OK",
                   home, dir);
    return system(ask) == 0;
}

static bool has_claim(const char *home)
{
    uvm_auto_free char *path = uvm_format("%s/uvmirror-agent", home);
    return access(path, F_OK) == 0;
}

static struct uvm_signer *start_signing(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf sig = {0};
    struct uvm_signer *s = NULL;
    must(uvm_signer_new(site_home, NULL, &s, &err), &err);
    must(uvm_signer_detached(s, "x", 1, &sig, &err), &err);
    return s;
}

static void sign_and_wait(void)
{
    start_signing();
}

static void test_the_last_signer_stops_the_agent(void **state)
{
    (void)state;
    assert_false(has_agent(site_home));
    struct uvm_signer *first = start_signing(), *last = start_signing();
    uvm_signer_free(first);
    assert_true(has_agent(site_home));
    uvm_signer_free(last);
    assert_false(has_agent(site_home) || has_claim(site_home));
}

static void test_a_killed_signers_agent_goes(void **state)
{
    (void)state;
    pid_t killed = start(sign_and_wait), alive = start(sign_and_wait);
    end(killed);
    uvm_signer_free(start_signing());
    assert_true(has_agent(site_home)); /* somebody still needs it */
    end(alive);
    assert_true(has_agent(site_home));
    uvm_signer_free(start_signing());
    assert_false(has_agent(site_home) || has_claim(site_home));
}

static void test_a_users_agent_stays(void **state)
{
    (void)state;
    uvm_auto_free char *begin =
        uvm_format("gpg-connect-agent --homedir %s /bye >%s/gpg.log 2>&1", site_home, dir);
    assert_int_equal(system(begin), 0);
    uvm_signer_free(start_signing());
    assert_true(has_agent(site_home) && !has_claim(site_home));
    uvm_auto_free char *stop = uvm_format("gpgconf --homedir %s --kill gpg-agent", site_home);
    assert_int_equal(system(stop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_detached_round_trip),
        cmocka_unit_test(test_detached_refuses),
        cmocka_unit_test(test_clearsigned_round_trip),
        cmocka_unit_test(test_clearsigned_refuses),
        cmocka_unit_test(test_old_keys_and_weak_hashes),
        cmocka_unit_test(test_keyrings),
        cmocka_unit_test(test_hostile_gnupghome),
        cmocka_unit_test(test_a_clock_that_is_behind),
        cmocka_unit_test(test_signers),
        cmocka_unit_test(test_reads_what_stands_there),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_a_keyring_without_a_key),
        cmocka_unit_test(test_a_voucher),
        cmocka_unit_test(test_a_signer_locks_its_home),
        cmocka_unit_test(test_a_killed_verifiers_home_goes),
        cmocka_unit_test(test_the_last_signer_stops_the_agent),
        cmocka_unit_test(test_a_killed_signers_agent_goes),
        cmocka_unit_test(test_a_users_agent_stays),
    };
    return cmocka_run_group_tests(tests, make_keys, remove_keys);
}

/* OpenPGP: signing with one of the keys in a GnuPG home folder. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mirror/base/cleartext.h"
#include "mirror/base/gnupg.h"

struct uvm_signer {
    int lock_fd; /* of the home folder; -1 = none */
    struct uvm_gpg_agent agent;
    gpgme_ctx_t ctx;
    char fingerprint[UVM_FINGERPRINT_MAX];
    time_t made; /* the first of its keys that can sign; 0 = unknown */
};

void uvm_signer_free(struct uvm_signer *s)
{
    if (!s)
        return;
    uvm_gpg_release_ctx_(&s->ctx);
    uvm_gpg_agent_leave(&s->agent);
    uvm_close_ptr(&s->lock_fd);
    free(s);
}

const char *uvm_signer_fingerprint(const struct uvm_signer *s)
{
    return s->fingerprint;
}

static bool can_sign(gpgme_key_t key)
{
    return key->can_sign && !key->revoked && !key->expired && !key->disabled && key->subkeys;
}

/* When the first of its keys was made that can sign. */
static time_t made_at(gpgme_key_t key)
{
    long first = 0;
    for (gpgme_subkey_t sub = key->subkeys; sub; sub = sub->next)
        if (sub->can_sign && sub->timestamp > 0 && (first == 0 || sub->timestamp < first))
            first = sub->timestamp;
    return first;
}

/* No key that can sign: the last one that could has expired, if there is such a key. */
static bool fail_no_key(const char *name, gpgme_key_t expired, struct uvm_error *err)
{
    if (expired) {
        uvm_auto_free char *until = uvm_time_text(expired->subkeys->expires),
                           *now = uvm_time_text(time(NULL));
        return uvm_fail(err, UVM_TRUST,
                        "the signing key %s expired on %s (it is %s here): make another one "
                        "('uvmirror key generate --name NAME'), or set the clock",
                        expired->subkeys->fpr, until, now);
    }
    if (name)
        return uvm_fail(err, UVM_TRUST, "no key '%s' that can sign", name);
    return uvm_fail(err, UVM_TRUST, "no signing key here yet (make one: 'uvmirror key generate')");
}

/* The one key that `name` means (NULL: the only one there is). */
static bool find_signing_key(gpgme_ctx_t ctx, const char *name, gpgme_key_t *ret_key,
                             struct uvm_error *err)
{
    uvm_auto_gpg_key found = NULL, expired = NULL;
    size_t count = 0;
    gpgme_error_t e = gpgme_op_keylist_start(ctx, name, 1);
    while (!e) {
        uvm_auto_gpg_key key = NULL;
        e = gpgme_op_keylist_next(ctx, &key);
        if (e || !key->subkeys)
            continue;
        gpgme_key_t *kept = can_sign(key)                   ? &found
                            : key->expired && !key->revoked ? &expired
                                                            : NULL;
        if (!kept)
            continue;
        count += kept == &found;
        uvm_gpg_release_key_(kept);
        *kept = UVM_STEAL(key);
    }
    if (gpgme_err_code(e) != GPG_ERR_EOF)
        return uvm_gpg_fail(err, e, "cannot list keys");
    if (!found)
        return fail_no_key(name, expired, err);
    if (count > 1)
        return uvm_fail(err, UVM_TRUST, "%zu keys could sign: choose one with --sign-key", count);
    *ret_key = UVM_STEAL(found);
    return true;
}

/* Whether a folder that was opened is still the one of that name. */
static bool is_still(int fd, const char *path)
{
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/* The folder is not to be exchanged under a signer. One that cannot be opened is GnuPG's to refuse,
 * and a file system without locks is not exchanged by two at a time. */
static bool lock_home(const char *homedir, int *ret_fd, struct uvm_error *err)
{
    uvm_auto_fd fd = homedir ? open(homedir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0)
        return true;
    if ((flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK) || !is_still(fd, homedir))
        return uvm_fail(err, UVM_BUSY, "%s: another uvmirror is exchanging its keys", homedir);
    *ret_fd = uvm_steal_fd(&fd);
    return true;
}

bool uvm_signer_new(const char *homedir, const char *key_name, struct uvm_signer **ret_signer,
                    struct uvm_error *err)
{
    if (homedir && access(homedir, F_OK) < 0)
        return uvm_fail(err, UVM_TRUST,
                        "no signing key here yet (make one: 'uvmirror key generate')");
    UVM_AUTO(uvm_signer_free) struct uvm_signer *s = uvm_alloc(sizeof *s);
    s->lock_fd = -1;
    s->agent = UVM_GPG_AGENT_INIT;
    if (!lock_home(homedir, &s->lock_fd, err) || !uvm_gpg_new(homedir, &s->ctx, err))
        return false;
    s->agent = uvm_gpg_agent_use(homedir);
    uvm_auto_gpg_key key = NULL;
    if (!find_signing_key(s->ctx, key_name, &key, err))
        return false;
    uvm_gpg_copy_fingerprint(s->fingerprint, key->subkeys->fpr);
    s->made = made_at(key);
    gpgme_error_t e = gpgme_signers_add(s->ctx, key);
    if (e)
        return uvm_gpg_fail(err, e, "cannot use the key");
    *ret_signer = UVM_STEAL(s);
    return true;
}

bool uvm_signer_check_clock(const struct uvm_signer *s, struct uvm_error *err)
{
    time_t now = time(NULL);
    if (now >= s->made)
        return true;
    uvm_auto_free char *made = uvm_time_text(s->made), *here = uvm_time_text(now);
    return uvm_fail(
        err, UVM_TRUST,
        "key %s was made on %s, and the clock here says %s: GnuPG signs nothing before; "
        "set the clock (timedatectl set-time 'YYYY-MM-DD HH:MM:SS')",
        s->fingerprint, made, here);
}

static bool fail_sign(const struct uvm_signer *s, gpgme_error_t e, struct uvm_error *err)
{
    switch (gpgme_err_code(e)) {
    case GPG_ERR_CANCELED:
    case GPG_ERR_FULLY_CANCELED:
        return uvm_fail(err, UVM_INTERRUPTED,
                        "no passphrase was given for key %s: nothing is signed", s->fingerprint);
    case GPG_ERR_BAD_PASSPHRASE:
        return uvm_fail(err, UVM_TRUST, "wrong passphrase for key %s: nothing is signed",
                        s->fingerprint);
    case GPG_ERR_NO_PIN_ENTRY:
        return uvm_fail(err, UVM_TRUST,
                        "key %s has a passphrase, and there is no pinentry to ask for it (install "
                        "one, such as package pinentry-curses, and set GPG_TTY=$(tty))",
                        s->fingerprint);
    default:
        return uvm_gpg_fail(err, e, "cannot sign");
    }
}

static bool sign(struct uvm_signer *s, gpgme_sig_mode_t mode, const void *bytes, size_t len,
                 struct uvm_buf *ret_signed, struct uvm_error *err)
{
    uvm_auto_gpg_data in = NULL, out = NULL;
    if (!uvm_signer_check_clock(s, err) || !uvm_gpg_data(bytes, len, &in, err))
        return false;
    gpgme_error_t e = gpgme_data_new(&out);
    if (!e)
        e = gpgme_op_sign(s->ctx, in, out, mode);
    if (e)
        return fail_sign(s, e, err);
    gpgme_sign_result_t result = gpgme_op_sign_result(s->ctx);
    if (!result || !result->signatures || uvm_gpg_is_weak(result->signatures->hash_algo))
        return uvm_fail(err, UVM_TRUST, "key %s signs with a hash that is too weak",
                        s->fingerprint);
    return uvm_gpg_take(&out, ret_signed, err);
}

bool uvm_signer_detached(struct uvm_signer *s, const void *data, size_t len,
                         struct uvm_buf *ret_sig, struct uvm_error *err)
{
    return sign(s, GPGME_SIG_MODE_DETACH, data, len, ret_sig, err);
}

bool uvm_signer_clearsigned(struct uvm_signer *s, const void *text, size_t len,
                            struct uvm_buf *ret_signed, struct uvm_error *err)
{
    if (!uvm_cleartext_fits(text, len))
        return uvm_fail(err, UVM_SPACE, "a line is longer than the %zu bytes that can be signed",
                        UVM_CLEARTEXT_LINE_MAX);
    return sign(s, GPGME_SIG_MODE_CLEAR, text, len, ret_signed, err);
}

/* ---- vouching for another key ---- */

static bool certify(struct uvm_signer *s, const char *fingerprint, struct uvm_error *err)
{
    uvm_auto_gpg_key key = NULL;
    gpgme_error_t e = gpgme_get_key(s->ctx, fingerprint, &key, 0);
    if (!e)
        e = gpgme_op_keysign(s->ctx, key, NULL, 0, GPGME_KEYSIGN_NOEXPIRE);
    return e ? fail_sign(s, e, err) : true;
}

bool uvm_signer_certify(struct uvm_signer *s, const void *keyring, size_t len,
                        const char *fingerprint, struct uvm_buf *ret_armored, struct uvm_error *err)
{
    if (!uvm_signer_check_clock(s, err) || !uvm_gpg_import(s->ctx, keyring, len, err))
        return false;
    uvm_auto_buf key = {0};
    bool ok = certify(s, fingerprint, err) && uvm_gpg_export(s->ctx, fingerprint, &key, err);
    uvm_auto_error ignored = UVM_ERROR_INIT; /* it does no harm there */
    uvm_gpg_delete(s->ctx, fingerprint, &ignored);
    if (ok)
        uvm_buf_move(ret_armored, &key);
    return ok;
}

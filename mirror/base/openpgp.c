/* OpenPGP: keys as they are listed, made and exported, and signing with one of them. */
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "mirror/base/cleartext.h"
#include "mirror/base/gnupg.h"

/* ---- keys ---- */

void uvm_keys_clear(struct uvm_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++)
        free(keys->items[i].user_id);
    free(keys->items);
    *keys = (struct uvm_keys){0};
}

static void add_key(struct uvm_keys *keys, gpgme_key_t key)
{
    keys->items = uvm_grow(keys->items, keys->count + 1, sizeof *keys->items);
    struct uvm_key *k = &keys->items[keys->count++];
    *k = (struct uvm_key){
        .user_id = uvm_printable(key->uids ? key->uids->uid : ""),
        .created = key->subkeys->timestamp > 0 ? key->subkeys->timestamp : 0,
        .expires = key->subkeys->expires,
        .revoked = key->revoked,
        .has_secret = key->secret,
    };
    uvm_gpg_copy_fingerprint(k->fingerprint, key->subkeys->fpr);
}

static bool list_keys(gpgme_ctx_t ctx, int secret_only, struct uvm_keys *ret_keys,
                      struct uvm_error *err)
{
    uvm_auto_keys keys = {0};
    gpgme_error_t e = gpgme_op_keylist_start(ctx, NULL, secret_only);
    while (!e) {
        uvm_auto_gpg_key key = NULL;
        e = gpgme_op_keylist_next(ctx, &key);
        if (!e && key->subkeys)
            add_key(&keys, key);
    }
    if (gpgme_err_code(e) != GPG_ERR_EOF)
        return uvm_gpg_fail(err, e, "cannot list keys");
    *ret_keys = keys;
    keys = (struct uvm_keys){0};
    return true;
}

bool uvm_keys_read(const void *keyring, size_t len, struct uvm_keys *ret_keys,
                   struct uvm_error *err)
{
    __attribute__((cleanup(uvm_gpg_remove_home))) char *home = NULL;
    uvm_auto_gpg_ctx ctx = NULL;
    return uvm_gpg_make_home(&home, err) && uvm_gpg_new(home, &ctx, err) &&
           uvm_gpg_import(ctx, keyring, len, err) && list_keys(ctx, 0, ret_keys, err);
}

bool uvm_keys_secret(const char *homedir, struct uvm_keys *ret_keys, struct uvm_error *err)
{
    if (homedir && access(homedir, F_OK) < 0)
        return true;
    uvm_auto_gpg_ctx ctx = NULL;
    if (!uvm_gpg_new(homedir, &ctx, err))
        return false;
    uvm_auto_gpg_agent agent = uvm_gpg_without_agent(homedir);
    return list_keys(ctx, 1, ret_keys, err);
}

/* The agent listens on a socket in its home folder, unless the system has a folder for sockets. */
static bool check_socket_fits(const char *homedir, struct uvm_error *err)
{
    uvm_auto_free char *run = uvm_format("/run/user/%u", (unsigned)getuid());
    size_t longest = sizeof "/S.gpg-agent.extra";
    if (access(run, F_OK) == 0 ||
        strlen(homedir) + longest <= sizeof((struct sockaddr_un){0}).sun_path)
        return true;
    return uvm_fail(err, UVM_FAILED,
                    "%s: the path is too long for GnuPG's sockets: use a shorter "
                    "--homedir or --state-dir",
                    homedir);
}

bool uvm_key_generate(const char *homedir, const char *user_id, unsigned long valid_seconds,
                      char ret_fingerprint[UVM_FINGERPRINT_MAX], struct uvm_error *err)
{
    if (!check_socket_fits(homedir, err))
        return false;
    uvm_auto_free char *parent = uvm_dirname(homedir);
    if (!uvm_make_dirs(parent, 0755, err) || !uvm_make_dirs(homedir, 0700, err))
        return false;
    uvm_auto_gpg_ctx ctx = NULL;
    if (!uvm_gpg_new(homedir, &ctx, err))
        return false;
    uvm_auto_gpg_agent agent = uvm_gpg_without_agent(homedir);
    unsigned flags = GPGME_CREATE_SIGN | GPGME_CREATE_CERT | GPGME_CREATE_NOPASSWD;
    if (valid_seconds == 0)
        flags |= GPGME_CREATE_NOEXPIRE;
    gpgme_error_t e = gpgme_op_createkey(ctx, user_id, "ed25519", 0, valid_seconds, NULL, flags);
    if (gpgme_err_code(e) == GPG_ERR_USER_ID_EXISTS || gpgme_err_code(e) == GPG_ERR_EEXIST)
        return uvm_fail(err, UVM_USAGE, "there is a key named '%s' already", user_id);
    if (e)
        return uvm_gpg_fail(err, e, "cannot make a key");
    gpgme_genkey_result_t result = gpgme_op_genkey_result(ctx);
    if (!result || !result->fpr)
        return uvm_fail(err, UVM_TRUST, "GnuPG made no key");
    uvm_gpg_copy_fingerprint(ret_fingerprint, result->fpr);
    return true;
}

bool uvm_key_export(const char *homedir, const char *fingerprint, struct uvm_buf *ret_armored,
                    struct uvm_error *err)
{
    uvm_auto_gpg_ctx ctx = NULL;
    uvm_auto_gpg_data data = NULL;
    if (!uvm_gpg_new(homedir, &ctx, err))
        return false;
    gpgme_error_t e = gpgme_data_new(&data);
    if (!e)
        e = gpgme_op_export(ctx, fingerprint, 0, data);
    if (e)
        return uvm_gpg_fail(err, e, "cannot export the key");
    uvm_auto_buf buf = {.max = UVM_KEYRING_MAX};
    if (!uvm_gpg_take(&data, &buf, err))
        return false;
    if (buf.len == 0)
        return uvm_fail(err, UVM_TRUST, "there is no key %s", fingerprint);
    uvm_buf_move(ret_armored, &buf);
    return true;
}

/* ---- signing ---- */

struct uvm_signer {
    char *agent_home; /* whose agent is to be stopped; NULL = none */
    gpgme_ctx_t ctx;
    char fingerprint[UVM_FINGERPRINT_MAX];
};

void uvm_signer_free(struct uvm_signer *s)
{
    if (!s)
        return;
    uvm_gpg_release_ctx_(&s->ctx);
    uvm_gpg_stop_agent(s->agent_home);
    free(s->agent_home);
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

/* The one key that `name` means (NULL: the only one there is). */
static bool find_signing_key(gpgme_ctx_t ctx, const char *name, gpgme_key_t *ret_key,
                             char ret_fingerprint[UVM_FINGERPRINT_MAX], struct uvm_error *err)
{
    uvm_auto_gpg_key found = NULL;
    char fingerprint[UVM_FINGERPRINT_MAX] = "";
    size_t count = 0;
    gpgme_error_t e = gpgme_op_keylist_start(ctx, name, 1);
    while (!e) {
        uvm_auto_gpg_key key = NULL;
        e = gpgme_op_keylist_next(ctx, &key);
        if (e || !can_sign(key))
            continue;
        count++;
        uvm_gpg_copy_fingerprint(fingerprint, key->subkeys->fpr);
        uvm_gpg_release_key_(&found);
        found = UVM_STEAL(key);
    }
    if (gpgme_err_code(e) != GPG_ERR_EOF)
        return uvm_gpg_fail(err, e, "cannot list keys");
    if (!found && name)
        return uvm_fail(err, UVM_TRUST, "no key '%s' that can sign", name);
    if (!found)
        return uvm_fail(err, UVM_TRUST,
                        "no signing key here yet (make one: 'uvmirror key generate')");
    if (count > 1)
        return uvm_fail(err, UVM_TRUST, "%zu keys could sign: choose one with --sign-key", count);
    *ret_key = UVM_STEAL(found);
    memcpy(ret_fingerprint, fingerprint, sizeof fingerprint);
    return true;
}

bool uvm_signer_new(const char *homedir, const char *key_name, struct uvm_signer **ret_signer,
                    struct uvm_error *err)
{
    if (homedir && access(homedir, F_OK) < 0)
        return uvm_fail(err, UVM_TRUST,
                        "no signing key here yet (make one: 'uvmirror key generate')");
    UVM_AUTO(uvm_signer_free) struct uvm_signer *s = uvm_alloc(sizeof *s);
    if (!uvm_gpg_new(homedir, &s->ctx, err))
        return false;
    s->agent_home = uvm_strdup(uvm_gpg_without_agent(homedir));
    uvm_auto_gpg_key key = NULL;
    if (!find_signing_key(s->ctx, key_name, &key, s->fingerprint, err))
        return false;
    gpgme_error_t e = gpgme_signers_add(s->ctx, key);
    if (e)
        return uvm_gpg_fail(err, e, "cannot use the key");
    *ret_signer = UVM_STEAL(s);
    return true;
}

static bool sign(struct uvm_signer *s, gpgme_sig_mode_t mode, const void *bytes, size_t len,
                 struct uvm_buf *ret_signed, struct uvm_error *err)
{
    uvm_auto_gpg_data in = NULL, out = NULL;
    if (!uvm_gpg_data(bytes, len, &in, err))
        return false;
    gpgme_error_t e = gpgme_data_new(&out);
    if (!e)
        e = gpgme_op_sign(s->ctx, in, out, mode);
    if (gpgme_err_code(e) == GPG_ERR_CANCELED)
        return uvm_fail(err, UVM_INTERRUPTED, "signing was cancelled");
    if (e)
        return uvm_gpg_fail(err, e, "cannot sign");
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

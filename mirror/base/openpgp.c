/*
 * OpenPGP through gpgme, which runs GnuPG.
 *
 * gpgme alone would trust whatever the user's keyring trusts, and reports success with an empty
 * list of signatures when GnuPG is missing. So every verification has a home folder of its own that
 * holds the wanted keys and nothing else, and its result is read signature by signature.
 */
#include <errno.h>
#include <gpgme.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "mirror/base/base.h"
#include "mirror/base/cleartext.h"

#define AGENT_POLLS   200
#define AGENT_POLL_NS 10000000L

static void release_ctx(gpgme_ctx_t *ctx)
{
    if (*ctx)
        gpgme_release(*ctx);
}

static void release_data(gpgme_data_t *data)
{
    if (*data)
        gpgme_data_release(*data);
}

static void release_key(gpgme_key_t *key)
{
    if (*key)
        gpgme_key_unref(*key);
}

#define auto_ctx  __attribute__((cleanup(release_ctx))) gpgme_ctx_t
#define auto_data __attribute__((cleanup(release_data))) gpgme_data_t
#define auto_key  __attribute__((cleanup(release_key))) gpgme_key_t

static bool fail_gpg(struct uvm_error *err, gpgme_error_t e, const char *what)
{
    return uvm_fail(err, UVM_TRUST, "%s: %s", what, gpgme_strerror(e));
}

/* ---- contexts and home folders ---- */

static bool new_ctx(const char *homedir, gpgme_ctx_t *ret_ctx, struct uvm_error *err)
{
    gpgme_check_version(NULL);
    if (gpgme_engine_check_version(GPGME_PROTOCOL_OpenPGP))
        return uvm_fail(err, UVM_TRUST,
                        "GnuPG is not installed (package gnupg): nothing can be "
                        "verified or signed without it");
    auto_ctx ctx = NULL;
    gpgme_error_t e = gpgme_new(&ctx);
    if (!e && homedir)
        e = gpgme_ctx_set_engine_info(ctx, GPGME_PROTOCOL_OpenPGP, NULL, homedir);
    if (e)
        return fail_gpg(err, e, "cannot start GnuPG");
    gpgme_set_armor(ctx, 1);
    gpgme_set_offline(ctx, 1);
    *ret_ctx = UVM_STEAL(ctx);
    return true;
}

static bool mem_data(const void *bytes, size_t len, gpgme_data_t *ret_data, struct uvm_error *err)
{
    gpgme_error_t e = gpgme_data_new_from_mem(ret_data, bytes ? bytes : "", len, 0);
    return e ? fail_gpg(err, e, "cannot hand data to GnuPG") : true;
}

static bool take_data(gpgme_data_t *data, struct uvm_buf *ret_buf, struct uvm_error *err)
{
    size_t len = 0;
    char *mem = gpgme_data_release_and_get_mem(UVM_STEAL(*data), &len);
    uvm_auto_buf buf = {.max = ret_buf->max};
    bool ok = uvm_buf_add(&buf, mem ? mem : "", len, err);
    gpgme_free(mem);
    if (ok)
        uvm_buf_move(ret_buf, &buf);
    return ok;
}

/* A home folder of our own: no agent, no network, no opinion about ownertrust, and a clock that is
 * behind a key's creation is no reason to call the key bad. */
static bool make_private_home(char **ret_home, struct uvm_error *err)
{
    static const char conf[] = "no-autostart\nignore-time-conflict\nno-auto-key-locate\n"
                               "no-auto-key-retrieve\ntrust-model always\nno-auto-check-trustdb\n"
                               "import-options no-repair-keys\n";
    const char *tmp = getenv("TMPDIR");
    uvm_auto_free char *home =
        uvm_format("%s/uvmirror-keys-XXXXXX", tmp && tmp[0] == '/' ? tmp : "/tmp");
    if (!mkdtemp(home))
        return uvm_fail_errno(err, UVM_FAILED, "cannot make a private folder for GnuPG");
    uvm_auto_free char *path = uvm_format("%s/gpg.conf", home);
    if (!uvm_file_replace(path, 0600, conf, sizeof conf - 1, err)) {
        uvm_auto_error ignored = UVM_ERROR_INIT;
        uvm_remove_tree(home, &ignored);
        return false;
    }
    *ret_home = UVM_STEAL(home);
    return true;
}

static void remove_private_home(char **home)
{
    uvm_auto_error ignored = UVM_ERROR_INIT; /* GnuPG may remove its own lock at the same moment */
    if (*home && !uvm_remove_tree(*home, &ignored)) {
        uvm_auto_error again = UVM_ERROR_INIT;
        uvm_remove_tree(*home, &again);
    }
    free(*home);
    *home = NULL;
}

/* Where the agent of a home folder listens; NULL when it cannot be told. */
static char *agent_socket(gpgme_ctx_t ctx, const char *gpgconf, const char *homedir)
{
    const char *argv[] = {gpgconf, "--homedir", homedir, "--list-dirs", "agent-socket", NULL};
    auto_data out = NULL;
    if (gpgme_data_new(&out) || gpgme_op_spawn(ctx, gpgconf, argv, NULL, out, NULL, 0))
        return NULL;
    size_t len = 0;
    char *text = gpgme_data_release_and_get_mem(UVM_STEAL(out), &len);
    const char *end = text ? memchr(text, '\n', len) : NULL;
    char *path = end ? uvm_strndup(text, (size_t)(end - text)) : NULL;
    gpgme_free(text);
    return path;
}

/* GnuPG starts an agent for secret keys, which would outlive us. It goes a moment after it was told to,
 * and whoever talks to it in that moment gets no answer: so wait until its socket is gone. */
static void stop_agent(const char *homedir)
{
    const char *gpgconf = gpgme_get_dirinfo("gpgconf-name");
    auto_ctx ctx = NULL;
    if (!homedir || !gpgconf || gpgme_new(&ctx) || gpgme_set_protocol(ctx, GPGME_PROTOCOL_SPAWN))
        return;
    const char *argv[] = {gpgconf, "--homedir", homedir, "--kill", "gpg-agent", NULL};
    uvm_auto_free char *socket = agent_socket(ctx, gpgconf, homedir);
    gpgme_op_spawn(ctx, gpgconf, argv, NULL, NULL, NULL, 0);
    for (int i = 0; socket && i < AGENT_POLLS && access(socket, F_OK) == 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = AGENT_POLL_NS}, NULL);
}

static void stop_agent_auto(const char **homedir)
{
    stop_agent(*homedir);
}

/* Stops the agent of the home folder that it is set to, at the end of the scope. */
#define agent_to_stop __attribute__((cleanup(stop_agent_auto), unused)) const char *

/* ---- keys ---- */

void uvm_keys_clear(struct uvm_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++)
        free(keys->items[i].user_id);
    free(keys->items);
    *keys = (struct uvm_keys){0};
}

static void copy_fingerprint(char to[UVM_FINGERPRINT_MAX], const char *from)
{
    size_t len = from ? strlen(from) : 0;
    if (len >= UVM_FINGERPRINT_MAX)
        len = UVM_FINGERPRINT_MAX - 1;
    if (len)
        memcpy(to, from, len);
    to[len] = 0;
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
    copy_fingerprint(k->fingerprint, key->subkeys->fpr);
}

static bool list_keys(gpgme_ctx_t ctx, int secret_only, struct uvm_keys *ret_keys,
                      struct uvm_error *err)
{
    uvm_auto_keys keys = {0};
    gpgme_error_t e = gpgme_op_keylist_start(ctx, NULL, secret_only);
    while (!e) {
        auto_key key = NULL;
        e = gpgme_op_keylist_next(ctx, &key);
        if (!e && key->subkeys)
            add_key(&keys, key);
    }
    if (gpgme_err_code(e) != GPG_ERR_EOF)
        return fail_gpg(err, e, "cannot list keys");
    *ret_keys = keys;
    keys = (struct uvm_keys){0};
    return true;
}

static bool import_keys(gpgme_ctx_t ctx, const void *bytes, size_t len, struct uvm_error *err)
{
    auto_data data = NULL;
    if (!mem_data(bytes, len, &data, err))
        return false;
    gpgme_error_t e = gpgme_op_import(ctx, data);
    if (e)
        return fail_gpg(err, e, "cannot read keys");
    gpgme_import_result_t result = gpgme_op_import_result(ctx);
    if (result && result->secret_read > 0)
        return uvm_fail(err, UVM_TRUST,
                        "holds a secret key, which must not travel: export the public "
                        "one");
    if (!result || result->considered == 0 || result->imported + result->unchanged == 0)
        return uvm_fail(err, UVM_TRUST, "holds no OpenPGP public key");
    return true;
}

bool uvm_keys_read(const void *keyring, size_t len, struct uvm_keys *ret_keys,
                   struct uvm_error *err)
{
    __attribute__((cleanup(remove_private_home))) char *home = NULL;
    auto_ctx ctx = NULL;
    return make_private_home(&home, err) && new_ctx(home, &ctx, err) &&
           import_keys(ctx, keyring, len, err) && list_keys(ctx, 0, ret_keys, err);
}

bool uvm_keys_secret(const char *homedir, struct uvm_keys *ret_keys, struct uvm_error *err)
{
    if (homedir && access(homedir, F_OK) < 0)
        return true;
    auto_ctx ctx = NULL;
    if (!new_ctx(homedir, &ctx, err))
        return false;
    agent_to_stop agent = homedir;
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
    auto_ctx ctx = NULL;
    if (!new_ctx(homedir, &ctx, err))
        return false;
    agent_to_stop agent = homedir;
    unsigned flags = GPGME_CREATE_SIGN | GPGME_CREATE_CERT | GPGME_CREATE_NOPASSWD;
    if (valid_seconds == 0)
        flags |= GPGME_CREATE_NOEXPIRE;
    gpgme_error_t e = gpgme_op_createkey(ctx, user_id, "ed25519", 0, valid_seconds, NULL, flags);
    if (gpgme_err_code(e) == GPG_ERR_USER_ID_EXISTS || gpgme_err_code(e) == GPG_ERR_EEXIST)
        return uvm_fail(err, UVM_USAGE, "there is a key named '%s' already", user_id);
    if (e)
        return fail_gpg(err, e, "cannot make a key");
    gpgme_genkey_result_t result = gpgme_op_genkey_result(ctx);
    if (!result || !result->fpr)
        return uvm_fail(err, UVM_TRUST, "GnuPG made no key");
    copy_fingerprint(ret_fingerprint, result->fpr);
    return true;
}

bool uvm_key_export(const char *homedir, const char *fingerprint, struct uvm_buf *ret_armored,
                    struct uvm_error *err)
{
    auto_ctx ctx = NULL;
    auto_data data = NULL;
    if (!new_ctx(homedir, &ctx, err))
        return false;
    gpgme_error_t e = gpgme_data_new(&data);
    if (!e)
        e = gpgme_op_export(ctx, fingerprint, 0, data);
    if (e)
        return fail_gpg(err, e, "cannot export the key");
    uvm_auto_buf buf = {.max = UVM_KEYRING_MAX};
    if (!take_data(&data, &buf, err))
        return false;
    if (buf.len == 0)
        return uvm_fail(err, UVM_TRUST, "there is no key %s", fingerprint);
    uvm_buf_move(ret_armored, &buf);
    return true;
}

/* ---- verification ---- */

struct uvm_verifier {
    char *home;
    gpgme_ctx_t ctx;
    const char *advice; /* may be NULL */
};

void uvm_verifier_free(struct uvm_verifier *v)
{
    if (!v)
        return;
    release_ctx(&v->ctx);
    remove_private_home(&v->home);
    free(v);
}

bool uvm_verifier_new(const struct uvm_strings *keyrings, struct uvm_verifier **ret_verifier,
                      struct uvm_error *err)
{
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = uvm_alloc(sizeof *v);
    if (keyrings->count == 0)
        return uvm_fail(err, UVM_TRUST, "no keyring is given");
    if (!make_private_home(&v->home, err) || !new_ctx(v->home, &v->ctx, err))
        return false;
    for (size_t i = 0; i < keyrings->count; i++) {
        uvm_auto_buf bytes = {0};
        if (!uvm_file_read(keyrings->items[i], UVM_KEYRING_MAX, &bytes, err)) {
            err->code = UVM_TRUST;
            return uvm_prefix(err, "keyring");
        }
        if (!import_keys(v->ctx, bytes.data, bytes.len, err))
            return uvm_prefix(err, "keyring %s", keyrings->items[i]);
    }
    *ret_verifier = UVM_STEAL(v);
    return true;
}

void uvm_signature_clear(struct uvm_signature *sig)
{
    free(sig->user_id);
    *sig = (struct uvm_signature){0};
}

static bool is_weak(gpgme_hash_algo_t algo)
{
    switch (algo) {
    case GPGME_MD_SHA224:
    case GPGME_MD_SHA256:
    case GPGME_MD_SHA384:
    case GPGME_MD_SHA512:
        return false;
    default:
        return true;
    }
}

void uvm_verifier_advise(struct uvm_verifier *v, const char *advice)
{
    v->advice = advice;
}

static bool refuse_unknown(const struct uvm_verifier *v, struct uvm_error *err, const char *who)
{
    const char *advice = v->advice ? v->advice : "";
    return uvm_fail(err, UVM_TRUST, "signed by %s, which is not trusted here%s%s%s", who,
                    *advice ? " (" : "", advice, *advice ? ")" : "");
}

/* Why GnuPG does not call a signature good, in words for the person who must decide. */
static bool refuse_status(const struct uvm_verifier *v, struct uvm_error *err, gpgme_error_t status,
                          const char *who)
{
    switch (gpgme_err_code(status)) {
    case GPG_ERR_BAD_SIGNATURE:
        return uvm_fail(err, UVM_TRUST, "bad signature by %s: the content was changed", who);
    case GPG_ERR_NO_PUBKEY:
        return refuse_unknown(v, err, who);
    case GPG_ERR_KEY_EXPIRED:
        return uvm_fail(err, UVM_TRUST, "signed by %s, a key that has expired", who);
    case GPG_ERR_CERT_REVOKED:
        return uvm_fail(err, UVM_TRUST, "signed by %s, a key that was revoked", who);
    case GPG_ERR_SIG_EXPIRED:
        return uvm_fail(err, UVM_TRUST, "the signature by %s has expired", who);
    default:
        return uvm_fail(err, UVM_TRUST, "signature by %s refused: %s", who, gpgme_strerror(status));
    }
}

static bool accept_signature(struct uvm_verifier *v, gpgme_signature_t s,
                             struct uvm_signature *ret_sig, struct uvm_error *err)
{
    uvm_auto_free char *who = uvm_printable(s->fpr ? s->fpr : "an unknown key");
    if (gpgme_err_code(s->status) != GPG_ERR_NO_ERROR)
        return refuse_status(v, err, s->status, who);
    if (is_weak(s->hash_algo)) {
        const char *name = gpgme_hash_algo_name(s->hash_algo);
        return uvm_fail(err, UVM_TRUST, "the signature by %s uses %s, which is too weak", who,
                        name ? name : "an unknown hash");
    }
    auto_key key = NULL;
    gpgme_error_t e = gpgme_get_key(v->ctx, s->fpr, &key, 0);
    if (e || !key->subkeys)
        return refuse_unknown(v, err, who);
    if (key->revoked)
        return refuse_status(v, err, GPG_ERR_CERT_REVOKED, who);
    if (key->expired)
        return refuse_status(v, err, GPG_ERR_KEY_EXPIRED, who);
    copy_fingerprint(ret_sig->fingerprint, key->subkeys->fpr);
    free(ret_sig->user_id);
    ret_sig->user_id = uvm_printable(key->uids ? key->uids->uid : "");
    ret_sig->made = (time_t)s->timestamp;
    return true;
}

/* One bad signature spoils the lot: nobody adds one by mistake. */
static bool accept_all(struct uvm_verifier *v, struct uvm_signature *ret_sig, struct uvm_error *err)
{
    gpgme_verify_result_t result = gpgme_op_verify_result(v->ctx);
    if (!result || !result->signatures)
        return uvm_fail(err, UVM_TRUST, "is not signed");
    uvm_auto_signature sig = {0};
    for (gpgme_signature_t s = result->signatures; s; s = s->next)
        if (!accept_signature(v, s, &sig, err))
            return false;
    *ret_sig = sig;
    sig = (struct uvm_signature){0};
    return true;
}

static bool fail_verify(struct uvm_error *err, gpgme_error_t e)
{
    if (gpgme_err_code(e) == GPG_ERR_NO_DATA || gpgme_err_code(e) == GPG_ERR_BAD_DATA)
        return uvm_fail(err, UVM_TRUST, "is not signed, or its signature is damaged");
    return fail_gpg(err, e, "signature refused");
}

bool uvm_verifier_detached(struct uvm_verifier *v, const void *data, size_t len, const void *sig,
                           size_t sig_len, struct uvm_signature *ret_sig, struct uvm_error *err)
{
    auto_data text = NULL, signature = NULL;
    if (!mem_data(data, len, &text, err) || !mem_data(sig, sig_len, &signature, err))
        return false;
    gpgme_error_t e = gpgme_op_verify(v->ctx, signature, text, NULL);
    return e ? fail_verify(err, e) : accept_all(v, ret_sig, err);
}

bool uvm_verifier_clearsigned(struct uvm_verifier *v, const void *text, size_t len,
                              struct uvm_buf *ret_plain, struct uvm_signature *ret_sig,
                              struct uvm_error *err)
{
    static const char begin[] = "-----BEGIN PGP SIGNED MESSAGE-----";
    if (len < sizeof begin - 1 || !memmem(text, len, begin, sizeof begin - 1))
        return uvm_fail(err, UVM_TRUST, "is not signed");
    if (!uvm_is_one_cleartext(text, len))
        return uvm_fail(err, UVM_TRUST,
                        "is not one clear-signed text: something stands before, "
                        "between or after its parts");
    auto_data in = NULL, out = NULL;
    if (!mem_data(text, len, &in, err))
        return false;
    gpgme_error_t e = gpgme_data_new(&out);
    if (!e)
        e = gpgme_op_verify(v->ctx, in, NULL, out);
    if (e)
        return fail_verify(err, e);
    uvm_auto_signature sig = {0};
    if (!accept_all(v, &sig, err) || !take_data(&out, ret_plain, err))
        return false;
    *ret_sig = sig;
    sig = (struct uvm_signature){0};
    return true;
}

/* ---- signing ---- */

struct uvm_signer {
    char *homedir; /* NULL = the user's own */
    gpgme_ctx_t ctx;
    char fingerprint[UVM_FINGERPRINT_MAX];
};

void uvm_signer_free(struct uvm_signer *s)
{
    if (!s)
        return;
    release_ctx(&s->ctx);
    stop_agent(s->homedir);
    free(s->homedir);
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
                             struct uvm_error *err)
{
    auto_key found = NULL;
    size_t count = 0;
    gpgme_error_t e = gpgme_op_keylist_start(ctx, name, 1);
    while (!e) {
        auto_key key = NULL;
        e = gpgme_op_keylist_next(ctx, &key);
        if (e || !can_sign(key))
            continue;
        count++;
        release_key(&found);
        found = UVM_STEAL(key);
    }
    if (gpgme_err_code(e) != GPG_ERR_EOF)
        return fail_gpg(err, e, "cannot list keys");
    if (count == 0 && name)
        return uvm_fail(err, UVM_TRUST, "no key '%s' that can sign", name);
    if (count == 0)
        return uvm_fail(err, UVM_TRUST,
                        "no signing key here yet (make one: 'uvmirror key generate')");
    if (count > 1)
        return uvm_fail(err, UVM_TRUST, "%zu keys could sign: choose one with --sign-key", count);
    *ret_key = UVM_STEAL(found);
    return true;
}

bool uvm_signer_new(const char *homedir, const char *key_name, struct uvm_signer **ret_signer,
                    struct uvm_error *err)
{
    if (homedir && access(homedir, F_OK) < 0)
        return uvm_fail(err, UVM_TRUST,
                        "no signing key here yet (make one: 'uvmirror key generate')");
    UVM_AUTO(uvm_signer_free) struct uvm_signer *s = uvm_alloc(sizeof *s);
    s->homedir = uvm_strdup(homedir);
    if (!new_ctx(homedir, &s->ctx, err))
        return false;
    auto_key key = NULL;
    if (!find_signing_key(s->ctx, key_name, &key, err))
        return false;
    gpgme_error_t e = gpgme_signers_add(s->ctx, key);
    if (e)
        return fail_gpg(err, e, "cannot use the key");
    copy_fingerprint(s->fingerprint, key->subkeys->fpr);
    *ret_signer = UVM_STEAL(s);
    return true;
}

static bool sign(struct uvm_signer *s, gpgme_sig_mode_t mode, const void *bytes, size_t len,
                 struct uvm_buf *ret_signed, struct uvm_error *err)
{
    auto_data in = NULL, out = NULL;
    if (!mem_data(bytes, len, &in, err))
        return false;
    gpgme_error_t e = gpgme_data_new(&out);
    if (!e)
        e = gpgme_op_sign(s->ctx, in, out, mode);
    if (gpgme_err_code(e) == GPG_ERR_CANCELED)
        return uvm_fail(err, UVM_INTERRUPTED, "signing was cancelled");
    if (e)
        return fail_gpg(err, e, "cannot sign");
    gpgme_sign_result_t result = gpgme_op_sign_result(s->ctx);
    if (!result || !result->signatures || is_weak(result->signatures->hash_algo))
        return uvm_fail(err, UVM_TRUST, "key %s signs with a hash that is too weak",
                        s->fingerprint);
    return take_data(&out, ret_signed, err);
}

bool uvm_signer_detached(struct uvm_signer *s, const void *data, size_t len,
                         struct uvm_buf *ret_sig, struct uvm_error *err)
{
    return sign(s, GPGME_SIG_MODE_DETACH, data, len, ret_sig, err);
}

bool uvm_signer_clearsigned(struct uvm_signer *s, const void *text, size_t len,
                            struct uvm_buf *ret_signed, struct uvm_error *err)
{
    return sign(s, GPGME_SIG_MODE_CLEAR, text, len, ret_signed, err);
}

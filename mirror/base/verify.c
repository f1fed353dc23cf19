/* OpenPGP: who signed this? Every signature counts, and none of them may be less than good. */
#include <string.h>

#include "mirror/base/cleartext.h"
#include "mirror/base/gnupg.h"

struct uvm_verifier {
    struct uvm_gpg_home home;
    gpgme_ctx_t ctx;
    char *advice;  /* may be NULL */
    time_t newest; /* it is this at least; 0 = nothing is known */
    char *because; /* that is so */
};

void uvm_verifier_free(struct uvm_verifier *v)
{
    if (!v)
        return;
    uvm_gpg_release_ctx_(&v->ctx);
    uvm_gpg_home_remove(&v->home);
    free(v->advice);
    free(v->because);
    free(v);
}

bool uvm_verifier_new(const struct uvm_strings *keyrings, struct uvm_verifier **ret_verifier,
                      struct uvm_error *err)
{
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *v = uvm_alloc(sizeof *v);
    v->home = UVM_GPG_HOME_INIT;
    if (keyrings->count == 0)
        return uvm_fail(err, UVM_TRUST, "no keyring is given");
    if (!uvm_gpg_home_make(&v->home, err) || !uvm_gpg_new(v->home.path, &v->ctx, err) ||
        !uvm_gpg_import_files(v->ctx, keyrings, err))
        return false;
    *ret_verifier = UVM_STEAL(v);
    return true;
}

void uvm_signature_clear(struct uvm_signature *sig)
{
    free(sig->user_id);
    *sig = (struct uvm_signature){0};
}

void uvm_verifier_advise(struct uvm_verifier *v, const char *advice)
{
    free(v->advice);
    v->advice = uvm_strdup(advice);
}

bool uvm_verifier_not_before(struct uvm_verifier *v, time_t newest, const char *because,
                             struct uvm_error *err)
{
    if (newest > time(NULL) && !uvm_gpg_home_set_clock(&v->home, newest, err))
        return false;
    v->newest = newest;
    free(v->because);
    v->because = uvm_strdup(because);
    return true;
}

/* ---- what is refused ---- */

static bool refuse_unknown(const struct uvm_verifier *v, struct uvm_error *err, const char *who)
{
    const char *advice = v->advice ? v->advice : "";
    return uvm_fail(err, UVM_TRUST, "signed by %s, which is not trusted here%s%s%s", who,
                    *advice ? " (" : "", advice, *advice ? ")" : "");
}

/* What the judgement rests on: a clock may be wrong, too. */
static char *clock_text(const struct uvm_verifier *v)
{
    time_t now = time(NULL);
    uvm_auto_free char *here = uvm_time_text(now);
    return v->newest > now ? uvm_format("the clock here says %s, but %s", here, v->because)
                           : uvm_format("it is %s here", here);
}

/* The signing key may be a subkey that has expired, or of a key that has. */
static time_t key_expiry(struct uvm_verifier *v, gpgme_signature_t s)
{
    uvm_auto_gpg_key key = NULL;
    if (gpgme_get_key(v->ctx, s->fpr, &key, 0) || !key->subkeys)
        return 0;
    for (gpgme_subkey_t sub = key->subkeys; sub; sub = sub->next)
        if (sub->fpr && strcmp(sub->fpr, s->fpr) == 0 && sub->expired)
            return sub->expires;
    return key->subkeys->expires;
}

static bool refuse_expired(const struct uvm_verifier *v, struct uvm_error *err, const char *what,
                           time_t expiry)
{
    uvm_auto_free char *expired = uvm_time_text(expiry), *clock = clock_text(v);
    return uvm_fail(err, UVM_TRUST, "%s expired on %s (%s)", what, expired, clock);
}

/* Why GnuPG does not call a signature good, in words for the person who must decide. */
static bool refuse_status(struct uvm_verifier *v, struct uvm_error *err, gpgme_error_t status,
                          gpgme_signature_t s, const char *who)
{
    uvm_auto_free char *by_key = uvm_format("signed by %s, a key that", who),
                       *signature = uvm_format("the signature by %s", who);
    switch (gpgme_err_code(status)) {
    case GPG_ERR_BAD_SIGNATURE:
        return uvm_fail(err, UVM_TRUST, "bad signature by %s: the content was changed", who);
    case GPG_ERR_NO_PUBKEY:
        return refuse_unknown(v, err, who);
    case GPG_ERR_KEY_EXPIRED:
        return refuse_expired(v, err, by_key, key_expiry(v, s));
    case GPG_ERR_CERT_REVOKED:
        return uvm_fail(err, UVM_TRUST, "%s was revoked", by_key);
    case GPG_ERR_SIG_EXPIRED:
        return refuse_expired(v, err, signature, (time_t)s->exp_timestamp);
    default:
        return uvm_fail(err, UVM_TRUST, "%s is refused: %s", signature, gpgme_strerror(status));
    }
}

/* GnuPG calls a key that was revoked and has expired too an expired one; the worse news comes first. */
static gpgme_error_t status_of(struct uvm_verifier *v, gpgme_signature_t s)
{
    uvm_auto_gpg_key key = NULL;
    if (gpgme_err_code(s->status) == GPG_ERR_KEY_EXPIRED &&
        !gpgme_get_key(v->ctx, s->fpr, &key, 0) && key->revoked)
        return GPG_ERR_CERT_REVOKED;
    return s->status;
}

static bool accept_signature(struct uvm_verifier *v, gpgme_signature_t s,
                             struct uvm_signature *ret_sig, struct uvm_error *err)
{
    uvm_auto_free char *who = uvm_printable(s->fpr ? s->fpr : "an unknown key");
    if (gpgme_err_code(s->status) != GPG_ERR_NO_ERROR)
        return refuse_status(v, err, status_of(v, s), s, who);
    if (uvm_gpg_is_weak(s->hash_algo)) {
        const char *name = gpgme_hash_algo_name(s->hash_algo);
        return uvm_fail(err, UVM_TRUST, "the signature by %s uses %s, which is too weak", who,
                        name ? name : "an unknown hash");
    }
    uvm_auto_gpg_key key = NULL;
    gpgme_error_t e = gpgme_get_key(v->ctx, s->fpr, &key, 0);
    if (e || !key->subkeys)
        return refuse_unknown(v, err, who);
    if (key->revoked)
        return refuse_status(v, err, GPG_ERR_CERT_REVOKED, s, who);
    if (key->expired)
        return refuse_status(v, err, GPG_ERR_KEY_EXPIRED, s, who);
    uvm_gpg_copy_fingerprint(ret_sig->fingerprint, key->subkeys->fpr);
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
    return uvm_gpg_fail(err, e, "signature refused");
}

bool uvm_verifier_detached(struct uvm_verifier *v, const void *data, size_t len, const void *sig,
                           size_t sig_len, struct uvm_signature *ret_sig, struct uvm_error *err)
{
    uvm_auto_gpg_data text = NULL, signature = NULL;
    if (!uvm_is_bare_signature(sig, sig_len))
        return uvm_fail(err, UVM_TRUST,
                        "is not signed, or there is more than signatures in its signature");
    if (!uvm_gpg_data(data, len, &text, err) || !uvm_gpg_data(sig, sig_len, &signature, err))
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
    uvm_auto_gpg_data in = NULL, out = NULL;
    if (!uvm_gpg_data(text, len, &in, err))
        return false;
    gpgme_error_t e = gpgme_data_new(&out);
    if (!e)
        e = gpgme_op_verify(v->ctx, in, NULL, out);
    if (e)
        return fail_verify(err, e);
    uvm_auto_signature sig = {0};
    uvm_auto_buf plain = {.max = ret_plain->max};
    if (!accept_all(v, &sig, err) || !uvm_gpg_take(&out, &plain, err))
        return false;
    if (!uvm_cleartext_reads(text, len, plain.data, plain.len))
        return uvm_fail(err, UVM_TRUST,
                        "what GnuPG reads in it is not its text: a line is too long, or there is "
                        "more than signatures behind it");
    uvm_buf_move(ret_plain, &plain);
    *ret_sig = sig;
    sig = (struct uvm_signature){0};
    return true;
}

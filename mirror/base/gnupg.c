/*
 * gpgme, which runs GnuPG: contexts, and what all of its users share.
 *
 * gpgme alone would trust whatever the user's keyring trusts, and reports success with an empty
 * list of signatures when GnuPG is missing. So every verification has a home folder of its own that
 * holds the wanted keys and nothing else, and its result is read signature by signature.
 */
#include <string.h>

#include "mirror/base/gnupg.h"

bool uvm_gpg_fail(struct uvm_error *err, gpgme_error_t e, const char *what)
{
    return uvm_fail(err, UVM_TRUST, "%s: %s", what, gpgme_strerror(e));
}

/* ---- contexts ---- */

bool uvm_gpg_new(const char *homedir, gpgme_ctx_t *ret_ctx, struct uvm_error *err)
{
    gpgme_check_version(NULL);
    if (gpgme_engine_check_version(GPGME_PROTOCOL_OpenPGP))
        return uvm_fail(err, UVM_TRUST,
                        "GnuPG is not installed (package gnupg): nothing can be "
                        "verified or signed without it");
    uvm_auto_gpg_ctx ctx = NULL;
    gpgme_error_t e = gpgme_new(&ctx);
    if (!e && homedir)
        e = gpgme_ctx_set_engine_info(ctx, GPGME_PROTOCOL_OpenPGP, NULL, homedir);
    if (e)
        return uvm_gpg_fail(err, e, "cannot start GnuPG");
    gpgme_set_armor(ctx, 1);
    gpgme_set_offline(ctx, 1);
    *ret_ctx = UVM_STEAL(ctx);
    return true;
}

bool uvm_gpg_data(const void *bytes, size_t len, gpgme_data_t *ret_data, struct uvm_error *err)
{
    gpgme_error_t e = gpgme_data_new_from_mem(ret_data, bytes ? bytes : "", len, 0);
    return e ? uvm_gpg_fail(err, e, "cannot hand data to GnuPG") : true;
}

bool uvm_gpg_take(gpgme_data_t *data, struct uvm_buf *ret_buf, struct uvm_error *err)
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

/* ---- what verifying and signing share ---- */

void uvm_gpg_copy_fingerprint(char to[UVM_FINGERPRINT_MAX], const char *from)
{
    size_t len = from ? strlen(from) : 0;
    if (len >= UVM_FINGERPRINT_MAX)
        len = UVM_FINGERPRINT_MAX - 1;
    if (len)
        memcpy(to, from, len);
    to[len] = 0;
}

/* Keys that are new, that were there, or that have gained something by this. */
static int taken_over(gpgme_import_result_t r)
{
    return r->imported + r->unchanged + r->new_user_ids + r->new_sub_keys + r->new_signatures +
           r->new_revocations;
}

bool uvm_gpg_import(gpgme_ctx_t ctx, const void *bytes, size_t len, struct uvm_error *err)
{
    uvm_auto_gpg_data data = NULL;
    if (!uvm_gpg_data(bytes, len, &data, err))
        return false;
    gpgme_error_t e = gpgme_op_import(ctx, data);
    if (e)
        return uvm_gpg_fail(err, e, "cannot read keys");
    gpgme_import_result_t result = gpgme_op_import_result(ctx);
    if (result && result->secret_read > 0)
        return uvm_fail(err, UVM_TRUST,
                        "holds a secret key, which must not travel: export the public "
                        "one");
    if (!result || result->considered == 0 || taken_over(result) == 0)
        return uvm_fail(err, UVM_TRUST, "holds no OpenPGP public key");
    return true;
}

bool uvm_gpg_import_files(gpgme_ctx_t ctx, const struct uvm_strings *keyrings,
                          struct uvm_error *err)
{
    for (size_t i = 0; i < keyrings->count; i++) {
        uvm_auto_buf bytes = {0};
        if (!uvm_file_read(keyrings->items[i], UVM_KEYRING_MAX, &bytes, err)) {
            err->code = UVM_TRUST;
            return uvm_prefix(err, "keyring");
        }
        if (!uvm_gpg_import(ctx, bytes.data, bytes.len, err))
            return uvm_prefix(err, "keyring %s", keyrings->items[i]);
    }
    return true;
}

bool uvm_gpg_export(gpgme_ctx_t ctx, const char *fingerprint, struct uvm_buf *ret_armored,
                    struct uvm_error *err)
{
    uvm_auto_gpg_data data = NULL;
    gpgme_error_t e = gpgme_data_new(&data);
    if (!e)
        e = gpgme_op_export(ctx, fingerprint, 0, data);
    if (e)
        return uvm_gpg_fail(err, e, "cannot export the key");
    uvm_auto_buf buf = {.max = UVM_KEYRING_MAX};
    if (!uvm_gpg_take(&data, &buf, err))
        return false;
    if (buf.len == 0)
        return uvm_fail(err, UVM_TRUST, "there is no key %s", fingerprint ? fingerprint : "at all");
    uvm_buf_move(ret_armored, &buf);
    return true;
}

bool uvm_gpg_delete(gpgme_ctx_t ctx, const char *fingerprint, struct uvm_error *err)
{
    uvm_auto_gpg_key key = NULL;
    gpgme_error_t e = gpgme_get_key(ctx, fingerprint, &key, 0);
    if (!e)
        e = gpgme_op_delete_ext(ctx, key, GPGME_DELETE_FORCE);
    return e ? uvm_gpg_fail(err, e, "cannot take the key away") : true;
}

bool uvm_gpg_is_weak(gpgme_hash_algo_t algo)
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

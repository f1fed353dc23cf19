/* OpenPGP: keyrings, which are files of public keys: what is in them, what is left of them without a
 * key, and which key in them vouches for another. */
#include <string.h>

#include "mirror/base/gnupg.h"

/* ---- keys as they are listed ---- */

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

bool uvm_gpg_list(gpgme_ctx_t ctx, enum uvm_gpg_kind kind, struct uvm_keys *ret_keys,
                  struct uvm_error *err)
{
    uvm_auto_keys keys = {0};
    gpgme_error_t e = gpgme_op_keylist_start(ctx, NULL, kind == UVM_GPG_SECRET);
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
    uvm_auto_gpg_home home = UVM_GPG_HOME_INIT;
    uvm_auto_gpg_ctx ctx = NULL;
    return uvm_gpg_home_make(&home, err) && uvm_gpg_new(home.path, &ctx, err) &&
           uvm_gpg_import(ctx, keyring, len, err) &&
           uvm_gpg_list(ctx, UVM_GPG_PUBLIC, ret_keys, err);
}

bool uvm_keys_has(const struct uvm_keys *keys, const char *fingerprint)
{
    for (size_t i = 0; i < keys->count; i++)
        if (strcmp(keys->items[i].fingerprint, fingerprint) == 0)
            return true;
    return false;
}

/* ---- a keyring without one of its keys ---- */

/* What was exported holds all other keys, or it is not good enough to take the keyring's place. */
static bool check_rest(const struct uvm_keys *all, const char *without, const struct uvm_buf *rest,
                       struct uvm_error *err)
{
    uvm_auto_keys left = {0};
    if (!uvm_keys_read(rest->data, rest->len, &left, err))
        return false;
    for (size_t i = 0; i < all->count; i++) {
        const char *fingerprint = all->items[i].fingerprint;
        if (uvm_keys_has(&left, fingerprint) != (strcmp(fingerprint, without) != 0))
            return uvm_fail(err, UVM_TRUST, "GnuPG did not export what was left");
    }
    return true;
}

bool uvm_keyring_without(const void *keyring, size_t len, const char *fingerprint,
                         struct uvm_buf *ret_armored, struct uvm_error *err)
{
    uvm_auto_gpg_home home = UVM_GPG_HOME_INIT;
    uvm_auto_gpg_ctx ctx = NULL;
    uvm_auto_keys all = {0};
    if (!uvm_gpg_home_make(&home, err) || !uvm_gpg_new(home.path, &ctx, err) ||
        !uvm_gpg_import(ctx, keyring, len, err) || !uvm_gpg_list(ctx, UVM_GPG_PUBLIC, &all, err) ||
        !uvm_gpg_delete(ctx, fingerprint, err))
        return false;
    if (all.count == 1)
        return true;
    uvm_auto_buf rest = {.max = UVM_KEYRING_MAX};
    if (!uvm_gpg_export(ctx, NULL, &rest, err) || !check_rest(&all, fingerprint, &rest, err))
        return false;
    uvm_buf_move(ret_armored, &rest);
    return true;
}

/* ---- which key vouches for another ---- */

/* The certifier, if it is a key that was trusted before and may still be used. GnuPG names it by its
 * key ID only; where that means several keys, or a subkey, it means none. */
static bool is_trusted(gpgme_ctx_t ctx, const char *key_id, const struct uvm_keys *trusted,
                       char ret_fingerprint[UVM_FINGERPRINT_MAX])
{
    uvm_auto_gpg_key key = NULL;
    if (!key_id || gpgme_get_key(ctx, key_id, &key, 0) || !key->subkeys || key->revoked ||
        key->expired || key->disabled || key->invalid || strcmp(key->subkeys->keyid, key_id) != 0 ||
        !uvm_keys_has(trusted, key->subkeys->fpr))
        return false;
    uvm_gpg_copy_fingerprint(ret_fingerprint, key->subkeys->fpr);
    return true;
}

static bool is_good_certification(gpgme_key_sig_t sig)
{
    return gpgme_err_code(sig->status) == GPG_ERR_NO_ERROR && !sig->revoked && !sig->expired &&
           !sig->invalid && sig->sig_class >= 0x10 && sig->sig_class <= 0x13 &&
           (sig->expires == 0 || sig->expires > time(NULL));
}

/* Who takes a certification back does not vouch any more, whatever else he signed. */
static bool is_taken_back(gpgme_key_t key, const char *key_id)
{
    for (gpgme_user_id_t uid = key->uids; uid; uid = uid->next)
        for (gpgme_key_sig_t sig = uid->signatures; sig; sig = sig->next)
            if ((sig->revoked || sig->sig_class == 0x30) && sig->keyid &&
                gpgme_err_code(sig->status) == GPG_ERR_NO_ERROR && strcmp(sig->keyid, key_id) == 0)
                return true;
    return false;
}

/* The name that people are shown is the one that somebody must have signed: the key's owner may have
 * added it since. */
static void find_voucher(gpgme_ctx_t ctx, gpgme_key_t key, const struct uvm_keys *trusted,
                         char ret_fingerprint[UVM_FINGERPRINT_MAX])
{
    gpgme_user_id_t shown = key->uids;
    if (!shown || shown->revoked || shown->invalid)
        return;
    for (gpgme_key_sig_t sig = shown->signatures; sig; sig = sig->next)
        if (is_good_certification(sig) && !is_taken_back(key, sig->keyid) &&
            is_trusted(ctx, sig->keyid, trusted, ret_fingerprint))
            return;
}

/* The key without what else comes with it, which might be keys that GnuPG would ask, too. */
static bool isolate(const void *keyring, size_t len, const char *fingerprint,
                    struct uvm_buf *ret_key, struct uvm_error *err)
{
    uvm_auto_gpg_home home = UVM_GPG_HOME_INIT;
    uvm_auto_gpg_ctx ctx = NULL;
    return uvm_gpg_home_make(&home, err) && uvm_gpg_new(home.path, &ctx, err) &&
           uvm_gpg_import(ctx, keyring, len, err) && uvm_gpg_export(ctx, fingerprint, ret_key, err);
}

/* Those who may vouch are in the context's home folder already. */
static bool ask(gpgme_ctx_t ctx, const void *keyring, size_t len, const char *fingerprint,
                char ret_voucher[UVM_FINGERPRINT_MAX], struct uvm_error *err)
{
    uvm_auto_keys before = {0};
    uvm_auto_buf alone = {.max = UVM_KEYRING_MAX};
    uvm_auto_gpg_key key = NULL;
    if (!uvm_gpg_list(ctx, UVM_GPG_PUBLIC, &before, err) ||
        !isolate(keyring, len, fingerprint, &alone, err) ||
        !uvm_gpg_import(ctx, alone.data, alone.len, err))
        return false;
    gpgme_error_t e =
        gpgme_set_keylist_mode(ctx, GPGME_KEYLIST_MODE_LOCAL | GPGME_KEYLIST_MODE_SIGS);
    if (!e)
        e = gpgme_get_key(ctx, fingerprint, &key, 0);
    if (e)
        return uvm_gpg_fail(err, e, "cannot see who signed the key");
    ret_voucher[0] = 0;
    if (uvm_keys_has(&before, fingerprint))
        uvm_gpg_copy_fingerprint(ret_voucher, fingerprint);
    else
        find_voucher(ctx, key, &before, ret_voucher);
    return true;
}

bool uvm_key_voucher(const struct uvm_strings *trusted, const void *keyring, size_t len,
                     const char *fingerprint, char ret_voucher[UVM_FINGERPRINT_MAX],
                     struct uvm_error *err)
{
    uvm_auto_gpg_home home = UVM_GPG_HOME_INIT;
    uvm_auto_gpg_ctx ctx = NULL;
    return uvm_gpg_home_make(&home, err) && uvm_gpg_new(home.path, &ctx, err) &&
           uvm_gpg_import_files(ctx, trusted, err) &&
           ask(ctx, keyring, len, fingerprint, ret_voucher, err);
}

/* GnuPG looks at no certification by a key that has expired: it is asked as of that key's last second. */
static bool ask_own(const char *homedir, const struct uvm_key *own, const struct uvm_buf *keyring,
                    const char *fingerprint, char ret_voucher[UVM_FINGERPRINT_MAX],
                    struct uvm_error *err)
{
    uvm_auto_gpg_home home = UVM_GPG_HOME_INIT;
    uvm_auto_gpg_ctx ctx = NULL;
    uvm_auto_buf key = {.max = UVM_KEYRING_MAX};
    bool has_expired = own->expires && own->expires <= time(NULL);
    return uvm_gpg_home_make(&home, err) &&
           (!has_expired || uvm_gpg_home_set_clock(&home, own->expires - 1, err)) &&
           uvm_gpg_new(home.path, &ctx, err) &&
           uvm_key_export(homedir, own->fingerprint, &key, err) &&
           uvm_gpg_import(ctx, key.data, key.len, err) &&
           ask(ctx, keyring->data, keyring->len, fingerprint, ret_voucher, err);
}

bool uvm_key_predecessor(const char *homedir, const struct uvm_buf *keyring,
                         const char *fingerprint, char ret_voucher[UVM_FINGERPRINT_MAX],
                         struct uvm_error *err)
{
    uvm_auto_keys own = {0};
    char voucher[UVM_FINGERPRINT_MAX] = "";
    if (!uvm_keys_secret(homedir, &own, err))
        return false;
    for (size_t i = 0; i < own.count && !*voucher; i++)
        if (!ask_own(homedir, &own.items[i], keyring, fingerprint, voucher, err))
            return false;
    memcpy(ret_voucher, voucher, sizeof voucher);
    return true;
}

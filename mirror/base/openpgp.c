/* OpenPGP: the keys in a GnuPG home folder: listed, made, exported. */
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "mirror/base/gnupg.h"

bool uvm_keys_secret(const char *homedir, struct uvm_keys *ret_keys, struct uvm_error *err)
{
    if (homedir && access(homedir, F_OK) < 0)
        return true;
    uvm_auto_gpg_ctx ctx = NULL;
    if (!uvm_gpg_new(homedir, &ctx, err))
        return false;
    uvm_auto_gpg_agent agent = uvm_gpg_agent_use(homedir);
    return uvm_gpg_list(ctx, UVM_GPG_SECRET, ret_keys, err);
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
    uvm_auto_gpg_agent agent = uvm_gpg_agent_use(homedir);
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
    return uvm_gpg_new(homedir, &ctx, err) && uvm_gpg_export(ctx, fingerprint, ret_armored, err);
}

bool uvm_key_import(const char *homedir, const void *keyring, size_t len, struct uvm_error *err)
{
    uvm_auto_gpg_ctx ctx = NULL;
    if (!uvm_gpg_new(homedir, &ctx, err))
        return false;
    uvm_auto_gpg_agent agent = uvm_gpg_agent_use(homedir);
    return uvm_gpg_import(ctx, keyring, len, err);
}

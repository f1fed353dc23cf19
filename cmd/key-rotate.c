/*
 * uvmirror key rotate: a new signing key takes the place of the old one, and no host is cut off.
 *
 *     STATE/gnupg            the key that signs
 *     STATE/gnupg.next       the next one, for which the first vouches; until --finish or --abort
 *     STATE/gnupg.old/FPR    one that was replaced; deleted by hand
 *
 * (uvmirror-fetch.service is not to see any of them, and knows these names.) --finish is two
 * renames: gnupg to gnupg.old/FPR, gnupg.next to gnupg. After a crash between them there
 * is no gnupg, and the next --finish does the second. A signer holds a shared lock on gnupg, --finish
 * an exclusive one; all forms of rotate hold one on gnupg.next.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "cmd/key.h"

/* Its own lock on a folder, at once or not at all. */
static bool lock_folder(const char *path, int *ret_fd, struct uvm_error *err)
{
    uvm_auto_fd fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return uvm_fail(err, UVM_BUSY,
                        "%s is in use by another uvmirror: try again when it is done", path);
    *ret_fd = uvm_steal_fd(&fd);
    return true;
}

/* The one key of the next home folder. */
static bool read_next(const char *next, struct uvm_keys *ret_keys, struct uvm_error *err)
{
    uvm_auto_keys keys = {0};
    if (!uvm_keys_secret(next, &keys, err))
        return uvm_prefix(err, "%s", next);
    if (keys.count > 1)
        return uvm_fail(err, UVM_FAILED, "%s holds %zu keys, where one is to be", next, keys.count);
    *ret_keys = keys;
    keys = (struct uvm_keys){0};
    return true;
}

static bool read_finished_next(const char *next, struct uvm_keys *ret_keys, struct uvm_error *err)
{
    if (!read_next(next, ret_keys, err))
        return false;
    if (ret_keys->count == 0)
        return uvm_fail(err, UVM_USAGE, "there is no next key: 'uvmirror key rotate' makes one");
    return true;
}

/* ---- the next key ---- */

/* What --name says, else the name that the present key has. */
static char *next_name(const struct key_options *o, const char *home, const char *fingerprint)
{
    uvm_auto_keys keys = {0};
    uvm_auto_error ignored = UVM_ERROR_INIT;
    if (o->name)
        return uvm_strdup(o->name);
    uvm_keys_secret(home, &keys, &ignored);
    for (size_t i = 0; i < keys.count; i++)
        if (strcmp(keys.items[i].fingerprint, fingerprint) == 0 && *keys.items[i].user_id)
            return uvm_strdup(keys.items[i].user_id);
    return cmd_key_default_name();
}

/* One that was made before is taken again: hosts may trust it by now. */
static bool make_next(const struct key_options *o, const char *name, const char *next,
                      char ret_fingerprint[UVM_FINGERPRINT_MAX], struct uvm_error *err)
{
    uvm_auto_keys keys = {0};
    if (!read_next(next, &keys, err))
        return false;
    if (keys.count == 0)
        return uvm_key_generate(next, name, o->days * 86400UL, ret_fingerprint, err);
    if (o->name || o->days)
        return uvm_fail(err, UVM_USAGE,
                        "the next key is there already (%s): --abort it to make another one",
                        keys.items[0].fingerprint);
    memcpy(ret_fingerprint, keys.items[0].fingerprint, UVM_FINGERPRINT_MAX);
    return true;
}

/* The present key vouches, and the next home folder learns of it: a later `key export` shows it,
 * too. */
static bool vouch(struct uvm_signer *signer, const char *next, const char *fingerprint,
                  struct uvm_buf *ret_armored, struct uvm_error *err)
{
    uvm_auto_buf plain = {0}, armored = {0};
    if (!uvm_key_export(next, fingerprint, &plain, err) ||
        !uvm_signer_certify(signer, plain.data, plain.len, fingerprint, &armored, err) ||
        !uvm_key_import(next, armored.data, armored.len, err))
        return uvm_prefix(err, "the present key cannot vouch for the next one");
    uvm_buf_move(ret_armored, &armored);
    return true;
}

static bool report_next(const struct key_options *o, const struct uvm_signer *signer,
                        const char *fingerprint, const struct uvm_buf *armored,
                        struct uvm_error *err)
{
    const char *old = uvm_signer_fingerprint(signer);
    uvm_auto_free char *groups = cmd_key_groups(fingerprint), *old_groups = cmd_key_groups(old);
    json_t *result = json_pack("{s:s, s:s, s:s}", "event", "result", "fingerprint", fingerprint,
                               "vouched_by", old);
    if (!cmd_key_write(o, armored, result, err))
        return false;
    cmd_note("next key   %s\n"
             "signed by  %s,\n"
             "which goes on signing bundles. Say 'uvmirror key trust FILE' on each host, with\n"
             "this new public key; and when all trust it, 'uvmirror key rotate --finish' here.",
             groups, old_groups);
    return true;
}

static bool begin(const struct key_options *o, const char *home, const char *next,
                  struct uvm_error *err)
{
    UVM_AUTO(uvm_signer_free) struct uvm_signer *signer = NULL;
    uvm_auto_fd lock = -1;
    uvm_auto_buf armored = {0};
    char fingerprint[UVM_FINGERPRINT_MAX];
    if (!uvm_signer_new(home, o->sign_key, &signer, err))
        return uvm_prefix(err, "%s", home);
    uvm_auto_free char *name = next_name(o, home, uvm_signer_fingerprint(signer));
    return uvm_make_dirs(next, 0700, err) && lock_folder(next, &lock, err) &&
           make_next(o, name, next, fingerprint, err) &&
           vouch(signer, next, fingerprint, &armored, err) &&
           report_next(o, signer, fingerprint, &armored, err);
}

/* ---- its end ---- */

static bool rename_folder(const char *from, const char *to, struct uvm_error *err)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) < 0 &&
        (errno != EINVAL || rename(from, to) < 0)) /* some file systems know no flags */
        return uvm_fail_errno(err, UVM_FAILED, "cannot rename %s to %s", from, to);
    return uvm_sync_dir_of(to, err);
}

/* Moves the present key's folder aside, also when that key has expired; *ret_aside stays NULL when
 * an interrupted run has done it. */
static bool set_aside(const char *home, char **ret_aside, struct uvm_error *err)
{
    uvm_auto_fd lock = -1;
    uvm_auto_keys keys = {0};
    if (access(home, F_OK) < 0)
        return true;
    if (!lock_folder(home, &lock, err) || !uvm_keys_secret(home, &keys, err))
        return false;
    uvm_auto_free char *old = uvm_format("%s.old", home);
    uvm_auto_free char *aside =
        uvm_format("%s/%s", old, keys.count ? keys.items[0].fingerprint : "empty");
    if (!uvm_make_dirs(old, 0700, err) || !rename_folder(home, aside, err))
        return false;
    *ret_aside = UVM_STEAL(aside);
    return true;
}

/* The hosts are offered the next key for the sake of the present one's signature: without it they would
 * be cut off, or somebody has exchanged the key. After an interrupted run there is no present key any
 * more; that run has looked. */
static bool check_next(const char *home, const char *next, const struct uvm_key *key,
                       struct uvm_error *err)
{
    const char *state = cmd_key_validity(key);
    char voucher[UVM_FINGERPRINT_MAX] = "";
    uvm_auto_buf armored = {.max = UVM_KEYRING_MAX};
    if (strcmp(state, "valid") != 0)
        return uvm_fail(
            err, UVM_TRUST,
            "the next key %s is %s: --abort deletes it, and 'uvmirror key rotate' makes "
            "another one",
            key->fingerprint, state);
    if (access(home, F_OK) < 0)
        return true;
    if (!uvm_key_export(next, key->fingerprint, &armored, err) ||
        !uvm_key_predecessor(home, &armored, key->fingerprint, voucher, err))
        return uvm_prefix(err, "%s", next);
    return *voucher ||
           uvm_fail(
               err, UVM_TRUST,
               "the next key %s has no good signature by the present one: 'uvmirror key rotate' "
               "makes it once more; if that key is none of yours, --abort",
               key->fingerprint);
}

static bool finish(const char *home, const char *next, struct uvm_error *err)
{
    uvm_auto_fd lock = -1;
    uvm_auto_keys keys = {0};
    uvm_auto_free char *aside = NULL;
    if (!read_finished_next(next, &keys, err) || !lock_folder(next, &lock, err) ||
        !check_next(home, next, &keys.items[0], err) || !set_aside(home, &aside, err) ||
        !rename_folder(next, home, err))
        return false;
    uvm_auto_free char *groups = cmd_key_groups(keys.items[0].fingerprint);
    cmd_print("signing with %s", keys.items[0].user_id);
    cmd_print("             %s", groups);
    if (aside)
        cmd_note("The key before it is kept in %s;\n"
                 "delete that when it is not needed any more, and on the hosts say\n"
                 "'uvmirror key remove %s'.",
                 aside, strrchr(aside, '/') + 1);
    cmd_print_json(json_pack("{s:s, s:s, s:s, s:s?}", "event", "result", "fingerprint",
                             keys.items[0].fingerprint, "name", keys.items[0].user_id, "kept_in",
                             aside));
    return true;
}

static bool give_up(const struct key_options *o, const char *home, const char *next,
                    struct uvm_error *err)
{
    uvm_auto_fd lock = -1;
    uvm_auto_keys keys = {0};
    if (access(next, F_OK) < 0)
        return uvm_fail(err, UVM_USAGE, "there is no next key");
    if (access(home, F_OK) < 0)
        return uvm_fail(err, UVM_USAGE,
                        "the key before it is set aside already: say 'uvmirror key rotate "
                        "--finish'");
    if (!lock_folder(next, &lock, err) || !read_next(next, &keys, err))
        return false;
    for (size_t i = 0; i < keys.count; i++)
        cmd_key_print("next", &keys.items[i]);
    if (!cmd_key_confirm(o, "Delete this key, which hosts may trust by now?", "not deleted", err) ||
        !uvm_remove_tree(next, err))
        return false;
    cmd_print("deleted the next key");
    cmd_print_json(json_pack("{s:s, s:s?}", "event", "result", "removed",
                             keys.count ? keys.items[0].fingerprint : NULL));
    return true;
}

bool cmd_key_rotate(const struct key_options *o, const struct uvm_strings *args,
                    struct uvm_error *err)
{
    if (!cmd_no_arguments(args, err))
        return false;
    if (o->homedir)
        return uvm_fail(err, UVM_USAGE,
                        "not with --homedir: rotate exchanges the key in the state folder (in a "
                        "GnuPG home of your own, 'gpg --quick-sign-key' vouches for the next key)");
    if (o->finish && o->abort)
        return uvm_fail(err, UVM_USAGE, "--finish and --abort exclude each other");
    if ((o->finish || o->abort) && (o->name || o->days || o->output || o->sign_key))
        return uvm_fail(
            err, UVM_USAGE,
            "--%s takes the next key as it is: --name, --expire, --output and --sign-key "
            "go with 'uvmirror key rotate' alone",
            o->finish ? "finish" : "abort");
    uvm_auto_free char *home = cmd_key_home(o), *next = cmd_key_next_home(o);
    if (o->finish)
        return finish(home, next, err);
    return o->abort ? give_up(o, home, next, err) : begin(o, home, next, err);
}

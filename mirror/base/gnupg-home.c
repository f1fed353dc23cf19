/*
 * Private home folders for GnuPG, "uvmirror-keys-XXXXXX" in the temporary folder, with public keys.
 *
 * Each is locked (flock, shared, on the folder itself) while it is used. A process that was killed
 * leaves its folder behind, without the lock: whoever makes the next one takes it away.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "mirror/base/gnupg.h"

#define HOME_PREFIX "uvmirror-keys-"
#define HOME_RANDOM "XXXXXX"

/* Bytes: more than any keyring takes that is in use. */
#define HOME_ROOM ((uint64_t)256 << 10)

static bool is_home(const void *opaque, const char *name)
{
    (void)opaque;
    return strncmp(name, HOME_PREFIX, strlen(HOME_PREFIX)) == 0 &&
           strlen(name) == strlen(HOME_PREFIX HOME_RANDOM);
}

/* No agent, no network, no opinion about ownertrust, and a clock that is behind a key's creation is
 * no reason to call the key bad. */
#define SETTINGS                                                                                   \
    "no-autostart\nignore-time-conflict\nno-auto-key-locate\nno-auto-key-retrieve\n"               \
    "trust-model always\nno-auto-check-trustdb\nimport-options no-repair-keys\n"

static bool write_settings(const char *home, const char *settings, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/gpg.conf", home);
    return uvm_file_replace(path, 0600, settings, strlen(settings), err);
}

/* GnuPG does not say that it has no room for keys: they are just not there, as if nobody was trusted. */
static bool check_room(const char *folder, struct uvm_error *err)
{
    uint64_t free_bytes = 0;
    return uvm_free_space(folder, &free_bytes, err) &&
           (free_bytes >= HOME_ROOM ||
            uvm_fail(err, UVM_SPACE,
                     "temporary folder %s: no space left for GnuPG (TMPDIR names another folder)",
                     folder));
}

bool uvm_gpg_home_make(struct uvm_gpg_home *home, struct uvm_error *err)
{
    const char *folder = uvm_temporary_folder();
    uvm_remove_all_left(folder, is_home, NULL);
    if (!check_room(folder, err))
        return false;
    uvm_auto_free char *path = uvm_format("%s/" HOME_PREFIX HOME_RANDOM, folder);
    if (!mkdtemp(path))
        return uvm_fail_errno(err, UVM_FAILED, "cannot make a private folder for GnuPG, %s", path);
    *home = (struct uvm_gpg_home){UVM_STEAL(path), -1};
    home->lock_fd = open(home->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (home->lock_fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", home->path);
    uvm_claim(home->lock_fd, LOCK_SH);
    return write_settings(home->path, SETTINGS, err);
}

/* OpenPGP has 32 bits for a time. GnuPG judges by what it is told keys, subkeys and signatures alike. */
bool uvm_gpg_home_set_clock(const struct uvm_gpg_home *home, time_t now, struct uvm_error *err)
{
    uvm_auto_free char *settings =
        uvm_format(SETTINGS "faked-system-time %lld\n",
                   (long long)(now < (time_t)UINT32_MAX ? now : (time_t)UINT32_MAX));
    return write_settings(home->path, settings, err);
}

void uvm_gpg_home_remove(struct uvm_gpg_home *home)
{
    uvm_auto_error ignored = UVM_ERROR_INIT; /* GnuPG may remove its own lock at the same moment */
    if (home->path && !uvm_remove_tree(home->path, &ignored)) {
        uvm_auto_error again = UVM_ERROR_INIT;
        uvm_remove_tree(home->path, &again);
    }
    free(home->path);
    uvm_close_ptr(&home->lock_fd);
    *home = UVM_GPG_HOME_INIT;
}

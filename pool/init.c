/*
 * init.c: what uvtool's package makes when it is installed, for a host that has none of it yet.
 */
#include "pool/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGES_MODE   0755 /* QEMU runs as a user of its own, and must get to the images */
#define METADATA_MODE 02775
#define STATE_MODE    02770
#define HOST_GROUP    "libvirt"

/* An empty folder is nobody's yet: a package or a mount made it. */
static bool is_in_use(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return false;
    DIR *dir = S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    size_t names = 0;
    while (dir && readdir(dir))
        names++;
    if (dir)
        closedir(dir);
    return names != 2; /* "." and ".." */
}

/* A folder that the members of group libvirt may write to. */
static bool make_shared(const char *path, mode_t mode, const struct uvm_observer *observer,
                        struct uvm_error *err)
{
    if (is_in_use(path)) {
        uvm_notice(observer, "%s is there already", path);
        return true;
    }
    if (!uvm_make_dirs(path, IMAGES_MODE, err))
        return false;
    uvm_auto_fd fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);

    const struct group *group = getgrnam(HOST_GROUP);
    if (!group)
        uvm_notice(observer, "there is no group %s: %s is for its owner alone", HOST_GROUP, path);
    else if (fchown(fd, (uid_t)-1, group->gr_gid) != 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s: give to group %s", path, HOST_GROUP);
    /* After the change of group, which clears the set-group-ID bit. */
    if (fchmod(fd, group ? mode : mode & ~(mode_t)02020) != 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s: change mode", path);
    uvm_done(observer, "make", path, NULL);
    return true;
}

/* Each pool has a folder of its own: that of another one than uvtool's is beside its metadata,
 * which is there by now. An absolute path, which the caller frees; NULL with errno. */
static char *images_path(const struct pool_options *options)
{
    if (strcmp(options->name, POOL_DEFAULT_NAME) == 0)
        return uvm_strdup(POOL_DEFAULT_IMAGES);
    char *metadata = realpath(options->metadata_dir, NULL);
    if (!metadata)
        return NULL;
    uvm_auto_free char *beside = uvm_dirname(metadata);
    free(metadata);
    return uvm_format("%s/images", strcmp(beside, "/") == 0 ? "" : beside);
}

static bool define_pool(struct pool_virt *v, const struct pool_options *options,
                        struct pool_store **ret_store, struct uvm_error *err)
{
    uvm_auto_free char *path = images_path(options);
    if (!path)
        return uvm_fail_errno(err, UVM_FAILED, "%s", options->metadata_dir);
    if (!uvm_make_dirs(path, IMAGES_MODE, err) ||
        !pool_store_define(v, options->name, path, ret_store, err) ||
        !pool_store_autostart(*ret_store, err))
        return false;
    uvm_done(options->observer, "make", options->name, "pool in %s", path);
    return true;
}

static bool make_pool(struct pool_virt *v, const struct pool_options *options,
                      struct uvm_error *err)
{
    UVM_AUTO(pool_store_free) struct pool_store *s = NULL;
    if (!pool_store_find(v, options->name, &s, err))
        return false;
    if (s) {
        uvm_auto_free char *path = uvm_printable(s->path ? s->path : "no folder");
        uvm_notice(options->observer, "pool %s is there already, in %s", options->name, path);
    } else if (!define_pool(v, options, &s, err)) {
        return false;
    }
    /* QEMU's user must get into the folder, which was made so; building could change that. */
    return s->active || pool_store_start(s, err);
}

bool pool_init(const struct pool_options *options, struct uvm_error *err)
{
    UVM_AUTO(pool_virt_free) struct pool_virt *v = NULL;
    return pool_virt_open(options->connect, options->observer, &v, err) &&
           make_shared(options->metadata_dir, METADATA_MODE, options->observer, err) &&
           make_pool(v, options, err) &&
           make_shared(options->state_dir, STATE_MODE, options->observer, err);
}

/*
 * device.c: what a block device was made from. A guest that is given /dev/loop0, a partition of it,
 * or a logical volume on top needs the file behind all of them, and libvirt does not know which.
 *
 *     /sys/dev/block/MAJOR:MINOR/uevent              "DEVNAME=loop0" and more
 *     /sys/dev/block/MAJOR:MINOR/partition           only a partition has it: the folder above is
 *                                                    the whole device's
 *     /sys/dev/block/MAJOR:MINOR/slaves/NAME/uevent  device mapper, RAID
 *     /sys/dev/block/MAJOR:MINOR/loop/backing_file   of a loop device
 */
#include "pool/chain.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PATH_BYTES_MAX ((size_t)64 << 10)
#define DEVNAME        "DEVNAME="

static char *sys_path(dev_t device, const char *rest)
{
    return uvm_format("/sys/dev/block/%u:%u/%s", major(device), minor(device), rest);
}

/* The path of the device that an "uevent" file is about. */
static bool device_path(const char *uevent, char **ret_path, struct uvm_error *err)
{
    uvm_auto_buf text = {0};
    if (!uvm_file_read(uevent, PATH_BYTES_MAX, &text, err))
        return false;
    const char *name = text.len ? strstr(text.data, DEVNAME) : NULL;
    size_t len = name ? strcspn(name + strlen(DEVNAME), "\n") : 0;
    if (len == 0)
        return uvm_fail(err, UVM_FAILED, "%s names no device", uevent);
    *ret_path = uvm_format("/dev/%.*s", (int)len, name + strlen(DEVNAME));
    return true;
}

static bool add_device(const char *uevent, struct uvm_strings *paths, struct uvm_error *err)
{
    uvm_auto_free char *path = NULL;
    if (!device_path(uevent, &path, err))
        return false;
    uvm_strings_add(paths, path);
    return true;
}

static bool add_slaves(dev_t device, struct uvm_strings *paths, struct uvm_error *err)
{
    uvm_auto_free char *folder = sys_path(device, "slaves");
    DIR *dir = opendir(folder);
    if (!dir)
        return errno == ENOENT || uvm_fail_errno(err, UVM_FAILED, "%s", folder);
    bool ok = true;
    for (const struct dirent *e; ok && (e = readdir(dir));) {
        uvm_auto_free char *file = uvm_format("%s/%s/uevent", folder, e->d_name);
        if (e->d_name[0] != '.')
            ok = add_device(file, paths, err);
    }
    closedir(dir);
    return ok;
}

/* The kernel gives the name by which the file was opened, which another one may bear by now. */
static bool is_behind(dev_t device, const char *path)
{
    uvm_auto_free char *uevent = sys_path(device, "uevent");
    uvm_auto_free char *node = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct loop_info64 info;
    struct stat st;
    if (!device_path(uevent, &node, &err))
        return true; /* then its name has to do */
    uvm_auto_fd fd = open(node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, LOOP_GET_STATUS64, &info) != 0)
        return true;
    return stat(path, &st) == 0 && st.st_ino == info.lo_inode;
}

static bool add_loop(dev_t device, struct uvm_strings *paths, struct uvm_error *err)
{
    uvm_auto_free char *file = sys_path(device, "loop/backing_file");
    uvm_auto_error failed = UVM_ERROR_INIT;
    uvm_auto_buf path = {0};
    if (!uvm_file_read(file, PATH_BYTES_MAX, &path, &failed))
        return failed.sys_errno == ENOENT || uvm_fail(err, failed.code, "%s", failed.message);
    if (path.len > 0 && path.data[path.len - 1] == '\n')
        path.data[--path.len] = '\0';
    if (path.len == 0 || path.data[0] != '/' || !is_behind(device, path.data))
        return uvm_fail(err, UVM_FAILED, "the file behind this loop device cannot be found");
    uvm_strings_add(paths, path.data);
    return true;
}

bool pool_device_below(dev_t device, struct uvm_strings *ret_paths, struct uvm_error *err)
{
    uvm_auto_free char *partition = sys_path(device, "partition");
    uvm_auto_free char *whole = sys_path(device, "../uevent");
    if (access(partition, F_OK) == 0)
        return add_device(whole, ret_paths, err);
    return add_slaves(device, ret_paths, err) && add_loop(device, ret_paths, err);
}

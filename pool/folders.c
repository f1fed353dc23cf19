/*
 * folders.c: hears when another program makes or fills a file in a folder of volumes (inotify).
 * libvirt tells nothing of a new volume, and what was not made through it, it does not even know.
 */
#include "pool/internal.h"

#include <errno.h>
#include <sys/inotify.h>
#include <unistd.h>

#define EVENTS      (IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR)
#define EVENT_BYTES ((size_t)64 << 10)

int pool_folders_open(void)
{
    return inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
}

void pool_folders_watch(int fd, const struct uvm_strings *folders)
{
    for (size_t i = 0; fd >= 0 && i < folders->count; i++)
        inotify_add_watch(fd, folders->items[i], EVENTS);
}

bool pool_folders_changed(int fd)
{
    uvm_auto_free char *events = uvm_alloc(EVENT_BYTES);
    bool changed = false;
    for (ssize_t n; fd >= 0 && (n = read(fd, events, EVENT_BYTES)) != 0;) {
        changed = changed || n > 0;
        if (n < 0 && errno != EINTR)
            break;
    }
    return changed;
}

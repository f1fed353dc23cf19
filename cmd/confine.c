/* What a command that reads a bundle gives up before the first byte of it. */
#include <string.h>

#include "cmd/import.h"

#define STATE_MODE 0700 /* as pool_lock() would make it */

static void confine(const struct uvm_strings *writable, enum uvm_sockets sockets)
{
    unsigned confined = uvm_confine(writable, sockets);
    uvm_auto_free char *folders = cmd_join(writable, ", ");
    if (confined & UVM_CONFINED_FILES)
        cmd_detail("confined: changes files in %s%s%s alone", folders, *folders ? ", " : "",
                   uvm_temporary_folder());
    else
        cmd_detail("not confined to some folders: this kernel has no Landlock, or it is off");
    if (confined & UVM_CONFINED_CALLS)
        cmd_detail("confined: opens no %s", sockets == UVM_SOCKETS_NONE ? "sockets" : "network");
    else
        cmd_detail("not kept from the network: this kernel has no seccomp, or it is off");
}

void cmd_confine_reader(void)
{
    const struct uvm_strings none = {0};
    confine(&none, UVM_SOCKETS_NONE);
}

/* "qemu:///system", "qemu+unix:///system?...": libvirt's client connects to a socket and starts nothing.
 * For others it starts what must not be confined: ssh, the daemon of a session. */
static bool is_system_daemon(const char *uri)
{
    static const char path[] = ":///system";
    const char *end = strstr(uri, path);
    const char *plus = strchr(uri, '+');
    if (!end || (plus && plus < end && strncmp(plus, "+unix:", strlen("+unix:")) != 0))
        return false;
    return end[strlen(path)] == 0 || end[strlen(path)] == '?';
}

bool cmd_import_confine(const struct import_options *o, const struct pool_options *pool,
                        struct uvm_error *err)
{
    uvm_auto_strings writable = {0};
    if (!is_system_daemon(pool->connect)) {
        cmd_detail("not confined: libvirt's client may start programs for %s", pool->connect);
        return true;
    }
    /* Only what is there can be left open; afterwards there would be no way to it. */
    if (!o->dry_run && !uvm_make_dirs(pool->state_dir, STATE_MODE, err))
        return uvm_prefix(err, "state folder");
    if (!o->dry_run) {
        uvm_strings_add(&writable, pool->state_dir);
        uvm_strings_add(&writable, pool->metadata_dir);
    }
    if (o->report) {
        uvm_auto_free char *folder = uvm_dirname(o->report);
        uvm_strings_add(&writable, folder);
    }
    confine(&writable, UVM_SOCKETS_LOCAL);
    return true;
}

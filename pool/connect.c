/*
 * connect.c: the connection to a libvirt daemon, and what it says when something fails.
 */
#include "pool/libvirt.h"

#include "pool/virt.h"
#include "pool/xml.h"

#include <errno.h>
#include <string.h>

#define ANSWER_SECS 60 /* a pool of many volumes on slow disks takes its time to be refreshed */
#define AGAIN_SECS  15 /* whoever ends a run that failed has waited already */

/* ---- errors ---------------------------------------------------------------------------------- */

static void silent(void *opaque, virErrorPtr error)
{
    (void)opaque;
    (void)error;
}

/* What was listed a moment ago does not exist any more. */
bool pool_virt_is_gone(int code)
{
    return code == VIR_ERR_NO_STORAGE_POOL || code == VIR_ERR_NO_DOMAIN;
}

/* The client's own errors are about the way to the daemon. */
static bool is_lost(const virError *error)
{
    return error->domain == VIR_FROM_RPC || error->domain == VIR_FROM_REMOTE;
}

bool pool_virt_fail(struct uvm_error *err, const char *format, ...)
{
    virErrorPtr last = virGetLastError();
    uvm_auto_free char *reason =
        uvm_printable(last && last->message ? last->message : "no reason given");
    /* libvirt passes errno on only now and then; else it is in the text alone. */
    bool full = (last && last->code == VIR_ERR_SYSTEM_ERROR &&
                 (last->int1 == ENOSPC || last->int1 == EDQUOT || last->int1 == EFBIG)) ||
                strstr(reason, "No space left on device");

    va_list args;
    va_start(args, format);
    uvm_auto_free char *what = uvm_vformat(format, args);
    va_end(args);
    uvm_fail(err, full ? UVM_SPACE : UVM_LIBVIRT, "%s: %s%s", what, reason,
             last && is_lost(last)
                 ? " (is libvirtd running? see 'systemctl status libvirtd', then run "
                   "this again)"
                 : "");
    if (last && pool_virt_is_gone(last->code))
        err->sys_errno = ENOENT;
    return false;
}

/* ---- connection ------------------------------------------------------------------------------ */

/* To be done once, and before the first connection: only then does it tell events. */
static void set_up(void)
{
    virSetErrorFunc(NULL, silent);
    virEventRegisterDefaultImpl();
}

static bool check_host(struct pool_virt *v, const char *uri, struct uvm_error *err)
{
    char *real = virConnectGetURI(v->conn);
    bool remote = real && pool_xml_uri_is_remote(real);
    uvm_auto_free char *shown = uvm_printable(real ? real : uri);
    free(real);
    return !remote || uvm_fail(err, UVM_LIBVIRT,
                               "libvirt %s: is another host; run uvmirror on that host", shown);
}

static bool open_connection(void *arg, struct uvm_error *err)
{
    struct pool_virt *v = arg;
    v->conn = virConnectOpen(v->uri);
    return v->conn || pool_virt_fail(err, "libvirt %s", v->uri);
}

static bool open_virt(const char *uri, const struct uvm_observer *observer, unsigned answer_secs,
                      struct pool_virt **ret_virt, struct uvm_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_up);

    UVM_AUTO(pool_virt_free) struct pool_virt *v = uvm_alloc(sizeof(*v));
    v->uri = uvm_strdup(uri);
    v->observer = observer;
    v->answer_secs = answer_secs;
    bool ok = pool_virt_call(v, open_connection, v, err);
    if (v->stuck)
        return uvm_prefix(err, "libvirt %s", uri);
    if (!ok || !check_host(v, uri, err) || !pool_watch_start(v, err))
        return false;
    *ret_virt = UVM_STEAL(v);
    return true;
}

bool pool_virt_open(const char *uri, const struct uvm_observer *observer,
                    struct pool_virt **ret_virt, struct uvm_error *err)
{
    return open_virt(uri, observer, ANSWER_SECS, ret_virt, err);
}

bool pool_virt_open_again(const struct pool_virt *v, struct pool_virt **ret_virt,
                          struct uvm_error *err)
{
    return open_virt(v->uri, v->observer, AGAIN_SECS, ret_virt, err);
}

bool pool_virt_alive(struct pool_virt *v)
{
    return virConnectIsAlive(v->conn) == 1;
}

bool pool_virt_answers(struct pool_virt *v)
{
    return !v->stuck && pool_virt_alive(v);
}

bool pool_virt_is_stuck(const struct pool_virt *v)
{
    return v->stuck;
}

void pool_virt_free(struct pool_virt *v)
{
    /* What hangs still uses it. */
    if (!v || v->stuck)
        return;
    pool_watch_stop(v);
    if (v->conn)
        virConnectClose(v->conn);
    free(v->uri);
    free(v);
}

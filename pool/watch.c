/*
 * watch.c: libvirt's events. A thread turns its event loop as long as there is a connection: so
 * keepalive finds a daemon that does not answer any more, and what changes while a cleanup is under
 * way is heard of.
 *
 * Watched is what can make a file needed that was not needed before: guests that are defined,
 * started or get another disk, jobs on their disks, pools that come and go. Not watched is the
 * refresh of a pool: the daemon tells of ours, too, and no sooner than it likes. That a volume was
 * made in a pool of folders is seen in the folder itself (clean.c).
 */
#include "pool/libvirt.h"

#include "pool/virt.h"

#include <errno.h>
#include <signal.h>

#define KEEPALIVE_SECS  5
#define KEEPALIVE_COUNT 3
#define DRAIN_SECS      5
#define TICK_MS         500
#define DOMAIN_EVENTS   4

struct pool_watch {
    pthread_t thread;
    int timer;
    atomic_bool end;
    int callbacks[DOMAIN_EVENTS];
    int pool_callback;
    atomic_size_t changes;
    pthread_mutex_t lock;
    pthread_cond_t turned;
    bool drained; /* under the lock */
};

/* ---- the loop -------------------------------------------------------------------------------- */

/* libvirt's loop returns only when there was something to do. */
static void tick(int timer, void *opaque)
{
    (void)timer;
    (void)opaque;
}

static void *turn(void *opaque)
{
    struct pool_virt *v = opaque;
    while (!atomic_load(&v->watch->end)) {
        if (virEventRunDefaultImpl() < 0)
            virResetLastError();
    }
    return NULL;
}

/* Signals are for the main thread, whose waiting they are to end. */
static bool start_thread(struct pool_virt *v, struct uvm_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&v->watch->thread, NULL, turn, v);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = failed;
    return failed == 0 || uvm_fail_errno(err, UVM_FAILED, "thread");
}

bool pool_watch_start(struct pool_virt *v, struct uvm_error *err)
{
    struct pool_watch *w = uvm_alloc(sizeof(*w));
    *w = (struct pool_watch){.pool_callback = -1};
    for (size_t i = 0; i < DOMAIN_EVENTS; i++)
        w->callbacks[i] = -1;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->turned, NULL);
    w->timer = virEventAddTimeout(TICK_MS, tick, NULL, NULL);
    v->watch = w;
    if (!start_thread(v, err)) {
        virEventRemoveTimeout(w->timer);
        pthread_cond_destroy(&w->turned);
        pthread_mutex_destroy(&w->lock);
        free(UVM_STEAL(v->watch));
        return false;
    }
    /* Drivers without a daemon know no keepalive. */
    if (virConnectSetKeepAlive(v->conn, KEEPALIVE_SECS, KEEPALIVE_COUNT) < 0)
        virResetLastError();
    return true;
}

static void forget(struct pool_virt *v)
{
    for (size_t i = 0; i < DOMAIN_EVENTS; i++) {
        if (v->watch->callbacks[i] >= 0)
            virConnectDomainEventDeregisterAny(v->conn, v->watch->callbacks[i]);
    }
    if (v->watch->pool_callback >= 0)
        virConnectStoragePoolEventDeregisterAny(v->conn, v->watch->pool_callback);
}

void pool_watch_stop(struct pool_virt *v)
{
    struct pool_watch *w = v->watch;
    if (!w)
        return;
    forget(v);
    /* The loop lets go of the connection when it turns once more. */
    virConnectClose(UVM_STEAL(v->conn));
    atomic_store(&w->end, true);
    virEventUpdateTimeout(w->timer, 0);
    pthread_join(w->thread, NULL);
    virEventRemoveTimeout(w->timer);
    pthread_cond_destroy(&w->turned);
    pthread_mutex_destroy(&w->lock);
    free(UVM_STEAL(v->watch));
}

/* ---- changes --------------------------------------------------------------------------------- */

static void count_change(void *opaque)
{
    struct pool_virt *v = opaque;
    atomic_fetch_add(&v->watch->changes, 1);
}

static int on_lifecycle(virConnectPtr conn, virDomainPtr domain, int event, int detail,
                        void *opaque)
{
    (void)conn;
    (void)domain;
    (void)event;
    (void)detail;
    count_change(opaque);
    return 0;
}

static void on_job(virConnectPtr conn, virDomainPtr domain, const char *disk, int type, int status,
                   void *opaque)
{
    (void)conn;
    (void)domain;
    (void)disk;
    (void)type;
    (void)status;
    count_change(opaque);
}

static void on_disk(virConnectPtr conn, virDomainPtr domain, const char *before, const char *after,
                    const char *device, int reason, void *opaque)
{
    (void)conn;
    (void)domain;
    (void)before;
    (void)after;
    (void)device;
    (void)reason;
    count_change(opaque);
}

static void on_device(virConnectPtr conn, virDomainPtr domain, const char *device, void *opaque)
{
    (void)conn;
    (void)domain;
    (void)device;
    count_change(opaque);
}

static void on_pool(virConnectPtr conn, virStoragePoolPtr pool, int event, int detail, void *opaque)
{
    (void)conn;
    (void)pool;
    (void)event;
    (void)detail;
    count_change(opaque);
}

static const struct {
    int event;
    virConnectDomainEventGenericCallback callback;
} domain_events[DOMAIN_EVENTS] = {
    {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
    {VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, VIR_DOMAIN_EVENT_CALLBACK(on_job)},
    {VIR_DOMAIN_EVENT_ID_DISK_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_disk)},
    {VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, VIR_DOMAIN_EVENT_CALLBACK(on_device)},
};

bool pool_watch_begin(struct pool_virt *v, struct uvm_error *err)
{
    struct pool_watch *w = v->watch;
    for (size_t i = 0; i < DOMAIN_EVENTS; i++) {
        if (w->callbacks[i] < 0)
            w->callbacks[i] = virConnectDomainEventRegisterAny(
                v->conn, NULL, domain_events[i].event, domain_events[i].callback, v, NULL);
        if (w->callbacks[i] < 0)
            return pool_virt_fail(err, "watch guests");
    }
    if (w->pool_callback < 0)
        w->pool_callback = virConnectStoragePoolEventRegisterAny(
            v->conn, NULL, VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE,
            VIR_STORAGE_POOL_EVENT_CALLBACK(on_pool), v, NULL);
    return w->pool_callback >= 0 || pool_virt_fail(err, "watch pools");
}

static void note_drained(int timer, void *opaque)
{
    struct pool_watch *w = opaque;
    virEventRemoveTimeout(timer);
    pthread_mutex_lock(&w->lock);
    w->drained = true;
    pthread_cond_signal(&w->turned);
    pthread_mutex_unlock(&w->lock);
}

/* The loop calls what is due in the order in which it became so: when this timer's turn comes, events
 * that had arrived have been told. */
static bool drain(struct pool_watch *w)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DRAIN_SECS;
    w->drained = false;
    if (virEventAddTimeout(0, note_drained, w, NULL) < 0)
        return false;
    pthread_mutex_lock(&w->lock);
    int failed = 0;
    while (!w->drained && failed == 0)
        failed = pthread_cond_timedwait(&w->turned, &w->lock, &until);
    bool drained = w->drained;
    pthread_mutex_unlock(&w->lock);
    return drained;
}

size_t pool_watch_changes(struct pool_virt *v)
{
    /* An answer of the daemon comes behind the events that it sent before. */
    if (virConnectGetLibVersion(v->conn, &(unsigned long){0}) != 0 || !drain(v->watch))
        count_change(v);
    return atomic_load(&v->watch->changes);
}

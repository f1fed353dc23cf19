/*
 * call.c: calls to libvirt that may never come back: a daemon that is stopped, or one whose storage
 * driver waits for a network file system that is gone. They run in a thread of their own. Whoever
 * waits for it gives up when there was no sign of life for a while; for a shorter one, when the run
 * was asked to stop: what undoes an interrupted run calls, too. Then the thread is left to the end of
 * the process, with all that it uses.
 */
#include "pool/libvirt.h"

#include "pool/virt.h"

#include <errno.h>

#define ANSWER_SECS 60 /* a pool of many volumes on slow disks takes its time to be refreshed */
#define GRACE_SECS  10 /* once the run was asked to stop */
#define POLL_MS     50

struct call {
    struct pool_virt *virt;
    bool (*func)(void *arg, struct uvm_error *err);
    void *arg;
    bool ok;
    struct uvm_error err;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool end; /* under the lock */
};

static void *call_thread(void *opaque)
{
    struct call *c = opaque;
    c->ok = c->func(c->arg, &c->err);
    pthread_mutex_lock(&c->lock);
    c->end = true;
    pthread_cond_signal(&c->ended);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static int64_t now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool has_ended(struct call *c)
{
    int64_t until_ms = now_ms(CLOCK_REALTIME) + POLL_MS;
    const struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};
    pthread_mutex_lock(&c->lock);
    if (!c->end)
        pthread_cond_timedwait(&c->ended, &c->lock, &until);
    bool end = c->end;
    pthread_mutex_unlock(&c->lock);
    return end;
}

/* False when it was given up. */
static bool wait_for(struct call *c, struct uvm_error *err)
{
    const struct uvm_observer *o = c->virt->observer;
    int64_t heard_ms = now_ms(CLOCK_MONOTONIC);
    size_t beats = 0;
    while (!has_ended(c)) {
        int64_t now = now_ms(CLOCK_MONOTONIC);
        size_t more = atomic_load(&c->virt->beats);
        uvm_auto_error stop = UVM_ERROR_INIT;
        if (more != beats)
            heard_ms = now;
        beats = more;
        if (now - heard_ms > GRACE_SECS * 1000 && !uvm_go_on(o, &stop))
            return uvm_fail(err, UVM_INTERRUPTED, "interrupted while libvirt did not answer");
        if (now - heard_ms > ANSWER_SECS * 1000)
            return uvm_fail(err, UVM_LIBVIRT,
                            "libvirt has not answered for %d seconds: is the daemon stopped, or a "
                            "network file system of one of its pools gone? (see 'systemctl status "
                            "libvirtd')",
                            ANSWER_SECS);
    }
    return true;
}

static void call_free(struct call *c)
{
    pthread_cond_destroy(&c->ended);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

bool pool_virt_call(struct pool_virt *v, bool (*func)(void *arg, struct uvm_error *err), void *arg,
                    struct uvm_error *err)
{
    pthread_t thread;
    struct call *c = uvm_alloc(sizeof(*c));
    *c = (struct call){.virt = v, .func = func, .arg = arg, .err = UVM_ERROR_INIT};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->ended, NULL);
    errno = pthread_create(&thread, NULL, call_thread, c);
    if (errno) {
        call_free(c);
        return uvm_fail_errno(err, UVM_FAILED, "thread");
    }
    if (!wait_for(c, err)) {
        v->stuck = true;
        pthread_detach(thread);
        return false;
    }
    pthread_join(thread, NULL);
    bool ok = c->ok;
    if (!ok)
        *err = c->err;
    call_free(c);
    return ok;
}

void pool_virt_beat(struct pool_virt *v)
{
    atomic_fetch_add(&v->beats, 1);
}

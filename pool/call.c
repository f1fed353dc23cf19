/*
 * call.c: calls to libvirt that take long, in threads of their own. Some may never come back: a
 * daemon that is stopped, or one whose storage driver waits for a network file system that is gone.
 * Whoever waits for such a one gives up when there was no sign of life for a while; for a shorter
 * one, when the run was asked to stop: what undoes an interrupted run calls, too. Then the thread is
 * left to the end of the process, with all that it uses.
 */
#include "pool/libvirt.h"

#include "pool/virt.h"

#include <errno.h>

#define GRACE_SECS 10 /* once the run was asked to stop */
#define POLL_MS    50

/* ---- a function in a thread of its own ------------------------------------------------------- */

struct work {
    pthread_t thread;
    bool (*func)(void *arg, struct uvm_error *err);
    void *arg;
    bool ok;
    struct uvm_error err;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool end; /* under the lock */
};

static void *work_thread(void *opaque)
{
    struct work *w = opaque;
    w->ok = w->func(w->arg, &w->err);
    pthread_mutex_lock(&w->lock);
    w->end = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void work_free(struct work *w)
{
    pthread_cond_destroy(&w->ended);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static bool work_begin(bool (*func)(void *arg, struct uvm_error *err), void *arg,
                       struct work **ret_work, struct uvm_error *err)
{
    struct work *w = uvm_alloc(sizeof(*w));
    *w = (struct work){.func = func, .arg = arg, .err = UVM_ERROR_INIT};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->ended, NULL);
    int failed = pthread_create(&w->thread, NULL, work_thread, w);
    if (failed) {
        work_free(w);
        errno = failed;
        return uvm_fail_errno(err, UVM_FAILED, "thread");
    }
    *ret_work = w;
    return true;
}

static int64_t now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool work_ended(struct work *w, unsigned wait_ms)
{
    int64_t until_ms = now_ms(CLOCK_REALTIME) + wait_ms;
    const struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};
    pthread_mutex_lock(&w->lock);
    if (!w->end)
        pthread_cond_timedwait(&w->ended, &w->lock, &until);
    bool end = w->end;
    pthread_mutex_unlock(&w->lock);
    return end;
}

static bool work_end(struct work *w, struct uvm_error *err)
{
    pthread_join(w->thread, NULL);
    bool ok = w->ok;
    if (!ok)
        *err = w->err;
    work_free(w);
    return ok;
}

/* ---- one that may be given up ---------------------------------------------------------------- */

/* False when it was given up. */
static bool wait_for(struct pool_virt *v, struct work *w, struct uvm_error *err)
{
    const struct uvm_observer *o = v->observer;
    int64_t heard_ms = now_ms(CLOCK_MONOTONIC);
    size_t beats = 0;
    while (!work_ended(w, POLL_MS)) {
        int64_t now = now_ms(CLOCK_MONOTONIC);
        size_t more = atomic_load(&v->beats);
        uvm_auto_error stop = UVM_ERROR_INIT;
        if (more != beats)
            heard_ms = now;
        beats = more;
        if (now - heard_ms > GRACE_SECS * 1000 && !uvm_go_on(o, &stop))
            return uvm_fail(err, UVM_INTERRUPTED, "interrupted while libvirt did not answer");
        if (now - heard_ms > (int64_t)v->answer_secs * 1000)
            return uvm_fail(err, UVM_LIBVIRT,
                            "libvirt has not answered for %u seconds: is the daemon stopped, or a "
                            "network file system of one of its pools gone? (see 'systemctl status "
                            "libvirtd')",
                            v->answer_secs);
    }
    return true;
}

bool pool_virt_call(struct pool_virt *v, bool (*func)(void *arg, struct uvm_error *err), void *arg,
                    struct uvm_error *err)
{
    struct work *w = NULL;
    if (!work_begin(func, arg, &w, err))
        return false;
    if (wait_for(v, w, err))
        return work_end(w, err);
    v->stuck = true;
    pthread_detach(w->thread);
    return false;
}

void pool_virt_beat(struct pool_virt *v)
{
    atomic_fetch_add(&v->beats, 1);
}

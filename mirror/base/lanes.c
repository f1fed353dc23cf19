/*
 * Work side by side, results in order: a ring of jobs, two for each thread and the one that was handed
 * out.
 *
 *     head             tail
 *      v                v
 *     [out][done][work][    ][    ]      out: handed out; done, work: taken; then those that are free
 *
 * A thread takes the next job and works on it, so that what `take` has just brought near is at hand.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "mirror/base/base.h"

#define DEPTH 2 /* jobs for each thread */

struct job {
    void *own; /* the caller's */
    bool done;
    struct uvm_error failed;
};

struct uvm_lanes {
    struct uvm_lanes_options options;
    pthread_t threads[UVM_LANES_MAX];
    size_t thread_count;
    pthread_mutex_t mutex;
    pthread_cond_t has_room; /* a job may be taken */
    pthread_cond_t has_done; /* the job at head is done, or there is none */
    /* Under the mutex. */
    struct job *jobs;
    size_t job_count;
    uint64_t head, tail; /* jobs that were let go of, jobs that were taken */
    bool taking, ended, handed_out;
};

static struct job *job_at(struct uvm_lanes *l, uint64_t number)
{
    return &l->jobs[number % l->job_count];
}

/* ---- the threads' side ----------------------------------------------------------------------- */

/* Takes the next job, the mutex held, but not while `take` runs. NULL when there is nothing to work
 * on: the end, or an error, which comes out in its turn. */
static struct job *take(struct uvm_lanes *l)
{
    struct job *job = job_at(l, l->tail);
    bool end = false;
    l->taking = true;
    pthread_mutex_unlock(&l->mutex);
    bool ok = l->options.take(l->options.opaque, job->own, &end, &job->failed);
    pthread_mutex_lock(&l->mutex);
    l->taking = false;
    l->ended = l->ended || end || !ok;
    if (ok && end)
        return NULL;
    job->done = !ok;
    l->tail++;
    return ok ? job : NULL;
}

/* The same for `work`. Behind a job that failed, none is begun. */
static void work(struct uvm_lanes *l, struct job *job)
{
    pthread_mutex_unlock(&l->mutex);
    bool ok = l->options.work(l->options.opaque, job->own, &job->failed);
    pthread_mutex_lock(&l->mutex);
    job->done = true;
    l->ended = l->ended || !ok;
}

static bool has_room(const struct uvm_lanes *l)
{
    return !l->taking && l->tail - l->head < l->job_count;
}

static void *run(void *opaque)
{
    struct uvm_lanes *l = opaque;
    pthread_mutex_lock(&l->mutex);
    while (!l->ended) {
        if (!has_room(l)) {
            pthread_cond_wait(&l->has_room, &l->mutex);
            continue;
        }
        struct job *job = take(l);
        pthread_cond_signal(&l->has_room);
        if (job)
            work(l, job);
        pthread_cond_signal(&l->has_done);
    }
    /* Those that wait must see the end, too. */
    pthread_cond_broadcast(&l->has_room);
    pthread_cond_signal(&l->has_done);
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static size_t processors(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < UVM_LANES_MAX ? (size_t)count : UVM_LANES_MAX;
}

static size_t lanes(const struct uvm_lanes_options *o)
{
    size_t count = processors(), jobs = o->job_bytes ? UVM_LANES_BYTES / o->job_bytes : SIZE_MAX,
           fit = jobs > DEPTH ? (jobs - 1) / DEPTH : 1;
    return count < fit ? count : fit;
}

/* Signals are the main thread's. */
static void start_threads(struct uvm_lanes *l, size_t count)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (l->thread_count < count &&
           pthread_create(&l->threads[l->thread_count], NULL, run, l) == 0)
        l->thread_count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

struct uvm_lanes *uvm_lanes_new(const struct uvm_lanes_options *options)
{
    struct uvm_lanes *l = uvm_alloc(sizeof *l);
    size_t count = lanes(options);
    l->options = *options;
    l->job_count = DEPTH * count + 1;
    l->jobs = uvm_alloc(l->job_count * sizeof *l->jobs);
    for (size_t i = 0; i < l->job_count; i++)
        l->jobs[i] = (struct job){.own = uvm_alloc(options->job_size), .failed = UVM_ERROR_INIT};
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->has_room, NULL);
    pthread_cond_init(&l->has_done, NULL);
    start_threads(l, count);
    return l;
}

static void stop(struct uvm_lanes *l)
{
    pthread_mutex_lock(&l->mutex);
    l->ended = true;
    pthread_cond_broadcast(&l->has_room);
    pthread_mutex_unlock(&l->mutex);
    for (size_t i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
}

void uvm_lanes_free(struct uvm_lanes *l)
{
    if (!l)
        return;
    stop(l);
    for (size_t i = 0; i < l->job_count; i++) {
        l->options.clear(l->options.opaque, l->jobs[i].own);
        free(l->jobs[i].own);
        uvm_error_clear(&l->jobs[i].failed);
    }
    free(l->jobs);
    pthread_cond_destroy(&l->has_done);
    pthread_cond_destroy(&l->has_room);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

/* ---- the caller's side ----------------------------------------------------------------------- */

static void let_go(struct uvm_lanes *l)
{
    if (!l->handed_out)
        return;
    l->head++;
    l->handed_out = false;
    pthread_cond_signal(&l->has_room);
}

/* Until the job at head is done, or there is none and will be none. */
static void wait_for_head(struct uvm_lanes *l)
{
    for (;;) {
        if (l->head < l->tail ? job_at(l, l->head)->done : l->ended && !l->taking)
            return;
        if (l->thread_count > 0) {
            pthread_cond_wait(&l->has_done, &l->mutex);
            continue;
        }
        struct job *job = take(l);
        if (job)
            work(l, job);
    }
}

bool uvm_lanes_next(struct uvm_lanes *l, void **ret_job, struct uvm_error *err)
{
    pthread_mutex_lock(&l->mutex);
    let_go(l);
    wait_for_head(l);
    struct job *job = l->head < l->tail ? job_at(l, l->head) : NULL;
    l->handed_out = job && job->failed.code == UVM_OK;
    pthread_mutex_unlock(&l->mutex);
    /* A job that failed stays where it is: whoever asks again is told again, and never of an end. */
    if (job && job->failed.code != UVM_OK) {
        uvm_fail(err, job->failed.code, "%s", job->failed.message);
        err->sys_errno = job->failed.sys_errno;
        return false;
    }
    *ret_job = job ? job->own : NULL;
    return true;
}

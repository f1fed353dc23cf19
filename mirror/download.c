/*
 * The engine: a thread that works on several images, and what the rest of the program sees of it.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "mirror/download.h"

/* ---- jobs ---- */

static void copy_error(struct uvm_error *to, const struct uvm_error *from)
{
    uvm_fail(to, from->code, "%s", from->message);
    to->sys_errno = from->sys_errno;
}

static size_t waiting(const struct mirror_download *d)
{
    size_t count = 0;
    for (size_t i = 0; i < d->count; i++)
        count += d->jobs[i].state == MIRROR_JOB_WAITS;
    return count;
}

/* When the source is down, to try it for each image would take hours. */
static void judge_source(struct mirror_download *d, enum mirror_job_state state,
                         const struct uvm_error *failure)
{
    unsigned jobs = mirror_source_jobs(d->source);
    if (state == MIRROR_JOB_HAD || state == MIRROR_JOB_STOPPED || d->stop.code != UVM_OK)
        return;
    d->down = failure && failure->sys_errno == EHOSTDOWN ? d->down + 1 : 0;
    size_t left = waiting(d);
    if (left == 0 || d->down < (jobs > MIRROR_DOWNLOAD_DOWN ? jobs : MIRROR_DOWNLOAD_DOWN))
        return;
    copy_error(&d->stop, failure);
    uvm_prefix(&d->stop, "gave up after %zu images in a row, %zu were not tried", d->down, left);
}

void mirror_job_end(struct mirror_download *d, struct mirror_job *job, enum mirror_job_state state,
                    const struct uvm_error *failure)
{
    if (failure && failure->code == UVM_SPACE && d->stop.code == UVM_OK) {
        copy_error(&d->stop, failure); /* there will be none for the next image either */
        state = MIRROR_JOB_STOPPED;
    }
    pthread_mutex_lock(&d->mutex);
    job->state = state;
    job->fd = -1;
    if (failure)
        copy_error(&job->failure, failure);
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->mutex);
    judge_source(d, state, failure);
}

static void forget_ended(struct mirror_download *d)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->running_count; i++)
        if (d->running[i]->state == MIRROR_JOB_RUNS)
            d->running[kept++] = d->running[i];
    d->running_count = kept;
}

/* Its content is on the way for another path: they would share a partial file. */
static bool is_blocked(const struct mirror_download *d, const struct mirror_job *job)
{
    const char *content, *other;
    mirror_image_digest(job->image, &content);
    for (size_t i = 0; i < d->running_count; i++) {
        mirror_image_digest(d->running[i]->image, &other);
        if (strcmp(content, other) == 0)
            return true;
    }
    return false;
}

static struct mirror_job *next_job(struct mirror_download *d)
{
    while (d->next < d->count && d->jobs[d->next].state != MIRROR_JOB_WAITS)
        d->next++;
    for (size_t i = d->next; i < d->count; i++)
        if (d->jobs[i].state == MIRROR_JOB_WAITS && !is_blocked(d, &d->jobs[i]))
            return &d->jobs[i];
    return NULL;
}

static void begin_jobs(struct mirror_download *d)
{
    struct mirror_job *job;
    while (d->running_count < mirror_source_jobs(d->source) && d->stop.code == UVM_OK &&
           (job = next_job(d))) {
        mirror_job_begin(d, job);
        if (job->state == MIRROR_JOB_RUNS)
            d->running[d->running_count++] = job;
    }
}

/* Tells whether there is more to do than to wait for the source. */
static bool hash_jobs(struct mirror_download *d)
{
    bool busy = false;
    for (size_t i = 0; i < d->running_count; i++) {
        if (!mirror_job_is_hashing(d->running[i]))
            continue;
        mirror_job_hash(d, d->running[i]);
        busy = true;
    }
    return busy;
}

/* ---- the thread ---- */

static bool go_on(struct mirror_download *d)
{
    if (d->stop.code != UVM_OK)
        return false;
    return atomic_load(&d->cancelled) ? uvm_fail(&d->stop, UVM_INTERRUPTED, "interrupted")
                                      : uvm_go_on(d->observer, &d->stop);
}

/* What is there already need not wait for its turn. */
static void end_had(struct mirror_download *d)
{
    for (size_t i = 0; i < d->count && go_on(d); i++)
        if (mirror_tree_has(d->tree, d->jobs[i].image))
            mirror_job_end(d, &d->jobs[i], MIRROR_JOB_HAD, NULL);
}

static bool step(struct mirror_download *d, unsigned wait_ms)
{
    bool ok = mirror_source_step(d->source, wait_ms, &d->stop);
    for (size_t i = 0; i < d->running_count; i++)
        mirror_job_tell(d->running[i]);
    return ok;
}

/* False when there is nothing left to do. */
static bool work(struct mirror_download *d)
{
    forget_ended(d);
    begin_jobs(d);
    if (d->running_count == 0)
        return next_job(d) != NULL;
    bool busy = hash_jobs(d);
    mirror_verified_tick(d->tree->verified);
    return step(d, busy ? 0 : MIRROR_STEP_MS);
}

static void stop(struct mirror_download *d)
{
    mirror_source_drop(d->source);
    for (size_t i = 0; i < d->count; i++)
        if (d->jobs[i].state == MIRROR_JOB_WAITS || d->jobs[i].state == MIRROR_JOB_RUNS)
            mirror_job_stop(d, &d->jobs[i]);
}

static void *run(void *opaque)
{
    struct mirror_download *d = opaque;
    end_had(d);
    while (go_on(d) && work(d))
        ;
    stop(d);
    return NULL;
}

/* Signals are the main thread's. */
static void start_thread(struct mirror_download *d)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&d->thread, NULL, run, d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        abort();
}

/* ---- what others see ---- */

struct mirror_download *mirror_download_start(struct mirror_tree *t, struct mirror_source *source,
                                              const struct mirror_image *const *images,
                                              size_t count, const struct uvm_observer *observer)
{
    struct mirror_download *d = uvm_alloc(sizeof *d);
    d->tree = t;
    d->source = source;
    d->observer = observer;
    d->count = count;
    d->block = uvm_alloc(MIRROR_DOWNLOAD_BLOCK);
    d->jobs = uvm_grow(NULL, count + 1, sizeof *d->jobs);
    for (size_t i = 0; i < count; i++)
        d->jobs[i] = (struct mirror_job){.image = images[i], .fd = -1};
    pthread_mutex_init(&d->mutex, NULL);
    pthread_cond_init(&d->changed, NULL);
    start_thread(d);
    return d;
}

static void join(struct mirror_download *d)
{
    if (!d->joined)
        pthread_join(d->thread, NULL);
    d->joined = true;
}

bool mirror_download_wait(struct mirror_download *d, struct uvm_error *err)
{
    join(d);
    if (d->stop.code != UVM_OK)
        copy_error(err, &d->stop);
    for (size_t i = 0; i < d->count; i++) {
        const struct uvm_error *failure = &d->jobs[i].failure;
        bool told = d->stop.sys_errno == EHOSTDOWN && failure->sys_errno == EHOSTDOWN;
        if (d->jobs[i].state != MIRROR_JOB_FAILED || told)
            continue;
        if (err->code == UVM_OK)
            copy_error(err, failure);
        else
            uvm_warning(d->observer, "%s", failure->message);
    }
    return err->code == UVM_OK;
}

void mirror_download_free(struct mirror_download *d)
{
    if (!d)
        return;
    atomic_store(&d->cancelled, true);
    join(d);
    for (size_t i = 0; i < d->count; i++)
        uvm_error_clear(&d->jobs[i].failure);
    uvm_error_clear(&d->stop);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->mutex);
    free(d->jobs);
    free(d->block);
    free(d);
}

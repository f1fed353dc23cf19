/*
 * How an image gets into the mirror:
 *
 *     is there, without a record? --hash--> take it
 *                  |
 *     partial file of an earlier run --hash--.
 *                  |                         |
 *     file of the same content --copy, hash--|
 *                  |                         |
 *     source --bytes, with Range-----------> + --sums hold--> rename to the image's path
 *                  ^                         |
 *                  '--once more, from 0------'  sums wrong, and not all bytes are of one transfer
 *
 * Each step is short: the thread that takes it works on other images, too.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/download.h"
#include "mirror/partial.h"

/* What is needed while it runs. */
struct mirror_work {
    struct mirror_download *download;
    struct mirror_job *job;
    char *title; /* printable */
    char *url;
    struct mirror_partial partial;
    int found_fd;   /* a file at the image's path, which is being hashed, or -1 */
    int twin_fd;    /* a file of the same content, which is being copied, or -1 */
    bool searched;  /* for a twin */
    bool hashing;   /* what is on disk */
    bool mixed;     /* the bytes are of more than one transfer */
    bool restarted; /* since they were wrong */
};

static void work_free(struct mirror_work *w)
{
    mirror_partial_clear(&w->partial);
    uvm_close_ptr(&w->found_fd);
    uvm_close_ptr(&w->twin_fd);
    free(w->title);
    free(w->url);
    free(w);
}

static struct mirror_work *work_new(struct mirror_download *d, struct mirror_job *job)
{
    struct mirror_work *w = uvm_alloc(sizeof *w);
    uvm_auto_free char *title = mirror_image_title(job->image);
    w->download = d;
    w->job = job;
    w->title = uvm_printable(title);
    w->url = mirror_source_file_url(d->source, job->image->path);
    w->found_fd = w->twin_fd = -1;
    mirror_partial_init(&w->partial, d->tree, job->image);
    return w;
}

static void report(const struct mirror_work *w, const char *step)
{
    uvm_progress(w->download->observer, step, w->title, w->partial.sums.bytes, w->job->image->size);
}

/* ---- what readers see ---- */

static void share(const struct mirror_work *w)
{
    struct mirror_download *d = w->download;
    pthread_mutex_lock(&d->mutex);
    w->job->fd = w->partial.fd;
    w->job->bytes = w->partial.sums.bytes;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->mutex);
}

/* libcurl hands on 16 KiB at a time: too few to wake somebody for. */
void mirror_job_tell(struct mirror_job *job)
{
    const struct mirror_work *w = job->work;
    if (!w || w->hashing || w->partial.doubts || job->bytes == w->partial.sums.bytes)
        return;
    share(w);
    report(w, "download");
}

/* Before bytes that were shared are thrown away. */
static void withdraw(const struct mirror_work *w)
{
    struct mirror_download *d = w->download;
    pthread_mutex_lock(&d->mutex);
    w->job->bytes = 0;
    w->job->generation++;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->mutex);
}

/* Before the partial file is closed without success: nobody may lay hands on it any more. */
static void hide(const struct mirror_work *w)
{
    struct mirror_download *d = w->download;
    pthread_mutex_lock(&d->mutex);
    w->job->fd = -1;
    w->job->bytes = 0;
    pthread_mutex_unlock(&d->mutex);
}

/* ---- the end ---- */

static void end(struct mirror_work *w, enum mirror_job_state state, const struct uvm_error *failure)
{
    struct mirror_job *job = w->job;
    mirror_job_end(w->download, job, state, failure);
    work_free(UVM_STEAL(job->work));
}

/* Bytes that are not the signed ones are of no use to the next run. */
static void fail(struct mirror_work *w, struct uvm_error *failure)
{
    hide(w);
    if (failure->code == UVM_CONTENT)
        mirror_partial_drop(&w->partial);
    else
        mirror_partial_keep(&w->partial);
    uvm_step_failed(w->download->observer, "download", w->title);
    uvm_prefix(failure, "%s", w->title);
    end(w, MIRROR_JOB_FAILED, failure);
}

static void succeed(struct mirror_work *w)
{
    uvm_auto_free char *size = uvm_size_text(w->job->image->size);
    uvm_done(w->download->observer, "download", w->title, "%s", size);
    end(w, MIRROR_JOB_DONE, NULL);
}

/* ---- the transfer ---- */

static bool start_bytes(void *opaque, const struct mirror_answer *answer, struct uvm_error *err)
{
    struct mirror_work *w = opaque;
    const struct mirror_image *image = w->job->image;
    w->mixed = answer->offset > 0;
    if (answer->total != MIRROR_SIZE_UNKNOWN && answer->total != image->size)
        return uvm_fail(err, answer->total > image->size ? UVM_CONTENT : UVM_SOURCE,
                        "the source has %llu bytes, the stream signs %llu",
                        (unsigned long long)answer->total, (unsigned long long)image->size);
    if (answer->offset > 0)
        return true;
    if (w->partial.sums.bytes > 0) {
        withdraw(w);
        if (answer->total == MIRROR_SIZE_UNKNOWN)
            mirror_partial_doubt(&w->partial);
        else if (!mirror_partial_empty(&w->partial, err))
            return false;
    }
    mirror_partial_note(&w->partial, w->url, answer->validator);
    return true;
}

static bool take_bytes(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct mirror_work *w = opaque;
    return mirror_partial_write(&w->partial, data, len, err);
}

static void conclude(struct mirror_work *w, struct uvm_error *failure);

static void end_transfer(void *opaque, struct uvm_error *failure)
{
    struct mirror_work *w = opaque;
    uint64_t bytes = mirror_partial_bytes(&w->partial), size = w->job->image->size;
    mirror_job_tell(w->job);
    if (failure->code == UVM_OK && bytes < size)
        uvm_fail(failure, UVM_SOURCE, "%s: it ended after %llu of %llu bytes", w->url,
                 (unsigned long long)bytes, (unsigned long long)size);
    conclude(w, failure);
}

static bool check_space(const struct mirror_work *w, struct uvm_error *err)
{
    const struct mirror_tree *tree = w->download->tree;
    uint64_t free_bytes, need = w->job->image->size - w->partial.sums.bytes;
    if (!uvm_free_space(tree->dir, &free_bytes, err))
        return false;
    if (need <= free_bytes)
        return true;
    uvm_auto_free char *need_text = uvm_size_text(need);
    uvm_auto_free char *free_text = uvm_size_text(free_bytes);
    return uvm_fail(err, UVM_SPACE, "needs %s, but the mirror folder %s has only %s free",
                    need_text, tree->dir, free_text);
}

/* Everything that was on disk is hashed, and the rest is wanted. */
static void transfer(struct mirror_work *w)
{
    uvm_auto_error failure = UVM_ERROR_INIT;
    const struct mirror_image *image = w->job->image;
    uint64_t bytes = w->partial.sums.bytes;
    w->mixed = bytes > 0;
    if ((w->mixed && bytes == image->size) || !check_space(w, &failure)) {
        conclude(w, &failure);
        return;
    }
    uvm_auto_free char *validator = mirror_partial_validator(&w->partial, w->url);
    struct mirror_wanted wanted = {
        .path = image->path,
        .offset = bytes,
        .size = image->size,
        .validator = validator,
        .title = w->title,
    };
    mirror_source_begin(w->download->source, &wanted,
                        &(struct mirror_sink){start_bytes, take_bytes, w},
                        &(struct mirror_waiter){end_transfer, w}, w->download->observer);
}

/* ---- the partial file ---- */

static void open_partial(struct mirror_work *w)
{
    uvm_auto_error failure = UVM_ERROR_INIT;
    if (!mirror_partial_open(&w->partial, &failure)) {
        fail(w, &failure);
        return;
    }
    share(w);
    w->hashing = true;
}

/* Whatever there is of the image is in the partial file, or the reason why not in `failure`. */
static void conclude(struct mirror_work *w, struct uvm_error *failure)
{
    if (failure->code == UVM_OK && mirror_sums_check(&w->partial.sums, w->job->image, failure) &&
        mirror_partial_place(&w->partial, failure)) {
        succeed(w);
    } else if (failure->code == UVM_CONTENT && w->mixed && !w->restarted) {
        /* Perhaps only what was there before was wrong. */
        uvm_error_clear(failure);
        withdraw(w);
        hide(w);
        mirror_partial_drop(&w->partial);
        w->restarted = true;
        open_partial(w);
    } else {
        fail(w, failure);
    }
}

/* ---- a file that is there without a record ---- */

static bool find(struct mirror_work *w)
{
    struct stat st;
    w->found_fd = mirror_beneath_open(w->download->tree->root_fd, w->job->image->path,
                                      O_RDONLY | O_NONBLOCK, 0);
    return w->found_fd >= 0 && fstat(w->found_fd, &st) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == w->job->image->size;
}

/* It was read to its end. If it is not the image, the download will put a good one in its place. */
static bool adopt(struct mirror_work *w)
{
    uvm_auto_error why = UVM_ERROR_INIT;
    const struct mirror_image *image = w->job->image;
    struct mirror_sums *sums = &w->partial.sums;
    struct stat st;
    if (!mirror_sums_check(sums, image, &why) || fsync(w->found_fd) < 0 ||
        fstat(w->found_fd, &st) < 0)
        return false;
    mirror_verified_set(w->download->tree->verified, image->path, &st, sums->sha256_hex,
                        image->sha512 ? sums->sha512_hex : NULL, MIRROR_ON_DISK);
    uvm_done(w->download->observer, "verify", w->title, "already in the mirror");
    return true;
}

static void end_finding(struct mirror_work *w, bool readable)
{
    if (readable && adopt(w)) {
        end(w, MIRROR_JOB_DONE, NULL);
        return;
    }
    uvm_close_ptr(&w->found_fd);
    open_partial(w);
}

/* ---- hashing what is on disk ---- */

/* The next bytes from a file of the same content, once: when they are wrong, the source is asked. */
static bool copy_some(struct mirror_work *w)
{
    uvm_auto_error no_space = UVM_ERROR_INIT;
    if (!w->searched && check_space(w, &no_space))
        w->twin_fd = mirror_partial_twin(&w->partial);
    w->searched = true;
    if (w->twin_fd >= 0 && mirror_partial_copy(&w->partial, w->twin_fd, MIRROR_DOWNLOAD_BLOCK))
        return true;
    uvm_close_ptr(&w->twin_fd);
    return false;
}

bool mirror_job_is_hashing(const struct mirror_job *job)
{
    return job->work && job->work->hashing;
}

void mirror_job_hash(struct mirror_download *d, struct mirror_job *job)
{
    struct mirror_work *w = job->work;
    uvm_auto_error failure = UVM_ERROR_INIT;
    bool found = w->found_fd >= 0;
    size_t len = 0;
    bool ok = uvm_read_some(found ? w->found_fd : w->partial.fd, d->block, MIRROR_DOWNLOAD_BLOCK,
                            &len, &failure);
    if (ok && len > 0) {
        mirror_sums_add(&w->partial.sums, d->block, len);
        if (!found)
            share(w);
        report(w, "verify");
        return;
    }
    if (ok && !found && copy_some(w))
        return;
    w->hashing = false;
    if (found)
        end_finding(w, ok);
    else if (ok)
        transfer(w);
    else
        fail(w, &failure);
}

/* ---- from outside ---- */

void mirror_job_begin(struct mirror_download *d, struct mirror_job *job)
{
    if (mirror_tree_has(d->tree, job->image)) { /* since an image of the same path has ended */
        mirror_job_end(d, job, MIRROR_JOB_HAD, NULL);
        return;
    }
    struct mirror_work *w = job->work = work_new(d, job);
    pthread_mutex_lock(&d->mutex);
    job->state = MIRROR_JOB_RUNS;
    pthread_mutex_unlock(&d->mutex);
    if (find(w)) {
        posix_fadvise(w->found_fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        mirror_sums_start(&w->partial.sums, job->image);
        w->hashing = true;
    } else {
        end_finding(w, false);
    }
}

void mirror_job_stop(struct mirror_download *d, struct mirror_job *job)
{
    struct mirror_work *w = job->work;
    if (!w) {
        mirror_job_end(d, job, MIRROR_JOB_STOPPED, &d->stop);
        return;
    }
    hide(w);
    mirror_partial_keep(&w->partial);
    end(w, MIRROR_JOB_STOPPED, &d->stop);
}

/*
 * A reader that follows a download: it reads the partial file as far as it is written and hashed,
 * and waits for more.
 *
 *     waits --> runs: partial file, its bytes grow --> done: the end, if all of them were seen
 *       |                  '--> another generation: the bytes that were seen do not count
 *       '--> had, done: read from the tree
 *
 * Nothing but the download's thread ends a wait. It ends every job, whatever happens.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/download.h"
#include "mirror/reader.h"

struct follower {
    struct mirror_reader base;
    struct mirror_download *download;
    struct mirror_job *job;
    struct mirror_reader *file; /* reads from the tree, when the image was there at once */
    int fd;                     /* of the partial file; it keeps it also under its final name */
    unsigned generation;
    uint64_t done;
    char block[MIRROR_DOWNLOAD_BLOCK];
};

/* What is known of the job, at one moment. */
struct view {
    enum mirror_job_state state;
    uint64_t bytes;
};

static bool has_news(const struct follower *f)
{
    const struct mirror_job *job = f->job;
    return (job->state != MIRROR_JOB_WAITS && job->state != MIRROR_JOB_RUNS) ||
           job->bytes > f->done || (f->done > 0 && job->generation != f->generation);
}

static bool fail_as_job(const struct mirror_job *job, struct uvm_error *err)
{
    uvm_fail(err, job->failure.code, "%s", job->failure.message);
    err->sys_errno = job->failure.sys_errno;
    return false;
}

/* Lays hands on the partial file, as long as it is known by that name. */
static bool hold_file(struct follower *f, struct uvm_error *err)
{
    if (f->job->fd < 0 || (f->fd >= 0 && f->generation == f->job->generation))
        return true;
    uvm_close_ptr(&f->fd);
    f->fd = fcntl(f->job->fd, F_DUPFD_CLOEXEC, 0);
    f->generation = f->job->generation;
    return f->fd >= 0 || uvm_fail_errno(err, UVM_FAILED, "cannot follow the download");
}

static bool look(struct follower *f, struct view *ret, struct uvm_error *err)
{
    const struct mirror_job *job = f->job;
    *ret = (struct view){job->state, job->bytes};
    if (job->state == MIRROR_JOB_FAILED || job->state == MIRROR_JOB_STOPPED)
        return fail_as_job(job, err);
    if (f->done > 0 && job->generation != f->generation)
        return uvm_fail(err, UVM_CONTENT,
                        "%s: the source began to serve another file while it was read",
                        job->image->path);
    return hold_file(f, err);
}

static bool wait_for_news(struct follower *f, struct view *ret, struct uvm_error *err)
{
    struct mirror_download *d = f->download;
    pthread_mutex_lock(&d->mutex);
    while (!has_news(f))
        pthread_cond_wait(&d->changed, &d->mutex);
    bool ok = look(f, ret, err);
    pthread_mutex_unlock(&d->mutex);
    return ok;
}

/* ---- reading ---- */

static bool read_partial(struct follower *f, uint64_t bytes, size_t *ret_len, struct uvm_error *err)
{
    uint64_t left = bytes - f->done;
    size_t want = left < sizeof f->block ? (size_t)left : sizeof f->block;
    ssize_t n;
    do
        n = pread(f->fd, f->block, want, (off_t)f->done);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot read %s", f->job->image->path);
    f->done += (uint64_t)n;
    *ret_len = (size_t)n;
    return true;
}

static bool open_in_tree(struct follower *f, enum mirror_job_state state, struct uvm_error *err)
{
    const struct mirror_tree *tree = f->download->tree;
    const struct mirror_image *image = f->job->image;
    return state == MIRROR_JOB_HAD ? mirror_tree_read(tree, image, &f->file, err)
                                   : mirror_reader_open_known(tree, image, &f->file, err);
}

/* Bytes are withdrawn before they go away. */
static bool check_withdrawn(const struct follower *f, struct uvm_error *err)
{
    struct mirror_download *d = f->download;
    pthread_mutex_lock(&d->mutex);
    bool withdrawn = f->job->generation != f->generation;
    pthread_mutex_unlock(&d->mutex);
    return withdrawn || uvm_fail(err, UVM_CONTENT, "%s: its partial file was cut off by others",
                                 f->job->image->path);
}

/* Comes to bytes, to the end, or to a file of the tree that has it all. */
static bool advance(struct follower *f, size_t *ret_len, bool *ret_end, struct uvm_error *err)
{
    struct view view;
    if (!uvm_go_on(f->download->observer, err) || !wait_for_news(f, &view, err))
        return false;
    if (view.state != MIRROR_JOB_RUNS && f->done == 0)
        return open_in_tree(f, view.state, err);
    *ret_end = view.bytes == f->done;
    if (*ret_end)
        return mirror_reader_check_known(f->download->tree, f->job->image, f->fd, err);
    return read_partial(f, view.bytes, ret_len, err) && (*ret_len > 0 || check_withdrawn(f, err));
}

static bool follow(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct follower *f = opaque;
    size_t len = 0;
    bool end = false;
    while (!f->file && len == 0 && !end)
        if (!advance(f, &len, &end, err))
            return false;
    if (f->file)
        return f->file->read(f->file, ret_data, ret_len, err);
    *ret_data = f->block;
    *ret_len = len;
    return true;
}

static void free_follower(struct mirror_reader *base)
{
    struct follower *f = (struct follower *)base;
    mirror_reader_free(f->file);
    uvm_close_ptr(&f->fd);
    free(f);
}

static struct mirror_job *find_job(struct mirror_download *d, const struct mirror_image *image)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->jobs[i].image == image)
            return &d->jobs[i];
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->jobs[i].image->path, image->path) == 0)
            return &d->jobs[i];
    return NULL;
}

bool mirror_download_read(struct mirror_download *d, const struct mirror_image *image,
                          struct mirror_reader **ret_reader, struct uvm_error *err)
{
    struct mirror_job *job = find_job(d, image);
    if (!job)
        return mirror_tree_read(d->tree, image, ret_reader, err);
    struct follower *f = uvm_alloc(sizeof *f);
    f->base = (struct mirror_reader){follow, free_follower};
    f->download = d;
    f->job = job;
    f->fd = -1;
    *ret_reader = &f->base;
    return true;
}

/*
 * download.h: the inside of a download.
 *
 * Its thread (download.c) works on some of the images at a time (job.c), and readers in other
 * threads follow them (follow.c). What they share is in `struct mirror_job`, under the mutex.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "mirror/source.h"
#include "mirror/tree.h"

enum mirror_job_state {
    MIRROR_JOB_WAITS,
    MIRROR_JOB_RUNS,
    MIRROR_JOB_HAD,     /* the tree had it before */
    MIRROR_JOB_DONE,    /* it is in the tree, and this download has hashed it */
    MIRROR_JOB_FAILED,  /* `failure` says why */
    MIRROR_JOB_STOPPED, /* by what ended all; `failure` says what */
};

struct mirror_work;

/* One image. Only the download's thread changes anything of it. */
struct mirror_job {
    const struct mirror_image *image;
    struct mirror_work *work; /* while it runs; of the download's thread alone */
    /* Under the mutex: */
    enum mirror_job_state state;
    struct uvm_error failure;
    int fd;              /* of the partial file while it runs, -1 when there is none yet */
    uint64_t bytes;      /* of it that are written and hashed */
    unsigned generation; /* how often bytes that were there were thrown away */
};

struct mirror_download {
    struct mirror_tree *tree;
    struct mirror_source *source;
    const struct uvm_observer *observer;
    struct mirror_job *jobs;
    size_t count;
    size_t next; /* all jobs before it have begun */
    struct mirror_job *running[MIRROR_JOBS_MAX];
    size_t running_count;
    size_t down;           /* images in a row, the last ones, for which there was no server */
    char *block;           /* for what is read and hashed */
    struct uvm_error stop; /* what ended all of it */
    atomic_bool cancelled;
    pthread_t thread;
    bool joined;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* some job's shared part */
};
#define MIRROR_DOWNLOAD_BLOCK ((size_t)512 << 10)
#define MIRROR_DOWNLOAD_DOWN  4 /* so many, and one for each job: the others would fail as well */

/* ---- job.c: one image; called by the download's thread ---- */

/* Begins to work on an image, which is no longer waiting then. */
void mirror_job_begin(struct mirror_download *d, struct mirror_job *job);

/* Hashes another block of what is on disk already, if that is what it is at. */
bool mirror_job_is_hashing(const struct mirror_job *job);
void mirror_job_hash(struct mirror_download *d, struct mirror_job *job);

/* Tells readers and the observer about bytes that have come. */
void mirror_job_tell(struct mirror_job *job);

/* Ends it for the reason that ends all; what was downloaded stays. Its transfer must be gone. */
void mirror_job_stop(struct mirror_download *d, struct mirror_job *job);

/* ---- download.c ---- */

/* Ends a job. A failure is copied; NULL for none. No space ends all jobs. */
void mirror_job_end(struct mirror_download *d, struct mirror_job *job, enum mirror_job_state state,
                    const struct uvm_error *failure);

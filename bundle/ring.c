/*
 * Decoding ahead: one thread reads and inflates into a ring of blocks, while the caller takes the
 * tar apart and hashes; a second one does so for the content of a compact payload.
 *
 *        thread                             caller
 *     fills blocks[made % BLOCKS]  -->  reads blocks[taken % BLOCKS]
 *        waits while the ring is full       waits while it is empty
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "bundle/internal.h"

#define BLOCKS 8
#define WAIT_INTERVAL_MS                                                                           \
    200 /* how long a stalled source may keep the caller from noticing a stop */

struct bundle_ring {
    struct bundle_filler filler; /* the thread's alone, between its start and its end */
    struct bundle_unzstd *u;     /* the same, where a frame is decoded */
    enum bundle_ending ending;
    bool begun;
    bool *quit;
    const struct uvm_observer *observer;
    char *memory;
    pthread_t thread;

    pthread_mutex_t lock; /* guards all that follows */
    pthread_cond_t changed;
    size_t lens[BLOCKS];
    uint64_t made, taken;
    bool holding; /* the caller still reads block `taken` */
    bool ended;   /* nothing will be made any more, for better or worse */
    struct uvm_error failure;
};

/* ---- the thread ---- */

/* False when the caller wants no more. */
static bool wait_for_room(struct bundle_ring *ring)
{
    pthread_mutex_lock(&ring->lock);
    while (ring->made - ring->taken == BLOCKS && !__atomic_load_n(ring->quit, __ATOMIC_RELAXED))
        pthread_cond_wait(&ring->changed, &ring->lock);
    bool wanted = !__atomic_load_n(ring->quit, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&ring->lock);
    return wanted;
}

static void hand_over(struct bundle_ring *ring, size_t len)
{
    pthread_mutex_lock(&ring->lock);
    ring->lens[ring->made % BLOCKS] = len;
    ring->made++;
    pthread_cond_signal(&ring->changed);
    pthread_mutex_unlock(&ring->lock);
}

static void end(struct bundle_ring *ring, struct uvm_error *failure)
{
    pthread_mutex_lock(&ring->lock);
    ring->failure = *failure;
    ring->ended = true;
    pthread_cond_signal(&ring->changed);
    pthread_mutex_unlock(&ring->lock);
}

static bool fill_from_frame(void *opaque, void *block, size_t *ret_len, struct uvm_error *err)
{
    struct bundle_ring *ring = opaque;
    if (!ring->begun && !bundle_unzstd_begin(ring->u, err))
        return false;
    ring->begun = true;
    if (!bundle_unzstd_read(ring->u, block, BUNDLE_RING_BLOCK, ret_len, err))
        return false;
    return *ret_len > 0 || bundle_unzstd_end(ring->u, ring->ending, err);
}

static bool fill_all(struct bundle_ring *ring, struct uvm_error *err)
{
    while (wait_for_room(ring)) {
        size_t len = 0;
        /* Only this thread changes `made`. */
        char *block = ring->memory + (ring->made % BLOCKS) * BUNDLE_RING_BLOCK;
        if (!ring->filler.fill(ring->filler.opaque, block, &len, err))
            return false;
        if (len == 0)
            return true;
        hand_over(ring, len);
    }
    return uvm_fail(err, UVM_INTERRUPTED, "reading was stopped");
}

static void *run(void *opaque)
{
    struct bundle_ring *ring = opaque;
    struct uvm_error err = UVM_ERROR_INIT;
    fill_all(ring, &err);
    end(ring, &err);
    return NULL;
}

/* ---- the caller ---- */

/* Signals are for the main thread: its handler sets the flag that everybody looks at. */
static int start_thread(struct bundle_ring *ring)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&ring->thread, NULL, run, ring);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static void init_locks(struct bundle_ring *ring)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&ring->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&ring->lock, NULL);
}

static void release(struct bundle_ring *ring)
{
    pthread_cond_destroy(&ring->changed);
    pthread_mutex_destroy(&ring->lock);
    uvm_error_clear(&ring->failure);
    free(ring->memory);
    free(ring);
}

static struct bundle_ring *make(bool *quit, const struct uvm_observer *observer)
{
    struct bundle_ring *ring = uvm_alloc(sizeof *ring);
    ring->quit = quit;
    ring->observer = observer;
    ring->memory = uvm_alloc(BLOCKS * BUNDLE_RING_BLOCK);
    init_locks(ring);
    return ring;
}

/* Takes the ring over. */
static bool start(struct bundle_ring *ring, struct bundle_ring **ret_ring, struct uvm_error *err)
{
    int rc = start_thread(ring);
    if (rc != 0) {
        release(ring);
        return uvm_fail(err, UVM_FAILED, "cannot start a thread: %s", strerror(rc));
    }
    *ret_ring = ring;
    return true;
}

bool bundle_ring_start(struct bundle_filler filler, bool *quit, const struct uvm_observer *observer,
                       struct bundle_ring **ret_ring, struct uvm_error *err)
{
    struct bundle_ring *ring = make(quit, observer);
    ring->filler = filler;
    return start(ring, ret_ring, err);
}

bool bundle_ring_new(struct bundle_unzstd *u, enum bundle_ending ending, bool *quit,
                     const struct uvm_observer *observer, struct bundle_ring **ret_ring,
                     struct uvm_error *err)
{
    struct bundle_ring *ring = make(quit, observer);
    ring->filler = (struct bundle_filler){fill_from_frame, ring};
    ring->u = u;
    ring->ending = ending;
    return start(ring, ret_ring, err);
}

void bundle_ring_free(struct bundle_ring *ring)
{
    if (!ring)
        return;
    pthread_mutex_lock(&ring->lock);
    __atomic_store_n(ring->quit, true, __ATOMIC_RELAXED);
    pthread_cond_signal(&ring->changed);
    pthread_mutex_unlock(&ring->lock);
    pthread_join(ring->thread, NULL);
    release(ring);
}

/* Waits a moment; the lock is held. */
static void wait_a_little(struct bundle_ring *ring)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_INTERVAL_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&ring->changed, &ring->lock, &until);
}

/* Gives back the block that the caller held, and waits for the next one or the end. */
static bool wait_for_block(struct bundle_ring *ring, struct uvm_error *err)
{
    if (ring->holding) {
        ring->taken++;
        ring->holding = false;
        pthread_cond_signal(&ring->changed);
    }
    while (ring->made == ring->taken && !ring->ended) {
        if (!uvm_go_on(ring->observer, err))
            return false;
        wait_a_little(ring);
    }
    return true;
}

static bool take(struct bundle_ring *ring, const void **ret_data, size_t *ret_len,
                 struct uvm_error *err)
{
    if (!wait_for_block(ring, err))
        return false;
    if (ring->made > ring->taken) {
        size_t index = ring->taken % BLOCKS;
        ring->holding = true;
        *ret_data = ring->memory + index * BUNDLE_RING_BLOCK;
        *ret_len = ring->lens[index];
        return true;
    }
    if (ring->failure.code != UVM_OK)
        return uvm_fail(err, ring->failure.code, "%s", ring->failure.message);
    *ret_len = 0;
    return true;
}

bool bundle_ring_next(struct bundle_ring *ring, const void **ret_data, size_t *ret_len,
                      struct uvm_error *err)
{
    if (!uvm_go_on(ring->observer, err))
        return false;
    pthread_mutex_lock(&ring->lock);
    bool ok = take(ring, ret_data, ret_len, err);
    pthread_mutex_unlock(&ring->lock);
    return ok;
}

/*
 * spool.c: files that wait in the state folder, without a name: an image until it is verified, a
 * volume that was fetched from the pool. They are gone with the process.
 */
#include "pool/import.h"

#include <inttypes.h>
#include <unistd.h>

#define ZEROS ((size_t)64 << 10)

bool pool_spool_new(const struct pool *p, uint64_t need, int *ret_fd, struct uvm_error *err)
{
    return pool_space_in_state(p, need, err) && uvm_nameless_file(p->state_dir, ret_fd, err);
}

static bool write_part(const struct pool *p, int fd, const void *data, size_t len,
                       struct uvm_error *err)
{
    return uvm_write_all(fd, data, len, err) || uvm_prefix(err, "folder %s", p->state_dir);
}

/* ---- an image -------------------------------------------------------------------------------- */

static bool fill(const struct pool *p, int fd, struct uvm_reader data, uint64_t size,
                 struct uvm_error *err)
{
    uint64_t done = 0;
    for (;;) {
        const void *block = NULL;
        size_t len = 0;
        if (!uvm_go_on(p->observer, err) || !data.read(data.opaque, &block, &len, err))
            return false;
        if (len == 0)
            break;
        if (len > size - done)
            return uvm_fail(err, UVM_CONTENT, "more than %" PRIu64 " bytes came", size);
        if (!write_part(p, fd, block, len, err))
            return false;
        done += len;
    }
    return done == size ||
           uvm_fail(err, UVM_CONTENT, "%" PRIu64 " bytes came instead of %" PRIu64, done, size);
}

bool pool_spool_image(const struct pool *p, struct uvm_reader data, uint64_t size, int *ret_fd,
                      struct uvm_error *err)
{
    uvm_auto_fd fd = -1;
    if (!pool_spool_new(p, size, &fd, err) || !fill(p, fd, data, size, err))
        return false;
    *ret_fd = uvm_steal_fd(&fd);
    return true;
}

/* ---- a volume -------------------------------------------------------------------------------- */

struct fetching {
    const struct pool *pool;
    const struct pool_spool_volume *volume;
    int fd;
    uint64_t seen, total; /* bytes; `total` is what it takes on its disk, about */
    uint64_t size;        /* of the file so far, holes counted */
};

static bool take_data(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct fetching *f = opaque;
    if (f->volume->digest)
        uvm_digest_update(f->volume->digest, data, len);
    f->seen += len;
    f->size += len;
    uvm_progress(f->pool->observer, f->volume->step, f->volume->subject, f->seen, f->total);
    return uvm_go_on(f->pool->observer, err) && write_part(f->pool, f->fd, data, len, err);
}

static bool take_hole(void *opaque, uint64_t hole, struct uvm_error *err)
{
    static const char zeros[ZEROS];
    struct fetching *f = opaque;
    f->size += hole;
    for (uint64_t left = f->volume->digest ? hole : 0; left > 0;) {
        size_t part = left < ZEROS ? (size_t)left : ZEROS;
        if (!uvm_go_on(f->pool->observer, err))
            return false;
        uvm_digest_update(f->volume->digest, zeros, part);
        left -= part;
    }
    return lseek(f->fd, (off_t)hole, SEEK_CUR) >= 0 ||
           uvm_fail_errno(err, UVM_FAILED, "folder %s", f->pool->state_dir);
}

/* The last thing in it may be a hole. */
static bool end_file(const struct fetching *f, struct uvm_error *err)
{
    return ftruncate(f->fd, (off_t)f->size) == 0 ||
           uvm_fail_errno(err, UVM_FAILED, "folder %s", f->pool->state_dir);
}

bool pool_spool_volume(const struct pool *p, const struct pool_spool_volume *volume, int *ret_fd,
                       uint64_t *ret_size, struct uvm_error *err)
{
    pool_auto_volume there = {0};
    uvm_auto_fd fd = -1;
    bool found = false;
    if (!pool_volume_find(p->store, volume->name, &found, &there, err))
        return false;
    if (!found) {
        *ret_fd = -1;
        return true;
    }
    if (!pool_spool_new(p, there.allocation, &fd, err))
        return false;
    struct fetching f = {.pool = p, .volume = volume, .fd = fd, .total = there.allocation};
    const struct pool_sink sink = {take_data, take_hole, &f};
    if (!pool_volume_read(p->store, volume->name, &sink, err) || !end_file(&f, err))
        return false;
    *ret_size = f.size;
    *ret_fd = uvm_steal_fd(&fd);
    return true;
}

bool pool_fetch_volume(struct pool *p, const char *product, const char *version, int *ret_fd,
                       uint64_t *ret_size, struct uvm_error *err)
{
    uvm_auto_free char *name = pool_volume_name(product, version);
    uvm_auto_free char *subject = uvm_format("%s %s", product, version);
    const struct pool_spool_volume volume = {name, "read", subject, NULL};
    if (!pool_spool_volume(p, &volume, ret_fd, ret_size, err))
        return uvm_prefix(err, "read volume %s", subject);
    if (*ret_fd >= 0)
        uvm_done(p->observer, "read", subject, "from pool %s", p->store->name);
    return true;
}

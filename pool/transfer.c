/*
 * transfer.c: a volume's bytes, on their way into it and out of it.
 */
#include "pool/libvirt.h"

#include "pool/virt.h"

#include <inttypes.h>

#define SEND_SIZE    ((size_t)128 << 10) /* what a local socket takes at once; more is slower */
#define RECEIVE_SIZE ((size_t)1 << 20)
#define AT_HOLE      (-3) /* what virStreamRecvFlags() returns there */

/* ---- uploading ------------------------------------------------------------------------------- */

struct pool_upload {
    struct pool_store *store; /* borrowed */
    char *name;
    virStorageVolPtr volume;
    virStreamPtr stream;
    uint64_t length, sent;
    bool finished;
};

void pool_upload_free(struct pool_upload *u)
{
    if (!u)
        return;
    if (u->stream) {
        if (!u->finished)
            virStreamAbort(u->stream);
        virStreamFree(u->stream);
    }
    if (u->volume)
        virStorageVolFree(u->volume);
    free(u->name);
    free(u);
}

bool pool_upload_begin(struct pool_store *s, const char *name, uint64_t offset, uint64_t length,
                       struct pool_upload **ret_upload, struct uvm_error *err)
{
    UVM_AUTO(pool_upload_free) struct pool_upload *u = uvm_alloc(sizeof(*u));
    u->store = s;
    u->name = uvm_strdup(name);
    u->length = length;
    u->finished = true; /* nothing to abort yet */
    if (!pool_virt_volume(s, name, &u->volume, err))
        return false;
    if (!u->volume)
        return uvm_fail(err, UVM_LIBVIRT, "volume %s in pool %s is gone", name, s->name);
    u->stream = virStreamNew(s->virt->conn, 0);
    if (!u->stream || virStorageVolUpload(u->volume, u->stream, offset, length, 0) != 0)
        return pool_virt_fail(err, "upload to volume %s in pool %s", name, s->name);
    u->finished = false;
    *ret_upload = UVM_STEAL(u);
    return true;
}

bool pool_upload_send(struct pool_upload *u, const void *data, size_t len, struct uvm_error *err)
{
    const char *p = data;
    if (len > u->length - u->sent)
        return uvm_fail(err, UVM_CONTENT, "upload to volume %s: more than %" PRIu64 " bytes",
                        u->name, u->length);
    while (len > 0) {
        int sent = virStreamSend(u->stream, p, len < SEND_SIZE ? len : SEND_SIZE);
        if (sent <= 0) {
            /* libvirt ends a stream that failed by itself. */
            u->finished = true;
            return pool_virt_fail(err, "upload to volume %s in pool %s", u->name, u->store->name);
        }
        p += sent;
        len -= (size_t)sent;
        u->sent += (uint64_t)sent;
    }
    return true;
}

bool pool_upload_finish(struct pool_upload *u, struct uvm_error *err)
{
    if (u->sent != u->length)
        return uvm_fail(err, UVM_CONTENT,
                        "upload to volume %s: %" PRIu64 " bytes came instead of %" PRIu64, u->name,
                        u->sent, u->length);
    u->finished = true;
    if (virStreamFinish(u->stream) != 0)
        return pool_virt_fail(err, "upload to volume %s in pool %s", u->name, u->store->name);

    bool found = false;
    if (!pool_volume_find(u->store, u->name, &found, NULL, err))
        return false;
    if (!found)
        return uvm_fail(err, UVM_LIBVIRT, "volume %s in pool %s was deleted during the upload",
                        u->name, u->store->name);
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void stream_free(virStreamPtr *stream)
{
    if (*stream)
        virStreamFree(*stream);
}

static void volume_free(virStorageVolPtr *volume)
{
    if (*volume)
        virStorageVolFree(*volume);
}

/* One block, or one hole. *ret_end at the end. */
static bool receive(virStreamPtr stream, void *block, const struct pool_sink *sink, bool *ret_end,
                    struct uvm_error *err)
{
    long long hole = 0;
    int got = virStreamRecvFlags(stream, block, RECEIVE_SIZE, VIR_STREAM_RECV_STOP_AT_HOLE);
    *ret_end = got == 0;
    if (got > 0)
        return sink->data(sink->opaque, block, (size_t)got, err);
    if (got == AT_HOLE && virStreamRecvHole(stream, &hole, 0) == 0)
        return sink->hole(sink->opaque, (uint64_t)hole, err);
    return got == 0 || pool_virt_fail(err, "download");
}

static bool receive_all(virStreamPtr stream, const struct pool_sink *sink, struct uvm_error *err)
{
    uvm_auto_free void *block = uvm_alloc(RECEIVE_SIZE);
    for (bool end = false; !end;) {
        if (!receive(stream, block, sink, &end, err)) {
            virStreamAbort(stream);
            return false;
        }
    }
    return virStreamFinish(stream) == 0 || pool_virt_fail(err, "download");
}

bool pool_volume_read(struct pool_store *s, const char *name, const struct pool_sink *sink,
                      struct uvm_error *err)
{
    __attribute__((cleanup(volume_free))) virStorageVolPtr volume = NULL;
    __attribute__((cleanup(stream_free))) virStreamPtr stream = NULL;
    if (!pool_virt_volume(s, name, &volume, err))
        return false;
    if (!volume)
        return uvm_fail(err, UVM_LIBVIRT, "volume %s in pool %s is gone", name, s->name);
    stream = virStreamNew(s->virt->conn, 0);
    if (!stream ||
        virStorageVolDownload(volume, stream, 0, 0, VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM) != 0)
        return pool_virt_fail(err, "download of volume %s in pool %s", name, s->name);
    return receive_all(stream, sink, err) || uvm_prefix(err, "volume %s", name);
}

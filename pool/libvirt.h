/*
 * libvirt.h: the thin layer over libvirt. Only the files behind it (see virt.h) know libvirt's own
 * header.
 *
 * Errors carry libvirt's own text; their code is UVM_LIBVIRT, or UVM_SPACE when the daemon ran out
 * of space; their sys_errno is ENOENT when a pool or domain that was known does not exist any more.
 * What comes from the daemon is XML that other programs wrote: it is made printable
 * before it gets into a message.
 */
#pragma once

#include "mirror/base/base.h"

/* ---- connection (connect.c, call.c) ---------------------------------------------------------- */

struct pool_virt;

/* Connects, and silences libvirt's own printing. A daemon on another host is refused: chains are
 * read from the files themselves. A daemon that stops answering ends the connection, and with it
 * every call, after half a minute at most. `observer` asks calls to stop, see pool_virt_call. */
bool pool_virt_open(const char *uri, const struct uvm_observer *observer,
                    struct pool_virt **ret_virt, struct uvm_error *err);
/* Another connection to the daemon of `v`, for who has to end what he began and got no answer on that
 * one. A short try: it and calls over it are given up sooner. */
bool pool_virt_open_again(const struct pool_virt *v, struct pool_virt **ret_virt,
                          struct uvm_error *err);
void pool_virt_free(struct pool_virt *v);
UVM_DEFINE_AUTO(struct pool_virt *, pool_virt_free)

/* Whether there is still somebody to ask. */
bool pool_virt_alive(struct pool_virt *v);
/* Whether it is worth asking: there is, and no call was left hanging. */
bool pool_virt_answers(struct pool_virt *v);

/* Runs `func` in a thread of its own and waits for it. A daemon may be alive, and its answer not
 * come all the same: UVM_LIBVIRT when `func` gave no sign of life (pool_virt_beat) for a minute (15
 * seconds over a connection that was opened again); UVM_INTERRUPTED when it gave none for ten seconds,
 * and the run was asked to stop. The connection is stuck then: `func` may still run, so `arg` and all
 * that it uses must be left to it, and nothing else can be asked. */
bool pool_virt_call(struct pool_virt *v, bool (*func)(void *arg, struct uvm_error *err), void *arg,
                    struct uvm_error *err);
bool pool_virt_is_stuck(const struct pool_virt *v);
void pool_virt_beat(struct pool_virt *v);

/* ---- events (watch.c) ------------------------------------------------------------------------ */

/* Begins to count what may make a file needed: guests that are defined, started or get other disks,
 * pools that come and go. */
bool pool_watch_begin(struct pool_virt *v, struct uvm_error *err);
/* How many of these there were up to now, as far as the daemon has told; one more each time it
 * cannot be asked. */
size_t pool_watch_changes(struct pool_virt *v);

/* ---- storage pools --------------------------------------------------------------------------- */

struct pool_store {
    struct pool_virt *virt;         /* borrowed */
    struct _virStoragePool *handle; /* owned */
    char *name;
    char *uuid;
    char *type; /* "dir", "fs", "logical", ... */
    char *path; /* of its target; NULL when it has none */
    bool active;
};
void pool_store_free(struct pool_store *s);
UVM_DEFINE_AUTO(struct pool_store *, pool_store_free)

struct pool_stores {
    struct pool_store **items;
    size_t count;
};
void pool_stores_clear(struct pool_stores *s);
#define pool_auto_stores __attribute__((cleanup(pool_stores_clear))) struct pool_stores

/* Finds a pool by name; *ret_store is NULL when there is none. */
bool pool_store_find(struct pool_virt *v, const char *name, struct pool_store **ret_store,
                     struct uvm_error *err);
/* Every pool, active or not, that does not go away meanwhile. */
bool pool_stores_list(struct pool_virt *v, struct pool_stores *ret_stores, struct uvm_error *err);

/* A pool whose volumes are files of one folder: "dir", "fs", "netfs". */
bool pool_store_is_folder(const struct pool_store *s);

/* Defines a pool on a folder that is there. */
bool pool_store_define(struct pool_virt *v, const char *name, const char *path,
                       struct pool_store **ret_store, struct uvm_error *err);
/* Starts a pool. Its folder is left as it is. */
bool pool_store_start(struct pool_store *s, struct uvm_error *err);
bool pool_store_autostart(struct pool_store *s, struct uvm_error *err);
bool pool_store_starts_itself(struct pool_store *s, bool *ret_starts, struct uvm_error *err);

/* Makes libvirt look into the folder again. Refused while another program has a volume cloned. */
bool pool_store_refresh(struct pool_store *s, struct uvm_error *err);
/* The same, but waits for the end of that: POOL_CLONE_WAIT seconds, or until the run is asked to stop
 * and POOL_GRACE seconds are over. */
#define POOL_CLONE_WAIT 600
#define POOL_GRACE      5
bool pool_store_settle(struct pool_store *s, const struct uvm_observer *observer,
                       struct uvm_error *err);
/* Bytes free on the pool's file system. */
bool pool_store_available(struct pool_store *s, uint64_t *ret_bytes, struct uvm_error *err);

/* ---- volumes --------------------------------------------------------------------------------- */

struct pool_volume {
    char *name;
    char *path;          /* NULL when it is no local path */
    uint64_t capacity;   /* 0 in a brief list */
    uint64_t allocation; /* 0 in a brief list */
};
void pool_volume_clear(struct pool_volume *v);
#define pool_auto_volume __attribute__((cleanup(pool_volume_clear))) struct pool_volume

struct pool_volumes {
    struct pool_volume *items;
    size_t count;
};
void pool_volumes_clear(struct pool_volumes *v);
#define pool_auto_volumes __attribute__((cleanup(pool_volumes_clear))) struct pool_volumes

/* Names and paths of a pool's volumes; `detail` costs a call to the daemon per volume. */
enum pool_detail { POOL_BRIEF, POOL_SIZES };
bool pool_volumes_list(struct pool_store *s, enum pool_detail detail,
                       struct pool_volumes *ret_volumes, struct uvm_error *err);

/* Looks one volume up; *ret_found says whether it is there. `ret_volume` may be NULL. */
bool pool_volume_find(struct pool_store *s, const char *name, bool *ret_found,
                      struct pool_volume *ret_volume, struct uvm_error *err);

/* Makes an empty raw volume. *ret_exists is set when it failed because the name is taken. */
bool pool_volume_create(struct pool_store *s, const char *name, uint64_t capacity, bool *ret_exists,
                        struct uvm_error *err);

/* Deletes a volume; absence is success. While the daemon still works on it (an upload that was just
 * broken off, another program's clone of it) deletion is refused: POOL_WAIT waits for that as
 * pool_store_settle does, and is for volumes of ours alone: by the time the wait is over, another
 * program's may be in use. */
enum pool_patience { POOL_AT_ONCE, POOL_WAIT };
bool pool_volume_delete(struct pool_store *s, const char *name, enum pool_patience patience,
                        const struct uvm_observer *observer, struct uvm_error *err);

/* Sends bytes into a volume. */
struct pool_upload;
bool pool_upload_begin(struct pool_store *s, const char *name, uint64_t offset, uint64_t length,
                       struct pool_upload **ret_upload, struct uvm_error *err);
bool pool_upload_send(struct pool_upload *u, const void *data, size_t len, struct uvm_error *err);
/* Ends an upload. libvirt accepts too few bytes, and a volume that went away meanwhile: the bytes
 * are counted, and the volume is looked up again. */
bool pool_upload_finish(struct pool_upload *u, struct uvm_error *err);
/* Aborts the upload when it was not finished. */
void pool_upload_free(struct pool_upload *u);
UVM_DEFINE_AUTO(struct pool_upload *, pool_upload_free)

/* Where the bytes of a volume go to, front to back. Returning false with an error ends it. */
struct pool_sink {
    bool (*data)(void *opaque, const void *data, size_t len, struct uvm_error *err);
    /* So many zeros that take no space in the file. */
    bool (*hole)(void *opaque, uint64_t len, struct uvm_error *err);
    void *opaque;
};

/* Reads a volume's file, as it is. */
bool pool_volume_read(struct pool_store *s, const char *name, const struct pool_sink *sink,
                      struct uvm_error *err);

/* ---- domains (domain.c) ---------------------------------------------------------------------- */

struct pool_document {
    char *label; /* printable: "" for the guest's definition, "snapshot s1", "managed save" */
    char *xml;
};

/* Everything that libvirt knows about the files of one guest. */
struct pool_domain {
    char *name; /* printable */
    struct pool_document *documents;
    size_t document_count;
    struct uvm_strings doubts; /* what of it could not be had */
    bool gone;                 /* it ended while it was looked at */
};

/* Calls `each` for every domain, running or not, that does not go away meanwhile. UVM_LIBVIRT when
 * the daemon does. */
bool pool_domains_each(struct pool_virt *v,
                       void (*each)(void *opaque, const struct pool_domain *domain), void *opaque,
                       struct uvm_error *err);

/*
 * virt.h: what the files that speak to libvirt share: connect.c (connection, errors), call.c (calls
 * that take long, or hang), watch.c (events), libvirt.c (pools), volume.c, domain.c.
 */
#pragma once

#include "pool/libvirt.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdatomic.h>

struct pool_watch;

struct pool_virt {
    virConnectPtr conn;
    char *uri;            /* as it was given */
    unsigned answer_secs; /* without a sign of life, before a call is given up */
    const struct uvm_observer *observer;
    struct pool_watch *watch; /* NULL before the events are turned */
    atomic_size_t beats;      /* signs of life of what runs in pool_virt_call */
    bool stuck;               /* a call was left hanging, and still uses all this */
};

/* Fails with "<formatted>: <libvirt's last error>". */
bool pool_virt_fail(struct uvm_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Of an error's code: what was listed a moment ago does not exist any more. */
bool pool_virt_is_gone(int code);

/* Turns libvirt's events, and with them keepalive, in a thread; and ends that. */
bool pool_watch_start(struct pool_virt *v, struct uvm_error *err);
void pool_watch_stop(struct pool_virt *v);

/* A volume of that name, which the caller frees; NULL when there is none. */
bool pool_virt_volume(struct pool_store *s, const char *name, virStorageVolPtr *ret_handle,
                      struct uvm_error *err);

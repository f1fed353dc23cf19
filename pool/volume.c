/*
 * volume.c: volumes of a libvirt pool: listing, making, deleting.
 */
#include "pool/libvirt.h"

#include "pool/virt.h"
#include "pool/xml.h"

#include <inttypes.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <unistd.h>

#define DELETE_POLL_SECS 1 /* how often a refused deletion is tried again */

/* ---- listing --------------------------------------------------------------------------------- */

void pool_volume_clear(struct pool_volume *v)
{
    free(v->name);
    free(v->path);
    *v = (struct pool_volume){0};
}

void pool_volumes_clear(struct pool_volumes *v)
{
    for (size_t i = 0; i < v->count; i++)
        pool_volume_clear(&v->items[i]);
    free(v->items);
    *v = (struct pool_volumes){0};
}

/* In a folder the path follows from the name, which spares a call to the daemon. */
static char *path_of(const struct pool_store *s, virStorageVolPtr handle)
{
    if (pool_store_is_folder(s))
        return uvm_format("%s/%s", s->path, virStorageVolGetName(handle));
    char *path = virStorageVolGetPath(handle);
    if (path && path[0] == '/')
        return path;
    free(path);
    return NULL;
}

/* A volume that went away meanwhile has no sizes. */
static void describe(const struct pool_store *s, virStorageVolPtr handle, enum pool_detail detail,
                     struct pool_volume *v)
{
    virStorageVolInfo info;
    v->name = uvm_strdup(virStorageVolGetName(handle));
    v->path = path_of(s, handle);
    if (detail == POOL_SIZES && virStorageVolGetInfo(handle, &info) == 0) {
        v->capacity = info.capacity;
        v->allocation = info.allocation;
    }
}

bool pool_volumes_list(struct pool_store *s, enum pool_detail detail,
                       struct pool_volumes *ret_volumes, struct uvm_error *err)
{
    virStorageVolPtr *handles = NULL;
    int count = virStoragePoolListAllVolumes(s->handle, &handles, 0);
    if (count < 0)
        return pool_virt_fail(err, "list of volumes in pool %s", s->name);

    ret_volumes->items = uvm_alloc(((size_t)count + 1) * sizeof(*ret_volumes->items));
    ret_volumes->count = (size_t)count;
    for (int i = 0; i < count; i++) {
        describe(s, handles[i], detail, &ret_volumes->items[i]);
        virStorageVolFree(handles[i]);
    }
    free(handles);
    return true;
}

bool pool_virt_volume(struct pool_store *s, const char *name, virStorageVolPtr *ret_handle,
                      struct uvm_error *err)
{
    virStorageVolPtr handle = virStorageVolLookupByName(s->handle, name);
    if (!handle && virGetLastErrorCode() != VIR_ERR_NO_STORAGE_VOL)
        return pool_virt_fail(err, "volume %s in pool %s", name, s->name);
    *ret_handle = handle;
    return true;
}

bool pool_volume_find(struct pool_store *s, const char *name, bool *ret_found,
                      struct pool_volume *ret_volume, struct uvm_error *err)
{
    virStorageVolPtr handle = NULL;
    if (!pool_virt_volume(s, name, &handle, err))
        return false;
    *ret_found = handle != NULL;
    if (!handle)
        return true;
    if (ret_volume)
        describe(s, handle, POOL_SIZES, ret_volume);
    virStorageVolFree(handle);
    return true;
}

/* ---- making ---------------------------------------------------------------------------------- */

bool pool_volume_create(struct pool_store *s, const char *name, uint64_t capacity, bool *ret_exists,
                        struct uvm_error *err)
{
    uvm_auto_free char *xml = pool_xml_raw_volume(name, capacity);
    virStorageVolPtr handle = virStorageVolCreateXML(s->handle, xml, 0);
    if (!handle) {
        *ret_exists = virGetLastErrorCode() == VIR_ERR_STORAGE_VOL_EXIST;
        return pool_virt_fail(err, "make volume %s in pool %s", name, s->name);
    }
    virStorageVolFree(handle);
    return true;
}

/* ---- deleting -------------------------------------------------------------------------------- */

/* One attempt. *ret_later: the daemon is still at work on it. */
static bool delete_now(struct pool_store *s, const char *name, bool *ret_later,
                       struct uvm_error *err)
{
    virStorageVolPtr handle = NULL;
    if (!pool_virt_volume(s, name, &handle, err))
        return false;
    if (!handle)
        return true;
    bool ok = virStorageVolDelete(handle, 0) == 0;
    if (!ok) {
        int code = virGetLastErrorCode();
        const char *text = virGetLastErrorMessage();
        /* "volume is still being allocated" and "is still in use" (an upload, the source of a
         * clone) have no code of their own. */
        *ret_later = code == VIR_ERR_OPERATION_INVALID && strstr(text, "still") != NULL;
        if (code == VIR_ERR_NO_STORAGE_VOL)
            ok = true;
        else
            pool_virt_fail(err, "delete volume %s in pool %s", name, s->name);
    }
    virStorageVolFree(handle);
    return ok;
}

bool pool_volume_delete(struct pool_store *s, const char *name, enum pool_patience patience,
                        const struct uvm_observer *observer, struct uvm_error *err)
{
    for (unsigned waited = 0;; waited += DELETE_POLL_SECS) {
        bool later = false;
        uvm_auto_error failed = UVM_ERROR_INIT;
        if (delete_now(s, name, &later, &failed))
            return true;
        if (!later || patience == POOL_AT_ONCE || waited >= POOL_CLONE_WAIT) {
            *err = failed;
            failed = UVM_ERROR_INIT;
            return false;
        }
        if (waited == 0)
            uvm_notice(observer, "waiting for libvirt, which is still at work on volume %s", name);
        /* An upload that was just aborted goes away by itself, also after Ctrl-C. */
        if (waited >= POOL_GRACE && !uvm_go_on(observer, err))
            return uvm_prefix(err, "waiting to delete volume %s", name);
        sleep(DELETE_POLL_SECS);
    }
}

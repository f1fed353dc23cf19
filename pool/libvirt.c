/*
 * libvirt.c: storage pools of a libvirt daemon.
 */
#include "pool/libvirt.h"

#include "pool/virt.h"
#include "pool/xml.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define REFRESH_POLL_MS 100
#define REFRESH_WAIT_MS 2000

/* ---- storage pools --------------------------------------------------------------------------- */

void pool_store_free(struct pool_store *s)
{
    if (!s)
        return;
    if (s->handle)
        virStoragePoolFree(s->handle);
    free(s->name);
    free(s->uuid);
    free(s->type);
    free(s->path);
    free(s);
}

void pool_stores_clear(struct pool_stores *s)
{
    for (size_t i = 0; i < s->count; i++)
        pool_store_free(s->items[i]);
    free(s->items);
    *s = (struct pool_stores){0};
}

/* Takes over the handle, also on failure. */
static bool store_from_handle(struct pool_virt *v, virStoragePoolPtr handle,
                              struct pool_store **ret_store, struct uvm_error *err)
{
    UVM_AUTO(pool_store_free) struct pool_store *s = uvm_alloc(sizeof(*s));
    char uuid[VIR_UUID_STRING_BUFLEN] = "";

    s->virt = v;
    s->handle = handle;
    s->name = uvm_strdup(virStoragePoolGetName(handle));
    if (virStoragePoolGetUUIDString(handle, uuid) != 0)
        return pool_virt_fail(err, "pool %s", s->name);
    s->uuid = uvm_strdup(uuid);

    int active = virStoragePoolIsActive(handle);
    char *xml = active < 0 ? NULL : virStoragePoolGetXMLDesc(handle, 0);
    if (!xml)
        return pool_virt_fail(err, "pool %s", s->name);
    s->active = active == 1;
    bool ok = pool_xml_store(xml, &s->type, &s->path, err);
    free(xml);
    if (!ok)
        return uvm_prefix(err, "pool %s", s->name);
    *ret_store = UVM_STEAL(s);
    return true;
}

bool pool_store_find(struct pool_virt *v, const char *name, struct pool_store **ret_store,
                     struct uvm_error *err)
{
    virStoragePoolPtr handle = virStoragePoolLookupByName(v->conn, name);
    if (handle)
        return store_from_handle(v, handle, ret_store, err);
    if (virGetLastErrorCode() != VIR_ERR_NO_STORAGE_POOL)
        return pool_virt_fail(err, "pool %s", name);
    *ret_store = NULL;
    return true;
}

bool pool_stores_list(struct pool_virt *v, struct pool_stores *ret_stores, struct uvm_error *err)
{
    virStoragePoolPtr *handles = NULL;
    int count = virConnectListAllStoragePools(v->conn, &handles, 0);
    if (count < 0)
        return pool_virt_fail(err, "list of storage pools");

    pool_auto_stores stores = {0};
    bool ok = true;
    stores.items = uvm_alloc(((size_t)count + 1) * sizeof(*stores.items));
    for (int i = 0; i < count; i++) {
        uvm_auto_error failed = UVM_ERROR_INIT;
        if (!ok)
            virStoragePoolFree(handles[i]);
        else if (store_from_handle(v, handles[i], &stores.items[stores.count], &failed))
            stores.count++;
        else if (failed.sys_errno != ENOENT)
            ok = uvm_fail(err, failed.code, "%s", failed.message);
    }
    free(handles);
    if (!ok)
        return false;
    *ret_stores = stores;
    stores = (struct pool_stores){0};
    return true;
}

bool pool_store_is_folder(const struct pool_store *s)
{
    return s->path && (strcmp(s->type, "dir") == 0 || strcmp(s->type, "fs") == 0 ||
                       strcmp(s->type, "netfs") == 0);
}

bool pool_store_define(struct pool_virt *v, const char *name, const char *path,
                       struct pool_store **ret_store, struct uvm_error *err)
{
    uvm_auto_free char *xml = pool_xml_folder_pool(name, path);
    virStoragePoolPtr handle = virStoragePoolDefineXML(v->conn, xml, 0);
    if (!handle)
        return pool_virt_fail(err, "define pool %s in %s", name, path);
    return store_from_handle(v, handle, ret_store, err);
}

bool pool_store_start(struct pool_store *s, struct uvm_error *err)
{
    if (virStoragePoolCreate(s->handle, 0) != 0)
        return pool_virt_fail(err, "start pool %s", s->name);
    s->active = true;
    return true;
}

bool pool_store_autostart(struct pool_store *s, struct uvm_error *err)
{
    if (virStoragePoolSetAutostart(s->handle, 1) != 0)
        return pool_virt_fail(err, "autostart of pool %s", s->name);
    return true;
}

bool pool_store_starts_itself(struct pool_store *s, bool *ret_starts, struct uvm_error *err)
{
    int autostart = 0;
    if (virStoragePoolGetAutostart(s->handle, &autostart) != 0)
        return pool_virt_fail(err, "autostart of pool %s", s->name);
    *ret_starts = autostart != 0;
    return true;
}

/* *ret_later: refused for the moment, because the daemon is at work in the pool. */
static bool refresh_now(struct pool_store *s, bool *ret_later, struct uvm_error *err)
{
    if (virStoragePoolRefresh(s->handle, 0) == 0)
        return true;
    /* This has no code of its own. */
    *ret_later = strstr(virGetLastErrorMessage(), "asynchronous jobs") != NULL;
    return pool_virt_fail(err, "refresh pool %s", s->name);
}

bool pool_store_refresh(struct pool_store *s, struct uvm_error *err)
{
    /* libvirt refreshes by itself after each upload, and refuses another refresh meanwhile. */
    for (unsigned waited = 0;; waited += REFRESH_POLL_MS) {
        bool later = false;
        if (refresh_now(s, &later, err))
            return true;
        if (!later || waited >= REFRESH_WAIT_MS)
            return false;
        uvm_error_clear(err);
        usleep(REFRESH_POLL_MS * 1000);
    }
}

bool pool_store_settle(struct pool_store *s, const struct uvm_observer *observer,
                       struct uvm_error *err)
{
    for (unsigned waited = 0;; waited++) {
        bool later = false;
        if (refresh_now(s, &later, err))
            return true;
        if (!later || waited >= POOL_CLONE_WAIT)
            return false;
        uvm_error_clear(err);
        if (waited == 2)
            uvm_notice(observer, "waiting for libvirt, which is still at work in pool %s", s->name);
        if (waited >= POOL_GRACE && !uvm_go_on(observer, err))
            return uvm_prefix(err, "waiting for pool %s", s->name);
        sleep(1);
    }
}

bool pool_store_available(struct pool_store *s, uint64_t *ret_bytes, struct uvm_error *err)
{
    virStoragePoolInfo info;
    if (virStoragePoolGetInfo(s->handle, &info) != 0)
        return pool_virt_fail(err, "space in pool %s", s->name);
    *ret_bytes = info.available;
    return true;
}

/*
 * xml.h: the XML that libvirt speaks. Names go in escaped; what comes out of the daemon was written
 * by other programs and is parsed without network and without entities.
 */
#pragma once

#include "mirror/base/base.h"

#define POOL_XML_MAX ((size_t)16 << 20) /* bytes of one document */

/* True when a libvirt URI names a host other than this one. */
bool pool_xml_uri_is_remote(const char *uri);

/* A pool of type "dir". Should libvirt build its folder, QEMU, which runs as a user of its own, gets to
 * the volumes. The caller frees it. */
char *pool_xml_folder_pool(const char *name, const char *path);

/* A raw volume with a capacity; nothing of it allocated. The caller frees it. */
char *pool_xml_raw_volume(const char *name, uint64_t capacity);

/* Type and target path of a pool; *ret_path is NULL when it has none. */
bool pool_xml_store(const char *xml, char **ret_type, char **ret_path, struct uvm_error *err);

/* A file that a guest needs. */
struct pool_ref {
    char *path;    /* or NULL, and then: */
    char *pool;    /* name of a storage pool */
    char *volume;  /* and of its volume */
    bool may_miss; /* the guest starts without it, or libvirt makes it then (nvram) */
    bool raw;      /* everywhere: its content has no header for QEMU */
    size_t document;
};
struct pool_refs {
    struct pool_ref *items;
    size_t count;
    size_t document; /* goes into each ref that is added: the caller's number of the document */
};
void pool_refs_clear(struct pool_refs *refs);
#define pool_auto_refs __attribute__((cleanup(pool_refs_clear))) struct pool_refs

/* Adds the files that a domain, snapshot, checkpoint or backup document names: sources of disks
 * (any kind of device) with their backing stores, mirrors and data stores; kernel, initrd, loader,
 * nvram; and what looks like a path among the arguments that QEMU is given past libvirt. Each file
 * once, in the documents' order. `doubts` gets what may hide a file: a disk on the network whose
 * format can have a backing file. UVM_LIBVIRT when it is no such document. */
bool pool_refs_read(const char *xml, struct pool_refs *refs, struct uvm_strings *doubts,
                    struct uvm_error *err);

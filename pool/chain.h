/*
 * chain.h: files, what they stand on, and who needs them.
 *
 *     header.c   what a file's own header says that it stands on
 *     device.c   what a block device of this host stands on
 *     chain.c    names, files, and the links between them
 *     uses.c     the walks from guests and volumes down to the images
 *
 * Headers are written by guests: hostile. What of them cannot be understood or followed is kept at
 * the file as its fault, and becomes a doubt as soon as somebody needs that file. With a doubt
 * nothing is deleted.
 */
#pragma once

#include "mirror/mirror.h"

#include <sys/stat.h>

/* ---- one file (header.c, device.c) ----------------------------------------------------------- */

/* What a header names: as it stands there, and NULL without. */
struct pool_header {
    char *backing; /* a backing file */
    char *data;    /* an external data file of raw content */
};
void pool_header_clear(struct pool_header *h);
#define pool_auto_header __attribute__((cleanup(pool_header_clear))) struct pool_header

/* Reads the header of a regular file or block device. UVM_CONTENT when it may stand on something
 * that cannot be told. */
bool pool_header_read(int fd, struct pool_header *ret_header, struct uvm_error *err);

/* What a block device was made from, one step down: the devices below (partition, device mapper,
 * RAID) and the file behind a loop device. A device that is none of these stands on nothing. */
bool pool_device_below(dev_t device, struct uvm_strings *ret_paths, struct uvm_error *err);

/* ---- files and their links (chain.c) --------------------------------------------------------- */

#define POOL_CHAIN_DEPTH_MAX 200 /* QEMU itself gives up earlier */
#define POOL_NO_USE          SIZE_MAX

/* Why a file stands on another one. */
enum pool_link_kind {
    POOL_LINK_BACKING, /* its header says so */
    POOL_LINK_DATA,    /* its header says so; the other's content is raw */
    POOL_LINK_DEVICE,  /* the kernel says so: both have the same content */
};
struct pool_link {
    size_t to;
    enum pool_link_kind kind;
};

/* How much of a walk's way to a file is to be believed, and so, what a fault means. */
enum pool_belief {
    POOL_CLAIMED, /* only the content of a raw disk says that the file is needed */
    POOL_RAW,     /* the file is needed; to QEMU its content has no header */
    POOL_TRUSTED, /* the file is needed, and what its header names is too */
};

/* A file or block device by identity, however it is spelled. Where it cannot be looked at, its
 * spelling has to do. */
struct pool_node {
    char *path;    /* as first spelled */
    char *missing; /* why it cannot be looked at; NULL when it can */
    char *fault;   /* why it cannot be told on what else it stands; NULL when it can */
    bool gone;     /* it is not there; `missing` says so, too */
    bool followed; /* what its header names was looked at */
    struct pool_header header;
    struct uvm_strings below; /* paths of what a device was made from */
    struct pool_link *links;
    size_t link_count;
    size_t *uses; /* indices into the chains' uses */
    size_t use_count;
    bool volume; /* belongs to a pool: it is walked from on its own account */
    bool guest;  /* a guest needs it */
    bool told;   /* its fault is a doubt already */
    /* The last walk that came here. */
    size_t stamp;
    enum pool_belief belief;
};

/* That somebody needs a file. */
struct pool_use {
    size_t user;  /* index into the chains' users */
    size_t node;  /* the file */
    size_t above; /* the use of the file that stands on it; POOL_NO_USE for the first one */
    enum pool_belief belief;
    bool itself; /* the file is the volume whose use this is: it does not keep itself */
};

struct pool_chains {
    struct pool_node *nodes;
    size_t count;
    json_t *index; /* identity -> index into nodes */
    struct pool_use *uses;
    size_t use_count;
    struct uvm_strings users; /* "guest web1", "guest web1 (snapshot s1)", "volume a in pool b" */
    size_t stamp;             /* of the last walk */
    size_t denied;            /* how much an ordinary user was not allowed to look at */
};
void pool_chains_init(struct pool_chains *c);
void pool_chains_clear(struct pool_chains *c);
#define pool_auto_chains __attribute__((cleanup(pool_chains_clear))) struct pool_chains

/* Room for one more item in an array of `count`, which doubles as it grows. */
void *pool_chains_room(void *array, size_t count, size_t item_size);

/* Counts what may not be looked at. False for root, and when `reason` (an errno) is another one:
 * that is worth a doubt of its own. */
bool pool_chains_denied(struct pool_chains *c, int reason);

/* Looks at a file and all that it stands on, reading each header once. *ret_node is its index, also
 * when it is `gone`. False (UVM_CONTENT) when it cannot be told which file `name` is: a
 * relative name, or one of QEMU's that sets more than a file. */
bool pool_chains_add(struct pool_chains *c, const char *name, size_t *ret_node,
                     struct uvm_error *err);

/* ---- walks (uses.c) -------------------------------------------------------------------------- */

/* One of the files that a guest or a volume needs at first hand. */
struct pool_need {
    size_t node;
    size_t user; /* index into the chains' users */
    enum pool_belief belief;
    bool may_miss; /* it is no fault when it is gone */
};

size_t pool_chains_user(struct pool_chains *c, const char *user);

/* Where a walk puts what keeps one from telling: "guest web1 through a: /x/b: No such file". */
struct pool_told {
    struct uvm_strings *doubts;
    /* The same where it does not count: only the content of a raw disk, which its guest writes as it
     * likes, speaks of such a file; or all of an `ignored` guest. */
    struct uvm_strings *overlooked;
    bool ignored;
};

/* Marks what a guest needs, and all that stands below, as used. All files must have been added
 * before: a later one may show what an earlier one stands on (a relative name, met on two ways). */
void pool_chains_use_guest(struct pool_chains *c, const struct pool_need *needs, size_t count,
                           const struct pool_told *told);
/* Marks what a volume that no guest needs stands on, down to the next volume. */
void pool_chains_use_volume(struct pool_chains *c, size_t node, const char *user,
                            const struct pool_told *told);

/* "guest web1", "guest web1 (snapshot s1) through web1.s1 -> web1.qcow". The caller frees it. */
char *pool_chains_tell(const struct pool_chains *c, size_t use);

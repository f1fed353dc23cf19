/*
 * prove.c: a volume that bears an image's name without metadata, while a guest uses it or may do so.
 * It cannot be replaced, but it can be compared:
 *
 *     its file, byte for byte   -> the image's checksum: it is the image
 *                               -> no sound qcow2 that stands alone: it is not
 *     what a guest sees of it   -> the same as of the verified image, or not
 *
 * It is fetched through libvirt, into a file that nobody else can write.
 */
#include "pool/import.h"

#include <string.h>
#include <sys/stat.h>

/* Fetches it. Only a file of the image's size can have its checksum: *ret_same. */
static bool fetch(struct pool_import *i, const struct pool_step *step, uint64_t size, int *ret_fd,
                  uint64_t *ret_size, bool *ret_same, struct uvm_error *err)
{
    char hex[UVM_DIGEST_HEX_MAX];
    const char *expected = NULL;
    enum uvm_digest_type type = mirror_image_digest(step->image, &expected);
    UVM_AUTO(uvm_digest_free)
    struct uvm_digest *digest = size == step->image->size ? uvm_digest_new(type) : NULL;
    const struct pool_spool_volume volume = {step->name, "compare", step->title, digest};
    if (!pool_spool_volume(i->pool, &volume, ret_fd, ret_size, err))
        return false;
    if (digest) {
        uvm_digest_finish(digest, hex);
        *ret_same = strcmp(hex, expected) == 0;
    }
    return true;
}

/* What a guest sees of it. */
static bool look(struct pool_import *i, const struct pool_step *step,
                 const struct pool_known *known, int fd, uint64_t size, char **ret_why,
                 struct uvm_error *err)
{
    const struct uvm_observer *observer = i->pool->observer;
    UVM_AUTO(mirror_disk_free) struct mirror_disk *disk = NULL;
    uvm_auto_error unsound = UVM_ERROR_INIT;
    char hex[UVM_DIGEST_HEX_MAX];
    bool sound = mirror_disk_open(fd, size, i->max_virtual, observer, &disk, &unsound);
    if (sound && mirror_disk_info(disk)->virtual_size != known->virtual_size) {
        *ret_why = uvm_strdup("its disk has another size");
        return true;
    }
    sound = sound && pool_sight_disk(disk, step->title, observer, hex, &unsound);
    if (!sound && unsound.code != UVM_CONTENT && unsound.code != UVM_SPACE)
        return uvm_fail(err, unsound.code, "%s", unsound.message);
    if (!sound)
        *ret_why = uvm_strdup(unsound.message);
    else if (strcmp(hex, known->sight) != 0)
        *ret_why = uvm_strdup("its content is another one");
    return true;
}

static bool compare(struct pool_import *i, const struct pool_step *step,
                    const struct pool_known *known, uint64_t size, char **ret_why,
                    struct uvm_error *err)
{
    uvm_auto_fd fd = -1;
    uint64_t fetched = 0;
    bool same = false;
    if (!fetch(i, step, size, &fd, &fetched, &same, err))
        return false;
    if (fd < 0 || fetched != size) {
        *ret_why = uvm_strdup(fd < 0 ? "it is gone" : "it changed while it was read");
        return true;
    }
    return same || look(i, step, known, fd, size, ret_why, err);
}

static bool unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

bool pool_prove(struct pool_import *i, const struct pool_step *step, const struct pool_known *known,
                char **ret_why, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/%s", i->pool->store->path, step->name);
    uvm_auto_free char *why = NULL;
    struct stat before, after;
    if (lstat(path, &before) != 0 || !S_ISREG(before.st_mode) || before.st_size == 0) {
        *ret_why = uvm_strdup("it is gone, or no file");
        return true;
    }
    pool_import_remember(i, step->name);
    if (!compare(i, step, known, (uint64_t)before.st_size, &why, err))
        return uvm_prefix(err, "compare with its volume");
    if (!why && (lstat(path, &after) != 0 || !unchanged(&before, &after)))
        why = uvm_strdup("it changed meanwhile");
    *ret_why = UVM_STEAL(why);
    return true;
}

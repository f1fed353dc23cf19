/*
 * prove.c: a volume that bears an image's name without metadata, while a guest uses it or may do so.
 * It cannot be replaced, but it can be compared:
 *
 *     its file, byte for byte   -> the image's checksum: it is the image
 *                               -> no sound qcow2 that stands alone: it is not
 *     what a guest sees of it   -> the same as of the verified image, or not
 *
 * Bytes of two conversions may differ where their contents do not, so the second comparison has the
 * daemon convert both to raw, one after the other, in the staging pool. Of each a digest is made
 * that leaves zeros out, however they are stored.
 */
#include "pool/import.h"

#include <string.h>
#include <sys/stat.h>

#define BLOCK ((size_t)4096)

/* ---- its file -------------------------------------------------------------------------------- */

struct file_look {
    uint64_t size; /* as it was before */
    uint64_t max_virtual;
    uint64_t seen;
    struct uvm_digest *digest;
    struct uvm_buf head;
    struct mirror_qcow2 info;
    struct mirror_qcow2_tables *tables; /* NULL until the head is complete */
    struct uvm_error unsound;           /* what is wrong with it as a qcow2 */
};

static void file_look_clear(struct file_look *l)
{
    uvm_digest_free(l->digest);
    uvm_buf_clear(&l->head);
    mirror_qcow2_tables_free(l->tables);
    uvm_error_clear(&l->unsound);
}
#define auto_file_look __attribute__((cleanup(file_look_clear))) struct file_look

static bool feed_tables(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct file_look *l = opaque;
    (void)err;
    if (l->unsound.code == UVM_OK)
        mirror_qcow2_tables_feed(l->tables, data, len, &l->unsound);
    return true;
}

static void begin_tables(struct file_look *l)
{
    if (mirror_qcow2_check(l->head.data, l->head.len, l->size, l->max_virtual, &l->info,
                           &l->unsound) &&
        mirror_qcow2_tables_new(&l->info, l->size, &l->tables, &l->unsound))
        mirror_qcow2_tables_feed(l->tables, l->head.data, l->head.len, &l->unsound);
}

/* The head is gathered, then all goes to the tables. */
static bool look_at_bytes(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct file_look *l = opaque;
    const char *p = data;
    uint64_t head = l->size < MIRROR_QCOW2_HEAD ? l->size : MIRROR_QCOW2_HEAD;
    uvm_digest_update(l->digest, data, len);
    l->seen += len;
    if (l->head.len < head) {
        size_t part = head - l->head.len < len ? (size_t)(head - l->head.len) : len;
        if (!uvm_buf_add(&l->head, p, part, err))
            return false;
        if (l->head.len == head)
            begin_tables(l);
        p += part;
        len -= part;
    }
    return len == 0 || feed_tables(l, p, len, err);
}

static bool look_at_file(struct pool_import *i, const char *name, struct file_look *l,
                         struct uvm_error *err)
{
    const struct pool_sink sink = {.data = look_at_bytes, .opaque = l};
    const struct pool_sink again = {.data = feed_tables, .opaque = l};
    uint64_t offset = 0, len = 0, inflated = 0;
    if (!pool_volume_read(i->pool->store, name, 0, 0, &sink, err))
        return false;
    if (l->unsound.code == UVM_OK && (!l->tables || l->seen != l->size))
        uvm_fail(&l->unsound, UVM_CONTENT, "it changed while it was read");
    while (l->unsound.code == UVM_OK && mirror_qcow2_tables_missing(l->tables, &offset, &len)) {
        if (!uvm_go_on(i->pool->observer, err) ||
            !pool_volume_read(i->pool->store, name, offset, len, &again, err))
            return false;
    }
    if (l->unsound.code == UVM_OK)
        mirror_qcow2_tables_finish(l->tables, &inflated, &l->unsound);
    return true;
}

/* ---- what a guest sees ----------------------------------------------------------------------- */

/* The digest of all blocks that hold more than zeros, each with its place in front. */
struct content {
    struct uvm_digest *digest;
    uint64_t at; /* of the block that is being filled */
    uint8_t block[BLOCK];
    size_t len;
};

static void end_block(struct content *c)
{
    static const uint8_t zeros[BLOCK];
    memset(c->block + c->len, 0, BLOCK - c->len);
    if (memcmp(c->block, zeros, BLOCK) != 0) {
        uvm_digest_update(c->digest, &c->at, sizeof(c->at));
        uvm_digest_update(c->digest, c->block, BLOCK);
    }
    c->at += BLOCK;
    c->len = 0;
}

static bool content_data(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct content *c = opaque;
    const char *p = data;
    (void)err;
    while (len > 0) {
        size_t part = BLOCK - c->len < len ? BLOCK - c->len : len;
        memcpy(c->block + c->len, p, part);
        c->len += part;
        p += part;
        len -= part;
        if (c->len == BLOCK)
            end_block(c);
    }
    return true;
}

static bool content_hole(void *opaque, uint64_t len, struct uvm_error *err)
{
    struct content *c = opaque;
    static const uint8_t zeros[BLOCK];
    while (len > 0 && (c->len > 0 || len < BLOCK)) {
        size_t part = BLOCK - c->len < len ? BLOCK - c->len : (size_t)len;
        if (!content_data(c, zeros, part, err))
            return false;
        len -= part;
    }
    c->at += len / BLOCK * BLOCK;
    return len % BLOCK == 0 || content_data(c, zeros, len % BLOCK, err);
}

/* Of a volume that is a sound qcow2, converted to raw for the moment. */
static bool content_of(struct pool_import *i, struct pool_store *store, const char *name,
                       const struct pool_staged *staged, const char *title,
                       char ret_hex[UVM_DIGEST_HEX_MAX], struct uvm_error *err)
{
    const struct uvm_observer *observer = i->pool->observer;
    uvm_auto_free char *raw = pool_volume_name("uvmirror", "comparison");
    const struct pool_volume_spec spec = {raw, "raw", staged->virtual_size};
    UVM_AUTO(uvm_digest_free) struct uvm_digest *digest = uvm_digest_new(UVM_SHA256);
    struct content c = {.digest = digest};
    const struct pool_sink sink = {content_data, content_hole, &c};
    uint64_t available = 0;
    bool exists = false;
    if (!pool_store_refresh(i->stage, err) || !pool_store_available(i->stage, &available, err) ||
        !pool_check_room(i->stage->path, staged->content, POOL_NEED_UP_TO, available, err) ||
        !pool_volume_clone(store, name, i->stage, &spec, observer, title, &exists, err) ||
        !pool_volume_read(i->stage, raw, 0, 0, &sink, err) ||
        !pool_volume_delete(i->stage, raw, POOL_WAIT, observer, err))
        return false;
    if (c.len > 0)
        end_block(&c);
    uvm_digest_finish(digest, ret_hex);
    return uvm_go_on(observer, err);
}

/* ---- both ------------------------------------------------------------------------------------ */

static bool compare(struct pool_import *i, const char *name, const struct pool_staged *staged,
                    uint64_t size, char **ret_why, struct uvm_error *err)
{
    char hex[UVM_DIGEST_HEX_MAX], other[UVM_DIGEST_HEX_MAX];
    const char *expected = NULL;
    uvm_auto_free char *title = mirror_image_title(staged->image);
    auto_file_look look = {.size = size, .max_virtual = i->max_virtual};
    look.digest = uvm_digest_new(mirror_image_digest(staged->image, &expected));
    if (!look_at_file(i, name, &look, err))
        return false;
    uvm_digest_finish(look.digest, hex);
    if (strcmp(hex, expected) == 0)
        return true;
    if (look.unsound.code != UVM_OK) {
        *ret_why = uvm_strdup(look.unsound.message);
        return true;
    }
    if (look.info.virtual_size != staged->virtual_size) {
        *ret_why = uvm_strdup("its disk has another size");
        return true;
    }
    if (!content_of(i, i->pool->store, name, staged, title, hex, err) ||
        !content_of(i, i->stage, staged->name, staged, title, other, err))
        return false;
    if (strcmp(hex, other) != 0)
        *ret_why = uvm_strdup("its content is another one");
    return true;
}

static bool unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

bool pool_prove(struct pool_import *i, const char *name, const struct pool_staged *staged,
                char **ret_why, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/%s", i->pool->store->path, name);
    uvm_auto_free char *why = NULL;
    struct stat before, after;
    if (lstat(path, &before) != 0 || !S_ISREG(before.st_mode) || before.st_size == 0) {
        *ret_why = uvm_strdup("it is gone, or no file");
        return true;
    }
    pool_import_remember(i, name);
    if (!compare(i, name, staged, (uint64_t)before.st_size, &why, err))
        return uvm_prefix(err, "compare with its volume");
    if (!why && (lstat(path, &after) != 0 || !unchanged(&before, &after)))
        why = uvm_strdup("it changed meanwhile");
    *ret_why = UVM_STEAL(why);
    return true;
}

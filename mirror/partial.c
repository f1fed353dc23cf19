/*
 * Partial files. A finished one is not synced before it gets its name (verified.c says why, and what
 * takes its place).
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/header.h"
#include "mirror/location.h"
#include "mirror/partial.h"

#define FILE_MODE 0644
#define FROM_MAX  (3 * (MIRROR_URL_MAX + MIRROR_PATH_MAX) + MIRROR_VALIDATOR_MAX + 2)

void mirror_partial_init(struct mirror_partial *p, struct mirror_tree *tree,
                         const struct mirror_image *image)
{
    *p = (struct mirror_partial){.tree = tree, .image = image, .fd = -1};
    mirror_image_digest(image, &p->name);
}

static void close_file(struct mirror_partial *p)
{
    uvm_close_ptr(&p->fd);
}

static void end_doubt(struct mirror_partial *p)
{
    uvm_buf_clear(&p->doubted);
    p->doubts = false;
}

void mirror_partial_clear(struct mirror_partial *p)
{
    end_doubt(p);
    mirror_sums_clear(&p->sums);
    close_file(p);
}

bool mirror_partial_open(struct mirror_partial *p, struct uvm_error *err)
{
    struct stat st;
    end_doubt(p);
    close_file(p);
    p->fd =
        mirror_beneath_open(p->tree->partial_fd, p->name, O_RDWR | O_CREAT | O_NONBLOCK, FILE_MODE);
    if (p->fd < 0 || fstat(p->fd, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot write in %s/uvmirror/partial", p->tree->dir);
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
        return uvm_fail(err, UVM_FAILED, "%s/uvmirror/partial/%s is not a plain file", p->tree->dir,
                        p->name);
    mirror_sums_start(&p->sums, p->image);
    if ((uint64_t)st.st_size > p->image->size && ftruncate(p->fd, 0) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot empty the partial file");
    return true;
}

bool mirror_partial_empty(struct mirror_partial *p, struct uvm_error *err)
{
    end_doubt(p);
    mirror_sums_start(&p->sums, p->image);
    if (ftruncate(p->fd, 0) < 0 || lseek(p->fd, 0, SEEK_SET) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot empty the partial file");
    return true;
}

void mirror_partial_doubt(struct mirror_partial *p)
{
    end_doubt(p);
    p->doubts = true;
}

uint64_t mirror_partial_bytes(const struct mirror_partial *p)
{
    return p->doubts ? p->doubted.len : p->sums.bytes;
}

static bool write_bytes(struct mirror_partial *p, const void *data, size_t len,
                        struct uvm_error *err)
{
    if (len > p->image->size - p->sums.bytes)
        return uvm_fail(err, UVM_CONTENT, "more than the %llu bytes that the stream signs",
                        (unsigned long long)p->image->size);
    if (!uvm_write_all(p->fd, data, len, err))
        return uvm_prefix(err, "mirror folder %s", p->tree->dir);
    mirror_sums_add(&p->sums, data, len);
    return true;
}

bool mirror_partial_write(struct mirror_partial *p, const void *data, size_t len,
                          struct uvm_error *err)
{
    uvm_auto_buf believed = {0};
    if (!p->doubts)
        return write_bytes(p, data, len, err);
    if (!uvm_buf_add(&p->doubted, data, len, err))
        return false;
    if (p->doubted.len < MIRROR_PARTIAL_DOUBT && p->doubted.len < p->image->size)
        return true;
    uvm_buf_move(&believed, &p->doubted);
    return mirror_partial_empty(p, err) && write_bytes(p, believed.data, believed.len, err);
}

/* ---- the same bytes elsewhere in the mirror ---- */

int mirror_partial_twin(const struct mirror_partial *p)
{
    const struct mirror_tree *t = p->tree;
    const char *want;
    char hex[UVM_DIGEST_HEX_MAX];
    struct stat st;
    enum uvm_digest_type type = mirror_image_digest(p->image, &want);
    uvm_auto_free char *path = mirror_verified_find(t->verified, type, want);
    if (!path)
        return -1;
    uvm_auto_fd fd = mirror_beneath_open(t->root_fd, path, O_RDONLY | O_NONBLOCK, 0);
    bool known = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                 mirror_verified_get(t->verified, path, &st, type, hex);
    return known ? uvm_steal_fd(&fd) : -1;
}

bool mirror_partial_copy(const struct mirror_partial *p, int twin_fd, size_t len)
{
    off_t from = (off_t)p->sums.bytes, to = from;
    uint64_t left = p->image->size - p->sums.bytes;
    return copy_file_range(twin_fd, &from, p->fd, &to, len < left ? len : (size_t)left, 0) > 0;
}

/* ---- where it is from ---- */

static char *from_name(const struct mirror_partial *p)
{
    return uvm_format("%s.from", p->name);
}

static char *read_from(const struct mirror_partial *p)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    uvm_auto_free char *name = from_name(p), *text = uvm_alloc(FROM_MAX + 1);
    uvm_auto_fd fd = mirror_beneath_open(p->tree->partial_fd, name, O_RDONLY | O_NONBLOCK, 0);
    struct stat st;
    size_t len = 0;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)FROM_MAX ||
        !uvm_read_some(fd, text, FROM_MAX, &len, &ignored))
        return NULL;
    text[len] = 0;
    return UVM_STEAL(text);
}

char *mirror_partial_validator(const struct mirror_partial *p, const char *url)
{
    uvm_auto_free char *text = read_from(p);
    size_t url_len = strlen(url);
    if (!text || strncmp(text, url, url_len) != 0 || text[url_len] != '\n')
        return NULL;
    char *validator = text + url_len + 1;
    size_t len = strcspn(validator, "\n");
    if (strcmp(validator + len, "\n") != 0) /* torn */
        return NULL;
    validator[len] = 0;
    return mirror_header_validator_ok(validator) ? uvm_strdup(validator) : NULL;
}

void mirror_partial_note(const struct mirror_partial *p, const char *url, const char *validator)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    uvm_auto_free char *name = from_name(p);
    unlinkat(p->tree->partial_fd, name, 0);
    if (!validator)
        return;
    uvm_auto_free char *text = uvm_format("%s\n%s\n", url, validator);
    uvm_auto_fd fd =
        mirror_beneath_open(p->tree->partial_fd, name, O_WRONLY | O_CREAT | O_EXCL, FILE_MODE);
    if (fd >= 0)
        uvm_write_all(fd, text, strlen(text), &ignored);
}

/* ---- its end ---- */

void mirror_partial_drop(struct mirror_partial *p)
{
    unlinkat(p->tree->partial_fd, p->name, 0);
    mirror_partial_note(p, NULL, NULL);
    close_file(p);
}

void mirror_partial_keep(struct mirror_partial *p)
{
    struct stat st;
    if (p->fd >= 0 && fstat(p->fd, &st) == 0 && st.st_size == 0)
        mirror_partial_drop(p);
    else
        close_file(p);
}

bool mirror_partial_place(struct mirror_partial *p, struct uvm_error *err)
{
    const struct mirror_tree *t = p->tree;
    uvm_auto_fd parent = -1;
    const char *name;
    struct stat st;
    enum mirror_durability durability =
        mirror_verified_knows_boot(t->verified) ? MIRROR_IN_CACHE : MIRROR_ON_DISK;
    if (!mirror_beneath_parent(t->root_fd, p->image->path, &parent, &name, err))
        return uvm_prefix(err, "mirror folder %s", t->dir);
    if ((durability == MIRROR_ON_DISK && fsync(p->fd) < 0) ||
        renameat(t->partial_fd, p->name, parent, name) < 0 || fstat(p->fd, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot put it at %s/%s", t->dir, p->image->path);
    mirror_verified_set(t->verified, p->image->path, &st, p->sums.sha256_hex,
                        p->image->sha512 ? p->sums.sha512_hex : NULL, durability);
    mirror_partial_note(p, NULL, NULL);
    return true;
}

/*
 * header.c: what a file's own header says that it stands on.
 *
 * qcow and qcow2 (QEMU, docs/interop/qcow2.txt), all numbers big-endian:
 *
 *     0  magic "QFI\xfb"   4  version   8  backing name offset   16  backing name size
 *     -- version 3 --
 *     72  incompatible features (bit 2: the content is in another file)   100  header length
 *     -- behind the header: extensions: type (4), length (4), data, padded to 8 bytes --
 *     0x44415441  name of that other file        0  no more
 */
#include "pool/chain.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define NAME_MAX_BYTES      4096 /* QEMU: 1023 */
#define V3_LENGTH           104
#define V3_DATA_FILE        (UINT32_C(1) << 2) /* of the features' lower half */
#define EXTENSION_END       0
#define EXTENSION_DATA_FILE 0x44415441u

void pool_header_clear(struct pool_header *h)
{
    free(h->backing);
    free(h->data);
    *h = (struct pool_header){0};
}

/* The first bytes of a file. */
struct head {
    const unsigned char *bytes;
    size_t len;
};

static bool read_at(int fd, void *data, size_t len, uint64_t offset, size_t *ret_got,
                    struct uvm_error *err)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, (char *)data + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return uvm_fail_errno(err, UVM_FAILED, "read");
        if (n == 0)
            break;
        got += (size_t)n;
    }
    *ret_got = got;
    return true;
}

static bool starts_with(struct head h, const char *magic, size_t magic_len)
{
    return h.len >= magic_len && memcmp(h.bytes, magic, magic_len) == 0;
}

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Formats that can have a backing file but whose headers are not read here: QED and VMDK. */
static bool may_hide_backing(struct head h)
{
    if (starts_with(h, "QED\0", 4))
        return h.len >= 24 && (h.bytes[16] & 1); /* feature bit 0: backing file */
    if (!starts_with(h, "KDMV", 4) && !starts_with(h, "COWD", 4) &&
        !starts_with(h, "# Disk Descriptor", 17))
        return false;
    return memmem(h.bytes, h.len, "parentFileNameHint", strlen("parentFileNameHint")) != NULL;
}

/* A name is text without zeros. NULL when it is none. */
static char *text_of(const void *bytes, size_t len)
{
    return memchr(bytes, 0, len) ? NULL : uvm_strndup(bytes, len);
}

static bool read_backing(int fd, struct head h, char **ret_name, struct uvm_error *err)
{
    uint64_t offset = 0;
    uint32_t name_len = 0;
    if (!mirror_qcow2_backing(h.bytes, h.len, &offset, &name_len, err))
        return false;
    if (name_len == 0)
        return true;
    if (name_len > NAME_MAX_BYTES)
        return uvm_fail(err, UVM_CONTENT, "the name of its backing file is too long");
    uvm_auto_free char *bytes = uvm_alloc(name_len);
    size_t got = 0;
    if (!read_at(fd, bytes, name_len, offset, &got, err))
        return false;
    *ret_name = got == name_len ? text_of(bytes, name_len) : NULL;
    return *ret_name || uvm_fail(err, UVM_CONTENT, "the name of its backing file makes no sense");
}

static bool has_data_file(struct head h)
{
    return starts_with(h, "QFI\xfb", 4) && h.len >= V3_LENGTH && be32(h.bytes + 4) == 3 &&
           (be32(h.bytes + 76) & V3_DATA_FILE);
}

/* The content of an extension; false when there is none of that type. */
static bool find_extension(struct head h, uint32_t type, struct head *ret_content)
{
    size_t at = be32(h.bytes + 100);
    while (at <= h.len && h.len - at >= 8 && be32(h.bytes + at) != EXTENSION_END) {
        size_t len = be32(h.bytes + at + 4);
        if (len > h.len - at - 8)
            return false;
        if (be32(h.bytes + at) == type) {
            *ret_content = (struct head){h.bytes + at + 8, len};
            return true;
        }
        at += 8 + (len + 7) / 8 * 8;
    }
    return false;
}

static bool read_data_file(struct head h, char **ret_name, struct uvm_error *err)
{
    struct head name = {0};
    if (!has_data_file(h))
        return true;
    if (find_extension(h, EXTENSION_DATA_FILE, &name) && name.len > 0 && name.len <= NAME_MAX_BYTES)
        *ret_name = text_of(name.bytes, name.len);
    return *ret_name || uvm_fail(err, UVM_CONTENT, "it has a data file, but does not name it");
}

bool pool_header_read(int fd, struct pool_header *ret_header, struct uvm_error *err)
{
    uvm_auto_free unsigned char *bytes = uvm_alloc(MIRROR_QCOW2_HEAD);
    pool_auto_header found = {0};
    struct head h = {bytes, 0};
    if (!read_at(fd, bytes, MIRROR_QCOW2_HEAD, 0, &h.len, err))
        return false;
    if (may_hide_backing(h))
        return uvm_fail(err, UVM_CONTENT, "its format can hide a backing file");
    if (!read_backing(fd, h, &found.backing, err) || !read_data_file(h, &found.data, err))
        return false;
    *ret_header = found;
    found = (struct pool_header){0};
    return true;
}

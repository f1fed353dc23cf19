/* disk_world.h: disks that QEMU's own tools make, and what they say is on them. In the working folder,
 * which is the test's own. */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "mirror/mirror.h"
#include "tests/unit/own_folder.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

__attribute__((format(printf, 1, 2), unused)) static void run(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    uvm_auto_free char *command = uvm_vformat(format, args);
    va_end(args);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

/* A test that needs QEMU's tools is skipped where they are missing. */
static inline bool have_qemu(void)
{
    return system("qemu-img --version >qemu.log 2>&1 && qemu-io --version >qemu.log 2>&1") == 0;
}

/* ---- files ---- */

static inline uint64_t file_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static inline void write_at(const char *path, uint64_t offset, const void *data, size_t len)
{
    uvm_auto_fd fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, (off_t)offset), (ssize_t)len);
}

/* Big-endian, as qcow2 has it. */
static inline void write_number(const char *path, uint64_t offset, size_t len, uint64_t value)
{
    uint8_t bytes[8];
    for (size_t i = len; i-- > 0; value >>= 8)
        bytes[i] = (uint8_t)value;
    write_at(path, offset, bytes, len);
}

static inline struct uvm_buf slurp(const char *path)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct uvm_buf buf = {.max = 256 * MIB};
    assert_true(uvm_file_read(path, 256 * MIB, &buf, &err));
    return buf;
}

/* What nothing makes smaller. */
static inline void fill_noise(void *data, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        ((uint8_t *)data)[i] = (uint8_t)(seed >> 24);
    }
}

/* What deflate makes smaller, but not to nothing. */
static inline void fill_text(void *data, size_t len, uint32_t seed)
{
    static const char words[16][8] = {"cloud", "image", "pool",  "bundle", "mirror", "guest",
                                      "disk",  "qcow2", "table", "block",  "kernel", "volume",
                                      "sum",   "key",   "site",  "stick"};
    size_t at = 0;
    while (at < len) {
        seed = seed * 1664525 + 1013904223;
        const char *word = words[seed >> 28];
        for (size_t i = 0; word[i] && at < len; i++)
            ((char *)data)[at++] = word[i];
        if (at < len)
            ((char *)data)[at++] = ' ';
    }
}

static inline void put_text(const char *path, uint64_t offset, size_t len)
{
    uvm_auto_free char *data = uvm_alloc(len);
    fill_text(data, len, (uint32_t)offset + 1);
    write_at(path, offset, data, len);
}

static inline void put_noise(const char *path, uint64_t offset, size_t len)
{
    uvm_auto_free char *data = uvm_alloc(len);
    fill_noise(data, len, (uint32_t)offset + 1);
    write_at(path, offset, data, len);
}

static inline void make_empty(const char *path, uint64_t size)
{
    uvm_auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
}

static inline bool only_zeros(const void *data, size_t len)
{
    const char *p = data;
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* ---- disks ---- */

/* A disk that is to be read; `state` folder or anywhere. */
struct disk {
    int fd;
    struct mirror_disk *disk;
};

static inline void close_disk(struct disk *d)
{
    mirror_disk_free(d->disk);
    uvm_close_ptr(&d->fd);
}
#define auto_disk __attribute__((cleanup(close_disk))) struct disk

static inline bool try_disk(const char *path, struct disk *ret_disk, struct uvm_error *err)
{
    ret_disk->fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(ret_disk->fd >= 0);
    return mirror_disk_open(ret_disk->fd, file_size(path), MIRROR_VIRTUAL_MAX, NULL,
                            &ret_disk->disk, err);
}

static inline struct disk open_disk(const char *path)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct disk d = {-1, NULL};
    if (!try_disk(path, &d, &err))
        fail_msg("%s: %s", path, err.message);
    return d;
}

/* What a guest sees of it, as QEMU says. */
static inline struct uvm_buf judge(const char *path)
{
    run("qemu-img convert -O raw %s judge.raw", path);
    return slurp("judge.raw");
}

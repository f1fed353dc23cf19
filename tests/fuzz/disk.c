/*
 * Threat: the image is anybody's, and what it says is read as root, inflated, and laid out as a volume. A
 * few bytes must not become more than the disk that they announce, nor a volume that QEMU reads otherwise.
 */
#include "mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

#define VIRTUAL_MAX ((size_t)256 << 10)
#define STEP        1000 /* so that reads begin and end anywhere in a cluster */

/* The disk as mirror_disk_read has it, and behind its end. */
static uint8_t seen[VIRTUAL_MAX + MIRROR_CLUSTER];

static bool read_all(struct mirror_disk *disk, struct uvm_error *err)
{
    for (size_t at = 0; at < sizeof seen; at += STEP) {
        size_t len = sizeof seen - at < STEP ? sizeof seen - at : STEP;
        if (!mirror_disk_read(disk, at, seen + at, len, err))
            return false;
    }
    return true;
}

static bool all_zeros(uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at++) {
        if (seen[at])
            return false;
    }
    return true;
}

/* What is in no extent reads as zeros, and is left out. */
static void check_extents(const struct mirror_content *content)
{
    uint64_t end = 0;
    FUZZ_HOLDS(content->virtual_size <= VIRTUAL_MAX);
    for (size_t i = 0; i < content->extent_count; i++) {
        const struct mirror_extent *e = &content->extents[i];
        FUZZ_HOLDS(e->count > 0 && e->first >= end + (i > 0));
        FUZZ_HOLDS((e->first + e->count - 1) * MIRROR_CLUSTER < content->virtual_size);
        FUZZ_HOLDS(all_zeros(end * MIRROR_CLUSTER, e->first * MIRROR_CLUSTER));
        end = e->first + e->count;
    }
    FUZZ_HOLDS(all_zeros(end * MIRROR_CLUSTER, sizeof seen));
}

/* The volume, as pool would have it made. */
static bool lay_out(const struct mirror_content *content, int fd, uint64_t *ret_size,
                    struct uvm_error *err)
{
    UVM_AUTO(mirror_layout_free) struct mirror_layout *l = NULL;
    size_t len;
    ssize_t last;
    FUZZ_HOLDS(mirror_layout_new(content, &l, err));
    const void *data = mirror_layout_front(l, &len);
    struct uvm_reader body = mirror_layout_body(l);
    uint64_t at = 0;
    FUZZ_HOLDS(ftruncate(fd, (off_t)mirror_layout_file_size(l)) == 0);
    for (; len > 0; at += (uint64_t)last) {
        FUZZ_HOLDS(len <= mirror_layout_file_size(l) - at);
        FUZZ_HOLDS((last = pwrite(fd, data, len, (off_t)at)) == (ssize_t)len);
        if (!body.read(body.opaque, &data, &len, err))
            return false;
    }
    *ret_size = at;
    FUZZ_HOLDS(at == mirror_layout_file_size(l));
    return true;
}

/* It shows what the image shows. */
static void check_volume(int fd, uint64_t size, uint64_t virtual_size)
{
    static uint8_t again[sizeof seen];
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_free) struct mirror_disk *disk = NULL;
    FUZZ_HOLDS(mirror_disk_open(fd, size, VIRTUAL_MAX, NULL, &disk, &err));
    FUZZ_HOLDS(mirror_disk_info(disk)->virtual_size == virtual_size);
    FUZZ_HOLDS(mirror_disk_read(disk, 0, again, sizeof again, &err));
    FUZZ_HOLDS(memcmp(again, seen, sizeof seen) == 0);
}

static void convert(struct mirror_disk *disk, bool readable)
{
    static int made = -1;
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    uint64_t size;
    if (made < 0)
        made = memfd_create("made", MFD_CLOEXEC);
    FUZZ_HOLDS(made >= 0 && mirror_disk_reader_new(disk, NULL, &reader, &err));
    const struct mirror_content *content = mirror_disk_reader_content(reader);
    if (readable)
        check_extents(content);
    FUZZ_HOLDS(fuzz_outcome(lay_out(content, made, &size, &err), &err) == readable);
    if (readable)
        check_volume(made, size, content->virtual_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_error refused = UVM_ERROR_INIT, damaged = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_free) struct mirror_disk *disk = NULL;
    if (size > (size_t)1 << 16)
        return 0;
    int fd = fuzz_file(data, size);
    if (!fuzz_outcome(mirror_disk_open(fd, size, VIRTUAL_MAX, NULL, &disk, &refused), &refused))
        return 0;
    convert(disk, fuzz_outcome(read_all(disk, &damaged), &damaged));
    return 0;
}

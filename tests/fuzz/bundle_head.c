/*
 * Threat: anything that somebody calls a bundle. Its first frame is decoded before any signature was looked
 * at, so it costs bounded work and memory, and yields two members or a refusal.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "bundle/internal.h"
#include "tests/fuzz/fuzz.h"

#define BEHIND_MAX ((size_t)1 << 20) /* bytes decoded of the second frame */

static int memory_file(const uint8_t *data, size_t size)
{
    int fd = memfd_create("bundle", MFD_CLOEXEC);
    FUZZ_HOLDS(fd >= 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    return fd;
}

/* A header and content that fills blocks. */
static size_t tar_bytes(size_t len)
{
    return 512 + (len + 511) / 512 * 512;
}

/* The first frame, decoded once more: there is room for the two members in it, and for nothing else. */
static void check_frame(struct bundle_input *input, size_t manifest, size_t signature)
{
    static char block[64 << 10];
    static const bool quit = false;
    UVM_AUTO(bundle_unzstd_free) struct bundle_unzstd *u = bundle_unzstd_new(input, &quit);
    uvm_auto_error err = UVM_ERROR_INIT;
    size_t len = 1, total = 0;
    FUZZ_HOLDS(lseek(input->fd, 0, SEEK_SET) == 0 && bundle_unzstd_begin(u, &err));
    for (; len > 0; total += len)
        FUZZ_HOLDS(bundle_unzstd_read(u, block, sizeof block, &len, &err));
    FUZZ_HOLDS(total == tar_bytes(manifest) + tar_bytes(signature));
}

/* The decoder sees what is behind the first frame before it was held against any checksum. */
static void read_second(struct bundle_unzstd *u, size_t size)
{
    static char block[64 << 10];
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = bundle_unzstd_begin(u, &err);
    size_t len = 1;
    for (size_t total = 0; ok && len > 0 && total < BEHIND_MAX; total += len)
        ok = bundle_unzstd_read(u, block, sizeof block, &len, &err);
    if (ok && len == 0)
        ok = bundle_unzstd_end(u, BUNDLE_ENDS_WITH_TRAILER, &err);
    fuzz_outcome(ok, &err);
    FUZZ_HOLDS(bundle_unzstd_taken(u) <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const bool quit = false;
    uvm_auto_fd fd = memory_file(data, size);
    char name[] = "bundle";
    struct bundle_input input = {.fd = fd, .name = name};
    UVM_AUTO(bundle_unzstd_free) struct bundle_unzstd *u = bundle_unzstd_new(&input, &quit);
    uvm_auto_buf manifest = {0}, signature = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!fuzz_outcome(bundle_head_read(u, &manifest, &signature, &err), &err)) {
        FUZZ_HOLDS(manifest.len == 0 && signature.len == 0);
        return 0;
    }
    FUZZ_HOLDS(manifest.len <= BUNDLE_MANIFEST_MAX && signature.len <= BUNDLE_SIGNATURE_MAX);
    FUZZ_HOLDS(bundle_unzstd_taken(u) <= size);
    read_second(u, size);
    check_frame(&input, manifest.len, signature.len);
    bundle_input_kind(data, size < BUNDLE_KIND_HEAD ? size : BUNDLE_KIND_HEAD);
    return 0;
}

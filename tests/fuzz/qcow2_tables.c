/*
 * Threat: guests run on what we put into the pool for years, and QEMU writes by its tables. Nothing passes
 * whose tables lead out of the file, or two ways to one cluster.
 */
#include "mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

static uint64_t number(const uint8_t *data)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++)
        value = value << 8 | data[i];
    return value;
}

/* Follows the tables of an accepted file from the top, as QEMU would: each is in the file, and none is a
 * data cluster. */
static void follow(const uint8_t *data, size_t size)
{
    static uint8_t seen[1 << 16];
    size_t bits = data[23], cluster = (size_t)1 << bits, entries = number(data + 32) & UINT32_MAX;
    uint64_t l1 = number(data + 40);
    memset(seen, 0, sizeof seen);
    for (size_t i = 0; i < entries; i++) {
        uint64_t l2 = number(data + l1 + i * 8) & UINT64_C(0x00fffffffffffe00);
        FUZZ_HOLDS(l2 + cluster <= size && l2 % cluster == 0);
        for (size_t k = 0; l2 && k < cluster / 8; k++) {
            uint64_t entry = number(data + l2 + k * 8), at = entry & UINT64_C(0x00fffffffffffe00);
            if (entry >> 62 & 1 || at == 0)
                continue;
            FUZZ_HOLDS(at < size && at % cluster == 0 && at != l2 && !seen[at >> bits]++);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_disk_free) struct mirror_disk *disk = NULL;
    if (size > (size_t)1 << 16)
        return 0;
    int fd = fuzz_file(data, size);
    if (fuzz_outcome(mirror_disk_open(fd, size, MIRROR_VIRTUAL_MAX, NULL, &disk, &err), &err))
        follow(data, size);
    return 0;
}

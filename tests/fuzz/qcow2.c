/*
 * Threat: QEMU opens what we put into the pool, as root, and follows its header to other files. Nothing
 * passes that names one, or whose tables lie anywhere but in the file itself.
 */
#include "mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

static uint64_t number(const uint8_t *data, size_t at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | data[at + i];
    return value;
}

static void check_inside(uint64_t offset, uint64_t bytes, uint64_t file_size)
{
    FUZZ_HOLDS(bytes > 0 && offset >= 512 && offset % 512 == 0);
    FUZZ_HOLDS(offset <= file_size && bytes <= file_size - offset);
}

/* Looks at the bytes again, in another way than the checker does. */
static void check_accepted(const uint8_t *head, uint64_t file_size, const struct mirror_qcow2 *info)
{
    FUZZ_HOLDS(memcmp(head, "QFI\xfb", 4) == 0);
    FUZZ_HOLDS(number(head, 8, 8) == 0 && number(head, 16, 4) == 0); /* backing file */
    FUZZ_HOLDS(number(head, 32, 4) == 0);                            /* encryption */
    FUZZ_HOLDS(number(head, 60, 4) == 0);                            /* snapshots */
    FUZZ_HOLDS(info->version == 2 || (number(head, 72, 8) & ~UINT64_C(8)) == 0);
    FUZZ_HOLDS(info->cluster_bits >= 9 && info->cluster_bits <= 21);
    FUZZ_HOLDS(info->virtual_size > 0 && info->virtual_size <= MIRROR_VIRTUAL_MAX);
    FUZZ_HOLDS(info->l1_entries <= (32 << 20) / 8); /* QEMU refuses more */
    check_inside(info->l1_offset, (uint64_t)info->l1_entries * 8, file_size);
    check_inside(info->refcount_offset, (uint64_t)info->refcount_clusters << info->cluster_bits,
                 file_size);
}

static void check_backing(const uint8_t *head, size_t size, bool accepted)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uint64_t offset = 0;
    uint32_t len = 0;
    if (!fuzz_outcome(mirror_qcow2_backing(head, size, &offset, &len, &err), &err)) {
        FUZZ_HOLDS(!accepted);
        return;
    }
    FUZZ_HOLDS(len <= 1023 && offset <= (uint64_t)INT64_MAX - len);
    FUZZ_HOLDS(!(accepted && len > 0));
}

static void check_file(const uint8_t *head, size_t size, uint64_t file_size)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_qcow2 info = {0};
    bool accepted = mirror_qcow2_check(head, size, file_size, MIRROR_VIRTUAL_MAX, &info, &err);
    if (fuzz_outcome(accepted, &err))
        check_accepted(head, file_size, &info);
    check_backing(head, size, accepted);
}

/* Once as a whole small file, once as the first bytes of a large one. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t head[MIRROR_QCOW2_HEAD];
    if (size > sizeof head)
        return 0;
    check_file(data, size, size);
    memset(head, 0, sizeof head);
    memcpy(head, data, size);
    check_file(head, sizeof head, (uint64_t)1 << 40);
    return 0;
}

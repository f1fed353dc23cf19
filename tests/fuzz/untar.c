/*
 * Threat: the tar of a bundle, before its members were held against the manifest. It cannot say more than it
 * brings (no holes, no declared sizes), and says the same in whatever blocks it arrives.
 */
#include "bundle/internal.h"
#include "tests/fuzz/fuzz.h"

struct memory {
    const uint8_t *data;
    size_t left, block;
};

static bool read_memory(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct memory *memory = opaque;
    size_t len = memory->left < memory->block ? memory->left : memory->block;
    (void)err;
    *ret_data = memory->data;
    *ret_len = len;
    memory->data += len;
    memory->left -= len;
    return true;
}

/* What the archive said. */
struct story {
    struct uvm_buf bytes; /* of all members */
    struct uvm_buf names;
    bool sound;
};

static bool read_content(struct bundle_untar *t, struct story *s, struct uvm_error *err)
{
    const void *data;
    for (size_t len = 1; len > 0;) {
        if (!bundle_untar_read(t, &data, &len, err))
            return false;
        FUZZ_HOLDS(len == 0 || uvm_buf_add(&s->bytes, data, len, err));
    }
    return true;
}

static bool read_members(struct bundle_untar *t, struct story *s, struct uvm_error *err)
{
    for (;;) {
        const char *path = NULL;
        uint64_t size = 0;
        if (!bundle_untar_next(t, &path, &size, err))
            return false;
        if (!path)
            return bundle_untar_finish(t, err);
        size_t before = s->bytes.len;
        FUZZ_HOLDS(uvm_buf_add(&s->names, path, strlen(path) + 1, err));
        if (!read_content(t, s, err))
            return false;
        FUZZ_HOLDS(s->bytes.len - before == size);
    }
}

static struct story read_archive(const uint8_t *data, size_t size, size_t block)
{
    struct story s = {0};
    struct memory memory = {data, size, block};
    UVM_AUTO(bundle_untar_free)
    struct bundle_untar *t = bundle_untar_new((struct uvm_reader){read_memory, &memory});
    uvm_auto_error err = UVM_ERROR_INIT;
    s.sound = fuzz_outcome(read_members(t, &s, &err), &err);
    FUZZ_HOLDS(s.bytes.len <= size);
    return s;
}

static bool same(const struct uvm_buf *a, const struct uvm_buf *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void check_end(const uint8_t *data, size_t size)
{
    FUZZ_HOLDS(size >= 1024 && size % 512 == 0);
    for (size_t i = size - 1024; i < size; i++)
        FUZZ_HOLDS(data[i] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct story whole = read_archive(data, size, size ? size : 1);
    struct story pieces = read_archive(data, size, 100);
    FUZZ_HOLDS(whole.sound == pieces.sound);
    if (whole.sound) {
        FUZZ_HOLDS(same(&whole.names, &pieces.names) && same(&whole.bytes, &pieces.bytes));
        check_end(data, size);
    }
    uvm_buf_clear(&whole.bytes);
    uvm_buf_clear(&whole.names);
    uvm_buf_clear(&pieces.bytes);
    uvm_buf_clear(&pieces.names);
    return 0;
}

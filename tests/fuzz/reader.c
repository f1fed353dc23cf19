/*
 * Threat: a bundle whose manifest was signed by a site that is broken or taken over, in sound frames.
 * From the first byte to the last, what is handed out is what the manifest names; the same whether anybody
 * looks at it or not; and what was refused once stays refused.
 *
 * An input is the length of the manifest (two bytes, little-endian), the manifest, and the members of the
 * second frame: type, length of the name (a byte), name, size (two bytes), content. untar.c looks for worse
 * tars, and bundle_head.c for worse frames. No signature can be found by trying: GnuPG is left out (see
 * meson.build), and any will do.
 */
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>

#include "bundle/internal.h"
#include "tests/fuzz/fuzz.h"

#define FUZZ_BLOCK     ((size_t)512)
#define NAME_MAX_PLAIN ((size_t)100)

/* What is left of an input. */
struct input {
    const uint8_t *data;
    size_t left;
};

bool __wrap_uvm_verifier_detached(struct uvm_verifier *v, const void *data, size_t len,
                                  const void *sig, size_t sig_len, struct uvm_signature *ret_sig,
                                  struct uvm_error *err);

bool __wrap_uvm_verifier_detached(struct uvm_verifier *v, const void *data, size_t len,
                                  const void *sig, size_t sig_len, struct uvm_signature *ret_sig,
                                  struct uvm_error *err)
{
    (void)v, (void)data, (void)len, (void)sig, (void)sig_len, (void)err;
    *ret_sig = (struct uvm_signature){.fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567",
                                      .user_id = uvm_strdup("")};
    return true;
}

/* ---- a bundle of the input ---- */

static void add(struct uvm_buf *to, const void *data, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    FUZZ_HOLDS(uvm_buf_add(to, data, len, &err));
}

static void add_member(struct uvm_buf *tar, char type, const char *name, const void *data,
                       size_t len)
{
    static const char zeros[FUZZ_BLOCK];
    char block[FUZZ_BLOCK] = "";
    unsigned sum = 0;
    memcpy(block, name, strnlen(name, NAME_MAX_PLAIN));
    snprintf(block + 100, 8, "%07o", 0644U);
    snprintf(block + 124, 12, "%011zo", len);
    memcpy(block + 257, "ustar\00000", 8);
    block[156] = type;
    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < sizeof block; i++)
        sum += (unsigned char)block[i];
    snprintf(block + 148, 8, "%06o", sum);
    add(tar, block, sizeof block);
    add(tar, data, len);
    add(tar, zeros, (FUZZ_BLOCK - len % FUZZ_BLOCK) % FUZZ_BLOCK);
}

static void add_frame(struct uvm_buf *file, const struct uvm_buf *tar)
{
    size_t bound = ZSTD_compressBound(tar->len);
    uvm_auto_free char *frame = uvm_alloc(bound);
    size_t size = ZSTD_compress(frame, bound, tar->data, tar->len, 1);
    FUZZ_HOLDS(!ZSTD_isError(size));
    add(file, frame, size);
}

static bool has_trailer(const void *manifest, size_t len)
{
    static const char field[] = "\"trailer\":\"crc32\"";
    return memmem(manifest, len, field, sizeof field - 1) != NULL;
}

/* At most so many bytes of it. */
static const uint8_t *take(struct input *in, size_t wanted, size_t *ret_len)
{
    const uint8_t *taken = in->data;
    *ret_len = wanted < in->left ? wanted : in->left;
    in->data += *ret_len;
    in->left -= *ret_len;
    return taken;
}

static size_t take_number(struct input *in, size_t bytes)
{
    size_t len, number = 0;
    const uint8_t *taken = take(in, bytes, &len);
    for (size_t i = 0; i < len; i++)
        number |= (size_t)taken[i] << 8 * i;
    return number;
}

static void add_members(struct uvm_buf *tar, struct input *in)
{
    static const char end[2 * FUZZ_BLOCK];
    while (in->left > 0) {
        size_t len;
        char type = (char)take_number(in, 1);
        const uint8_t *bytes = take(in, take_number(in, 1), &len);
        uvm_auto_free char *name = uvm_strndup((const char *)bytes, len);
        bytes = take(in, take_number(in, 2), &len);
        add_member(tar, type, name, bytes, len);
    }
    add(tar, end, sizeof end);
}

static int bundle_file(struct input in)
{
    size_t len;
    const uint8_t *manifest = take(&in, take_number(&in, 2), &len);
    uvm_auto_buf file = {0}, first = {0}, second = {0};
    add_member(&first, '0', BUNDLE_MANIFEST_NAME, manifest, len);
    add_member(&first, '0', BUNDLE_SIGNATURE_NAME, "sig", 3);
    add_frame(&file, &first);
    add_members(&second, &in);
    add_frame(&file, &second);
    if (has_trailer(manifest, len)) {
        unsigned char trailer[BUNDLE_TRAILER_SIZE];
        bundle_trailer_make(trailer,
                            (uint32_t)crc32(0, (const unsigned char *)file.data, (uInt)file.len));
        add(&file, trailer, sizeof trailer);
    }
    int fd = memfd_create("bundle", MFD_CLOEXEC);
    FUZZ_HOLDS(fd >= 0 && pwrite(fd, file.data, file.len, 0) == (ssize_t)file.len);
    return fd;
}

/* ---- reading it ---- */

enum way { LOOK, PASS_OVER };

/* Its bytes are what the manifest says of them: the reader's own word is not taken for it. */
static bool look(struct bundle_reader *r, const struct bundle_entry *entry, struct uvm_error *err)
{
    struct uvm_reader reader = bundle_reader_data(r);
    UVM_AUTO(uvm_digest_free) struct uvm_digest *digest = uvm_digest_new(UVM_SHA256);
    char hex[UVM_DIGEST_HEX_MAX];
    uint64_t total = 0;
    for (size_t len = 1; len > 0; total += len) {
        const void *data = NULL;
        if (!reader.read(reader.opaque, &data, &len, err))
            return false;
        uvm_digest_update(digest, data ? data : "", len);
    }
    uvm_digest_finish(digest, hex);
    FUZZ_HOLDS(total == entry->size);
    FUZZ_HOLDS((entry->kind == BUNDLE_ENTRY_PAYLOAD) == (entry->image_count > 0));
    for (size_t i = 0; i < entry->image_count; i++) {
        const struct bundle_image *image = entry->images[i];
        FUZZ_HOLDS(strcmp(image->sha256, hex) == 0 && strcmp(image->member, entry->path) == 0);
        FUZZ_HOLDS(!image->image->sha256 || strcmp(image->image->sha256, hex) == 0);
    }
    return true;
}

static void check_refused_for_good(struct bundle_reader *r)
{
    struct bundle_entry entry;
    uvm_auto_error err = UVM_ERROR_INIT;
    FUZZ_HOLDS(!fuzz_outcome(bundle_reader_next(r, &entry, &err), &err));
}

/* How many members there were, up to the end. */
static bool read_members(struct bundle_reader *r, enum way way, size_t *count,
                         struct uvm_error *err)
{
    for (;;) {
        struct bundle_entry entry;
        if (!bundle_reader_next(r, &entry, err))
            return false;
        if (entry.kind == BUNDLE_ENTRY_END)
            return true;
        ++*count;
        if (way == LOOK && !look(r, &entry, err))
            return false;
    }
}

static bool read_bundle(int fd, enum way way, size_t *count)
{
    uvm_auto_free char *path = uvm_format("/proc/self/fd/%d", fd);
    struct bundle_open_options options = {0};
    UVM_AUTO(bundle_reader_free) struct bundle_reader *r = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!fuzz_outcome(bundle_reader_open(path, &options, &r, &err), &err))
        return false;
    bool ok = fuzz_outcome(read_members(r, way, count, &err), &err);
    if (!ok)
        check_refused_for_good(r);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t looked = 0, passed = 0;
    uvm_auto_fd fd = bundle_file((struct input){data, size});
    bool sound = read_bundle(fd, LOOK, &looked);
    FUZZ_HOLDS(read_bundle(fd, PASS_OVER, &passed) == sound && passed == looked);
    return 0;
}

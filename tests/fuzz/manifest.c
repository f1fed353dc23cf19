/*
 * Threat: a manifest was signed by a site that is broken or taken over. What is accepted has sound images,
 * members and payloads, and reads the same after it was written again.
 */
#include "bundle/bundle.h"
#include "tests/fuzz/fuzz.h"

static size_t place_of(const struct bundle_manifest *m, const char *member)
{
    size_t i = 0;
    while (i < m->member_count && strcmp(m->members[i].path, member) != 0)
        i++;
    FUZZ_HOLDS(i < m->member_count);
    return i;
}

static void check_checksums(const struct bundle_manifest *m, const struct bundle_image *bundled)
{
    const struct bundle_checksums *c = &bundled->checksums;
    FUZZ_HOLDS(!c->member == !c->name && (c->member || !c->signature));
    if (!c->member)
        return;
    size_t place = place_of(m, c->member);
    FUZZ_HOLDS(bundle_stream_is_local(bundled->stream));
    FUZZ_HOLDS(m->members[place].size <= MIRROR_CHECKSUMS_MAX);
    FUZZ_HOLDS(!c->signature || place_of(m, c->signature) == place + 1);
    fuzz_holds_printable(c->name);
}

static void check_image(const struct bundle_manifest *m, const struct bundle_image *bundled)
{
    const struct mirror_image *image = bundled->image;
    uvm_auto_error err = UVM_ERROR_INIT;
    check_checksums(m, bundled);
    FUZZ_HOLDS(mirror_image_path_check(image->path, &err));
    FUZZ_HOLDS(image->size <= MIRROR_SIZE_MAX);
    FUZZ_HOLDS(image->sha256 || image->sha512);
    FUZZ_HOLDS(!image->sha256 || uvm_digest_valid(UVM_SHA256, image->sha256));
    FUZZ_HOLDS(!image->sha512 || uvm_digest_valid(UVM_SHA512, image->sha512));
    if (bundled->encoding == BUNDLE_PLAIN)
        FUZZ_HOLDS(strcmp(bundled->member, image->path) == 0 && bundled->size == image->size);
    fuzz_holds_printable(image->product);
    fuzz_holds_printable(image->version);
}

static void check_manifest(const struct bundle_manifest *m)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    for (size_t i = 0; i < m->image_count; i++)
        check_image(m, &m->images[i]);
    for (size_t i = 0; i < m->member_count; i++)
        FUZZ_HOLDS(mirror_path_check(m->members[i].path, &err) &&
                   m->members[i].size <= BUNDLE_MEMBER_MAX);
    uvm_auto_free char *name = bundle_file_name(m);
    FUZZ_HOLDS(!strchr(name, '/'));
    bundle_payload_bytes(m);
}

static char *parse(const void *text, size_t len)
{
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!fuzz_outcome(bundle_manifest_parse(text, len, &m, &err), &err)) {
        FUZZ_HOLDS(!m);
        return NULL;
    }
    check_manifest(m);
    return bundle_manifest_text(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_free char *text = parse(data, size);
    if (!text)
        return 0;
    uvm_auto_free char *again = parse(text, strlen(text));
    FUZZ_HOLDS(again && strcmp(text, again) == 0);
    return 0;
}

/*
 * Threat: the sums of a split bundle come from a medium that anybody had in his hands, or were signed by a
 * site that was taken over. What is accepted names parts of this folder, within the limits, and is written
 * again to the same bytes.
 */
#include "bundle/internal.h"
#include "tests/fuzz/fuzz.h"

static void check_parts(const struct bundle_sums *s)
{
    FUZZ_HOLDS(s->count >= 1 && s->count <= BUNDLE_PARTS_MAX);
    for (size_t i = 0; i < s->count; i++) {
        FUZZ_HOLDS(s->parts[i].size > 0 && s->parts[i].size <= s->parts[0].size);
        FUZZ_HOLDS(uvm_digest_valid(UVM_SHA256, s->parts[i].sha256));
        FUZZ_HOLDS(uvm_digest_valid(UVM_SHA256, s->parts[i].head));
    }
}

static void parse(const void *data, size_t size)
{
    __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums s = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf again = {0};
    if (!fuzz_outcome(bundle_sums_parse(data, size, &s, &err), &err)) {
        FUZZ_HOLDS(!s.parts && !s.name);
        return;
    }
    check_parts(&s);
    FUZZ_HOLDS(bundle_sums_name_fits(s.name) && bundle_is_id(s.id) && !strchr(s.name, '/'));
    fuzz_holds_printable(s.encoder);
    FUZZ_HOLDS(bundle_sums_text(&s, &again, &err));
    FUZZ_HOLDS(size <= again.len && memcmp(data, again.data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_buf file = {0}, signed_text = {0}, text = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    parse(data, size);
    if (!uvm_buf_add(&file, data, size, &err) ||
        !fuzz_outcome(bundle_sums_unwrap(&file, &signed_text, &err), &err))
        return 0;
    FUZZ_HOLDS(signed_text.len <= size);
    if (uvm_cleartext_body(signed_text.data, signed_text.len, &text, &err))
        parse(text.data, text.len);
    return 0;
}

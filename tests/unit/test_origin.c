/* bundle/origin.c: the vendor's word against the manifest's. */
#include "bundle_world.h"

/* ---- the origin ---- */

static enum uvm_code check_origin(const struct bundle_stream *stream, struct uvm_verifier *verifier,
                                  char **ret_message)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature sig = {0};
    struct craft c = good_parts();
    bool ok = bundle_origin_check(stream, c.parts[ORIGIN].data, c.parts[ORIGIN].len, verifier, &sig,
                                  &err);
    if (ok)
        assert_string_equal(sig.fingerprint, uvm_signer_fingerprint(all.vendor));
    if (ret_message)
        *ret_message = uvm_strdup(err.message ? err.message : "");
    return err.code;
}

static struct bundle_manifest *parse_good(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *text = good_manifest();
    struct bundle_manifest *m = NULL;
    must(bundle_manifest_parse(text, strlen(text), &m, &err), &err);
    return m;
}

static void test_origin(void **state)
{
    (void)state;
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = parse_good();
    assert_int_equal(check_origin(m->streams[0], all.trust_vendor, NULL), UVM_OK);
    assert_int_equal(check_origin(m->streams[0], all.trust_site, NULL), UVM_TRUST);
}

static void lie_text(char **text, const char *lie)
{
    free(*text);
    *text = uvm_strdup(lie);
}

static void test_origin_lies(void **state)
{
    (void)state;
    static const char *const reasons[] = {
        "another stream",         "another time",
        "another time",           "20241004 is not what",
        "20241004 is not what",   "20241004 is not what",
        "lacks version 20241001", "does not list version 20991231"};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = parse_good();
        struct bundle_stream *s = m->streams[0];
        struct mirror_product *p = &s->selection.products[0];
        if (i == 0)
            lie_text(&s->content_id, "other");
        if (i == 1)
            lie_text(&s->updated, "Fri, 04 Oct 2030 09:00:00 +0000");
        if (i == 2)
            s->updated_at++;
        if (i == 3)
            lie_text(&p->images[0].path, "r/other.img");
        if (i == 4)
            p->images[0].size++;
        if (i == 5)
            json_object_set_new(p->images[0].metadata, "label", json_string("daily"));
        if (i == 6)
            lie_text(&p->versions.items[1], "20241004");
        if (i == 7)
            lie_text(&p->versions.items[0], "20991231");
        uvm_auto_free char *message = NULL;
        enum uvm_code code = check_origin(s, all.trust_vendor, &message);
        if (code != UVM_TRUST || (i != 3 && i != 4 && i != 5 && !strstr(message, reasons[i])))
            fail_msg("lie %zu: code %d, %s", i, code, message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_origin),
        cmocka_unit_test(test_origin_lies),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

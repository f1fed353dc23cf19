/* test_names.c: uvtool's names for volumes. */
#include "pool/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void encodes_as_uvtool_does(void **state)
{
    (void)state;
    uvm_auto_free char *plain = pool_volume_name("com.ubuntu.cloud:server:24.04:amd64", "20241004");
    assert_string_equal(plain,
                        "x-uvt-b64-Y29tLnVidW50dS5jbG91ZDpzZXJ2ZXI6MjQuMDQ6YW1kNjQgMjAyNDEwMDQ=");
    /* '>' and '?' give '+' and '/' in plain base64. */
    uvm_auto_free char *odd = pool_volume_name("a>>>", "???");
    assert_string_equal(odd, "x-uvt-b64-YT4-PiA_Pz8=");
}

static void parses_what_it_encodes(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"com.ubuntu.cloud:server:24.04:amd64", "20241004"},
        {"p", "v"},
        {"\xc3\xa4", "20240605.1"},
        {"a>>>", "???"},
        {"p", "a version with blanks"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        uvm_auto_free char *name = pool_volume_name(pairs[i][0], pairs[i][1]);
        uvm_auto_free char *product = NULL;
        uvm_auto_free char *version = NULL;
        assert_true(pool_volume_parse(name, &product, &version));
        assert_string_equal(product, pairs[i][0]);
        assert_string_equal(version, pairs[i][1]);
    }
}

static void refuses_names_that_are_not_ours(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "x-uvt-b64-",
        "web1.qcow",
        "x-uvt-b64-!!!!",
        "x-uvt-b64-cCB2",     /* "p v" is ours, and so: */
        "X-uvt-b64-cCB2",     /* prefix in capitals */
        "x-uvt-b64-cCB2=",    /* padding that does not belong */
        "x-uvt-b64-cCB",      /* cut */
        "x-uvt-b64-cCB2\n",   /* white space that a decoder skips */
        "x-uvt-b64-cHY=",     /* "pv": no blank */
        "x-uvt-b64-IHY=",     /* " v": no product */
        "x-uvt-b64-cCA=",     /* "p ": no version */
        "x-uvt-b64-cCAgdg==", /* "p  v": the blank belongs to neither */
        "x-uvt-b64-cAkgdg==", /* "p\t v" */
        "x-uvt-b64-cCB2dh==", /* stray bits below the padding */
        "x-uvt-b64-cCB2AA==", /* a NUL */
        "x-uvt-b64-cCD/",     /* '/' instead of '_' */
        "x-uvt-b64-/wB2",     /* and not UTF-8 */
        "x-uvt-b64-cCD_",     /* not UTF-8 */
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *product = NULL;
        char *version = NULL;
        bool ours = strcmp(names[i], "x-uvt-b64-cCB2") == 0;
        assert_int_equal(pool_volume_parse(names[i], &product, &version), ours);
        free(product);
        free(version);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_as_uvtool_does),
        cmocka_unit_test(parses_what_it_encodes),
        cmocka_unit_test(refuses_names_that_are_not_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

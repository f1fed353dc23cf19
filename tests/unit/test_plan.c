/* test_plan.c: what an import decides to do. */
#include "pool/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PRODUCT "com.ubuntu.cloud:server:24.04:amd64"
#define CONTENT "com.ubuntu.cloud:released:download"
#define SHA_A   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SHA_B   "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

/* ---- a world in few words -------------------------------------------------------------------- */

struct world {
    struct pool_survey survey;
    struct pool_seen seen;
    struct mirror_product product;
    struct mirror_selection selection;
    struct pool_source source;
    struct pool_import_options options;
    int warnings;
};

static void count_warnings(void *opaque, const struct uvm_event *event)
{
    struct world *w = opaque;
    w->warnings += event->kind == UVM_EVENT_WARNING;
}

static json_t *metadata(const char *version, const char *sha256)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "product_name", PRODUCT,
                     "version_name", version, "item_name", "disk1.img", "ftype", "disk1.img",
                     "datatype", "image-downloads", "release", "noble", "arch", mirror_host_arch(),
                     "label", "release", "size", "1000", "sha256", sha256);
}

static int set_up(void **state)
{
    struct world *w = uvm_alloc(sizeof(*w));
    pool_seen_from_json(NULL, &w->seen);
    pool_seen_note(&w->seen, "another", "product", (struct pool_age){1, 1}, POOL_SEEN_SET);
    w->product.name = uvm_strdup(PRODUCT);
    w->product.complete = true;
    w->product.images = uvm_alloc(8 * sizeof(struct mirror_image));
    w->survey.entries = uvm_alloc(8 * sizeof(struct pool_entry));
    w->survey.listed = true;
    w->selection = (struct mirror_selection){&w->product, 1};
    w->source = (struct pool_source){CONTENT, 1000, &w->selection};
    w->options = (struct pool_import_options){
        .sources = &w->source, .source_count = 1, .serial = 1000, .max_versions = 1};
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    pool_survey_clear(&w->survey);
    pool_seen_clear(&w->seen);
    for (size_t i = 0; i < w->product.image_count; i++)
        mirror_image_clear(&w->product.images[i]);
    free(w->product.images);
    free(w->product.name);
    uvm_strings_clear(&w->product.versions);
    free(w);
    return 0;
}

/* The bundle lists a version; newest first. */
static void lists(struct world *w, const char *version)
{
    uvm_strings_add(&w->product.versions, version);
}

/* The bundle carries an image, with this key changed (NULL: none). */
static void carries(struct world *w, const char *version, const char *key, const char *value)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_json *pairs = metadata(version, SHA_A);
    uvm_auto_free char *path = uvm_format("x/%s.img", version);
    if (key && value)
        json_object_set_new(pairs, key, json_string(value));
    else if (key)
        json_object_del(pairs, key);
    if (!mirror_image_from_metadata(pairs, path, &w->product.images[w->product.image_count], &err))
        fail_msg("%s", err.message);
    w->product.image_count++;
    if (!uvm_strings_has(&w->product.versions, version))
        lists(w, version);
}

/* The host has a volume; newest first, as a survey sorts them. */
static struct pool_entry *has(struct world *w, const char *version, enum pool_state state)
{
    struct pool_entry *e = &w->survey.entries[w->survey.count++];
    e->name = pool_volume_name(PRODUCT, version);
    e->product = uvm_strdup(PRODUCT);
    e->version = uvm_strdup(version);
    e->state = state;
    if (state == POOL_READY)
        e->metadata = metadata(version, SHA_A);
    return e;
}

/* The plan as text: "ADD 3 RETIRE 1 ", or "ERR <code>". */
static char *plan_of(struct world *w)
{
    static const char *const names[] = {"SKIP", "KEEP", "ADD", "ADOPT", "RELINK", "RETIRE"};
    const struct uvm_observer observer = {.event = count_warnings, .opaque = w};
    struct pool_plan plan = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!pool_plan_make(&w->options, &w->survey, &w->seen, &observer, &plan, &err))
        return uvm_format("ERR %d", err.code);

    char *text = uvm_strdup("");
    for (size_t i = 0; i < plan.count; i++) {
        uvm_auto_free char *product = NULL;
        uvm_auto_free char *version = NULL;
        assert_true(pool_volume_parse(plan.steps[i].name, &product, &version));
        assert_int_equal(plan.steps[i].action == POOL_SKIP, plan.steps[i].reason != NULL);
        char *more = uvm_format("%s%s %s ", text, names[plan.steps[i].action], version);
        free(text);
        text = more;
    }
    pool_plan_clear(&plan);
    return text;
}

static void expect(struct world *w, const char *expected)
{
    uvm_auto_free char *text = plan_of(w);
    assert_string_equal(text, expected);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void adds_what_is_new_and_retires_what_is_not_listed(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    lists(w, "2");
    has(w, "2", POOL_READY);
    has(w, "1", POOL_READY);
    expect(w, "ADD 3 RETIRE 2 RETIRE 1 ");
    w->options.max_versions = 2;
    expect(w, "ADD 3 RETIRE 1 ");
    w->options.max_versions = 0;
    expect(w, "ADD 3 RETIRE 1 ");
}

static void keeps_what_is_there(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    has(w, "3", POOL_READY);
    expect(w, "KEEP 3 ");
    assert_int_equal(w->warnings, 0);
}

static void leaves_other_products_alone(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    struct pool_entry *e = has(w, "1", POOL_READY);
    free(e->product);
    e->product = uvm_strdup("com.ubuntu.cloud:server:22.04:amd64");
    expect(w, "ADD 3 ");
}

static void an_incomplete_product_only_adds(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    w->product.complete = false;
    has(w, "4", POOL_READY);
    has(w, "1", POOL_READY);
    expect(w, "ADD 3 ");
}

static void a_filter_makes_incomplete(void **state)
{
    struct world *w = *state;
    const char *const texts[] = {"version_name=2"};
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    assert_true(mirror_filters_new(texts, 1, NULL, &filters, &err));
    w->options.filters = filters;
    carries(w, "3", NULL, NULL);
    carries(w, "2", NULL, NULL);
    has(w, "1", POOL_READY);
    expect(w, "SKIP 3 ADD 2 ");
}

static void takes_the_newest_of_what_is_carried(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    carries(w, "2", NULL, NULL);
    carries(w, "1", NULL, NULL);
    expect(w, "ADD 3 SKIP 2 SKIP 1 ");
    w->options.max_versions = 2;
    expect(w, "ADD 3 ADD 2 SKIP 1 ");
    assert_int_equal(w->warnings, 1); /* two images of one release */
}

static void skips_what_is_not_for_the_pool(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    carries(w, "2", "ftype", "root.tar.gz");
    expect(w, "SKIP 2 ADD 3 ");
}

static void refuses_an_image_that_uvtool_cannot_use(void **state)
{
    static const char *const keys[] = {"release", "arch", "label"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        void *own = NULL;
        set_up(&own);
        carries(own, "3", keys[i], NULL);
        expect(own, "ERR 5");
        tear_down(&own);
    }
    (void)state;
}

static void refuses_a_name_that_is_too_long_for_a_file(void **state)
{
    struct world *w = *state;
    /* "<product> <version>" of 183 bytes makes a name of 254, one byte more makes 258. */
    uvm_auto_free char *version = uvm_alloc(183 - strlen(PRODUCT) - 1 + 2);
    memset(version, '1', 183 - strlen(PRODUCT) - 1);
    carries(w, version, NULL, NULL);
    uvm_auto_free char *expected = uvm_format("ADD %s ", version);
    expect(w, expected);
    version[strlen(version)] = '1';
    carries(w, version, NULL, NULL);
    expect(w, "ERR 5");
}

static void refuses_another_checksum(void **state)
{
    struct world *w = *state;
    carries(w, "3", "sha256", SHA_B);
    has(w, "3", POOL_READY);
    expect(w, "ERR 5");
}

static void leaves_out_what_was_not_proven(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    uvm_strings_add(&has(w, "3", POOL_RETIRED)->users, "guest web1");
    has(w, "1", POOL_READY);
    has(w, "2", POOL_READY);
    struct pool_plan plan = {0};
    const struct uvm_observer observer = {.event = count_warnings, .opaque = w};
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_true(pool_plan_make(&w->options, &w->survey, &w->seen, NULL, &plan, &err));
    assert_int_equal(plan.count, 3);
    /* One of another product is not touched. */
    free(plan.steps[2].name);
    plan.steps[2].name = pool_volume_name("another", "2");

    pool_plan_leave(&plan, &plan.steps[0], "it differs", &observer);
    assert_true(plan.partial);
    assert_int_equal(w->warnings, 1);
    assert_int_equal(plan.steps[0].action, POOL_SKIP);
    assert_non_null(plan.steps[0].reason);
    assert_int_equal(plan.steps[1].action, POOL_KEEP);
    assert_int_equal(plan.steps[2].action, POOL_RETIRE);
    pool_plan_clear(&plan);
}

static void replaces_what_proves_nothing_unless_in_use(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    struct pool_entry *e = has(w, "3", POOL_UNUSED);
    has(w, "1", POOL_READY);
    expect(w, "ADOPT 3 RETIRE 1 ");

    e->state = POOL_RETIRED;
    uvm_strings_add(&e->users, "guest web1");
    expect(w, "RELINK 3 RETIRE 1 ");
}

static void damaged_metadata_proves_nothing(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    struct pool_entry *e = has(w, "3", POOL_READY);
    json_decref(e->metadata);
    e->metadata = NULL;
    expect(w, "ADOPT 3 ");
    uvm_strings_add(&w->survey.doubts, "guest x: cannot be read");
    expect(w, "RELINK 3 ");
}

static void metadata_without_volume_is_no_image(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    has(w, "3", POOL_BROKEN);
    expect(w, "ADD 3 ");
}

static void warns_without_a_record(void **state)
{
    struct world *w = *state;
    pool_seen_clear(&w->seen);
    pool_seen_from_json(NULL, &w->seen);
    carries(w, "3", NULL, NULL);
    expect(w, "ADD 3 ");
    assert_int_equal(w->warnings, 0); /* a new host */
    has(w, "2", POOL_READY);
    expect(w, "ADD 3 RETIRE 2 ");
    assert_int_equal(w->warnings, 1);
}

static void warns_of_a_bundle_from_the_future(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    w->options.serial = (uint64_t)time(NULL) + 3600;
    expect(w, "ADD 3 ");
    assert_int_equal(w->warnings, 0);
    w->options.serial += 2 * 86400;
    expect(w, "ADD 3 ");
    assert_int_equal(w->warnings, 1);
}

static void refuses_what_is_older_than_seen(void **state)
{
    struct world *w = *state;
    carries(w, "3", NULL, NULL);
    has(w, "4", POOL_READY);
    pool_seen_note(&w->seen, CONTENT, PRODUCT, (struct pool_age){1001, 1000}, POOL_SEEN_SET);
    expect(w, "ERR 4");
    w->options.flags = POOL_IMPORT_ALLOW_OLDER;
    expect(w, "ADD 3 RETIRE 4 ");
}

static void a_product_in_two_sources_only_adds(void **state)
{
    struct world *w = *state;
    struct pool_source sources[] = {w->source, w->source};
    sources[1].content_id = "another";
    w->options.sources = sources;
    w->options.source_count = 2;
    carries(w, "3", NULL, NULL);
    has(w, "1", POOL_READY);
    expect(w, "ADD 3 SKIP 3 ");
}

static void warns_when_nothing_fits_the_host(void **state)
{
    struct world *w = *state;
    carries(w, "3", "arch", "vax");
    expect(w, "ADD 3 ");
    assert_int_equal(w->warnings, 1);
}

/* Only version 1 comes in full, and 2 as a difference to what this host has. */
static bool only_old_ones(void *opaque, const struct pool_survey *survey,
                          const struct mirror_image *image)
{
    const struct world *w = opaque;
    assert_ptr_equal(survey, &w->survey);
    return strcmp(image->version, "1") == 0 || strcmp(image->version, "2") == 0;
}

static void leaves_to_other_hosts_what_cannot_be_had(void **state)
{
    struct world *w = *state;
    w->options.obtainable = only_old_ones;
    w->options.opaque = w;
    carries(w, "4", "arch", "vax");
    carries(w, "2", "arch", "vax");
    carries(w, "1", "arch", "vax");
    expect(w, "SKIP 4 SKIP 2 SKIP 1 "); /* no older one instead */
    w->options.max_versions = 2;
    has(w, "0", POOL_READY);
    expect(w, "SKIP 4 ADD 2 SKIP 1 "); /* which supersedes nothing */
}

static void takes_another_architecture_that_is_there(void **state)
{
    struct world *w = *state;
    w->options.obtainable = only_old_ones;
    w->options.opaque = w;
    carries(w, "3", "arch", "vax");
    has(w, "3", POOL_READY);
    has(w, "1", POOL_READY);
    expect(w, "KEEP 3 RETIRE 1 ");
}

static void what_is_for_this_host_is_never_left_to_others(void **state)
{
    struct world *w = *state;
    w->options.obtainable = only_old_ones;
    w->options.opaque = w;
    carries(w, "3", NULL, NULL);
    expect(w, "ADD 3 ");
    assert_int_equal(w->warnings, 0);
}

static void warns_when_all_is_for_others(void **state)
{
    struct world *w = *state;
    w->options.obtainable = only_old_ones;
    w->options.opaque = w;
    carries(w, "3", "arch", "vax");
    expect(w, "SKIP 3 ");
    assert_int_equal(w->warnings, 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(adds_what_is_new_and_retires_what_is_not_listed),
        CASE(keeps_what_is_there),
        CASE(leaves_other_products_alone),
        CASE(an_incomplete_product_only_adds),
        CASE(a_filter_makes_incomplete),
        CASE(takes_the_newest_of_what_is_carried),
        CASE(skips_what_is_not_for_the_pool),
        CASE(refuses_an_image_that_uvtool_cannot_use),
        CASE(refuses_a_name_that_is_too_long_for_a_file),
        CASE(refuses_another_checksum),
        CASE(leaves_out_what_was_not_proven),
        CASE(replaces_what_proves_nothing_unless_in_use),
        CASE(damaged_metadata_proves_nothing),
        CASE(metadata_without_volume_is_no_image),
        CASE(warns_without_a_record),
        CASE(warns_of_a_bundle_from_the_future),
        CASE(refuses_what_is_older_than_seen),
        CASE(a_product_in_two_sources_only_adds),
        CASE(warns_when_nothing_fits_the_host),
        CASE(leaves_to_other_hosts_what_cannot_be_had),
        CASE(takes_another_architecture_that_is_there),
        CASE(what_is_for_this_host_is_never_left_to_others),
        CASE(warns_when_all_is_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

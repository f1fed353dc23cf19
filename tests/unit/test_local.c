/* mirror/add.c, intake.c, local.c, subject.c, vouch.c: images that no stream lists. */
#include <stdio.h>

#include "held_world.h"
#include "scripted_server.h"

#define NOW       ((time_t)1728034200)
#define PRODUCT   "local:bookworm:amd64"
#define OTHER_SUM "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define STREAM    "uvmirror/streams/" MIRROR_LOCAL_ID ".json"

/* ---- a sound qcow2 --------------------------------------------------------------------------- */

/* Header, refcount table, refcount block, L1, L2, one data cluster. */
#define CLUSTER 65536u
#define COPIED  (UINT64_C(1) << 63)
enum { HEADER, REFTABLE, REFBLOCK, L1, L2, DATA, CLUSTERS };

static uint8_t image[CLUSTERS * CLUSTER];

static void put_be(uint64_t offset, unsigned bytes, uint64_t value)
{
    for (unsigned i = bytes; i-- > 0; value >>= 8)
        image[offset + i] = (uint8_t)value;
}

static void make_image(uint8_t content)
{
    memset(image, 0, sizeof image);
    put_be(0, 4, 0x514649fb);
    put_be(4, 4, 2);
    put_be(20, 4, 16);
    put_be(24, 8, 1 << 20);
    put_be(36, 4, 1);
    put_be(40, 8, L1 * CLUSTER);
    put_be(48, 8, REFTABLE * CLUSTER);
    put_be(56, 4, 1);
    put_be(REFTABLE * CLUSTER, 8, REFBLOCK * CLUSTER);
    for (unsigned c = 0; c < CLUSTERS; c++)
        put_be(REFBLOCK * CLUSTER + 2 * c, 2, 1);
    put_be(L1 * CLUSTER, 8, COPIED | L2 * CLUSTER);
    put_be(L2 * CLUSTER, 8, COPIED | DATA * CLUSTER);
    memset(image + DATA * CLUSTER, content, CLUSTER);
}

static const char *sum_of(enum uvm_digest_type type)
{
    static char hex[2][UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(type, image, sizeof image, hex[type]);
    return hex[type];
}

static char *put_file(const struct world *w, const char *name, const void *data, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    char *path = uvm_format("%s/%s", w->source, name);
    must(uvm_file_replace(path, 0644, data, len, &err), &err);
    return path;
}

static char *put_image(const struct world *w, const char *name)
{
    return put_file(w, name, image, sizeof image);
}

/* ---- adding ---------------------------------------------------------------------------------- */

/* "key=value ..." as metadata. */
static json_t *pairs(const char *text)
{
    json_t *metadata = json_object();
    uvm_auto_free char *copy = uvm_strdup(text);
    for (char *rest = copy, *word; (word = strsep(&rest, " "));) {
        char *equals = strchr(word, '=');
        *equals = 0;
        json_object_set_new(metadata, word, json_string(equals + 1));
    }
    return metadata;
}

#define USUAL "release=bookworm arch=amd64 version=1"

static struct mirror_addition addition_of(const char *file, const json_t *metadata)
{
    return (struct mirror_addition){
        .image = file, .metadata = metadata, .network = MIRROR_NETWORK_DEFAULT};
}

static bool try_add(struct world *w, struct mirror_addition *addition, time_t now,
                    struct uvm_error *err)
{
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image added = {0};
    struct uvm_observer observer = observer_of(w);
    w->said[0] = 0;
    if (!addition->observer)
        addition->observer = &observer;
    bool ok = mirror_tree_add(w->tree, addition, now, &added, err);
    assert_true(ok == (added.product != NULL));
    assert_false(there(w, "uvmirror/partial/added"));
    if (ok)
        assert_true(mirror_tree_has(w->tree, &added));
    addition->observer = NULL;
    return ok;
}

static void add_ok(struct world *w, const char *file, const char *text, time_t now)
{
    mirror_auto_json *metadata = pairs(text);
    struct mirror_addition addition = addition_of(file, metadata);
    must(try_add(w, &addition, now, &w->err), &w->err);
}

static void refuse(struct world *w, struct mirror_addition *addition, enum uvm_code code,
                   const char *words)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_false(try_add(w, addition, NOW, &err));
    if (err.code != code || !strstr(err.message, words))
        fail_msg("code %d: %s", err.code, err.message);
}

static void refuse_pairs(struct world *w, const char *file, const char *text, enum uvm_code code,
                         const char *words)
{
    mirror_auto_json *metadata = pairs(text);
    struct mirror_addition addition = addition_of(file, metadata);
    refuse(w, &addition, code, words);
}

static struct mirror_stream *local_stream(struct world *w)
{
    struct mirror_stream *stream = NULL;
    must(mirror_held_stream(w->tree, MIRROR_LOCAL_ID, &stream, &w->err), &w->err);
    return stream;
}
#define auto_stream UVM_AUTO(mirror_stream_free) struct mirror_stream

static struct mirror_image image_of(struct world *w, const char *product, const char *version)
{
    struct mirror_image found = {0};
    auto_stream *stream = local_stream(w);
    must(mirror_stream_image(stream, product, version, "disk1.img", &found, &w->err), &w->err);
    return found;
}
#define auto_image __attribute__((cleanup(mirror_image_clear))) struct mirror_image

static void check_held(struct world *w, unsigned max, const char *expected)
{
    auto_stream *stream = local_stream(w);
    check_selected(w, stream->tree, max, expected);
}

static void test_add(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    add_ok(&w, file, USUAL " os=debian", NOW);
    assert_string_equal(w.said, "");
    auto_image found = image_of(&w, PRODUCT, "1");
    mirror_auto_json *expected = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}",
        "content_id", MIRROR_LOCAL_ID, "datatype", "image-downloads", "format", "products:1.0",
        "updated", UPDATED, "product_name", PRODUCT, "release", "bookworm", "arch", "amd64",
        "version", "1", "os", "debian", "label", "local", "version_name", "1", "ftype", "disk1.img",
        "path", "local/bookworm/amd64/1/golden.qcow2", "sha256", sum_of(UVM_SHA256), "size",
        "393216", "item_name", "disk1.img");
    assert_true(json_equal(found.metadata, expected));
    assert_true(mirror_image_importable(&found));
    assert_string_equal(found.path, "local/bookworm/amd64/1/golden.qcow2");
    uvm_auto_buf bytes = {0};
    uvm_auto_free char *placed = path_in(&w, found.path);
    must(uvm_file_read(placed, 1 << 20, &bytes, &w.err), &w.err);
    assert_int_equal(bytes.len, sizeof image);
    assert_memory_equal(bytes.data, image, sizeof image);
    check_held(&w, 0, PRODUCT "/1 complete");
    reopen(&w);
    check_held(&w, 0, PRODUCT "/1 complete");
    check_record(&w, MIRROR_LOCAL_ID, "awaits", "");
}

static void test_the_stream_is_unsigned_and_dated(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    add_ok(&w, file, USUAL, NOW);
    auto_stream *first = local_stream(&w);
    assert_null(first->signer);
    assert_int_equal(first->updated_at, NOW);
    assert_int_equal(first->origin.data[first->origin.len - 1], '\n');
    /* a clock that stands still or goes back does not make it older */
    add_ok(&w, file, "release=bookworm arch=amd64 version=2", NOW - 1000);
    auto_stream *second = local_stream(&w);
    assert_int_equal(second->updated_at, NOW + 1);
    add_ok(&w, file, "release=bookworm arch=amd64 version=3", NOW + 10);
    auto_stream *third = local_stream(&w);
    assert_int_equal(third->updated_at, NOW + 10);
}

static void test_keys_at_will(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    mirror_auto_json *metadata =
        pairs("release=noble arch=amd64 version=24.04 "
              "version_name=20241004 product=org.example:web:amd64 empty=");
    json_object_set_new(metadata, "label", json_string("golden disk \xc3\xa9"));
    struct mirror_addition addition = addition_of(file, metadata);
    must(try_add(&w, &addition, NOW, &w.err), &w.err);
    auto_image found = image_of(&w, "org.example:web:amd64", "20241004");
    assert_string_equal(mirror_image_get(&found, "version"), "24.04");
    assert_string_equal(mirror_image_get(&found, "label"), "golden disk \xc3\xa9");
    assert_null(json_object_get(found.metadata, "product"));
    assert_non_null(json_object_get(found.metadata, "empty"));
    assert_string_equal(found.path, "local/noble/amd64/20241004/golden.qcow2");
}

static void test_an_architecture_by_another_name(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    add_ok(&w, file, "release=f40 arch=x86_64 version=1", NOW);
    assert_non_null(strstr(w.said, "arch=amd64"));
    add_ok(&w, file, "release=f40 arch=arm64 version=1", NOW);
    assert_string_equal(w.said, "");
}

static void test_words_that_make_no_image(void **state)
{
    static const char *const texts[][2] = {
        {"arch=amd64 version=1", "release= is missing"},
        {"release= arch=amd64 version=1", "release= is missing"},
        {"release=a version=1", "arch= is missing"},
        {"release=a arch=b", "version= is missing"},
        {"release=a arch=b version_name=1", "version= is missing"},
        {USUAL " label=", "label= is empty"},
        {USUAL " path=x", "path="},
        {USUAL " size=1", "size="},
        {USUAL " sha256=x", "sha256="},
        {USUAL " sha512=x", "sha512="},
        {USUAL " md5=x", "md5="},
        {USUAL " ftype=x", "ftype="},
        {USUAL " item_name=x", "item_name="},
        {USUAL " product_name=x", "product_name="},
        {USUAL " datatype=x", "datatype="},
        {USUAL " content_id=x", "content_id="},
        {USUAL " format=x", "format="},
        {USUAL " updated=x", "updated="},
        {USUAL " items=x", "items="},
        {USUAL " versions=x", "versions="},
        {USUAL " _aliases=x", "_aliases="},
        {USUAL " a.b=x", "'a.b' is no key"},
        {USUAL " =x", "'' is no key"},
        {USUAL " \xc3\xa9=x", "is no key"},
        {USUAL " product=", "product="},
        {USUAL " product=a/b", "product=a/b"},
        {USUAL " version_name=", "version= is empty"},
        {"release=a/b arch=amd64 version=1", "release=a/b"},
        {"release=.. arch=amd64 version=1", "release=.."},
        {"release=a arch=. version=1", "arch=."},
        {"release=a arch=b version=../x", "version=../x"},
        {"release=a arch=b version=..", "version=.."},
        {"release=%2e%2e arch=b version=1", "cannot be a path"},
        {"release=a\\b arch=b version=1", "cannot be a path"},
        {"release=a arch=b version=\x1b[31m", "version="},
        {USUAL " os=\x7f", "os="},
    };
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        refuse_pairs(&w, file, texts[i][0], UVM_USAGE, texts[i][1]);
    assert_false(there(&w, STREAM));
    assert_false(there(&w, "local"));
}

static void test_limits_of_words(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    char text[5000];
    memset(text, 'x', sizeof text);
    text[4097] = 0;
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    json_object_set_new(metadata, "note", json_string(text));
    refuse(&w, &addition, UVM_USAGE, "note=");
    text[201] = 0;
    json_object_set_new(metadata, "note", json_string(text));
    json_object_set_new(metadata, "version", json_string(text));
    refuse(&w, &addition, UVM_USAGE, "version=");
    json_object_set_new(metadata, "version", json_string("1"));
    /* many values of the largest size are over the limit of an image's metadata */
    memset(text, 'x', sizeof text);
    text[4096] = 0;
    for (int i = 0; i < 20; i++) {
        uvm_auto_free char *key = uvm_format("k%d", i);
        json_object_set_new(metadata, key, json_string(text));
    }
    refuse(&w, &addition, UVM_USAGE, "metadata");
    for (int i = 0; i < 200; i++) {
        uvm_auto_free char *key = uvm_format("k%d", i);
        json_object_set_new(metadata, key, json_string("x"));
    }
    refuse(&w, &addition, UVM_USAGE, "keys");
}

/* ---- the file -------------------------------------------------------------------------------- */

static void test_no_such_file(void **state)
{
    (void)state;
    auto_world w = new_world();
    uvm_auto_free char *none = uvm_format("%s/none", w.source);
    uvm_auto_free char *fifo = uvm_format("%s/fifo", w.source);
    uvm_auto_free char *slash = uvm_format("%s/", w.source);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    refuse_pairs(&w, none, USUAL, UVM_SOURCE, "none");
    refuse_pairs(&w, fifo, USUAL, UVM_SOURCE, "regular");
    refuse_pairs(&w, w.source, USUAL, UVM_SOURCE, "regular");
    refuse_pairs(&w, slash, USUAL, UVM_USAGE, "names no file");
    refuse_pairs(&w, "", USUAL, UVM_USAGE, "names no file");
    refuse_pairs(&w, "/dev/zero", USUAL, UVM_SOURCE, "regular");
}

static void test_names_of_files(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *blank = put_image(&w, "my golden: image");
    uvm_auto_free char *escape = put_image(&w, "x\033[31m");
    uvm_auto_free char *bytes = put_image(&w, "x\xff");
    uvm_auto_free char *link = uvm_format("%s/link", w.source);
    add_ok(&w, blank, USUAL, NOW);
    refuse_pairs(&w, escape, USUAL, UVM_USAGE, "another name");
    refuse_pairs(&w, bytes, USUAL, UVM_USAGE, "another name");
    assert_int_equal(symlink("my golden: image", link), 0);
    add_ok(&w, link, "release=a arch=b version=1", NOW);
    auto_image found = image_of(&w, "local:a:b", "1");
    assert_string_equal(found.path, "local/a/b/1/link");
}

static void test_not_a_plain_qcow2(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    image[0] = 'X';
    uvm_auto_free char *raw = put_image(&w, "raw");
    refuse_pairs(&w, raw, USUAL, UVM_CONTENT, "qemu-img convert");
    uvm_auto_free char *empty = put_file(&w, "empty", "", 0);
    refuse_pairs(&w, empty, USUAL, UVM_CONTENT, "qcow2");
    uvm_auto_free char *small = put_file(&w, "small", "<html>", 6);
    refuse_pairs(&w, small, USUAL, UVM_CONTENT, "qemu-img convert");
    make_image(1);
    put_be(8, 8, 4096); /* a backing file */
    put_be(16, 4, 4);
    uvm_auto_free char *overlay = put_image(&w, "overlay");
    refuse_pairs(&w, overlay, USUAL, UVM_CONTENT, "backing file");
    make_image(1);
    uvm_auto_free char *cut = put_file(&w, "cut", image, L1 * CLUSTER);
    refuse_pairs(&w, cut, USUAL, UVM_CONTENT, "inside the file");
    put_be(REFBLOCK * CLUSTER + 2 * DATA, 2, 0);
    uvm_auto_free char *counts = put_image(&w, "counts");
    refuse_pairs(&w, counts, USUAL, UVM_CONTENT, "refcount");
    assert_false(there(&w, "local"));
    assert_false(there(&w, STREAM));
}

static void test_max_virtual_size(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    addition.max_virtual = (1 << 20) - 1;
    refuse(&w, &addition, UVM_CONTENT, "--max-virtual-size");
    addition.max_virtual = 1 << 20;
    must(try_add(&w, &addition, NOW, &w.err), &w.err);
}

static void stop_at_once(void *opaque, const struct uvm_event *event)
{
    (void)event;
    *(atomic_bool *)opaque = 1;
}

static void test_interrupted(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *large = uvm_alloc(4 << 20);
    memcpy(large, image, sizeof image);
    uvm_auto_free char *file = put_file(&w, "large", large, 4 << 20);
    atomic_bool stop = 0;
    struct uvm_observer observer = {stop_at_once, (void *)(uintptr_t)&stop, &stop};
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    addition.observer = &observer;
    refuse(&w, &addition, UVM_INTERRUPTED, "bookworm amd64 1");
    assert_false(there(&w, "local"));
    assert_false(there(&w, STREAM));
}

static void cut_off(void *opaque, const struct uvm_event *event)
{
    if (event->kind == UVM_EVENT_PROGRESS)
        assert_int_equal(truncate(opaque, 1 << 20), 0);
}

static void test_a_file_that_changes(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *large = uvm_alloc(4 << 20);
    memcpy(large, image, sizeof image);
    uvm_auto_free char *file = put_file(&w, "large", large, 4 << 20);
    struct uvm_observer observer = {cut_off, file, NULL};
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    addition.observer = &observer;
    refuse(&w, &addition, UVM_SOURCE, "did it change");
}

static void test_what_a_killed_run_left(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    put(w.dir, "uvmirror/partial/added", "half of something");
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    add_ok(&w, file, USUAL, NOW);
}

/* ---- checksums ------------------------------------------------------------------------------- */

static void fill(struct uvm_buf *buf, const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    must(uvm_buf_add(buf, text, strlen(text), &err), &err);
}

/* An unsigned checksum file that gives a sum for the image. */
static struct mirror_origin origin_with(const char *hex)
{
    struct mirror_origin origin = {.name = uvm_strdup("golden.qcow2")};
    uvm_auto_free char *text = uvm_format("%s  golden.qcow2\n", hex);
    fill(&origin.checksums, text);
    fill(&origin.signature, "a signature");
    return origin;
}

static void test_expected_sum(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    addition.sha256 = OTHER_SUM;
    refuse(&w, &addition, UVM_CONTENT, OTHER_SUM);
    addition.sha256 = "abc";
    refuse(&w, &addition, UVM_USAGE, "64");
    addition.sha256 = sum_of(UVM_SHA256);
    must(try_add(&w, &addition, NOW, &w.err), &w.err);
}

static void test_origin(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    mirror_auto_origin wrong = origin_with(OTHER_SUM), right = origin_with(sum_of(UVM_SHA512)),
                       kept = {0};
    addition.origin = &wrong;
    refuse(&w, &addition, UVM_CONTENT, OTHER_SUM);
    addition.origin = &right;
    must(try_add(&w, &addition, NOW, &w.err), &w.err);
    auto_image found = image_of(&w, PRODUCT, "1");
    assert_string_equal(found.sha512, sum_of(UVM_SHA512));
    assert_string_equal(found.sha256, sum_of(UVM_SHA256));
    must(mirror_tree_origin(w.tree, &found, &kept, &w.err), &w.err);
    assert_string_equal(kept.checksums.data, right.checksums.data);
    assert_string_equal(kept.signature.data, "a signature");
    assert_string_equal(kept.name, "golden.qcow2");
    assert_null(kept.signer);
}

static void test_both_words_must_hold(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    mirror_auto_origin origin = origin_with(sum_of(UVM_SHA256));
    addition.origin = &origin;
    addition.sha256 = OTHER_SUM;
    refuse(&w, &addition, UVM_CONTENT, "another SHA-256");
}

static void test_an_image_without_origin_has_none(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    mirror_auto_origin kept = {0};
    add_ok(&w, file, USUAL, NOW);
    auto_image found = image_of(&w, PRODUCT, "1");
    assert_false(mirror_tree_origin(w.tree, &found, &kept, &w.err));
    assert_int_equal(w.err.code, UVM_OK);
}

static void test_an_origin_that_was_damaged(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    mirror_auto_origin origin = origin_with(sum_of(UVM_SHA256)), kept = {0};
    char hex[UVM_DIGEST_HEX_MAX];
    addition.origin = &origin;
    must(try_add(&w, &addition, NOW, &w.err), &w.err);
    uvm_digest_bytes(UVM_SHA256, origin.checksums.data, origin.checksums.len, hex);
    uvm_auto_free char *name = uvm_format("uvmirror/origins/%s", hex);
    put(w.dir, name, "other");
    auto_image found = image_of(&w, PRODUCT, "1");
    assert_false(mirror_tree_origin(w.tree, &found, &kept, &w.err));
    assert_int_equal(w.err.code, UVM_CONTENT);
    uvm_error_clear(&w.err);
    /* as the advice says */
    must(try_add(&w, &addition, NOW, &w.err), &w.err);
    must(mirror_tree_origin(w.tree, &found, &kept, &w.err), &w.err);
}

/* ---- again ----------------------------------------------------------------------------------- */

static void test_again_with_other_words(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2"),
                       *renamed = put_image(&w, "renamed.qcow2");
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    mirror_auto_origin origin = origin_with(sum_of(UVM_SHA512)), kept = {0};
    addition.origin = &origin;
    must(try_add(&w, &addition, NOW, &w.err), &w.err);
    add_ok(&w, file, USUAL " os=debian", NOW + 1);
    auto_image found = image_of(&w, PRODUCT, "1");
    assert_string_equal(mirror_image_get(&found, "os"), "debian");
    /* what vouched for it still does */
    assert_string_equal(found.sha512, sum_of(UVM_SHA512));
    must(mirror_tree_origin(w.tree, &found, &kept, &w.err), &w.err);
    make_image(2);
    uvm_auto_free char *other = put_image(&w, "golden.qcow2");
    refuse_pairs(&w, other, USUAL, UVM_CONTENT, "with other bytes");
    /* under another name the file moves */
    add_ok(&w, renamed, USUAL, NOW + 2);
    assert_false(there(&w, "local/bookworm/amd64/1/golden.qcow2"));
    assert_true(there(&w, "local/bookworm/amd64/1/renamed.qcow2"));
    assert_int_equal(count_in(&w, "uvmirror/origins"), 0);
    check_held(&w, 0, PRODUCT "/1 complete");
}

static void test_again_with_other_bytes(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    add_ok(&w, file, USUAL, NOW);
    ino_t before = inode_of(&w, "local/bookworm/amd64/1/golden.qcow2");
    make_image(2);
    free(put_image(&w, "golden.qcow2"));
    refuse_pairs(&w, file, USUAL " os=x", UVM_CONTENT, "--remove");
    assert_int_equal(inode_of(&w, "local/bookworm/amd64/1/golden.qcow2"), before);
    auto_image found = image_of(&w, PRODUCT, "1");
    assert_string_equal(mirror_image_get(&found, "os"), "");
    /* another product at the same path */
    refuse_pairs(&w, file, USUAL " product=other", UVM_CONTENT, "golden.qcow2");
    assert_int_equal(inode_of(&w, "local/bookworm/amd64/1/golden.qcow2"), before);
    check_held(&w, 0, PRODUCT "/1 complete");
}

static void test_versions_of_a_product(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    add_ok(&w, file, "release=bookworm arch=amd64 version=8", NOW);
    make_image(2);
    uvm_auto_free char *newer = put_image(&w, "golden.qcow2");
    add_ok(&w, newer, "release=bookworm arch=amd64 version=9", NOW + 1);
    assert_string_equal(w.said, "");
    check_held(&w, 0, PRODUCT "/9 " PRODUCT "/8 complete");
    check_held(&w, 1, PRODUCT "/9 complete");
    add_ok(&w, newer, "release=bookworm arch=amd64 version=10", NOW + 2);
    assert_non_null(strstr(w.said, "version 9 is held already and counts as newer"));
    check_held(&w, 1, PRODUCT "/9 complete");
}

/* ---- beside others --------------------------------------------------------------------------- */

static void hold_other(struct world *w)
{
    mirror_auto_json *stream = new_stream("vendor");
    json_t *item = add(stream, "org.example:amd64", "1", "img/1", "an image");
    add(stream, "org.example:arm64", "1", "img/2", "not chosen");
    json_object_set_new(item, "release", json_string("bookworm"));
    json_object_set_new(item, "label", json_string("release"));
    fetch(w, stream, 1, "release=bookworm");
}

static void test_a_product_of_a_vendor(void **state)
{
    (void)state;
    auto_world w = new_world();
    hold_other(&w);
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    refuse_pairs(&w, file, USUAL " product=org.example:amd64", UVM_USAGE, "vendor");
    /* listed, but not held */
    refuse_pairs(&w, file, USUAL " product=org.example:arm64", UVM_USAGE, "vendor");
    check_streams(&w, "vendor");
    add_ok(&w, file, USUAL, NOW);
    check_streams(&w, MIRROR_LOCAL_ID " vendor");
    assert_true(there(&w, "img/1"));
}

static void test_two_that_uvtool_cannot_tell_apart(void **state)
{
    (void)state;
    auto_world w = new_world();
    hold_other(&w);
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    add_ok(&w, file, USUAL " label=gold", NOW);
    assert_string_equal(w.said, "");
    add_ok(&w, file, USUAL " label=release", NOW);
    assert_non_null(strstr(w.said, "org.example:amd64"));
    /* and among the added ones */
    add_ok(&w, file, USUAL " label=release product=mine", NOW);
    assert_non_null(strstr(w.said, "uvt-kvm"));
}

/* ---- from the network ------------------------------------------------------------------------ */

static void answer_image(struct server *s, int fd, const char *request, int number)
{
    (void)s, (void)number;
    if (strstr(request, "GET /a/golden%2B1.qcow2 "))
        server_ok(fd, image, sizeof image);
    else if (strstr(request, "GET /unknown ")) {
        server_say(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        server_send(fd, image, sizeof image);
    } else if (strstr(request, "GET /page "))
        server_ok(fd, "<html>sorry</html>", 18);
    else if (strstr(request, "GET /huge "))
        server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000000\r\n"
                       "Connection: close\r\n\r\nX");
    else if (strstr(request, "GET /busy "))
        server_say(fd, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    else
        server_say(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"
                       "Connection: close\r\n\r\n");
}

static void test_from_the_network(void **state)
{
    (void)state;
    auto_world w = new_world();
    struct server server = {0};
    make_image(1);
    server_start(&server, answer_image);
    uvm_auto_free char *good = uvm_format("%sa/golden%%2b1.qcow2", server.url),
                       *unknown = uvm_format("%sunknown", server.url),
                       *page = uvm_format("%spage", server.url),
                       *huge = uvm_format("%shuge", server.url),
                       *none = uvm_format("%snone", server.url);
    add_ok(&w, good, USUAL, NOW);
    assert_true(there(&w, "local/bookworm/amd64/1/golden+1.qcow2"));
    add_ok(&w, unknown, "release=a arch=b version=1", NOW);
    refuse_pairs(&w, page, "release=a arch=b version=2", UVM_CONTENT, "qemu-img");
    refuse_pairs(&w, huge, "release=a arch=b version=2", UVM_SPACE, "room");
    refuse_pairs(&w, none, "release=a arch=b version=2", UVM_SOURCE, "404");
    server_stop(&server);
}

static void test_the_network_as_asked_for(void **state)
{
    (void)state;
    auto_world w = new_world();
    struct server server = {0};
    server_start(&server, answer_image);
    uvm_auto_free char *busy = uvm_format("%sbusy", server.url);
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(busy, metadata);
    addition.network.retries = 0;
    refuse(&w, &addition, UVM_SOURCE, "503");
    assert_int_equal(atomic_load(&server.requests), 1);
    server_stop(&server);
}

/* ---- out again ------------------------------------------------------------------------------- */

static void test_remove(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    mirror_auto_json *metadata = pairs(USUAL);
    struct mirror_addition addition = addition_of(file, metadata);
    mirror_auto_origin origin = origin_with(sum_of(UVM_SHA256));
    addition.origin = &origin;
    must(try_add(&w, &addition, NOW, &w.err), &w.err);
    add_ok(&w, file, "release=bookworm arch=arm64 version=1", NOW);
    add_ok(&w, file, "release=trixie arch=amd64 version=1", NOW);
    hold_other(&w);

    const char *filter = "release=bookworm";
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    mirror_auto_removed removed = {0};
    must(mirror_filters_new(&filter, 1, NULL, &filters, &w.err), &w.err);
    must(mirror_tree_add_remove(w.tree, filters, NOW, NULL, &removed, &w.err), &w.err);
    check_paths(&removed,
                "local/bookworm/amd64/1/golden.qcow2 local/bookworm/arm64/1/golden.qcow2");
    assert_int_equal(removed.bytes, 2 * sizeof image);
    check_held(&w, 0, "local:trixie:amd64/1 complete");
    assert_false(there(&w, "local/bookworm"));
    assert_true(there(&w, "img/1")); /* the vendor's bookworm is not ours */
    assert_int_equal(count_in(&w, "uvmirror/origins"), 0);
    auto_stream *stream = local_stream(&w);
    assert_int_equal(stream->updated_at, NOW + 3);
    assert_int_equal(mirror_stream_count(stream).products, 1);

    assert_false(mirror_tree_add_remove(w.tree, filters, NOW, NULL, &removed, &w.err));
    assert_int_equal(w.err.code, UVM_FAILED);
}

static void test_remove_a_version(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    add_ok(&w, file, USUAL, NOW);
    add_ok(&w, file, "release=bookworm arch=amd64 version=2", NOW);
    const char *filter = "version_name=1";
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    mirror_auto_removed removed = {0};
    must(mirror_filters_new(&filter, 1, NULL, &filters, &w.err), &w.err);
    must(mirror_tree_add_remove(w.tree, filters, NOW, NULL, &removed, &w.err), &w.err);
    check_held(&w, 0, PRODUCT "/2 complete");
    make_image(2);
    uvm_auto_free char *other = put_image(&w, "golden.qcow2");
    add_ok(&w, other, USUAL, NOW); /* the name is free again */
}

/* What was lost is still listed, and not held, until it is added again or taken out. */
static void test_an_image_that_was_lost(void **state)
{
    (void)state;
    auto_world w = new_world();
    make_image(1);
    uvm_auto_free char *file = put_image(&w, "golden.qcow2");
    __attribute__((cleanup(mirror_checked_clear))) struct mirror_checked checked = {0};
    add_ok(&w, file, USUAL, NOW);
    add_ok(&w, file, "release=bookworm arch=amd64 version=2", NOW);
    put(w.dir, "local/bookworm/amd64/1/golden.qcow2", "other bytes");
    must(mirror_tree_check(w.tree, NULL, &checked, &w.err), &w.err);
    assert_int_equal(checked.bad.count, 1);
    check_held(&w, 0, PRODUCT "/2");
    add_ok(&w, file, "release=bookworm arch=amd64 version=3", NOW);
    check_held(&w, 0, PRODUCT "/3 " PRODUCT "/2");
    check_record(&w, MIRROR_LOCAL_ID, "images", PRODUCT "/3/disk1.img " PRODUCT "/2/disk1.img");
    add_ok(&w, file, USUAL, NOW);
    check_held(&w, 0, PRODUCT "/3 " PRODUCT "/2 " PRODUCT "/1 complete");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_the_stream_is_unsigned_and_dated),
        cmocka_unit_test(test_keys_at_will),
        cmocka_unit_test(test_an_architecture_by_another_name),
        cmocka_unit_test(test_words_that_make_no_image),
        cmocka_unit_test(test_limits_of_words),
        cmocka_unit_test(test_no_such_file),
        cmocka_unit_test(test_names_of_files),
        cmocka_unit_test(test_not_a_plain_qcow2),
        cmocka_unit_test(test_max_virtual_size),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_a_file_that_changes),
        cmocka_unit_test(test_what_a_killed_run_left),
        cmocka_unit_test(test_expected_sum),
        cmocka_unit_test(test_origin),
        cmocka_unit_test(test_both_words_must_hold),
        cmocka_unit_test(test_an_image_without_origin_has_none),
        cmocka_unit_test(test_an_origin_that_was_damaged),
        cmocka_unit_test(test_again_with_other_words),
        cmocka_unit_test(test_again_with_other_bytes),
        cmocka_unit_test(test_versions_of_a_product),
        cmocka_unit_test(test_a_product_of_a_vendor),
        cmocka_unit_test(test_two_that_uvtool_cannot_tell_apart),
        cmocka_unit_test(test_from_the_network),
        cmocka_unit_test(test_the_network_as_asked_for),
        cmocka_unit_test(test_remove),
        cmocka_unit_test(test_remove_a_version),
        cmocka_unit_test(test_an_image_that_was_lost),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}

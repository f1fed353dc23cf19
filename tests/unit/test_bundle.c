/* bundle/: writing, reading, and what an argument may name. */
#include <locale.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "bundle_world.h"

/* ---- what is good ---- */

static void test_round_trip(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of("good.tar.zst");
    UVM_AUTO(bundle_reader_free) struct bundle_reader *reader = NULL;
    must(open_bundle(path, all.trust_site, NULL, &reader, &err), &err);
    assert_string_equal(bundle_reader_name(reader), path);
    assert_string_equal(bundle_reader_signature(reader)->fingerprint,
                        uvm_signer_fingerprint(all.site));
    const struct bundle_manifest *m = bundle_reader_manifest(reader);
    assert_int_equal(m->image_count, 2);
    assert_int_equal(m->created, CREATED);
    assert_int_equal(m->serial, CREATED);
    assert_string_equal(m->streams[0]->verified_by, uvm_signer_fingerprint(all.vendor));
    assert_true(m->streams[0]->selection.products[0].complete);

    struct bundle_entry entry;
    for (size_t i = 0; i < m->member_count; i++) {
        uvm_auto_buf content = {0};
        must(bundle_reader_next(reader, &entry, &err), &err);
        assert_int_equal(entry.kind, BUNDLE_ENTRY_MEMBER);
        must(bundle_reader_slurp(reader, &content, &err), &err);
        assert_int_equal(content.len, entry.size);
    }
    must(bundle_reader_next(reader, &entry, &err), &err);
    assert_int_equal(entry.kind, BUNDLE_ENTRY_PAYLOAD);
    assert_string_equal(entry.path, "r/20241004.img");
    assert_int_equal(entry.image_count, 1);
    struct uvm_reader data = bundle_reader_data(reader);
    const void *block;
    size_t len;
    must(data.read(data.opaque, &block, &len, &err), &err);
    assert_int_equal(len, SIZE_A);
    assert_memory_equal(block, image_a, SIZE_A);
    must(data.read(data.opaque, &block, &len, &err), &err);
    assert_int_equal(len, 0);
    must(bundle_reader_next(reader, &entry, &err), &err); /* image b, not read */
    must(bundle_reader_next(reader, &entry, &err), &err);
    assert_int_equal(entry.kind, BUNDLE_ENTRY_END);
    must(bundle_reader_next(reader, &entry, &err), &err);
    assert_int_equal(entry.kind, BUNDLE_ENTRY_END);
}

/* The crafting tools themselves make bundles that pass, or all that follows proves nothing. */
static void test_crafted_is_good(void **state)
{
    (void)state;
    struct craft c = good_parts();
    uvm_auto_buf signature = {0};
    uvm_auto_free char *text = good_manifest();
    expect(&c, UVM_OK, "");
    sign_manifest(&c, all.site, text, &signature);
    expect(&c, UVM_OK, "");
}

static void test_frames(void **state)
{
    (void)state;
    struct craft c = good_parts();
    size_t first = ZSTD_findFrameCompressedSize(all.good.data, all.good.len);
    size_t second = ZSTD_findFrameCompressedSize(all.good.data + first, all.good.len - first);
    assert_int_equal(first + second + BUNDLE_TRAILER_SIZE, all.good.len);
    uvm_auto_buf head = {0}, tar = {0};
    craft_add(&head, all.good.data, first);
    craft_decode(&head, &tar);
    assert_int_equal(tar.len, 1024 + (c.parts[MANIFEST].len + 511) / 512 * 512 +
                                  (c.parts[SIGNATURE].len + 511) / 512 * 512);
    size_t end = all.tar.len - 1024; /* exactly the marker behind the last padded member */
    assert_memory_equal(all.tar.data + end - 512, c.parts[IMAGE_B].data, SIZE_B);
}

static void run(const char *command)
{
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

/* By hand with tar; and what comes out is a source that a fetch accepts. */
static void test_unpacked_is_a_source(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *command =
        uvm_format("mkdir %s/out && tar --zstd -C %s/out -xf %s/good.tar.zst && "
                   "cmp %s/out/r/20241004.img %s/source/r/20241004.img && "
                   "cmp %s/out/uvmirror/origin/" CONTENT_ID ".sjson %s/source/streams/v1/p.sjson",
                   all.dir, all.dir, all.dir, all.dir, all.dir, all.dir, all.dir);
    run(command);
    uvm_auto_free char *url = path_of("out");
    UVM_AUTO(mirror_source_free) struct mirror_source *source = NULL;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    struct mirror_source_options options = {
        .url = url, .path = "streams/v1/index.sjson", .verifier = all.trust_site};
    struct mirror_stream **streams;
    size_t count;
    mirror_auto_selection selection = {0};
    must(mirror_source_new(&options, &source, &err), &err);
    must(mirror_filters_new(NULL, 0, "amd64", &filters, &err), &err);
    must(mirror_source_streams(source, filters, &streams, &count, &err), &err);
    assert_int_equal(count, 1);
    must(mirror_stream_select(streams[0], filters, 0, &selection, &err), &err);
    assert_int_equal(selection.count, 1);
    assert_int_equal(selection.products[0].image_count, 2);
    assert_true(json_equal(selection.products[0].images[0].metadata,
                           all.selection.products[0].images[0].metadata));
    mirror_stream_free(streams[0]);
    free(streams);
}

/* Names that a plain tar header cannot hold, or that a locale would change. */
static const char *const odd_paths[] = {
    "caf\xc3\xa9/x y:%20z.img",  /* composed */
    "cafe\xcc\x81/x y:%20z.img", /* decomposed: another file */
    ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.img"),
};
#define ODD (sizeof odd_paths / sizeof *odd_paths)

static char *odd_products(void)
{
    uvm_auto_free char *list = uvm_strdup("");
    for (size_t i = 0; i < ODD; i++) {
        char hex[UVM_DIGEST_HEX_MAX];
        uvm_digest_bytes(UVM_SHA256, image_a, SIZE_A - i, hex);
        char *longer = uvm_format("%s%s\"%zu\":{\"items\":{\"i\":{\"ftype\":\"x\",\"path\":\"%s\","
                                  "\"size\":%zu,\"sha256\":\"%s\"}}}",
                                  list, i ? "," : "", i, odd_paths[i], SIZE_A - i, hex);
        free(list);
        list = longer;
    }
    return uvm_format("{\"format\":\"products:1.0\",\"content_id\":\"odd\",\"datatype\":"
                      "\"image-downloads\",\"products\":{\"odd\":{\"versions\":{%s}}}}\n",
                      list);
}

static void put_odd(void)
{
    for (size_t i = 0; i < ODD; i++) {
        uvm_auto_free char *name = uvm_format("source/%s", odd_paths[i]);
        put(name, image_a, SIZE_A - i);
    }
}

static void test_odd_names(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *text = odd_products();
    uvm_auto_free char *url = path_of("source");
    uvm_auto_free char *dir = path_of("odd-mirror");
    uvm_auto_free char *output = path_of("odd.tar.zst");
    UVM_AUTO(mirror_source_free) struct mirror_source *source = NULL;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = NULL;
    UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = NULL;
    mirror_auto_selection selection = {0};
    struct mirror_source_options from = {
        .url = url, .path = "p.json", .network = MIRROR_NETWORK_DEFAULT};
    static const char *const any[] = {"ftype~.", "datatype~."};
    must(mirror_source_new(&from, &source, &err), &err);
    must(mirror_filters_new(any, 2, NULL, &filters, &err), &err);
    must(mirror_stream_parse(text, strlen(text), &stream, &err), &err);
    must(mirror_stream_select(stream, filters, 0, &selection, &err), &err);
    must(mirror_tree_open(dir, &tree, &err), &err);
    put_odd();
    fetch_into(tree, source, &selection);

    struct bundle_create_options options = create_options(output);
    const struct mirror_stream *const streams[] = {stream};
    struct bundle_created created = {0};
    options.tree = tree;
    options.streams = streams;
    options.selections = &selection;
    setlocale(LC_ALL, "C.UTF-8");
    must(bundle_create(&options, &created, &err), &err);
    enum uvm_code code = verify_as(output, all.trust_site, NULL);
    setlocale(LC_ALL, "C");
    assert_int_equal(code, UVM_OK);
    assert_int_equal(verify_as(output, all.trust_site, NULL), UVM_OK);
    bundle_created_clear(&created);
    for (size_t i = 0; i < ODD; i++) {
        uvm_auto_free char *command =
            uvm_format("tar --zstd -xOf %s '%s' 2>%s/tar.err | cmp - '%s/source/%s'", output,
                       odd_paths[i], all.dir, all.dir, odd_paths[i]);
        run(command);
    }
}

static void test_folder_output_and_serials(void **state)
{
    (void)state;
    uvm_auto_free char *folder = path_of("sticks/");
    put("sticks/unrelated.txt", "x", 1);
    struct bundle_created first = {0}, second = {0};
    create(folder, &first);
    create(folder, &second);
    assert_true(second.manifest->serial > first.manifest->serial);
    assert_string_not_equal(first.path, second.path);
    assert_string_not_equal(first.manifest->id, second.manifest->id);
    uvm_auto_free char *name = bundle_file_name(second.manifest);
    assert_string_equal(strrchr(second.path, '/') + 1, name);
    uvm_auto_free char *kept = uvm_format("%s/mirror/uvmirror/bundles/%s/%s", all.dir,
                                          second.manifest->id, BUNDLE_MANIFEST_NAME);
    assert_int_equal(access(kept, F_OK), 0);
    bundle_created_clear(&first);
    bundle_created_clear(&second);
}

static void test_estimate(void **state)
{
    (void)state;
    struct bundle_create_options options = create_options(".");
    uint64_t estimate = bundle_estimate(&options);
    assert_true(estimate >= all.good.len);
}

/* What the stage writes is what zstd reads, and empty space costs nothing. */
static void check_stage(const char *data, size_t len, size_t step)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of("stage");
    uvm_auto_buf file = {0}, decoded = {0};
    uvm_auto_fd fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct bundle_file out;
    bundle_file_init(&out, fd, "stage", BUNDLE_UNHASHED);
    UVM_AUTO(bundle_stage_free)
    struct bundle_stage *stage = bundle_stage_new((struct bundle_sink){bundle_file_write, &out});
    for (size_t at = 0; at < len; at += step)
        must(bundle_stage_write(stage, data + at, len - at < step ? len - at : step, &err), &err);
    must(bundle_stage_end_frame(stage, &err), &err);
    must(uvm_file_read(path, 16 << 20, &file, &err), &err);
    assert_int_equal(bundle_stage_bytes(stage), file.len);
    assert_int_equal(ZSTD_findFrameCompressedSize(file.data, file.len), file.len);
    craft_decode(&file, &decoded);
    assert_int_equal(decoded.len, len);
    assert_memory_equal(decoded.data, data, len);
    assert_true(file.len < len / 2 || len < 1 << 20);
}

static void test_stage(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 31, 32, 39, 45, 131072, 262144, 262145, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t len = sizes[i];
        uvm_auto_free char *data = uvm_alloc(len + 1);
        fill(data, len < 4096 ? len : len / 3, (unsigned)len);
        check_stage(data, len, len);
        check_stage(data, len, 1 + len / 7);
    }
}

static void test_standard_input(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_true(all.good.len < 65536);
    assert_int_equal(write(ends[1], all.good.data, all.good.len), all.good.len);
    close(ends[1]);
    uvm_auto_fd saved = dup(STDIN_FILENO);
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    enum uvm_code code = verify_as("-", all.trust_site, NULL);
    dup2(saved, STDIN_FILENO);
    assert_int_equal(code, UVM_OK);
}

/* ---- arguments ---- */

static void expect_argument(const char *argument, enum uvm_code code, const char *reason)
{
    uvm_auto_free char *message = NULL;
    enum uvm_code got = verify_as(argument, all.trust_site, &message);
    if (got != code || !strstr(message, reason))
        fail_msg("%s: expected %d with \"%s\", got %d: %s", argument, code, reason, got, message);
}

static void test_other_files(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t len;
        const char *kind;
    } files[] = {
        {"", 0, "an empty file"},
        {"\x1f\x8b\x08", 3, "gzip data"},
        {"\xfd"
         "7zXZ\0abc",
         9, "xz data"},
        {"PK\3\4abc", 7, "a zip archive"},
        {"070701000", 9, "a cpio archive"},
        {"hello", 5, "unknown data"},
        {"\x50\x2a\x4d\x18\0\0\0\0", 8, "unknown data"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        uvm_auto_free char *message = NULL;
        assert_int_equal(verify_bytes(files[i].data, files[i].len, &message), UVM_CONTENT);
        assert_non_null(strstr(message, files[i].kind));
    }
    uvm_auto_free char *message = NULL;
    assert_int_equal(verify_bytes(all.tar.data, all.tar.len, &message), UVM_CONTENT);
    assert_non_null(strstr(message, "an uncompressed tar archive"));
}

static void test_other_archive(void **state)
{
    (void)state;
    struct craft c = {.count = 1, .frame1 = 1, .marker = 1024, .window_log = BUNDLE_WINDOW_LOG};
    c.parts[0] = craft_part("README", '0', "hello", 5);
    expect(&c, UVM_CONTENT, "found README in the place of");
}

static void test_not_a_file(void **state)
{
    (void)state;
    uvm_auto_free char *fifo = path_of("fifo");
    uvm_auto_free char *missing = path_of("missing");
    uvm_auto_free char *empty = path_of("empty");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(mkdir(empty, 0700), 0);
    expect_argument(fifo, UVM_FAILED, "a FIFO");
    expect_argument("/dev/zero", UVM_FAILED, "a device");
    expect_argument(missing, UVM_FAILED, "No such file");
    expect_argument(empty, UVM_FAILED, "no bundle");
}

static size_t warnings;
static void count_warnings(void *opaque, const struct uvm_event *event)
{
    (void)opaque;
    warnings += event->kind == UVM_EVENT_WARNING;
}

/* Names and times of files play no part. */
static void test_newest_of_a_folder(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *folder = path_of("folder");
    uvm_auto_free char *a = path_of("folder/a.tar.zst");
    uvm_auto_free char *b = path_of("folder/b.tar.zst");
    put("folder/z.tar.zst", all.good.data, all.good.len);
    struct bundle_created older = {0}, newer = {0};
    create(b, &older);
    create(a, &newer);
    struct craft c = good_parts();
    uvm_auto_buf signature = {0}, file = {0};
    uvm_auto_free char *text = good_manifest();
    sign_manifest(&c, all.stranger, text, &signature);
    craft_join(&c, &file);
    put("folder/stranger.tar.zst", file.data, file.len);
    put("folder/.hidden.tar.zst", "x", 1);
    put("folder/other.txt", "x", 1);

    UVM_AUTO(bundle_reader_free) struct bundle_reader *reader = NULL;
    struct uvm_observer observer = {.event = count_warnings};
    warnings = 0;
    must(open_bundle(folder, all.trust_site, &observer, &reader, &err), &err);
    assert_string_equal(bundle_reader_name(reader), a);
    assert_int_equal(bundle_reader_manifest(reader)->serial, newer.manifest->serial);
    assert_int_equal(warnings, 1);
    bundle_created_clear(&older);
    bundle_created_clear(&newer);
}

static void test_folder_of_refused(void **state)
{
    (void)state;
    uvm_auto_free char *folder = path_of("refused");
    put("refused/a.tar.zst", "hello", 5);
    expect_argument(folder, UVM_CONTENT, "unknown data");
}

static void test_freed_early(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of("good.tar.zst");
    struct bundle_reader *reader = NULL;
    struct bundle_entry entry;
    must(open_bundle(path, all.trust_site, NULL, &reader, &err), &err);
    bundle_reader_free(reader);
    must(open_bundle(path, all.trust_site, NULL, &reader, &err), &err);
    must(bundle_reader_next(reader, &entry, &err), &err);
    bundle_reader_free(reader);
}

/* A sender that stalls: freeing the reader must not wait for it. */
static void test_freed_while_waiting(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    int ends[2];
    struct bundle_reader *reader = NULL;
    struct bundle_entry entry;
    atomic_bool stop = 0;
    struct uvm_observer observer = {.stop = &stop};
    assert_int_equal(pipe(ends), 0);
    size_t len = ZSTD_findFrameCompressedSize(all.good.data, all.good.len) + 1;
    assert_int_equal(write(ends[1], all.good.data, len), len);
    uvm_auto_fd saved = dup(STDIN_FILENO);
    dup2(ends[0], STDIN_FILENO);
    bool opened = open_bundle("-", all.trust_site, &observer, &reader, &err);
    dup2(saved, STDIN_FILENO);
    must(opened, &err);
    stop = 1;
    assert_false(bundle_reader_next(reader, &entry, &err));
    assert_int_equal(err.code, UVM_INTERRUPTED);
    bundle_reader_free(reader);
    close(ends[0]);
    close(ends[1]);
}

/* ---- writing that fails ---- */

static void expect_create_fails(const char *output, enum uvm_code code, const char *reason)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_create_options options = create_options(output);
    struct bundle_created created = {0};
    assert_false(bundle_create(&options, &created, &err));
    if (err.code != code || !strstr(err.message, reason))
        fail_msg("expected %d with \"%s\", got %d: %s", code, reason, err.code, err.message);
    assert_null(created.manifest);
}

static void expect_empty_folder(const char *folder)
{
    uvm_auto_free char *command = uvm_format("test -z \"$(ls -A %s)\"", folder);
    run(command);
}

static void test_changed_mirror(void **state)
{
    (void)state;
    uvm_auto_free char *folder = path_of("changed");
    assert_int_equal(mkdir(folder, 0700), 0);
    char other[SIZE_B];
    fill(other, SIZE_B, 99);
    put("mirror/r/20241001.img", other, SIZE_B);
    expect_create_fails(folder, UVM_CONTENT, "r/20241001.img");
    expect_empty_folder(folder);
    put("mirror/r/20241001.img", image_b, SIZE_B);
}

static void test_no_space(void **state)
{
    (void)state;
    uvm_auto_free char *folder = path_of("full");
    assert_int_equal(mkdir(folder, 0700), 0);
    struct rlimit before, small = {1500, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_create_options options = create_options(folder);
    struct bundle_created created = {0};
    bool ok = bundle_create(&options, &created, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_false(ok);
    assert_int_equal(err.code, UVM_SPACE);
    expect_empty_folder(folder);
}

static void test_no_such_folder(void **state)
{
    (void)state;
    uvm_auto_free char *output = path_of("nowhere/x.tar.zst");
    expect_create_fails(output, UVM_FAILED, "nowhere");
}

static void test_interrupted(void **state)
{
    (void)state;
    uvm_auto_free char *folder = path_of("interrupted");
    assert_int_equal(mkdir(folder, 0700), 0);
    atomic_bool stop = 1;
    struct uvm_observer observer = {.stop = &stop};
    struct bundle_create_options options = create_options(folder);
    options.observer = &observer;
    struct bundle_created created = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_false(bundle_create(&options, &created, &err));
    assert_int_equal(err.code, UVM_INTERRUPTED);
    expect_empty_folder(folder);
}

static void test_broken_pipe(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    uvm_auto_fd saved = dup(STDOUT_FILENO);
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_create_options options = create_options("-");
    struct bundle_created created = {0};
    dup2(ends[1], STDOUT_FILENO);
    bool ok = bundle_create(&options, &created, &err);
    dup2(saved, STDOUT_FILENO);
    close(ends[1]);
    assert_false(ok);
    assert_non_null(strstr(err.message, "Broken pipe"));
}

static void test_nothing_selected(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_selection nothing = {0};
    struct bundle_create_options options = create_options("/nonexistent");
    struct bundle_created created = {0};
    options.selections = &nothing;
    assert_false(bundle_create(&options, &created, &err));
    assert_int_equal(err.code, UVM_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_crafted_is_good),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_unpacked_is_a_source),
        cmocka_unit_test(test_odd_names),
        cmocka_unit_test(test_folder_output_and_serials),
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_stage),
        cmocka_unit_test(test_standard_input),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_other_archive),
        cmocka_unit_test(test_not_a_file),
        cmocka_unit_test(test_newest_of_a_folder),
        cmocka_unit_test(test_folder_of_refused),
        cmocka_unit_test(test_freed_early),
        cmocka_unit_test(test_freed_while_waiting),
        cmocka_unit_test(test_changed_mirror),
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_no_such_folder),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_broken_pipe),
        cmocka_unit_test(test_nothing_selected),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

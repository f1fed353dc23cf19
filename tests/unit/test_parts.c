/* bundle/: sums, parts and what is read back from media; and that bytes come out the same again. */
#include "bundle_world.h"

#define PART 300

/* ---- sums ---- */

static struct bundle_sums make_sums(size_t count)
{
    struct bundle_sums s = {.name = uvm_strdup("x.tar.zst"),
                            .id = uvm_strdup("uvmirror-20241004T093000Z-1f2e3d4c"),
                            .serial = CREATED,
                            .encoder = bundle_encoder_text()};
    for (size_t i = 0; i < count; i++) {
        struct bundle_part *part = bundle_sums_add(&s);
        part->size = i + 1 < count ? PART : 7;
        uvm_digest_bytes(UVM_SHA256, &i, sizeof i, part->sha256);
        uvm_digest_bytes(UVM_SHA256, &part->size, sizeof part->size, part->head);
    }
    return s;
}

static void check_round_trip(size_t count)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0}, file = {0}, unwrapped = {0};
    __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums s = make_sums(count);
    __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums back = {0};
    must(bundle_sums_text(&s, &text, &err), &err);
    must(bundle_sums_wrap(&text, &file, &err), &err);
    must(bundle_sums_unwrap(&file, &unwrapped, &err), &err);
    for (size_t i = 0; i < file.len; i++)
        assert_true((unsigned char)file.data[i] < 0x80);
    assert_int_equal(ZSTD_findFrameCompressedSize(file.data, file.len), file.len);
    assert_memory_equal(unwrapped.data, text.data, text.len);
    must(bundle_sums_parse(text.data, text.len, &back, &err), &err);
    assert_string_equal(back.name, s.name);
    assert_string_equal(back.id, s.id);
    assert_int_equal(back.serial, s.serial);
    assert_int_equal(back.count, count);
    assert_memory_equal(back.parts, s.parts, count * sizeof *s.parts);
}

static void test_sums(void **state)
{
    (void)state;
    for (size_t count = 1; count < 40; count++)
        check_round_trip(count);
    check_round_trip(BUNDLE_PARTS_MAX);
}

static void refuse_sums(const char *text, const char *reason)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_sums s = {0};
    assert_false(bundle_sums_parse(text, strlen(text), &s, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    if (!strstr(err.message, reason))
        fail_msg("%s: expected \"%s\" for:\n%s", err.message, reason, text);
}

/* The text with the first `from` replaced. */
static char *changed(const struct uvm_buf *text, const char *from, const char *to)
{
    const char *at = strstr(text->data, from);
    assert_non_null(at);
    return uvm_format("%.*s%s%s", (int)(at - text->data), text->data, to, at + strlen(from));
}

static void test_sums_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *reason;
    } cases[] = {
        {"# uvmirror-parts 1", "# uvmirror-parts 2", "version 2"},
        {"# uvmirror-parts 1", "#uvmirror-parts 1", "not the sums"},
        {"# bundle uvmirror", "# bundle ../uvmirror", "line 2"},
        {"# bundle ", "# bundle_ ", "line 2"},
        {"# serial 1", "# serial 99999999999991", "line 3"},
        {"# serial 1", "# serial 01", "not written"},
        {"# serial 1", "# serial -1", "line 3"},
        {"# encoder ", "# encoder \033", "line 4"},
        {"# encoder ", "", "line 4"},
        {"300 bytes", "0 bytes", "line 5"},
        {"300 bytes", "301 bytes", "one size"},
        {"300 bytes", "18446744073709551916 bytes", "line 5"},
        {"300 bytes", "300 byte", "line 5"},
        {"7 bytes", "301 bytes", "one size"},
        {"  x.tar.zst.001", " *x.tar.zst.001", "line 6"},
        {"  x.tar.zst.001", "  x.tar.zst.002", "not written"},
        {"  x.tar.zst.001", "  a/x.tar.zst.001", "line 6"},
        {"  x.tar.zst.001", "  y.tar.zst.001", "not written"},
        {"  x.tar.zst.001", "  001", "line 6"},
        {"x.tar.zst.001", "x.tar.zst.001\n", "line 7"},
        {"x.tar.zst.003", "x.tar.zst.003\n# part of 1 bytes", "line 11"},
    };
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0};
    __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums s = make_sums(3);
    must(bundle_sums_text(&s, &text, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uvm_auto_free char *other = changed(&text, cases[i].from, cases[i].to);
        refuse_sums(other, cases[i].reason);
    }
    refuse_sums("", "not the sums");
    refuse_sums("# uvmirror-parts 1\n", "line 2");
}

/* ---- bytes in memory, cut into parts ---- */

static void write_parts(const char *path, const struct uvm_buf *data, uint64_t size, size_t step,
                        struct bundle_sums *ret_sums)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_parts_options options = {.part_size = size, .read_back = BUNDLE_READ_BACK_ALWAYS};
    UVM_AUTO(bundle_parts_free) struct bundle_parts *parts = NULL;
    const struct bundle_sums *made = NULL;
    uvm_auto_buf text = {0}, signed_text = {0}, file = {0};
    must(bundle_parts_new(path, &options, &parts, &err), &err);
    struct bundle_sink sink = bundle_parts_sink(parts);
    for (size_t at = 0; at < data->len; at += step) {
        size_t len = data->len - at < step ? data->len - at : step;
        must(sink.write(sink.opaque, data->data + at, len, &err), &err);
    }
    must(bundle_parts_finish(parts, &made, &err), &err);
    *ret_sums = make_sums(0);
    for (size_t i = 0; i < made->count; i++)
        *bundle_sums_add(ret_sums) = made->parts[i];
    struct craft c = good_parts();
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    must(bundle_manifest_parse(c.parts[MANIFEST].data, c.parts[MANIFEST].len, &m, &err), &err);
    free(ret_sums->id);
    ret_sums->id = uvm_strdup(m->id);
    ret_sums->serial = m->serial;
    must(bundle_sums_text(ret_sums, &text, &err), &err);
    must(uvm_signer_clearsigned(all.site, text.data, text.len, &signed_text, &err), &err);
    must(bundle_sums_wrap(&signed_text, &file, &err), &err);
    must(bundle_parts_commit(parts, made->count > 1 ? &file : NULL, &err), &err);
}

static void check_part(const char *path, size_t number, const char *data, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *name = number ? bundle_part_name(path, number) : uvm_strdup(path);
    uvm_auto_buf file = {0};
    must(uvm_file_read(name, 1 << 20, &file, &err), &err);
    assert_int_equal(file.len, len);
    assert_memory_equal(file.data, data, len);
}

/* Whatever the cuts and the calls: the parts in a row are the stream. */
static void test_cuts(void **state)
{
    (void)state;
    size_t len = all.good.len;
    const size_t sizes[] = {len / 9, PART, len / 2, len - 1, len, len + 1};
    const size_t steps[] = {1, PART - 1, len};
    uvm_auto_free char *folder = path_of("cuts");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
            uvm_auto_error err = UVM_ERROR_INIT;
            uvm_auto_free char *path = path_of("cuts/x.tar.zst");
            __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums sums = {0};
            must(uvm_make_dirs(folder, 0755, &err), &err);
            write_parts(path, &all.good, sizes[i], steps[k], &sums);
            size_t count = (len + sizes[i] - 1) / sizes[i];
            assert_int_equal(sums.count, count);
            for (size_t n = 0; n < count; n++) {
                size_t at = n * sizes[i], left = len - at;
                check_part(path, count > 1 ? n + 1 : 0, all.good.data + at,
                           left < sizes[i] ? left : sizes[i]);
            }
            assert_int_equal(verify_as(folder, all.trust_site, NULL), UVM_OK);
            must(uvm_remove_tree(folder, &err), &err);
        }
}

/* Nothing of it is left by one that is given up. */
static void test_given_up(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *folder = path_of("given-up");
    uvm_auto_free char *path = path_of("given-up/x.tar.zst");
    struct bundle_parts_options options = {.part_size = PART};
    struct bundle_parts *parts = NULL;
    must(uvm_make_dirs(folder, 0755, &err), &err);
    must(bundle_parts_new(path, &options, &parts, &err), &err);
    struct bundle_sink sink = bundle_parts_sink(parts);
    must(sink.write(sink.opaque, all.good.data, all.good.len, &err), &err);
    bundle_parts_free(parts);
    assert_int_equal(rmdir(folder), 0);
}

/* ---- reading ---- */

/* Every part missing, cut off, or with a bit flipped in it: refused. */
static void test_every_part_counts(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *folder = path_of("each");
    uvm_auto_free char *path = path_of("each/x.tar.zst");
    __attribute__((cleanup(bundle_sums_clear))) struct bundle_sums sums = {0};
    must(uvm_make_dirs(folder, 0755, &err), &err);
    write_parts(path, &all.good, all.good.len / 6, 1000, &sums);
    for (size_t n = 1; n <= sums.count; n++) {
        uvm_auto_free char *part = bundle_part_name(path, n);
        uvm_auto_free char *away = path_of("away");
        uvm_auto_buf whole = {0};
        must(uvm_file_read(part, 1 << 20, &whole, &err), &err);
        assert_int_equal(rename(part, away), 0);
        assert_int_equal(verify_as(folder, all.trust_site, NULL), UVM_FAILED);
        must(uvm_file_replace(part, 0644, whole.data, whole.len - 1, &err), &err);
        assert_int_equal(verify_as(folder, all.trust_site, NULL), UVM_CONTENT);
        whole.data[whole.len / 2] ^= 4;
        must(uvm_file_replace(part, 0644, whole.data, whole.len, &err), &err);
        assert_int_equal(verify_as(folder, all.trust_site, NULL), UVM_CONTENT);
        assert_int_equal(rename(away, part), 0);
    }
    assert_int_equal(verify_as(folder, all.trust_site, NULL), UVM_OK);
    assert_int_equal(verify_as(folder, all.trust_vendor, NULL), UVM_TRUST);
}

static void test_part_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t number;
    } cases[] = {{"x.001", 1},  {"a/x.tar.zst.999", 999},
                 {"x.000", 0},  {"x.01", 0},
                 {".001", 0},   {"x.0a1", 0},
                 {"x.1000", 0}, {"x001", 0},
                 {"", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(bundle_part_number(cases[i].path, NULL), cases[i].number);
}

/* ---- read back ---- */

static void test_read_back(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of("back");
    uvm_auto_fd fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    char sha256[UVM_DIGEST_HEX_MAX];
    struct bundle_file file;
    bundle_file_init(&file, fd, "back", BUNDLE_HASHED);
    must(bundle_file_write(&file, all.good.data, all.good.len, &err), &err);
    must(bundle_file_sync(&file, sha256, &err), &err);
    struct bundle_check check = {.step = "x", .name = "back", .size = file.bytes, .sha256 = sha256};
    must(bundle_file_read_back(fd, &check, NULL, &err), &err);
    const struct {
        off_t at;
        size_t len;
    } wrong[] = {{0, 1}, {(off_t)all.good.len, 1}, {(off_t)all.good.len - 1, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uvm_error_clear(&err);
        assert_int_equal(pwrite(fd, "\n", wrong[i].len, wrong[i].at), wrong[i].len);
        assert_false(bundle_file_read_back(fd, &check, NULL, &err));
        assert_int_equal(err.code, UVM_CONTENT);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, all.good.data, all.good.len, 0), all.good.len);
    }
    bundle_file_clear(&file);
}

/* ---- the same bytes again ---- */

static bool collect(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    return uvm_buf_add(opaque, data, len, err);
}

static void encode(const char *data, size_t len, size_t step, struct uvm_buf *out)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(bundle_stage_free)
    struct bundle_stage *stage = bundle_stage_new((struct bundle_sink){collect, out});
    for (size_t at = 0; at < len; at += step)
        must(bundle_stage_write(stage, data + at, len - at < step ? len - at : step, &err), &err);
    must(bundle_stage_end_frame(stage, &err), &err);
    must(bundle_stage_end(stage, &err), &err);
}

/* A bundle that was written while its images came in, in any pieces, and one of images that were
 * there: parts of the one can be taken from the other. */
static void test_pieces_do_not_matter(void **state)
{
    (void)state;
    static const size_t steps[] = {1000, 4096, 65536, 131071, 1 << 20, 3000001};
    size_t len = (size_t)13 << 20;
    uvm_auto_free char *data = uvm_alloc(len);
    uvm_auto_buf first = {0};
    fill(data, len / 2, 7);                               /* does not compress */
    for (size_t i = len / 2; i + 9 < len * 3 / 4; i += 9) /* compresses */
        snprintf(data + i, 10, "%08zu ", i * 31 % 100000000);
    encode(data, len, len, &first);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        uvm_auto_buf other = {0};
        encode(data, len, steps[i], &other);
        assert_int_equal(other.len, first.len);
        assert_memory_equal(other.data, first.data, first.len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_sums_refused),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_given_up),
        cmocka_unit_test(test_every_part_counts),
        cmocka_unit_test(test_part_numbers),
        cmocka_unit_test(test_read_back),
        cmocka_unit_test(test_pieces_do_not_matter),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

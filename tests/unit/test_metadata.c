/* test_metadata.c: metadata files: their text, and how they come and go. */
#include "pool/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NAME "x-uvt-b64-cCB2" /* product "p", version "v" */
#define TEXT "{\n    \"product_name\": \"p\",\n    \"version_name\": \"v\"\n}"

/* What Python 3 prints for the same dictionary. */
static void prints_as_python_does(void **state)
{
    (void)state;
    mirror_auto_json *metadata = json_object();
    json_object_set_new(metadata, "release", json_string("noble"));
    json_object_set_new(metadata, "odd \"key\"\\", json_string("a/b\b\f\n\r\t\x01\x1f\x7f"));
    json_object_set_new(metadata, "name",
                        json_string("Gr\xc3\xb6\xc3\x9f"
                                    "e \xf0\x9f\x98\x80 \xe2\x82\xac"));
    json_object_set_new(metadata, "empty", json_string(""));
    uvm_auto_free char *text = pool_metadata_text(metadata);
    assert_string_equal(
        text, "{\n"
              "    \"release\": \"noble\",\n"
              "    \"odd \\\"key\\\"\\\\\": \"a/b\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\",\n"
              "    \"name\": \"Gr\\u00f6\\u00dfe \\ud83d\\ude00 \\u20ac\",\n"
              "    \"empty\": \"\"\n"
              "}");

    mirror_auto_json *again = json_loads(text, 0, NULL);
    assert_true(json_equal(again, metadata));
}

static void prints_an_empty_object(void **state)
{
    (void)state;
    mirror_auto_json *metadata = json_object();
    uvm_auto_free char *text = pool_metadata_text(metadata);
    assert_string_equal(text, "{}");
}

/* ---- files ---- */

static int make_folder(void **state)
{
    struct pool *p = uvm_alloc(sizeof(*p));
    char dir[] = "/tmp/test_metadata.XXXXXX";
    if (!mkdtemp(dir))
        return -1;
    p->metadata_dir = uvm_strdup(dir);
    *state = p;
    return 0;
}

static int remove_folder(void **state)
{
    struct pool *p = *state;
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = uvm_remove_tree(p->metadata_dir, &err);
    free(p->metadata_dir);
    free(p);
    return ok ? 0 : -1;
}

static void put(const struct pool *p, const char *name, const char *text)
{
    uvm_auto_free char *path = pool_metadata_path(p, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static size_t names(const struct pool *p)
{
    uvm_auto_strings list = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_true(pool_metadata_names(p, &list, &err));
    return list.count;
}

static void links_reads_and_unlinks(void **state)
{
    const struct pool *p = *state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = pool_metadata_path(p, NAME);
    struct stat st;
    mode_t before = umask(0077);

    assert_true(pool_metadata_link(p, NAME, TEXT, &err));
    umask(before);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(names(p), 1);
    mirror_auto_json *metadata = pool_metadata_read(p, NAME, "p", "v");
    assert_string_equal(json_string_value(json_object_get(metadata, "version_name")), "v");

    assert_true(pool_metadata_unlink(p, NAME, &err));
    assert_int_equal(names(p), 0);
    assert_true(pool_metadata_unlink(p, NAME, &err)); /* absence is success */
}

static void leaves_an_equal_file_and_replaces_another(void **state)
{
    const struct pool *p = *state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = pool_metadata_path(p, NAME);
    struct stat first, second;

    assert_true(pool_metadata_link(p, NAME, TEXT, &err));
    assert_int_equal(stat(path, &first), 0);
    assert_true(pool_metadata_link(p, NAME, TEXT, &err));
    assert_int_equal(stat(path, &second), 0);
    assert_int_equal(first.st_ino, second.st_ino);

    put(p, NAME, "{}");
    assert_true(pool_metadata_link(p, NAME, TEXT, &err));
    mirror_auto_json *metadata = pool_metadata_read(p, NAME, "p", "v");
    assert_non_null(metadata);
    assert_int_equal(names(p), 1);
}

static void does_not_believe_unsound_files(void **state)
{
    const struct pool *p = *state;
    static const char *const texts[] = {
        "",
        "{}",
        "[]",
        "{\"product_name\": \"p\", \"version_name\": \"w\"}",
        "{\"product_name\": \"q\", \"version_name\": \"v\"}",
        "{\"product_name\": \"p\", \"version_name\": \"v\", \"size\": 1}",
        "{\"product_name\": \"p\", \"version_name\": \"v\"",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        put(p, NAME, texts[i]);
        assert_null(pool_metadata_read(p, NAME, "p", "v"));
    }
}

static void tells_a_missing_folder_from_an_empty_one(void **state)
{
    struct pool *p = *state;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct pool gone = *p;
    gone.metadata_dir = uvm_format("%s/not/there", p->metadata_dir);
    bool exists = true;

    uvm_auto_strings list = {0};
    assert_true(pool_metadata_writable(p, &err));
    assert_false(pool_metadata_names(&gone, &list, &err));
    assert_int_equal(err.sys_errno, ENOENT);
    uvm_error_clear(&err);
    assert_false(pool_metadata_writable(&gone, &err));
    assert_int_equal(err.code, UVM_LIBVIRT);
    uvm_error_clear(&err);

    assert_true(pool_metadata_exists(&gone, NAME, &exists, &err));
    assert_false(exists);
    assert_true(pool_metadata_unlink(&gone, NAME, &err));
    assert_false(pool_metadata_link(&gone, NAME, TEXT, &err));
    assert_int_equal(err.sys_errno, ENOENT);
    free(gone.metadata_dir);
}

static void leads_nowhere_else(void **state)
{
    const struct pool *p = *state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = pool_metadata_path(p, NAME);
    struct stat st;

    put(p, "other", TEXT);
    assert_int_equal(symlink("other", path), 0);
    assert_null(pool_metadata_read(p, NAME, "p", "v"));
    assert_true(pool_metadata_link(p, NAME, TEXT, &err)); /* equal content is not enough */
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));

    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_null(pool_metadata_read(p, NAME, "p", "v")); /* and it does not wait for a writer */
    assert_true(pool_metadata_link(p, NAME, TEXT, &err));
    mirror_auto_json *metadata = pool_metadata_read(p, NAME, "p", "v");
    assert_non_null(metadata);
}

static void a_folder_is_no_metadata(void **state)
{
    const struct pool *p = *state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = pool_metadata_path(p, NAME);
    bool exists = true;
    assert_false(pool_metadata_is_folder(p, NAME));
    assert_int_equal(mkdir(path, 0700), 0);
    assert_true(pool_metadata_is_folder(p, NAME));
    assert_true(pool_metadata_exists(p, NAME, &exists, &err));
    assert_false(exists);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prints_as_python_does),
        cmocka_unit_test(prints_an_empty_object),
        cmocka_unit_test_setup_teardown(links_reads_and_unlinks, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(leaves_an_equal_file_and_replaces_another, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(does_not_believe_unsound_files, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(leads_nowhere_else, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_folder_is_no_metadata, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(tells_a_missing_folder_from_an_empty_one, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

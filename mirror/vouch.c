/*
 * The origins that added images came with:
 *
 *     uvmirror/origins/<sha256 of the image's path>.json
 *         { "format": 1, "path": "<of the image>", "name": "<in the checksum file>",
 *           "signer": "<fingerprint>" or null,
 *           "checksums": "<sha256>", "signature": "<sha256>" or null }
 *     uvmirror/origins/<sha256>     a checksum file or a signature, byte for byte
 *
 * One checksum file often speaks of several images. The record is written last, and what no record
 * names is removed after that.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/local.h"

#define ORIGINS_DIR   "uvmirror/origins"
#define RECORD_FORMAT 1
#define RECORD_MAX    ((size_t)16 << 10)
#define RECORD_SUFFIX ".json"
#define FILE_MODE     0644

static char *file_in(const struct mirror_tree *t, const char *name)
{
    return uvm_format("%s/" ORIGINS_DIR "/%s", t->dir, name);
}

static char *record_name(const struct mirror_image *image)
{
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA256, image->path, strlen(image->path), hex);
    return uvm_format("%s" RECORD_SUFFIX, hex);
}

/* ---- keeping ---- */

/* *ret_name stays NULL for nothing. The caller frees it. */
static bool keep_bytes(const struct mirror_tree *t, const struct uvm_buf *bytes, char **ret_name,
                       struct uvm_error *err)
{
    char hex[UVM_DIGEST_HEX_MAX];
    if (bytes->len == 0)
        return true;
    uvm_digest_bytes(UVM_SHA256, bytes->data, bytes->len, hex);
    uvm_auto_free char *file = file_in(t, hex);
    if (!uvm_file_replace(file, FILE_MODE, bytes->data, bytes->len, err))
        return false;
    *ret_name = uvm_strdup(hex);
    return true;
}

static bool keep_record(const struct mirror_tree *t, const struct mirror_image *image,
                        const struct mirror_origin *origin, const char *checksums,
                        const char *signature, struct uvm_error *err)
{
    uvm_auto_free char *name = record_name(image);
    uvm_auto_free char *file = file_in(t, name);
    mirror_auto_json *record = json_pack(
        "{s:i, s:s, s:s, s:s?, s:s, s:s?}", "format", RECORD_FORMAT, "path", image->path, "name",
        origin->name, "signer", origin->signer, "checksums", checksums, "signature", signature);
    uvm_auto_free char *text = record ? json_dumps(record, JSON_INDENT(1)) : NULL;
    if (!text)
        abort();
    return uvm_file_replace(file, FILE_MODE, text, strlen(text), err);
}

bool mirror_vouch_keep(struct mirror_tree *t, const struct mirror_image *image,
                       const struct mirror_origin *origin, struct uvm_error *err)
{
    uvm_auto_fd fd = -1;
    uvm_auto_free char *checksums = NULL, *signature = NULL;
    const char *last;
    if (!mirror_beneath_parent(t->root_fd, ORIGINS_DIR "/", &fd, &last, err) ||
        !keep_bytes(t, &origin->checksums, &checksums, err) ||
        !keep_bytes(t, &origin->signature, &signature, err) ||
        !keep_record(t, image, origin, checksums, signature, err))
        return uvm_prefix(err, "cannot keep the checksum file");
    return true;
}

/* ---- reading ---- */

static const char *text_of(const json_t *record, const char *key)
{
    return json_string_value(json_object_get(record, key));
}

static bool read_bytes(const struct mirror_tree *t, const char *name, size_t max,
                       struct uvm_buf *ret, struct uvm_error *err)
{
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_auto_buf bytes = {0};
    if (!uvm_digest_valid(UVM_SHA256, name))
        return uvm_fail(err, UVM_CONTENT, "a file that it names makes no sense");
    uvm_auto_free char *file = file_in(t, name);
    if (!uvm_file_read(file, max, &bytes, err))
        return false;
    uvm_digest_bytes(UVM_SHA256, bytes.data, bytes.len, hex);
    if (strcmp(hex, name) != 0)
        return uvm_fail(err, UVM_CONTENT, "%s was changed", file);
    uvm_buf_move(ret, &bytes);
    return true;
}

/* *ret stays NULL when there is none. */
static bool read_record(const struct mirror_tree *t, const char *name, json_t **ret,
                        struct uvm_error *err)
{
    uvm_auto_free char *file = file_in(t, name);
    uvm_auto_buf text = {0};
    mirror_auto_json *record = NULL;
    if (!uvm_file_read(file, RECORD_MAX, &text, err)) {
        if (err->sys_errno != ENOENT)
            return false;
        uvm_error_clear(err);
        return true;
    }
    if (!mirror_json_parse(text.data, text.len, &record, err))
        return uvm_prefix(err, "%s", file);
    if (json_integer_value(json_object_get(record, "format")) != RECORD_FORMAT ||
        !text_of(record, "name") || !text_of(record, "checksums"))
        return uvm_fail(err, UVM_CONTENT, "%s makes no sense", file);
    *ret = UVM_STEAL(record);
    return true;
}

static bool read_origin(const struct mirror_tree *t, const json_t *record,
                        struct mirror_origin *ret_origin, struct uvm_error *err)
{
    mirror_auto_origin origin = {0};
    const char *signature = text_of(record, "signature");
    if (!read_bytes(t, text_of(record, "checksums"), MIRROR_CHECKSUMS_MAX, &origin.checksums,
                    err) ||
        (signature && !read_bytes(t, signature, MIRROR_SIGNATURE_MAX, &origin.signature, err)))
        return false;
    origin.name = uvm_strdup(text_of(record, "name"));
    origin.signer = uvm_strdup(text_of(record, "signer"));
    *ret_origin = origin;
    origin = (struct mirror_origin){0};
    return true;
}

bool mirror_tree_origin(const struct mirror_tree *t, const struct mirror_image *image,
                        struct mirror_origin *ret_origin, struct uvm_error *err)
{
    uvm_auto_free char *name = record_name(image);
    mirror_auto_json *record = NULL;
    if (read_record(t, name, &record, err) && !record)
        return false;
    if (record && read_origin(t, record, ret_origin, err))
        return true;
    uvm_auto_free char *title = mirror_image_title(image);
    return uvm_prefix(err, "the checksum file of %s (add the image again, with it)", title);
}

/* ---- removing ---- */

/* The names of the files that belong to an image. */
static void name_files(const struct mirror_tree *t, const struct mirror_image *image, json_t *named)
{
    static const char *const keys[] = {"checksums", "signature"};
    uvm_auto_error ignored = UVM_ERROR_INIT;
    uvm_auto_free char *name = record_name(image);
    mirror_auto_json *record = NULL;
    json_object_set_new(named, name, json_true());
    if (!read_record(t, name, &record, &ignored))
        return;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (text_of(record, keys[i]))
            json_object_set_new(named, text_of(record, keys[i]), json_true());
}

void mirror_vouch_sweep(struct mirror_tree *t, const struct mirror_selection *selection)
{
    int fd = mirror_beneath_open(t->root_fd, ORIGINS_DIR, O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return;
    mirror_auto_json *named = json_object();
    for (size_t i = 0; i < selection->count; i++)
        for (size_t k = 0; k < selection->products[i].image_count; k++)
            name_files(t, &selection->products[i].images[k], named);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (!json_object_get(named, entry->d_name))
            unlinkat(dirfd(dir), entry->d_name, 0); /* "." and ".." stay, being folders */
    closedir(dir);
}

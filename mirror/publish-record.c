/* What was published in a tree: files, streams, and how new they were. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/publish.h"

#define VERSION     1
#define RECORD_MAX  ((size_t)64 << 20)
#define RECORD_FILE MIRROR_PUBLISH_DIR "/published.json"

static char *path_in(const struct mirror_publisher *p, const char *name)
{
    return uvm_format("%s/%s", p->dir, name);
}

/* ---- reading ---- */

/* A small file of ours as JSON; *ret stays NULL when there is none. */
static bool read_json(const struct mirror_publisher *p, const char *name, json_t **ret,
                      struct uvm_error *err)
{
    uvm_auto_free char *path = path_in(p, name);
    uvm_auto_buf text = {0};
    if (!uvm_file_read(path, RECORD_MAX, &text, err)) {
        if (err->code == UVM_SPACE || err->sys_errno != ENOENT)
            return false;
        uvm_error_clear(err);
        return true;
    }
    return mirror_json_parse(text.data, text.len, ret, err) || uvm_prefix(err, "%s", path);
}

/* Only what this program wrote itself: its form is not checked twice. */
static bool take_record(struct mirror_publisher *p, const json_t *record, struct uvm_error *err)
{
    json_t *files = json_object_get(record, "files"), *streams = json_object_get(record, "streams");
    if (json_integer_value(json_object_get(record, "version")) != VERSION)
        return uvm_fail(err, UVM_FAILED, "%s/" RECORD_FILE ": another version of uvmirror wrote it",
                        p->dir);
    if (!json_is_object(files) || !json_is_object(streams))
        return uvm_fail(err, UVM_CONTENT, "%s/" RECORD_FILE " makes no sense", p->dir);
    json_object_update(p->files, files);
    json_object_update(p->streams, streams);
    return true;
}

static bool load_tree(struct mirror_publisher *p, const char *content_id, const json_t *stream,
                      struct uvm_error *err)
{
    const char *file = json_string_value(json_object_get(stream, "file"));
    uvm_auto_free char *name = uvm_format("%s.json", file ? file : "");
    json_t *tree = NULL;
    if (!file || !mirror_path_check(name, err) || !read_json(p, name, &tree, err))
        return false;
    if (!tree)
        return uvm_fail(err, UVM_CONTENT,
                        "%s/%s is missing: put it back, or publish into an empty folder", p->dir,
                        name);
    json_object_set_new(p->trees, content_id, tree);
    return true;
}

bool mirror_publish_load(struct mirror_publisher *p, struct uvm_error *err)
{
    mirror_auto_json *record = NULL;
    if (!read_json(p, RECORD_FILE, &record, err))
        return false;
    if (!record)
        return true;
    if (!take_record(p, record, err))
        return false;
    const char *content_id;
    json_t *stream;
    json_object_foreach(p->streams, content_id, stream)
    {
        if (!load_tree(p, content_id, stream, err))
            return false;
    }
    return true;
}

/* ---- writing ---- */

bool mirror_publish_save(const struct mirror_publisher *p, struct uvm_error *err)
{
    uvm_auto_free char *path = path_in(p, RECORD_FILE);
    mirror_auto_json *record =
        json_pack("{s:i, s:O, s:O}", "version", VERSION, "files", p->files, "streams", p->streams);
    uvm_auto_free char *text = json_dumps(record, JSON_INDENT(1));
    if (!text)
        abort();
    if (strlen(text) > MIRROR_JSON_MAX) /* it could not be read again */
        return uvm_fail(err, UVM_SPACE, "%s would be over the limit of %zu bytes", path,
                        MIRROR_JSON_MAX);
    return uvm_file_replace(path, 0644, text, strlen(text), err);
}

/* ---- files ---- */

static bool is_same(const json_t *file, const char *key, const char *hex)
{
    const char *known = json_string_value(json_object_get(file, key));
    return !hex || !known || strcmp(hex, known) == 0;
}

static bool is_image(const json_t *file, const struct mirror_image *image)
{
    const char *key = image->sha256 ? "sha256" : "sha512";
    return json_is_string(json_object_get(file, key)) &&
           (uint64_t)json_integer_value(json_object_get(file, "size")) == image->size &&
           is_same(file, "sha256", image->sha256) && is_same(file, "sha512", image->sha512);
}

bool mirror_publish_has(const struct mirror_publisher *p, const struct mirror_image *image,
                        bool *ret_other)
{
    const json_t *file = json_object_get(p->files, image->path);
    struct stat st;
    bool regular = mirror_beneath_stat(p->root_fd, image->path, &st);
    bool there = regular || errno != ENOENT, same = is_image(file, image);
    if (ret_other)
        *ret_other = there && !(regular && same);
    return regular && same && (uint64_t)st.st_size == image->size;
}

bool mirror_publish_made(const struct mirror_publisher *p, const char *path)
{
    return json_object_get(p->files, path) != NULL;
}

bool mirror_publish_vacant(const struct mirror_publisher *p, const char *path)
{
    struct stat st;
    return !mirror_beneath_stat(p->root_fd, path, &st) && errno == ENOENT;
}

void mirror_publish_keep(struct mirror_publisher *p, const json_t *named)
{
    const char *path;
    json_t *file;
    json_object_foreach(p->files, path, file)
    {
        if (json_object_get(named, path))
            json_object_del(file, "dropped");
    }
}

size_t mirror_publish_drop(struct mirror_publisher *p, const json_t *named, time_t now)
{
    size_t dropped = 0;
    const char *path;
    json_t *file;
    json_object_foreach(p->files, path, file)
    {
        if (json_object_get(named, path) || json_object_get(file, "dropped"))
            continue;
        json_object_set_new(file, "dropped", json_integer((json_int_t)now));
        dropped += json_object_get(file, "size") != NULL;
    }
    return dropped;
}

/* A clock that was set back does not shorten anybody's time. */
static bool is_over(const struct mirror_publisher *p, const json_t *file, time_t now)
{
    const json_t *dropped = json_object_get(file, "dropped");
    return dropped && now - (time_t)json_integer_value(dropped) > (time_t)p->options.grace_seconds;
}

size_t mirror_publish_sweep(struct mirror_publisher *p, time_t now)
{
    size_t removed = 0;
    const char *path;
    json_t *file;
    void *next;
    json_object_foreach_safe(p->files, next, path, file)
    {
        uvm_auto_error err = UVM_ERROR_INIT;
        if (!is_over(p, file, now))
            continue;
        if (!mirror_path_check(path, &err) || !mirror_beneath_remove(p->root_fd, path, &err)) {
            uvm_warning(p->options.observer, "%s stays: %s", path, err.message);
            continue;
        }
        removed += json_object_get(file, "size") != NULL;
        json_object_del(p->files, path);
    }
    return removed;
}

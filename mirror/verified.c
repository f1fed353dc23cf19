/*
 * The record of verified files:
 *
 *     { "format": 1,
 *       "files": {
 *         "<path>": { "size": 612345678, "mtime_ns": 1728034200123456789, "inode": 4711,
 *                     "sha256": "...", "sha512": "...", "boot": "..." } } }
 *
 * "sha512" is there when the stream signs one. "boot" is there for a file that was not synced: it
 * names the run of the kernel (/proc/sys/kernel/random/boot_id) that still has the file in its
 * cache. Waiting for the disk would cost more than the download from a near server; after a power
 * cut the file is hashed again instead, which says whether its bytes have arrived.
 */
#include <pthread.h>
#include <string.h>

#include "mirror/beneath.h"
#include "mirror/verified.h"

#define RECORD_FORMAT 1
#define RECORD_MAX    MIRROR_JSON_MAX
#define SAVE_SECONDS  5 /* at most this much work is done again after a crash */

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_MAX  64

struct mirror_verified {
    char *path;            /* NULL = it is not written */
    char *boot;            /* NULL = not known */
    pthread_mutex_t mutex; /* for what follows */
    json_t *files;         /* only entries that describe what is on disk */
    bool dirty;
    time_t saved; /* monotonic */
};

static time_t monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec;
}

static char *read_boot_id(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0};
    if (!uvm_file_read(BOOT_ID_FILE, BOOT_ID_MAX, &text, &err))
        return NULL;
    size_t len = strcspn(text.data, "\n");
    return len > 0 && uvm_utf8_valid(text.data, len) ? uvm_strndup(text.data, len) : NULL;
}

/* ---- entries ---- */

static json_int_t mtime_ns(const struct stat *st)
{
    return (json_int_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static bool is_integer(const json_t *entry, const char *key, json_int_t want)
{
    const json_t *value = json_object_get(entry, key);
    return json_is_integer(value) && json_integer_value(value) == want;
}

static bool describes(const json_t *entry, const struct stat *st)
{
    return is_integer(entry, "size", st->st_size) && is_integer(entry, "mtime_ns", mtime_ns(st)) &&
           is_integer(entry, "inode", (json_int_t)st->st_ino);
}

static bool is_of_this_boot(const struct mirror_verified *v, const json_t *entry)
{
    const json_t *boot = json_object_get(entry, "boot");
    return !boot || (v->boot && json_is_string(boot) && !strcmp(json_string_value(boot), v->boot));
}

static const char *checksum_of(const json_t *entry, enum uvm_digest_type type)
{
    return json_string_value(json_object_get(entry, type == UVM_SHA512 ? "sha512" : "sha256"));
}

bool mirror_verified_get(struct mirror_verified *v, const char *path, const struct stat *st,
                         enum uvm_digest_type type, char hex[UVM_DIGEST_HEX_MAX])
{
    pthread_mutex_lock(&v->mutex);
    const json_t *entry = json_object_get(v->files, path);
    const char *found = checksum_of(entry, type);
    bool known = found && uvm_digest_valid(type, found) && describes(entry, st);
    if (known)
        memcpy(hex, found, strlen(found) + 1);
    pthread_mutex_unlock(&v->mutex);
    return known;
}

char *mirror_verified_find(struct mirror_verified *v, enum uvm_digest_type type, const char *hex)
{
    char *path = NULL;
    const char *name;
    json_t *entry;
    pthread_mutex_lock(&v->mutex);
    json_object_foreach(v->files, name, entry)
    {
        const char *found = checksum_of(entry, type);
        if (!found || strcmp(found, hex) != 0)
            continue;
        path = uvm_strdup(name);
        break;
    }
    pthread_mutex_unlock(&v->mutex);
    return path;
}

bool mirror_verified_knows_boot(const struct mirror_verified *v)
{
    return v->boot != NULL;
}

/* ---- reading ---- */

static json_t *read_files(const char *path)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0};
    mirror_auto_json *top = NULL;
    if (!uvm_file_read(path, RECORD_MAX, &text, &err) ||
        !mirror_json_parse(text.data, text.len, &top, &err) ||
        !is_integer(top, "format", RECORD_FORMAT))
        return NULL;
    return json_incref(json_object_get(top, "files"));
}

struct mirror_verified *mirror_verified_look(const char *path, int root_fd)
{
    struct mirror_verified *v = uvm_alloc(sizeof *v);
    v->boot = read_boot_id();
    v->files = json_object();
    v->saved = monotonic();
    pthread_mutex_init(&v->mutex, NULL);
    mirror_auto_json *files = read_files(path);
    const char *name;
    json_t *entry;
    json_object_foreach(files, name, entry)
    {
        struct stat st;
        if (mirror_beneath_stat(root_fd, name, &st) && describes(entry, &st) &&
            is_of_this_boot(v, entry))
            json_object_set(v->files, name, entry);
    }
    return v;
}

struct mirror_verified *mirror_verified_load(const char *path, int root_fd)
{
    struct mirror_verified *v = mirror_verified_look(path, root_fd);
    v->path = uvm_strdup(path);
    return v;
}

/* ---- writing ---- */

/* A record that cannot be written costs time in the next run, not correctness. */
static void save(struct mirror_verified *v)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!v->path)
        return;
    mirror_auto_json *top = json_pack("{s:i, s:O}", "format", RECORD_FORMAT, "files", v->files);
    uvm_auto_free char *text = top ? json_dumps(top, JSON_INDENT(1)) : NULL;
    if (!text)
        abort();
    uvm_file_replace(v->path, 0644, text, strlen(text), &err);
    v->dirty = false;
    v->saved = monotonic();
}

static void save_if_due(struct mirror_verified *v)
{
    if (v->dirty && monotonic() - v->saved >= SAVE_SECONDS)
        save(v);
}

void mirror_verified_free(struct mirror_verified *v)
{
    if (!v)
        return;
    if (v->dirty)
        save(v);
    json_decref(v->files);
    pthread_mutex_destroy(&v->mutex);
    free(v->boot);
    free(v->path);
    free(v);
}

void mirror_verified_set(struct mirror_verified *v, const char *path, const struct stat *st,
                         const char *sha256, const char *sha512, enum mirror_durability durability)
{
    json_t *entry =
        json_pack("{s:I, s:I, s:I, s:s, s:s*, s:s*}", "size", (json_int_t)st->st_size, "mtime_ns",
                  mtime_ns(st), "inode", (json_int_t)st->st_ino, "sha256", sha256, "sha512", sha512,
                  "boot", durability == MIRROR_IN_CACHE ? v->boot : NULL);
    pthread_mutex_lock(&v->mutex);
    if (!entry || json_object_set_new(v->files, path, entry) < 0)
        abort();
    v->dirty = true;
    save_if_due(v);
    pthread_mutex_unlock(&v->mutex);
}

void mirror_verified_tick(struct mirror_verified *v)
{
    pthread_mutex_lock(&v->mutex);
    save_if_due(v);
    pthread_mutex_unlock(&v->mutex);
}

void mirror_verified_forget(struct mirror_verified *v, const char *path)
{
    pthread_mutex_lock(&v->mutex);
    if (json_object_del(v->files, path) == 0)
        v->dirty = true;
    pthread_mutex_unlock(&v->mutex);
}

json_t *mirror_verified_files(const struct mirror_verified *v)
{
    return v->files;
}

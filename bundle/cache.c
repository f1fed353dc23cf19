/* What the mirror keeps of encoded images. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/cache.h"

#define FILE_MODE   0644
#define NAME_DIGITS 64 /* of a checksum, in a file's name */
#define RECORD_MAX  ((size_t)4096)
#define FULL        "full"

void bundle_cache_free(struct bundle_cache *c)
{
    if (!c)
        return;
    uvm_close_ptr(&c->fd);
    free(c->path);
    free(c);
}

const char *bundle_cache_path(const struct bundle_cache *c)
{
    return c->path;
}

bool bundle_cache_room(const struct bundle_cache *c, uint64_t *ret_bytes, struct uvm_error *err)
{
    return uvm_free_space(c->path, ret_bytes, err);
}

/* ---- names ---- */

char *bundle_cache_member_name(const struct bundle_cache_key *key)
{
    return uvm_format("%.*s.%.*s.l%d", NAME_DIGITS, key->image, NAME_DIGITS,
                      key->base ? key->base : FULL, key->level);
}

static char *record_name(const struct bundle_cache_key *key)
{
    uvm_auto_free char *member = bundle_cache_member_name(key);
    return uvm_format("%s" BUNDLE_CACHE_RECORD_END, member);
}

static char *blocks_name(const char *image)
{
    return uvm_format("%.*s" BUNDLE_CACHE_BLOCKS_END, NAME_DIGITS, image);
}

/* The last ones that were used are kept. */
static void touch(const struct bundle_cache *c, const char *name)
{
    utimensat(c->fd, name, NULL, AT_SYMLINK_NOFOLLOW);
}

int bundle_cache_open_file(const struct bundle_cache *c, const char *name)
{
    return openat(c->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

/* ---- records ---- */

static char *record_text(const struct bundle_cache_key *key, const struct bundle_encoded *e)
{
    mirror_auto_json *json = json_pack(
        "{s:s, s:b, s:I, s:s, s:I, s:I}", "image", key->image, "worthwhile", e->worthwhile, "size",
        (json_int_t)e->size, "sha256", e->worthwhile ? e->sha256 : "", "content",
        (json_int_t)e->content, "base_bytes", (json_int_t)e->base_bytes);
    uvm_auto_free char *text = json_dumps(json, JSON_INDENT(1));
    if (!text)
        abort(); /* no memory */
    return uvm_format("%s\n", text);
}

static bool parse_record(const json_t *json, struct bundle_encoded *ret, struct uvm_error *err)
{
    ret->worthwhile = json_is_true(json_object_get(json, "worthwhile"));
    if (!ret->worthwhile)
        return json_is_false(json_object_get(json, "worthwhile"));
    return bundle_field_number(json, "size", MIRROR_SIZE_MAX, &ret->size, err) &&
           bundle_field_sha256(json, ret->sha256, err) &&
           bundle_field_number(json, "content", MIRROR_SIZE_MAX, &ret->content, err) &&
           bundle_field_number(json, "base_bytes", ret->content, &ret->base_bytes, err);
}

json_t *bundle_cache_record(const struct bundle_cache *c, const char *name)
{
    uvm_auto_free char *path = uvm_format("%s/%s", c->path, name);
    uvm_auto_error ignored = UVM_ERROR_INIT;
    uvm_auto_buf text = {0};
    json_t *json = NULL;
    if (!uvm_file_read(path, RECORD_MAX, &text, &ignored) ||
        !mirror_json_parse(text.data, text.len, &json, &ignored))
        return NULL;
    return json;
}

static bool member_is_there(const struct bundle_cache *c, const struct bundle_cache_key *key,
                            uint64_t size)
{
    uvm_auto_free char *name = bundle_cache_member_name(key);
    struct stat st;
    return fstatat(c->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == size;
}

bool bundle_cache_find(const struct bundle_cache *c, const struct bundle_cache_key *key,
                       struct bundle_encoded *ret_encoded)
{
    uvm_auto_free char *name = record_name(key);
    mirror_auto_json *json = bundle_cache_record(c, name);
    uvm_auto_error ignored = UVM_ERROR_INIT;
    struct bundle_encoded encoded = {0};
    if (!json || !parse_record(json, &encoded, &ignored) ||
        (encoded.worthwhile && !member_is_there(c, key, encoded.size)))
        return false;
    touch(c, name);
    *ret_encoded = encoded;
    return true;
}

/* ---- adding ---- */

bool bundle_cache_begin(const struct bundle_cache *c, const struct bundle_cache_key *key,
                        struct uvm_outfile *ret_member, struct uvm_error *err)
{
    uvm_auto_free char *name = bundle_cache_member_name(key);
    uvm_auto_free char *path = uvm_format("%s/%s", c->path, name);
    return uvm_outfile_open(ret_member, path, FILE_MODE, err);
}

static bool keep_blocks(const struct bundle_cache *c, const char *image,
                        const struct bundle_blocks *blocks, struct uvm_error *err)
{
    uvm_auto_free char *name = blocks_name(image);
    uvm_auto_free char *path = uvm_format("%s/%s", c->path, name);
    uvm_auto_outfile file = UVM_OUTFILE_INIT;
    return uvm_outfile_open(&file, path, FILE_MODE, err) &&
           bundle_blocks_write(blocks, file.fd, err) && uvm_outfile_commit(&file, err);
}

bool bundle_cache_keep(const struct bundle_cache *c, const struct bundle_cache_key *key,
                       const struct bundle_encoded *encoded, const struct bundle_blocks *blocks,
                       struct uvm_outfile *member, struct uvm_error *err)
{
    uvm_auto_free char *name = record_name(key);
    uvm_auto_free char *path = uvm_format("%s/%s", c->path, name);
    uvm_auto_free char *text = record_text(key, encoded);
    return (!blocks || keep_blocks(c, key->image, blocks, err)) &&
           (!encoded->worthwhile || uvm_outfile_commit(member, err)) &&
           uvm_file_replace(path, FILE_MODE, text, strlen(text), err);
}

/* ---- blocks ---- */

bool bundle_cache_knows(const struct bundle_cache *c, const char *image)
{
    uvm_auto_free char *name = blocks_name(image);
    return faccessat(c->fd, name, R_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW) == 0;
}

struct bundle_blocks *bundle_cache_blocks(const struct bundle_cache *c, const char *image)
{
    uvm_auto_free char *name = blocks_name(image);
    uvm_auto_fd fd = bundle_cache_open_file(c, name);
    uvm_auto_error ignored = UVM_ERROR_INIT;
    struct bundle_blocks *blocks = NULL;
    if (fd < 0)
        return NULL;
    if (!bundle_blocks_read(fd, &blocks, &ignored)) {
        unlinkat(c->fd, name, 0); /* damaged: made anew with the next encoding of the image */
        return NULL;
    }
    touch(c, name);
    return blocks;
}

/* ---- opening ---- */

bool bundle_cache_open(const struct mirror_tree *tree, struct bundle_cache **ret_cache,
                       struct uvm_error *err)
{
    UVM_AUTO(bundle_cache_free) struct bundle_cache *c = uvm_alloc(sizeof *c);
    c->tree = tree;
    c->fd = -1;
    if (!mirror_tree_compact_folder(tree, &c->path, &c->fd, err))
        return false;
    *ret_cache = UVM_STEAL(c);
    return true;
}

/* The end of a change: everything that the next index names is put in place, and then that index. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/publish.h"

#define FOLDER_MODE 0755
#define FILE_MODE   0644
#define STREAMS_DIR "streams/v1"
#define HEX_SHOWN   16 /* digits of a products file's checksum, in its name */
#define SERIAL_MAX  ((json_int_t)1 << 53)

static const char *const suffixes[] = {".json", ".sjson"};

/* Everything that the next index will name. */
struct next {
    struct mirror_publisher *p;
    json_t *trees; /* content id -> products file */
    json_t *files; /* content id -> "streams/v1/<content id>.<hex>" */
    json_t *paths; /* {path: true} */
    size_t images;
};

static void next_clear(struct next *n)
{
    json_decref(n->trees);
    json_decref(n->files);
    json_decref(n->paths);
}

static bool name_image(void *opaque, const struct mirror_image *image, struct uvm_error *err)
{
    struct next *n = opaque;
    if (!uvm_go_on(n->p->options.observer, err))
        return false;
    if (!json_object_get(n->p->incoming, image->path) && !mirror_publish_has(n->p, image, NULL)) {
        uvm_auto_free char *title = mirror_image_title(image);
        return uvm_fail(err, UVM_CONTENT,
                        "%s is not carried, and %s does not have it: a bundle that carries it is "
                        "needed",
                        title, n->p->dir);
    }
    json_object_set_new(n->paths, image->path, json_true());
    n->images++;
    return true;
}

/* What would be too long to be read again. */
static bool check_length(const char *text, const char *what, struct uvm_error *err)
{
    return strlen(text) <= MIRROR_JSON_MAX ||
           uvm_fail(err, UVM_SPACE, "%s would be over the limit of %zu bytes: keep less (--max)",
                    what, MIRROR_JSON_MAX);
}

static bool name_products(struct next *n, const char *content_id, json_t *tree,
                          struct uvm_error *err)
{
    uvm_auto_free char *text = mirror_json_lines(tree);
    if (!check_length(text, "its products file", err))
        return false;
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA256, text, strlen(text), hex);
    uvm_auto_free char *file = uvm_format(STREAMS_DIR "/%s.%.*s", content_id, HEX_SHOWN, hex);
    json_object_set_new(n->files, content_id, json_string(file));
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        uvm_auto_free char *path = uvm_format("%s%s", file, suffixes[i]);
        json_object_set_new(n->paths, path, json_true());
    }
    return true;
}

static bool compose(struct next *n, struct uvm_error *err)
{
    struct mirror_publisher *p = n->p;
    json_object_update(n->trees, p->trees);
    for (size_t i = 0; i < p->release_count; i++) {
        const char *id = p->releases[i].content_id;
        if (!json_object_get(p->fresh, id))
            return uvm_fail(err, UVM_CONTENT, "the products file of stream %s never came", id);
        if (!mirror_publish_check_fresh(p, &p->releases[i], err))
            return uvm_prefix(err, "stream %s", id);
        json_object_set_new(n->trees, id, mirror_publish_merge(p, &p->releases[i]));
    }
    const char *content_id;
    json_t *tree;
    json_object_foreach(n->trees, content_id, tree)
    {
        if (!mirror_publish_each(tree, name_image, n, err) ||
            !name_products(n, content_id, tree, err))
            return uvm_prefix(err, "stream %s", content_id);
    }
    const char *const ends[] = {MIRROR_PUBLISH_INDEX, MIRROR_PUBLISH_SIGNED_INDEX,
                                MIRROR_PUBLISH_PAGE};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        json_object_set_new(n->paths, ends[i], json_true());
    return true;
}

/* A page that somebody else made stays his. */
static bool is_others(const struct mirror_publisher *p, const char *path)
{
    return strcmp(path, MIRROR_PUBLISH_PAGE) == 0 && !mirror_publish_made(p, path) &&
           !mirror_publish_vacant(p, path);
}

/* What will stand here is on record before it does. What the old index names is not dropped yet: clients
 * read that until the new one is there, however long this takes. */
static bool note_files(struct next *n, struct mirror_published *done, struct uvm_error *err)
{
    struct mirror_publisher *p = n->p;
    const char *path;
    json_t *value;
    json_object_foreach(p->incoming, path, value)
    {
        mirror_auto_json *file = json_copy(value);
        json_object_del(file, "name");
        json_object_set_new(value, "made", json_boolean(mirror_publish_made(p, path)));
        json_object_set(p->files, path, file);
        done->added++;
    }
    json_object_foreach(n->paths, path, value)
    {
        if (!mirror_publish_made(p, path) && !is_others(p, path))
            json_object_set_new(p->files, path, json_object());
    }
    mirror_publish_keep(p, n->paths);
    return mirror_publish_save(p, err);
}

/* As link(2) and unlink(2) where there is no such renaming. */
static bool rename_new(int from_fd, const char *name, int to_fd, const char *to)
{
    struct stat st;
    if (renameat2(from_fd, name, to_fd, to, RENAME_NOREPLACE) == 0)
        return true;
    if (errno != EINVAL && errno != ENOSYS)
        return false;
    if (linkat(from_fd, name, to_fd, to, 0) == 0)
        return true; /* its first name goes with the other incoming files */
    if (errno == EEXIST || fstatat(to_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return false;
    }
    return renameat(from_fd, name, to_fd, to) == 0;
}

/* Only what was on record before this change is replaced: it is ours. */
static bool place_image(const struct mirror_publisher *p, const char *path, const json_t *file,
                        struct uvm_error *err)
{
    const char *name = json_string_value(json_object_get(file, "name"));
    uvm_auto_free char *full = uvm_format("%s/%s", p->dir, path);
    uvm_auto_fd folder = -1;
    const char *last = NULL;
    if (!mirror_beneath_parent(p->root_fd, path, &folder, &last, err))
        return false;
    bool made = json_is_true(json_object_get(file, "made"));
    if (made ? renameat(p->incoming_fd, name, folder, last) < 0
             : !rename_new(p->incoming_fd, name, folder, last))
        return uvm_fail_errno(err, UVM_FAILED, "%s", full);
    return uvm_sync_dir_of(full, err);
}

static bool place_images(const struct mirror_publisher *p, struct uvm_error *err)
{
    const char *path;
    json_t *file;
    json_object_foreach(p->incoming, path, file)
    {
        if (!place_image(p, path, file, err))
            return false;
    }
    return true;
}

/* A text as it is, and signed. */
static bool write_both(const struct mirror_publisher *p, const char *const paths[2],
                       const char *const texts[2], struct uvm_error *err)
{
    uvm_auto_buf signed_text = {.max = 2 * MIRROR_JSON_MAX};
    uvm_auto_free char *plain = uvm_format("%s/%s", p->dir, paths[0]);
    uvm_auto_free char *other = uvm_format("%s/%s", p->dir, paths[1]);
    return uvm_signer_clearsigned(p->options.signer, texts[1], strlen(texts[1]), &signed_text,
                                  err) &&
           uvm_file_replace(plain, FILE_MODE, texts[0], strlen(texts[0]), err) &&
           uvm_file_replace(other, FILE_MODE, signed_text.data, signed_text.len, err);
}

static bool write_products(const struct next *n, struct uvm_error *err)
{
    uvm_auto_free char *folder = uvm_format("%s/" STREAMS_DIR, n->p->dir);
    const char *content_id;
    json_t *tree;
    if (!uvm_make_dirs(folder, FOLDER_MODE, err))
        return false;
    json_object_foreach(n->trees, content_id, tree)
    {
        const char *file = json_string_value(json_object_get(n->files, content_id));
        uvm_auto_free char *text = mirror_json_lines(tree);
        uvm_auto_free char *plain = uvm_format("%s%s", file, suffixes[0]);
        uvm_auto_free char *other = uvm_format("%s%s", file, suffixes[1]);
        if (!write_both(n->p, (const char *const[]){plain, other},
                        (const char *const[]){text, text}, err))
            return false;
    }
    return true;
}

static json_t *index_entry(const struct next *n, const char *content_id, json_t *tree,
                           const char *suffix)
{
    json_t *entry = json_object(), *products = json_array(), *ignored;
    const char *file = json_string_value(json_object_get(n->files, content_id)), *name;
    uvm_auto_free char *path = uvm_format("%s%s", file, suffix);
    json_object_foreach(mirror_object_get(tree, "products"), name, ignored)
    {
        json_array_append_new(products, json_string(name));
    }
    json_object_set_new(entry, "datatype", json_string("image-downloads"));
    json_object_set_new(entry, "format", json_string("products:1.0"));
    json_object_set_new(entry, "path", json_string(path));
    json_object_set_new(entry, "products", products);
    json_object_set(entry, "updated", json_object_get(tree, "updated"));
    return entry;
}

static char *index_text(const struct next *n, const char *suffix)
{
    mirror_auto_json *tree = json_object();
    json_t *index = json_object(), *products;
    uvm_auto_free char *updated = mirror_stream_time(n->p->options.now);
    const char *content_id;
    json_object_foreach(n->trees, content_id, products)
    {
        json_object_set_new(index, content_id, index_entry(n, content_id, products, suffix));
    }
    json_object_set_new(tree, "format", json_string("index:1.0"));
    json_object_set_new(tree, "index", index);
    json_object_set_new(tree, "updated", json_string(updated));
    return mirror_json_lines(tree);
}

static bool check_index(const struct next *n, struct uvm_error *err)
{
    uvm_auto_free char *longer = index_text(n, suffixes[1]);
    return check_length(longer, "the index", err);
}

static bool write_index(const struct next *n, struct uvm_error *err)
{
    uvm_auto_free char *plain = index_text(n, suffixes[0]);
    uvm_auto_free char *other = index_text(n, suffixes[1]);
    return write_both(n->p,
                      (const char *const[]){MIRROR_PUBLISH_INDEX, MIRROR_PUBLISH_SIGNED_INDEX},
                      (const char *const[]){plain, other}, err);
}

static bool write_page(const struct next *n, struct uvm_error *err)
{
    struct mirror_publisher *p = n->p;
    uvm_auto_free char *path = uvm_format("%s/" MIRROR_PUBLISH_PAGE, p->dir);
    if (!mirror_publish_made(p, MIRROR_PUBLISH_PAGE))
        return true;
    uvm_auto_free char *page =
        mirror_publish_page(n->trees, uvm_signer_fingerprint(p->options.signer), p->options.now);
    return uvm_file_replace(path, FILE_MODE, page, strlen(page), err);
}

static void note_seen(struct mirror_publisher *p, const struct mirror_release *r,
                      const struct next *n)
{
    json_t *stream = json_object_get(p->streams, r->content_id), *seen;
    if (!stream) {
        stream = json_pack("{s:{}}", "products");
        json_object_set_new(p->streams, r->content_id, stream);
    }
    seen = json_object_get(stream, "products");
    json_object_set(stream, "file", json_object_get(n->files, r->content_id));
    for (size_t k = 0; k < r->selection->count; k++) {
        const char *product = r->selection->products[k].name;
        json_int_t serial = r->serial < (uint64_t)SERIAL_MAX ? (json_int_t)r->serial : SERIAL_MAX;
        if (!mirror_publish_passed(p, r->content_id, product))
            json_object_set_new(
                seen, product,
                json_pack("{s:I, s:I}", "updated", (json_int_t)r->updated_at, "serial", serial));
    }
}

/* From now on, and not from when this run began, nothing leads to what the old index named. */
static bool drop_rest(const struct next *n, struct mirror_published *done, struct uvm_error *err)
{
    struct mirror_publisher *p = n->p;
    time_t now = time(NULL);
    done->dropped = mirror_publish_drop(p, n->paths, now);
    if (!mirror_publish_save(p, err))
        return false;
    done->removed = mirror_publish_sweep(p, now);
    return mirror_publish_save(p, err);
}

static bool carry_out(struct next *n, struct mirror_published *done, struct uvm_error *err)
{
    struct mirror_publisher *p = n->p;
    if (!check_index(n, err) || !note_files(n, done, err) || !place_images(p, err) ||
        !write_products(n, err))
        return false;
    for (size_t i = 0; i < p->release_count; i++)
        note_seen(p, &p->releases[i], n);
    if (!mirror_publish_save(p, err) || !write_index(n, err) || !write_page(n, err))
        return false;
    json_object_update(p->trees, n->trees);
    done->images = n->images;
    return drop_rest(n, done, err);
}

bool mirror_publisher_commit(struct mirror_publisher *p, struct mirror_published *ret_published,
                             struct uvm_error *err)
{
    __attribute__((cleanup(next_clear))) struct next n = {
        .p = p, .trees = json_object(), .files = json_object(), .paths = json_object()};
    struct mirror_published done = {0};
    if (!compose(&n, err) || !carry_out(&n, &done, err))
        return uvm_prefix(err, "%s", p->dir);
    mirror_publish_forget(p);
    *ret_published = done;
    return true;
}

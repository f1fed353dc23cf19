/*
 * A change of a published tree:
 *
 *     begin     which products are not older than what is here; which of their images stay or come
 *     image     bytes -> .uvmirror/incoming/N, verified and synced                  (once per image)
 *     products  the stream's own file
 *     commit    record of all that will be here -> images in place -> products -> index -> sweep
 *
 * Each step but the index's is invisible to clients: it adds files that no index names. Whoever read
 * the old index goes on to find what it names. A run that dies leaves files that the record knows; the
 * next commit drops them, and after their time of grace they go.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/publish.h"
#include "mirror/sums.h"

#define FOLDER_MODE  0755
#define FILE_MODE    0644
#define COPY_BYTES   ((size_t)1 << 20)
#define INCOMING_DIR MIRROR_PUBLISH_DIR "/incoming"

/* ---- opening --------------------------------------------------------------------------------- */

void mirror_publisher_free(struct mirror_publisher *p)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    if (!p)
        return;
    if (p->lock_fd >= 0 && p->incoming_fd >= 0)
        uvm_remove_below(p->incoming_fd, &ignored);
    json_t *const trees[] = {p->files, p->streams, p->trees, p->fresh, p->incoming, p->passed};
    for (size_t i = 0; i < sizeof trees / sizeof *trees; i++)
        json_decref(trees[i]);
    uvm_close_ptr(&p->incoming_fd);
    uvm_close_ptr(&p->root_fd);
    uvm_close_ptr(&p->lock_fd);
    free(p->dir);
    free(p);
}

/* A link in the place of one of the tree's own folders would have files written elsewhere. */
static bool check_links(const struct mirror_publisher *p, struct uvm_error *err)
{
    const char *const own[] = {MIRROR_PUBLISH_DIR, INCOMING_DIR, "streams", "streams/v1"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        struct stat st;
        if (fstatat(p->root_fd, own[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
            return uvm_fail(err, UVM_CONTENT, "%s/%s is a symbolic link, and must be a folder",
                            p->dir, own[i]);
    }
    return true;
}

static bool open_folders(struct mirror_publisher *p, struct uvm_error *err)
{
    uvm_auto_free char *incoming = uvm_format("%s/" INCOMING_DIR, p->dir);
    uvm_auto_free char *lock = uvm_format("%s/" MIRROR_PUBLISH_DIR "/lock", p->dir);
    if (!uvm_make_dirs(p->dir, FOLDER_MODE, err))
        return false;
    p->root_fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->root_fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot open %s", p->dir);
    if (!check_links(p, err) || !uvm_make_dirs(incoming, FOLDER_MODE, err) ||
        !uvm_lock_file(lock, &p->lock_fd, err))
        return false;
    p->incoming_fd = mirror_beneath_open(p->root_fd, INCOMING_DIR, O_RDONLY | O_DIRECTORY, 0);
    if (p->incoming_fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot open %s", p->dir);
    return uvm_remove_below(p->incoming_fd, err); /* of a run that died */
}

void mirror_publish_forget(struct mirror_publisher *p)
{
    json_object_clear(p->fresh);
    json_object_clear(p->incoming);
    json_object_clear(p->passed);
    p->releases = NULL;
    p->release_count = 0;
}

bool mirror_publisher_open(const struct mirror_publish_options *options,
                           struct mirror_publisher **ret_publisher, struct uvm_error *err)
{
    UVM_AUTO(mirror_publisher_free) struct mirror_publisher *p = uvm_alloc(sizeof *p);
    *p = (struct mirror_publisher){.options = *options,
                                   .dir = uvm_strdup(options->dir),
                                   .root_fd = -1,
                                   .incoming_fd = -1,
                                   .lock_fd = -1,
                                   .files = json_object(),
                                   .streams = json_object(),
                                   .trees = json_object(),
                                   .fresh = json_object(),
                                   .incoming = json_object(),
                                   .passed = json_object()};
    if (!open_folders(p, err) || !mirror_publish_load(p, err))
        return false;
    *ret_publisher = UVM_STEAL(p);
    return true;
}

/* ---- what is older --------------------------------------------------------------------------- */

static json_t *seen_of(const struct mirror_publisher *p, const char *content_id)
{
    return json_object_get(json_object_get(p->streams, content_id), "products");
}

static bool is_older(const struct mirror_publisher *p, const struct mirror_release *r,
                     const char *product)
{
    const json_t *seen = json_object_get(seen_of(p, r->content_id), product);
    json_int_t updated = json_integer_value(json_object_get(seen, "updated"));
    json_int_t serial = json_integer_value(json_object_get(seen, "serial"));
    return (json_int_t)r->updated_at < updated || (json_int_t)r->serial < serial;
}

static void pass_over(struct mirror_publisher *p, const struct mirror_release *r,
                      const char *product)
{
    uvm_auto_free char *key = uvm_format("%s\n%s", r->content_id, product);
    uvm_auto_free char *name = uvm_printable(product);
    json_object_set_new(p->passed, key, json_true());
    uvm_warning(
        p->options.observer,
        "%s is older than what was published of it, and left alone (--allow-older takes it)", name);
}

static bool look_for_older(struct mirror_publisher *p, struct uvm_error *err)
{
    size_t products = 0;
    for (size_t i = 0; i < p->release_count; i++) {
        const struct mirror_release *r = &p->releases[i];
        products += r->selection->count;
        for (size_t k = 0; k < r->selection->count && !p->options.allow_older; k++)
            if (is_older(p, r, r->selection->products[k].name))
                pass_over(p, r, r->selection->products[k].name);
    }
    if (products > 0 && json_object_size(p->passed) == products)
        return uvm_fail(err, UVM_TRUST, "all of it is older than what was published in %s", p->dir);
    return true;
}

/* ---- beginning ------------------------------------------------------------------------------- */

/* The image's release, when it is to be published. */
static const struct mirror_release *release_of(const struct mirror_publisher *p,
                                               const struct mirror_image *image)
{
    for (size_t i = 0; i < p->release_count; i++) {
        const struct mirror_release *r = &p->releases[i];
        for (size_t k = 0; k < r->selection->count; k++) {
            const struct mirror_product *product = &r->selection->products[k];
            bool own = image >= product->images && image < product->images + product->image_count;
            if (own)
                return !mirror_publish_passed(p, r->content_id, product->name) &&
                               mirror_publish_keeps(p, r, product, image->version)
                           ? r
                           : NULL;
        }
    }
    return NULL;
}

bool mirror_publisher_wants(const struct mirror_publisher *p, const struct mirror_image *image)
{
    return release_of(p, image) && !json_object_get(p->incoming, image->path) &&
           !mirror_publish_has(p, image, NULL);
}

/* What is hidden (.uvmirror, .htaccess) or the page is the tree's own, or the web server's. */
static bool check_path(const struct mirror_image *image, struct uvm_error *err)
{
    size_t len = strlen(MIRROR_PUBLISH_PAGE);
    bool page = strncmp(image->path, MIRROR_PUBLISH_PAGE, len) == 0 &&
                (image->path[len] == '/' || image->path[len] == 0);
    if (!page && image->path[0] != '.' && !strstr(image->path, "/."))
        return true;
    uvm_auto_free char *shown = uvm_printable(image->path);
    return uvm_fail(err, UVM_CONTENT, "%s is no path that an image may be published under", shown);
}

/* The same image, if it is published already. */
static bool check_published(const struct mirror_publisher *p, const struct mirror_release *r,
                            const struct mirror_image *image, struct uvm_error *err)
{
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image old = {0};
    struct mirror_pedigree at;
    if (!mirror_publish_find(p, r->content_id, image, &at))
        return true;
    if (!mirror_pedigree_image(&at, &old, err))
        return false;
    if (mirror_same_content(&old, image))
        return true;
    uvm_auto_free char *title = mirror_image_title(image);
    return uvm_fail(err, UVM_CONTENT, "%s is published already, with another checksum", title);
}

static bool check_image(const struct mirror_publisher *p, const struct mirror_release *r,
                        const struct mirror_image *image, struct uvm_error *err)
{
    bool other = false;
    if (!release_of(p, image))
        return true;
    if (!check_path(image, err))
        return false;
    mirror_publish_has(p, image, &other);
    if (other)
        return uvm_fail(err, UVM_CONTENT,
                        "%s/%s is there with another content, and is not replaced: somebody may be "
                        "reading it",
                        p->dir, image->path);
    return check_published(p, r, image, err);
}

static bool check_all(struct mirror_publisher *p, uint64_t *ret_bytes, struct uvm_error *err)
{
    for (size_t i = 0; i < p->release_count; i++) {
        const struct mirror_release *r = &p->releases[i];
        for (size_t k = 0; k < r->selection->count; k++) {
            const struct mirror_product *product = &r->selection->products[k];
            for (size_t n = 0; n < product->image_count; n++) {
                if (!uvm_go_on(p->options.observer, err) ||
                    !check_image(p, r, &product->images[n], err))
                    return false;
                if (mirror_publisher_wants(p, &product->images[n]))
                    *ret_bytes += product->images[n].size;
            }
        }
    }
    return true;
}

/* Whose tree this is: clients of somebody else's index must not find another one in its place. */
static bool check_index(const struct mirror_publisher *p, struct uvm_error *err)
{
    const char *const paths[] = {MIRROR_PUBLISH_INDEX, MIRROR_PUBLISH_SIGNED_INDEX};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (!mirror_publish_made(p, paths[i]) && !mirror_publish_vacant(p, paths[i]))
            return uvm_fail(err, UVM_CONTENT,
                            "%s/%s is there and was not published by this command: the folder has "
                            "an index of somebody else's",
                            p->dir, paths[i]);
    return true;
}

static bool check_room(const struct mirror_publisher *p, uint64_t need, struct uvm_error *err)
{
    uint64_t there = 0;
    if (!uvm_free_space(p->dir, &there, err))
        return false;
    if (need <= there)
        return true;
    uvm_auto_free char *needed = uvm_size_text(need), *available = uvm_size_text(there);
    return uvm_fail(err, UVM_SPACE, "%s: the images need %s, and %s are free", p->dir, needed,
                    available);
}

bool mirror_publisher_begin(struct mirror_publisher *p, const struct mirror_release *releases,
                            size_t count, struct uvm_error *err)
{
    uint64_t bytes = 0;
    mirror_publish_forget(p);
    p->releases = releases;
    p->release_count = count;
    return check_index(p, err) && look_for_older(p, err) && check_all(p, &bytes, err) &&
           check_room(p, bytes, err);
}

/* ---- taking in ------------------------------------------------------------------------------- */

static bool take_bytes(struct mirror_publisher *p, const struct mirror_image *image,
                       struct uvm_reader bytes, int fd, struct mirror_sums *sums,
                       struct uvm_error *err)
{
    uvm_auto_free char *title = mirror_image_title(image);
    mirror_sums_start(sums, image);
    for (;;) {
        const void *data = NULL;
        size_t len = 0;
        if (!uvm_go_on(p->options.observer, err) || !bytes.read(bytes.opaque, &data, &len, err))
            return false;
        if (len == 0)
            break;
        mirror_sums_add(sums, data, len);
        if (!uvm_write_all(fd, data, len, err))
            return false;
        uvm_progress(p->options.observer, "publish", title, sums->bytes, image->size);
    }
    if (!mirror_sums_check(sums, image, err))
        return false;
    if (fsync(fd) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", title);
    uvm_done(p->options.observer, "publish", title, NULL);
    return true;
}

bool mirror_publisher_image(struct mirror_publisher *p, const struct mirror_image *image,
                            struct uvm_reader bytes, struct uvm_error *err)
{
    __attribute__((cleanup(mirror_sums_clear))) struct mirror_sums sums = {0};
    uvm_auto_free char *name = uvm_format("%zu", json_object_size(p->incoming));
    uvm_auto_fd fd = openat(p->incoming_fd, name,
                            O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s/" INCOMING_DIR, p->dir);
    if (!take_bytes(p, image, bytes, fd, &sums, err))
        return uvm_prefix(err, "%s", image->path);
    json_object_set_new(p->incoming, image->path,
                        json_pack("{s:s, s:I, s:s, s:s?}", "name", name, "size",
                                  (json_int_t)image->size, "sha256", sums.sha256_hex, "sha512",
                                  image->sha512));
    return true;
}

/* A link where the file system knows them, else a copy. */
static bool share(const struct mirror_publisher *p, const char *from, const char *to,
                  struct uvm_error *err)
{
    if (linkat(p->incoming_fd, from, p->incoming_fd, to, 0) == 0)
        return true;
    uvm_auto_fd in = openat(p->incoming_fd, from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    uvm_auto_fd out =
        openat(p->incoming_fd, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    uvm_auto_free char *data = uvm_alloc(COPY_BYTES);
    ssize_t n = in < 0 || out < 0 ? -1 : 1;
    while (n > 0 && uvm_go_on(p->options.observer, err)) {
        n = read(in, data, COPY_BYTES);
        if (n > 0 && !uvm_write_all(out, data, (size_t)n, err))
            return false;
    }
    if (n > 0)
        return false; /* interrupted */
    if (n < 0 || fsync(out) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s/" INCOMING_DIR, p->dir);
    return true;
}

bool mirror_publisher_same(struct mirror_publisher *p, const struct mirror_image *image,
                           const struct mirror_image *other, struct uvm_error *err)
{
    json_t *file = json_object_get(p->incoming, image->path);
    if (!file || !mirror_same_content(image, other))
        return uvm_fail(err, UVM_CONTENT, "%s and %s are not the same bytes", other->path,
                        image->path);
    uvm_auto_free char *name = uvm_format("%zu", json_object_size(p->incoming));
    if (!share(p, json_string_value(json_object_get(file, "name")), name, err))
        return false;
    json_t *copy = json_copy(file);
    json_object_set_new(copy, "name", json_string(name));
    json_object_set_new(p->incoming, other->path, copy);
    return true;
}

bool mirror_publisher_products(struct mirror_publisher *p, const char *content_id, const void *text,
                               size_t len, struct uvm_error *err)
{
    json_t *tree = NULL;
    if (!mirror_json_parse(text, len, &tree, err))
        return uvm_prefix(err, "stream %s", content_id);
    json_object_set_new(p->fresh, content_id, tree);
    /* Whoever reads it would expand these, and see other images than were checked. */
    return mirror_aliases_expand(tree, err) || uvm_prefix(err, "stream %s", content_id);
}

/* ---- what is here ---------------------------------------------------------------------------- */

/* An image that is looked for. */
struct search {
    const struct mirror_publisher *p;
    const char *product, *version;
    int fd;
};

static bool is_disk(const struct mirror_image *image)
{
    return strcmp(image->item, "disk1.img") == 0;
}

static bool look_at(void *opaque, const struct mirror_image *image, struct uvm_error *err)
{
    struct search *s = opaque;
    (void)err;
    if (s->fd < 0 && is_disk(image) && strcmp(image->product, s->product) == 0 &&
        strcmp(image->version, s->version) == 0 && mirror_publish_has(s->p, image, NULL))
        s->fd = mirror_beneath_open(s->p->root_fd, image->path, O_RDONLY, 0);
    return true;
}

int mirror_publisher_open_image(const struct mirror_publisher *p, const char *product,
                                const char *version)
{
    struct search s = {p, product, version, -1};
    uvm_auto_error ignored = UVM_ERROR_INIT;
    const char *content_id;
    json_t *tree;
    json_object_foreach(p->trees, content_id, tree)
    {
        mirror_publish_each(tree, look_at, &s, &ignored);
    }
    return s.fd;
}

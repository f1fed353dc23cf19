/*
 * chain.c: which file stands on which. Chains are read from the files' own headers, for libvirt
 * knows only what it saw at its last look.
 *
 *     guest's disk --backing--> overlay --backing--> ... --backing--> an image of ours
 */
#include "pool/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define IDENTITY_MAX   48
#define JSON_DEPTH_MAX 8

void pool_chains_init(struct pool_chains *c)
{
    *c = (struct pool_chains){.index = json_object()};
}

void pool_chains_clear(struct pool_chains *c)
{
    for (size_t i = 0; i < c->count; i++) {
        struct pool_node *n = &c->nodes[i];
        free(n->path);
        free(n->missing);
        free(n->fault);
        pool_header_clear(&n->header);
        uvm_strings_clear(&n->below);
        free(n->links);
        free(n->uses);
    }
    free(c->nodes);
    free(c->uses);
    uvm_strings_clear(&c->users);
    json_decref(c->index);
    *c = (struct pool_chains){0};
}

void *pool_chains_room(void *array, size_t count, size_t item_size)
{
    bool full = (count & (count - 1)) == 0; /* 0, 1, 2, 4, 8, ... */
    return full ? uvm_grow(array, count ? 2 * count : 1, item_size) : array;
}

bool pool_chains_denied(struct pool_chains *c, int reason)
{
    bool denied = geteuid() != 0 && (reason == EACCES || reason == EPERM);
    c->denied += denied;
    return denied;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Whether a "json:" name sets what its file stands on, whatever the file's header says. */
static bool names_another_file(const json_t *tree)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)tree, key, value)
    {
        if (strncmp(key, "backing", strlen("backing")) == 0 ||
            strncmp(key, "data-file", strlen("data-file")) == 0)
            return true;
    }
    return false;
}

/* The file that QEMU's {"file": {"filename": ...}} or {"file.filename": ...} names. */
static const char *json_filename(const json_t *tree, unsigned depth)
{
    if (names_another_file(tree))
        return NULL;
    const char *name = json_string_value(json_object_get(tree, "file.filename"));
    if (!name)
        name = json_string_value(json_object_get(tree, "filename"));
    if (!name && depth < JSON_DEPTH_MAX && json_object_get(tree, "file"))
        return json_filename(json_object_get(tree, "file"), depth + 1);
    return name;
}

/* A colon before the first slash makes QEMU take a name for a protocol. */
static bool has_protocol(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

static char *in_folder_of(const char *of, const char *name)
{
    if (name[0] == '/')
        return uvm_strdup(name);
    if (!of || of[0] != '/')
        return NULL;
    uvm_auto_free char *dir = uvm_dirname(of);
    return uvm_format("%s/%s", dir, name);
}

/* What QEMU would open for this name, met in the file `of` (NULL: in a guest's definition); NULL
 * when that is no file of this host or cannot be told. Behind "json:" and "file:" a relative name
 * starts at QEMU's own folder, which nobody knows. */
static char *resolve(const char *of, const char *name)
{
    if (strncmp(name, "json:", strlen("json:")) == 0) {
        const char *text = name + strlen("json:");
        mirror_auto_json *tree = json_loads(text, 0, NULL);
        const char *file = json_filename(tree, 0);
        return file && file[0] == '/' ? uvm_strdup(file) : NULL;
    }
    if (strncmp(name, "file:/", strlen("file:/")) == 0)
        return uvm_strdup(name + strlen("file:"));
    return *name && !has_protocol(name) ? in_folder_of(of, name) : NULL;
}

static bool is_relative(const char *name)
{
    return name && name[0] != '/' && !has_protocol(name);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static bool find_node(const struct pool_chains *c, const char *identity, size_t *ret_node)
{
    const json_t *known = json_object_get(c->index, identity);
    if (!known)
        return false;
    *ret_node = (size_t)json_integer_value(known);
    return true;
}

static size_t new_node(struct pool_chains *c, const char *identity, const char *path)
{
    c->nodes = pool_chains_room(c->nodes, c->count, sizeof(*c->nodes));
    c->nodes[c->count] = (struct pool_node){.path = uvm_strdup(path)};
    json_object_set_new(c->index, identity, json_integer((json_int_t)c->count));
    return c->count++;
}

static void set_fault(struct pool_node *node, const char *what)
{
    if (!node->fault)
        node->fault = uvm_strdup(what);
}

/* A file that cannot be looked at. Not allowed to: then its spelling tells one from another. */
static size_t missing_node(struct pool_chains *c, const char *path, int reason)
{
    size_t node = 0;
    if (find_node(c, path, &node))
        return node;
    node = new_node(c, path, path);
    c->nodes[node].gone = reason == ENOENT;
    if (!pool_chains_denied(c, reason))
        c->nodes[node].missing = uvm_strdup(strerror(reason));
    return node;
}

/* Opens and reads a file whose identity is known. Only regular files and block devices have a
 * header; opening anything else (a FIFO that a header names) is not tried. */
static bool look_into(struct pool_node *n, const struct stat *st, struct uvm_error *err)
{
    if (S_ISDIR(st->st_mode) || S_ISCHR(st->st_mode))
        return true;
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
        return uvm_fail(err, UVM_FAILED, "is neither a file nor a device");
    uvm_auto_fd fd = open(n->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "open");
    struct stat now;
    if (fstat(fd, &now) != 0 || now.st_dev != st->st_dev || now.st_ino != st->st_ino)
        return uvm_fail(err, UVM_FAILED, "changed while it was looked at");
    if (S_ISBLK(st->st_mode) && !pool_device_below(st->st_rdev, &n->below, err))
        return false;
    return pool_header_read(fd, &n->header, err);
}

static size_t enter(struct pool_chains *c, const char *path)
{
    char identity[IDENTITY_MAX];
    struct stat st;
    size_t node = 0;
    if (stat(path, &st) != 0)
        return missing_node(c, path, errno);
    /* A device is the same one under any name that leads to it. */
    bool device = S_ISBLK(st.st_mode);
    snprintf(identity, sizeof(identity), "%s%u:%u:%" PRIu64, device ? "device " : "",
             major(device ? st.st_rdev : st.st_dev), minor(device ? st.st_rdev : st.st_dev),
             device ? 0 : (uint64_t)st.st_ino);
    if (find_node(c, identity, &node))
        return node;

    uvm_auto_error err = UVM_ERROR_INIT;
    node = new_node(c, identity, path);
    struct pool_node *n = &c->nodes[node];
    if (look_into(n, &st, &err) || pool_chains_denied(c, err.sys_errno))
        return node;
    if (err.code == UVM_CONTENT)
        set_fault(n, err.message);
    else
        n->missing = uvm_strdup(err.message);
    return node;
}

/* ---- links ----------------------------------------------------------------------------------- */

/* A file whose links are still to be followed, and the name by which it was come to. */
struct step {
    size_t node;
    char *path;
};
struct steps {
    struct step *items;
    size_t count;
    unsigned left; /* how many links may still be followed */
};

static void steps_clear(struct steps *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->items[i].path);
    free(s->items);
}

/* What a known file stands on is known too, unless its name depends on where one comes from. Takes
 * over the path. */
static void add_step(struct pool_chains *c, struct steps *s, size_t node, char *path)
{
    const struct pool_node *n = &c->nodes[node];
    if (n->followed && !is_relative(n->header.backing) && !is_relative(n->header.data)) {
        free(path);
        return;
    }
    s->items = pool_chains_room(s->items, s->count, sizeof(*s->items));
    s->items[s->count++] = (struct step){node, path};
}

static void link_nodes(struct pool_node *from, size_t to, enum pool_link_kind kind)
{
    for (size_t i = 0; i < from->link_count; i++) {
        if (from->links[i].to == to && from->links[i].kind == kind)
            return;
    }
    from->links = pool_chains_room(from->links, from->link_count, sizeof(*from->links));
    from->links[from->link_count++] = (struct pool_link){to, kind};
}

static void follow_name(struct pool_chains *c, struct steps *s, const struct step *from,
                        const char *name, enum pool_link_kind kind)
{
    if (!name)
        return;
    char *path = resolve(from->path, name);
    if (!path) {
        uvm_auto_free char *shown = uvm_printable(name);
        uvm_auto_free char *text =
            uvm_format("it stands on '%s', and which file that is cannot be told", shown);
        set_fault(&c->nodes[from->node], text);
        return;
    }
    if (s->left == 0) {
        set_fault(&c->nodes[from->node], "its chain of backing files does not end");
        free(path);
        return;
    }
    s->left--;
    size_t to = enter(c, path);
    link_nodes(&c->nodes[from->node], to, kind);
    add_step(c, s, to, path);
}

static void follow_links(struct pool_chains *c, struct steps *s, const struct step *from)
{
    const struct pool_header header = c->nodes[from->node].header;
    const struct uvm_strings below = c->nodes[from->node].below;
    c->nodes[from->node].followed = true;
    for (size_t i = 0; i < below.count; i++)
        follow_name(c, s, from, below.items[i], POOL_LINK_DEVICE);
    follow_name(c, s, from, header.data, POOL_LINK_DATA);
    follow_name(c, s, from, header.backing, POOL_LINK_BACKING);
}

bool pool_chains_add(struct pool_chains *c, const char *name, size_t *ret_node,
                     struct uvm_error *err)
{
    __attribute__((cleanup(steps_clear))) struct steps steps = {.left = POOL_CHAIN_DEPTH_MAX};
    char *path = resolve(NULL, name);
    if (!path) {
        uvm_auto_free char *shown = uvm_printable(name);
        return uvm_fail(err, UVM_CONTENT, "%s: cannot be told which file that is", shown);
    }
    *ret_node = enter(c, path);
    add_step(c, &steps, *ret_node, path);
    while (steps.count > 0) {
        struct step from = steps.items[--steps.count];
        follow_links(c, &steps, &from);
        free(from.path);
    }
    return true;
}

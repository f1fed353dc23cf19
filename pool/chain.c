/*
 * chain.c: which file stands on which. Chains are read from the files' own headers, for libvirt
 * knows only what it saw at its last look.
 *
 *     guest's disk --backing--> overlay --backing--> ... --backing--> an image of ours
 *
 * Whatever cannot be understood becomes a doubt, and with a doubt nothing is deleted.
 */
#include "pool/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BACKING_NAME_MAX 4096 /* QEMU: 1023 */
#define IDENTITY_MAX     48
#define JSON_DEPTH_MAX   8

void pool_chains_init(struct pool_chains *c)
{
    *c = (struct pool_chains){.index = json_object()};
}

void pool_chains_clear(struct pool_chains *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->nodes[i].path);
        free(c->nodes[i].backing);
        free(c->nodes[i].next);
        uvm_strings_clear(&c->nodes[i].users);
    }
    free(c->nodes);
    json_decref(c->index);
    *c = (struct pool_chains){0};
}

static void doubt(struct uvm_strings *doubts, const char *who, const char *name, const char *reason)
{
    uvm_auto_free char *shown = uvm_printable(name);
    uvm_auto_free char *text = uvm_format("%s: %s: %s", who, shown, reason);
    uvm_strings_add(doubts, text);
}

bool pool_chains_denied(struct pool_chains *c, int reason)
{
    bool denied = geteuid() != 0 && (reason == EACCES || reason == EPERM);
    c->denied += denied;
    return denied;
}

/* ---- headers --------------------------------------------------------------------------------- */

static ssize_t read_at(int fd, void *data, size_t len, uint64_t offset)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, (char *)data + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

static bool starts_with(const char *head, size_t len, const char *magic, size_t magic_len)
{
    return len >= magic_len && memcmp(head, magic, magic_len) == 0;
}

/* Formats that can have a backing file but whose headers are not read here: QED and VMDK. */
static bool may_hide_backing(const char *head, size_t len)
{
    if (starts_with(head, len, "QED\0", 4))
        return len >= 24 && (head[16] & 1); /* feature bit 0: backing file */
    if (!starts_with(head, len, "KDMV", 4) && !starts_with(head, len, "COWD", 4) &&
        !starts_with(head, len, "# Disk Descriptor", 17))
        return false;
    return memmem(head, len, "parentFileNameHint", strlen("parentFileNameHint")) != NULL;
}

/* Reads the name of the backing file; *ret_name is NULL when there is none. */
static bool read_backing(int fd, char **ret_name, struct uvm_error *err)
{
    uvm_auto_free char *head = uvm_alloc(MIRROR_QCOW2_HEAD);
    ssize_t len = read_at(fd, head, MIRROR_QCOW2_HEAD, 0);
    if (len < 0)
        return uvm_fail_errno(err, UVM_FAILED, "read");
    if (may_hide_backing(head, (size_t)len))
        return uvm_fail(err, UVM_CONTENT, "its format can hide a backing file");

    uint64_t offset = 0;
    uint32_t name_len = 0;
    if (!mirror_qcow2_backing(head, (size_t)len, &offset, &name_len, err))
        return false;
    if (name_len == 0) {
        *ret_name = NULL;
        return true;
    }
    if (name_len > BACKING_NAME_MAX)
        return uvm_fail(err, UVM_CONTENT, "the name of its backing file is too long");
    uvm_auto_free char *name = uvm_alloc(name_len + (size_t)1);
    ssize_t got = read_at(fd, name, name_len, offset);
    if (got < 0)
        return uvm_fail_errno(err, UVM_FAILED, "read");
    if ((size_t)got != name_len || strlen(name) != name_len)
        return uvm_fail(err, UVM_CONTENT, "the name of its backing file makes no sense");
    *ret_name = UVM_STEAL(name);
    return true;
}

/* Opens and reads a file whose identity is known. Only regular files and block devices have a
 * header; opening anything else (a FIFO that a header names) is not tried. */
static bool read_header(const char *path, const struct stat *st, char **ret_backing,
                        struct uvm_error *err)
{
    if (S_ISDIR(st->st_mode) || S_ISCHR(st->st_mode)) {
        *ret_backing = NULL;
        return true;
    }
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
        return uvm_fail(err, UVM_CONTENT, "is neither a file nor a device");
    uvm_auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "open");
    struct stat now;
    if (fstat(fd, &now) != 0 || now.st_dev != st->st_dev || now.st_ino != st->st_ino)
        return uvm_fail(err, UVM_FAILED, "changed while it was looked at");
    return read_backing(fd, ret_backing, err);
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
    return name[0] != '/' && !has_protocol(name);
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
    c->nodes = uvm_grow(c->nodes, c->count + 1, sizeof(*c->nodes));
    c->nodes[c->count] = (struct pool_node){.path = uvm_strdup(path)};
    json_object_set_new(c->index, identity, json_integer((json_int_t)c->count));
    return c->count++;
}

static void link_nodes(struct pool_chains *c, size_t from, size_t to)
{
    struct pool_node *node = &c->nodes[from];
    for (size_t i = 0; i < node->next_count; i++) {
        if (node->next[i] == to)
            return;
    }
    node->next = uvm_grow(node->next, node->next_count + 1, sizeof(*node->next));
    node->next[node->next_count++] = to;
}

/* One link of the walk down: finds or makes the node of `path`. *ret_new says whether its header
 * was read just now. */
static bool enter(struct pool_chains *c, const char *path, enum pool_missing missing,
                  const char *who, struct uvm_strings *doubts, size_t *ret_node, bool *ret_new)
{
    char identity[IDENTITY_MAX];
    struct stat st;
    *ret_new = false;
    if (stat(path, &st) != 0) {
        int reason = errno;
        bool told =
            (reason == ENOENT && missing == POOL_MISSING_IS_FINE) || pool_chains_denied(c, reason);
        if (!told)
            doubt(doubts, who, path, strerror(reason));
        if (reason == ENOENT)
            return false;
        /* Not allowed to look: at least its spelling tells one volume from another. */
        if (!find_node(c, path, ret_node))
            *ret_node = new_node(c, path, path);
        return true;
    }
    snprintf(identity, sizeof(identity), "%u:%u:%" PRIu64, major(st.st_dev), minor(st.st_dev),
             (uint64_t)st.st_ino);
    if (find_node(c, identity, ret_node))
        return true;

    uvm_auto_error err = UVM_ERROR_INIT;
    char *backing = NULL;
    *ret_node = new_node(c, identity, path);
    if (read_header(path, &st, &backing, &err)) {
        c->nodes[*ret_node].backing = backing;
        *ret_new = true;
    } else if (!pool_chains_denied(c, err.sys_errno)) {
        doubt(doubts, who, path, err.message);
    }
    return true;
}

bool pool_chains_add(struct pool_chains *c, const char *name, enum pool_missing missing,
                     const char *who, struct uvm_strings *doubts, size_t *ret_node)
{
    uvm_auto_free char *path = resolve(NULL, name);
    size_t node = 0;
    bool is_new = false;
    if (!path) {
        doubt(doubts, who, name, "cannot be told which file that is");
        return false;
    }
    if (!enter(c, path, missing, who, doubts, &node, &is_new))
        return false;
    *ret_node = node;

    for (unsigned depth = 0; c->nodes[node].backing; depth++) {
        const char *backing = c->nodes[node].backing;
        /* What a known file stands on is known too, unless its name depends on where one comes
         * from. */
        if (!is_new && !is_relative(backing))
            return true;
        if (depth >= POOL_CHAIN_DEPTH_MAX) {
            doubt(doubts, who, path, "its chain of backing files does not end");
            return true;
        }
        char *below = resolve(path, backing);
        if (!below) {
            doubt(doubts, who, backing, "cannot be told which file that is");
            return true;
        }
        free(path);
        path = below;
        size_t from = node;
        if (!enter(c, path, POOL_MISSING_IS_DOUBT, who, doubts, &node, &is_new))
            return true;
        link_nodes(c, from, node);
    }
    return true;
}

/* ---- marks ----------------------------------------------------------------------------------- */

struct walk {
    struct pool_chains *chains;
    size_t stamp;
    const char *user;
    bool guest;
};

/* Marks everything below a node. A walk comes to each node once, so a loop ends; and it goes by a
 * list and not by recursion, for chains that meet grow longer than one chain may be. */
static void mark_below(const struct walk *w, size_t top)
{
    struct pool_node *nodes = w->chains->nodes;
    uvm_auto_free size_t *todo = uvm_grow(NULL, 1, sizeof(*todo));
    size_t count = 0;
    for (todo[count++] = top; count > 0;) {
        const struct pool_node *from = &nodes[todo[--count]];
        todo = uvm_grow(todo, count + from->next_count + 1, sizeof(*todo));
        for (size_t i = 0; i < from->next_count; i++) {
            struct pool_node *node = &nodes[from->next[i]];
            if (node->stamp == w->stamp)
                continue;
            node->stamp = w->stamp;
            node->guest = node->guest || w->guest;
            uvm_strings_add(&node->users, w->user);
            if (w->guest || !node->volume)
                todo[count++] = from->next[i];
        }
    }
}

void pool_chains_mark_guest(struct pool_chains *c, size_t node, const char *guest, size_t stamp)
{
    struct pool_node *top = &c->nodes[node];
    const char *slash = strrchr(top->path, '/');
    uvm_auto_free char *file = uvm_printable(slash ? slash + 1 : top->path);
    uvm_auto_free char *direct = uvm_format("guest %s", guest);
    uvm_auto_free char *through = uvm_format("guest %s through %s", guest, file);

    if (top->stamp == stamp)
        return;
    top->stamp = stamp;
    top->guest = true;
    uvm_strings_add(&top->users, direct);
    mark_below(&(struct walk){c, stamp, through, true}, node);
}

void pool_chains_mark_volume(struct pool_chains *c, size_t node, const char *user, size_t stamp)
{
    c->nodes[node].stamp = stamp;
    mark_below(&(struct walk){c, stamp, user, false}, node);
}

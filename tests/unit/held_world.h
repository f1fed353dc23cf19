/*
 * held_world.h: what the tests of a mirror's holdings stand on: a mirror, streams that are made on
 * the spot, and their images. An item carries the bytes of its image as a key "content".
 */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mirror/held.h"

#define SIGNER  "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"
#define UPDATED "Fri, 04 Oct 2024 09:30:00 +0000"
#define NOBODY  65534

static char root[] = "/tmp/test-held-XXXXXX";

static inline int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) && chmod(root, 0755) == 0 ? 0 : -1;
}

static inline int remove_root(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    return uvm_remove_tree(root, &err) ? 0 : -1;
}

static inline void must(bool ok, struct uvm_error *err)
{
    if (!ok)
        fail_msg("%s", err->message);
}

/* ---- a mirror -------------------------------------------------------------------------------- */

struct world {
    char *dir;    /* the mirror */
    char *source; /* the folder that images come from */
    char *url;    /* what streams say they came from */
    struct mirror_tree *tree;
    struct mirror_removed removed; /* by the last fetch */
    char said[4096];               /* notices and warnings of the last call */
    bool armored;                  /* streams are served clear-signed */
    bool allow_older;
    struct uvm_error err;
};

static inline void open_world(struct world *w)
{
    must(mirror_tree_open(w->dir, &w->tree, &w->err), &w->err);
}

static inline struct world new_world(void)
{
    static int count;
    struct world w = {.url = uvm_strdup("https://source.example/releases/")};
    w.dir = uvm_format("%s/%d/mirror", root, ++count);
    w.source = uvm_format("%s/%d/source", root, count);
    must(uvm_make_dirs(w.dir, 0755, &w.err) && uvm_make_dirs(w.source, 0755, &w.err), &w.err);
    open_world(&w);
    return w;
}

static inline void clear_world(struct world *w)
{
    mirror_tree_free(w->tree);
    mirror_removed_clear(&w->removed);
    uvm_error_clear(&w->err);
    free(w->dir);
    free(w->source);
    free(w->url);
}
#define auto_world __attribute__((cleanup(clear_world))) struct world

static inline void reopen(struct world *w)
{
    mirror_tree_free(w->tree);
    open_world(w);
}

static inline void listen_in(void *opaque, const struct uvm_event *event)
{
    struct world *w = opaque;
    size_t len = strlen(w->said);
    if (event->kind == UVM_EVENT_NOTICE || event->kind == UVM_EVENT_WARNING)
        snprintf(w->said + len, sizeof w->said - len, "%s\n", event->text);
}

static inline struct uvm_observer observer_of(struct world *w)
{
    return (struct uvm_observer){listen_in, w, NULL};
}

/* ---- files ----------------------------------------------------------------------------------- */

static inline void put(const char *dir, const char *name, const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = uvm_format("%s/%s", dir, name);
    uvm_auto_free char *folder = uvm_dirname(path);
    must(uvm_make_dirs(folder, 0755, &err), &err);
    must(uvm_file_replace(path, 0644, text, strlen(text), &err), &err);
}

static inline char *path_in(const struct world *w, const char *name)
{
    return uvm_format("%s/%s", w->dir, name);
}

static inline bool there(const struct world *w, const char *name)
{
    struct stat st;
    uvm_auto_free char *path = path_in(w, name);
    return lstat(path, &st) == 0;
}

static inline ino_t inode_of(const struct world *w, const char *name)
{
    struct stat st;
    uvm_auto_free char *path = path_in(w, name);
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

/* Removes a file or an empty folder. */
static inline void unlink_in(const struct world *w, const char *name)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_in(w, name);
    must(uvm_remove_tree(path, &err), &err);
}

static inline void replace_by_link(const struct world *w, const char *name, const char *target)
{
    uvm_auto_free char *path = path_in(w, name);
    unlink_in(w, name);
    assert_int_equal(symlink(target, path), 0);
}

static inline int count_in(const struct world *w, const char *name)
{
    uvm_auto_free char *path = path_in(w, name);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2; /* "." and ".." */
}

/* ---- the record of verified files ------------------------------------------------------------ */

static inline bool on_record(const struct world *w, const char *path)
{
    return json_object_get(mirror_verified_files(w->tree->verified), path);
}

/* As if it had been fetched, by somebody who kept no other record of it. */
static inline void verify_by_hand(struct world *w, const char *path, const char *text)
{
    struct stat st;
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_auto_free char *file = path_in(w, path);
    put(w->dir, path, text);
    assert_int_equal(stat(file, &st), 0);
    uvm_digest_bytes(UVM_SHA256, text, strlen(text), hex);
    mirror_verified_set(w->tree->verified, path, &st, hex, NULL, MIRROR_ON_DISK);
}

static inline void lose_verified(struct world *w)
{
    mirror_tree_free(w->tree);
    unlink_in(w, "uvmirror/verified.json");
    open_world(w);
}

/* ---- streams --------------------------------------------------------------------------------- */

static inline json_t *new_stream(const char *content_id)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:{}}", "content_id", content_id, "datatype",
                     "image-downloads", "format", "products:1.0", "updated", UPDATED, "products");
}

static inline json_t *member(json_t *node, const char *key)
{
    if (!json_object_get(node, key))
        json_object_set_new(node, key, json_object());
    return json_object_get(node, key);
}

static inline json_t *product_of(json_t *stream, const char *product)
{
    return member(json_object_get(stream, "products"), product);
}

/* Lists an image; borrowed. */
static inline json_t *add_item(json_t *stream, const char *product, const char *version,
                               const char *name, const char *path, const char *content)
{
    char hex[UVM_DIGEST_HEX_MAX];
    json_t *p = product_of(stream, product);
    json_object_set_new(p, "arch", json_string("amd64"));
    json_t *items = member(member(member(p, "versions"), version), "items");
    uvm_digest_bytes(UVM_SHA256, content, strlen(content), hex);
    json_t *item = json_pack("{s:s, s:s, s:I, s:s, s:s}", "ftype", name, "path", path, "size",
                             (json_int_t)strlen(content), "sha256", hex, "content", content);
    json_object_set_new(items, name, item);
    return item;
}

static inline json_t *add(json_t *stream, const char *product, const char *version,
                          const char *path, const char *content)
{
    return add_item(stream, product, version, "disk1.img", path, content);
}

static inline struct mirror_stream *stream_of(const struct world *w, const json_t *json)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_stream *s = NULL;
    uvm_auto_free char *text = json_dumps(json, 0);
    must(mirror_stream_parse(text, strlen(text), &s, &err), &err);
    uvm_auto_free char *served =
        w->armored ? uvm_format("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n%s\n"
                                "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n"
                                "-----END PGP SIGNATURE-----\n",
                                text)
                   : uvm_strdup(text);
    must(uvm_buf_add(&s->origin, served, strlen(served), &err), &err);
    s->source = uvm_strdup(w->url);
    s->path = uvm_format("streams/v1/%s.sjson", s->content_id);
    s->signer = uvm_strdup(SIGNER);
    return s;
}

static inline struct mirror_filters *filters_of(const char *filter)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_filters *filters = NULL;
    must(mirror_filters_new(&filter, filter != NULL, "amd64", &filters, &err), &err);
    return filters;
}

/* ---- what a fetch does ----------------------------------------------------------------------- */

/* A stream and what is chosen of it. */
struct choice {
    struct mirror_stream *stream;
    struct mirror_filters *filters;
    struct mirror_selection selection;
};

static inline void clear_choice(struct choice *c)
{
    mirror_selection_clear(&c->selection);
    mirror_filters_free(c->filters);
    mirror_stream_free(c->stream);
}
#define auto_choice __attribute__((cleanup(clear_choice))) struct choice

static inline struct choice choose(struct world *w, const json_t *json, unsigned max,
                                   const char *filter)
{
    struct choice c = {.stream = stream_of(w, json), .filters = filters_of(filter)};
    must(mirror_stream_select(c.stream, c.filters, max, &c.selection, &w->err), &w->err);
    return c;
}

static inline void await_ok(struct world *w, const json_t *json, unsigned max, const char *filter)
{
    auto_choice c = choose(w, json, max, filter);
    struct uvm_observer observer = observer_of(w);
    w->said[0] = 0;
    must(mirror_tree_await(w->tree, c.stream, &c.selection, &observer, &w->err), &w->err);
}

static inline void refuse_await(struct world *w, const json_t *json, enum uvm_code code,
                                const char *words)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    auto_choice c = choose(w, json, 0, NULL);
    assert_false(mirror_tree_await(w->tree, c.stream, &c.selection, NULL, &err));
    if (err.code != code || !strstr(err.message, words))
        fail_msg("code %d: %s", err.code, err.message);
}

static inline void download_image(struct world *w, const struct mirror_image *image)
{
    UVM_AUTO(mirror_source_free) struct mirror_source *source = NULL;
    UVM_AUTO(mirror_download_free) struct mirror_download *download = NULL;
    struct mirror_source_options options = {
        .url = w->source, .path = "index.json", .network = MIRROR_NETWORK_DEFAULT};
    put(w->source, image->path, mirror_image_get(image, "content"));
    must(mirror_source_new(&options, &source, &w->err), &w->err);
    download = mirror_download_start(w->tree, source, &image, 1, NULL);
    must(mirror_download_wait(download, &w->err), &w->err);
}

static inline void download(struct world *w, const json_t *json, unsigned max, const char *filter)
{
    auto_choice c = choose(w, json, max, filter);
    for (size_t i = 0; i < c.selection.count; i++)
        for (size_t k = 0; k < c.selection.products[i].image_count; k++)
            download_image(w, &c.selection.products[i].images[k]);
}

static inline void hold(struct world *w, const json_t *json, unsigned max, const char *filter)
{
    auto_choice c = choose(w, json, max, filter);
    struct uvm_observer observer = observer_of(w);
    mirror_removed_clear(&w->removed);
    struct mirror_choice choice = {&c.selection, c.filters, max, w->allow_older};
    must(mirror_tree_hold(w->tree, c.stream, &choice, &observer, &w->removed, &w->err), &w->err);
}

static inline void fetch(struct world *w, const json_t *json, unsigned max, const char *filter)
{
    await_ok(w, json, max, filter);
    download(w, json, max, filter);
    hold(w, json, max, filter);
}

/* Holds all of a stream, as one that is made here. */
static inline void replace(struct world *w, const json_t *json)
{
    auto_choice c = choose(w, json, 0, NULL);
    download(w, json, 0, NULL);
    mirror_removed_clear(&w->removed);
    must(mirror_held_replace(w->tree, c.stream, &c.selection, NULL, &w->removed, &w->err), &w->err);
}

/* ---- what came of it ------------------------------------------------------------------------- */

static inline void append(char **text, const char *word)
{
    char *longer = uvm_format("%s%s%s", *text, **text ? " " : "", word);
    free(*text);
    *text = longer;
}

static inline int by_text(const void *a, const void *b)
{
    char *const *sa = a, *const *sb = b;
    return strcmp(*sa, *sb);
}

/* The paths, sorted. */
static inline void check_paths(const struct mirror_removed *removed, const char *expected)
{
    uvm_auto_free char *text = uvm_strdup("");
    if (removed->paths.count)
        qsort(removed->paths.items, removed->paths.count, sizeof(char *), by_text);
    for (size_t i = 0; i < removed->paths.count; i++)
        append(&text, removed->paths.items[i]);
    assert_string_equal(text, expected);
}

/* What the last fetch removed, and that it is gone. */
static inline void check_removed(struct world *w, const char *expected)
{
    check_paths(&w->removed, expected);
    for (size_t i = 0; i < w->removed.paths.count; i++) {
        assert_false(there(w, w->removed.paths.items[i]));
        assert_false(on_record(w, w->removed.paths.items[i]));
    }
}

static inline void superseded(struct world *w, const json_t *json, unsigned max,
                              struct mirror_removed *removed)
{
    auto_choice c = choose(w, json, max, NULL);
    struct mirror_choice choice = {&c.selection, c.filters, max, w->allow_older};
    must(mirror_tree_superseded(w->tree, c.stream, &choice, removed, &w->err), &w->err);
}

static inline void check_superseded(struct world *w, const json_t *json, unsigned max,
                                    const char *expected, uint64_t bytes)
{
    mirror_auto_removed removed = {0};
    superseded(w, json, max, &removed);
    check_paths(&removed, expected);
    assert_int_equal(removed.bytes, bytes);
}

/* What is held of a stream: "product/version" of each image, "complete" behind a product's. */
static inline void check_selected_by(struct world *w, const json_t *json, const char *filter,
                                     unsigned max, const char *expected)
{
    UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = stream_of(w, json);
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = filters_of(filter);
    mirror_auto_selection selection = {0};
    uvm_auto_free char *text = uvm_strdup("");
    must(mirror_tree_select(w->tree, stream, filters, max, &selection, &w->err), &w->err);
    for (size_t i = 0; i < selection.count; i++) {
        const struct mirror_product *p = &selection.products[i];
        for (size_t k = 0; k < p->image_count; k++) {
            uvm_auto_free char *word = uvm_format("%s/%s", p->name, p->images[k].version);
            append(&text, word);
        }
        if (p->complete)
            append(&text, "complete");
    }
    assert_string_equal(text, expected);
}

static inline void check_selected(struct world *w, const json_t *json, unsigned max,
                                  const char *expected)
{
    check_selected_by(w, json, NULL, max, expected);
}

static inline void check_streams(struct world *w, const char *expected)
{
    struct mirror_stream **streams = NULL;
    size_t count = 0;
    uvm_auto_free char *text = uvm_strdup("");
    must(mirror_tree_held_streams(w->tree, &streams, &count, &w->err), &w->err);
    for (size_t i = 0; i < count; i++) {
        append(&text, streams[i]->content_id);
        mirror_stream_free(streams[i]);
    }
    free(streams);
    assert_string_equal(text, expected);
}

static inline void refuse_streams(struct world *w, enum uvm_code code, const char *words)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_stream **streams = NULL;
    size_t count = 0;
    assert_false(mirror_tree_held_streams(w->tree, &streams, &count, &err));
    if (err.code != code || !strstr(err.message, words))
        fail_msg("code %d: %s", err.code, err.message);
}

static inline json_t *read_json(const struct world *w, const char *name)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0};
    json_t *json = NULL;
    uvm_auto_free char *path = path_in(w, name);
    must(uvm_file_read(path, MIRROR_JSON_MAX, &text, &err), &err);
    must(mirror_json_parse(text.data, text.len, &json, &err), &err);
    return json;
}

static inline json_t *read_record(const struct world *w, const char *content_id)
{
    uvm_auto_free char *name = uvm_format("uvmirror/streams/%s.json", content_id);
    return read_json(w, name);
}

/* The keys of one part of a stream's record. */
static inline void check_record(const struct world *w, const char *content_id, const char *part,
                                const char *expected)
{
    mirror_auto_json *record = read_record(w, content_id);
    uvm_auto_free char *text = uvm_strdup("");
    const char *key;
    json_t *entry;
    json_object_foreach(json_object_get(record, part), key, entry)
    {
        append(&text, key);
    }
    assert_string_equal(text, expected);
}

/* The kept file of a stream, below the mirror. */
static inline char *origin_of(const struct world *w, const char *content_id)
{
    mirror_auto_json *record = read_record(w, content_id);
    return uvm_format("uvmirror/streams/%s", json_string_value(json_object_get(record, "origin")));
}

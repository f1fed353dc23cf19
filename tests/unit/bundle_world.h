/*
 * bundle_world.h: what the tests of bundle/ stand on: real keys, a signed source, a mirror of it,
 * one good bundle in memory, and ways to read it and what was made of it.
 */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bundle/internal.h"
#include "bundle_craft.h"

#define CONTENT_ID "org.example:released"
#define CREATED    ((time_t)1728034200)

enum { MANIFEST, SIGNATURE, ORIGIN, INDEX_JSON, INDEX_SJSON, JSON, SJSON, IMAGE_A, IMAGE_B, PARTS };

/* What all tests share: keys, a source, a mirror, and one good bundle in memory. */
static struct {
    char dir[64];
    struct uvm_signer *site, *vendor, *stranger;
    struct uvm_verifier *trust_site, *trust_vendor;
    struct mirror_tree *tree;
    struct mirror_stream **streams;
    size_t stream_count;
    struct mirror_selection selection;
    struct uvm_strings filters;
    struct uvm_buf good; /* a bundle */
    struct uvm_buf tar;  /* the same, decoded */
} all;

static inline char *path_of(const char *name)
{
    return uvm_format("%s/%s", all.dir, name);
}

static inline void must(bool ok, struct uvm_error *err)
{
    if (!ok)
        fail_msg("%s", err->message);
}

static inline void put(const char *name, const void *data, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of(name);
    uvm_auto_free char *folder = uvm_dirname(path);
    must(uvm_make_dirs(folder, 0755, &err), &err);
    must(uvm_file_replace(path, 0644, data, len, &err), &err);
}

/* ---- the stage ---- */

static inline struct uvm_signer *make_signer(const char *name, struct uvm_verifier **ret_verifier)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *home = path_of(name);
    uvm_auto_free char *ring_name = uvm_format("%s.gpg", name);
    uvm_auto_free char *ring = path_of(ring_name);
    uvm_auto_buf key = {0};
    uvm_auto_strings rings = {0};
    char fingerprint[UVM_FINGERPRINT_MAX];
    struct uvm_signer *signer = NULL;
    must(uvm_key_generate(home, name, 0, fingerprint, &err), &err);
    must(uvm_signer_new(home, NULL, &signer, &err), &err);
    must(uvm_key_export(home, fingerprint, &key, &err), &err);
    put(ring_name, key.data, key.len);
    uvm_strings_add(&rings, ring);
    if (ret_verifier)
        must(uvm_verifier_new(&rings, ret_verifier, &err), &err);
    return signer;
}

static inline void put_signed(struct uvm_signer *signer, const char *name, const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf signed_text = {0};
    must(uvm_signer_clearsigned(signer, text, strlen(text), &signed_text, &err), &err);
    put(name, signed_text.data, signed_text.len);
}

/* Bytes that do not compress and need no random source. */
static inline void fill(char *data, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (char)(seed >> 24);
    }
}

static inline char *item_json(const char *version, const char *data, size_t len)
{
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA256, data, len, hex);
    return uvm_format("\"%s\":{\"items\":{\"disk1.img\":{\"ftype\":\"disk1.img\",\"path\":"
                      "\"r/%s.img\",\"size\":%zu,\"sha256\":\"%s\"}}}",
                      version, version, len, hex);
}

#ifndef SIZE_A
#define SIZE_A 700 /* a test that wants a larger bundle says so before */
#endif
#define SIZE_B 300
static char image_a[SIZE_A], image_b[SIZE_B];

static inline void make_source(void)
{
    fill(image_a, SIZE_A, 1);
    fill(image_b, SIZE_B, 2);
    put("source/r/20241004.img", image_a, SIZE_A);
    put("source/r/20241001.img", image_b, SIZE_B);
    uvm_auto_free char *a = item_json("20241004", image_a, SIZE_A);
    uvm_auto_free char *b = item_json("20241001", image_b, SIZE_B);
    uvm_auto_free char *products = uvm_format(
        "{\"format\":\"products:1.0\",\"content_id\":\"" CONTENT_ID "\","
        "\"datatype\":\"image-downloads\",\"updated\":\"Fri, 04 Oct 2024 09:00:00 +0000\","
        "\"products\":{\"org.example:24.04:amd64\":{\"release\":\"noble\",\"arch\":\"amd64\","
        "\"label\":\"release\",\"versions\":{%s,%s}}}}\n",
        a, b);
    put_signed(all.vendor, "source/streams/v1/p.sjson", products);
    put_signed(all.vendor, "source/streams/v1/index.sjson",
               "{\"format\":\"index:1.0\",\"index\":{\"" CONTENT_ID
               "\":{\"format\":\"products:1.0\",\"datatype\":\"image-downloads\","
               "\"path\":\"streams/v1/p.sjson\"}}}\n");
}

/* All images of a selection: pointers, which are the caller's to free. */
static inline const struct mirror_image **images_of(const struct mirror_selection *selection,
                                                    size_t *ret_count)
{
    const struct mirror_image **images = NULL;
    size_t count = 0;
    for (size_t p = 0; p < selection->count; p++)
        for (size_t i = 0; i < selection->products[p].image_count; i++) {
            images = uvm_grow(images, count + 1, sizeof *images);
            images[count++] = &selection->products[p].images[i];
        }
    *ret_count = count;
    return images;
}

static inline void fetch_into(struct mirror_tree *tree, struct mirror_source *source,
                              const struct mirror_selection *selection)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    size_t count = 0;
    uvm_auto_free const struct mirror_image **images = images_of(selection, &count);
    UVM_AUTO(mirror_download_free)
    struct mirror_download *download = mirror_download_start(tree, source, images, count, NULL);
    must(mirror_download_wait(download, &err), &err);
}

static inline void make_mirror(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *url = path_of("source");
    uvm_auto_free char *mirror = path_of("mirror");
    UVM_AUTO(mirror_source_free) struct mirror_source *source = NULL;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    struct mirror_source_options options = {.url = url,
                                            .path = "streams/v1/index.sjson",
                                            .verifier = all.trust_vendor,
                                            .network = MIRROR_NETWORK_DEFAULT};
    must(mirror_source_new(&options, &source, &err), &err);
    must(mirror_filters_new(NULL, 0, "amd64", &filters, &err), &err);
    must(mirror_source_streams(source, filters, &all.streams, &all.stream_count, &err), &err);
    assert_int_equal(all.stream_count, 1);
    must(mirror_stream_select(all.streams[0], filters, 0, &all.selection, &err), &err);
    must(mirror_tree_open(mirror, &all.tree, &err), &err);
    fetch_into(all.tree, source, &all.selection);
    for (size_t i = 0; i < mirror_filters_text(filters)->count; i++)
        uvm_strings_add(&all.filters, mirror_filters_text(filters)->items[i]);
}

static inline struct bundle_create_options create_options(const char *output)
{
    return (struct bundle_create_options){
        .tree = all.tree,
        .streams = (const struct mirror_stream *const *)all.streams,
        .selections = &all.selection,
        .stream_count = all.stream_count,
        .filters = &all.filters,
        .signer = all.site,
        .now = CREATED,
        .output = output,
    };
}

static inline void create(const char *output, struct bundle_created *ret_created)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_create_options options = create_options(output);
    must(bundle_create(&options, ret_created, &err), &err);
}

static inline int set_up(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    signal(SIGPIPE, SIG_IGN);
    strcpy(all.dir, "/tmp/test-bundle-XXXXXX");
    if (!mkdtemp(all.dir))
        return -1;
    all.site = make_signer("site", &all.trust_site);
    all.vendor = make_signer("vendor", &all.trust_vendor);
    all.stranger = make_signer("stranger", NULL);
    make_source();
    make_mirror();

    uvm_auto_free char *path = path_of("good.tar.zst");
    struct bundle_created created = {0};
    create(path, &created);
    must(uvm_file_read(path, 1 << 20, &all.good, &err), &err);
    assert_int_equal(created.bytes, all.good.len);
    bundle_created_clear(&created);
    craft_decode(&all.good, &all.tar);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_signer_free(all.site);
    uvm_signer_free(all.vendor);
    uvm_signer_free(all.stranger);
    uvm_verifier_free(all.trust_site);
    uvm_verifier_free(all.trust_vendor);
    mirror_tree_free(all.tree);
    for (size_t i = 0; i < all.stream_count; i++)
        mirror_stream_free(all.streams[i]);
    free(all.streams);
    mirror_selection_clear(&all.selection);
    uvm_strings_clear(&all.filters);
    uvm_buf_clear(&all.good);
    uvm_buf_clear(&all.tar);
    return uvm_remove_tree(all.dir, &err) ? 0 : -1;
}

/* ---- verifying ---- */

static inline bool open_bundle(const char *argument, struct uvm_verifier *verifier,
                               const struct uvm_observer *observer,
                               struct bundle_reader **ret_reader, struct uvm_error *err)
{
    uvm_auto_strings arguments = {0};
    struct bundle_open_options options = {.verifier = verifier, .observer = observer};
    uvm_strings_add(&arguments, argument);
    return bundle_reader_new(&arguments, &options, ret_reader, err);
}

/* Reads a whole bundle; UVM_OK only when its end was reported. */
static inline enum uvm_code verify_as(const char *argument, struct uvm_verifier *verifier,
                                      char **ret_message)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(bundle_reader_free) struct bundle_reader *reader = NULL;
    struct bundle_entry entry = {0};
    bool ok = open_bundle(argument, verifier, NULL, &reader, &err);
    for (int i = 0; ok && entry.kind != BUNDLE_ENTRY_END; i++) {
        assert_in_range(i, 0, CRAFT_PARTS_MAX);
        ok = bundle_reader_next(reader, &entry, &err);
    }
    if (ret_message)
        *ret_message = uvm_strdup(err.message ? err.message : "");
    return err.code;
}

static inline enum uvm_code verify_bytes(const void *data, size_t len, char **ret_message)
{
    uvm_auto_free char *path = path_of("case.tar.zst");
    uvm_auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600); /* thousands: no fsync */
    assert_int_equal(write(fd, data, len), len);
    return verify_as(path, all.trust_site, ret_message);
}

static inline struct craft good_parts(void)
{
    struct craft c = craft_parse(&all.tar);
    assert_int_equal(c.count, PARTS);
    return c;
}

/* Puts it together and expects this answer. */
static inline void expect(const struct craft *c, enum uvm_code code, const char *reason)
{
    uvm_auto_buf file = {0};
    uvm_auto_free char *message = NULL;
    craft_join(c, &file);
    enum uvm_code got = verify_bytes(file.data, file.len, &message);
    if (got != code || !strstr(message, reason))
        fail_msg("expected %d with \"%s\", got %d: %s", code, reason, got, message);
}

/* Another manifest, signed by someone. The buffers must outlive the craft. */
static inline void sign_manifest(struct craft *c, struct uvm_signer *signer, const char *text,
                                 struct uvm_buf *signature)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    must(uvm_signer_detached(signer, text, strlen(text), signature, &err), &err);
    c->parts[MANIFEST] = craft_part(BUNDLE_MANIFEST_NAME, '0', text, strlen(text));
    c->parts[SIGNATURE] = craft_part(BUNDLE_SIGNATURE_NAME, '0', signature->data, signature->len);
}

static inline char *good_manifest(void)
{
    struct craft c = good_parts();
    return uvm_strndup(c.parts[MANIFEST].data, c.parts[MANIFEST].len);
}

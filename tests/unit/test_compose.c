/* bundle/compose.c, members.c and local.c: bundles of several streams, of what the site added, and
 * of what is still on its way. */
#include "bundle_world.h"
#include "mirror/tree.h"

#include <dirent.h>
#include <sys/stat.h>

#define SECOND_ID "net.example:daily"
#define CLUSTER   512u

/* A second vendor, with a source of its own; and images that the site added. */
static struct {
    struct uvm_signer *signer;
    struct uvm_verifier *trust, *trust_both;
    struct mirror_source *source;
    struct mirror_filters *filters;
    struct mirror_stream *stream, *local;
    struct mirror_selection selection, local_selection;
} more;

/* ---- the second source ---- */

static void write_second_source(void)
{
    put("second/s/20241101.img", image_a, SIZE_A - 1);
    put("second/s/20241102.img", image_a, SIZE_A - 2);
    uvm_auto_free char *a = item_json("20241101", image_a, SIZE_A - 1);
    uvm_auto_free char *b = item_json("20241102", image_a, SIZE_A - 2);
    memcpy(strstr(a, "\"r/") + 1, "s", 1);
    memcpy(strstr(b, "\"r/") + 1, "s", 1);
    uvm_auto_free char *products = uvm_format(
        "{\"format\":\"products:1.0\",\"content_id\":\"" SECOND_ID "\","
        "\"datatype\":\"image-downloads\",\"updated\":\"Sat, 02 Nov 2024 09:00:00 +0000\","
        "\"products\":{\"net.example:24.10:amd64\":{\"release\":\"oracular\",\"arch\":\"amd64\","
        "\"label\":\"daily\",\"versions\":{%s,%s}}}}\n",
        a, b);
    put_signed(more.signer, "second/streams/v1/p.sjson", products);
}

static void fetch_second(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *url = path_of("second");
    struct mirror_source_options options = {.url = url,
                                            .path = "streams/v1/p.sjson",
                                            .verifier = more.trust,
                                            .network = MIRROR_NETWORK_DEFAULT};
    struct mirror_stream **streams;
    size_t count;
    must(mirror_source_new(&options, &more.source, &err), &err);
    must(mirror_filters_new(NULL, 0, "amd64", &more.filters, &err), &err);
    must(mirror_source_streams(more.source, more.filters, &streams, &count, &err), &err);
    assert_int_equal(count, 1);
    more.stream = streams[0];
    free(streams);
    must(mirror_stream_select(more.stream, more.filters, 1, &more.selection, &err), &err);
}

/* ---- what the site added ---- */

static void put32(unsigned char *at, uint32_t value)
{
    for (int i = 3; i >= 0; i--, value >>= 8)
        at[i] = (unsigned char)value;
}

/* An empty disk of so many sectors: header, refcount table, its block, L1 table. */
static void put_qcow2(const char *name, uint32_t sectors)
{
    unsigned char file[4 * CLUSTER] = {0};
    put32(file, 0x514649fb);
    put32(file + 4, 3);
    put32(file + 20, 9);
    put32(file + 28, sectors * CLUSTER);
    put32(file + 36, 1);
    put32(file + 44, 3 * CLUSTER);
    put32(file + 52, CLUSTER);
    put32(file + 56, 1);
    put32(file + 96, 4);
    put32(file + 100, 104);
    put32(file + CLUSTER + 4, 2 * CLUSTER);
    for (size_t i = 0; i < 4; i++)
        file[2 * CLUSTER + 2 * i + 1] = 1;
    put(name, file, sizeof file);
}

static char *sum_line(const char *name)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of(name);
    uvm_auto_buf content = {0};
    char hex[UVM_DIGEST_HEX_MAX];
    must(uvm_file_read(path, 1 << 20, &content, &err), &err);
    uvm_digest_bytes(UVM_SHA256, content.data, content.len, hex);
    return uvm_format("%s  %s\n", hex, strrchr(name, '/') + 1);
}

enum word { NO_WORD, DETACHED, CLEARSIGNED };

/* What the second vendor, who is a distribution too, says of two images. */
static void make_origin(const char *name, enum word word, struct mirror_origin *ret)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *one = sum_line("added/one.qcow2"), *two = sum_line("added/two.qcow2");
    uvm_auto_free char *text = uvm_format("# sums\n%s%s", one, two);
    size_t len = strlen(text);
    static char *kept_signature; /* every image comes with the same one */
    static size_t kept_len;
    if (word == CLEARSIGNED) {
        must(uvm_signer_clearsigned(more.signer, text, len, &ret->checksums, &err), &err);
    } else {
        must(uvm_buf_add(&ret->checksums, text, len, &err), &err);
        if (!kept_signature) {
            uvm_auto_buf sig = {0};
            must(uvm_signer_detached(more.signer, text, len, &sig, &err), &err);
            kept_len = sig.len;
            kept_signature = uvm_strndup(sig.data, sig.len);
        }
        must(uvm_buf_add(&ret->signature, kept_signature, kept_len, &err), &err);
    }
    ret->name = uvm_strdup(strrchr(name, '/') + 1);
}

static void add(const char *name, const char *release, const char *version, const char *product,
                enum word word)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of(name);
    mirror_auto_json *metadata = json_pack("{s:s, s:s, s:s, s:s*}", "release", release, "arch",
                                           "amd64", "version", version, "product", product);
    mirror_auto_origin origin = {0};
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image image = {0};
    if (word != NO_WORD)
        make_origin(name, word, &origin);
    struct mirror_addition addition = {.image = path,
                                       .metadata = metadata,
                                       .origin = word == NO_WORD ? NULL : &origin,
                                       .verifier = word == NO_WORD ? NULL : more.trust,
                                       .network = MIRROR_NETWORK_DEFAULT};
    must(mirror_tree_add(all.tree, &addition, CREATED, &image, &err), &err);
}

/* What is not held would be taken out of the mirror by an addition. */
static void hold(const struct mirror_stream *stream, const struct mirror_selection *selection)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_removed removed = {0};
    struct mirror_choice choice = {selection, more.filters, 0, false};
    must(mirror_tree_hold(all.tree, stream, &choice, NULL, &removed, &err), &err);
}

/* The local stream and, of each of its products, the newest version. */
static void read_local(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_stream **streams;
    size_t count;
    must(mirror_tree_held_streams(all.tree, &streams, &count, &err), &err);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(streams[i]->content_id, MIRROR_LOCAL_ID) == 0)
            more.local = streams[i];
        else
            mirror_stream_free(streams[i]);
    }
    free(streams);
    assert_non_null(more.local);
    must(mirror_stream_select(more.local, more.filters, 1, &more.local_selection, &err), &err);
}

static int set_up_more(void **state)
{
    if (set_up(state) != 0)
        return -1;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *vendor = path_of("vendor.gpg"), *second = path_of("second-key.gpg");
    uvm_auto_strings both = {0};
    more.signer = make_signer("second-key", &more.trust);
    uvm_strings_add(&both, vendor);
    uvm_strings_add(&both, second);
    must(uvm_verifier_new(&both, &more.trust_both, &err), &err);
    write_second_source();
    fetch_second();
    hold(all.streams[0], &all.selection);
    fetch_into(all.tree, more.source, &more.selection);
    hold(more.stream, &more.selection);

    static const char *const files[] = {"added/one.qcow2", "added/two.qcow2", "added/three.qcow2",
                                        "added/old.qcow2"};
    for (uint32_t i = 0; i < 4; i++)
        put_qcow2(files[i], i + 1);
    add("added/old.qcow2", "bookworm", "20241001", NULL, NO_WORD);
    add("added/one.qcow2", "bookworm", "20241004", NULL, DETACHED);
    add("added/two.qcow2", "trixie", "20241004", NULL, DETACHED);
    read_local();
    return 0;
}

static int tear_down_more(void **state)
{
    uvm_signer_free(more.signer);
    uvm_verifier_free(more.trust);
    uvm_verifier_free(more.trust_both);
    mirror_source_free(more.source);
    mirror_filters_free(more.filters);
    mirror_stream_free(more.stream);
    mirror_stream_free(more.local);
    mirror_selection_clear(&more.selection);
    mirror_selection_clear(&more.local_selection);
    return tear_down(state);
}

/* ---- bundles of all that ---- */

/* Options that borrow from here. */
struct order {
    const struct mirror_stream *streams[4];
    struct mirror_selection selections[4];
    struct bundle_create_options options;
};

static void order_all(struct order *order, const char *output)
{
    *order = (struct order){
        .streams = {all.streams[0], more.stream, more.local},
        .selections = {all.selection, more.selection, more.local_selection},
        .options = create_options(output),
    };
    order->options.streams = order->streams;
    order->options.selections = order->selections;
    order->options.stream_count = 3;
}

static struct bundle_draft draft_of(const struct order *order)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct bundle_draft draft = {0};
    must(bundle_draft_compose(&draft, &order->options, &err), &err);
    return draft;
}
#define auto_draft __attribute__((cleanup(bundle_draft_clear))) struct bundle_draft

static const struct uvm_buf *content_of(const struct bundle_draft *d, const char *path)
{
    for (size_t i = 0; i < d->manifest->member_count; i++)
        if (strcmp(d->manifest->members[i].path, path) == 0)
            return &d->contents[i];
    fail_msg("there is no member %s", path);
    return NULL;
}

static bool same_bytes(const struct uvm_buf *a, const struct uvm_buf *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static void test_three_streams(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of("three.tar.zst");
    struct order order;
    struct bundle_created created = {0};
    order_all(&order, path);
    must(bundle_create(&order.options, &created, &err), &err);
    const struct bundle_manifest *m = created.manifest;
    assert_int_equal(m->stream_count, 3);
    assert_int_equal(m->image_count, 2 + 1 + 2);
    assert_string_equal(m->streams[0]->content_id, CONTENT_ID);
    assert_string_equal(m->streams[1]->content_id, SECOND_ID);
    assert_string_equal(m->streams[2]->content_id, MIRROR_LOCAL_ID);
    const struct uvm_signer *const signers[] = {all.vendor, more.signer, all.site};
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(m->streams[i]->verified_by, uvm_signer_fingerprint(signers[i]));
        assert_int_equal(m->streams[i]->filters.count, all.filters.count);
        assert_true(m->streams[i]->selection.products[0].complete);
    }
    assert_string_not_equal(m->streams[0]->source, m->streams[1]->source);
    bundle_created_clear(&created);
    uvm_auto_free char *message = NULL;
    if (verify_as(path, all.trust_site, &message) != UVM_OK)
        fail_msg("%s", message);
}

/* ---- names in a folder ---- */

#define SMALL_PART 1000

/* Two mirrors that were alike until now: they would give their next bundles one name. */
static void test_two_mirrors_one_folder(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *twin = path_of("twin"), *folder = path_of("shared");
    uvm_auto_free char *copy = uvm_format("cp -r %s/mirror %s", all.dir, twin);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = NULL;
    assert_int_equal(system(copy), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    must(mirror_tree_open(twin, &tree, &err), &err);
    struct bundle_create_options options = create_options(folder);
    struct bundle_created made[4];
    for (size_t i = 0; i < 4; i++) {
        options.tree = i % 2 ? tree : all.tree;
        options.part_size = i / 2 ? SMALL_PART : 0;
        must(bundle_create(&options, &made[i], &err), &err);
        assert_true((made[i].parts > 1) == (i / 2 == 1));
    }
    for (size_t i = 0; i < 4; i++) {
        uvm_auto_free char *sums = uvm_format("%s.sums", made[i].path);
        assert_int_equal(verify_as(made[i].parts ? sums : made[i].path, all.trust_site, NULL),
                         UVM_OK);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(made[i].path, made[j].path);
    }
    for (size_t i = 0; i < 4; i++)
        bundle_created_clear(&made[i]);
}

/* Somebody who takes a name while a bundle is written that is to have it. */
static void take_name(void *opaque, const struct uvm_event *event)
{
    (void)event;
    put(opaque, "other", 5);
}

/* Returns how many files the folder then holds. */
static size_t meet(const char *suffix, uint64_t part_size)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *folder = path_of("meeting");
    struct bundle_created before = {0}, created = {0};
    uvm_auto_buf found = {0};
    size_t count = 0;
    assert_true(mkdir(folder, 0700) == 0);
    uvm_auto_free char *elsewhere = path_of("elsewhere.tar.zst");
    create(elsewhere, &before);
    before.manifest->serial++; /* the next one's */
    uvm_auto_free char *name = bundle_file_name(before.manifest);
    uvm_auto_free char *place = uvm_format("meeting/%s%s", name, suffix);
    uvm_auto_free char *path = path_of(place);
    struct uvm_observer observer = {.event = take_name, .opaque = place};
    struct bundle_create_options options = create_options(folder);
    options.observer = &observer;
    options.part_size = part_size;
    options.read_back = BUNDLE_READ_BACK_ALWAYS;
    assert_false(bundle_create(&options, &created, &err));
    assert_int_equal(err.code, UVM_FAILED);
    assert_non_null(strstr(err.message, "is not replaced"));
    uvm_error_clear(&err);
    must(uvm_file_read(path, 100, &found, &err), &err);
    assert_string_equal(found.data, "other");
    DIR *dir = opendir(folder);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    must(uvm_remove_tree(folder, &err), &err);
    bundle_created_clear(&before);
    return count;
}

static void test_a_generated_name_replaces_nothing(void **state)
{
    (void)state;
    assert_int_equal(meet("", 0), 1);
    assert_int_equal(meet("", UINT64_MAX), 1); /* a single part */
    assert_int_equal(meet(".001", SMALL_PART), 1);
    assert_int_equal(meet(".002", SMALL_PART), 1);
    assert_int_equal(meet(".sums", SMALL_PART), 1);
}

/* Each vendor's file is checked with the keys that the receiver has. */
static enum uvm_code check_stream(const struct bundle_draft *d, size_t n, struct uvm_verifier *keys,
                                  char **ret_message)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature sig = {0};
    const struct bundle_stream *s = d->manifest->streams[n];
    const struct uvm_buf *origin = content_of(d, s->origin);
    bundle_origin_check(s, origin->data, origin->len, keys, &sig, &err);
    if (ret_message)
        *ret_message = uvm_strdup(err.message ? err.message : "");
    return err.code;
}

static void test_two_vendors(void **state)
{
    (void)state;
    struct order order;
    order_all(&order, all.dir);
    auto_draft d = draft_of(&order);
    uvm_auto_free char *message = NULL;
    assert_int_equal(check_stream(&d, 0, more.trust_both, NULL), UVM_OK);
    assert_int_equal(check_stream(&d, 1, more.trust_both, NULL), UVM_OK);
    assert_int_equal(check_stream(&d, 0, all.trust_vendor, NULL), UVM_OK);
    assert_int_equal(check_stream(&d, 1, all.trust_vendor, &message), UVM_TRUST);
    assert_non_null(strstr(message, SECOND_ID));
    assert_int_equal(check_stream(&d, 0, more.trust, NULL), UVM_TRUST);
    assert_int_equal(check_stream(&d, 0, all.trust_site, NULL), UVM_TRUST);
    assert_int_equal(check_stream(&d, 2, more.trust_both, NULL), UVM_TRUST);
}

/* One vendor's file in the place of the other's, both well signed. */
static void test_origins_do_not_stand_for_each_other(void **state)
{
    (void)state;
    struct order order;
    order_all(&order, all.dir);
    auto_draft d = draft_of(&order);
    struct bundle_stream **s = d.manifest->streams;
    for (size_t i = 0; i < 3; i++) {
        char *own = s[i]->origin;
        s[i]->origin = s[(i + 1) % 3]->origin;
        enum uvm_code code = check_stream(&d, i, more.trust_both, NULL);
        assert_int_equal(code, UVM_TRUST);
        code = check_stream(&d, i, all.trust_site, NULL);
        assert_int_equal(code, UVM_TRUST);
        s[i]->origin = own;
    }
}

static void write_draft(const struct bundle_draft *d, struct uvm_buf *ret)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of("again.tar.zst");
    uvm_auto_fd fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct bundle_file file;
    bundle_file_init(&file, fd, path, BUNDLE_UNHASHED);
    struct bundle_write_options options = {.manifest = d->manifest,
                                           .text = &d->text,
                                           .signature = &d->signature,
                                           .contents = d->contents,
                                           .tree = all.tree,
                                           .name = path,
                                           .sink = {bundle_file_write, &file}};
    uint64_t bytes = 0;
    must(bundle_write(&options, &bytes, &err), &err);
    must(uvm_file_read(path, 1 << 20, ret, &err), &err);
    assert_int_equal(bytes, ret->len);
}

/* The same draft makes the same bytes. */
static void test_same_bytes(void **state)
{
    (void)state;
    struct order order;
    uvm_auto_buf first = {0}, second = {0};
    order_all(&order, all.dir);
    auto_draft d = draft_of(&order);
    write_draft(&d, &first);
    write_draft(&d, &second);
    assert_true(same_bytes(&first, &second));
}

/* Two drafts of the same choice differ in what a new time and new signatures make different. */
static void test_same_members(void **state)
{
    (void)state;
    struct order order;
    order_all(&order, all.dir);
    auto_draft a = draft_of(&order);
    auto_draft b = draft_of(&order);
    assert_int_equal(a.manifest->member_count, b.manifest->member_count);
    for (size_t i = 0; i < a.manifest->member_count; i++) {
        const char *path = a.manifest->members[i].path;
        assert_string_equal(path, b.manifest->members[i].path);
        size_t len = strlen(path);
        bool signed_here = strncmp(path, "streams/", 8) == 0
                               ? strcmp(path + len - 6, ".sjson") == 0
                               : strstr(path, MIRROR_LOCAL_ID) != NULL;
        assert_true(signed_here || same_bytes(&a.contents[i], &b.contents[i]));
    }
}

static void test_streams_of_nothing_stay_out(void **state)
{
    (void)state;
    struct order order;
    order_all(&order, all.dir);
    order.selections[1] = (struct mirror_selection){0};
    auto_draft d = draft_of(&order);
    assert_int_equal(d.manifest->stream_count, 2);
    assert_string_equal(d.manifest->streams[1]->content_id, MIRROR_LOCAL_ID);
    for (size_t i = 0; i < d.manifest->member_count; i++)
        assert_null(strstr(d.manifest->members[i].path, SECOND_ID));
    mirror_auto_json *index = json_loads(content_of(&d, "streams/v1/index.json")->data, 0, NULL);
    assert_int_equal(json_object_size(json_object_get(index, "index")), 2);
}

/* GnuPG cuts longer lines when it verifies: such a stream cannot be signed anew. */
static void test_a_text_that_cannot_be_signed(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_json *tree = json_deep_copy(more.stream->tree);
    uvm_auto_free char *path = path_of("unsigned.tar.zst"), *text = uvm_alloc(20001);
    struct mirror_stream stream = *more.stream;
    struct bundle_created created = {0};
    struct order order;
    memset(text, 'x', 20000);
    json_object_set_new(tree, "license", json_string(text));
    stream.tree = tree;
    order_all(&order, path);
    order.streams[1] = &stream;
    assert_false(bundle_create(&order.options, &created, &err));
    assert_int_equal(err.code, UVM_SPACE);
    assert_non_null(strstr(err.message, "streams/v1/" SECOND_ID ".sjson"));
    assert_int_equal(access(path, F_OK), -1);
}

/* ---- the site's own stream ---- */

/* Signed by the site, and telling all of its products, so that "complete" can be judged. */
static void test_own_origin(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct order order;
    order_all(&order, all.dir);
    order.selections[2].count = 1; /* trixie was not chosen, and is nobody's business */
    auto_draft d = draft_of(&order);
    const struct bundle_stream *s = d.manifest->streams[2];
    assert_int_equal(s->selection.products[0].versions.count, 2);
    assert_int_equal(s->selection.products[0].image_count, 1);
    assert_string_equal(s->origin, "uvmirror/origin/" MIRROR_LOCAL_ID ".sjson");
    assert_int_equal(check_stream(&d, 2, all.trust_site, NULL), UVM_OK);

    uvm_auto_buf plain = {0};
    uvm_auto_signature sig = {0};
    const struct uvm_buf *origin = content_of(&d, s->origin);
    must(uvm_verifier_clearsigned(all.trust_site, origin->data, origin->len, &plain, &sig, &err),
         &err);
    assert_non_null(strstr(plain.data, "local:bookworm:amd64"));
    assert_null(strstr(plain.data, "trixie"));
}

static size_t count_members(const struct bundle_draft *d, const char *part)
{
    size_t count = 0;
    for (size_t i = 0; i < d->manifest->member_count; i++)
        count += strstr(d->manifest->members[i].path, part) != NULL;
    return count;
}

/* A stream of that name which was fetched is passed on as it came, and nobody signs for it. */
static void test_another_sites_own_stream(void **state)
{
    (void)state;
    struct order order;
    order_all(&order, all.dir);
    struct mirror_stream fetched = *more.local;
    char signer[UVM_FINGERPRINT_MAX], url[] = "https://example.org/";
    strcpy(signer, uvm_signer_fingerprint(all.stranger));
    order.streams[2] = &fetched;
    for (int is_signed = 0; is_signed < 2; is_signed++) {
        fetched.source = is_signed ? more.local->source : url;
        fetched.signer = is_signed ? signer : NULL;
        auto_draft d = draft_of(&order);
        const struct bundle_stream *s = d.manifest->streams[2];
        assert_int_equal(s->verified_by != NULL, is_signed);
        assert_true(!is_signed || strcmp(s->verified_by, signer) == 0);
        assert_true(same_bytes(content_of(&d, s->origin), &more.local->origin));
        assert_int_equal(count_members(&d, "/checksums/"), 0);
    }
}

static struct bundle_image *find_image(const struct bundle_draft *d, const char *release)
{
    for (size_t i = 0; i < d->manifest->image_count; i++)
        if (strcmp(mirror_image_get(d->manifest->images[i].image, "release"), release) == 0)
            return &d->manifest->images[i];
    fail_msg("there is no image of %s", release);
    return NULL;
}

static enum uvm_code check_word(const struct bundle_draft *d, const struct bundle_image *image,
                                struct uvm_verifier *keys, char **ret_message)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_signature sig = {0};
    const struct bundle_checksums *c = &image->checksums;
    const struct uvm_buf none = {0};
    bool ok = bundle_checksums_check(image, content_of(d, c->member),
                                     c->signature ? content_of(d, c->signature) : &none, keys, &sig,
                                     &err);
    if (ok)
        assert_string_equal(sig.fingerprint, uvm_signer_fingerprint(more.signer));
    if (ret_message)
        *ret_message = uvm_strdup(err.message ? err.message : "");
    return err.code;
}

static void test_checksum_files(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct order order;
    order_all(&order, all.dir);
    auto_draft d = draft_of(&order);
    const struct bundle_image *one = find_image(&d, "bookworm"), *two = find_image(&d, "trixie");
    assert_int_equal(count_members(&d, "/checksums/"), 2); /* one file, one signature, for both */
    assert_string_equal(one->checksums.member, two->checksums.member);
    assert_string_equal(one->checksums.name, "one.qcow2");
    assert_null(find_image(&d, "noble")->checksums.member);
    must(bundle_local_check(d.manifest, &err), &err);
    assert_int_equal(check_word(&d, one, more.trust_both, NULL), UVM_OK);
    assert_int_equal(check_word(&d, two, more.trust_both, NULL), UVM_OK);
    assert_int_equal(check_word(&d, one, all.trust_vendor, NULL), UVM_TRUST);
    assert_int_equal(check_word(&d, one, all.trust_site, NULL), UVM_TRUST);
}

static void test_clearsigned_checksum_file(void **state)
{
    (void)state;
    add("added/one.qcow2", "bookworm", "20241004", NULL, CLEARSIGNED);
    struct order order;
    order_all(&order, all.dir);
    auto_draft d = draft_of(&order);
    const struct bundle_image *one = find_image(&d, "bookworm");
    assert_int_equal(count_members(&d, "/checksums/"), 3);
    assert_null(one->checksums.signature);
    assert_int_equal(check_word(&d, one, more.trust, NULL), UVM_OK);
    assert_int_equal(check_word(&d, one, all.trust_vendor, NULL), UVM_TRUST);
    add("added/one.qcow2", "bookworm", "20241004", NULL, DETACHED);
}

/* A good checksum file vouches for the bytes that it names, and for nothing else. */
static void test_checksum_files_lie(void **state)
{
    (void)state;
    struct order order;
    order_all(&order, all.dir);
    auto_draft d = draft_of(&order);
    struct bundle_image image = *find_image(&d, "bookworm");
    struct mirror_image changed = *image.image;
    uvm_auto_free char *message = NULL, *again = NULL;
    static char other_sum[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                two[] = "two.qcow2", none[] = "none.qcow2";
    image.image = &changed;
    assert_int_equal(check_word(&d, &image, more.trust, NULL), UVM_OK);
    image.checksums.name = two;
    assert_int_equal(check_word(&d, &image, more.trust, &message), UVM_TRUST);
    assert_non_null(strstr(message, "bookworm"));
    image.checksums.name = none;
    assert_int_equal(check_word(&d, &image, more.trust, &again), UVM_TRUST);
    image.checksums = find_image(&d, "bookworm")->checksums;
    changed.sha256 = other_sum;
    assert_int_equal(check_word(&d, &image, more.trust, NULL), UVM_TRUST);
    changed.sha256 = NULL;
    assert_int_equal(check_word(&d, &image, more.trust, NULL), UVM_TRUST);
}

/* What a receiver refuses that wants a vendor's word for everything. */
static void expect_local_refused(struct bundle_draft *d, const char *reason)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_false(bundle_local_check(d->manifest, &err));
    assert_int_equal(err.code, UVM_TRUST);
    if (!strstr(err.message, reason) || !strstr(err.message, "bookworm amd64 20241004"))
        fail_msg("%s", err.message);
}

static void test_nobody_vouches(void **state)
{
    (void)state;
    struct order order;
    order_all(&order, all.dir);
    auto_draft d = draft_of(&order);
    bundle_checksums_clear(&find_image(&d, "bookworm")->checksums);
    expect_local_refused(&d, "no distribution vouches for it");
}

/* A host that was taken over has genuine bytes of one distribution, and calls them Ubuntu. */
static void test_the_name_of_a_vendors_product(void **state)
{
    (void)state;
    static const char *const names[] = {"com.ubuntu.cloud:server:24.04:amd64", "local", "Local:x:y",
                                        "xlocal:a:b"};
    struct order order;
    order_all(&order, all.dir);
    auto_draft d = draft_of(&order);
    struct mirror_product *product = &d.manifest->streams[2]->selection.products[0];
    char *own = product->images[0].product;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uvm_auto_free char *name = uvm_strdup(names[i]);
        product->images[0].product = name;
        expect_local_refused(&d, names[i]);
    }
    product->images[0].product = own;
}

/* ---- while images arrive ---- */

/* A new mirror, and a download into it. */
struct arrival {
    struct mirror_tree *tree;
    struct mirror_download *download;
    const struct mirror_image **images;
};

static void arrival_clear(struct arrival *a)
{
    mirror_download_free(a->download);
    mirror_tree_free(a->tree);
    free(a->images);
}
#define auto_arrival __attribute__((cleanup(arrival_clear))) struct arrival

static struct arrival arrive(const char *name)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *dir = path_of(name);
    struct arrival a = {0};
    size_t count = 0;
    must(mirror_tree_open(dir, &a.tree, &err), &err);
    a.images = images_of(&more.selection, &count);
    a.download = mirror_download_start(a.tree, more.source, a.images, count, NULL);
    return a;
}

static void order_arriving(struct order *order, const struct arrival *a, const char *output)
{
    order_all(order, output);
    order->streams[0] = more.stream;
    order->selections[0] = more.selection;
    order->options.stream_count = 1;
    order->options.tree = a->tree;
    order->options.download = a->download;
}

static void test_while_images_arrive(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of("arriving.tar.zst");
    struct order order;
    struct bundle_created created = {0};
    for (int again = 0; again < 2; again++) { /* the second time everything is there */
        auto_arrival a = arrive("arriving");
        order_arriving(&order, &a, path);
        must(bundle_create(&order.options, &created, &err), &err);
        bundle_created_clear(&created);
        must(mirror_download_wait(a.download, &err), &err);
        assert_int_equal(verify_as(path, all.trust_site, NULL), UVM_OK);
        assert_true(mirror_tree_has(a.tree, a.images[0]));
    }
}

static void expect_nothing_comes(const char *mirror, enum uvm_code code)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *folder = path_of("nothing");
    struct order order;
    struct bundle_created created = {0};
    must(uvm_make_dirs(folder, 0700, &err), &err);
    auto_arrival a = arrive(mirror);
    order_arriving(&order, &a, folder);
    assert_false(bundle_create(&order.options, &created, &err));
    if (err.code != code || !strstr(err.message, "20241102"))
        fail_msg("expected %d, got %d: %s", code, err.code, err.message);
    assert_int_equal(rmdir(folder), 0); /* nothing is left in it */
}

static void test_what_does_not_arrive(void **state)
{
    (void)state;
    char other[SIZE_A - 2];
    fill(other, sizeof other, 7);
    put("second/s/20241102.img", other, sizeof other);
    expect_nothing_comes("not-arriving-1", UVM_CONTENT);
    uvm_auto_free char *path = path_of("second/s/20241102.img");
    assert_int_equal(unlink(path), 0);
    expect_nothing_comes("not-arriving-2", UVM_SOURCE);
    put("second/s/20241102.img", image_a, SIZE_A - 2);
}

/* Where only a SHA-512 is signed, the manifest's SHA-256 is known when all bytes have come. */
static void test_no_sha256_is_known(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *dir = path_of("empty-mirror"), *path = path_of("unknown.tar.zst");
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = NULL;
    struct mirror_image *image = &more.selection.products[0].images[0];
    struct mirror_image before = *image;
    struct order order;
    struct bundle_created created = {0};
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA512, image_a, SIZE_A - 2, hex);
    must(mirror_tree_open(dir, &tree, &err), &err);
    order_arriving(&order, &(struct arrival){.tree = tree}, path);
    image->sha256 = NULL;
    image->sha512 = hex;
    bool made = bundle_create(&order.options, &created, &err);
    *image = before;
    assert_false(made);
    assert_int_equal(err.code, UVM_FAILED);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_streams),
        cmocka_unit_test(test_two_mirrors_one_folder),
        cmocka_unit_test(test_a_generated_name_replaces_nothing),
        cmocka_unit_test(test_two_vendors),
        cmocka_unit_test(test_origins_do_not_stand_for_each_other),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_same_members),
        cmocka_unit_test(test_streams_of_nothing_stay_out),
        cmocka_unit_test(test_a_text_that_cannot_be_signed),
        cmocka_unit_test(test_own_origin),
        cmocka_unit_test(test_another_sites_own_stream),
        cmocka_unit_test(test_checksum_files),
        cmocka_unit_test(test_clearsigned_checksum_file),
        cmocka_unit_test(test_checksum_files_lie),
        cmocka_unit_test(test_nobody_vouches),
        cmocka_unit_test(test_the_name_of_a_vendors_product),
        cmocka_unit_test(test_while_images_arrive),
        cmocka_unit_test(test_what_does_not_arrive),
        cmocka_unit_test(test_no_sha256_is_known),
    };
    return cmocka_run_group_tests(tests, set_up_more, tear_down_more);
}

/* bundle/manifest*.c: text and parse are inverse; whatever is odd is refused with a reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bundle/bundle.h"

#define HEX64   "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEX64_B "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define FPR     "0123456789ABCDEF0123456789ABCDEF01234567"

#define METADATA(version, size, sha)                                                               \
    "'metadata':{'format':'products:1.0','datatype':'image-downloads','release':'noble',"          \
    "'arch':'amd64','label':'release','product_name':'com.example:24.04:amd64',"                   \
    "'version_name':'" version "','ftype':'disk1.img','path':'r/" version "/disk1.img',"           \
    "'size':'" size "','sha256':'" sha "','item_name':'disk1.img'}"

#define IMAGE(version, size, sha)                                                                  \
    "{'stream':'com.example:released','product':'com.example:24.04:amd64',"                        \
    "'version':'" version "','item':'disk1.img','path':'r/" version "/disk1.img',"                 \
    "'size':" size ",'sha256':'" sha                                                               \
    "','sha512':null," METADATA(version, size, sha) ","                                            \
                                                    "'payload':{'member':'r/" version              \
                                                    "/disk1.img','encoding':'plain','size':" size  \
                                                    ","                                            \
                                                    "'sha256':'" sha "'}}"

/* With single quotes, for the eye. */
static const char sample[] =
    "{'format':1,'id':'uvmirror-20241004T093000Z-1f2e3d4c','serial':1728034200,"
    "'created':'2024-10-04T09:30:00Z','tool':'uvmirror 0.1.0','signer':'" FPR "','critical':[],"
    "'streams':[{'content_id':'com.example:released','source':'https://example.com/releases/',"
    "'path':'streams/v1/x.sjson','updated':'Fri, 04 Oct 2024 09:00:00 +0000',"
    "'updated_at':1728032400,'filters':['arch=amd64'],"
    "'origin':'uvmirror/origin/com.example:released.sjson','verified_by':'" FPR "',"
    "'products':[{'name':'com.example:24.04:amd64','complete':true,"
    "'versions':['20241004','20241001','20240901']}]}],"
    "'images':[" IMAGE("20241004", "10", HEX64) "," IMAGE(
        "20241001", "11", HEX64_B) "],"
                                   "'members':[{'path':'uvmirror/origin/"
                                   "com.example:released.sjson','size':5,'sha256':'" HEX64 "'},"
                                   "{'path':'streams/v1/index.json','size':6,'sha256':'" HEX64
                                   "'}]}";

static char *double_quoted(const char *text)
{
    char *copy = uvm_strdup(text);
    for (char *p = copy; *p; p++)
        if (*p == '\'')
            *p = '"';
    return copy;
}

static json_t *sample_json(void)
{
    uvm_auto_free char *text = double_quoted(sample);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    return root;
}

static enum uvm_code parse(const char *text, struct bundle_manifest **ret, char **ret_message)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = bundle_manifest_parse(text, strlen(text), ret, &err);
    assert_int_equal(ok, err.code == UVM_OK);
    if (ret_message)
        *ret_message = uvm_strdup(err.message);
    return err.code;
}

static void test_fields(void **state)
{
    (void)state;
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    uvm_auto_free char *text = double_quoted(sample);
    assert_int_equal(parse(text, &m, NULL), UVM_OK);
    assert_int_equal(m->format, 1);
    assert_string_equal(m->id, "uvmirror-20241004T093000Z-1f2e3d4c");
    assert_int_equal(m->serial, 1728034200);
    assert_int_equal(m->created, 1728034200);
    assert_string_equal(m->signer, FPR);
    assert_int_equal(m->stream_count, 1);
    const struct bundle_stream *s = m->streams[0];
    assert_string_equal(s->updated, "Fri, 04 Oct 2024 09:00:00 +0000");
    assert_int_equal(s->updated_at, 1728032400);
    assert_string_equal(s->verified_by, FPR);
    assert_int_equal(s->selection.count, 1);
    assert_true(s->selection.products[0].complete);
    assert_int_equal(s->selection.products[0].versions.count, 3);
    assert_int_equal(s->selection.products[0].image_count, 2);
    assert_int_equal(m->image_count, 2);
    assert_ptr_equal(m->images[1].image, &s->selection.products[0].images[1]);
    assert_ptr_equal(m->images[1].stream, s);
    assert_int_equal(m->images[1].encoding, BUNDLE_PLAIN);
    assert_int_equal(m->images[1].size, 11);
    assert_string_equal(m->images[1].sha256, HEX64_B);
    assert_int_equal(m->member_count, 2);
    assert_int_equal(bundle_payload_bytes(m), 21);
    uvm_auto_free char *name = bundle_file_name(m);
    assert_string_equal(name, "uvmirror-20241004T093000Z.tar.zst");
}

static void test_round_trip(void **state)
{
    (void)state;
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *again = NULL;
    uvm_auto_free char *text = double_quoted(sample);
    assert_int_equal(parse(text, &m, NULL), UVM_OK);
    uvm_auto_free char *printed = bundle_manifest_text(m);
    assert_int_equal(parse(printed, &again, NULL), UVM_OK);
    uvm_auto_free char *printed_again = bundle_manifest_text(again);
    assert_string_equal(printed, printed_again);
    assert_int_equal(printed[strlen(printed) - 1], '\n');

    mirror_auto_json *root = sample_json(), *other = json_loads(printed, 0, NULL);
    assert_true(json_equal(root, other));
}

/* ---- refused ---- */

/* The node at "streams.0.products.0.name": its parent, and the last part of the path. */
static json_t *find_parent(json_t *root, char *path, char **ret_last)
{
    char *save, *part = strtok_r(path, "/", &save);
    for (char *next; (next = strtok_r(NULL, "/", &save)); part = next) {
        root = json_is_array(root) ? json_array_get(root, (size_t)atoi(part))
                                   : json_object_get(root, part);
        assert_non_null(root);
    }
    *ret_last = part;
    return root;
}

static void change(json_t *root, const char *path, const char *value)
{
    uvm_auto_free char *parts = uvm_strdup(path);
    char *last;
    json_t *parent = find_parent(root, parts, &last);
    if (!value) {
        assert_int_equal(json_object_del(parent, last), 0);
        return;
    }
    uvm_auto_free char *text = double_quoted(value);
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    if (json_is_array(parent))
        json_array_set_new(parent, (size_t)atoi(last), json);
    else
        json_object_set_new(parent, last, json);
}

struct refusal {
    const char *path, *value, *reason;
};

#define NAME_300                                                                                   \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaaaaaa"                                                                                     \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaaaaaa"                                                                                     \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaaaaaa"

static const struct refusal refusals[] = {
    {"format", "3", "format version 3"},
    {"format", "0", "format version 0"},
    {"format", "'1'", "\"format\""},
    {"format", "-1", "\"format\""},
    {"format", "1.0", "\"format\""},
    {"format", NULL, "\"format\""},
    {"critical", "['split']", "\"split\""},
    {"critical", "[1]", "\"critical\""},
    {"critical", NULL, "\"critical\""},
    {"id", "'../x'", "\"id\""},
    {"id", "''", "\"id\""},
    {"id", "'a\\u0007'", "\"id\""},
    {"serial", "0", "\"serial\""},
    {"serial", "-5", "\"serial\""},
    {"serial", "253402300800", "\"serial\""},
    {"serial", "9223372036854775807", "\"serial\""},
    {"serial", "1e9", "\"serial\""},
    {"created", "'2024-10-04'", "\"created\""},
    {"created", "'2024-13-04T09:30:00Z'", "\"created\""},
    {"created", "'2024-02-31T09:30:00Z'", "\"created\""},
    {"created", "1728034200", "\"created\""},
    {"tool", NULL, "\"tool\""},
    {"signer", "'0123'", "\"signer\""},
    {"streams", "{}", "\"streams\""},
    {"streams/0", "5", "streams[0]"},
    {"streams/0/content_id", "'a/b'", "\"content_id\""},
    {"streams/0/content_id", "'..'", "streams[0]"},
    {"streams/0/content_id", "'other'", "images[0]"},
    {"streams/0/source", "5", "\"source\""},
    {"streams/0/updated", "5", "\"updated\""},
    {"streams/0/updated_at", "-1", "\"updated_at\""},
    {"streams/0/filters", "'x'", "\"filters\""},
    {"streams/0/filters/0", "null", "\"filters\""},
    {"streams/0/origin", "'uvmirror/origin/other'", "origin"},
    {"streams/0/origin", "'streams/v1/index.json'", "origin"},
    {"streams/0/origin", "null", "\"origin\""},
    {"streams/0/verified_by", "'me'", "\"verified_by\""},
    {"streams/0/verified_by", NULL, "\"verified_by\""},
    {"streams/0/products/0/complete", "1", "\"complete\""},
    {"streams/0/products/0/name", "'other'", "expected an image of other"},
    {"streams/0/products/0/versions", "['20241001','20241004']", "not in order"},
    {"streams/0/products/0/versions", "['20241004','20241004']", "not in order"},
    {"streams/0/products/0/versions", "['']", "\"versions\""},
    {"streams/0/products/0/versions", "['" NAME_300 "']", "\"versions\""},
    {"streams/0/products/0/versions", "['20241004']", "not among its versions"},
    {"images", "[]", "has no image"},
    {"images/0", "null", "images[0]"},
    {"images/0/product", "'other'", "images[0]"},
    {"images/0/version", "'20241005'", "\"version\""},
    {"images/0/item", "'disk2.img'", "\"item\""},
    {"images/0/path", "'r/other'", "another path"},
    {"images/0/path", "'../disk1.img'", "images[0]"},
    {"images/0/path", "'/etc/passwd'", "images[0]"},
    {"images/0/path", "'uvmirror/x'", "images[0]"},
    {"images/0/size", "11", "\"size\""},
    {"images/0/size", "-1", "\"size\""},
    {"images/0/size", "1125899906842625", "\"size\""},
    {"images/0/sha256", "'" HEX64_B "'", "\"sha256\""},
    {"images/0/sha256", "null", "\"sha256\""},
    {"images/0/sha512", "'x'", "\"sha512\""},
    {"images/0/metadata", NULL, "images[0]"},
    {"images/0/metadata/size", "5", "images[0]"},
    {"images/0/metadata/sha256", "'00'", "images[0]"},
    {"images/0/metadata/product_name", "'a b'", "images[0]"},
    {"images/0/payload", NULL, "\"payload\""},
    {"images/0/payload", "[]", "\"payload\""},
    {"images/0/payload/encoding", "'gzip'", "\"gzip\""},
    {"images/0/payload/member", "'r/20241001/disk1.img'", "another path"},
    {"images/0/payload/member", "'streams/v1/index.json'", "another path"},
    {"images/0/payload/size", "12", "own bytes"},
    {"images/0/payload/sha256", "'" HEX64_B "'", "own bytes"},
    {"images/0/payload/sha256", "'00'", "\"sha256\""},
    {"images/1/payload/member", "'r/20241004/disk1.img'", "another path"},
    {"members/0/path", "'uvmirror/manifest.json'", "neither"},
    {"members/0/path", "'etc/passwd'", "neither"},
    {"members/0/path", "'uvmirror/origin/../x'", "members[0]"},
    {"members/1/path", "'uvmirror/origin/com.example:released.sjson'", "listed twice"},
    {"members/1/path", "'uvmirror/origin/com.example:released.sjson/x'", "is below"},
    {"members/0/size", "67108865", "\"size\""},
    {"members/0/sha256", "'" FPR "'", "\"sha256\""},
};

static void refuse_changed(json_t *root, const struct refusal *r)
{
    struct bundle_manifest *m = NULL;
    uvm_auto_free char *message = NULL;
    change(root, r->path, r->value);
    uvm_auto_free char *text = json_dumps(root, 0);
    enum uvm_code code = parse(text, &m, &message);
    if (code != UVM_CONTENT || m || !strstr(message, r->reason))
        fail_msg("%s = %s: code %d, %s", r->path, r->value ? r->value : "(deleted)", code,
                 message ? message : "accepted");
}

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        mirror_auto_json *root = sample_json();
        refuse_changed(root, &refusals[i]);
    }
}

static void test_not_a_manifest(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "[]", "{}", "{\"format\":1,\"format\":1}", "{\"format\":1} x", "null"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct bundle_manifest *m = NULL;
        assert_int_equal(parse(texts[i], &m, NULL), UVM_CONTENT);
        assert_null(m);
    }
}

static void test_duplicates(void **state)
{
    (void)state;
    static const char *const lists[] = {"streams", "images"};
    for (size_t i = 0; i < 2; i++) {
        mirror_auto_json *root = sample_json();
        struct bundle_manifest *m = NULL;
        json_t *list = json_object_get(root, lists[i]);
        json_array_append(list, json_array_get(list, json_array_size(list) - 1));
        uvm_auto_free char *text = json_dumps(root, 0);
        assert_int_equal(parse(text, &m, NULL), UVM_CONTENT);
    }
}

/* ---- compact payloads ---- */

#define COMPACT(image, base)                                                                       \
    "{'member':'uvmirror/compact/" image "','encoding':'compact','size':5,'sha256':'" HEX64 "',"   \
    "'content':131072,'base':" base "}"
#define BASE(version, sha)                                                                         \
    "{'product':'com.example:24.04:amd64','version':'" version "','sha256':'" sha                  \
    "','sha512':null,'bytes':65536}"

/* The first image stands alone, the second one is a difference to it. */
static json_t *compact_json(void)
{
    json_t *root = sample_json();
    change(root, "format", "2");
    change(root, "images/0/payload", COMPACT(HEX64, "null"));
    change(root, "images/1/payload", COMPACT(HEX64_B, BASE("20241004", HEX64)));
    return root;
}

static void test_compact(void **state)
{
    (void)state;
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    mirror_auto_json *root = compact_json(), *other = NULL;
    uvm_auto_free char *text = json_dumps(root, 0);
    assert_int_equal(parse(text, &m, NULL), UVM_OK);
    assert_int_equal(m->format, 2);
    assert_int_equal(m->images[1].encoding, BUNDLE_COMPACT);
    assert_int_equal(m->images[1].content, 131072);
    assert_string_equal(m->images[1].base.version, "20241004");
    assert_int_equal(m->images[1].base.bytes, 65536);
    assert_ptr_equal(m->images[1].base.image, &m->images[0]);
    assert_null(m->images[0].base.product);
    uvm_auto_free char *printed = bundle_manifest_text(m);
    other = json_loads(printed, 0, NULL);
    assert_true(json_equal(root, other));
}

static void test_a_base_of_the_receiver(void **state)
{
    (void)state;
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    mirror_auto_json *root = compact_json();
    change(root, "images/0/payload", COMPACT(HEX64, BASE("20240901", HEX64_B)));
    uvm_auto_free char *text = json_dumps(root, 0);
    assert_int_equal(parse(text, &m, NULL), UVM_OK);
    assert_string_equal(m->images[0].base.version, "20240901");
    assert_null(m->images[0].base.image);
}

static bool is_version(void *version, const struct bundle_image *image)
{
    return strcmp(image->image->version, version) == 0;
}

static void test_what_must_be_read(void **state)
{
    (void)state;
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    mirror_auto_json *root = compact_json();
    uvm_auto_free char *text = json_dumps(root, 0);
    assert_int_equal(parse(text, &m, NULL), UVM_OK);
    static const struct {
        char version[9];
        bool first, second;
    } cases[] = {{"20241004", true, false}, {"20241001", true, true}, {"20240901", false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uvm_auto_free char *version = uvm_strdup(cases[i].version);
        uvm_auto_free bool *needs = bundle_manifest_needs(m, is_version, version);
        assert_int_equal(needs[0], cases[i].first);
        assert_int_equal(needs[1], cases[i].second);
    }
}

static const struct refusal compact_refusals[] = {
    {"format", "1", "not of format 1"},
    {"images/0/payload/member", "'r/20241004/disk1.img'", "of another image"},
    {"images/0/payload/member", "'uvmirror/compact/" HEX64_B "'", "of another image"},
    {"images/0/payload/member", "'uvmirror/compact/x/../" HEX64 "'", "of another image"},
    {"images/0/payload/content", NULL, "\"content\""},
    {"images/0/payload/content", "131071", "\"content\""},
    {"images/0/payload/content", "-65536", "\"content\""},
    {"images/0/payload/content", "1125899906908160", "\"content\""},
    {"images/0/payload/base", NULL, "\"base\""},
    {"images/0/payload/base", "[]", "\"base\""},
    {"images/0/payload/base", BASE("20241004", HEX64_B), "its own base"},
    {"images/0/payload/base", BASE("20241001", HEX64_B), "not before it"},
    {"images/1/payload/base/sha256", "'" HEX64_B "'", "or another image"},
    {"images/1/payload/base/sha256", "null", "has no checksum"},
    {"images/1/payload/base/sha256", "'x'", "\"sha256\""},
    {"images/1/payload/base/sha512", "'" HEX64 "'", "\"sha512\""},
    {"images/1/payload/base/sha512", NULL, "\"sha512\""},
    {"images/1/payload/base/product", "'a b'", "\"product\""},
    {"images/1/payload/base/version", "''", "\"version\""},
    {"images/1/payload/base/bytes", "131073", "\"bytes\""},
    {"images/1/payload/base/bytes", NULL, "\"bytes\""},
};

static void test_compact_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof compact_refusals / sizeof *compact_refusals; i++) {
        mirror_auto_json *root = compact_json();
        refuse_changed(root, &compact_refusals[i]);
    }
}

/* A plain payload is kept by nobody, so that none can refer to it. */
static void test_a_plain_base(void **state)
{
    (void)state;
    mirror_auto_json *root = compact_json(), *other = sample_json();
    json_t *plain = json_object_get(json_array_get(json_object_get(other, "images"), 0), "payload");
    json_object_set(json_array_get(json_object_get(root, "images"), 0), "payload", plain);
    refuse_changed(root, &(struct refusal){"format", "2", "is not compact itself"});
}

/* Only the first of two streams would be checked against an origin that they share. */
static void test_an_origin_of_two_streams(void **state)
{
    (void)state;
    mirror_auto_json *root = sample_json();
    struct bundle_manifest *m = NULL;
    uvm_auto_free char *message = NULL;
    json_t *streams = json_object_get(root, "streams");
    json_t *second = json_deep_copy(json_array_get(streams, 0));
    json_object_set_new(second, "content_id", json_string("com.example:daily"));
    json_object_set_new(second, "products", json_array());
    json_array_append_new(streams, second);
    uvm_auto_free char *text = json_dumps(root, 0);
    assert_int_equal(parse(text, &m, &message), UVM_CONTENT);
    assert_non_null(strstr(message, "another stream's"));
}

static void test_unknown_fields_are_ignored(void **state)
{
    (void)state;
    mirror_auto_json *root = sample_json();
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    change(root, "color", "'blue'");
    change(root, "images/0/color", "['blue']");
    change(root, "critical", "['serial','images']");
    uvm_auto_free char *text = json_dumps(root, 0);
    assert_int_equal(parse(text, &m, NULL), UVM_OK);
}

static void test_not_carried(void **state)
{
    (void)state;
    mirror_auto_json *root = sample_json();
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    change(root, "images/0/payload", "null");
    uvm_auto_free char *text = json_dumps(root, 0);
    assert_int_equal(parse(text, &m, NULL), UVM_OK);
    assert_int_equal(m->images[0].encoding, BUNDLE_NOT_CARRIED);
    assert_null(m->images[0].member);
    assert_int_equal(bundle_payload_bytes(m), 11);
}

/* Two items of one version may be the same file; then its bytes are carried, and counted, once. */
static void test_shared_payload(void **state)
{
    (void)state;
    mirror_auto_json *root = sample_json();
    UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
    json_t *images = json_object_get(root, "images");
    json_array_insert_new(images, 1, json_deep_copy(json_array_get(images, 0)));
    change(root, "images/1/item", "'uefi.img'");
    change(root, "images/1/metadata/item_name", "'uefi.img'");
    uvm_auto_free char *text = json_dumps(root, 0);
    assert_int_equal(parse(text, &m, NULL), UVM_OK);
    assert_int_equal(m->image_count, 3);
    assert_int_equal(bundle_payload_bytes(m), 21);
}

/* Neither of the other two contradicts the first one, which states no SHA-512. */
static void test_a_payload_of_two_files(void **state)
{
    (void)state;
    mirror_auto_json *root = compact_json();
    json_t *images = json_object_get(root, "images");
    for (int i = 1; i < 3; i++)
        json_array_insert_new(images, i, json_deep_copy(json_array_get(images, 0)));
    change(root, "images/1/item", "'uefi.img'");
    change(root, "images/1/metadata/item_name", "'uefi.img'");
    change(root, "images/1/path", "'r/20241004/uefi.img'");
    change(root, "images/1/sha512", "'" HEX64 HEX64 "'");
    change(root, "images/1/metadata/sha512", "'" HEX64 HEX64 "'");
    change(root, "images/2/item", "'more.img'");
    change(root, "images/2/metadata/item_name", "'more.img'");
    change(root, "images/2/path", "'r/20241004/more.img'");
    change(root, "images/2/metadata/sha512", "'" HEX64 HEX64_B "'");
    refuse_changed(root, &(struct refusal){"images/2/sha512", "'" HEX64 HEX64_B "'",
                                           "do not agree about their payload"});
}

/* ---- images that the site added -------------------------------------------------------------- */

#define SUMS      "uvmirror/origin/checksums/a.sums"
#define SUMS_SIG  SUMS ".sig"
#define SUMS_BOTH "{'checksums':'" SUMS "','signature':'" SUMS_SIG "','name':'debian-12.qcow2'}"
#define SUMS_ONLY "{'checksums':'" SUMS "','signature':null,'name':'debian-12.qcow2'}"

static void append(json_t *root, const char *list, const char *value)
{
    uvm_auto_free char *text = double_quoted(value);
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    json_array_append_new(json_object_get(root, list), json);
}

/* The sample, with a stream of the site's own: two images, the first two in `images` are a vendor's.
 */
static json_t *added_json(const char *origin)
{
    json_t *root = sample_json();
    append(root, "streams",
           "{'content_id':'uvmirror:local','source':'local','path':'x','updated':null,"
           "'updated_at':0,'filters':[],'origin':'uvmirror/origin/uvmirror:local.sjson',"
           "'verified_by':'" FPR "','products':[{'name':'local:bookworm:amd64','complete':true,"
           "'versions':['20241004','20241001']}]}");
    append(root, "members",
           "{'path':'uvmirror/origin/uvmirror:local.sjson','size':5,'sha256':'" HEX64 "'}");
    append(root, "members", "{'path':'" SUMS "','size':5,'sha256':'" HEX64 "'}");
    append(root, "members", "{'path':'" SUMS_SIG "','size':5,'sha256':'" HEX64 "'}");
    append(root, "members", "{'path':'uvmirror/origin/z','size':5,'sha256':'" HEX64 "'}");
    append(root, "images", IMAGE("20241004", "10", HEX64));
    append(root, "images", IMAGE("20241001", "11", HEX64_B));
    for (int i = 2; i < 4; i++) {
        uvm_auto_free char *path = uvm_format("images/%d", i);
        static const char *const fields[][2] = {{"stream", "'uvmirror:local'"},
                                                {"product", "'local:bookworm:amd64'"},
                                                {"metadata/product_name", "'local:bookworm:amd64'"},
                                                {"origin", NULL}};
        for (size_t f = 0; f < 4; f++) {
            uvm_auto_free char *field = uvm_format("%s/%s", path, fields[f][0]);
            change(root, field, fields[f][1] ? fields[f][1] : origin);
        }
    }
    return root;
}

static void test_checksum_files(void **state)
{
    (void)state;
    static const char *const origins[] = {SUMS_BOTH, SUMS_ONLY, "null"};
    for (size_t i = 0; i < 3; i++) {
        mirror_auto_json *root = added_json(origins[i]);
        UVM_AUTO(bundle_manifest_free) struct bundle_manifest *m = NULL;
        uvm_auto_free char *text = json_dumps(root, 0), *message = NULL;
        if (parse(text, &m, &message) != UVM_OK)
            fail_msg("%s: %s", origins[i], message);
        assert_false(bundle_stream_is_local(m->streams[0]));
        assert_true(bundle_stream_is_local(m->streams[1]));
        assert_null(m->images[0].checksums.member);
        const struct bundle_checksums *c = &m->images[3].checksums;
        assert_int_equal(c->member && strcmp(c->member, SUMS) == 0, i < 2);
        assert_int_equal(c->signature && strcmp(c->signature, SUMS_SIG) == 0, i == 0);
        assert_int_equal(c->name && strcmp(c->name, "debian-12.qcow2") == 0, i < 2);
        uvm_auto_free char *printed = bundle_manifest_text(m);
        mirror_auto_json *again = json_loads(printed, 0, NULL);
        for (int n = 2; i == 2 && n < 4; n++)
            json_object_del(json_array_get(json_object_get(root, "images"), (size_t)n), "origin");
        assert_true(json_equal(again, root));
    }
}

/* Each is put in the place of a sound "origin" of the third image. */
static const struct refusal origin_refusals[] = {
    {"images/2/origin", "[]", "\"origin\""},
    {"images/2/origin", "{}", "\"checksums\""},
    {"images/2/origin/name", "5", "\"name\""},
    {"images/2/origin/name", "'a\\u0007'", "\"name\""},
    {"images/2/origin/name", NULL, "\"name\""},
    {"images/2/origin/signature", NULL, "\"signature\""},
    {"images/2/origin/checksums", "'uvmirror/origin/none'", "not an origin file"},
    {"images/2/origin/checksums", "'streams/v1/index.json'", "not an origin file"},
    {"images/2/origin/checksums", "'r/20241004/disk1.img'", "not an origin file"},
    {"images/2/origin/checksums", "'uvmirror/origin/z'", "does not follow"},
    {"images/2/origin/checksums", "'" SUMS_SIG "'", "does not follow"},
    {"images/2/origin/signature", "'" SUMS "'", "does not follow"},
    {"images/2/origin/signature", "'uvmirror/origin/z'", "does not follow"},
    {"images/2/origin/signature", "'uvmirror/origin/none'", "not an origin file"},
    /* Two images that share a checksum file share its signature, and no file is two things. */
    {"images/2/origin/signature", "null", "two different ends"},
    {"images/2/origin", "{'checksums':'" SUMS_SIG "','signature':null,'name':'x'}",
     "two different ends"},
    {"images/2/origin", "{'checksums':'" SUMS_SIG "','signature':'uvmirror/origin/z','name':'x'}",
     "two different ends"},
    {"images/2/origin",
     "{'checksums':'uvmirror/origin/com.example:released.sjson','signature':null,'name':'x'}",
     "two different ends"},
    {"images/2/origin",
     "{'checksums':'uvmirror/origin/uvmirror:local.sjson','signature':null,'name':'x'}",
     "two different ends"},
    {"images/0/origin", SUMS_BOTH, "only an image that the site added"},
    {"streams/1/content_id", "'other:local'", "images[2]"},
    {"members/3/size", "1048577", "over the limit"},
    {"members/4/size", "65537", "over the limit"},
};

static void test_checksum_files_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof origin_refusals / sizeof *origin_refusals; i++) {
        mirror_auto_json *root = added_json(SUMS_BOTH);
        refuse_changed(root, &origin_refusals[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_not_a_manifest),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_compact),
        cmocka_unit_test(test_a_base_of_the_receiver),
        cmocka_unit_test(test_what_must_be_read),
        cmocka_unit_test(test_compact_refused),
        cmocka_unit_test(test_a_plain_base),
        cmocka_unit_test(test_an_origin_of_two_streams),
        cmocka_unit_test(test_unknown_fields_are_ignored),
        cmocka_unit_test(test_not_carried),
        cmocka_unit_test(test_shared_payload),
        cmocka_unit_test(test_a_payload_of_two_files),
        cmocka_unit_test(test_checksum_files),
        cmocka_unit_test(test_checksum_files_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

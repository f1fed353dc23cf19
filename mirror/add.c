/*
 * Adding an image that no stream lists. What is wrong with the words is found before anything is
 * downloaded; what is wrong with the bytes, before they have a place in the mirror.
 *
 *     subject, origin, other streams -> bytes -> awaited -> placed -> held
 *
 * A run that dies leaves at most a file that is awaited: the next addition holds or removes it.
 */
#include <string.h>

#include "mirror/intake.h"
#include "mirror/model.h"

/* What is known along the way. */
struct add {
    struct mirror_tree *tree;
    const struct mirror_addition *addition;
    struct mirror_subject subject;
    char *title;
    char *signer;                 /* of the origin, when it was verified */
    struct mirror_image expected; /* the sums that are known */
    json_t *stream;               /* the tree of the local stream */
    struct mirror_image before;   /* of the same product and version; all zero = none */
};

static void add_clear(struct add *a)
{
    mirror_subject_clear(&a->subject);
    mirror_image_clear(&a->before);
    mirror_image_clear(&a->expected);
    json_decref(a->stream);
    free(a->title);
    free(a->signer);
}
#define auto_add __attribute__((cleanup(add_clear))) struct add

#define auto_image __attribute__((cleanup(mirror_image_clear))) struct mirror_image

/* ---- the words ------------------------------------------------------------------------------- */

static bool read_subject(struct add *a, struct uvm_error *err)
{
    uvm_auto_free char *folder = NULL, *file = NULL;
    if (!mirror_location_split(a->addition->image, &folder, &file, err) ||
        !mirror_subject_new(a->addition->metadata, file, &a->subject, err))
        return false;
    const json_t *pairs = a->subject.pairs;
    uvm_auto_free char *title =
        uvm_format("%s %s %s", json_string_value(json_object_get(pairs, "release")),
                   json_string_value(json_object_get(pairs, "arch")), a->subject.version);
    a->title = mirror_brief(title);
    return true;
}

/* The image as it will be, but for its bytes: all that can be wrong with it is wrong now. */
static bool check_subject(const struct add *a, struct uvm_error *err)
{
    auto_image image = {0};
    mirror_auto_json *tree = json_deep_copy(a->stream);
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA256, "", 0, hex);
    mirror_local_put(tree, &a->subject, &(struct mirror_image){.sha256 = hex});
    if (mirror_local_image(tree, a->subject.product, a->subject.version, &image, err))
        return true;
    err->code = UVM_USAGE;
    return false;
}

/* ---- what others say of the bytes ------------------------------------------------------------ */

static bool expect(char **known, const char *hex, struct uvm_error *err)
{
    if (!*known)
        *known = uvm_strdup(hex);
    return strcmp(*known, hex) == 0 ||
           uvm_fail(err, UVM_CONTENT, "the checksum file gives another SHA-256 sum than --sha256");
}

static bool read_expected(struct add *a, struct uvm_error *err)
{
    const struct mirror_addition *addition = a->addition;
    enum uvm_digest_type type;
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_auto_signature sig = {0};
    if (addition->sha256 && !uvm_digest_valid(UVM_SHA256, addition->sha256))
        return uvm_fail(err, UVM_USAGE, "the SHA-256 sum is not 64 hexadecimal digits");
    if (addition->sha256 && !expect(&a->expected.sha256, addition->sha256, err))
        return false;
    if (!addition->origin)
        return true;
    if (!mirror_origin_read(addition->origin, addition->verifier, &type, hex, &sig, err))
        return false;
    a->signer = addition->verifier ? uvm_strdup(sig.fingerprint) : NULL;
    return expect(type == UVM_SHA512 ? &a->expected.sha512 : &a->expected.sha256, hex, err);
}

/* ---- what the mirror holds already ----------------------------------------------------------- */

static bool is_same_kind(const struct mirror_image *image, const json_t *pairs)
{
    static const char *const keys[] = {"release", "arch", "label"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(mirror_image_get(image, keys[i]),
                   json_string_value(json_object_get(pairs, keys[i]))) != 0)
            return false;
    return true;
}

static void warn_of_double(const struct add *a, const struct mirror_image *image)
{
    uvm_auto_free char *product = mirror_brief(image->product);
    uvm_warning(a->addition->observer,
                "%s is held as another product, too, with the same release, arch and label (%s): "
                "'uvt-kvm create' finds both and takes neither; another label= tells them apart",
                a->title, product);
}

/* uvt-kvm finds images by release, arch and label, and wants exactly one. */
static bool look_for_double(const struct add *a, const struct mirror_stream *stream,
                            const struct mirror_filters *all, struct uvm_error *err)
{
    mirror_auto_selection held = {0};
    if (!mirror_tree_select(a->tree, stream, all, 0, &held, err))
        return false;
    for (size_t i = 0; i < held.count; i++)
        for (size_t k = 0; k < held.products[i].image_count; k++) {
            const struct mirror_image *image = &held.products[i].images[k];
            if (strcmp(image->product, a->subject.product) != 0 &&
                is_same_kind(image, a->subject.pairs)) {
                warn_of_double(a, image);
                return true;
            }
        }
    return true;
}

static bool check_stream(const struct add *a, const struct mirror_stream *stream,
                         const struct mirror_filters *all, struct uvm_error *err)
{
    const json_t *products = json_object_get(stream->tree, "products");
    if (strcmp(stream->content_id, MIRROR_LOCAL_ID) != 0 &&
        json_object_get(products, a->subject.product)) {
        uvm_auto_free char *product = mirror_brief(a->subject.product);
        return uvm_fail(err, UVM_USAGE,
                        "product=%s is a product of the mirrored stream %s: an added image needs a "
                        "name of its own",
                        product, stream->content_id);
    }
    return look_for_double(a, stream, all, err);
}

static void free_streams(struct mirror_stream **streams, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mirror_stream_free(streams[i]);
    free(streams);
}

static bool check_streams(const struct add *a, struct uvm_error *err)
{
    UVM_AUTO(mirror_filters_free) struct mirror_filters *all = NULL;
    struct mirror_stream **streams;
    size_t count;
    if (!mirror_filters_new(NULL, 0, NULL, &all, err) ||
        !mirror_tree_held_streams(a->tree, &streams, &count, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = check_stream(a, streams[i], all, err);
    free_streams(streams, count);
    return ok;
}

/* Versions are text: "9" is newer than "10". */
static void warn_of_newer(const struct add *a)
{
    struct mirror_stream view = {.tree = a->stream};
    const char *name, *newest = a->subject.version;
    json_t *version,
        *versions = mirror_object_get(
            mirror_object_get(mirror_object_get(view.tree, "products"), a->subject.product),
            "versions");
    json_object_foreach(versions, name, version)
    {
        if (mirror_version_compare(name, newest) > 0)
            newest = name;
    }
    if (newest == a->subject.version)
        return;
    uvm_auto_free char *shown = mirror_brief(newest);
    uvm_warning(a->addition->observer,
                "%s: version %s is held already and counts as newer (versions are compared as "
                "text)",
                a->title, shown);
}

/* "x86_64" is what other distributions say; filters here, and uvtool, say "amd64". */
static void warn_of_arch(const struct add *a)
{
    const char *arch = json_string_value(json_object_get(a->subject.pairs, "arch"));
    const char *debian = mirror_debian_arch(arch);
    if (strcmp(arch, debian) != 0)
        uvm_warning(a->addition->observer, "%s: arch=%s is arch=%s everywhere else here", a->title,
                    arch, debian);
}

/* A receiver that wants the distribution's word cannot tell a name at will from a vendor's. */
static void warn_of_product(const struct add *a)
{
    if (a->addition->origin && strncmp(a->subject.product, "local:", strlen("local:")) != 0)
        uvm_warning(a->addition->observer,
                    "%s: 'import --require-origin' takes it only as a product whose name begins "
                    "with 'local:'",
                    a->title);
}

static bool find_before(struct add *a, struct uvm_error *err)
{
    struct mirror_stream view = {.tree = a->stream};
    mirror_auto_json *metadata =
        mirror_stream_flatten(&view, a->subject.product, a->subject.version, MIRROR_LOCAL_ITEM);
    return !metadata ||
           mirror_local_image(a->stream, a->subject.product, a->subject.version, &a->before, err);
}

static bool prepare(struct add *a, struct uvm_error *err)
{
    if (!read_subject(a, err) || !mirror_local_load(a->tree, &a->stream, err) ||
        !check_subject(a, err) || !read_expected(a, err) || !check_streams(a, err))
        return false;
    warn_of_arch(a);
    warn_of_product(a);
    warn_of_newer(a);
    return true;
}

/* ---- the bytes ------------------------------------------------------------------------------- */

static bool check_before(const struct add *a, const struct mirror_image *bytes,
                         struct uvm_error *err)
{
    if (!a->before.product || mirror_same_content(&a->before, bytes))
        return true;
    return uvm_fail(err, UVM_CONTENT,
                    "the mirror holds this version of %s with other bytes: give it another "
                    "version=, or take that one out with --remove",
                    a->before.product);
}

static bool keep_origin(const struct add *a, const struct mirror_image *image,
                        struct uvm_error *err)
{
    const struct mirror_origin *given = a->addition->origin;
    if (!given)
        return true;
    struct mirror_origin origin = *given; /* borrowed */
    origin.signer = a->signer;
    return mirror_vouch_keep(a->tree, image, &origin, err);
}

static bool take_in(const struct add *a, struct mirror_intake *intake, time_t now,
                    struct mirror_image *image, struct uvm_error *err)
{
    const struct uvm_observer *observer = a->addition->observer;
    UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = NULL;
    mirror_auto_selection selection = {0};
    mirror_auto_removed removed = {0};
    struct mirror_image bytes = mirror_intake_image(intake);
    if (!check_before(a, &bytes, err))
        return false;
    if (!bytes.sha512) /* what vouched for these bytes goes on to do so */
        bytes.sha512 = a->before.sha512;
    mirror_local_put(a->stream, &a->subject, &bytes);
    return mirror_local_image(a->stream, a->subject.product, a->subject.version, image, err) &&
           mirror_local_stream(a->stream, now, &stream, &selection, err) &&
           mirror_held_await(a->tree, stream, &selection, observer, err) &&
           mirror_intake_place(intake, image, err) && keep_origin(a, image, err) &&
           mirror_local_hold(a->tree, stream, &selection, image, observer, &removed, err);
}

bool mirror_tree_add(struct mirror_tree *t, const struct mirror_addition *addition, time_t now,
                     struct mirror_image *ret_image, struct uvm_error *err)
{
    auto_add a = {.tree = t, .addition = addition};
    mirror_auto_intake intake = MIRROR_INTAKE_INIT;
    auto_image image = {0};
    if (!prepare(&a, err))
        return false;
    if (!find_before(&a, err) ||
        !mirror_intake_take(t, addition, &a.expected, a.title, &intake, err) ||
        !take_in(&a, &intake, now, &image, err))
        return uvm_prefix(err, "%s", a.title);
    *ret_image = image;
    image = (struct mirror_image){0};
    return true;
}

/*
 * The reader. Trust grows front to back: the first frame is decoded within hard limits, its
 * signature verified, the manifest parsed; from then on every member must be the next one that the
 * manifest lists, byte for byte, and the bundle must end where the list does.
 */
#include <string.h>

#include "bundle/internal.h"

struct bundle_reader {
    struct bundle_open_options options;
    struct bundle_input input;
    const struct uvm_observer *observer;
    bool quit; /* tells the ring's thread to stop; shared with it */
    struct bundle_unzstd *unzstd;
    struct bundle_ring *ring;   /* from the first bundle_reader_next on */
    struct bundle_untar *untar; /* the same */

    struct bundle_manifest *manifest;
    struct uvm_signature signature;
    struct bundle_plan *plan;

    size_t next;                         /* item of the plan */
    const struct bundle_plan_item *item; /* the present one, NULL between members */
    struct uvm_digest *digest;           /* SHA-256 of its bytes so far */
    struct uvm_digest *digest512;        /* and SHA-512, when its images state that; else NULL */
    uint64_t payload_done;               /* of plan->payload_bytes */
    struct bundle_images *images;        /* what is read as more than bytes */
    bool ended;                          /* the whole bundle is verified */
    bool failed;                         /* it was refused: nothing more comes of it */
};

void bundle_reader_free(struct bundle_reader *r)
{
    if (!r)
        return;
    __atomic_store_n(&r->quit, true, __ATOMIC_RELAXED); /* a decoder may be waiting for a pipe */
    bundle_images_free(r->images);
    bundle_untar_free(r->untar);
    bundle_ring_free(r->ring);
    bundle_unzstd_free(r->unzstd);
    bundle_input_clear(&r->input);
    uvm_digest_free(r->digest);
    uvm_digest_free(r->digest512);
    bundle_plan_free(r->plan);
    bundle_manifest_free(r->manifest);
    uvm_signature_clear(&r->signature);
    free(r);
}

const char *bundle_reader_name(const struct bundle_reader *r)
{
    return r->input.name;
}

const struct bundle_manifest *bundle_reader_manifest(const struct bundle_reader *r)
{
    return r->manifest;
}

const struct uvm_signature *bundle_reader_signature(const struct bundle_reader *r)
{
    return &r->signature;
}

/* ---- up to the manifest ---- */

static bool check_kind(struct bundle_unzstd *u, struct uvm_error *err)
{
    const void *head;
    size_t len = 0;
    if (!bundle_unzstd_peek(u, BUNDLE_KIND_HEAD, &head, &len, err))
        return false;
    if (len >= 4 && memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0)
        return true;
    return uvm_fail(err, UVM_CONTENT, "not a uvmirror bundle (%s)", bundle_input_kind(head, len));
}

/* Names the parts that are to blame for what was refused. */
static bool explain(const struct bundle_reader *r, struct uvm_error *err)
{
    return r->input.set && r->options.purpose == BUNDLE_CHECK
               ? bundle_set_explain(r->input.set, err)
               : false;
}

static bool read_manifest(struct bundle_reader *r, struct uvm_error *err)
{
    uvm_auto_buf text = {0};
    uvm_auto_buf signature = {0};
    if (!check_kind(r->unzstd, err) || !bundle_head_read(r->unzstd, &text, &signature, err) ||
        !uvm_verifier_detached(r->options.verifier, text.data, text.len, signature.data,
                               signature.len, &r->signature, err) ||
        !bundle_manifest_parse(text.data, text.len, &r->manifest, err))
        return uvm_prefix(err, "%s", r->input.name);
    r->plan = bundle_plan_new(r->manifest);
    return true;
}

static struct bundle_reader *new_reader(const struct bundle_open_options *options)
{
    struct bundle_reader *r = uvm_alloc(sizeof *r);
    r->options = *options;
    r->images = bundle_images_new(r, options->observer);
    r->observer = options->observer;
    r->input = (struct bundle_input){.fd = -1, .observer = options->observer};
    return r;
}

bool bundle_reader_open(const char *path, const struct bundle_open_options *options,
                        struct bundle_reader **ret_reader, struct uvm_error *err)
{
    UVM_AUTO(bundle_reader_free) struct bundle_reader *r = new_reader(options);
    if (!bundle_input_open(&r->input, path, err))
        return false;
    r->unzstd = bundle_unzstd_new(&r->input, &r->quit);
    if (!read_manifest(r, err))
        return false;
    *ret_reader = UVM_STEAL(r);
    return true;
}

bool bundle_reader_open_set(struct bundle_set **set, const struct bundle_open_options *options,
                            struct bundle_reader **ret_reader, struct uvm_error *err)
{
    UVM_AUTO(bundle_reader_free) struct bundle_reader *r = new_reader(options);
    bundle_input_open_set(&r->input, set);
    if (!bundle_set_check(r->input.set, err))
        return false;
    r->unzstd = bundle_unzstd_new(&r->input, &r->quit);
    if (!read_manifest(r, err) || !bundle_set_is_of(r->input.set, r->manifest, err))
        return explain(r, err);
    *ret_reader = UVM_STEAL(r);
    return true;
}

/* ---- members ---- */

static bool from_ring(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    return bundle_ring_next(opaque, ret_data, ret_len, err);
}

static bool start(struct bundle_reader *r, struct uvm_error *err)
{
    if (r->ring)
        return true;
    enum bundle_ending ending = r->manifest->trailer ? BUNDLE_ENDS_WITH_TRAILER : BUNDLE_ENDS_PLAIN;
    if (!bundle_ring_new(r->unzstd, ending, &r->quit, r->observer, &r->ring, err))
        return false;
    r->untar = bundle_untar_new((struct uvm_reader){from_ring, r->ring});
    return true;
}

/* Ends a digest (NULL: nothing was stated) and compares. */
static bool is_digest(struct uvm_digest **digest, const char *stated)
{
    char hex[UVM_DIGEST_HEX_MAX] = "";
    if (*digest)
        uvm_digest_finish(*digest, hex);
    uvm_digest_free(UVM_STEAL(*digest));
    return !stated || strcmp(hex, stated) == 0;
}

/* The manifest's SHA-256 is the site's word. Where the vendor signed a SHA-512 alone, only that one ties
 * the bytes to the vendor. */
static bool check_digest(struct bundle_reader *r, struct uvm_error *err)
{
    if (!is_digest(&r->digest, r->item->sha256))
        return uvm_fail(err, UVM_CONTENT, "its content is not what was signed");
    if (!is_digest(&r->digest512, r->item->sha512))
        return uvm_fail(err, UVM_CONTENT, "its content is not the image that its SHA-512 names");
    r->item = NULL;
    return true;
}

static bool read_block(struct bundle_reader *r, const void **ret_data, size_t *ret_len,
                       struct uvm_error *err)
{
    *ret_len = 0;
    if (!r->item)
        return true;
    if (!bundle_untar_read(r->untar, ret_data, ret_len, err))
        return false;
    if (*ret_len == 0)
        return check_digest(r, err);
    uvm_digest_update(r->digest, *ret_data, *ret_len);
    if (r->digest512)
        uvm_digest_update(r->digest512, *ret_data, *ret_len);
    r->payload_done += r->item->images ? *ret_len : 0;
    return true;
}

/* The input is the ring's thread's, while that runs. */
static void stop_reading(struct bundle_reader *r)
{
    bundle_untar_free(UVM_STEAL(r->untar));
    bundle_ring_free(UVM_STEAL(r->ring));
}

/* Once refused, always refused: no later call may make it look sound. */
static bool fail_for_good(struct bundle_reader *r, struct uvm_error *err)
{
    r->failed = true;
    if (r->item)
        uvm_prefix(err, "%s: member %s", r->input.name, r->item->path);
    else
        uvm_prefix(err, "%s", r->input.name);
    stop_reading(r);
    return explain(r, err);
}

const struct bundle_plan *bundle_reader_plan(const struct bundle_reader *r)
{
    return r->plan;
}

const struct bundle_plan_item *bundle_reader_item(const struct bundle_reader *r)
{
    return r->item;
}

struct bundle_images *bundle_reader_images(struct bundle_reader *r)
{
    return r->images;
}

bool bundle_reader_refused(const struct bundle_reader *r)
{
    return r->failed;
}

bool bundle_reader_refuse(struct bundle_reader *r, struct uvm_error *err)
{
    if (r->failed) /* and explained */
        return false;
    uvm_prefix(err, "%s", r->input.name);
    r->failed = true;
    if (!r->input.set || r->options.purpose != BUNDLE_CHECK)
        return false;
    bundle_images_end(r->images);
    stop_reading(r);
    return explain(r, err);
}

static bool check_usable(const struct bundle_reader *r, struct uvm_error *err)
{
    return !r->failed || uvm_fail(err, UVM_CONTENT, "%s: refused before", r->input.name);
}

static bool read_checked(void *opaque, const void **ret_data, size_t *ret_len,
                         struct uvm_error *err)
{
    struct bundle_reader *r = opaque;
    const void *data = NULL;
    size_t len = 0;
    if (!check_usable(r, err))
        return false;
    if (!read_block(r, &data, &len, err))
        return fail_for_good(r, err);
    *ret_data = data;
    *ret_len = len;
    return true;
}

struct uvm_reader bundle_reader_data(struct bundle_reader *r)
{
    return (struct uvm_reader){read_checked, r};
}

bool bundle_reader_slurp(struct bundle_reader *r, struct uvm_buf *ret_buf, struct uvm_error *err)
{
    uvm_auto_buf buf = {.max = BUNDLE_MEMBER_MAX};
    for (;;) {
        const void *data = NULL;
        size_t len = 0;
        if (!read_checked(r, &data, &len, err))
            return false;
        if (!uvm_buf_add(&buf, data ? data : "", len, err))
            return uvm_prefix(err, "%s", r->input.name);
        if (len == 0)
            break;
    }
    uvm_buf_move(ret_buf, &buf);
    return true;
}

/* Whoever reads a member reports what he does with it; what nobody reads is reported here. */
static bool skip_rest(struct bundle_reader *r, struct uvm_error *err)
{
    while (r->item) {
        const void *data = NULL;
        size_t len = 0;
        if (!read_block(r, &data, &len, err))
            return false;
        if (r->payload_done)
            uvm_progress(r->observer, "verify", r->input.name, r->payload_done,
                         r->plan->payload_bytes);
    }
    return true;
}

static bool check_next(struct bundle_reader *r, const char *path, uint64_t size,
                       struct uvm_error *err)
{
    const struct bundle_plan_item *wanted =
        r->next < r->plan->count ? &r->plan->items[r->next] : NULL;
    uvm_auto_free char *found = uvm_printable(path ? path : "the end");
    if (!wanted && path)
        return uvm_fail(err, UVM_CONTENT, "member %s is not in the manifest, which ends before it",
                        found);
    if (wanted && (!path || strcmp(path, wanted->path) != 0))
        return uvm_fail(err, UVM_CONTENT, "found %s where the manifest has %s", found,
                        wanted->path);
    if (wanted && size != wanted->size)
        return uvm_fail(err, UVM_CONTENT, "member %s has %llu bytes, %llu in the manifest",
                        wanted->path, (unsigned long long)size, (unsigned long long)wanted->size);
    return true;
}

static bool finish(struct bundle_reader *r, struct uvm_error *err)
{
    if (!bundle_untar_finish(r->untar, err))
        return false;
    r->ended = true;
    uvm_done(r->observer, "verify", r->input.name, NULL);
    return true;
}

static bool move_on(struct bundle_reader *r, struct uvm_error *err)
{
    const char *path = NULL;
    uint64_t size = 0;
    if (!start(r, err) || !skip_rest(r, err) || !bundle_untar_next(r->untar, &path, &size, err) ||
        !check_next(r, path, size, err))
        return false;
    if (!path)
        return finish(r, err);
    r->item = &r->plan->items[r->next++];
    r->digest = uvm_digest_new(UVM_SHA256);
    r->digest512 = r->item->sha512 ? uvm_digest_new(UVM_SHA512) : NULL;
    return true;
}

bool bundle_reader_next(struct bundle_reader *r, struct bundle_entry *ret_entry,
                        struct uvm_error *err)
{
    bundle_images_end(r->images);
    if (!check_usable(r, err))
        return false;
    if (!r->ended && !move_on(r, err))
        return fail_for_good(r, err);
    if (r->ended) {
        *ret_entry = (struct bundle_entry){.kind = BUNDLE_ENTRY_END};
        return true;
    }
    *ret_entry = (struct bundle_entry){
        .kind = r->item->images ? BUNDLE_ENTRY_PAYLOAD : BUNDLE_ENTRY_MEMBER,
        .path = r->item->path,
        .size = r->item->size,
        .images = r->item->images,
        .image_count = r->item->image_count,
    };
    return true;
}

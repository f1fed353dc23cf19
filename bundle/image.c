/*
 * Images of compact payloads: their content, and their own bytes.
 *
 *     member --decoder--> content --> whoever wants it            a base comes from the receiver (find_base),
 *                            |                                    or is a content that was kept
 *                            +-- kept in a file without a name, where a later payload refers to it, or
 *                                the image's own bytes are made of it:  --deflate--> bytes, hashed
 */
#include <string.h>
#include <unistd.h>

#include "bundle/compact.h"

#define REBUILD "rebuild" /* a step */

/* The content of an earlier payload. */
struct kept {
    const struct bundle_plan_item *item;
    int fd;
};

struct bundle_images {
    struct bundle_reader *reader;
    struct kept *kept;
    size_t kept_count;

    /* of the present payload */
    struct bundle_decoder *decoder; /* NULL: it is not read as an image */
    const struct bundle_plan_item *item;
    struct kept base; /* what `from` reads where it is a kept content; borrowed */
    struct bundle_base from;
    int file; /* gets the content; -1 = none */
    bool keep, ended;
    bool reading; /* of the member has been read */
    struct mirror_content content;
    struct uvm_reader source;           /* of the content, or of the image's bytes */
    uint64_t left;                      /* bytes of the content that are to come */
    struct uvm_digest *sha256, *sha512; /* of the image's bytes */
    const char *stated256, *stated512;  /* NULL: nobody says */
    uint64_t done;                      /* of them */
    const struct uvm_observer *observer;
    char *title;
};

struct bundle_images *bundle_images_new(struct bundle_reader *r,
                                        const struct uvm_observer *observer)
{
    struct bundle_images *im = uvm_alloc(sizeof *im);
    im->reader = r;
    im->observer = observer;
    im->file = -1;
    return im;
}

void bundle_images_end(struct bundle_images *im)
{
    bundle_decoder_free(UVM_STEAL(im->decoder));
    uvm_close_ptr(&im->file);
    uvm_digest_free(UVM_STEAL(im->sha256));
    uvm_digest_free(UVM_STEAL(im->sha512));
    im->stated256 = im->stated512 = NULL;
    free(UVM_STEAL(im->title));
    im->keep = im->ended = im->reading = false;
    im->done = im->left = 0;
}

void bundle_images_free(struct bundle_images *im)
{
    if (!im)
        return;
    bundle_images_end(im);
    for (size_t i = 0; i < im->kept_count; i++)
        uvm_close_ptr(&im->kept[i].fd);
    free(im->kept);
    free(im);
}

/* ---- what later payloads refer to ---- */

static bool is_wanted(const struct bundle_image_options *o, const struct bundle_plan_item *item)
{
    for (size_t i = 0; i < item->image_count; i++)
        if (!o->wants || o->wants(o->opaque, item->images[i]))
            return true;
    return false;
}

/* Whether a later payload that will be asked for refers to this one, perhaps through others. */
static bool is_wanted_later(const struct bundle_images *im, const struct bundle_plan_item *item,
                            const struct bundle_image_options *o)
{
    const struct bundle_plan *plan = bundle_reader_plan(im->reader);
    uvm_auto_free bool *refers = uvm_alloc((plan->count + 1) * sizeof *refers);
    size_t first = (size_t)(item - plan->items);
    refers[first] = true;
    for (size_t i = first + 1; i < plan->count; i++) {
        const struct bundle_plan_item *base = plan->items[i].base;
        refers[i] = base && refers[base - plan->items];
        if (refers[i] && is_wanted(o, &plan->items[i]))
            return true;
    }
    return false;
}

/* Whether any payload behind the present one refers to it directly. */
static bool is_base_later(const struct bundle_images *im, const struct bundle_plan_item *item)
{
    const struct bundle_plan *plan = bundle_reader_plan(im->reader);
    for (const struct bundle_plan_item *later = im->item + 1; later < plan->items + plan->count;
         later++)
        if (later->base == item)
            return true;
    return false;
}

static void drop_unneeded(struct bundle_images *im)
{
    size_t left = 0;
    for (size_t i = 0; i < im->kept_count; i++)
        if (is_base_later(im, im->kept[i].item))
            im->kept[left++] = im->kept[i];
        else
            uvm_close_ptr(&im->kept[i].fd);
    im->kept_count = left;
}

static void keep_file(struct bundle_images *im)
{
    if (im->keep) {
        im->kept = uvm_grow(im->kept, im->kept_count + 1, sizeof *im->kept);
        im->kept[im->kept_count++] = (struct kept){im->item, uvm_steal_fd(&im->file)};
    }
    drop_unneeded(im);
}

/* ---- bases ---- */

/* What is not in the file is zeros. */
static bool read_kept(void *opaque, uint64_t offset, void *data, size_t len, struct uvm_error *err)
{
    const struct kept *kept = opaque;
    char *to = data;
    while (len > 0) {
        ssize_t got = pread(kept->fd, to, len, (off_t)offset);
        if (got < 0)
            return uvm_fail_errno(err, UVM_FAILED, "reading %s again", kept->item->path);
        if (got == 0)
            break;
        to += got;
        len -= (size_t)got;
        offset += (uint64_t)got;
    }
    memset(to, 0, len);
    return true;
}

static bool use_kept(struct bundle_images *im, struct uvm_error *err)
{
    for (size_t i = 0; i < im->kept_count; i++)
        if (im->kept[i].item == im->item->base) {
            im->base = im->kept[i];
            im->from = (struct bundle_base){read_kept, &im->base};
            return true;
        }
    return uvm_fail(err, UVM_FAILED, "%s was not kept, to which it refers", im->item->base->path);
}

/* *ret_base NULL: it stands alone. */
static bool find_base(struct bundle_images *im, const struct bundle_image_options *o,
                      const struct bundle_base **ret_base, struct uvm_error *err)
{
    const struct bundle_image *image = im->item->images[0];
    *ret_base = NULL;
    if (!image->base.product)
        return true;
    *ret_base = &im->from;
    if (im->item->base)
        return use_kept(im, err);
    if (o->find_base)
        return o->find_base(o->opaque, image, &im->from, err);
    return uvm_fail(err, UVM_CONTENT, "it is a difference to %s %s, which is not here",
                    image->base.product, image->base.version);
}

/* ---- the image's own bytes ---- */

static void start_hashing(struct bundle_images *im)
{
    for (size_t i = 0; i < im->item->image_count; i++) {
        const struct mirror_image *image = im->item->images[i]->image;
        im->stated256 = im->stated256 ? im->stated256 : image->sha256;
        im->stated512 = im->stated512 ? im->stated512 : image->sha512;
    }
    im->sha256 = im->stated256 ? uvm_digest_new(UVM_SHA256) : NULL;
    im->sha512 = im->stated512 ? uvm_digest_new(UVM_SHA512) : NULL;
}

static bool is_stated(struct uvm_digest **digest, const char *stated)
{
    char hex[UVM_DIGEST_HEX_MAX] = "";
    if (*digest)
        uvm_digest_finish(*digest, hex);
    uvm_digest_free(UVM_STEAL(*digest));
    return !stated || strcmp(hex, stated) == 0;
}

static bool check_image(struct bundle_images *im, struct uvm_error *err)
{
    bool same256 = is_stated(&im->sha256, im->stated256),
         same512 = is_stated(&im->sha512, im->stated512);
    if (im->done != im->item->images[0]->image->size || !same256 || !same512) {
        uvm_auto_free char *advice = bundle_deflate_advice();
        return uvm_fail(err, UVM_CONTENT,
                        "what is made of it is not the image whose checksum was signed: %s",
                        advice);
    }
    uvm_done(im->observer, REBUILD, im->title, NULL);
    return true;
}

/* The next bytes of the image; *ret_len 0: it is the one. */
static bool read_rebuilt(struct bundle_images *im, const void **ret_data, size_t *ret_len,
                         struct uvm_error *err)
{
    uint64_t size = im->item->images[0]->image->size;
    if (!uvm_go_on(im->observer, err) ||
        !im->source.read(im->source.opaque, ret_data, ret_len, err))
        return false;
    if (*ret_len == 0)
        return check_image(im, err);
    if (*ret_len > size - im->done)
        return uvm_fail(err, UVM_CONTENT, "what is made of it is larger than the image");
    if (im->sha256)
        uvm_digest_update(im->sha256, *ret_data, *ret_len);
    if (im->sha512)
        uvm_digest_update(im->sha512, *ret_data, *ret_len);
    im->done += *ret_len;
    uvm_progress(im->observer, REBUILD, im->title, im->done, size);
    return true;
}

/* ---- refusing ---- */

/* What another program has changed. */
static void blame_base(const struct bundle_images *im, struct uvm_error *err)
{
    const struct bundle_base_name *base = &im->item->images[0]->base;
    if (base->image)
        return;
    uvm_auto_error why = *err;
    *err = UVM_ERROR_INIT;
    uvm_fail(
        err, UVM_CONTENT,
        "%s; it is a difference to %s %s as that was when the bundle was made: a full bundle is "
        "needed",
        why.message, base->product, base->version);
}

/* Nothing that is in a damaged member means anything: its own checksum comes first. */
static bool is_member_sound(struct bundle_images *im, struct uvm_error *err)
{
    struct uvm_reader member = bundle_reader_data(im->reader);
    uvm_auto_error why = UVM_ERROR_INIT;
    const void *data;
    for (size_t len = 1; len > 0;)
        if (!member.read(member.opaque, &data, &len, &why)) {
            uvm_error_clear(err);
            *err = why;
            why = UVM_ERROR_INIT;
            return false;
        }
    return true;
}

/* What the member's reader has refused says enough. */
static bool refuse(struct bundle_images *im, struct uvm_error *err)
{
    bool base_changed = false;
    if (im->decoder)
        bundle_decoder_stop(im->decoder, &base_changed);
    if (bundle_reader_refused(im->reader) || !im->item ||
        (im->reading && err->code == UVM_CONTENT && !is_member_sound(im, err)))
        return bundle_reader_refuse(im->reader, err);
    if (base_changed)
        blame_base(im, err);
    uvm_prefix(err, "%s", im->title);
    return bundle_reader_refuse(im->reader, err);
}

/* ---- the readers that are handed out ---- */

static void end(struct bundle_images *im)
{
    im->ended = true;
    keep_file(im);
}

static bool fail_over(struct uvm_error *err)
{
    return uvm_fail(err, UVM_CONTENT, "refused before");
}

static bool is_usable(const struct bundle_images *im)
{
    return im->decoder && !bundle_reader_refused(im->reader);
}

static bool read_more(struct bundle_images *im, const void **ret_data, size_t *ret_len,
                      struct uvm_error *err)
{
    if (!im->source.read(im->source.opaque, ret_data, ret_len, err))
        return false;
    if (*ret_len > im->left || (*ret_len == 0 && im->left > 0))
        return uvm_fail(err, UVM_CONTENT, "its content does not have the length that it states");
    im->left -= *ret_len;
    return true;
}

static bool read_content(void *opaque, const void **ret_data, size_t *ret_len,
                         struct uvm_error *err)
{
    struct bundle_images *im = opaque;
    *ret_len = 0;
    if (im->ended || !is_usable(im))
        return im->ended || fail_over(err);
    if (!read_more(im, ret_data, ret_len, err))
        return refuse(im, err);
    if (*ret_len == 0)
        end(im);
    return true;
}

static bool read_image(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct bundle_images *im = opaque;
    *ret_len = 0;
    if (im->ended || !is_usable(im))
        return im->ended || fail_over(err);
    if (!read_rebuilt(im, ret_data, ret_len, err))
        return refuse(im, err);
    if (*ret_len == 0)
        end(im);
    return true;
}

/* ---- opening ---- */

enum purpose { FOR_CONTENT, FOR_IMAGE };

static bool start(struct bundle_images *im, const struct bundle_image_options *o,
                  enum purpose purpose, struct uvm_error *err)
{
    const struct bundle_image *image = im->item->images[0];
    const struct bundle_base *base;
    im->title = mirror_image_title(image->image);
    im->keep = is_wanted_later(im, im->item, o);
    if (!find_base(im, o, &base, err) ||
        ((im->keep || purpose == FOR_IMAGE) && !uvm_nameless_file(o->spool_dir, &im->file, err)))
        return false;
    struct bundle_decode_options options = {
        .member = bundle_reader_data(im->reader),
        .base = base,
        .file_size = image->image->size,
        .content = image->content,
        .max_virtual = o->max_virtual ? o->max_virtual : MIRROR_VIRTUAL_MAX,
        .keep_fd = im->file,
        .observer = im->observer,
    };
    im->reading = true;
    return bundle_decoder_new(&options, &im->decoder, err);
}

static bool open_present(struct bundle_reader *r, const struct bundle_image_options *o,
                         enum purpose purpose, struct uvm_error *err)
{
    struct bundle_images *im = bundle_reader_images(r);
    bundle_images_end(im);
    im->item = bundle_reader_item(r);
    if (!im->item || !im->item->images || im->item->images[0]->encoding != BUNDLE_COMPACT)
        return uvm_fail(err, UVM_FAILED, "the present member is no compact image");
    return start(im, o, purpose, err) || refuse(im, err);
}

bool bundle_reader_content(struct bundle_reader *r, const struct bundle_image_options *o,
                           const struct mirror_content **ret_content, struct uvm_error *err)
{
    struct bundle_images *im = bundle_reader_images(r);
    if (!open_present(r, o, FOR_CONTENT, err))
        return false;
    im->content = *bundle_decoder_content(im->decoder);
    im->left = mirror_content_bytes(&im->content);
    im->source = im->content.data;
    im->content.data = (struct uvm_reader){read_content, im};
    *ret_content = &im->content;
    return true;
}

bool bundle_reader_image(struct bundle_reader *r, const struct bundle_image_options *o,
                         struct uvm_reader *ret_bytes, struct uvm_error *err)
{
    struct bundle_images *im = bundle_reader_images(r);
    const struct bundle_plan_item *item = bundle_reader_item(r);
    if (item && item->images && item->images[0]->encoding == BUNDLE_PLAIN) {
        *ret_bytes = bundle_reader_data(r);
        return true;
    }
    if (!open_present(r, o, FOR_IMAGE, err))
        return false;
    im->source = bundle_decoder_image(im->decoder);
    start_hashing(im);
    *ret_bytes = (struct uvm_reader){read_image, im};
    return true;
}

bool bundle_reader_pass(struct bundle_reader *r, const struct bundle_image_options *o,
                        struct uvm_error *err)
{
    const struct bundle_plan_item *item = bundle_reader_item(r);
    const struct mirror_content *content;
    const void *data;
    if (!item || !item->images || item->images[0]->encoding != BUNDLE_COMPACT ||
        !is_wanted_later(bundle_reader_images(r), item, o))
        return true;
    if (!bundle_reader_content(r, o, &content, err))
        return false;
    for (size_t len = 1; len > 0;)
        if (!content->data.read(content->data.opaque, &data, &len, err))
            return false;
    return true;
}

/*
 * How the payloads of a bundle become images here: what they need of this host, and where it comes from.
 *
 * A difference needs the older volume to which it refers, and an image that is not carried must be here.
 * What is missing is said before anything is touched.
 */
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cmd/import.h"

static const char cure[] = "a full bundle is needed, or one made with this host's inventory";

/* ---- names ---- */

static const struct bundle_image *find_image(const struct import *i,
                                             const struct mirror_image *image)
{
    const struct bundle_manifest *m = bundle_reader_manifest(i->input.reader);
    for (size_t n = 0; n < m->image_count; n++)
        if (m->images[n].image == image)
            return &m->images[n];
    return NULL;
}

/* "noble amd64 20241004", as far as the image tells. The caller frees it. */
static char *base_title(const struct bundle_image *image)
{
    const struct bundle_base_name *base = &image->base;
    const char *release = mirror_image_get(image->image, "release"),
               *arch = mirror_image_get(image->image, "arch");
    bool known = strcmp(base->product, image->image->product) == 0 && *release && *arch;
    uvm_auto_free char *title = known ? uvm_format("%s %s %s", release, arch, base->version)
                                      : uvm_format("%s %s", base->product, base->version);
    return uvm_printable(title);
}

static bool fail_base(const struct bundle_image *image, const char *what, struct uvm_error *err)
{
    uvm_auto_free char *title = mirror_image_title(image->image), *base = base_title(image);
    return uvm_fail(err, UVM_CONTENT, "%s is a difference to this host's %s, which %s: %s", title,
                    base, what, cure);
}

/* ---- before anything is touched ---- */

static const struct pool_entry *find_entry(const struct pool_survey *s,
                                           const struct bundle_base_name *base)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i].product && strcmp(s->entries[i].product, base->product) == 0 &&
            strcmp(s->entries[i].version, base->version) == 0)
            return &s->entries[i];
    return NULL;
}

/* What nobody uses is deleted first, if that was not asked to be left. */
static bool will_stay(const struct import *i, const struct pool_entry *entry)
{
    return entry->state == POOL_READY || entry->state == POOL_RETIRED ||
           (entry->state == POOL_UNUSED && i->options->no_clean);
}

/* Where metadata tell a checksum at all, it is the base's. */
static bool says_otherwise(const struct pool_entry *entry, const char *key, const char *hex)
{
    const char *said = json_string_value(json_object_get(entry->metadata, key));
    return hex && said && strcasecmp(said, hex) != 0;
}

static bool check_base(const struct import *i, const struct pool_survey *s,
                       const struct bundle_image *image, struct uvm_error *err)
{
    const struct pool_entry *entry = find_entry(s, &image->base);
    if (!entry || !will_stay(i, entry))
        return fail_base(image, "is gone", err);
    if (says_otherwise(entry, "sha256", image->base.sha256) ||
        says_otherwise(entry, "sha512", image->base.sha512))
        return fail_base(image, "is another image", err);
    return true;
}

/* What is asked of the bundle, by the steps of a plan. */
struct wish {
    const struct pool_step *steps;
    size_t count;
};

static bool wants_bytes(const struct pool_step *step)
{
    return step->action == POOL_ADD || step->action == POOL_ADOPT || step->action == POOL_RELINK;
}

static bool is_wished(void *opaque, const struct bundle_image *image)
{
    const struct wish *wish = opaque;
    for (size_t n = 0; n < wish->count; n++)
        if (wish->steps[n].image == image->image && wants_bytes(&wish->steps[n]))
            return true;
    return false;
}

static bool needs_host(const struct bundle_image *image)
{
    return image->base.product && !image->base.image;
}

static bool is_this(void *opaque, const struct bundle_image *image)
{
    const struct bundle_image *const *one = opaque;
    return image == *one;
}

bool cmd_import_obtainable(void *opaque, const struct pool_survey *survey,
                           const struct mirror_image *image)
{
    const struct import *i = opaque;
    const struct bundle_manifest *m = bundle_reader_manifest(i->input.reader);
    const struct bundle_image *bundled = find_image(i, image);
    uvm_auto_free bool *needed = bundle_manifest_needs(m, is_this, &bundled);
    uvm_auto_error why = UVM_ERROR_INIT;
    bool there = bundled && bundled->encoding != BUNDLE_NOT_CARRIED;
    for (size_t n = 0; there && n < m->image_count; n++)
        there =
            !needed[n] || !needs_host(&m->images[n]) || check_base(i, survey, &m->images[n], &why);
    return there;
}

/* Notes what is needed, and what of this host will be fetched for it. */
static bool check_bases(struct import *i, struct wish *wish, struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(i->input.reader);
    pool_auto_survey survey = {0};
    bool taken = false;
    free(i->needed);
    free(i->fetched);
    i->needed = bundle_manifest_needs(m, is_wished, wish);
    i->fetched = uvm_alloc((m->image_count + 1) * sizeof *i->fetched);
    for (size_t n = 0; n < m->image_count; n++) {
        if (!i->needed[n] || !needs_host(&m->images[n]))
            continue;
        if (!taken && !pool_survey_take(i->pool, &survey, err))
            return false;
        taken = true;
        if (!check_base(i, &survey, &m->images[n], err))
            return false;
        i->fetched[n] = find_entry(&survey, &m->images[n].base)->allocation;
    }
    return true;
}

static bool check_carried(const struct import *i, const struct wish *wish, struct uvm_error *err)
{
    for (size_t n = 0; n < wish->count; n++) {
        const struct pool_step *step = &wish->steps[n];
        const struct bundle_image *image = wants_bytes(step) ? find_image(i, step->image) : NULL;
        if (image && image->encoding == BUNDLE_NOT_CARRIED)
            return uvm_fail(err, UVM_CONTENT,
                            "%s is not carried, and this host does not have it: %s", step->title,
                            cure);
    }
    return true;
}

bool cmd_import_approve(void *opaque, const struct pool_step *steps, size_t count,
                        struct uvm_error *err)
{
    struct import *i = opaque;
    struct wish wish = {steps, count};
    if (check_carried(i, &wish, err) && check_bases(i, &wish, err))
        return true;
    return uvm_prefix(err, "%s", bundle_reader_name(i->input.reader));
}

/* Whether its file must be had. What vendors vouch for is the file: who wants their word gets the content
 * from it, and not from what the site says that the content is. */
static bool needs_image(const struct import *i, const struct bundle_image *image)
{
    return image->encoding != BUNDLE_COMPACT || i->options->keep_compressed || i->input.vendor;
}

/* ---- how much room it takes ---- */

/* Whether the content of its payload waits for a later one that is needed. */
static bool is_kept(const struct import *i, const struct bundle_image *image)
{
    const struct bundle_manifest *m = bundle_reader_manifest(i->input.reader);
    for (size_t n = 0; n < m->image_count; n++) {
        const struct bundle_image *base = m->images[n].base.image;
        if (i->needed[n] && base && strcmp(base->member, image->member) == 0)
            return true;
    }
    return false;
}

/* What it refers to, as it waits: a content, or a whole volume, whatever is used of that. */
static uint64_t base_room(const struct import *i, const struct bundle_image *image)
{
    if (!image->base.product)
        return 0;
    return image->base.image ? image->base.image->content
                             : i->fetched[image - bundle_reader_manifest(i->input.reader)->images];
}

/* Its own bytes are made of the content, too, and that is kept once. */
static uint64_t spool_room(const struct import *i, const struct bundle_image *image)
{
    bool spooled = needs_image(i, image);
    uint64_t room = base_room(i, image) + (spooled ? image->image->size : 0);
    if (image->encoding == BUNDLE_COMPACT && (spooled || is_kept(i, image)))
        room += image->content;
    return room;
}

/* What it refers to in the bundle may come for its sake alone. */
static uint64_t worst_room(const struct import *i, const struct bundle_image *image)
{
    uint64_t worst = spool_room(i, image);
    for (const struct bundle_image *b = image->base.image; b; b = b->base.image) {
        uint64_t room = base_room(i, b) + b->content;
        worst = room > worst ? room : worst;
    }
    return worst;
}

void cmd_import_forecast(void *opaque, const struct mirror_image *image, uint64_t *ret_content,
                         uint64_t *ret_spool)
{
    const struct import *i = opaque;
    const struct bundle_image *bundled = find_image(i, image);
    *ret_content = *ret_spool = 0;
    if (!bundled || bundled->encoding == BUNDLE_NOT_CARRIED)
        return;
    *ret_content = bundled->content;
    *ret_spool = worst_room(i, bundled);
}

/* ---- bases, when they are needed ---- */

void cmd_import_drop_base(struct import *i)
{
    mirror_disk_free(UVM_STEAL(i->base));
    uvm_close_ptr(&i->base_fd);
}

static bool read_base(void *opaque, uint64_t offset, void *data, size_t len, struct uvm_error *err)
{
    return mirror_disk_read(opaque, offset, data, len, err);
}

static bool find_base(void *opaque, const struct bundle_image *image, struct bundle_base *ret_base,
                      struct uvm_error *err)
{
    struct import *i = opaque;
    const struct bundle_base_name *base = &image->base;
    uint64_t size = 0, limit = i->options->max_virtual;
    uvm_auto_error why = UVM_ERROR_INIT;
    if (!pool_fetch_volume(i->pool, base->product, base->version, &i->base_fd, &size, err))
        return false;
    if (i->base_fd < 0)
        return fail_base(image, "is gone", err);
    if (mirror_disk_open(i->base_fd, size, limit ? limit : MIRROR_VIRTUAL_MAX, cmd_observer(),
                         &i->base, &why)) {
        *ret_base = (struct bundle_base){read_base, i->base};
        return true;
    }
    if (why.code == UVM_CONTENT || why.code == UVM_SPACE)
        return fail_base(image, "was changed", err);
    *err = why;
    why = UVM_ERROR_INIT;
    return false;
}

static bool is_wanted(void *opaque, const struct bundle_image *image)
{
    const struct import *i = opaque;
    return pool_import_wants(i->plan, image->image);
}

/* ---- a payload ---- */

static struct bundle_image_options image_options(struct import *i)
{
    return (struct bundle_image_options){
        .find_base = find_base,
        .wants = is_wanted,
        .opaque = i,
        .spool_dir = i->state_dir,
        .max_virtual = i->options->max_virtual,
    };
}

/* A volume that turned out to be another one was perhaps not compared to its end; but what is kept for
 * later payloads, and the vendor's checksum, come with the end. */
static bool read_to_end(struct uvm_reader bytes, struct uvm_error *err)
{
    const void *data;
    for (size_t len = 1; len > 0;)
        if (!bytes.read(bytes.opaque, &data, &len, err))
            return false;
    return true;
}

static bool import_content(struct import *i, const struct bundle_image_options *options,
                           const struct mirror_image *const *wanted, size_t count,
                           struct uvm_error *err)
{
    const struct mirror_content *content;
    return bundle_reader_content(i->input.reader, options, &content, err) &&
           pool_import_content(i->plan, wanted, count, content, err) &&
           read_to_end(content->data, err);
}

static bool import_image(struct import *i, const struct bundle_image_options *options,
                         const struct bundle_entry *entry, const struct mirror_image *const *wanted,
                         size_t count, struct uvm_error *err)
{
    struct uvm_reader bytes;
    if (!bundle_reader_image(i->input.reader, options, &bytes, err) ||
        !pool_import_image(i->plan, wanted, count, bytes, err) || !read_to_end(bytes, err))
        return false;
    cmd_bundle_rebuilt(&i->input, entry);
    return true;
}

/* Of the images that share a payload, those that are wanted. */
static size_t wanted_images(struct import *i, const struct bundle_entry *entry,
                            const struct mirror_image **wanted)
{
    size_t count = 0;
    for (size_t n = 0; n < entry->image_count; n++)
        if (pool_import_wants(i->plan, entry->images[n]->image))
            wanted[count++] = entry->images[n]->image;
    return count;
}

bool cmd_import_payload(struct import *i, const struct bundle_entry *entry, struct uvm_error *err)
{
    uvm_auto_free const struct mirror_image **wanted =
        uvm_alloc((entry->image_count + 1) * sizeof *wanted);
    size_t count = wanted_images(i, entry, wanted);
    struct bundle_image_options options = image_options(i);
    cmd_import_drop_base(i);
    if (count == 0) /* the reader checks it all the same */
        return bundle_reader_pass(i->input.reader, &options, err);
    return !needs_image(i, entry->images[0]) ? import_content(i, &options, wanted, count, err)
                                             : import_image(i, &options, entry, wanted, count, err);
}

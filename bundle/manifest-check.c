/* What must hold across a whole manifest: names, payloads, checksums, streams against members. */
#include <string.h>

#include "bundle/internal.h"

#define STREAMS_FOLDER "streams/v1/"

static bool starts_with(const char *s, const char *start)
{
    return strncmp(s, start, strlen(start)) == 0;
}

/* ---- names ---- */

/* Like strcmp, with '/' below every other byte: whatever is below a folder follows it directly. */
static int compare_names(const void *a, const void *b)
{
    const unsigned char *x = *(const unsigned char *const *)a;
    const unsigned char *y = *(const unsigned char *const *)b;
    for (; *x && *x == *y; x++, y++)
        ;
    int left = *x == '/' ? 1 : *x;
    int right = *y == '/' ? 1 : *y;
    return left - right;
}

static bool is_folder_of(const char *folder, const char *path)
{
    size_t len = strlen(folder);
    return strncmp(folder, path, len) == 0 && path[len] == '/';
}

/* No name twice, and none the folder of another: unpacking must never meet its own files. */
static bool check_names(const struct bundle_plan *plan, struct uvm_error *err)
{
    uvm_auto_free const char **names = uvm_grow(NULL, plan->count + 2, sizeof *names);
    size_t count = 0;
    names[count++] = BUNDLE_MANIFEST_NAME;
    names[count++] = BUNDLE_SIGNATURE_NAME;
    for (size_t i = 0; i < plan->count; i++)
        names[count++] = plan->items[i].path;
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            return uvm_fail(err, UVM_CONTENT, "member %s is listed twice", names[i]);
        if (is_folder_of(names[i - 1], names[i]))
            return uvm_fail(err, UVM_CONTENT, "member %s is below member %s", names[i],
                            names[i - 1]);
    }
    return true;
}

static bool check_members(const struct bundle_manifest *m, struct uvm_error *err)
{
    for (size_t i = 0; i < m->member_count; i++)
        if (!starts_with(m->members[i].path, BUNDLE_ORIGIN_FOLDER) &&
            !starts_with(m->members[i].path, STREAMS_FOLDER))
            return uvm_fail(err, UVM_CONTENT, "member %s is neither an origin file nor a stream",
                            m->members[i].path);
    return true;
}

/* ---- streams ---- */

static bool is_origin_member(const struct bundle_manifest *m, const char *path)
{
    for (size_t i = 0; i < m->member_count; i++)
        if (strcmp(m->members[i].path, path) == 0)
            return starts_with(path, BUNDLE_ORIGIN_FOLDER);
    return false;
}

static bool check_streams(const struct bundle_manifest *m, struct uvm_error *err)
{
    mirror_auto_json *seen = json_object();
    mirror_auto_json *origins = json_object();
    for (size_t i = 0; i < m->stream_count; i++) {
        const struct bundle_stream *s = m->streams[i];
        if (json_object_get(seen, s->content_id))
            return uvm_fail(err, UVM_CONTENT, "stream %s is listed twice", s->content_id);
        json_object_set_new(seen, s->content_id, json_true());
        if (!is_origin_member(m, s->origin))
            return uvm_fail(err, UVM_CONTENT,
                            "the origin of stream %s is not a member of the bundle", s->content_id);
        /* A vendor's file holds one stream, and vouches for no other. */
        if (json_object_get(origins, s->origin))
            return uvm_fail(err, UVM_CONTENT, "the origin of stream %s is another stream's, too",
                            s->content_id);
        json_object_set_new(origins, s->origin, json_true());
        if (s->selection.count > 0 &&
            s->selection.products[s->selection.count - 1].image_count == 0)
            return uvm_fail(err, UVM_CONTENT, "product %s of stream %s has no image",
                            s->selection.products[s->selection.count - 1].name, s->content_id);
    }
    return true;
}

/* ---- images ---- */

/* An image that goes into a pool is one of the versions by which the receiver retires others. */
static bool check_versions(const struct mirror_product *p, struct uvm_error *err)
{
    for (size_t i = 0; i < p->image_count; i++)
        if (mirror_image_importable(&p->images[i]) &&
            !uvm_strings_has(&p->versions, p->images[i].version))
            return uvm_fail(err, UVM_CONTENT, "version %s of %s is not among its versions",
                            p->images[i].version, p->name);
    return true;
}

/* No item twice, newest version first. */
static bool check_items(const struct mirror_product *p, struct uvm_error *err)
{
    mirror_auto_json *items = json_object(); /* of the present version */
    for (size_t i = 0; i < p->image_count; i++) {
        const struct mirror_image *image = &p->images[i];
        int order = i == 0 ? 0 : mirror_version_compare(p->images[i - 1].version, image->version);
        if (order < 0)
            return uvm_fail(err, UVM_CONTENT, "the images of %s are not in order, newest first",
                            p->name);
        if (order > 0)
            json_object_clear(items);
        if (json_object_get(items, image->item))
            return uvm_fail(err, UVM_CONTENT, "item %s of %s %s is listed twice", image->item,
                            p->name, image->version);
        json_object_set_new(items, image->item, json_true());
    }
    return true;
}

static bool check_products(const struct bundle_manifest *m, struct uvm_error *err)
{
    for (size_t s = 0; s < m->stream_count; s++)
        for (size_t p = 0; p < m->streams[s]->selection.count; p++) {
            const struct mirror_product *product = &m->streams[s]->selection.products[p];
            if (!check_versions(product, err) || !check_items(product, err))
                return false;
        }
    return true;
}

/* A path with two contents is refused by the mirror's own rule. */
static bool check_paths(const struct bundle_manifest *m, struct uvm_error *err)
{
    uvm_auto_free struct mirror_selection *all = uvm_grow(NULL, m->stream_count, sizeof *all);
    for (size_t i = 0; i < m->stream_count; i++)
        all[i] = m->streams[i]->selection;
    return mirror_selections_check(all, m->stream_count, err);
}

bool bundle_manifest_check(struct bundle_manifest *m, struct uvm_error *err)
{
    UVM_AUTO(bundle_plan_free) struct bundle_plan *plan = bundle_plan_new(m);
    return check_members(m, err) && check_streams(m, err) && check_products(m, err) &&
           check_paths(m, err) && bundle_payloads_sound(m, plan, err) && check_names(plan, err) &&
           bundle_checksums_sound(m, err);
}

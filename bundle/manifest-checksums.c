/*
 * The word of distributions for images that the site added: which members of the bundle hold it.
 *
 *     images:   { ..., "origin": { "checksums": C, "signature": S or null, "name" } }
 *     members:  ... | C | S | ...        a signature follows its checksum file directly
 *
 * So a reader that goes through the members holds one checksum file at a time.
 */
#include <string.h>

#include "bundle/internal.h"

void bundle_checksums_clear(struct bundle_checksums *c)
{
    free(c->member);
    free(c->signature);
    free(c->name);
    *c = (struct bundle_checksums){0};
}

/* ---- JSON ---- */

json_t *bundle_checksums_json(const struct bundle_checksums *c)
{
    if (!c->member)
        return NULL;
    json_t *origin = json_object();
    json_object_set_new(origin, "checksums", json_string(c->member));
    json_object_set_new(origin, "signature",
                        c->signature ? json_string(c->signature) : json_null());
    json_object_set_new(origin, "name", json_string(c->name));
    return origin;
}

bool bundle_checksums_parse(const json_t *image, struct bundle_checksums *ret,
                            struct uvm_error *err)
{
    const json_t *origin = json_object_get(image, "origin");
    const char *member = NULL, *signature = NULL, *name = NULL;
    if (!origin || json_is_null(origin))
        return true;
    if (!json_is_object(origin))
        return bundle_field_wrong(err, "origin", "an object or null");
    if (!bundle_field_text(origin, "checksums", &member, err) ||
        !bundle_field_text_or_null(origin, "signature", &signature, err) ||
        !bundle_field_text(origin, "name", &name, err))
        return uvm_prefix(err, "\"origin\"");
    *ret = (struct bundle_checksums){uvm_strdup(member), uvm_strdup(signature), uvm_strdup(name)};
    return true;
}

/* ---- soundness ---- */

struct survey {
    const struct bundle_manifest *m;
    json_t *places; /* {member: index} of all small members */
    json_t *ends;   /* {member: what it is there for} of those below the origin folder */
};

static void survey_clear(struct survey *s)
{
    json_decref(s->places);
    json_decref(s->ends);
}

static struct survey survey_members(const struct bundle_manifest *m)
{
    struct survey s = {m, json_object(), json_object()};
    for (size_t i = 0; i < m->member_count; i++)
        json_object_set_new(s.places, m->members[i].path, json_integer((json_int_t)i));
    for (size_t i = 0; i < m->stream_count; i++)
        json_object_set_new(s.ends, m->streams[i]->origin, json_string("stream"));
    return s;
}

/* The same file always serves the same end: one of several images is checked as the others are. */
static bool set_end(struct survey *s, const char *member, const char *end, struct uvm_error *err)
{
    const char *known = json_string_value(json_object_get(s->ends, member));
    if (known && strcmp(known, end) != 0)
        return uvm_fail(err, UVM_CONTENT, "member %s has two different ends", member);
    if (!known)
        json_object_set_new(s->ends, member, json_string(end));
    return true;
}

static bool find_member(const struct survey *s, const char *path, uint64_t max, size_t *ret_place,
                        struct uvm_error *err)
{
    const json_t *place = json_object_get(s->places, path);
    if (!place || strncmp(path, BUNDLE_ORIGIN_FOLDER, strlen(BUNDLE_ORIGIN_FOLDER)) != 0)
        return uvm_fail(err, UVM_CONTENT, "%s is not an origin file of the bundle", path);
    *ret_place = (size_t)json_integer_value(place);
    uint64_t size = s->m->members[*ret_place].size;
    return size <= max || uvm_fail(err, UVM_CONTENT, "%s has %llu bytes, over the limit of %llu",
                                   path, (unsigned long long)size, (unsigned long long)max);
}

static bool check_signature(struct survey *s, const struct bundle_checksums *c, size_t place,
                            struct uvm_error *err)
{
    size_t behind = 0;
    if (!find_member(s, c->signature, MIRROR_SIGNATURE_MAX, &behind, err))
        return false;
    if (behind != place + 1)
        return uvm_fail(err, UVM_CONTENT, "signature %s does not follow %s", c->signature,
                        c->member);
    return set_end(s, c->signature, "signature", err);
}

static bool check_image(struct survey *s, const struct bundle_image *bundled, struct uvm_error *err)
{
    const struct bundle_checksums *c = &bundled->checksums;
    size_t place = 0;
    if (!bundle_stream_is_local(bundled->stream))
        return uvm_fail(err, UVM_CONTENT, "only an image that the site added has a checksum file");
    uvm_auto_free char *end =
        uvm_format("checksums, signed by %s", c->signature ? c->signature : "");
    return find_member(s, c->member, MIRROR_CHECKSUMS_MAX, &place, err) &&
           set_end(s, c->member, end, err) && (!c->signature || check_signature(s, c, place, err));
}

bool bundle_checksums_sound(const struct bundle_manifest *m, struct uvm_error *err)
{
    __attribute__((cleanup(survey_clear))) struct survey s = survey_members(m);
    for (size_t i = 0; i < m->image_count; i++)
        if (m->images[i].checksums.member && !check_image(&s, &m->images[i], err))
            return uvm_prefix(err, "images[%zu]: \"origin\"", i);
    return true;
}

/* A bundle that comes in: opened under this host's rules, described, checked against its origin. */
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* A clock that is behind makes no key valid again, and no bundle young. */
static bool set_clock(const struct cmd_common *common, time_t newest, struct uvm_verifier *verifier,
                      struct uvm_error *err)
{
    if (newest == 0)
        return true;
    uvm_auto_free char *state = cmd_state_dir(common), *made = uvm_time_text(newest);
    uvm_auto_free char *because =
        uvm_format("this host has taken a bundle of %s, says %s/seen.json: if a wrong clock made "
                   "that one, --allow-older goes by the clock here",
                   made, state);
    return uvm_verifier_not_before(verifier, newest, because, err);
}

static bool open_verifiers(const struct cmd_common *common, const struct cmd_trust *trust,
                           struct cmd_bundle_input *input, struct uvm_error *err)
{
    uvm_auto_strings keyrings = {0};
    if (!cmd_trusted_keyrings(common, &trust->keyrings, &keyrings, err) ||
        !uvm_verifier_new(&keyrings, &input->site, err) ||
        !set_clock(common, input->newest, input->site, err))
        return false;
    uvm_verifier_advise(input->site, "see 'uvmirror key trust'");
    if (!trust->origin_keyrings.count && !trust->require_origin)
        return true;
    return cmd_vendor_verifier(&trust->origin_keyrings, "--origin-keyring", &input->vendor, err) &&
           set_clock(common, input->newest, input->vendor, err);
}

static bool check_age(const struct cmd_bundle_input *input, struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    unsigned days = input->trust->max_age;
    time_t now = time(NULL) > input->newest ? time(NULL) : input->newest;
    if (days == 0 || now < m->created || now - m->created <= (time_t)days * 86400)
        return true;
    uvm_auto_free char *age = cmd_age_text(m->created, now);
    return uvm_fail(err, UVM_TRUST, "%s: is %s, and at most %u days are allowed (--max-age)",
                    bundle_reader_name(input->reader), age, days);
}

/* What no member can mend is refused before any is read. */
static bool expect_origins(struct cmd_bundle_input *input, struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    if (!input->vendor)
        return true;
    if (!bundle_local_check(m, err))
        return uvm_prefix(err, "%s", bundle_reader_name(input->reader));
    for (size_t i = 0; i < m->stream_count; i++)
        input->origins_left += !bundle_stream_is_local(m->streams[i]);
    for (size_t i = 0; i < m->image_count; i++)
        input->origins_left += bundle_stream_is_local(m->images[i].stream);
    return true;
}

bool cmd_bundle_open(const struct cmd_common *common, const struct cmd_trust *trust,
                     const struct uvm_strings *arguments, enum bundle_purpose purpose,
                     struct cmd_bundle_input *ret_input, struct uvm_error *err)
{
    uvm_auto_free char *state = cmd_state_dir(common);
    struct cmd_bundle_input input = {.trust = trust,
                                     .newest = trust->allow_older ? 0 : pool_newest_created(state),
                                     .checksums = {.max = MIRROR_CHECKSUMS_MAX}};
    struct bundle_open_options options = {
        .purpose = purpose, .ask = cmd_ask_for_media(), .observer = cmd_observer()};
    bool ok = open_verifiers(common, trust, &input, err);
    options.verifier = input.site;
    if (!ok || !bundle_reader_new(arguments, &options, &input.reader, err) ||
        !check_age(&input, err) || !expect_origins(&input, err)) {
        cmd_bundle_clear(&input);
        return false;
    }
    *ret_input = input;
    return true;
}

bool cmd_bundle_check_authentication(const struct cmd_bundle_input *input, bool no_authentication,
                                     struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    for (size_t i = 0; i < m->stream_count; i++)
        if (!m->streams[i]->verified_by && !no_authentication && !input->vendor)
            return uvm_fail(err, UVM_TRUST,
                            "%s: stream %s was fetched without checking the vendor's signature "
                            "(--no-authentication accepts that)",
                            bundle_reader_name(input->reader), m->streams[i]->content_id);
    return true;
}

void cmd_bundle_clear(struct cmd_bundle_input *input)
{
    bundle_reader_free(input->reader);
    uvm_verifier_free(input->site);
    uvm_verifier_free(input->vendor);
    free(input->origins);
    free(input->rebuilt);
    uvm_buf_clear(&input->checksums);
    *input = (struct cmd_bundle_input){0};
}

/* ---- the vendor's own signature ---- */

static void add_origin(struct cmd_bundle_input *input, const struct bundle_stream *stream,
                       const struct bundle_image *image, const struct uvm_signature *who)
{
    input->origins = uvm_grow(input->origins, input->origin_count + 1, sizeof *input->origins);
    struct cmd_origin *origin = &input->origins[input->origin_count++];
    *origin = (struct cmd_origin){.stream = stream, .image = image};
    memcpy(origin->fingerprint, who->fingerprint, sizeof who->fingerprint);
    input->origins_left--;
}

static bool check_stream(struct cmd_bundle_input *input, const struct bundle_stream *stream,
                         struct uvm_error *err)
{
    uvm_auto_buf origin = {.max = BUNDLE_MEMBER_MAX};
    uvm_auto_signature who = {0};
    if (!bundle_reader_slurp(input->reader, &origin, err))
        return false;
    if (!bundle_origin_check(stream, origin.data, origin.len, input->vendor, &who, err))
        return uvm_prefix(err, "%s", bundle_reader_name(input->reader));
    add_origin(input, stream, NULL, &who);
    return true;
}

/* All images for which the checksum file at hand speaks, when it is signed by `signature` (NULL: by
 * itself, and `content` is empty then). */
static bool check_images(struct cmd_bundle_input *input, const char *signature,
                         const struct uvm_buf *content, struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    for (size_t i = 0; i < m->image_count; i++) {
        const struct bundle_checksums *c = &m->images[i].checksums;
        uvm_auto_signature who = {0};
        if (!same_text(c->member, input->checksums_member) || !same_text(c->signature, signature))
            continue;
        if (!uvm_go_on(cmd_observer(), err) ||
            !bundle_checksums_check(&m->images[i], &input->checksums, content, input->vendor, &who,
                                    err))
            return uvm_prefix(err, "%s", bundle_reader_name(input->reader));
        add_origin(input, m->images[i].stream, &m->images[i], &who);
    }
    return true;
}

static bool take_checksums(struct cmd_bundle_input *input, const char *member,
                           struct uvm_error *err)
{
    const struct uvm_buf no_signature = {0};
    uvm_buf_clear(&input->checksums);
    input->checksums_member = member;
    return bundle_reader_slurp(input->reader, &input->checksums, err) &&
           check_images(input, NULL, &no_signature, err);
}

static bool take_signature(struct cmd_bundle_input *input, const char *member,
                           struct uvm_error *err)
{
    uvm_auto_buf signature = {.max = MIRROR_SIGNATURE_MAX};
    return bundle_reader_slurp(input->reader, &signature, err) &&
           check_images(input, member, &signature, err);
}

bool cmd_bundle_member(struct cmd_bundle_input *input, const struct bundle_entry *entry,
                       struct uvm_error *err)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    if (!input->vendor)
        return true;
    for (size_t i = 0; i < m->stream_count; i++)
        if (strcmp(m->streams[i]->origin, entry->path) == 0)
            return bundle_stream_is_local(m->streams[i]) || check_stream(input, m->streams[i], err);
    for (size_t i = 0; i < m->image_count; i++) {
        const struct bundle_checksums *c = &m->images[i].checksums;
        if (same_text(c->member, entry->path))
            return take_checksums(input, c->member, err);
        if (same_text(c->signature, entry->path))
            return take_signature(input, c->signature, err);
    }
    return true;
}

/* ---- what the vendor's word is compared with ---- */

void cmd_bundle_rebuilt(struct cmd_bundle_input *input, const struct bundle_entry *entry)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    if (!input->rebuilt)
        input->rebuilt = uvm_alloc((m->image_count + 1) * sizeof *input->rebuilt);
    for (size_t i = 0; i < entry->image_count; i++)
        input->rebuilt[entry->images[i] - m->images] = true;
}

/* The word is for the file. Other encodings are that file, or nothing. */
static bool is_compared(const struct cmd_bundle_input *input, const struct bundle_image *b)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    return b->encoding != BUNDLE_COMPACT || (input->rebuilt && input->rebuilt[b - m->images]);
}

static bool is_all_compared(const struct cmd_bundle_input *input,
                            const struct bundle_stream *stream)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    for (size_t i = 0; i < m->image_count; i++)
        if (m->images[i].stream == stream && !is_compared(input, &m->images[i]))
            return false;
    return true;
}

/* ---- words ---- */

char *cmd_age_text(time_t created, time_t now)
{
    static const struct {
        time_t seconds;
        const char *unit;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
    time_t age = now >= created ? now - created : created - now;
    size_t i = 0;
    while (i + 1 < sizeof units / sizeof *units && age < units[i].seconds)
        i++;
    long long n = (long long)(age / units[i].seconds);
    const char *plural = n == 1 ? "" : "s";
    return now >= created ? uvm_format("%lld %s%s old", n, units[i].unit, plural)
                          : uvm_format("from the future by %lld %s%s (check the clocks)", n,
                                       units[i].unit, plural);
}

/* Who was seen here to vouch for a stream, or for one image of it; NULL = nobody. */
static const char *seen_vendor(const struct cmd_bundle_input *input,
                               const struct bundle_stream *stream, const struct bundle_image *image)
{
    for (size_t i = 0; i < input->origin_count; i++)
        if (input->origins[i].stream == stream && input->origins[i].image == image)
            return input->origins[i].fingerprint;
    return NULL;
}

/* Who vouches for a stream, and who says so. */
static char *vendor_text(const struct cmd_bundle_input *input, const struct bundle_stream *stream)
{
    const char *seen = seen_vendor(input, stream, NULL);
    if (bundle_stream_is_local(stream))
        return uvm_strdup("none: the site added these images");
    if (seen)
        return uvm_format("%s (checked here%s)", seen,
                          is_all_compared(input, stream) ? "" : "; see below");
    if (stream->verified_by)
        return uvm_format("%s (the signer says)", stream->verified_by);
    return uvm_strdup("nobody: its signature was not checked");
}

/* The same for an image that the site added. */
static char *distribution_text(const struct cmd_bundle_input *input,
                               const struct bundle_image *image)
{
    const char *seen = seen_vendor(input, image->stream, image);
    if (seen)
        return uvm_format(is_compared(input, image)
                              ? "its bytes by %s (checked here)"
                              : "its file by %s (its content was not compared here)",
                          seen);
    return uvm_strdup(image->checksums.member
                          ? "a distribution's checksum file comes with it (not checked here)"
                          : "nobody but the site");
}

static void describe_stream(const struct cmd_bundle_input *input, const struct bundle_stream *s,
                            void (*line)(const char *format, ...)
                                __attribute__((format(printf, 1, 2))))
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    uvm_auto_free char *updated = uvm_printable(s->updated ? s->updated : "unknown");
    uvm_auto_free char *source = uvm_printable(s->source);
    uvm_auto_free char *vendor = vendor_text(input, s);
    line("  stream   %s", s->content_id);
    if (!bundle_stream_is_local(s))
        line("           from %s", source);
    line("           updated %s", updated);
    line("  vendor   %s", vendor);
    for (size_t i = 0; i < m->image_count; i++) {
        if (m->images[i].stream != s || !bundle_stream_is_local(s))
            continue;
        uvm_auto_free char *title = mirror_image_title(m->images[i].image);
        uvm_auto_free char *distribution = distribution_text(input, &m->images[i]);
        line("           %s: %s", title, distribution);
    }
}

void cmd_bundle_describe(const struct cmd_bundle_input *input,
                         void (*line)(const char *format, ...)
                             __attribute__((format(printf, 1, 2))))
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    const struct uvm_signature *sig = bundle_reader_signature(input->reader);
    uvm_auto_free char *age = cmd_age_text(m->created, time(NULL));
    uvm_auto_free char *created = uvm_time_text(m->created);
    uvm_auto_free char *signer = uvm_printable(sig->user_id);
    uvm_auto_free char *bytes = uvm_size_text(bundle_payload_bytes(m));
    uvm_auto_free char *name = uvm_printable(bundle_reader_name(input->reader));
    line("%s", name);
    line("  bundle   %s, serial %llu", m->id, (unsigned long long)m->serial);
    line("  created  %s (%s) by %s", created, age, m->tool);
    line("  signed   %s", signer);
    line("           %s (trusted here)", sig->fingerprint);
    for (size_t i = 0; i < m->stream_count; i++)
        describe_stream(input, m->streams[i], line);
    line("  payload  %s, %zu image%s", bytes, m->image_count, m->image_count == 1 ? "" : "s");
}

void cmd_bundle_print_uncompared(const struct cmd_bundle_input *input)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    size_t count = 0;
    for (size_t i = 0; input->vendor && i < m->image_count; i++)
        count += !is_compared(input, &m->images[i]);
    if (count == 0)
        return;
    cmd_print("The vendor's word is for the files of %zu compact image%s:", count,
              count == 1 ? "" : "s");
    cmd_print("the content of %s was not compared here.", count == 1 ? "that" : "these");
}

static json_t *stream_json(const struct bundle_stream *s)
{
    json_t *products = json_array();
    for (size_t i = 0; i < s->selection.count; i++)
        json_array_append_new(products,
                              json_pack("{s:s, s:b}", "name", s->selection.products[i].name,
                                        "complete", s->selection.products[i].complete));
    return json_pack("{s:s, s:s, s:s?, s:s?, s:b, s:o}", "content_id", s->content_id, "source",
                     s->source, "updated", s->updated, "verified_by", s->verified_by, "added",
                     bundle_stream_is_local(s), "products", products);
}

/* The vendor that was seen here to vouch for an image; null when nobody was. */
static const char *image_vendor(const struct cmd_bundle_input *input, const struct bundle_image *b)
{
    if (!is_compared(input, b))
        return NULL;
    return seen_vendor(input, b->stream, bundle_stream_is_local(b->stream) ? b : NULL);
}

static json_t *image_json(const struct cmd_bundle_input *input, const struct bundle_image *b)
{
    const struct mirror_image *i = b->image;
    json_t *json = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:s?, s:s?, s:b, s:s, s:s, s:s, s:s?, s:s?}", "stream",
        b->stream->content_id, "product", i->product, "version", i->version, "item", i->item,
        "path", i->path, "size", (json_int_t)i->size, "sha256", i->sha256, "sha512", i->sha512,
        "carried", b->encoding != BUNDLE_NOT_CARRIED, "release", mirror_image_get(i, "release"),
        "arch", mirror_image_get(i, "arch"), "label", mirror_image_get(i, "label"), "checksums",
        b->checksums.member, "origin_verified", image_vendor(input, b));
    cmd_payload_json(b, json);
    return json;
}

static json_t *origin_json(const struct cmd_origin *origin)
{
    const struct mirror_image *image = origin->image ? origin->image->image : NULL;
    return json_pack("{s:s, s:s, s:s*, s:s*}", "content_id", origin->stream->content_id,
                     "fingerprint", origin->fingerprint, "product", image ? image->product : NULL,
                     "version", image ? image->version : NULL);
}

json_t *cmd_origins_json(const struct cmd_bundle_input *input)
{
    json_t *list = json_array();
    for (size_t i = 0; i < input->origin_count; i++)
        json_array_append_new(list, origin_json(&input->origins[i]));
    return list;
}

json_t *cmd_bundle_json(const struct cmd_bundle_input *input)
{
    const struct bundle_manifest *m = bundle_reader_manifest(input->reader);
    const struct uvm_signature *sig = bundle_reader_signature(input->reader);
    json_t *streams = json_array(), *images = json_array();
    for (size_t i = 0; i < m->stream_count; i++)
        json_array_append_new(streams, stream_json(m->streams[i]));
    for (size_t i = 0; i < m->image_count; i++)
        json_array_append_new(images, image_json(input, &m->images[i]));
    return json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "file",
        bundle_reader_name(input->reader), "id", m->id, "format", (json_int_t)m->format, "serial",
        (json_int_t)m->serial, "created", (json_int_t)m->created, "tool", m->tool, "signer",
        sig->fingerprint, "signer_name", sig->user_id, "payload_bytes",
        (json_int_t)bundle_payload_bytes(m), "origins_verified", cmd_origins_json(input), "streams",
        streams, "images", images, "sizes", cmd_sizes_json(m));
}

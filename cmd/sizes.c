/* How the images of a bundle are carried, and what that takes. */
#include <string.h>

#include "cmd/cmd.h"

/* ---- one ---- */

static const char *encoding_name(const struct bundle_image *b)
{
    return b->encoding == BUNDLE_NOT_CARRIED ? "none"
           : b->encoding == BUNDLE_COMPACT   ? "compact"
                                             : "plain";
}

static json_t *base_json(const struct bundle_base_name *base)
{
    if (!base->product)
        return json_null();
    return json_pack("{s:s, s:s, s:s?, s:s?, s:I, s:b}", "product", base->product, "version",
                     base->version, "sha256", base->sha256, "sha512", base->sha512, "bytes",
                     (json_int_t)base->bytes, "in_bundle", base->image != NULL);
}

void cmd_payload_json(const struct bundle_image *b, json_t *image)
{
    json_object_set_new(image, "encoding", json_string(encoding_name(b)));
    json_object_set_new(image, "payload_size", json_integer((json_int_t)b->size));
    if (b->encoding != BUNDLE_COMPACT)
        return;
    json_object_set_new(image, "content", json_integer((json_int_t)b->content));
    json_object_set_new(image, "base", base_json(&b->base));
}

char *cmd_payload_text(const struct bundle_image *b)
{
    uvm_auto_free char *size = uvm_size_text(b->size);
    if (b->encoding == BUNDLE_NOT_CARRIED)
        return uvm_strdup("not carried");
    if (b->encoding == BUNDLE_PLAIN)
        return uvm_strdup("plain");
    return b->base.product ? uvm_format("%s to %s", size, b->base.version)
                           : uvm_format("%s compact", size);
}

/* ---- all ---- */

struct cmd_sizes cmd_bundle_sizes(const struct bundle_manifest *m)
{
    struct cmd_sizes s = {0};
    mirror_auto_json *seen = json_object();
    for (size_t i = 0; i < m->image_count; i++) {
        const struct bundle_image *b = &m->images[i];
        s.images += b->image->size;
        if (b->encoding == BUNDLE_NOT_CARRIED)
            s.not_carried += b->image->size;
        if (b->encoding == BUNDLE_NOT_CARRIED || json_object_get(seen, b->member))
            continue;
        json_object_set_new(seen, b->member, json_true());
        *(b->encoding == BUNDLE_PLAIN ? &s.plain
          : b->base.product           ? &s.differences
                                      : &s.compact) += b->size;
        s.shared += b->base.bytes;
    }
    return s;
}

json_t *cmd_sizes_json(const struct bundle_manifest *m)
{
    struct cmd_sizes s = cmd_bundle_sizes(m);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "images", (json_int_t)s.images, "plain",
                     (json_int_t)s.plain, "compact", (json_int_t)s.compact, "differences",
                     (json_int_t)s.differences, "shared", (json_int_t)s.shared, "not_carried",
                     (json_int_t)s.not_carried);
}

static void print_size(const char *what, uint64_t bytes, const char *remark)
{
    uvm_auto_free char *size = uvm_size_text(bytes);
    if (bytes)
        cmd_print("  %-12s %7s%s", what, size, remark);
}

void cmd_sizes_print(const struct bundle_manifest *m)
{
    struct cmd_sizes s = cmd_bundle_sizes(m);
    if (!s.compact && !s.differences && !s.not_carried)
        return;
    cmd_print("%s", "");
    print_size("images", s.images, ", as the vendor serves them");
    print_size("not carried", s.not_carried, " of them, which the receivers have");
    print_size("plain", s.plain, "");
    print_size("compact", s.compact, "");
    print_size("differences", s.differences, " to other versions");
    print_size("shared", s.shared, " of content, taken from other versions");
}

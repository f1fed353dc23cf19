/*
 * An image: one item of a stream with everything it inherits, checked. What leaves this file in a
 * struct mirror_image may be used as a name, a path, a size or a checksum without another look.
 */
#include <inttypes.h>
#include <string.h>

#include "mirror/model.h"

#define SIZE_DIGITS_MAX 19 /* so that a size fits in 64 bits before it is compared */

void mirror_image_clear(struct mirror_image *image)
{
    free(image->product);
    free(image->version);
    free(image->item);
    free(image->path);
    free(image->sha256);
    free(image->sha512);
    json_decref(image->metadata);
    *image = (struct mirror_image){0};
}

void mirror_image_copy(struct mirror_image *to, const struct mirror_image *from)
{
    *to = (struct mirror_image){
        .product = uvm_strdup(from->product),
        .version = uvm_strdup(from->version),
        .item = uvm_strdup(from->item),
        .path = uvm_strdup(from->path),
        .size = from->size,
        .sha256 = uvm_strdup(from->sha256),
        .sha512 = uvm_strdup(from->sha512),
        .metadata = json_deep_copy(from->metadata),
    };
}

const char *mirror_image_get(const struct mirror_image *image, const char *key)
{
    const char *value = json_string_value(json_object_get(image->metadata, key));
    return value ? value : "";
}

char *mirror_image_title(const struct mirror_image *image)
{
    const char *release = mirror_image_get(image, "release"),
               *arch = mirror_image_get(image, "arch");
    uvm_auto_free char *title = *release && *arch
                                    ? uvm_format("%s %s %s", release, arch, image->version)
                                    : uvm_format("%s %s", image->product, image->version);
    uvm_auto_free char *full = strcmp(image->item, "disk1.img") == 0
                                   ? UVM_STEAL(title)
                                   : uvm_format("%s %s", title, image->item);
    return mirror_brief(full);
}

enum uvm_digest_type mirror_image_digest(const struct mirror_image *image, const char **ret_hex)
{
    *ret_hex = image->sha512 ? image->sha512 : image->sha256;
    return image->sha512 ? UVM_SHA512 : UVM_SHA256;
}

bool mirror_image_importable(const struct mirror_image *image)
{
    return strcmp(image->item, "disk1.img") == 0 &&
           strcmp(mirror_image_get(image, "ftype"), "disk1.img") == 0 &&
           strcmp(mirror_image_get(image, "datatype"), "image-downloads") == 0;
}

/* ---- from flattened metadata ----------------------------------------------------------------- */

/* Strings only, and together within MIRROR_METADATA_MAX. */
static bool check_metadata(json_t *metadata, struct uvm_error *err)
{
    if (!json_is_object(metadata))
        return uvm_fail(err, UVM_CONTENT, "metadata are not an object");
    size_t bytes = 0;
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value)) {
            uvm_auto_free char *shown = mirror_brief(key);
            return uvm_fail(err, UVM_CONTENT, "metadata key '%s' is not a string", shown);
        }
        bytes += strlen(key) + json_string_length(value) + 1;
        if (bytes > MIRROR_METADATA_MAX)
            return uvm_fail(err, UVM_CONTENT, "metadata are over the limit of %zu bytes",
                            MIRROR_METADATA_MAX);
    }
    return true;
}

static const char *metadata_get(const json_t *metadata, const char *key)
{
    return json_string_value(json_object_get(metadata, key));
}

static bool take_name(const json_t *metadata, const char *key, char **ret, struct uvm_error *err)
{
    const char *name = metadata_get(metadata, key);
    if (!mirror_name_sound(name)) {
        uvm_auto_free char *shown = mirror_brief(name);
        return uvm_fail(err, UVM_CONTENT,
                        "%s '%s' is missing, over %d bytes, not printable, or holds a blank or '/'",
                        key, shown, MIRROR_NAME_MAX);
    }
    *ret = uvm_strdup(name);
    return true;
}

static bool take_size(const json_t *metadata, uint64_t *ret, struct uvm_error *err)
{
    const char *text = metadata_get(metadata, "size");
    if (!text)
        return uvm_fail(err, UVM_CONTENT, "size is missing");
    size_t digits = strspn(text, "0123456789");
    if (digits > 0 && digits <= SIZE_DIGITS_MAX && text[digits] == 0) {
        uint64_t size = strtoull(text, NULL, 10);
        if (size <= MIRROR_SIZE_MAX) {
            *ret = size;
            return true;
        }
    }
    uvm_auto_free char *shown = mirror_brief(text);
    return uvm_fail(err, UVM_CONTENT, "size '%s' is not a decimal number up to %" PRIu64, shown,
                    MIRROR_SIZE_MAX);
}

/* A checksum, folded to lower case; *ret stays NULL when the key is missing. */
static bool take_digest(const json_t *metadata, const char *key, enum uvm_digest_type type,
                        char **ret, struct uvm_error *err)
{
    const char *text = metadata_get(metadata, key);
    if (!text)
        return true;
    uvm_auto_free char *hex = uvm_strdup(text);
    for (char *p = hex; *p; p++)
        if (*p >= 'A' && *p <= 'F')
            *p = (char)(*p - 'A' + 'a');
    if (!uvm_digest_valid(type, hex)) {
        uvm_auto_free char *shown = mirror_brief(text);
        return uvm_fail(err, UVM_CONTENT, "%s '%s' is malformed", key, shown);
    }
    *ret = UVM_STEAL(hex);
    return true;
}

static bool take_digests(const json_t *metadata, struct mirror_image *image, struct uvm_error *err)
{
    if (!take_digest(metadata, "sha256", UVM_SHA256, &image->sha256, err) ||
        !take_digest(metadata, "sha512", UVM_SHA512, &image->sha512, err))
        return false;
    if (image->sha256 || image->sha512)
        return true;
    return uvm_fail(err, UVM_CONTENT,
                    metadata_get(metadata, "md5") ? "has no checksum but MD5, which proves nothing"
                                                  : "has neither a SHA-256 nor a SHA-512 checksum");
}

bool mirror_image_from_metadata(const json_t *metadata, const char *path,
                                struct mirror_image *ret_image, struct uvm_error *err)
{
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image image = {
        .metadata = json_deep_copy(metadata),
    };
    if (!check_metadata(image.metadata, err) ||
        !take_name(metadata, "product_name", &image.product, err) ||
        !take_name(metadata, "version_name", &image.version, err) ||
        !take_name(metadata, "item_name", &image.item, err))
        return false;
    if (!mirror_image_path_check(path ? path : "", err) || !take_size(metadata, &image.size, err) ||
        !take_digests(metadata, &image, err))
        return false;
    image.path = uvm_strdup(path);
    *ret_image = image;
    image = (struct mirror_image){0};
    return true;
}

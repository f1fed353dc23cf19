/* Single fields of a manifest: there, of the right type and within limits, or refused by name. */
#include <string.h>

#include "bundle/internal.h"

#define TEXT_MAX 4096 /* bytes of a text that is for the record */

bool bundle_field_wrong(struct uvm_error *err, const char *key, const char *wanted)
{
    return uvm_fail(err, UVM_CONTENT, "\"%s\" is missing or not %s", key, wanted);
}

/* Text that can be shown: no control characters, not overly long. */
static bool sound_text(const json_t *value)
{
    const char *s = json_string_value(value);
    if (!s || json_string_length(value) > TEXT_MAX || strlen(s) != json_string_length(value))
        return false;
    uvm_auto_free char *printable = uvm_printable(s);
    return strcmp(s, printable) == 0;
}

bool bundle_field_text(const json_t *object, const char *key, const char **ret,
                       struct uvm_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!sound_text(value))
        return bundle_field_wrong(err, key, "a printable text");
    *ret = json_string_value(value);
    return true;
}

bool bundle_field_text_or_null(const json_t *object, const char *key, const char **ret,
                               struct uvm_error *err)
{
    if (!json_is_null(json_object_get(object, key)))
        return bundle_field_text(object, key, ret, err);
    *ret = NULL;
    return true;
}

bool bundle_field_number(const json_t *object, const char *key, uint64_t max, uint64_t *ret,
                         struct uvm_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value))
        return bundle_field_wrong(err, key, "a whole number");
    json_int_t number = json_integer_value(value);
    if (number < 0 || (uint64_t)number > max)
        return uvm_fail(err, UVM_CONTENT, "\"%s\" is %" JSON_INTEGER_FORMAT ", not in 0..%llu", key,
                        number, (unsigned long long)max);
    *ret = (uint64_t)number;
    return true;
}

bool bundle_field_list(const json_t *object, const char *key, size_t max, const json_t **ret,
                       struct uvm_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_array(value))
        return bundle_field_wrong(err, key, "a list");
    if (json_array_size(value) > max)
        return uvm_fail(err, UVM_CONTENT, "\"%s\" has %zu entries, over the limit of %zu", key,
                        json_array_size(value), max);
    *ret = value;
    return true;
}

bool bundle_field_sha256(const json_t *object, char ret[UVM_DIGEST_HEX_MAX], struct uvm_error *err)
{
    const char *hex = json_string_value(json_object_get(object, "sha256"));
    if (!hex || !uvm_digest_valid(UVM_SHA256, hex))
        return bundle_field_wrong(err, "sha256", "64 lower-case hexadecimal digits");
    memcpy(ret, hex, strlen(hex) + 1);
    return true;
}

bool bundle_field_name(const json_t *object, const char *key, char **ret, struct uvm_error *err)
{
    const char *name = NULL;
    if (!bundle_field_text(object, key, &name, err))
        return false;
    if (!*name || strlen(name) > MIRROR_NAME_MAX || strpbrk(name, " /"))
        return bundle_field_wrong(err, key, "a name");
    *ret = uvm_strdup(name);
    return true;
}

static bool field_digest(const json_t *object, const char *key, enum uvm_digest_type type,
                         char **ret, struct uvm_error *err)
{
    const char *hex = NULL;
    if (!bundle_field_text_or_null(object, key, &hex, err))
        return false;
    if (hex && !uvm_digest_valid(type, hex))
        return bundle_field_wrong(err, key, "a checksum in lower-case hexadecimal digits");
    *ret = uvm_strdup(hex);
    return true;
}

bool bundle_field_digests(const json_t *object, char **ret_sha256, char **ret_sha512,
                          struct uvm_error *err)
{
    return field_digest(object, "sha256", UVM_SHA256, ret_sha256, err) &&
           field_digest(object, "sha512", UVM_SHA512, ret_sha512, err);
}

bool bundle_is_fingerprint(const char *s)
{
    size_t len = strspn(s, "0123456789ABCDEF");
    return s[len] == 0 && (len == 40 || len == 64);
}

/* "2024-10-04T09:30:00Z", and nothing that only looks like it. */
bool bundle_parse_time(const char *s, time_t *ret)
{
    struct tm tm = {0};
    const char *end = strptime(s, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (!end || *end)
        return false;
    time_t t = timegm(&tm);
    uvm_auto_free char *again = uvm_time_text(t);
    if (t < 0 || (uint64_t)t > BUNDLE_TIME_MAX || strcmp(again, s) != 0)
        return false;
    *ret = t;
    return true;
}

bool bundle_field_texts(const json_t *object, const char *key, size_t max, struct uvm_strings *list,
                        struct uvm_error *err)
{
    const json_t *array = NULL;
    if (!bundle_field_list(object, key, max, &array, err))
        return false;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *value = json_array_get(array, i);
        if (!sound_text(value))
            return uvm_fail(err, UVM_CONTENT, "\"%s\" holds something other than printable text",
                            key);
        uvm_strings_add(list, json_string_value(value));
    }
    return true;
}

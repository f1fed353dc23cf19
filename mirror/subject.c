/*
 * What the user says about an image of the site's own, KEY=VALUE:
 *
 *     release, arch, version     must be there
 *     label                      "local" when it is not
 *     product                    the product's name: "local:<release>:<arch>" when it is not there
 *     version_name               the version's name: `version` when it is not there
 *     anything else              at will
 *
 * Vendors keep the release's number ("24.04") in `version` and name versions otherwise
 * ("20241004"); with version_name, an added image can do the same.
 */
#include <string.h>

#include "mirror/local.h"
#include "mirror/model.h"

#define KEY_MAX   64
#define VALUE_MAX 4096 /* a line of a signed stream must not become too long for GnuPG */
#define PAIRS_MAX 128
#define FILE_MAX  200 /* bytes of a file's name */

#define PATH_FOLDER "local"

/* What the image itself or its place in the stream decides. */
static const char *const refused_keys[] = {
    "path",    "size",      "md5",          "sha1",   "sha256",   "sha512",
    "ftype",   "item_name", "product_name", "format", "datatype", "content_id",
    "updated", "products",  "versions",     "items",  "_aliases",
};

void mirror_subject_clear(struct mirror_subject *s)
{
    free(s->product);
    free(s->version);
    free(s->file);
    json_decref(s->pairs);
    *s = (struct mirror_subject){0};
}

/* ---- one pair ---- */

/* A key that a filter can name. */
static bool is_key(const char *key)
{
    size_t len = strlen(key);
    return len > 0 && len <= KEY_MAX &&
           strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == len;
}

static bool is_refused(const char *key)
{
    for (size_t i = 0; i < sizeof refused_keys / sizeof *refused_keys; i++)
        if (strcmp(key, refused_keys[i]) == 0)
            return true;
    return false;
}

static bool check_pair(const char *key, const char *value, struct uvm_error *err)
{
    uvm_auto_free char *shown = mirror_brief(key);
    if (!is_key(key))
        return uvm_fail(err, UVM_USAGE,
                        "'%s' is no key: letters, digits, '_' and '-', at most %d of them", shown,
                        KEY_MAX);
    if (is_refused(key))
        return uvm_fail(err, UVM_USAGE, "%s= cannot be given: the image itself decides it", shown);
    uvm_auto_free char *printable = value ? uvm_printable(value) : NULL;
    if (!value || strlen(value) > VALUE_MAX || strcmp(value, printable) != 0)
        return uvm_fail(err, UVM_USAGE, "the value of %s= is not printable text of up to %d bytes",
                        shown, VALUE_MAX);
    return true;
}

static bool check_pairs(json_t *metadata, struct uvm_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!check_pair(key, json_string_value(value), err))
            return false;
    }
    if (json_object_size(metadata) > PAIRS_MAX)
        return uvm_fail(err, UVM_USAGE, "more than %d keys are given", PAIRS_MAX);
    return true;
}

/* ---- all of them ---- */

static const char *value_of(const json_t *pairs, const char *key)
{
    const char *value = json_string_value(json_object_get(pairs, key));
    return value ? value : "";
}

static bool check_required(const json_t *pairs, struct uvm_error *err)
{
    static const char *const required[] = {"release", "arch", "version"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (!*value_of(pairs, required[i]))
            return uvm_fail(err, UVM_USAGE,
                            "%s= is missing: name what it is, such as release=bookworm arch=amd64 "
                            "version=20241004",
                            required[i]);
    if (json_object_get(pairs, "label") && !*value_of(pairs, "label"))
        return uvm_fail(err, UVM_USAGE, "label= is empty: uvtool needs one");
    return true;
}

/* A name that becomes part of a volume's name or of the path. */
static bool check_name(const char *key, const char *name, struct uvm_error *err)
{
    if (mirror_name_sound(name) && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
        return true;
    uvm_auto_free char *shown = mirror_brief(name);
    return uvm_fail(err, UVM_USAGE,
                    "%s=%s is empty, over %d bytes, or holds a blank, a '/' or what cannot be "
                    "printed",
                    key, shown, MIRROR_NAME_MAX);
}

static bool check_names(const struct mirror_subject *s, struct uvm_error *err)
{
    return check_name("release", value_of(s->pairs, "release"), err) &&
           check_name("arch", value_of(s->pairs, "arch"), err) &&
           check_name("version", s->version, err) && check_name("product", s->product, err);
}

/* The name of a file is the user's too, and less chosen. */
static bool check_path(const struct mirror_subject *s, struct uvm_error *err)
{
    uvm_auto_free char *path = mirror_subject_path(s);
    if (!strchr(s->file, '/') && strlen(s->file) <= FILE_MAX && mirror_image_path_check(path, err))
        return true;
    uvm_error_clear(err);
    uvm_auto_free char *shown = mirror_brief(path);
    return uvm_fail(err, UVM_USAGE,
                    "'%s' cannot be a path in the mirror: give the file another name", shown);
}

/* A copy of a value, which leaves the pairs when it only names something. */
static char *take(json_t *pairs, const char *key, char *otherwise)
{
    if (!json_object_get(pairs, key))
        return otherwise;
    free(otherwise);
    char *value = uvm_strdup(value_of(pairs, key));
    json_object_del(pairs, key);
    return value;
}

char *mirror_subject_path(const struct mirror_subject *s)
{
    return uvm_format(PATH_FOLDER "/%s/%s/%s/%s", value_of(s->pairs, "release"),
                      value_of(s->pairs, "arch"), s->version, s->file);
}

bool mirror_subject_new(const json_t *metadata, const char *file,
                        struct mirror_subject *ret_subject, struct uvm_error *err)
{
    mirror_auto_subject s = {.pairs = json_deep_copy(metadata), .file = uvm_strdup(file)};
    if (!check_pairs(s.pairs, err) || !check_required(s.pairs, err))
        return false;
    if (!json_object_get(s.pairs, "label"))
        json_object_set_new(s.pairs, "label", json_string("local"));
    s.product =
        take(s.pairs, "product",
             uvm_format("local:%s:%s", value_of(s.pairs, "release"), value_of(s.pairs, "arch")));
    s.version = take(s.pairs, "version_name", uvm_strdup(value_of(s.pairs, "version")));
    if (!check_names(&s, err) || !check_path(&s, err))
        return false;
    *ret_subject = s;
    s = (struct mirror_subject){0};
    return true;
}

/*
 * JSON as simplestreams understands it: strict where Python's json.loads is lax (duplicate keys,
 * depth), and values printed as Python's str() prints them, because filters compare that text and
 * uvtool's metadata files hold it.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mirror/model.h"

/* What jansson takes for each, measured: a member is its key, its place in the object, and a short
 * string. */
enum { OBJECT_BYTES = 220, ARRAY_BYTES = 130, MEMBER_BYTES = 170 };

/* Memory that the values of a text can take at most, about: each but the first follows a ',' or an
 * opening bracket. What stands between quotes is no structure. An empty object takes two bytes of
 * text and a hundred times that in memory, so this is known before anything is built. */
static size_t estimate_memory(const char *text, size_t len)
{
    size_t bytes = len;
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && text[i] == ',')
            bytes += MEMBER_BYTES;
        else if (!quoted && (text[i] == '{' || text[i] == '['))
            bytes += text[i] == '{' ? OBJECT_BYTES : ARRAY_BYTES;
    }
    return bytes;
}

bool mirror_json_parse(const void *text, size_t len, json_t **ret, struct uvm_error *err)
{
    if (len > MIRROR_JSON_MAX)
        return uvm_fail(err, UVM_CONTENT, "JSON of %zu bytes is over the limit of %zu", len,
                        MIRROR_JSON_MAX);
    if (len == 0)
        return uvm_fail(err, UVM_CONTENT, "JSON is empty");
    if (estimate_memory(text, len) > MIRROR_JSON_MEMORY_MAX)
        return uvm_fail(err, UVM_CONTENT, "JSON holds more values than fit into %zu MiB of memory",
                        MIRROR_JSON_MEMORY_MAX >> 20);
    json_error_t why;
    mirror_auto_json *tree = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!tree) {
        uvm_auto_free char *reason = mirror_brief(why.text);
        return uvm_fail(err, UVM_CONTENT, "not valid JSON: line %d, column %d: %s", why.line,
                        why.column, reason);
    }
    if (!json_is_object(tree))
        return uvm_fail(err, UVM_CONTENT, "JSON is not an object");
    *ret = UVM_STEAL(tree);
    return true;
}

/* ---- numbers as Python prints them ----------------------------------------------------------- */

#define DOUBLE_DIGITS 17 /* enough for every double to come back as itself */

struct decimal {
    char digits[DOUBLE_DIGITS + 1]; /* without a point, at least one */
    int exponent;                   /* of the first digit: 1.5 has 0 */
};

/* The nearest decimal with `count` digits of a finite value that is not negative. */
static struct decimal decimal_nearest(double value, int count)
{
    char text[64];
    struct decimal d = {0};
    snprintf(text, sizeof text, "%.*e", count - 1, value);
    const char *mark = strchr(text, 'e');
    for (const char *p = text; p < mark; p++) /* skips the locale's decimal point */
        if (*p >= '0' && *p <= '9' && strlen(d.digits) < DOUBLE_DIGITS)
            d.digits[strlen(d.digits)] = *p;
    d.exponent = (int)strtol(mark + 1, NULL, 10);
    return d;
}

/* The next larger decimal of the same length. */
static struct decimal decimal_next(struct decimal d)
{
    size_t i = strlen(d.digits);
    while (i > 0 && d.digits[i - 1] == '9')
        d.digits[--i] = '0';
    if (i > 0) {
        d.digits[i - 1]++;
    } else {
        d.digits[0] = '1';
        d.exponent++;
    }
    return d;
}

static bool decimal_is(struct decimal d, double value)
{
    char text[64];
    snprintf(text, sizeof text, "%se%d", d.digits, d.exponent - (int)strlen(d.digits) + 1);
    return strtod(text, NULL) == value;
}

/* The shortest decimal that reads back as the value. Just above a power of two the doubles lie
 * wider than below it, and there the one that is not nearest can be the only one of its length. */
static struct decimal decimal_shortest(double value)
{
    for (int count = 1; count < DOUBLE_DIGITS; count++) {
        struct decimal nearest = decimal_nearest(value, count), next = decimal_next(nearest);
        if (decimal_is(nearest, value))
            return nearest;
        if (decimal_is(next, value))
            return next;
    }
    return decimal_nearest(value, DOUBLE_DIGITS);
}

/* float.__repr__: plain from 1e-4 up to below 1e16, with an exponent of two or more digits else. */
static char *real_text(double real)
{
    if (!isfinite(real))
        return uvm_strdup(isnan(real) ? "nan" : real < 0 ? "-inf" : "inf");
    struct decimal d = decimal_shortest(fabs(real));
    size_t len = strlen(d.digits);
    while (len > 1 && d.digits[len - 1] == '0')
        d.digits[--len] = 0;
    const char *sign = signbit(real) ? "-" : "";
    int whole = d.exponent + 1; /* digits in front of the point */
    if (d.exponent < -4 || d.exponent >= 16)
        return uvm_format("%s%c%s%se%c%02d", sign, d.digits[0], len > 1 ? "." : "", d.digits + 1,
                          d.exponent < 0 ? '-' : '+', abs(d.exponent));
    if (whole <= 0)
        return uvm_format("%s0.%.*s%s", sign, -whole, "0000", d.digits);
    if ((size_t)whole >= len)
        return uvm_format("%s%s%.*s.0", sign, d.digits, whole - (int)len, "0000000000000000");
    return uvm_format("%s%.*s.%s", sign, whole, d.digits, d.digits + whole);
}

char *mirror_json_str(const json_t *value)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_STRING:
        return uvm_strdup(json_string_value(value));
    case JSON_INTEGER:
        return uvm_format("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    case JSON_REAL:
        return real_text(json_real_value(value));
    case JSON_TRUE:
        return uvm_strdup("True");
    case JSON_FALSE:
        return uvm_strdup("False");
    default:
        return NULL;
    }
}

json_t *mirror_object_get(const json_t *node, const char *key)
{
    json_t *value = json_object_get(node, key);
    return json_is_object(value) ? value : NULL;
}

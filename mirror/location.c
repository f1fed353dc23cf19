/* Where a source is: URLs and folders. */
#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "mirror/location.h"

void mirror_location_clear(struct mirror_location *location)
{
    free(location->url);
    free(location->folder);
    free(location->user);
    free(location->password);
    *location = (struct mirror_location){0};
}

/* ---- escaping (RFC 3986, section 2) ---- */

static bool is_literal(unsigned char c)
{
    return (c < 0x80 && isalnum(c)) || (c && strchr("-._~/", c));
}

static char *escape(const char *path)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = uvm_alloc(3 * strlen(path) + 1), *to = out;
    for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
        if (is_literal(*p)) {
            *to++ = (char)*p;
        } else {
            *to++ = '%';
            *to++ = digits[*p >> 4];
            *to++ = digits[*p & 15];
        }
    }
    return out;
}

static int hex_value(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* NULL when a '%' is not followed by two digits or stands for a zero byte. */
static char *unescape(const char *text, size_t len)
{
    uvm_auto_free char *out = uvm_alloc(len + 1);
    char *to = out;
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '%') {
            *to++ = text[i];
            continue;
        }
        if (len - i < 3 || !isxdigit((unsigned char)text[i + 1]) ||
            !isxdigit((unsigned char)text[i + 2]))
            return NULL;
        int value = hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]);
        if (value == 0)
            return NULL;
        *to++ = (char)value;
        i += 2;
    }
    return UVM_STEAL(out);
}

static char *with_slash(const char *s)
{
    size_t len = strlen(s);
    return uvm_format("%s%s", s, len && s[len - 1] == '/' ? "" : "/");
}

/* ---- parsing ---- */

/* The present folder's name in front of a relative one, so that the record means something later.
 */
static char *absolute(const char *folder)
{
    char *real = realpath(folder, NULL);
    if (real || folder[0] == '/')
        return real ? real : uvm_strdup(folder);
    uvm_auto_free char *cwd = getcwd(NULL, 0);
    return uvm_format("%s/%s", cwd ? cwd : "", folder);
}

static bool set_folder(const char *folder, struct mirror_location *ret)
{
    uvm_auto_free char *full = absolute(folder);
    ret->folder = with_slash(full);
    uvm_auto_free char *escaped = escape(ret->folder);
    ret->url = uvm_format("file://%s", escaped);
    return true;
}

/* file:///folder, file://localhost/folder */
static bool parse_file_url(const char *rest, struct mirror_location *ret, struct uvm_error *err)
{
    if (strncasecmp(rest, "localhost/", 10) == 0)
        rest += 9;
    if (rest[0] != '/')
        return uvm_fail(err, UVM_USAGE, "a file:// URL has three slashes: file:///folder");
    uvm_auto_free char *folder = unescape(rest, strlen(rest));
    if (!folder)
        return uvm_fail(err, UVM_USAGE, "the URL has a malformed %% escape");
    return set_folder(folder, ret);
}

static bool parse_user(const char *user, size_t len, struct mirror_location *ret,
                       struct uvm_error *err)
{
    const char *colon = memchr(user, ':', len);
    size_t user_len = colon ? (size_t)(colon - user) : len;
    ret->user = unescape(user, user_len);
    ret->password = colon ? unescape(colon + 1, len - user_len - 1) : uvm_strdup("");
    if (!ret->user || !ret->password)
        return uvm_fail(err, UVM_USAGE, "the URL's user or password has a malformed %% escape");
    return true;
}

/* "[2001:db8::1]", and with the name of an interface: "[fe80::1%25eth0]" (RFC 6874). */
static size_t address_length(const char *host, size_t len)
{
    struct in6_addr ignored;
    const char *end = memchr(host, ']', len);
    size_t inner = end ? (size_t)(end - host) - 1 : 0;
    uvm_auto_free char *address = uvm_strndup(host + 1, inner);
    address[strcspn(address, "%")] = 0;
    return inet_pton(AF_INET6, address, &ignored) == 1 ? inner + 2 : 0;
}

/* "host", "192.0.2.1", "[2001:db8::1]" (RFC 3986, section 3.2.2): its length, 0 when it is none. */
static size_t host_length(const char *host, size_t len)
{
    if (*host == '[')
        return address_length(host, len);
    size_t name = strcspn(host, ":");
    if (name > len)
        name = len;
    return strcspn(host, "[]<>\"\\^`{|}%") >= name ? name : 0;
}

/* "" or ":8080" */
static bool is_port(const char *text, size_t len)
{
    size_t digits = len > 0 ? strspn(text + 1, "0123456789") : 0;
    return len == 0 || (*text == ':' && digits > 0 && digits == len - 1 && digits <= 5 &&
                        strtoul(text + 1, NULL, 10) <= UINT16_MAX);
}

/* What stands in front of '@' may be a password: nothing of it is shown. */
static bool check_authority(const char *host, size_t len, struct uvm_error *err)
{
    size_t name = host_length(host, len);
    if (len == 0 || *host == ':')
        return uvm_fail(err, UVM_USAGE, "the URL names no host");
    if (strchr(host + len, '@') && (name == 0 || !is_port(host + name, len - name)))
        return uvm_fail(
            err, UVM_USAGE,
            "a user or password with '/', '@' or ':' is written with %%2F, %%40 or %%3A");
    if (name == 0)
        return uvm_fail(err, UVM_USAGE,
                        "the URL's host is malformed (an IPv6 address is [2001:db8::1])");
    return is_port(host + name, len - name) ||
           uvm_fail(err, UVM_USAGE, "the URL's port is no number from 0 to 65535");
}

static bool parse_web_url(const char *scheme, const char *rest, struct mirror_location *ret,
                          struct uvm_error *err)
{
    size_t authority_len = strcspn(rest, "/");
    const char *at = memrchr(rest, '@', authority_len);
    const char *host = at ? at + 1 : rest;
    if (at && !parse_user(rest, (size_t)(at - rest), ret, err))
        return false;
    if (!check_authority(host, authority_len - (size_t)(host - rest), err))
        return false;
    uvm_auto_free char *url = uvm_format("%s%s", scheme, host);
    ret->url = with_slash(url);
    return true;
}

static bool is_url_text(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if (*p <= 0x20 || *p == 0x7f)
            return false;
    return true;
}

/* "scheme://" in front of the rest (RFC 3986, section 3.1). */
static const char *after_scheme(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");
    return len > 0 && strncmp(text + len, "://", 3) == 0 ? text + len + 3 : NULL;
}

static bool parse_url(const char *text, const char *rest, struct mirror_location *ret,
                      struct uvm_error *err)
{
    if (!is_url_text(text))
        return uvm_fail(err, UVM_USAGE, "the URL holds a blank or a control character");
    if (strpbrk(rest, "?#"))
        return uvm_fail(err, UVM_USAGE, "the URL of a source has no query and no fragment");
    if (strncasecmp(text, "file://", 7) == 0)
        return parse_file_url(rest, ret, err);
    if (strncasecmp(text, "https://", 8) == 0)
        return parse_web_url("https://", rest, ret, err);
    if (strncasecmp(text, "http://", 7) == 0)
        return parse_web_url("http://", rest, ret, err);
    return uvm_fail(err, UVM_USAGE, "a source is http://, https://, file:// or a folder");
}

bool mirror_location_parse(const char *text, struct mirror_location *ret_location,
                           struct uvm_error *err)
{
    mirror_auto_location location = {0};
    if (*text == 0)
        return uvm_fail(err, UVM_USAGE, "the source is empty");
    if (strlen(text) > MIRROR_URL_MAX)
        return uvm_fail(err, UVM_USAGE, "the source is longer than %d bytes", MIRROR_URL_MAX);
    const char *rest = after_scheme(text);
    if (rest ? !parse_url(text, rest, &location, err) : !set_folder(text, &location))
        return false;
    *ret_location = location;
    location = (struct mirror_location){0};
    return true;
}

/* ---- single files ---- */

static bool split_fault(const char *fault, const char *text, struct uvm_error *err)
{
    /* What stands in front of '@' may be a password. */
    const char *rest = after_scheme(text), *at = strrchr(text, '@');
    uvm_auto_free char *shown = uvm_printable(rest && at ? at + 1 : text);
    return uvm_fail(err, UVM_USAGE, "'%s' %s", shown, fault);
}

bool mirror_location_split(const char *text, char **ret_folder, char **ret_name,
                           struct uvm_error *err)
{
    const char *rest = after_scheme(text);
    if (rest && strpbrk(rest, "?#"))
        return split_fault("has a query or a fragment: download it, and name the file", text, err);
    const char *slash = strrchr(rest ? rest : text, '/');
    const char *last = slash ? slash + 1 : text;
    if (!*last || (rest && !slash))
        return split_fault("names no file", text, err);
    uvm_auto_free char *name = rest ? unescape(last, strlen(last)) : uvm_strdup(last);
    if (!name)
        return split_fault("has a malformed % escape", text, err);
    *ret_folder = slash ? uvm_strndup(text, (size_t)(last - text)) : uvm_strdup("./");
    *ret_name = UVM_STEAL(name);
    return true;
}

/* ---- paths below ---- */

char *mirror_location_url(const struct mirror_location *location, const char *path)
{
    uvm_auto_free char *escaped = escape(path);
    return uvm_format("%s%s", location->url, escaped);
}

char *mirror_location_file(const struct mirror_location *location, const char *path)
{
    return uvm_format("%s%s", location->folder, path);
}

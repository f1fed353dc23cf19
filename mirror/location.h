/* location.h: where a source is, and where a path below it is. */
#pragma once

#include "mirror/base/base.h"

#define MIRROR_URL_MAX 2048 /* bytes of a source's URL */

struct mirror_location {
    char *url;      /* ends with '/', without user and password; file:// for a folder */
    char *folder;   /* of a local source, ends with '/'; NULL for http and https */
    char *user;     /* decoded, NULL when the URL names none */
    char *password; /* the same */
};
void mirror_location_clear(struct mirror_location *location);
#define mirror_auto_location __attribute__((cleanup(mirror_location_clear))) struct mirror_location

/* Understands http(s)://[user[:password]@]host/..., file:///... and the name of a folder, which
 * need not be there yet. Another scheme, a query, a fragment, or a URL without host is UVM_USAGE.
 */
bool mirror_location_parse(const char *text, struct mirror_location *ret_location,
                           struct uvm_error *err);

/* Takes a URL or a file's name apart: "https://host/a/b%2Bc" is "b+c" in "https://host/a/". The
 * folder can be parsed as a location; the name may be anything but empty. UVM_USAGE for a URL that
 * names no file, or has a query or a fragment. The caller frees both. */
bool mirror_location_split(const char *text, char **ret_folder, char **ret_name,
                           struct uvm_error *err);

/* The URL or the file name of a (checked) path below the location. The caller frees it. Every byte
 * that a path segment does not hold literally everywhere is escaped, ':' too: some servers and
 * proxies take it for something else. */
char *mirror_location_url(const struct mirror_location *location, const char *path);
char *mirror_location_file(const struct mirror_location *location, const char *path);

/* header.h: fields of an HTTP answer (RFC 9110). What stands in them is hostile. */
#pragma once

#include "mirror/transfer.h"

/* True for "bytes <offset>-<size - 1>/<size>" (section 14.4), also with "*" as the size; NULL is
 * no range. */
bool mirror_header_range_fits(const char *range, uint64_t offset, uint64_t size);

/* A Content-Length; MIRROR_SIZE_UNKNOWN for NULL and for what is no number. */
uint64_t mirror_header_length(const char *length);

/* Which of an answer's ETag and Last-Modified (either may be NULL) may stand in If-Range: a strong
 * entity tag, else the date; NULL when neither is fit for it. A date of the same second as a change
 * would be too weak for the letter of section 13.1.5; here a checksum has the last word. */
const char *mirror_header_validator(const char *etag, const char *last_modified);

/* Whether that is what mirror_header_validator can return. */
bool mirror_header_validator_ok(const char *validator);

/* Whether it is one that no two versions of a file share: an entity tag, not a date. NULL is not. */
bool mirror_header_validator_strong(const char *validator);

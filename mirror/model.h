/*
 * model.h: what the files of the model (JSON, images, filters, streams, selections) tell each
 * other. Only for this folder.
 */
#pragma once

#include "mirror/mirror.h"

/* ---- text ------------------------------------------------------------------------------------ */

/* A printable and short copy of a string from outside, for messages. The caller frees it. */
char *mirror_brief(const char *s);

/* JSON in lines that can be clear-signed, hardly larger than it is minified. Ends with a newline; the
 * caller frees it. */
char *mirror_json_lines(json_t *tree);

/* ---- values ---------------------------------------------------------------------------------- */

/* Something that has values by key, without a copy of all of them: filters are tried on every item
 * of a stream, most of which nobody wants. `get` returns what mirror_json_str would for the
 * flattened metadata (the caller frees it), NULL when the key is missing. */
struct mirror_values {
    char *(*get)(const void *opaque, const char *key);
    const void *opaque;
};

enum mirror_filter_set {
    MIRROR_FILTERS_IMPLIED = 1,
    MIRROR_FILTERS_GIVEN = 2,
    MIRROR_FILTERS_ALL = MIRROR_FILTERS_IMPLIED | MIRROR_FILTERS_GIVEN,
};

/* mirror_filters_match for a part of the filters. */
bool mirror_filters_match_values(const struct mirror_filters *f, enum mirror_filter_set set,
                                 const struct mirror_values *values);

/* Debian's name of an architecture that uname(2) or another distribution calls `machine`; `machine`
 * itself when there is no other. */
const char *mirror_debian_arch(const char *machine);

/* ---- items ----------------------------------------------------------------------------------- */

enum { MIRROR_TOP, MIRROR_PRODUCT, MIRROR_VERSION, MIRROR_ITEM, MIRROR_LEVELS };

/* One item of a stream and what it inherits from. `names[MIRROR_TOP]` is NULL. All borrowed from
 * the stream's tree. */
struct mirror_pedigree {
    const char *names[MIRROR_LEVELS];
    json_t *nodes[MIRROR_LEVELS];
};

/* The value of a key in the flattened metadata (a mirror_values' get; `opaque` is the pedigree). */
char *mirror_pedigree_get(const void *opaque, const char *key);

/* The flattened metadata. A new reference; NULL when a level holds more than MIRROR_KEYS_MAX keys.
 */
json_t *mirror_pedigree_flatten(const struct mirror_pedigree *p);

/* The checked image. UVM_CONTENT. */
bool mirror_pedigree_image(const struct mirror_pedigree *p, struct mirror_image *ret_image,
                           struct uvm_error *err);

/* A member of a node that is an object; NULL when it is missing or something else. Borrowed. */
json_t *mirror_object_get(const json_t *node, const char *key);

/* The name of a product, version or item as struct mirror_image wants it. */
bool mirror_name_sound(const char *name);

/* Two images are known to be the same bytes: their sizes are equal, and all checksums that both
 * have, of which there is one. */
bool mirror_same_content(const struct mirror_image *a, const struct mirror_image *b);

/* ---- parts of a stream ----------------------------------------------------------------------- */

/* Expands "_aliases" in the whole tree and removes it. UVM_CONTENT when an alias that is used has
 * no such value or not the right form, or when expansion adds more than a limit. */
bool mirror_aliases_expand(json_t *tree, struct uvm_error *err);

/* What there is of a stream's images, for a choice among these alone. */
struct mirror_stock {
    bool (*has)(const void *opaque, const struct mirror_pedigree *item);
    unsigned (*max)(const void *opaque, const char *product); /* versions; 0 = no limit */
    const void *opaque;
};

void mirror_product_clear(struct mirror_product *p);

/* mirror_stream_select among what there is: an item that is not there is passed over, no product
 * gives more versions than its limit, and it is complete only if the newest so many importable
 * versions are there. `stock` NULL = all is there. */
bool mirror_stream_select_stock(const struct mirror_stream *s, const struct mirror_filters *filters,
                                unsigned max_versions, const struct mirror_stock *stock,
                                struct mirror_selection *ret_selection, struct uvm_error *err);

/* A date as RFC 2822 (section 3.3) prints it, in seconds; 0 when it is missing, not understood or
 * before 1970. */
time_t mirror_date_parse(const char *text);

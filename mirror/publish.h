/* publish.h: what publish.c and publish-commit.c (a change), publish-record.c (what was made here),
 * publish-merge.c (old and new products in one file) and publish-page.c (the page for people) share. */
#pragma once

#include "mirror/model.h"

#define MIRROR_PUBLISH_DIR  ".uvmirror"
#define MIRROR_PUBLISH_PAGE "index.html"

/* The index without and with a signature. */
#define MIRROR_PUBLISH_INDEX        "streams/v1/index.json"
#define MIRROR_PUBLISH_SIGNED_INDEX "streams/v1/index.sjson"

struct mirror_publisher {
    struct mirror_publish_options options;
    char *dir;
    int root_fd, incoming_fd, lock_fd;
    /*
     * The record. Of every file that was made here, also before it is in place:
     *     files    {path: {"size": N, "sha256": HEX or null, "sha512": HEX or null, "dropped": T}}
     * with "dropped" since no index names it, and without size and checksums when it is no image.
     * Of every stream
     *     streams  {content id: {"file": "streams/v1/<content id>.<hex>",
     *                            "products": {name: {"updated": N, "serial": N}}}}
     */
    json_t *files, *streams;
    json_t *trees; /* content id -> its products file, as published */
    /* The change that is under way. */
    const struct mirror_release *releases; /* borrowed */
    size_t release_count;
    json_t *fresh;    /* content id -> products file that came */
    json_t *incoming; /* path -> as in `files`, with "name": of its file among the incoming */
    json_t *passed;   /* "content id\nproduct": older than what was published */
};

/* The change is over, or given up. */
void mirror_publish_forget(struct mirror_publisher *p);

/* ---- the record (publish-record.c) ----------------------------------------------------------- */

/* Reads it and the products files that it names; all are empty in a new tree. UVM_CONTENT. */
bool mirror_publish_load(struct mirror_publisher *p, struct uvm_error *err);
bool mirror_publish_save(const struct mirror_publisher *p, struct uvm_error *err);

/* Whether a file of the record is in place, and holds this image; *ret_other (may be NULL): something
 * else is there, of the record or not. */
bool mirror_publish_has(const struct mirror_publisher *p, const struct mirror_image *image,
                        bool *ret_other);

/* Whether a file was made here. */
bool mirror_publish_made(const struct mirror_publisher *p, const char *path);
/* Whether nothing is at a path, not even something that was made here. */
bool mirror_publish_vacant(const struct mirror_publisher *p, const char *path);

/* Notes that an index names these files again, or will soon: {path: true}. */
void mirror_publish_keep(struct mirror_publisher *p, const json_t *named);
/* Notes which files no index names from now on. `named` holds the paths that the index in place does.
 * Returns how many were dropped by that. */
size_t mirror_publish_drop(struct mirror_publisher *p, const json_t *named, time_t now);
/* Removes those whose time of grace is over. Returns how many. */
size_t mirror_publish_sweep(struct mirror_publisher *p, time_t now);

/* ---- products (publish-merge.c) -------------------------------------------------------------- */

bool mirror_publish_passed(const struct mirror_publisher *p, const char *content_id,
                           const char *product);

/* Whether a version of a product stays, or comes. */
bool mirror_publish_keeps(const struct mirror_publisher *p, const struct mirror_release *release,
                          const struct mirror_product *product, const char *version);

/* UVM_TRUST unless the products file that came has exactly the release's images, and says the same of each:
 * it is the release that was verified. */
bool mirror_publish_check_fresh(const struct mirror_publisher *p,
                                const struct mirror_release *release, struct uvm_error *err);

/* The products file of a release's stream as it is to be published. A new reference. */
json_t *mirror_publish_merge(const struct mirror_publisher *p,
                             const struct mirror_release *release);

/* Where a stream that is published has this product, version and item; false when it does not. */
bool mirror_publish_find(const struct mirror_publisher *p, const char *content_id,
                         const struct mirror_image *image, struct mirror_pedigree *ret);

/* Calls `each` for every image of a products file. UVM_CONTENT when one is not sound. */
bool mirror_publish_each(json_t *tree,
                         bool (*each)(void *opaque, const struct mirror_image *image,
                                      struct uvm_error *err),
                         void *opaque, struct uvm_error *err);

/* ---- for people (publish-page.c) ------------------------------------------------------------- */

/* A page of all that is published; `trees` as in the publisher. The caller frees it. */
char *mirror_publish_page(json_t *trees, const char *signer, time_t now);

/*
 * local.h: the mirror's own stream, for the rest of this folder.
 *
 * In memory it is the tree of a products file. Whatever a key says stands at its version, so that
 * two versions of one product have nothing in common but the name.
 */
#pragma once

#include "mirror/held.h"

#define MIRROR_LOCAL_ITEM "disk1.img"

/* What the user says about an image, checked. */
struct mirror_subject {
    char *product, *version;
    char *file;    /* the image's name in the mirror, without folders */
    json_t *pairs; /* release, arch, version, label, and others at will */
};
void mirror_subject_clear(struct mirror_subject *s);
#define mirror_auto_subject __attribute__((cleanup(mirror_subject_clear))) struct mirror_subject

/* Takes apart what mirror_addition holds. `file` is the name of the file that is added. UVM_USAGE
 * names the key that is missing or refused. */
bool mirror_subject_new(const json_t *metadata, const char *file,
                        struct mirror_subject *ret_subject, struct uvm_error *err);

/* The path of the image. The caller frees it. */
char *mirror_subject_path(const struct mirror_subject *s);

/* The tree of the local stream as it is held, or of an empty one. The caller owns it. */
bool mirror_local_load(const struct mirror_tree *t, json_t **ret_tree, struct uvm_error *err);

/* Lists an image, in place of one of the same product and version. Of `bytes`, size and checksums
 * count. */
void mirror_local_put(json_t *tree, const struct mirror_subject *subject,
                      const struct mirror_image *bytes);

/* The checked image of a product and version in the tree. UVM_CONTENT when it makes none. */
bool mirror_local_image(json_t *tree, const char *product, const char *version,
                        struct mirror_image *ret_image, struct uvm_error *err);

/* Takes out what the filters let through; returns how many images that were. */
size_t mirror_local_take_out(json_t *tree, const struct mirror_filters *filters);

/* Dates the tree and makes a stream of it, and chooses all of its images. UVM_CONTENT when two of
 * them clash. */
bool mirror_local_stream(json_t *tree, time_t now, struct mirror_stream **ret_stream,
                         struct mirror_selection *ret_selection, struct uvm_error *err);

/* Holds the stream with those of these images that are held already or are `added` (NULL = none is):
 * the selection is reduced to them. Lets go of the origins of all others. */
bool mirror_local_hold(struct mirror_tree *t, const struct mirror_stream *stream,
                       struct mirror_selection *selection, const struct mirror_image *added,
                       const struct uvm_observer *observer, struct mirror_removed *removed,
                       struct uvm_error *err);

/* ---- origins of added images ----------------------------------------------------------------- */

/* Keeps what an image came with, durably, in place of what it may have had. */
bool mirror_vouch_keep(struct mirror_tree *t, const struct mirror_image *image,
                       const struct mirror_origin *origin, struct uvm_error *err);

/* Removes the origins of images that are not in the selection. */
void mirror_vouch_sweep(struct mirror_tree *t, const struct mirror_selection *selection);

/*
 * Paths of images that cannot stand beside each other: one path with two contents, or a path that
 * is the folder of another. Both show between neighbours once the paths are sorted, provided that
 * '/' sorts before every other character: what is below a folder then follows it at once.
 */
#include <string.h>

#include "mirror/model.h"

static int path_rank(char c)
{
    return c == 0 ? 0 : c == '/' ? 1 : 2 + (unsigned char)c;
}

static int by_path(const void *a, const void *b)
{
    const struct mirror_image *const *ia = a, *const *ib = b;
    const char *pa = (*ia)->path, *pb = (*ib)->path;
    while (*pa && *pa == *pb)
        pa++, pb++;
    return path_rank(*pa) - path_rank(*pb);
}

static bool is_folder_of(const char *folder, const char *path)
{
    size_t len = strlen(folder);
    return strncmp(folder, path, len) == 0 && path[len] == '/';
}

static bool differs(const char *known, const char *hex)
{
    return known && hex && strcmp(known, hex) != 0;
}

bool mirror_same_content(const struct mirror_image *a, const struct mirror_image *b)
{
    return a->size == b->size && !differs(a->sha256, b->sha256) && !differs(a->sha512, b->sha512) &&
           ((a->sha256 && b->sha256) || (a->sha512 && b->sha512));
}

/* Adds what an image says of its file to what is known of it; false when it says something else, or
 * nothing that can be compared. */
static bool learn(struct mirror_image *known, const struct mirror_image *image)
{
    if (!mirror_same_content(known, image))
        return false;
    if (!known->sha256)
        known->sha256 = image->sha256;
    if (!known->sha512)
        known->sha512 = image->sha512;
    return true;
}

static bool check_sorted(const struct mirror_image *const *images, size_t count,
                         struct uvm_error *err)
{
    struct mirror_image known = {0}; /* of the file at one path; borrowed */
    for (size_t i = 0; i < count; i++) {
        bool same = known.path && strcmp(known.path, images[i]->path) == 0;
        uvm_auto_free char *shown = mirror_brief(images[i]->path);
        if (same && !learn(&known, images[i]))
            return uvm_fail(err, UVM_CONTENT, "path '%s' comes with two sizes or checksums", shown);
        if (same)
            continue;
        if (known.path && is_folder_of(known.path, images[i]->path)) {
            uvm_auto_free char *folder = mirror_brief(known.path);
            return uvm_fail(err, UVM_CONTENT, "path '%s' is the folder of another, '%s'", folder,
                            shown);
        }
        known = *images[i];
    }
    return true;
}

static size_t count_images(const struct mirror_selection *selections, size_t count)
{
    size_t images = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < selections[i].count; j++)
            images += selections[i].products[j].image_count;
    return images;
}

bool mirror_selections_check(const struct mirror_selection *selections, size_t count,
                             struct uvm_error *err)
{
    size_t filled = 0, total = count_images(selections, count);
    uvm_auto_free const struct mirror_image **images = uvm_grow(NULL, total, sizeof *images);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < selections[i].count; j++)
            for (size_t k = 0; k < selections[i].products[j].image_count; k++)
                images[filled++] = &selections[i].products[j].images[k];
    qsort(images, total, sizeof *images, by_path);
    return check_sorted(images, total, err);
}

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

/* What is known so far of the file at one path. */
struct content {
    const struct mirror_image *first;
    const char *sha256, *sha512;
};

static bool differs(const char *known, const char *hex)
{
    return known && hex && strcmp(known, hex) != 0;
}

/* Adds what an image says of its file; false when it says something else, or nothing that can be
 * compared. */
static bool content_add(struct content *c, const struct mirror_image *image)
{
    if (image->size != c->first->size || differs(c->sha256, image->sha256) ||
        differs(c->sha512, image->sha512) ||
        !((c->sha256 && image->sha256) || (c->sha512 && image->sha512)))
        return false;
    if (!c->sha256)
        c->sha256 = image->sha256;
    if (!c->sha512)
        c->sha512 = image->sha512;
    return true;
}

static bool check_sorted(const struct mirror_image *const *images, size_t count,
                         struct uvm_error *err)
{
    struct content c = {0};
    for (size_t i = 0; i < count; i++) {
        bool same = c.first && strcmp(c.first->path, images[i]->path) == 0;
        uvm_auto_free char *shown = mirror_brief(images[i]->path);
        if (same && !content_add(&c, images[i]))
            return uvm_fail(err, UVM_CONTENT, "path '%s' comes with two sizes or checksums", shown);
        if (same)
            continue;
        if (c.first && is_folder_of(c.first->path, images[i]->path)) {
            uvm_auto_free char *folder = mirror_brief(c.first->path);
            return uvm_fail(err, UVM_CONTENT, "path '%s' is the folder of another, '%s'", folder,
                            shown);
        }
        c = (struct content){images[i], images[i]->sha256, images[i]->sha512};
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

/* tree.h: an open mirror folder, for the rest of this folder. */
#pragma once

#include <sys/stat.h>

#include "mirror/mirror.h"
#include "mirror/verified.h"

struct mirror_tree {
    char *dir;      /* as the user named it */
    int root_fd;    /* images are opened, made and removed below it, without following links */
    int partial_fd; /* uvmirror/partial; -1 when it is only looked at */
    int lock_fd;    /* the same */
    struct mirror_verified *verified;
};

/* Whether a file with this status, at the image's path, is the image as it was verified. */
bool mirror_tree_knows(const struct mirror_tree *t, const struct mirror_image *image,
                       const struct stat *st);

/* tree.h: an open mirror folder, for the rest of this folder. */
#pragma once

#include "mirror/mirror.h"
#include "mirror/verified.h"

struct mirror_tree {
    char *dir;      /* as the user named it */
    int root_fd;    /* every access below goes through it */
    int partial_fd; /* uvmirror/partial */
    int lock_fd;
    struct mirror_verified *verified;
};

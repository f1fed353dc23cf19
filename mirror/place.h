/* place.h: a single file that the user names, by its name on disk or by its URL. */
#pragma once

#include "mirror/location.h"
#include "mirror/source.h"

struct mirror_place {
    struct mirror_source *source; /* of the folder that holds it */
    char *name;                   /* of the file in it */
    bool remote;                  /* on a web server */
};
void mirror_place_clear(struct mirror_place *place);
#define mirror_auto_place __attribute__((cleanup(mirror_place_clear))) struct mirror_place

/* Opens nothing yet. UVM_USAGE when it is neither a file's name nor a URL of one. */
bool mirror_place_open(const char *where, const struct mirror_network *network,
                       const struct uvm_observer *observer, struct mirror_place *ret_place,
                       struct uvm_error *err);

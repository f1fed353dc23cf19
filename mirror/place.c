/* A single file that the user names. It is read as a file of a source: the folder that holds it. */
#include <string.h>

#include "mirror/place.h"

/* A source has an index; nobody asks this one for it. */
#define NO_INDEX "index.json"

void mirror_place_clear(struct mirror_place *place)
{
    mirror_source_free(place->source);
    free(place->name);
    *place = (struct mirror_place){0};
}

/* The folder alone, so that what is wrong with it is told as something about this file. */
static bool check_folder(const char *folder, bool *ret_remote, struct uvm_error *err)
{
    mirror_auto_location location = {0};
    if (!mirror_location_parse(folder, &location, err))
        return false;
    *ret_remote = !location.folder;
    return true;
}

bool mirror_place_open(const char *where, const struct mirror_network *network,
                       const struct uvm_observer *observer, struct mirror_place *ret_place,
                       struct uvm_error *err)
{
    mirror_auto_place place = {0};
    uvm_auto_free char *folder = NULL;
    if (!mirror_location_split(where, &folder, &place.name, err) ||
        !check_folder(folder, &place.remote, err))
        return false;
    struct mirror_source_options options = {
        .url = folder, .path = NO_INDEX, .network = *network, .observer = observer};
    if (!mirror_source_new(&options, &place.source, err))
        return false;
    *ret_place = place;
    place = (struct mirror_place){0};
    return true;
}

/*
 * Images that the site added itself. Its key vouches for them as for everything in the bundle; for
 * a receiver that does not believe the fetching host, a distribution's signed checksum file does.
 * Such a file knows bytes by name. What the site calls them is its own invention.
 */
#include <string.h>

#include "bundle/internal.h"

#define LOCAL_PRODUCT "local:"

bool bundle_stream_is_local(const struct bundle_stream *s)
{
    return strcmp(s->content_id, MIRROR_LOCAL_ID) == 0;
}

static bool check_image(const struct bundle_image *bundled, struct uvm_error *err)
{
    const struct mirror_image *image = bundled->image;
    uvm_auto_free char *title = mirror_image_title(image);
    if (strncmp(image->product, LOCAL_PRODUCT, strlen(LOCAL_PRODUCT)) != 0)
        return uvm_fail(err, UVM_TRUST,
                        "%s: added by the site as %s, which could be a vendor's product: add it "
                        "under a name that begins with \"" LOCAL_PRODUCT "\"",
                        title, image->product);
    if (!bundled->checksums.member)
        return uvm_fail(err, UVM_TRUST,
                        "%s: added by the site; no distribution vouches for it (add it with its "
                        "signed checksum file, or put it into a bundle of its own)",
                        title);
    return true;
}

bool bundle_local_check(const struct bundle_manifest *m, struct uvm_error *err)
{
    for (size_t i = 0; i < m->image_count; i++)
        if (bundle_stream_is_local(m->images[i].stream) && !check_image(&m->images[i], err))
            return false;
    return true;
}

bool bundle_checksums_check(const struct bundle_image *image, const struct uvm_buf *checksums,
                            const struct uvm_buf *signature, struct uvm_verifier *vendor,
                            struct uvm_signature *ret_sig, struct uvm_error *err)
{
    const struct mirror_origin origin = {
        .checksums = *checksums, .signature = *signature, .name = image->checksums.name};
    if (mirror_origin_check(&origin, image->image, vendor, ret_sig, err))
        return true;
    uvm_auto_free char *title = mirror_image_title(image->image);
    if (err->code == UVM_CONTENT)
        err->code = UVM_TRUST;
    return uvm_prefix(err, "%s: checksum file of the distribution", title);
}

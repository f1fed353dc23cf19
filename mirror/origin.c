/* The distribution's own word for an image that was added: its checksum file, and who signed that. */
#include <errno.h>
#include <string.h>

#include "mirror/model.h"
#include "mirror/place.h"

#define ARMOR_BEGIN "-----BEGIN PGP SIGNED MESSAGE-----"

/* What detached signatures are called beside the file that they sign, the usual ones first. */
static const char *const endings[] = {".gpg", ".sign", ".asc", ".sig"};

void mirror_origin_clear(struct mirror_origin *o)
{
    uvm_buf_clear(&o->checksums);
    uvm_buf_clear(&o->signature);
    free(o->name);
    free(o->signer);
    *o = (struct mirror_origin){0};
}

static bool is_clearsigned(const struct uvm_buf *text)
{
    size_t len = strlen(ARMOR_BEGIN);
    return text->len >= len && memcmp(text->data, ARMOR_BEGIN, len) == 0;
}

/* ---- getting it ---- */

static bool get_text(const struct mirror_origin_request *request, const char *where, size_t max,
                     struct uvm_buf *ret_text, struct uvm_error *err)
{
    mirror_auto_place place = {0};
    return mirror_place_open(where, &request->network, request->observer, &place, err) &&
           mirror_source_get_text(place.source, place.name, max, ret_text, err);
}

/* Looks for a signature under each usual name. Only one that is not there leads to the next. */
static bool seek_signature(const struct mirror_origin_request *request, struct uvm_buf *ret_text,
                           struct uvm_error *err)
{
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        uvm_auto_free char *where = uvm_format("%s%s", request->checksums, endings[i]);
        if (get_text(request, where, MIRROR_SIGNATURE_MAX, ret_text, err))
            return true;
        if (err->sys_errno != ENOENT)
            return false;
        uvm_error_clear(err);
    }
    return uvm_fail(err, UVM_TRUST,
                    "it is not clear-signed, and no signature stands beside it (.gpg, .sign, .asc, "
                    ".sig): name one with --signature");
}

static bool get_signature(const struct mirror_origin_request *request, struct mirror_origin *origin,
                          struct uvm_error *err)
{
    if (request->signature)
        return get_text(request, request->signature, MIRROR_SIGNATURE_MAX, &origin->signature,
                        err) ||
               uvm_prefix(err, "signature");
    if (!(request->flags & MIRROR_ORIGIN_SIGNED) || is_clearsigned(&origin->checksums))
        return true;
    return seek_signature(request, &origin->signature, err);
}

bool mirror_origin_get(const struct mirror_origin_request *request,
                       struct mirror_origin *ret_origin, struct uvm_error *err)
{
    mirror_auto_origin origin = {0};
    uvm_auto_free char *folder = NULL;
    if (!mirror_location_split(request->image, &folder, &origin.name, err))
        return false;
    if (!get_text(request, request->checksums, MIRROR_CHECKSUMS_MAX, &origin.checksums, err) ||
        !get_signature(request, &origin, err))
        return uvm_prefix(err, "checksum file");
    *ret_origin = origin;
    origin = (struct mirror_origin){0};
    return true;
}

/* ---- what it says ---- */

/* The lines of a checksum file, verified if there is a verifier. */
static bool read_lines(const struct mirror_origin *origin, struct uvm_verifier *verifier,
                       struct uvm_buf *ret_text, struct uvm_signature *ret_sig,
                       struct uvm_error *err)
{
    const struct uvm_buf *text = &origin->checksums, *sig = &origin->signature;
    if (!verifier)
        return uvm_cleartext_body(text->data, text->len, ret_text, err);
    if (sig->len == 0)
        return uvm_verifier_clearsigned(verifier, text->data, text->len, ret_text, ret_sig, err);
    return uvm_verifier_detached(verifier, text->data, text->len, sig->data, sig->len, ret_sig,
                                 err) &&
           uvm_buf_add(ret_text, text->data, text->len, err);
}

bool mirror_origin_read(const struct mirror_origin *origin, struct uvm_verifier *verifier,
                        enum uvm_digest_type *ret_type, char ret_hex[UVM_DIGEST_HEX_MAX],
                        struct uvm_signature *ret_sig, struct uvm_error *err)
{
    uvm_auto_buf lines = {.max = MIRROR_CHECKSUMS_MAX};
    uvm_auto_signature sig = {0};
    if (!read_lines(origin, verifier, &lines, &sig, err))
        return uvm_prefix(err, "checksum file");
    if (!mirror_checksums_find(lines.data, lines.len, origin->name, ret_type, ret_hex, err))
        return false;
    if (ret_sig) {
        *ret_sig = sig;
        sig = (struct uvm_signature){0};
    }
    return true;
}

bool mirror_origin_check(const struct mirror_origin *origin, const struct mirror_image *image,
                         struct uvm_verifier *verifier, struct uvm_signature *ret_sig,
                         struct uvm_error *err)
{
    enum uvm_digest_type type;
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_auto_signature sig = {0};
    if (!verifier)
        return uvm_fail(err, UVM_TRUST, "there is no key to check the checksum file with");
    if (!mirror_origin_read(origin, verifier, &type, hex, &sig, err)) {
        if (err->code == UVM_CONTENT)
            err->code = UVM_TRUST;
        return false;
    }
    const char *stated = type == UVM_SHA512 ? image->sha512 : image->sha256;
    if (!stated || strcmp(stated, hex) != 0) {
        uvm_auto_free char *title = mirror_image_title(image);
        return uvm_fail(err, UVM_TRUST, "%s is not what its distribution's checksum file names",
                        title);
    }
    *ret_sig = sig;
    sig = (struct uvm_signature){0};
    return true;
}

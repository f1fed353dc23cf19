/* uvmirror add: an image that no stream lists -> the mirror's own stream. */
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cmd/cmd.h"

struct add_options {
    struct cmd_common common;
    struct mirror_network network;
    const char *mirror, *sha256, *checksums, *signature;
    struct uvm_strings keyrings;
    uint64_t max_virtual;
    bool remove, dry_run;
};

static const struct add_options add_defaults = {.network = MIRROR_NETWORK_DEFAULT};

static const struct cmd_option add_options[] = {
    CMD_MIRROR_OPTION(struct add_options, mirror),
    {"sha256", 0, CMD_TEXT, "HEX", "the image's SHA-256 sum must be this one",
     offsetof(struct add_options, sha256)},
    {"checksums", 0, CMD_TEXT, "FILE",
     "file or URL of the distribution's SHA256SUMS, SHA512SUMS or CHECKSUM, which must name the "
     "image; it travels with it",
     offsetof(struct add_options, checksums)},
    {"signature", 0, CMD_TEXT, "FILE",
     "file or URL of the checksum file's detached signature (default, with --keyring: in it or "
     "beside it, as .gpg, .sign, .asc or .sig)",
     offsetof(struct add_options, signature)},
    {"keyring", 0, CMD_LIST, "FILE", "the checksum file must be signed by a key in this file",
     offsetof(struct add_options, keyrings)},
    {"max-virtual-size", 0, CMD_BYTES, "SIZE", "refuse an image with a larger disk (default 64T)",
     offsetof(struct add_options, max_virtual)},
    {"remove", 0, CMD_FLAG, NULL,
     "take the added images that match all FILTERs out of the mirror again",
     offsetof(struct add_options, remove)},
    {"dry-run", 'n', CMD_FLAG, NULL, "with --remove: say what would go, change nothing",
     offsetof(struct add_options, dry_run)},
    CMD_NETWORK_OPTIONS(struct add_options),
    CMD_COMMON_OPTIONS(struct add_options),
    {0},
};

/* ---- the command line ---- */

static bool is_pair(const char *text)
{
    return text[strcspn(text, "=/")] == '=';
}

static bool check_options(const struct add_options *o, const struct uvm_strings *args,
                          struct uvm_error *err)
{
    bool vouched = o->sha256 || o->checksums || o->signature || o->keyrings.count;
    if (o->remove && vouched)
        return uvm_fail(err, UVM_USAGE, "--remove takes filters, such as release=bookworm, alone");
    if (args->count == 0)
        return uvm_fail(err, UVM_USAGE,
                        o->remove ? "which images? --remove wants a filter" : "which image?");
    if (!o->remove && is_pair(args->items[0]) && access(args->items[0], F_OK) < 0)
        return uvm_fail(err, UVM_USAGE, "which image? It stands in front of KEY=VALUE");
    if (o->dry_run && !o->remove)
        return uvm_fail(err, UVM_USAGE, "--dry-run goes with --remove");
    if (!o->checksums && (o->signature || o->keyrings.count))
        return uvm_fail(err, UVM_USAGE,
                        "--signature and --keyring are about the file that --checksums names");
    return true;
}

static bool add_pair(json_t *metadata, const char *text, struct uvm_error *err)
{
    const char *equals = strchr(text, '=');
    uvm_auto_free char *shown = uvm_printable(text);
    if (!equals || equals == text)
        return uvm_fail(err, UVM_USAGE, "'%s' is not KEY=VALUE", shown);
    uvm_auto_free char *key = uvm_strndup(text, (size_t)(equals - text));
    if (json_object_get(metadata, key))
        return uvm_fail(err, UVM_USAGE, "'%s': the key is given twice", shown);
    if (json_object_set_new(metadata, key, json_string(equals + 1)) < 0)
        return uvm_fail(err, UVM_USAGE, "'%s' is not UTF-8", shown);
    return true;
}

static bool read_pairs(const struct uvm_strings *args, json_t *metadata, struct uvm_error *err)
{
    for (size_t i = 1; i < args->count; i++)
        if (!add_pair(metadata, args->items[i], err))
            return false;
    return true;
}

static char *lower_case(const char *hex)
{
    char *copy = uvm_strdup(hex);
    for (char *p = copy; p && *p; p++)
        if (*p >= 'A' && *p <= 'F')
            *p = (char)(*p - 'A' + 'a');
    return copy;
}

/* ---- what vouches for the bytes ---- */

static bool starts_with(const char *text, const char *scheme)
{
    return text && strncasecmp(text, scheme, strlen(scheme)) == 0;
}

/* Anybody on the way may change what comes over http. */
static bool check_ways(const struct add_options *o, const char *image, struct uvm_error *err)
{
    static const char http[] = "http://", https[] = "https://";
    if (starts_with(o->checksums, http) && !o->keyrings.count)
        return uvm_fail(err, UVM_USAGE,
                        "a checksum file from http:// proves nothing unless its signature is "
                        "checked: give --keyring, or use https://");
    if (starts_with(image, http) && !o->sha256 && !o->checksums)
        return uvm_fail(err, UVM_USAGE,
                        "an image from http:// can be changed on its way: give --sha256 or "
                        "--checksums, or use https://");
    if (starts_with(image, https) && !o->sha256 && !o->checksums)
        uvm_warning(cmd_observer(),
                    "nothing but the web server vouches for this image: --sha256 or --checksums "
                    "would");
    if (o->checksums && !o->keyrings.count)
        uvm_warning(cmd_observer(),
                    "the checksum file's signature is not checked: --keyring would");
    return true;
}

static bool get_origin(const struct add_options *o, const char *image,
                       struct mirror_origin *ret_origin, struct uvm_error *err)
{
    struct mirror_origin_request request = {
        .checksums = o->checksums,
        .signature = o->signature,
        .image = image,
        .flags = o->keyrings.count ? MIRROR_ORIGIN_SIGNED : 0,
        .network = o->network,
        .observer = cmd_observer(),
    };
    return !o->checksums || mirror_origin_get(&request, ret_origin, err);
}

static bool open_verifier(const struct add_options *o, struct uvm_verifier **ret_verifier,
                          struct uvm_error *err)
{
    if (o->keyrings.count == 0)
        return true;
    if (!uvm_verifier_new(&o->keyrings, ret_verifier, err))
        return uvm_prefix(err, "--keyring");
    uvm_verifier_advise(*ret_verifier, "its keys are given by --keyring");
    return true;
}

/* ---- adding ---- */

/* Who signed the checksum file that it came with; NULL = nobody, as far as is known. The caller
 * frees it. */
static bool find_signer(struct mirror_tree *tree, const struct mirror_image *image,
                        char **ret_signer, struct uvm_error *err)
{
    mirror_auto_origin origin = {0};
    if (!mirror_tree_origin(tree, image, &origin, err))
        return err->code == UVM_OK;
    *ret_signer = UVM_STEAL(origin.signer);
    return true;
}

static bool print_added(struct mirror_tree *tree, const struct mirror_image *image,
                        struct uvm_error *err)
{
    uvm_auto_free char *signer = NULL, *title = mirror_image_title(image),
                       *size = uvm_size_text(image->size);
    const char *hex;
    enum uvm_digest_type type = mirror_image_digest(image, &hex);
    if (!find_signer(tree, image, &signer, err))
        return false;
    cmd_print("added %s: %s, %s %s%s%s", title, size, type == UVM_SHA512 ? "SHA-512" : "SHA-256",
              hex, signer ? ", signed by " : "", signer ? signer : "");
    cmd_print_json(json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:s*, s:s?}", "event", "result",
                             "product", image->product, "version", image->version, "path",
                             image->path, "size", (json_int_t)image->size, "sha256", image->sha256,
                             "sha512", image->sha512, "signer", signer));
    return true;
}

static bool add_image(const struct add_options *o, const struct uvm_strings *args,
                      struct uvm_error *err)
{
    const char *image = args->items[0];
    mirror_auto_json *metadata = json_object();
    mirror_auto_origin origin = {0};
    UVM_AUTO(uvm_verifier_free) struct uvm_verifier *verifier = NULL;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = NULL;
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image added = {0};
    uvm_auto_free char *sha256 = lower_case(o->sha256),
                       *dir = cmd_mirror_dir(&o->common, o->mirror);
    if (!read_pairs(args, metadata, err) || !check_ways(o, image, err) ||
        !open_verifier(o, &verifier, err) || !mirror_tree_open(dir, &tree, err) ||
        !get_origin(o, image, &origin, err))
        return false;
    struct mirror_addition addition = {
        .image = image,
        .metadata = metadata,
        .sha256 = sha256,
        .origin = o->checksums ? &origin : NULL,
        .verifier = verifier,
        .max_virtual = o->max_virtual,
        .network = o->network,
        .observer = cmd_observer(),
    };
    return mirror_tree_add(tree, &addition, time(NULL), &added, err) &&
           print_added(tree, &added, err);
}

/* ---- taking out ---- */

static void print_removal(const struct mirror_image *image, bool dry_run)
{
    uvm_auto_free char *title = mirror_image_title(image), *size = uvm_size_text(image->size);
    cmd_print("%s %s: %s", dry_run ? "would remove" : "removed", title, size);
    cmd_print_json(json_pack("{s:s, s:s, s:s, s:s, s:I, s:b}", "event", "removed", "product",
                             image->product, "version", image->version, "path", image->path, "size",
                             (json_int_t)image->size, "dry_run", dry_run));
}

static void print_removals(const struct mirror_selection *selection, bool dry_run)
{
    for (size_t i = 0; i < selection->count; i++)
        for (size_t k = 0; k < selection->products[i].image_count; k++)
            print_removal(&selection->products[i].images[k], dry_run);
}

/* What the filters let through of the images that were added. */
static bool find_added(struct mirror_tree *tree, const struct mirror_filters *filters,
                       struct mirror_selection *ret_selection, struct uvm_error *err)
{
    struct mirror_stream **streams;
    size_t count;
    bool ok = true;
    if (!mirror_tree_held_streams(tree, &streams, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(streams[i]->content_id, MIRROR_LOCAL_ID) == 0)
            ok = mirror_stream_select(streams[i], filters, 0, ret_selection, err);
        mirror_stream_free(streams[i]);
    }
    free(streams);
    return ok;
}

static bool remove_images(const struct add_options *o, const struct uvm_strings *args,
                          struct uvm_error *err)
{
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = NULL;
    mirror_auto_selection added = {0};
    mirror_auto_removed removed = {0};
    uvm_auto_free char *asked = cmd_join(args, " ");
    if (!mirror_filters_new((const char *const *)args->items, args->count, NULL, &filters, err) ||
        !cmd_mirror_open(&o->common, o->mirror, o->dry_run ? CMD_MIRROR_LOOK : CMD_MIRROR_CHANGE,
                         &tree, err) ||
        !find_added(tree, filters, &added, err))
        return false;
    if (added.count == 0)
        return uvm_fail(err, UVM_FAILED, "no image that was added matches %s", asked);
    if (!o->dry_run &&
        !mirror_tree_add_remove(tree, filters, time(NULL), cmd_observer(), &removed, err))
        return false;
    print_removals(&added, o->dry_run);
    return true;
}

static bool run_add(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct add_options *o = options;
    return check_options(o, args, err) &&
           (o->remove ? remove_images(o, args, err) : add_image(o, args, err));
}

const struct cmd_command cmd_add = {
    .name = "add",
    .args = "[OPTION...] IMAGE KEY=VALUE...",
    .summary = "put a qcow2 that no stream lists into the mirror",
    .details =
        "Takes IMAGE, a file or URL of a qcow2 (a golden image of the site, another "
        "distribution's cloud image), into the mirror, from where it travels like any other. "
        "release=, arch= and version= name it; label= is 'local' and product= is "
        "'local:<release>:<arch>' unless given; other keys are at will. With --remove: "
        "'uvmirror add --remove FILTER...'.",
    .private = true,
    .interrupted = "nothing was added",
    .options = add_options,
    .options_size = sizeof(struct add_options),
    .defaults = &add_defaults,
    .run = run_add,
};

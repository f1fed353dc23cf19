/* Where a bundle goes, and how much room it takes there. */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/internal.h"

/* ---- the place ---- */

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *bundle_path_in(const char *folder, const char *name)
{
    size_t len = strlen(folder);
    while (len > 1 && folder[len - 1] == '/')
        len--;
    return uvm_format("%.*s%s%s", (int)len, folder, folder[len - 1] == '/' ? "" : "/", name);
}

char *bundle_output_path(const char *output, const struct bundle_manifest *m)
{
    if (!is_folder(output))
        return uvm_strdup(output);
    uvm_auto_free char *name = bundle_file_name(m);
    return bundle_path_in(output, name);
}

/* "NAME", "NAME.001", "NAME.sums", ".NAME.uvm-XXXXXX" */
static bool is_named(const char *entry, const char *name)
{
    size_t len = strlen(name);
    entry += entry[0] == '.';
    return strncmp(entry, name, len) == 0 && (entry[len] == 0 || entry[len] == '.');
}

bool bundle_output_is_taken(const char *output, const struct bundle_manifest *m)
{
    uvm_auto_free char *name = bundle_file_name(m);
    DIR *dir = strcmp(output, "-") == 0 ? NULL : opendir(output); /* a file has its own name */
    bool taken = false;
    if (!dir)
        return false;
    for (struct dirent *entry; !taken && (entry = readdir(dir));)
        taken = is_named(entry->d_name, name);
    closedir(dir);
    return taken;
}

char *bundle_output_folder(const char *output)
{
    if (strcmp(output, "-") == 0)
        return NULL;
    return is_folder(output) ? uvm_strdup(output) : uvm_dirname(output);
}

/* What the mirror holds has its places there; a bundle would take one of them. */
static bool is_within(const char *folder, const char *mirror)
{
    uvm_auto_free char *inner = realpath(folder, NULL), *outer = realpath(mirror, NULL);
    size_t len = outer ? strlen(outer) : 0;
    return inner && outer && strncmp(inner, outer, len) == 0 &&
           (inner[len] == '/' || inner[len] == 0);
}

bool bundle_output_check(const char *output, const struct mirror_tree *tree, struct uvm_error *err)
{
    uvm_auto_free char *folder = bundle_output_folder(output);
    struct stat st;
    if (!folder && isatty(STDOUT_FILENO))
        return uvm_fail(err, UVM_USAGE,
                        "standard output is a terminal: give a file, a folder or a pipe");
    if (!folder)
        return true;
    if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot write in folder %s", folder);
    if (is_within(folder, mirror_tree_dir(tree)))
        return uvm_fail(err, UVM_USAGE, "%s is in the mirror folder: give another place (-o)",
                        output);
    if (stat(output, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return uvm_fail(err, UVM_USAGE, "%s is not a regular file: '-o -' writes into a pipe",
                        output);
    return true;
}

/* ---- the room ---- */

#define TAR_OVERHEAD   ((uint64_t)4096) /* headers (extended ones, too) and padding of a member */
#define SIGNATURE_SIZE ((uint64_t)8192) /* armor around a text */

/* An image's share of the manifest: its metadata, indented, and the fields around them. */
static uint64_t manifest_share(const struct mirror_image *image)
{
    uvm_auto_free char *text = json_dumps(image->metadata, JSON_INDENT(4));
    return (text ? strlen(text) : 0) + strlen(image->path) * 2 + 2048;
}

static uint64_t payload_share(const struct mirror_image *image, const struct bundle_have *have)
{
    return have && bundle_have_everywhere(have, image) ? 0 : image->size + TAR_OVERHEAD;
}

static uint64_t products_share(const struct mirror_product *product, const struct bundle_have *have)
{
    uint64_t bytes = 1024;
    for (size_t i = 0; i < product->versions.count; i++)
        bytes += strlen(product->versions.items[i]) + 16;
    for (size_t i = 0; i < product->image_count; i++)
        bytes += manifest_share(&product->images[i]) + payload_share(&product->images[i], have);
    return bytes;
}

/* What images that the site added may bring with them. */
static uint64_t checksums_share(const struct mirror_stream *stream,
                                const struct mirror_selection *selection)
{
    uint64_t bytes = 0;
    if (!bundle_is_own(stream))
        return 0;
    for (size_t p = 0; p < selection->count; p++)
        bytes += selection->products[p].image_count *
                 (MIRROR_CHECKSUMS_MAX + MIRROR_SIGNATURE_MAX + 2 * TAR_OVERHEAD);
    return bytes;
}

uint64_t bundle_estimate(const struct bundle_create_options *o)
{
    uint64_t bytes = 4 * (TAR_OVERHEAD + SIGNATURE_SIZE);
    for (size_t i = 0; i < o->stream_count; i++) {
        const struct mirror_selection *selection = &o->selections[i];
        uvm_auto_free char *reduced = mirror_stream_reduce(o->streams[i], selection);
        bytes += o->streams[i]->origin.len + 2 * strlen(reduced) + 2 * SIGNATURE_SIZE +
                 3 * TAR_OVERHEAD + checksums_share(o->streams[i], selection);
        for (size_t p = 0; p < selection->count; p++)
            bytes += products_share(&selection->products[p], o->have);
    }
    return bytes + bytes / 256; /* more than the headers of zstd blocks */
}

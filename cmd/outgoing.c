/* What fetch and bundle have in common: from streams and selections to a signed bundle. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"

char *cmd_mirror_dir(const struct cmd_common *common, const char *given)
{
    if (given)
        return uvm_strdup(given);
    uvm_auto_free char *own = cmd_own_dir(common);
    return uvm_format("%s/mirror", own);
}

bool cmd_mirror_open(const struct cmd_common *common, const char *given,
                     enum cmd_mirror_access mode, struct mirror_tree **ret_tree,
                     struct uvm_error *err)
{
    uvm_auto_free char *dir = cmd_mirror_dir(common, given);
    uvm_auto_free char *own = uvm_format("%s/uvmirror", dir);
    if (access(own, F_OK) < 0)
        return uvm_fail_errno(err, UVM_FAILED,
                              "%s is not a mirror folder ('uvmirror fetch' and 'uvmirror add' fill "
                              "one)",
                              dir);
    return mode == CMD_MIRROR_LOOK ? mirror_tree_look(dir, ret_tree, err)
                                   : mirror_tree_open(dir, ret_tree, err);
}

void cmd_outgoing_clear(struct cmd_outgoing *out)
{
    for (size_t i = 0; i < out->count; i++) {
        if (out->selections)
            mirror_selection_clear(&out->selections[i]);
        mirror_stream_free(out->streams[i]);
    }
    free(out->selections);
    free(out->streams);
    mirror_tree_free(out->tree);
    uvm_signer_free(out->signer);
    mirror_filters_free(out->filters);
    bundle_have_clear(&out->have);
}

const char *cmd_outgoing_output(const struct cmd_outgoing *out)
{
    return out->options->output ? out->options->output : ".";
}

static bool open_signer(const struct cmd_outgoing *out, struct uvm_signer **ret_signer,
                        struct uvm_error *err)
{
    const struct cmd_outgoing_options *o = out->options;
    uvm_auto_free char *state = cmd_state_dir(out->common);
    uvm_auto_free char *home = o->homedir ? uvm_strdup(o->homedir) : uvm_format("%s/gnupg", state);
    UVM_AUTO(uvm_signer_free) struct uvm_signer *signer = NULL;
    if (!uvm_signer_new(home, o->sign_key, &signer, err) || !uvm_signer_check_clock(signer, err))
        return uvm_prefix(err, "%s", home);
    *ret_signer = UVM_STEAL(signer);
    return true;
}

/* Without a key there is no bundle, whatever is downloaded. */
bool cmd_outgoing_prepare(struct cmd_outgoing *out, struct uvm_error *err)
{
    const struct cmd_outgoing_options *o = out->options;
    if (out->common->json && strcmp(cmd_outgoing_output(out), "-") == 0)
        return uvm_fail(err, UVM_USAGE, "--json and a bundle cannot both go to standard output");
    if (!cmd_outgoing_check_format(out, err) || !cmd_outgoing_check_split(out, err))
        return false;
    if (o->dry_run)
        return true;
    return open_signer(out, &out->signer, err) &&
           bundle_output_check(cmd_outgoing_output(out), out->tree, err);
}

void cmd_outgoing_drop_empty(struct cmd_outgoing *out)
{
    size_t kept = 0;
    for (size_t i = 0; i < out->count; i++) {
        if (out->selections[i].count == 0) {
            mirror_selection_clear(&out->selections[i]);
            mirror_stream_free(out->streams[i]);
            continue;
        }
        out->streams[kept] = out->streams[i];
        out->selections[kept++] = out->selections[i];
    }
    out->count = kept;
}

const struct mirror_image **cmd_outgoing_images(const struct cmd_outgoing *out, size_t *ret_count)
{
    size_t total = 0, n = 0;
    for (size_t i = 0; i < out->count; i++)
        for (size_t p = 0; p < out->selections[i].count; p++)
            total += out->selections[i].products[p].image_count;
    const struct mirror_image **images = uvm_alloc((total ? total : 1) * sizeof *images);
    for (size_t i = 0; i < out->count; i++)
        for (size_t p = 0; p < out->selections[i].count; p++) {
            const struct mirror_product *product = &out->selections[i].products[p];
            for (size_t m = 0; m < product->image_count; m++)
                images[n++] = &product->images[m];
        }
    *ret_count = total;
    return images;
}

/* ---- room ---- */

static struct bundle_create_options create_options(const struct cmd_outgoing *out)
{
    const struct cmd_outgoing_options *o = out->options;
    int level = o->compress_level ? (int)o->compress_level : BUNDLE_COMPACT_LEVEL;
    return (struct bundle_create_options){
        .tree = out->tree,
        .streams = (const struct mirror_stream *const *)out->streams,
        .selections = out->selections,
        .stream_count = out->count,
        .filters = mirror_filters_text(out->filters),
        .signer = out->signer,
        .now = time(NULL),
        .output = cmd_outgoing_output(out),
        .read_back = cmd_outgoing_read_back(o),
        .compact_level = o->compact ? level : 0,
        .have = out->have.count ? &out->have : NULL,
        .observer = cmd_observer(),
    };
}

uint64_t cmd_outgoing_estimate(const struct cmd_outgoing *out)
{
    struct bundle_create_options options = create_options(out);
    return bundle_estimate(&options);
}

static bool check_room(const char *what, const char *dir, uint64_t need, struct uvm_error *err)
{
    uint64_t free_bytes;
    if (!uvm_free_space(dir, &free_bytes, err))
        return false;
    if (need <= free_bytes)
        return true;
    uvm_auto_free char *needed = uvm_size_text(need), *there = uvm_size_text(free_bytes);
    return uvm_fail(err, UVM_SPACE, "%s: the %s needs %s, and %s are free", dir, what, needed,
                    there);
}

/* A dry run makes no folder: the one above it that is there has the room. */
static char *existing_folder(const char *path)
{
    char *folder = uvm_strdup(path);
    while (access(folder, F_OK) < 0 && strcmp(folder, "/") != 0 && strcmp(folder, ".") != 0) {
        char *above = uvm_dirname(folder);
        free(folder);
        folder = above;
    }
    return folder;
}

static char *mirror_folder(const struct cmd_outgoing *out)
{
    uvm_auto_free char *dir = out->tree ? uvm_strdup(mirror_tree_dir(out->tree))
                                        : cmd_mirror_dir(out->common, out->options->mirror);
    return existing_folder(dir);
}

static bool one_file_system(const char *a, const char *b)
{
    struct stat st_a, st_b;
    return stat(a, &st_a) == 0 && stat(b, &st_b) == 0 && st_a.st_dev == st_b.st_dev;
}

bool cmd_outgoing_check_room(const struct cmd_outgoing *out, uint64_t mirror_bytes,
                             enum cmd_outgoing_room room, struct uvm_error *err)
{
    uvm_auto_free char *mirror = mirror_folder(out),
                       *folder = room == CMD_ROOM_BOTH
                                     ? bundle_output_folder(cmd_outgoing_output(out))
                                     : NULL;
    uint64_t bundle = folder ? cmd_outgoing_estimate(out) : 0, part_size;
    if (folder && !cmd_outgoing_part_size(out, &part_size, err))
        return false;
    if (folder && one_file_system(mirror, folder))
        return check_room(mirror_bytes ? "mirror with the bundle" : "bundle", folder,
                          mirror_bytes + bundle, err);
    return (!mirror_bytes || check_room("mirror", mirror, mirror_bytes, err)) &&
           (!folder || check_room("bundle", folder, bundle, err));
}

/* ---- the bundle ---- */

/* All files that belong to it. */
static void list_files(const struct bundle_created *created, struct uvm_strings *files)
{
    for (size_t n = 1; n <= created->parts; n++) {
        uvm_auto_free char *part = uvm_format("%s.%03zu", created->path, n);
        uvm_strings_add(files, part);
    }
    uvm_auto_free char *last =
        created->parts ? uvm_format("%s.sums", created->path) : uvm_strdup(created->path);
    uvm_strings_add(files, last);
}

static void print_created(const struct bundle_created *created)
{
    uvm_auto_strings files = {0}, safe_files = {0};
    list_files(created, &files);
    for (size_t i = 0; i < files.count; i++) {
        uvm_auto_free char *safe = uvm_printable(files.items[i]);
        uvm_strings_add(&safe_files, safe);
        cmd_print("%s", files.items[i]);
    }
    if (created->read_back)
        cmd_note("OK on the medium: every byte was read back; it is safe to remove once unmounted");
    cmd_print_json(
        json_pack("{s:s, s:s, s:o, s:s, s:I, s:I, s:I, s:b, s:s}", "event", "result", "file",
                  safe_files.items[0], "files", cmd_strings_json(&safe_files), "id",
                  created->manifest->id, "format", (json_int_t)created->manifest->format, "serial",
                  (json_int_t)created->manifest->serial, "bytes", (json_int_t)created->bytes,
                  "read_back", created->read_back, "signer", created->manifest->signer));
}

bool cmd_outgoing_write(const struct cmd_outgoing *out, struct mirror_download *download,
                        struct uvm_error *err)
{
    struct bundle_create_options options = create_options(out);
    options.download = download;
    __attribute__((cleanup(bundle_created_clear))) struct bundle_created created = {0};
    if (!cmd_outgoing_part_size(out, &options.part_size, err) ||
        !bundle_create(&options, &created, err))
        return uvm_prefix(err, "bundle");
    cmd_note("signed %zu image%s with %s", created.manifest->image_count,
             created.manifest->image_count == 1 ? "" : "s", created.manifest->signer);
    if (created.path)
        print_created(&created);
    return true;
}

/* ---- what a person sees of it ---- */

size_t cmd_outgoing_print(const struct cmd_outgoing *out)
{
    size_t count;
    uvm_auto_free const struct mirror_image **images = cmd_outgoing_images(out, &count);
    for (size_t i = 0; i < count; i++) {
        const struct mirror_image *image = images[i];
        bool have = out->tree && mirror_tree_has(out->tree, image);
        bool carried = !out->have.count || !bundle_have_everywhere(&out->have, image);
        uvm_auto_free char *title = mirror_image_title(image), *size = uvm_size_text(image->size);
        cmd_print("%s  %s, %s%s", title, size, have ? "in the mirror" : "to download",
                  carried ? "" : ", not to be carried");
        cmd_print_json(json_pack("{s:s, s:s, s:s, s:s, s:I, s:b, s:b}", "event", "plan", "product",
                                 image->product, "version", image->version, "path", image->path,
                                 "size", (json_int_t)image->size, "in_mirror", have, "carried",
                                 carried));
    }
    return count;
}

static void print_totals(const struct cmd_outgoing *out, enum cmd_outgoing_room room,
                         const struct uvm_signer *signer, uint64_t *ret_missing)
{
    size_t count, missing = 0;
    uint64_t bytes = 0, missing_bytes = 0;
    uvm_auto_free const struct mirror_image **images = cmd_outgoing_images(out, &count);
    for (size_t i = 0; i < count; i++) {
        bool have = out->tree && mirror_tree_has(out->tree, images[i]);
        bytes += images[i]->size;
        missing += !have;
        missing_bytes += have ? 0 : images[i]->size;
    }
    uint64_t bundle = room == CMD_ROOM_BOTH ? cmd_outgoing_estimate(out) : 0;
    cmd_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:s?}", "event", "total", "images",
                             (json_int_t)count, "bytes", (json_int_t)bytes, "to_download",
                             (json_int_t)missing, "download_bytes", (json_int_t)missing_bytes,
                             "bundle_bytes_max", (json_int_t)bundle, "signer",
                             signer ? uvm_signer_fingerprint(signer) : NULL));
    *ret_missing = missing_bytes;
}

static void warn_read_only(const struct cmd_outgoing *out)
{
    if (!out->tree)
        return;
    uvm_auto_free char *own = uvm_format("%s/uvmirror", mirror_tree_dir(out->tree));
    if (access(own, W_OK) < 0)
        uvm_warning(cmd_observer(), "the run itself would fail: mirror folder %s: %s",
                    mirror_tree_dir(out->tree), strerror(errno));
}

void cmd_outgoing_forecast(const struct cmd_outgoing *out, enum cmd_outgoing_room room)
{
    uvm_auto_error no_key = UVM_ERROR_INIT, no_room = UVM_ERROR_INIT;
    UVM_AUTO(uvm_signer_free) struct uvm_signer *signer = NULL;
    uint64_t missing = 0;
    bool bundle = room == CMD_ROOM_BOTH, can_sign = bundle && open_signer(out, &signer, &no_key);
    print_totals(out, room, signer, &missing);
    if (can_sign)
        cmd_print("it would be signed with %s", uvm_signer_fingerprint(signer));
    if (bundle && !can_sign)
        uvm_warning(cmd_observer(), "the run itself would fail: %s", no_key.message);
    warn_read_only(out);
    if (!cmd_outgoing_check_room(out, missing, room, &no_room))
        uvm_warning(cmd_observer(), "the run itself would fail: %s", no_room.message);
}

void cmd_print_removed(const struct mirror_removed *removed, bool dry_run)
{
    uvm_auto_free char *size = uvm_size_text(removed->bytes);
    for (size_t i = 0; i < removed->paths.count; i++) {
        uvm_auto_free char *path = uvm_printable(removed->paths.items[i]);
        if (dry_run)
            cmd_print("would remove %s from the mirror", path);
        else
            cmd_detail("removed %s from the mirror", path);
        cmd_print_json(
            json_pack("{s:s, s:s, s:b}", "event", "removed", "path", path, "dry_run", dry_run));
    }
    if (removed->paths.count && !dry_run)
        cmd_note("removed %zu superseded file%s from the mirror, %s", removed->paths.count,
                 removed->paths.count == 1 ? "" : "s", size);
}

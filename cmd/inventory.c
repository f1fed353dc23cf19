/* uvmirror inventory: what this host has, for 'uvmirror fetch --have'. */
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

#define NAME_BYTES 256

struct inventory_options {
    struct cmd_common common;
    struct cmd_host host;
    const char *output;
};

static const struct cmd_option inventory_options[] = {
    {"output", 'o', CMD_TEXT, "FILE", "write to FILE instead of standard output",
     offsetof(struct inventory_options, output)},
    CMD_HOST_OPTIONS(struct inventory_options),
    CMD_COMMON_OPTIONS(struct inventory_options),
    {0},
};

/* ---- gathering ---- */

static char *host_name(void)
{
    char name[NAME_BYTES] = "";
    gethostname(name, sizeof name - 1);
    return uvm_printable(name[0] ? name : "unknown");
}

static char *checksum(const struct pool_entry *e, const char *key, enum uvm_digest_type type)
{
    const char *hex = json_string_value(json_object_get(e->metadata, key));
    return uvm_strdup(hex && uvm_digest_valid(type, hex) ? hex : NULL);
}

/* An image without its volume, or whose metadata was retired, cannot be counted on: the first is
 * broken, the second goes with its last guest. */
static void add_stock(struct bundle_inventory *i, const struct pool_survey *survey)
{
    i->stock = uvm_alloc((survey->count + 1) * sizeof *i->stock);
    for (size_t n = 0; n < survey->count; n++) {
        const struct pool_entry *e = &survey->entries[n];
        if (e->state != POOL_READY || !e->metadata)
            continue;
        i->stock[i->stock_count++] =
            (struct bundle_stock){.product = uvm_strdup(e->product),
                                  .version = uvm_strdup(e->version),
                                  .sha256 = checksum(e, "sha256", UVM_SHA256),
                                  .sha512 = checksum(e, "sha512", UVM_SHA512)};
    }
}

/* Whoever fetches should sign with one of these. None is no reason to have no inventory. */
static bool add_trusted(struct bundle_inventory *i, const struct cmd_common *common,
                        struct uvm_error *err)
{
    const struct uvm_strings none = {0};
    uvm_auto_strings keyrings = {0};
    uvm_auto_error no_keys = UVM_ERROR_INIT;
    if (!cmd_trusted_keyrings(common, &none, &keyrings, &no_keys))
        return true;
    for (size_t n = 0; n < keyrings.count; n++) {
        uvm_auto_buf bytes = {0};
        uvm_auto_keys keys = {0};
        if (!uvm_file_read(keyrings.items[n], UVM_KEYRING_MAX, &bytes, err) ||
            !uvm_keys_read(bytes.data, bytes.len, &keys, err))
            return uvm_prefix(err, "%s", keyrings.items[n]);
        for (size_t k = 0; k < keys.count; k++)
            uvm_strings_add(&i->trusted, keys.items[k].fingerprint);
    }
    return true;
}

static bool gather(const struct inventory_options *o, struct bundle_inventory *i,
                   struct uvm_error *err)
{
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    struct pool_options options;
    UVM_AUTO(pool_free) struct pool *pool = NULL;
    pool_auto_survey survey = {0};
    if (!cmd_pool_options(&o->host, state, &options, err) || !pool_open(&options, &pool, err) ||
        !pool_survey_take(pool, &survey, err) || !pool_free_bytes(pool, &i->free_bytes, err) ||
        !add_trusted(i, &o->common, err) || !uvm_go_on(cmd_observer(), err))
        return false;
    add_stock(i, &survey);
    i->host = host_name();
    i->created = time(NULL);
    i->architecture = uvm_strdup(mirror_host_arch());
    i->format = BUNDLE_FORMAT;
    i->serial = pool_newest_serial(state);
    return true;
}

/* ---- writing ---- */

static bool write_inventory(const struct inventory_options *o, const struct bundle_inventory *i,
                            struct uvm_error *err)
{
    uvm_auto_free char *text = bundle_inventory_text(i);
    bool to_file = o->output && strcmp(o->output, "-") != 0;
    if (to_file && !uvm_file_replace(o->output, 0644, text, strlen(text), err))
        return false;
    if (to_file)
        cmd_print("%s", o->output);
    else
        cmd_print("%.*s", (int)strlen(text) - 1, text);
    cmd_note("%zu image%s; it holds no secrets, and can be read before it leaves this site",
             i->stock_count, i->stock_count == 1 ? "" : "s");
    cmd_print_json(json_pack("{s:s, s:s?, s:I, s:s}", "event", "result", "file",
                             to_file ? o->output : NULL, "images", (json_int_t)i->stock_count,
                             "inventory", text));
    return true;
}

static bool run_inventory(const void *options, const struct uvm_strings *args,
                          struct uvm_error *err)
{
    const struct inventory_options *o = options;
    __attribute__((cleanup(bundle_inventory_clear))) struct bundle_inventory i = {0};
    return cmd_no_arguments(args, err) && gather(o, &i, err) && write_inventory(o, &i, err);
}

const struct cmd_command cmd_inventory = {
    .name = "inventory",
    .args = "[OPTION...]",
    .summary = "what this host has, as a file for 'fetch --have'",
    .details =
        "Writes which images this host has ready, with their checksums, its architecture, the free "
        "space of its pool, the keys whose bundles it accepts and the newest bundle that it has "
        "taken: a small JSON file to read, approve and carry to the host that fetches. There "
        "'uvmirror fetch --have FILE' leaves out what all hosts have, and, with --compact, carries "
        "of newer images only what differs. It changes nothing.",
    .options = inventory_options,
    .options_size = sizeof(struct inventory_options),
    .run = run_inventory,
};

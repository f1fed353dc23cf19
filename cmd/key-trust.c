/* uvmirror key trust and key remove: which signers of bundles this host accepts. */
#include <ctype.h>
#include <string.h>
#include <unistd.h>

#include "cmd/key.h"

/* ---- trust ---- */

/* Whether somebody whom this host trusts already vouches for the key, in `ret_voucher`. */
static bool find_voucher(const struct key_options *o, const struct uvm_buf *keyring,
                         const struct uvm_key *key, char ret_voucher[UVM_FINGERPRINT_MAX],
                         struct uvm_error *err)
{
    uvm_auto_strings trusted = {0}, none = {0};
    uvm_auto_error nobody_is_trusted = UVM_ERROR_INIT;
    ret_voucher[0] = 0;
    if (!cmd_trusted_keyrings(&o->common, &none, &trusted, &nobody_is_trusted))
        return true;
    if (!uvm_key_voucher(&trusted, keyring->data, keyring->len, key->fingerprint, ret_voucher, err))
        return uvm_prefix(err, "who vouches for %s", key->fingerprint);
    return true;
}

static void print_offer(const struct uvm_key *key, const char *voucher)
{
    uvm_auto_free char *groups = cmd_key_groups(voucher);
    cmd_key_print("signer", key);
    if (strcmp(voucher, key->fingerprint) == 0)
        cmd_print("        this host trusts it already");
    else if (*voucher)
        cmd_print("        signed by %s,\n"
                  "        which this host trusts already: it is offered as its successor",
                  groups);
    else
        cmd_print("        no key that this host trusts vouches for it");
    json_t *object = cmd_key_json("signer", key);
    json_object_set_new(object, "vouched_by", *voucher ? json_string(voucher) : json_null());
    cmd_print_json(object);
}

static bool offer(const struct key_options *o, const struct uvm_buf *keyring,
                  const struct uvm_key *key, struct uvm_error *err)
{
    const char *state = cmd_key_validity(key);
    char voucher[UVM_FINGERPRINT_MAX];
    if (strcmp(state, "valid") != 0)
        return uvm_fail(err, UVM_TRUST, "key %s is %s", key->fingerprint, state);
    if (!find_voucher(o, keyring, key, voucher, err))
        return false;
    print_offer(key, voucher);
    return true;
}

static json_t *fingerprints_json(const struct uvm_keys *keys)
{
    json_t *list = json_array();
    for (size_t i = 0; i < keys->count; i++)
        json_array_append_new(list, json_string(keys->items[i].fingerprint));
    return list;
}

bool cmd_key_trust(const struct key_options *o, const struct uvm_strings *args,
                   struct uvm_error *err)
{
    if (args->count != 1)
        return uvm_fail(err, UVM_USAGE, args->count ? "one file at a time" : "which file?");
    uvm_auto_buf bytes = {.max = UVM_KEYRING_MAX};
    uvm_auto_keys keys = {0};
    if (!uvm_file_read(args->items[0], UVM_KEYRING_MAX, &bytes, err))
        return false;
    if (!uvm_keys_read(bytes.data, bytes.len, &keys, err))
        return uvm_prefix(err, "%s", args->items[0]);
    for (size_t i = 0; i < keys.count; i++)
        if (!offer(o, &bytes, &keys.items[i], err))
            return uvm_prefix(err, "%s", args->items[0]);
    if (!cmd_key_confirm(o, "Accept bundles signed by this? Compare the fingerprint first.",
                         "not trusted", err))
        return false;
    uvm_auto_free char *dir = cmd_trust_dir(&o->common);
    uvm_auto_free char *path = uvm_format("%s/%s.gpg", dir, keys.items[0].fingerprint);
    if (!uvm_make_dirs(dir, 0755, err) || !uvm_file_replace(path, 0644, bytes.data, bytes.len, err))
        return false;
    cmd_note("trusted: %s", path);
    cmd_print_json(json_pack("{s:s, s:o, s:s}", "event", "result", "trusted",
                             fingerprints_json(&keys), "file", path));
    return true;
}

/* ---- remove ---- */

/* The keyring files of this host and what is in them. */
struct ring {
    char *path;
    struct uvm_buf bytes;
    struct uvm_keys keys;
};
struct rings {
    struct ring *items;
    size_t count;
};

static void rings_clear(struct rings *rings)
{
    for (size_t i = 0; i < rings->count; i++) {
        free(rings->items[i].path);
        uvm_buf_clear(&rings->items[i].bytes);
        uvm_keys_clear(&rings->items[i].keys);
    }
    free(rings->items);
}

static bool rings_read(const struct key_options *o, struct rings *ret_rings, struct uvm_error *err)
{
    uvm_auto_strings paths = {0}, none = {0};
    if (!cmd_trusted_keyrings(&o->common, &none, &paths, err))
        return false;
    for (size_t i = 0; i < paths.count; i++) {
        ret_rings->items = uvm_grow(ret_rings->items, i + 1, sizeof *ret_rings->items);
        struct ring *ring = &ret_rings->items[ret_rings->count++];
        *ring = (struct ring){.path = uvm_strdup(paths.items[i]), .bytes.max = UVM_KEYRING_MAX};
        if (!uvm_file_read(ring->path, UVM_KEYRING_MAX, &ring->bytes, err))
            return false;
        if (!uvm_keys_read(ring->bytes.data, ring->bytes.len, &ring->keys, err))
            return uvm_prefix(err, "%s", ring->path);
    }
    return true;
}

/* The keys of all files, each once; the pointers are borrowed. */
struct picks {
    const struct uvm_key **items;
    size_t count;
};

static void picks_clear(struct picks *picks)
{
    free(picks->items);
}

static void pick_once(struct picks *picks, const struct uvm_key *key)
{
    for (size_t i = 0; i < picks->count; i++)
        if (strcmp(picks->items[i]->fingerprint, key->fingerprint) == 0)
            return;
    picks->items = uvm_grow(picks->items, picks->count + 1, sizeof *picks->items);
    picks->items[picks->count++] = key;
}

#define FINGERPRINT_PART_MIN 8 /* digits by which a key may be named */

/* `digits` is a fingerprint, its beginning or its end, in capitals. */
static bool is_named_by(const struct uvm_key *key, const char *digits)
{
    size_t len = strlen(digits), all = strlen(key->fingerprint);
    return len >= FINGERPRINT_PART_MIN && len <= all &&
           (strncmp(key->fingerprint, digits, len) == 0 ||
            strcmp(key->fingerprint + all - len, digits) == 0);
}

/* What `key list` prints may be given back as it is: blanks do not count in a fingerprint. */
static char *as_digits(const char *text)
{
    char *digits = uvm_alloc(strlen(text) + 1), *to = digits;
    for (; *text; text++)
        if (*text != ' ')
            *to++ = (char)toupper((unsigned char)*text);
    return digits;
}

static bool fits(const struct uvm_key *key, const char *name, const char *digits)
{
    return is_named_by(key, digits) || strcasestr(key->user_id, name);
}

static void pick_fitting(const struct rings *rings, const char *name, struct picks *picks)
{
    uvm_auto_free char *digits = as_digits(name);
    for (size_t r = 0; r < rings->count; r++)
        for (size_t i = 0; i < rings->items[r].keys.count; i++)
            if (fits(&rings->items[r].keys.items[i], name, digits))
                pick_once(picks, &rings->items[r].keys.items[i]);
}

static bool refuse_nothing(const struct key_options *o, const char *name, struct uvm_error *err)
{
    uvm_auto_free char *home = cmd_key_home(o), *digits = as_digits(name);
    uvm_auto_free char *safe = uvm_printable(name);
    uvm_auto_keys own = {0};
    if (!uvm_keys_secret(home, &own, err))
        return false;
    for (size_t i = 0; i < own.count; i++)
        if (fits(&own.items[i], name, digits))
            return uvm_fail(err, UVM_USAGE,
                            "'%s' is a key that this site signs with, which 'remove' never touches "
                            "(it is in %s); as a signer it is not trusted here",
                            safe, home);
    return uvm_fail(err, UVM_USAGE, "no trusted key is '%s' (see 'uvmirror key list')", safe);
}

static bool refuse_several(const struct picks *picks, const char *name, struct uvm_error *err)
{
    uvm_auto_free char *safe = uvm_printable(name);
    for (size_t i = 0; i < picks->count; i++) {
        cmd_key_print("trusted", picks->items[i]);
        cmd_print_json(cmd_key_json("trusted", picks->items[i]));
    }
    return uvm_fail(err, UVM_USAGE, "'%s' fits %zu keys: name one by its fingerprint", safe,
                    picks->count);
}

/* A key that stays in one file stays trusted: so all of them, or none. */
static bool check_writable(const struct rings *rings, const char *fingerprint,
                           struct uvm_error *err)
{
    for (size_t i = 0; i < rings->count; i++) {
        const struct ring *ring = &rings->items[i];
        uvm_auto_free char *dir = uvm_dirname(ring->path);
        if (uvm_keys_has(&ring->keys, fingerprint) && access(dir, W_OK) < 0)
            return uvm_fail_errno(err, UVM_FAILED, "%s cannot be changed by you", ring->path);
    }
    return true;
}

static bool remove_from(const struct ring *ring, const char *fingerprint, struct uvm_error *err)
{
    uvm_auto_buf rest = {.max = UVM_KEYRING_MAX};
    if (!uvm_keyring_without(ring->bytes.data, ring->bytes.len, fingerprint, &rest, err))
        return uvm_prefix(err, "%s", ring->path);
    if (rest.len)
        return uvm_file_replace(ring->path, 0644, rest.data, rest.len, err);
    if (unlink(ring->path) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot remove %s", ring->path);
    return uvm_sync_dir_of(ring->path, err);
}

static bool remove_everywhere(const struct rings *rings, const char *fingerprint,
                              struct uvm_error *err)
{
    if (!check_writable(rings, fingerprint, err))
        return false;
    for (size_t i = 0; i < rings->count; i++)
        if (uvm_keys_has(&rings->items[i].keys, fingerprint) &&
            !remove_from(&rings->items[i], fingerprint, err))
            return uvm_prefix(err, "%s is still trusted", fingerprint);
    return true;
}

static void report_removed(const struct uvm_key *key, size_t left)
{
    cmd_print("removed %s", key->user_id);
    if (left)
        cmd_note("%zu key%s remain%s trusted here", left, left == 1 ? "" : "s",
                 left == 1 ? "s" : "");
    else
        cmd_note("no key remains trusted: this host accepts no bundle now");
    cmd_print_json(json_pack("{s:s, s:s, s:s, s:i}", "event", "result", "removed", key->fingerprint,
                             "name", key->user_id, "remaining", (int)left));
}

bool cmd_key_remove(const struct key_options *o, const struct uvm_strings *args,
                    struct uvm_error *err)
{
    uvm_auto_free char *name = cmd_join(args, " ");
    if (!*name)
        return uvm_fail(err, UVM_USAGE, "which key? (see 'uvmirror key list')");
    __attribute__((cleanup(rings_clear))) struct rings rings = {0};
    __attribute__((cleanup(picks_clear))) struct picks fitting = {0}, all = {0};
    if (!rings_read(o, &rings, err))
        return false;
    pick_fitting(&rings, name, &fitting);
    pick_fitting(&rings, "", &all);
    if (fitting.count == 0)
        return refuse_nothing(o, name, err);
    if (fitting.count > 1)
        return refuse_several(&fitting, name, err);
    const struct uvm_key *key = fitting.items[0];
    cmd_key_print("trusted", key);
    cmd_print_json(cmd_key_json("trusted", key));
    if (!cmd_key_confirm(o, "Accept no more bundles signed by this?", "still trusted", err) ||
        !remove_everywhere(&rings, key->fingerprint, err))
        return false;
    report_removed(key, all.count - 1);
    return true;
}

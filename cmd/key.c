/* uvmirror key: the site's signing key, and the keys that this host trusts. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

struct key_options {
    struct cmd_common common;
    const char *homedir, *name, *output;
    unsigned days;
    bool yes;
};

static const struct cmd_option key_options[] = {
    {"homedir", 0, CMD_TEXT, "DIR",
     "generate, export, list: the GnuPG home folder of the signing key",
     offsetof(struct key_options, homedir)},
    {"name", 0, CMD_TEXT, "NAME", "generate: the name in the key (default: this host's)",
     offsetof(struct key_options, name)},
    {"expire", 0, CMD_NUMBER, "DAYS", "generate: how long the key is valid (default: for ever)",
     offsetof(struct key_options, days)},
    {"output", 'o', CMD_TEXT, "FILE", "export: write to FILE instead of standard output",
     offsetof(struct key_options, output)},
    {"yes", 'y', CMD_FLAG, NULL, "trust: do not ask", offsetof(struct key_options, yes)},
    CMD_COMMON_OPTIONS(struct key_options),
    {0},
};

static char *homedir(const struct key_options *o)
{
    if (o->homedir)
        return uvm_strdup(o->homedir);
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    return uvm_format("%s/gnupg", state);
}

/* "4A3C E3CD 565D ...": fingerprints are compared by people, often over the telephone. */
static char *in_groups(const char *fingerprint)
{
    char *out = uvm_alloc(2 * strlen(fingerprint) + 1), *to = out;
    for (size_t i = 0; fingerprint[i]; i++) {
        if (i && i % 4 == 0)
            *to++ = ' ';
        *to++ = fingerprint[i];
    }
    return out;
}

static const char *validity(const struct uvm_key *key, time_t now)
{
    return key->revoked ? "revoked" : key->expires && key->expires <= now ? "expired" : "valid";
}

static void print_key(const char *role, const struct uvm_key *key)
{
    uvm_auto_free char *groups = in_groups(key->fingerprint);
    uvm_auto_free char *until = key->expires ? uvm_time_text(key->expires) : uvm_strdup("never");
    cmd_print("%-8s%s", role, key->user_id);
    cmd_print("        %s", groups);
    cmd_print("        %s, expires: %s", validity(key, time(NULL)), until);
    cmd_print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:b}", "role", role, "fingerprint",
                             key->fingerprint, "name", key->user_id, "created",
                             (json_int_t)key->created, "expires", (json_int_t)key->expires,
                             "revoked", key->revoked));
}

/* ---- generate ---- */

static char *default_name(void)
{
    char host[256] = "";
    if (gethostname(host, sizeof host - 1) < 0 || !host[0])
        return uvm_strdup("uvmirror site key");
    uvm_auto_free char *safe = uvm_printable(host);
    return uvm_format("uvmirror site key (%s)", safe);
}

static bool run_generate(const struct key_options *o, const struct uvm_strings *args,
                         struct uvm_error *err)
{
    if (!cmd_no_arguments(args, err))
        return false;
    uvm_auto_free char *home = homedir(o);
    uvm_auto_free char *name = o->name ? uvm_strdup(o->name) : default_name();
    uvm_auto_keys present = {0};
    if (!uvm_keys_secret(home, &present, err))
        return false;
    if (present.count && !o->name)
        return uvm_fail(err, UVM_USAGE,
                        "%s: there is a signing key already (%s); give the new one a "
                        "--name of its own",
                        home, present.items[0].fingerprint);
    char fingerprint[UVM_FINGERPRINT_MAX];
    if (!uvm_key_generate(home, name, o->days * 86400UL, fingerprint, err))
        return uvm_prefix(err, "%s", home);
    uvm_auto_free char *groups = in_groups(fingerprint);
    cmd_print("made %s", name);
    cmd_print("     %s", groups);
    cmd_note("It has no passphrase; the mode of its folder protects it:\n"
             "%s\n"
             "Next: 'uvmirror key export -o site.gpg' here, and 'uvmirror key trust site.gpg'\n"
             "on each host that shall accept bundles signed with it.",
             home);
    cmd_print_json(
        json_pack("{s:s, s:s, s:s}", "event", "result", "fingerprint", fingerprint, "name", name));
    return true;
}

/* ---- export ---- */

static bool write_out(const char *output, const struct uvm_buf *buf, struct uvm_error *err)
{
    if (output && strcmp(output, "-") != 0)
        return uvm_file_replace(output, 0644, buf->data, buf->len, err);
    fflush(stdout);
    return uvm_write_all(STDOUT_FILENO, buf->data, buf->len, err);
}

static bool run_export(const struct key_options *o, const struct uvm_strings *args,
                       struct uvm_error *err)
{
    if (args->count > 1)
        return uvm_fail(err, UVM_USAGE, "one key at a time");
    uvm_auto_free char *home = homedir(o);
    UVM_AUTO(uvm_signer_free) struct uvm_signer *signer = NULL;
    uvm_auto_buf key = {0};
    if (!uvm_signer_new(home, args->count ? args->items[0] : NULL, &signer, err) ||
        !uvm_key_export(home, uvm_signer_fingerprint(signer), &key, err))
        return uvm_prefix(err, "%s", home);
    if (!write_out(o->output, &key, err))
        return false;
    uvm_auto_free char *groups = in_groups(uvm_signer_fingerprint(signer));
    cmd_note("public key %s", groups);
    return true;
}

/* ---- trust ---- */

static bool confirm(const struct key_options *o, struct uvm_error *err)
{
    if (o->yes)
        return true;
    if (!isatty(STDIN_FILENO))
        return uvm_fail(err, UVM_USAGE,
                        "there is no terminal to ask on; compare the fingerprint and "
                        "say --yes");
    fprintf(stderr, "Accept bundles signed by this key? Compare the fingerprint first. [y/N] ");
    char answer[16] = "";
    if (fgets(answer, sizeof answer, stdin) && tolower((unsigned char)answer[0]) == 'y')
        return true;
    return uvm_fail(err, UVM_TRUST, "not trusted: nothing was changed");
}

static bool check_usable(const struct uvm_key *key, struct uvm_error *err)
{
    const char *state = validity(key, time(NULL));
    if (strcmp(state, "valid") != 0)
        return uvm_fail(err, UVM_TRUST, "key %s is %s", key->fingerprint, state);
    return true;
}

static bool run_trust(const struct key_options *o, const struct uvm_strings *args,
                      struct uvm_error *err)
{
    if (args->count != 1)
        return uvm_fail(err, UVM_USAGE, args->count ? "one file at a time" : "which file?");
    uvm_auto_buf bytes = {0};
    uvm_auto_keys keys = {0};
    if (!uvm_file_read(args->items[0], UVM_KEYRING_MAX, &bytes, err))
        return false;
    if (!uvm_keys_read(bytes.data, bytes.len, &keys, err))
        return uvm_prefix(err, "%s", args->items[0]);
    for (size_t i = 0; i < keys.count; i++) {
        if (!check_usable(&keys.items[i], err))
            return uvm_prefix(err, "%s", args->items[0]);
        print_key("signer", &keys.items[i]);
    }
    if (!confirm(o, err))
        return false;
    uvm_auto_free char *dir = cmd_trust_dir(&o->common);
    uvm_auto_free char *path = uvm_format("%s/%s.gpg", dir, keys.items[0].fingerprint);
    if (!uvm_make_dirs(dir, 0755, err) || !uvm_file_replace(path, 0644, bytes.data, bytes.len, err))
        return false;
    cmd_note("trusted: %s", path);
    return true;
}

/* ---- list ---- */

static bool print_keyring(const char *path, struct uvm_error *err)
{
    uvm_auto_buf bytes = {0};
    uvm_auto_keys keys = {0};
    if (!uvm_file_read(path, UVM_KEYRING_MAX, &bytes, err))
        return false;
    if (!uvm_keys_read(bytes.data, bytes.len, &keys, err))
        return uvm_prefix(err, "%s", path);
    for (size_t i = 0; i < keys.count; i++)
        print_key("trusted", &keys.items[i]);
    return true;
}

static bool run_list(const struct key_options *o, const struct uvm_strings *args,
                     struct uvm_error *err)
{
    uvm_auto_free char *home = homedir(o);
    uvm_auto_keys own = {0};
    uvm_auto_strings trusted = {0}, none = {0};
    uvm_auto_error nothing_trusted = UVM_ERROR_INIT;
    if (!cmd_no_arguments(args, err) || !uvm_keys_secret(home, &own, err))
        return false;
    for (size_t i = 0; i < own.count; i++)
        print_key("signing", &own.items[i]);
    cmd_trusted_keyrings(&o->common, &none, &trusted, &nothing_trusted);
    for (size_t i = 0; i < trusted.count; i++)
        if (!print_keyring(trusted.items[i], err))
            return false;
    if (own.count + trusted.count == 0)
        cmd_note("no keys here: 'uvmirror key generate' makes one to sign with,\n"
                 "'uvmirror key trust FILE' accepts bundles that another host signs");
    return true;
}

static bool run_key(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    static const struct {
        const char *name;
        bool (*run)(const struct key_options *, const struct uvm_strings *, struct uvm_error *);
    } verbs[] = {{"generate", run_generate},
                 {"export", run_export},
                 {"trust", run_trust},
                 {"list", run_list}};
    const char *verb = args->count ? args->items[0] : "";
    struct uvm_strings rest = {args->items + (args->count ? 1 : 0),
                               args->count ? args->count - 1 : 0};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, verb) == 0)
            return verbs[i].run(options, &rest, err);
    return uvm_fail(err, UVM_USAGE, "say generate, export, trust or list");
}

const struct cmd_command cmd_key = {
    .name = "key",
    .args = "generate|export|trust|list [OPTION...] [ARGUMENT]",
    .summary = "the site's signing key and the keys this host trusts",
    .details =
        "'generate' makes the key that signs this site's bundles; 'export' prints its public part; "
        "'trust FILE' accepts bundles that are signed by the key in FILE, after showing its "
        "fingerprint; 'list' prints both kinds.",
    .options = key_options,
    .options_size = sizeof(struct key_options),
    .run = run_key,
};

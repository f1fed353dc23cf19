/* uvmirror key: the site's signing key, and the keys that this host trusts. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/key.h"

static const struct cmd_option key_options[] = {
    {"homedir", 0, CMD_TEXT, "DIR",
     "generate, export, list: the GnuPG home folder of the signing key",
     offsetof(struct key_options, homedir)},
    {"sign-key", 0, CMD_TEXT, "KEY", "export, rotate: this key, when there are several",
     offsetof(struct key_options, sign_key)},
    {"name", 0, CMD_TEXT, "NAME", "generate, rotate: the name in the key (default: this host's)",
     offsetof(struct key_options, name)},
    {"expire", 0, CMD_NUMBER, "DAYS",
     "generate, rotate: how long the key is valid (default: for ever)",
     offsetof(struct key_options, days)},
    {"output", 'o', CMD_TEXT, "FILE", "export, rotate: write to FILE instead of standard output",
     offsetof(struct key_options, output)},
    {"finish", 0, CMD_FLAG, NULL, "rotate: sign with the next key from now on",
     offsetof(struct key_options, finish)},
    {"abort", 0, CMD_FLAG, NULL, "rotate: delete the next key, and go on with the present one",
     offsetof(struct key_options, abort)},
    {"yes", 'y', CMD_FLAG, NULL, "trust, remove, rotate --abort: do not ask",
     offsetof(struct key_options, yes)},
    CMD_COMMON_OPTIONS(struct key_options),
    {0},
};

/* ---- what the verbs share ---- */

char *cmd_key_home(const struct key_options *o)
{
    if (o->homedir)
        return uvm_strdup(o->homedir);
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    return uvm_format("%s/gnupg", state);
}

char *cmd_key_next_home(const struct key_options *o)
{
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    return uvm_format("%s/gnupg.next", state);
}

char *cmd_key_groups(const char *fingerprint)
{
    char *out = uvm_alloc(2 * strlen(fingerprint) + 1), *to = out;
    for (size_t i = 0; fingerprint[i]; i++) {
        if (i && i % 4 == 0)
            *to++ = ' ';
        *to++ = fingerprint[i];
    }
    return out;
}

const char *cmd_key_validity(const struct uvm_key *key)
{
    return key->revoked                                 ? "revoked"
           : key->expires && key->expires <= time(NULL) ? "expired"
                                                        : "valid";
}

json_t *cmd_key_json(const char *role, const struct uvm_key *key)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:b}", "role", role, "fingerprint",
                     key->fingerprint, "name", key->user_id, "created", (json_int_t)key->created,
                     "expires", (json_int_t)key->expires, "revoked", key->revoked);
}

void cmd_key_print(const char *role, const struct uvm_key *key)
{
    uvm_auto_free char *groups = cmd_key_groups(key->fingerprint);
    uvm_auto_free char *until = key->expires ? uvm_time_text(key->expires) : uvm_strdup("never");
    cmd_print("%-8s%s", role, key->user_id);
    cmd_print("        %s", groups);
    cmd_print("        %s, expires: %s", cmd_key_validity(key), until);
}

bool cmd_key_write(const struct key_options *o, const struct uvm_buf *armored, json_t *result,
                   struct uvm_error *err)
{
    const char *output = o->output && strcmp(o->output, "-") != 0 ? o->output : NULL;
    bool ok = true;
    if (output)
        ok = uvm_file_replace(output, 0644, armored->data, armored->len, err);
    else if (!cmd_ui_json())
        ok = fflush(stdout) == 0 && uvm_write_all(STDOUT_FILENO, armored->data, armored->len, err);
    json_object_set_new(result, output ? "file" : "key",
                        json_string(output ? output : armored->data));
    if (ok)
        cmd_print_json(json_incref(result));
    json_decref(result);
    return ok;
}

bool cmd_key_confirm(const struct key_options *o, const char *question, const char *refusal,
                     struct uvm_error *err)
{
    if (o->yes)
        return true;
    if (!isatty(STDIN_FILENO))
        return uvm_fail(err, UVM_USAGE,
                        "there is no terminal to ask on; compare the fingerprint and "
                        "say --yes");
    fprintf(stderr, "%s [y/N] ", question);
    char answer[16] = "";
    if (fgets(answer, sizeof answer, stdin) && tolower((unsigned char)answer[0]) == 'y')
        return true;
    return uvm_fail(err, UVM_TRUST, "%s: nothing was changed", refusal);
}

/* ---- generate ---- */

char *cmd_key_default_name(void)
{
    char host[256] = "";
    if (gethostname(host, sizeof host - 1) < 0 || !host[0])
        return uvm_strdup("uvmirror site key");
    uvm_auto_free char *safe = uvm_printable(host);
    return uvm_format("uvmirror site key (%s)", safe);
}

/* A key that is made between the two halves of an exchange would cut every host off. */
static bool check_no_exchange(const struct key_options *o, const char *home, struct uvm_error *err)
{
    uvm_auto_free char *next = cmd_key_next_home(o);
    if (o->homedir || access(home, F_OK) == 0 || access(next, F_OK) < 0)
        return true;
    return uvm_fail(err, UVM_USAGE,
                    "the next key is waiting in %s: say 'uvmirror key rotate --finish'", next);
}

static bool run_generate(const struct key_options *o, const struct uvm_strings *args,
                         struct uvm_error *err)
{
    if (!cmd_no_arguments(args, err))
        return false;
    uvm_auto_free char *home = cmd_key_home(o);
    uvm_auto_free char *name = o->name ? uvm_strdup(o->name) : cmd_key_default_name();
    uvm_auto_keys present = {0};
    if (!check_no_exchange(o, home, err) || !uvm_keys_secret(home, &present, err))
        return false;
    if (present.count && !o->name)
        return uvm_fail(err, UVM_USAGE,
                        "%s: there is a signing key already (%s); 'uvmirror key rotate' "
                        "replaces it, --name makes one more",
                        home, present.items[0].fingerprint);
    char fingerprint[UVM_FINGERPRINT_MAX];
    if (!uvm_key_generate(home, name, o->days * 86400UL, fingerprint, err))
        return uvm_prefix(err, "%s", home);
    uvm_auto_free char *groups = cmd_key_groups(fingerprint);
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

static bool run_export(const struct key_options *o, const struct uvm_strings *args,
                       struct uvm_error *err)
{
    if (args->count + (o->sign_key != NULL) > 1)
        return uvm_fail(err, UVM_USAGE, "one key at a time");
    uvm_auto_free char *home = cmd_key_home(o);
    UVM_AUTO(uvm_signer_free) struct uvm_signer *signer = NULL;
    uvm_auto_buf key = {0};
    if (!uvm_signer_new(home, args->count ? args->items[0] : o->sign_key, &signer, err) ||
        !uvm_key_export(home, uvm_signer_fingerprint(signer), &key, err))
        return uvm_prefix(err, "%s", home);
    json_t *result =
        json_pack("{s:s, s:s}", "event", "result", "fingerprint", uvm_signer_fingerprint(signer));
    if (!cmd_key_write(o, &key, result, err))
        return false;
    uvm_auto_free char *groups = cmd_key_groups(uvm_signer_fingerprint(signer));
    cmd_note("public key %s", groups);
    return true;
}

/* ---- list ---- */

static void print_keys(const char *role, const struct uvm_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++) {
        cmd_key_print(role, &keys->items[i]);
        cmd_print_json(cmd_key_json(role, &keys->items[i]));
    }
}

static bool print_keyring(const char *path, struct uvm_error *err)
{
    uvm_auto_buf bytes = {0};
    uvm_auto_keys keys = {0};
    if (!uvm_file_read(path, UVM_KEYRING_MAX, &bytes, err))
        return false;
    if (!uvm_keys_read(bytes.data, bytes.len, &keys, err))
        return uvm_prefix(err, "%s", path);
    print_keys("trusted", &keys);
    return true;
}

static bool run_list(const struct key_options *o, const struct uvm_strings *args,
                     struct uvm_error *err)
{
    uvm_auto_free char *home = cmd_key_home(o), *next_home = cmd_key_next_home(o);
    uvm_auto_keys own = {0}, next = {0};
    uvm_auto_strings trusted = {0}, none = {0};
    uvm_auto_error nothing_trusted = UVM_ERROR_INIT;
    if (!cmd_no_arguments(args, err) || !uvm_keys_secret(home, &own, err) ||
        (!o->homedir && !uvm_keys_secret(next_home, &next, err)))
        return false;
    print_keys("signing", &own);
    print_keys("next", &next);
    cmd_trusted_keyrings(&o->common, &none, &trusted, &nothing_trusted);
    for (size_t i = 0; i < trusted.count; i++)
        if (!print_keyring(trusted.items[i], err))
            return false;
    if (own.count + next.count + trusted.count == 0)
        cmd_note("no keys here: 'uvmirror key generate' makes one to sign with,\n"
                 "'uvmirror key trust FILE' accepts bundles that another host signs");
    return true;
}

static bool run_key(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    static const struct {
        const char *name;
        bool (*run)(const struct key_options *, const struct uvm_strings *, struct uvm_error *);
    } verbs[] = {{"generate", run_generate}, {"export", run_export},
                 {"trust", cmd_key_trust},   {"list", run_list},
                 {"remove", cmd_key_remove}, {"rotate", cmd_key_rotate}};
    const struct key_options *o = options;
    const char *verb = args->count ? args->items[0] : "";
    struct uvm_strings rest = {args->items + (args->count ? 1 : 0),
                               args->count ? args->count - 1 : 0};
    if ((o->finish || o->abort) && strcmp(verb, "rotate") != 0)
        return uvm_fail(err, UVM_USAGE, "--finish and --abort go with 'uvmirror key rotate'");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, verb) == 0)
            return verbs[i].run(options, &rest, err);
    return uvm_fail(err, UVM_USAGE, "say generate, export, trust, list, remove or rotate");
}

const struct cmd_command cmd_key = {
    .name = "key",
    .args = "generate|export|trust|list|remove|rotate [OPTION...] [ARG]",
    .summary = "the site's signing key and the keys this host trusts",
    .details =
        "'generate' makes the key that signs this site's bundles; 'export' prints its public part; "
        "'trust FILE' accepts bundles that are signed by the key in FILE, after showing its "
        "fingerprint; 'list' prints both kinds; 'remove KEY' ends the trust in a key; 'rotate' "
        "makes the next signing key, for which the present one vouches, and 'rotate --finish' puts "
        "it in the place of the present one, once all hosts trust it.",
    .options = key_options,
    .options_size = sizeof(struct key_options),
    .run = run_key,
};

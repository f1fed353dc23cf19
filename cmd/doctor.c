/* uvmirror doctor: what is wrong with this host, and how to mend it. */
#include <string.h>

#include "cmd/cmd.h"

#define SOON  ((time_t)30 * 86400) /* a key that expires within this time is worth a word */
#define SLACK ((time_t)86400)      /* by which two clocks may differ */

struct doctor_options {
    struct cmd_common common;
    struct cmd_host host;
};

static const struct cmd_option doctor_options[] = {
    CMD_HOST_OPTIONS(struct doctor_options),
    CMD_COMMON_OPTIONS(struct doctor_options),
    {0},
};

/* ---- keys ---- */

static void examine_key(const struct uvm_key *key, const char *path, struct pool_findings *f)
{
    time_t now = time(NULL);
    uvm_auto_free char *expires = uvm_time_text(key->expires);
    uvm_auto_free char *renew = uvm_format(
        "have the signer extend or replace it, then: uvmirror key trust FILE (it is in %s)", path);
    uvm_auto_free char *drop = uvm_format("uvmirror key remove %s", key->fingerprint);
    if (key->revoked)
        pool_findings_add(f, "keys", drop, "%s %s is revoked", key->fingerprint, key->user_id);
    else if (key->expires && key->expires <= now)
        pool_findings_add(f, "keys", renew, "%s %s expired on %s", key->fingerprint, key->user_id,
                          expires);
    else if (key->expires && key->expires - now < SOON)
        pool_findings_add(f, "keys", renew, "%s %s expires on %s", key->fingerprint, key->user_id,
                          expires);
    else
        pool_findings_add(f, "keys", NULL, "%s %s is trusted%s%s", key->fingerprint, key->user_id,
                          key->expires ? " until " : "", key->expires ? expires : "");
}

static void examine_keyring(const char *path, struct pool_findings *f)
{
    uvm_auto_buf bytes = {.max = UVM_KEYRING_MAX};
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_keys keys = {0};
    uvm_auto_free char *shown = uvm_printable(path);
    if (!uvm_file_read(path, UVM_KEYRING_MAX, &bytes, &err) ||
        !uvm_keys_read(bytes.data, bytes.len, &keys, &err)) {
        pool_findings_add(f, "keys", "replace it by 'uvmirror key trust FILE'", "%s: %s", shown,
                          err.message);
        return;
    }
    for (size_t i = 0; i < keys.count; i++)
        examine_key(&keys.items[i], shown, f);
}

static void examine_keys(const struct cmd_common *common, struct pool_findings *f)
{
    const struct uvm_strings none = {0};
    uvm_auto_strings keyrings = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!cmd_trusted_keyrings(common, &none, &keyrings, &err)) {
        pool_findings_add(f, "keys",
                          "uvmirror key trust FILE, with what 'uvmirror key export' gave",
                          "this host trusts no bundle signer yet");
        return;
    }
    for (size_t i = 0; i < keyrings.count; i++)
        examine_keyring(keyrings.items[i], f);
}

/* ---- the clock ---- */

static void examine_clock(struct pool_findings *f)
{
    time_t now = time(NULL), newest = (time_t)f->newest;
    uvm_auto_free char *here = uvm_time_text(now);
    uvm_auto_free char *seen = uvm_time_text(newest);
    if (newest - now > SLACK)
        pool_findings_add(
            f, "clock",
            "timedatectl set-time 'YYYY-MM-DD HH:MM:SS'; or, if it was the clock of the "
            "host that made the bundle: uvmirror import --allow-older BUNDLE",
            "it is %s here, but this host has taken a bundle of %s", here, seen);
    else
        pool_findings_add(f, "clock", NULL, "it is %s", here);
}

/* ---- what was found ---- */

static void print_finding(const struct pool_finding *finding, bool quiet)
{
    bool wrong = finding->health == POOL_HEALTH_WRONG;
    cmd_print_json(json_pack("{s:s, s:s, s:b, s:s, s:s?}", "event", "finding", "check",
                             finding->check, "ok", !wrong, "text", finding->text, "cure",
                             finding->cure));
    if (wrong || !quiet)
        cmd_print("%-6s %-9s %s", wrong ? "WRONG" : "ok", finding->check, finding->text);
    if (wrong)
        cmd_print("%-16s mend it: %s", "", finding->cure);
}

static bool run_doctor(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct doctor_options *o = options;
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    pool_auto_findings found = {0};
    struct pool_options pool;
    size_t wrong = 0;
    if (!cmd_no_arguments(args, err) || !cmd_pool_options(&o->host, state, &pool, err))
        return false;
    pool_examine(&pool, &found);
    examine_keys(&o->common, &found);
    examine_clock(&found);
    for (size_t i = 0; i < found.count; i++) {
        print_finding(&found.items[i], o->common.quiet);
        wrong += found.items[i].health == POOL_HEALTH_WRONG;
    }
    cmd_print_json(json_pack("{s:s, s:i}", "event", "result", "wrong", (int)wrong));
    return wrong == 0 || uvm_fail(err, UVM_FAILED, "%zu thing%s wrong with this host", wrong,
                                  wrong == 1 ? " is" : "s are");
}

const struct cmd_command cmd_doctor = {
    .name = "doctor",
    .args = "[OPTION...]",
    .summary = "say what is wrong with this host and how to mend it",
    .details =
        "Looks at the libvirt daemon, uvtool's pool, its metadata, uvmirror's own state, the keys "
        "that are trusted, the clock, and the space that is left. For whatever is wrong it prints "
        "the command that mends it. It changes nothing.",
    .options = doctor_options,
    .options_size = sizeof(struct doctor_options),
    .run = run_doctor,
};

/* What several commands share: folders, trust, opening bundles. */
#include <glob.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

#define SYSTEM_STATE_DIR "/var/lib/uvmirror"

static char *data_home(void)
{
    const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (xdg && xdg[0] == '/')
        return uvm_strdup(xdg);
    return uvm_format("%s/.local/share", home && home[0] == '/' ? home : "");
}

char *cmd_state_dir(const struct cmd_common *common)
{
    if (common->state_dir)
        return uvm_strdup(common->state_dir);
    /* Members of group libvirt share the host's state, where 'uvmirror init' has made it. */
    if (geteuid() == 0 || access(SYSTEM_STATE_DIR, W_OK) == 0)
        return uvm_strdup(SYSTEM_STATE_DIR);
    uvm_auto_free char *home = data_home();
    return uvm_format("%s/uvmirror", home);
}

char *cmd_own_dir(const struct cmd_common *common)
{
    if (common->state_dir || geteuid() == 0)
        return cmd_state_dir(common);
    uvm_auto_free char *home = data_home();
    return uvm_format("%s/uvmirror", home);
}

/* ---- who is trusted ---- */

char *cmd_trust_dir(const struct cmd_common *common)
{
    if (geteuid() == 0 && !common->state_dir)
        return uvm_strdup(CMD_SYSTEM_TRUST_DIR);
    uvm_auto_free char *state = cmd_state_dir(common);
    return uvm_format("%s/trusted.d", state);
}

static void add_keyrings_of(const char *dir, struct uvm_strings *list)
{
    uvm_auto_free char *pattern = uvm_format("%s/*.gpg", dir);
    glob_t found = {0};
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++)
            uvm_strings_add(list, found.gl_pathv[i]);
    globfree(&found);
}

static void copy_strings(struct uvm_strings *to, const struct uvm_strings *from)
{
    for (size_t i = 0; i < from->count; i++)
        uvm_strings_add(to, from->items[i]);
}

bool cmd_trusted_keyrings(const struct cmd_common *common, const struct uvm_strings *given,
                          struct uvm_strings *ret_keyrings, struct uvm_error *err)
{
    copy_strings(ret_keyrings, given);
    if (given->count)
        return true;
    uvm_auto_free char *state = cmd_state_dir(common);
    uvm_auto_free char *own = uvm_format("%s/trusted.d", state);
    add_keyrings_of(CMD_SYSTEM_TRUST_DIR, ret_keyrings);
    add_keyrings_of(own, ret_keyrings);
    if (ret_keyrings->count == 0)
        return uvm_fail(err, UVM_TRUST,
                        "this host trusts no bundle signer yet: 'uvmirror key trust "
                        "FILE' with the key that 'uvmirror key export' gave");
    return true;
}

bool cmd_vendor_verifier(const struct uvm_strings *given, const char *option,
                         struct uvm_verifier **ret_verifier, struct uvm_error *err)
{
    uvm_auto_strings usual = {0};
    uvm_strings_add(&usual, CMD_VENDOR_KEYRING);
    if (!uvm_verifier_new(given->count ? given : &usual, ret_verifier, err))
        return given->count ? uvm_prefix(err, "the vendor's keys")
                            : uvm_prefix(err,
                                         "the vendor's keys (name them with %s, or install "
                                         "ubuntu-cloudimage-keyring, on Debian ubuntu-keyring)",
                                         option);
    uvm_auto_free char *advice = uvm_format("the vendor's keys are given by %s", option);
    uvm_verifier_advise(*ret_verifier, advice);
    return true;
}

/* ---- the destination ---- */

bool cmd_pool_options(const struct cmd_host *host, const char *state_dir,
                      struct pool_options *ret_options, struct uvm_error *err)
{
    if (host->pool && strcmp(host->pool, POOL_DEFAULT_NAME) != 0 && !host->metadata_dir)
        return uvm_fail(err, UVM_USAGE,
                        "--pool %s needs --metadata-dir: the default folder belongs to "
                        "pool " POOL_DEFAULT_NAME,
                        host->pool);
    *ret_options = (struct pool_options){
        .connect = host->connect ? host->connect : POOL_DEFAULT_CONNECT,
        .name = host->pool ? host->pool : POOL_DEFAULT_NAME,
        .metadata_dir = host->metadata_dir ? host->metadata_dir : POOL_DEFAULT_METADATA,
        .state_dir = state_dir,
        .observer = cmd_observer(),
    };
    return true;
}

/* ---- words and lists ---- */

bool cmd_no_arguments(const struct uvm_strings *args, struct uvm_error *err)
{
    if (args->count == 0)
        return true;
    return uvm_fail(err, UVM_USAGE, "'%s' is not expected here", args->items[0]);
}

bool cmd_some_bundle(const struct uvm_strings *args, struct uvm_error *err)
{
    return args->count > 0 || uvm_fail(err, UVM_USAGE, "which bundle?");
}

char *cmd_join(const struct uvm_strings *list, const char *separator)
{
    char *text = uvm_strdup("");
    for (size_t i = 0; i < list->count; i++) {
        char *longer = uvm_format("%s%s%s", text, i ? separator : "", list->items[i]);
        free(text);
        text = longer;
    }
    return text;
}

json_t *cmd_strings_json(const struct uvm_strings *list)
{
    json_t *array = json_array();
    for (size_t i = 0; i < list->count; i++)
        json_array_append_new(array, json_string(list->items[i]));
    return array;
}

void cmd_warn_doubts(const struct uvm_strings *doubts)
{
    for (size_t i = 0; i < doubts->count; i++)
        uvm_warning(cmd_observer(), "%s", doubts->items[i]);
    if (doubts->count)
        uvm_warning(cmd_observer(),
                    "what guests use cannot be told for sure: nothing will be deleted");
}

void cmd_print_cleaned(const struct pool_cleaned *c, bool dry_run)
{
    for (size_t i = 0; dry_run && i < c->deleted.count; i++)
        cmd_print("would delete %s", c->deleted.items[i]);
    for (size_t i = 0; i < c->erased.count; i++)
        cmd_print("%s metadata without volume: %s", dry_run ? "would erase" : "erased",
                  c->erased.items[i]);
    for (size_t i = 0; i < c->kept.count; i++)
        cmd_note("kept %s", c->kept.items[i]);
    cmd_warn_doubts(&c->doubts);
}

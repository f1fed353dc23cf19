/* key.h: what the verbs of `uvmirror key` share. Internal to cmd. */
#pragma once

#include "cmd/cmd.h"

struct key_options {
    struct cmd_common common;
    const char *homedir, *sign_key, *name, *output;
    unsigned days;
    bool yes, finish, abort;
};

/* The verbs; `args` are what stands behind them. */
bool cmd_key_trust(const struct key_options *o, const struct uvm_strings *args,
                   struct uvm_error *err);
bool cmd_key_remove(const struct key_options *o, const struct uvm_strings *args,
                    struct uvm_error *err);
bool cmd_key_rotate(const struct key_options *o, const struct uvm_strings *args,
                    struct uvm_error *err);

/* The home folder of the signing key, and of the one that is to take its place; the caller frees
 * it. */
char *cmd_key_home(const struct key_options *o);
char *cmd_key_next_home(const struct key_options *o);

/* "uvmirror site key (HOST)"; the caller frees it. */
char *cmd_key_default_name(void);

/* "4A3C E3CD 565D ...": fingerprints are compared by people, often over the telephone. The caller
 * frees it. */
char *cmd_key_groups(const char *fingerprint);

/* "valid", "revoked" or "expired". */
const char *cmd_key_validity(const struct uvm_key *key);

/* Role, name, fingerprint and validity, in lines of a result. */
void cmd_key_print(const char *role, const struct uvm_key *key);
/* The same for --json, to which more may be added. New reference. */
json_t *cmd_key_json(const char *role, const struct uvm_key *key);

/* A public key and where it went: to -o FILE, to standard output, or (--json) into `result`, the
 * reference to which is taken. */
bool cmd_key_write(const struct key_options *o, const struct uvm_buf *armored, json_t *result,
                   struct uvm_error *err);

/* Asks, unless --yes. UVM_TRUST when the answer is no: "<refusal>: nothing was changed"; UVM_USAGE
 * when there is nobody to ask. */
bool cmd_key_confirm(const struct key_options *o, const char *question, const char *refusal,
                     struct uvm_error *err);

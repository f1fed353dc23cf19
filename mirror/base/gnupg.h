/* gnupg.h: what keys, verifying and signing share of gpgme. Internal to mirror/base. */
#pragma once

#include <gpgme.h>

#include "mirror/base/base.h"

static inline void uvm_gpg_release_ctx_(gpgme_ctx_t *ctx)
{
    if (*ctx)
        gpgme_release(*ctx);
}

static inline void uvm_gpg_release_data_(gpgme_data_t *data)
{
    if (*data)
        gpgme_data_release(*data);
}

static inline void uvm_gpg_release_key_(gpgme_key_t *key)
{
    if (*key)
        gpgme_key_unref(*key);
}

#define uvm_auto_gpg_ctx  __attribute__((cleanup(uvm_gpg_release_ctx_))) gpgme_ctx_t
#define uvm_auto_gpg_data __attribute__((cleanup(uvm_gpg_release_data_))) gpgme_data_t
#define uvm_auto_gpg_key  __attribute__((cleanup(uvm_gpg_release_key_))) gpgme_key_t

/* UVM_TRUST: "<what>: <gpgme's words>". */
bool uvm_gpg_fail(struct uvm_error *err, gpgme_error_t e, const char *what);

/* A context on a home folder; NULL is the user's own. UVM_TRUST when GnuPG is missing. */
bool uvm_gpg_new(const char *homedir, gpgme_ctx_t *ret_ctx, struct uvm_error *err);

/* Bytes to read from, borrowed. */
bool uvm_gpg_data(const void *bytes, size_t len, gpgme_data_t *ret_data, struct uvm_error *err);
/* What was written, up to the limit of the buffer. Releases the data. */
bool uvm_gpg_take(gpgme_data_t *data, struct uvm_buf *ret_buf, struct uvm_error *err);

/* A private home folder in the temporary folder; takes away what killed processes left there. To be
 * removed also when making it failed. */
struct uvm_gpg_home {
    char *path;
    int lock_fd; /* held while it is used */
};
#define UVM_GPG_HOME_INIT ((struct uvm_gpg_home){NULL, -1})
bool uvm_gpg_home_make(struct uvm_gpg_home *home, struct uvm_error *err);
/* Whatever this host's clock shows, it is `now` for each GnuPG that starts there. */
bool uvm_gpg_home_set_clock(const struct uvm_gpg_home *home, time_t now, struct uvm_error *err);
void uvm_gpg_home_remove(struct uvm_gpg_home *home);
#define uvm_auto_gpg_home __attribute__((cleanup(uvm_gpg_home_remove))) struct uvm_gpg_home

/* Somebody who uses the agent of a home folder. To be had before GnuPG starts one: what is ours is stopped
 * by the last one who leaves, also what a killed process left. One that ran before goes on. */
struct uvm_gpg_agent {
    char *home; /* NULL: nothing is to be stopped */
    int claim_fd;
};
#define UVM_GPG_AGENT_INIT ((struct uvm_gpg_agent){NULL, -1})
/* `homedir` NULL is the user's own, whose agent is his. */
struct uvm_gpg_agent uvm_gpg_agent_use(const char *homedir);
/* Returns when the agent is gone. */
void uvm_gpg_agent_leave(struct uvm_gpg_agent *agent);
#define uvm_auto_gpg_agent                                                                         \
    __attribute__((cleanup(uvm_gpg_agent_leave), unused)) struct uvm_gpg_agent

/* Imports public keys into the context's home folder. UVM_TRUST when there is none, or a secret
 * one. */
bool uvm_gpg_import(gpgme_ctx_t ctx, const void *bytes, size_t len, struct uvm_error *err);

/* The same with files. UVM_TRUST also when one cannot be read; the message names it. */
bool uvm_gpg_import_files(gpgme_ctx_t ctx, const struct uvm_strings *keyrings,
                          struct uvm_error *err);

/* One public key, or (NULL) all, ASCII-armored. UVM_TRUST when there is none. */
bool uvm_gpg_export(gpgme_ctx_t ctx, const char *fingerprint, struct uvm_buf *ret_armored,
                    struct uvm_error *err);
/* Takes a public key away; one with a secret part stays, and that is an error. */
bool uvm_gpg_delete(gpgme_ctx_t ctx, const char *fingerprint, struct uvm_error *err);

enum uvm_gpg_kind { UVM_GPG_PUBLIC, UVM_GPG_SECRET };
/* The keys of the context's home folder. */
bool uvm_gpg_list(gpgme_ctx_t ctx, enum uvm_gpg_kind kind, struct uvm_keys *ret_keys,
                  struct uvm_error *err);

void uvm_gpg_copy_fingerprint(char to[UVM_FINGERPRINT_MAX], const char *from);

/* Anything but SHA-2. */
bool uvm_gpg_is_weak(gpgme_hash_algo_t algo);

/*
 * internal.h: what the files of pool/ share. Nothing outside the folder includes it.
 */
#pragma once

#include "pool/libvirt.h"
#include "pool/pool.h"

struct pool {
    struct pool_virt *virt;
    struct pool_store *store; /* the pool itself */
    char *metadata_dir;
    char *state_dir;
    const struct uvm_observer *observer;
    int lock_fd;      /* -1 while the lock is not held */
    bool told_folder; /* that a folder stands among the metadata */
};

/* ---- opening (open.c) ------------------------------------------------------------------------ */

/* The same pool over another connection, for the case that its own one broke or is stuck. The lock
 * stays with the old one, which must outlive it. */
bool pool_open_again(const struct pool *p, struct pool **ret_pool, struct uvm_error *err);

/* ---- metadata files (metadata.c) ------------------------------------------------------------- */

char *pool_metadata_path(const struct pool *p, const char *name);
bool pool_metadata_exists(const struct pool *p, const char *name, bool *ret_exists,
                          struct uvm_error *err);
/* A folder that bears the name of metadata is nobody's metadata: it does not "exist". */
bool pool_metadata_is_folder(const struct pool *p, const char *name);
/* Every name in the metadata folder. */
bool pool_metadata_names(const struct pool *p, struct uvm_strings *ret_names,
                         struct uvm_error *err);
/* UVM_LIBVIRT when the folder is not there, or not to be written by us. */
bool pool_metadata_writable(const struct pool *p, struct uvm_error *err);
/* The content, when it is sound and is about this product and version; else NULL and a warning. The
 * file may come from any program. */
json_t *pool_metadata_read(const struct pool *p, const char *name, const char *product,
                           const char *version);
/* Puts a file with this text in place, durably. One with another text is replaced. */
bool pool_metadata_link(const struct pool *p, const char *name, const char *text,
                        struct uvm_error *err);
/* Removes a file, durably; absence is success. */
bool pool_metadata_unlink(const struct pool *p, const char *name, struct uvm_error *err);

/* ---- a volume's file (file.c) ---------------------------------------------------------------- */

/* Which file stands there: "<inode>:<time of birth>". NULL, with errno, when it cannot be looked
 * at. The caller frees it. */
char *pool_file_identity(const char *path);
/* Whether that file stands there, as far as can be told: `identity` may be NULL. */
bool pool_file_is(const char *path, const char *identity);
/* Whether no other program has the file open, as one does that fills or reads it at the moment:
 * only then is a write lease granted. UVM_BUSY: one has; UVM_FAILED: this cannot be told. Where the
 * file system knows no leases it is idle. */
bool pool_file_idle(const char *path, struct uvm_error *err);
/* Whether it is a regular file that was neither made nor changed in any way (content, owner, name)
 * for `age` seconds. False when this cannot be told. */
bool pool_file_is_older(const char *path, time_t age);

/* ---- survey (survey.c) ----------------------------------------------------------------------- */

/* pool_survey_take, where doubts about the files of some guests do not count. */
bool pool_survey_look(struct pool *p, const struct uvm_strings *ignored_guests,
                      struct pool_survey *ret_survey, struct uvm_error *err);
/* The entry of that name, or NULL. */
const struct pool_entry *pool_survey_entry(const struct pool_survey *s, const char *name);

/* ---- rollback record (seen.c) ---------------------------------------------------------------- */

/* {"version": 1, "created": N, "streams": {<content id>: {<product>: {"updated": N, "serial": N}}}}
 */
struct pool_seen {
    json_t *tree;
};
void pool_seen_clear(struct pool_seen *s);
#define pool_auto_seen __attribute__((cleanup(pool_seen_clear))) struct pool_seen

/* A record that is missing is empty; one that is damaged too, with a warning. UVM_FAILED when
 * another version of uvmirror wrote it. */
bool pool_seen_read(const char *state_dir, const struct uvm_observer *observer,
                    struct pool_seen *ret_seen, struct uvm_error *err);
/* Takes over the reference to a record that was parsed elsewhere; one without the right shape is
 * empty. */
void pool_seen_from_json(json_t *tree, struct pool_seen *ret_seen);
bool pool_seen_write(const struct pool_seen *s, const char *state_dir, struct uvm_error *err);

/* Where a product of a stream stands in time. `updated` 0 = unknown. */
struct pool_age {
    uint64_t updated, serial;
};
/* The highest of both that was seen; 0 = none. */
struct pool_age pool_seen_age(const struct pool_seen *s, const char *content_id,
                              const char *product);
bool pool_seen_older(const struct pool_seen *s, const char *content_id, const char *product,
                     struct pool_age age);
enum pool_seen_how { POOL_SEEN_RAISE, POOL_SEEN_SET };
void pool_seen_note(struct pool_seen *s, const char *content_id, const char *product,
                    struct pool_age age, enum pool_seen_how how);

/* When the newest bundle was made of which anything was taken; 0 = unknown. */
time_t pool_seen_created(const struct pool_seen *s);
void pool_seen_note_created(struct pool_seen *s, time_t created, enum pool_seen_how how);

/* ---- journal (journal.c) --------------------------------------------------------------------- */

/*
 * journal.json, replaced durably at each step:
 *
 *     {"version": 1, "phase": "import", "pool": <uuid>, "metadata_dir": <folder>,
 *      "volumes": [<name>, ...],                           undo: these are not to be believed,
 *      "offered": [<name>, ...]}                           and these had metadata for a while
 *
 *     {"version": 1, "phase": "commit", "pool": ..., "metadata_dir": ...,
 *      "metadata": {<name>: <text>, ...}, "files": {<name>: <identity>, ...},
 *      "retire": [<name>, ...], "seen": {...}}             finish: do all
 */
bool pool_journal_write_import(const struct pool *p, const struct uvm_strings *volumes,
                               const struct uvm_strings *offered, struct uvm_error *err);

/* What is left to do once everything is verified and durable. */
struct pool_commit {
    json_t *metadata; /* name -> text of its file */
    json_t *files;    /* name -> identity of its volume's file, where that is known */
    struct uvm_strings retire;
    struct pool_seen seen;
};
void pool_commit_clear(struct pool_commit *c);
#define pool_auto_commit __attribute__((cleanup(pool_commit_clear))) struct pool_commit

bool pool_journal_write_commit(const struct pool *p, const struct pool_commit *c,
                               struct uvm_error *err);
bool pool_journal_remove(const struct pool *p, struct uvm_error *err);

/* Finishes or undoes what a journal that was left behind says. Needs the lock. */
bool pool_journal_recover(struct pool *p, struct uvm_error *err);

/* The second half of a commit: links the metadata of volumes that are there, records, retires,
 * removes the journal. Names whose volume is gone, or is another file than the one that was
 * verified, are added to `lost`, and then nothing is retired. */
bool pool_commit_finish(struct pool *p, const struct pool_commit *c, struct uvm_strings *lost,
                        struct uvm_error *err);

/* Deletes volumes that must not be believed, and metadata that another program gave them. One that
 * a guest uses meanwhile stays, without metadata; so does, while use cannot be told for sure, one
 * that had metadata, now or (`offered`) earlier. */
bool pool_undo_volumes(struct pool *p, const struct uvm_strings *volumes,
                       const struct uvm_strings *offered, struct uvm_error *err);

/* ---- plan (plan.c) --------------------------------------------------------------------------- */

struct pool_plan {
    struct pool_step *steps;
    size_t count;
    struct pool_seen seen; /* as it is to be after the commit */
    bool partial;          /* an image is left out for a reason of this host */
};
void pool_plan_clear(struct pool_plan *plan);

/* Decides; changes nothing. Errors as in pool_import_begin. Says loudly what of it is older than
 * what was seen, and that nothing was seen yet. */
bool pool_plan_make(const struct pool_import_options *options, const struct pool_survey *survey,
                    const struct pool_seen *seen, const struct uvm_observer *observer,
                    struct pool_plan *ret_plan, struct uvm_error *err);

/* Whether it retires the image of that name. */
bool pool_plan_retires(const struct pool_plan *plan, const char *name);

/* ---- what to say about it (plan-notice.c) ---------------------------------------------------- */

/* A product is older than what was seen of it. */
enum pool_older { POOL_OLDER_SKIPPED, POOL_OLDER_TAKEN };
void pool_plan_tell_older(const char *product, struct pool_age age, struct pool_age seen,
                          enum pool_older how, const struct uvm_observer *observer);
/* The record is empty (lost, or this is the first import) though images are here; or the bundle comes
 * from the future. */
void pool_plan_tell_unseen(const struct pool_survey *survey, const struct pool_seen *seen,
                           uint64_t serial, const struct uvm_observer *observer);
/* So many images are for hosts of other architectures; all that there are, or others are for this
 * one, too. */
enum pool_others { POOL_OTHERS_TOO, POOL_OTHERS_ALONE };
void pool_plan_tell_others(size_t count, enum pool_others how, const struct uvm_observer *observer);
/* Images among which uvt-kvm cannot choose, or of which none is for this host. */
void pool_plan_warn(const struct pool_plan *plan, const struct pool_survey *survey,
                    const struct uvm_observer *observer);
/* Leaves an image out whose volume, which is in use, was not proven to be it; and, with a warning
 * that says why, keeps what it would have superseded. */
void pool_plan_leave(struct pool_plan *plan, struct pool_step *step, const char *why,
                     const struct uvm_observer *observer);

/* ---- cleanup (clean.c) ----------------------------------------------------------------------- */

/* pool_clean, with its first look already taken. What was done is added to *ret_cleaned, also on
 * failure. */
bool pool_clean_after(struct pool *p, const struct pool_survey *first, unsigned flags,
                      struct pool_cleaned *ret_cleaned, struct uvm_error *err);

/* ---- folders of volumes (folders.c) ---------------------------------------------------------- */

/* Something to listen with; the caller closes it. -1 when the kernel gives none: then nothing is
 * ever heard, and a look must not be believed for long. */
int pool_folders_open(void);
/* Listens to these folders, too. One that is not there, or on a server, is not heard of. */
void pool_folders_watch(int fd, const struct uvm_strings *folders);
/* Whether a file was made, moved in or filled there since the last call. */
bool pool_folders_changed(int fd);

/* ---- deletions (sweep.c) --------------------------------------------------------------------- */

/* Deletes the volumes that a cleanup may take, each only after a look that is still true. Adds to
 * *cleaned, also on failure. */
bool pool_sweep(struct pool *p, const struct pool_clean_options *options,
                const struct pool_survey *first, struct pool_cleaned *cleaned,
                struct uvm_error *err);
/* Only tells what that would delete. */
void pool_sweep_list(struct pool *p, const struct pool_clean_options *options,
                     const struct pool_survey *first, struct pool_cleaned *cleaned);

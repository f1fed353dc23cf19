/*
 * base.h: the ground floor of uvmirror: errors, memory, buffers, files, digests, OpenPGP, events.
 *
 * Nothing here knows what an image is. Everything above may use it; it uses only libc, libcrypto
 * and gpgme.
 *
 * Conventions that hold in every folder:
 *
 * - A fallible function returns bool and takes `struct uvm_error *err` last. On false, *err holds a
 *   code, the system's errno (or 0) and a message; outputs named `ret_...` are untouched. Each
 *   layer prefixes what it was doing. An error is returned, never printed, and only cmd/main.c
 *   turns its code into an exit status.
 * - `_new/_free` live on the heap, `_init/_clear` are embedded. `_free(NULL)` is fine.
 * - A variable declared with one of the `uvm_auto...` words owns what it holds and lets go of it at
 *   the end of its scope; UVM_STEAL moves ownership out of it.
 * - Running out of memory aborts. A size that comes from outside is checked against a named limit
 *   before it reaches an allocation.
 * - Strings are UTF-8, sizes are bytes (uint64_t for contents, size_t for memory), times are
 *   seconds since 1970 UTC.
 */
#pragma once

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

/* ---- errors ---------------------------------------------------------------------------------- */

/* What went wrong, as far as the one who must react can tell. The values are the documented exit
 * codes of the program. */
enum uvm_code {
    UVM_OK = 0,
    UVM_FAILED = 1,  /* any other failure */
    UVM_USAGE = 2,   /* the command line is wrong */
    UVM_SOURCE = 3,  /* network or source: not there, not reachable, not answering as agreed */
    UVM_TRUST = 4,   /* signature or trust refused */
    UVM_CONTENT = 5, /* content refused: damaged, hostile, or not what was signed */
    UVM_SPACE = 6,   /* no space left, or over a limit */
    UVM_LIBVIRT = 7, /* libvirt or its pool */
    UVM_BUSY = 8,    /* another uvmirror is running */
    UVM_PARTIAL = 9, /* some images failed, the rest is in place */
    UVM_INTERRUPTED = 130, /* the user stopped it */
};

struct uvm_error {
    enum uvm_code code;
    int sys_errno; /* 0 when no system call is to blame */
    char *message; /* owned; NULL while there is no error */
};

#define UVM_ERROR_INIT ((struct uvm_error){UVM_OK, 0, NULL})

void uvm_error_clear(struct uvm_error *err);

/* Sets *err (which must not hold an error yet) and returns false, so that a function can say
 * `return uvm_fail(err, UVM_CONTENT, "...")`. */
bool uvm_fail(struct uvm_error *err, enum uvm_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with ": " and the text of the present errno added. ENOSPC, EDQUOT and EFBIG turn the
 * code into UVM_SPACE whatever `code` says. */
bool uvm_fail_errno(struct uvm_error *err, enum uvm_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<formatted>: " in front of the message that *err holds, and returns false. */
bool uvm_prefix(struct uvm_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define uvm_auto_error __attribute__((cleanup(uvm_error_clear))) struct uvm_error

/* ---- memory and strings ---------------------------------------------------------------------- */

void *uvm_alloc(size_t size);                                /* zeroed */
void *uvm_grow(void *array, size_t count, size_t item_size); /* realloc, checked for overflow */
char *uvm_strdup(const char *s);                             /* NULL stays NULL */
char *uvm_strndup(const char *s, size_t len);
char *uvm_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *uvm_vformat(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

void uvm_free_ptr(void *ptr_to_ptr);
void uvm_close_ptr(int *fd); /* -1: nothing to close, and what it leaves behind */

#define uvm_auto_free __attribute__((cleanup(uvm_free_ptr)))
#define uvm_auto_fd   __attribute__((cleanup(uvm_close_ptr))) int

/* Takes the value out of a pointer variable and leaves NULL behind. */
#define UVM_STEAL(ptr)                                                                             \
    ({                                                                                             \
        __typeof__(ptr) uvm_stolen_ = (ptr);                                                       \
        (ptr) = NULL;                                                                              \
        uvm_stolen_;                                                                               \
    })

/* The same for a file descriptor; leaves -1. */
int uvm_steal_fd(int *fd);

/* Declares `uvm_auto_TYPE`-style cleanup for a pointer type: UVM_AUTO(mirror_stream_free) gives a
 * function to name in __attribute__((cleanup())). Use as:
 *     UVM_DEFINE_AUTO(struct mirror_stream *, mirror_stream_free)
 *     UVM_AUTO(mirror_stream_free) struct mirror_stream *stream = NULL; */
#define UVM_DEFINE_AUTO(type, func)                                                                \
    static inline void func##_auto_(type *p)                                                       \
    {                                                                                              \
        if (*p)                                                                                    \
            func(*p);                                                                              \
    }
#define UVM_AUTO(func)                                                                             \
    __attribute__((cleanup(func##_auto_), unused)) /* to hold it may be the use */

/* A growing list of owned strings; `items` is always NULL-terminated once something was added. */
struct uvm_strings {
    char **items;
    size_t count;
};
void uvm_strings_add(struct uvm_strings *list, const char *s); /* copies */
bool uvm_strings_has(const struct uvm_strings *list, const char *s);
void uvm_strings_clear(struct uvm_strings *list);
#define uvm_auto_strings __attribute__((cleanup(uvm_strings_clear))) struct uvm_strings

/* True if `s` (of `len` bytes) is valid UTF-8 without NUL. Overlong forms and surrogates are
 * not. */
bool uvm_utf8_valid(const char *s, size_t len);

/* A copy of `s` in which control and invisible characters and invalid UTF-8 are replaced by '?':
 * what comes from outside goes through this before it reaches a terminal. */
char *uvm_printable(const char *s);

/* Base64 with '+', '/' and padding, of a string of at most UVM_BASE64_MAX bytes; the caller frees
 * it. */
#define UVM_BASE64_MAX ((size_t)64 << 10)
char *uvm_base64(const char *s);
/* The reverse, closed by a zero; NULL when it is no base64. What decodes need not encode again to
 * the same: bits that do not count may be set. */
char *uvm_base64_decode(const char *coded);

/* "1.4 GB", "312 kB", "17 B": decimal units, three digits. */
char *uvm_size_text(uint64_t bytes);

/* "2024-10-04T09:30:00Z" */
char *uvm_time_text(time_t t);

/* ---- buffers --------------------------------------------------------------------------------- */

/* Bytes that grow up to a limit which the owner states. A zero byte that does not count always
 * follows `data`, once anything was added. */
struct uvm_buf {
    char *data;
    size_t len;
    size_t max; /* 0 = UVM_BUF_DEFAULT_MAX */
    size_t cap_;
};
#define UVM_BUF_DEFAULT_MAX ((size_t)64 << 20)

/* False (UVM_SPACE) when the limit would be passed; the buffer is unchanged then. */
bool uvm_buf_add(struct uvm_buf *buf, const void *data, size_t len, struct uvm_error *err);
void uvm_buf_clear(struct uvm_buf *buf);
/* Moves the content from one to the other, which must be empty. */
void uvm_buf_move(struct uvm_buf *to, struct uvm_buf *from);
#define uvm_auto_buf __attribute__((cleanup(uvm_buf_clear))) struct uvm_buf

/* ---- readers of bytes ------------------------------------------------------------------------ */

/* Something that yields bytes front to back, once. `read` sets *ret_data to the next block, which
 * the reader owns and which is valid until the next call; *ret_len 0 is the end. A reader that
 * checks what it reads (a bundle's member, a download) fails at the latest in the call that would
 * have returned the end: only an end that was reported makes the bytes believable. */
struct uvm_reader {
    bool (*read)(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err);
    void *opaque;
};

/* ---- work side by side, results in order ----------------------------------------------------- */

/* A row of jobs that is worked on by a thread per processor (UVM_LANES_MAX at most), and comes out in
 * the order in which it went in. */
#define UVM_LANES_MAX   16
#define UVM_LANES_BYTES ((size_t)64 << 20)
struct uvm_lanes;
struct uvm_lanes_options {
    size_t job_size; /* bytes of a job, which is the caller's own struct; zeros at first */
    /* That a job comes to hold, about: where they are large there are fewer lanes, so that all jobs hold
     * UVM_LANES_BYTES at most, or what one lane needs. 0 = little. */
    size_t job_bytes;
    /* Fills the next job; *ret_end when there is none. One call at a time, in order, by any thread. A
     * job is used again after its result was handed out. */
    bool (*take)(void *opaque, void *job, bool *ret_end, struct uvm_error *err);
    /* Does a job. Called by many threads at once. */
    bool (*work)(void *opaque, void *job, struct uvm_error *err);
    /* Frees what a job holds. Called once for each at the end. */
    void (*clear)(void *opaque, void *job);
    void *opaque;
};
/* The options are copied. A thread that cannot be started is done without; when none can, work is done
 * in uvm_lanes_next. */
struct uvm_lanes *uvm_lanes_new(const struct uvm_lanes_options *options);
/* Stops at the next job, and waits for those that are being worked on. */
void uvm_lanes_free(struct uvm_lanes *l);
UVM_DEFINE_AUTO(struct uvm_lanes *, uvm_lanes_free)
/* The next job that is done, NULL at the end; borrowed until the next call. The error of a job comes in
 * its turn, and is the end. */
bool uvm_lanes_next(struct uvm_lanes *l, void **ret_job, struct uvm_error *err);

/* ---- files ----------------------------------------------------------------------------------- */

/* Reads a whole regular file (symbolic links are followed; FIFOs and devices are refused) of at
 * most `max` bytes. UVM_SPACE when it is larger, UVM_FAILED with sys_errno set else. */
bool uvm_file_read(const char *path, size_t max, struct uvm_buf *ret_buf, struct uvm_error *err);

/* Up to `len` bytes, as read(2) gives them; *ret_len 0 is the end. */
bool uvm_read_some(int fd, void *data, size_t len, size_t *ret_len, struct uvm_error *err);

bool uvm_write_all(int fd, const void *data, size_t len, struct uvm_error *err);
/* The same into a pipe or a socket, whose reader may take his time. UVM_INTERRUPTED as soon as the
 * observer says so, with some of it written. */
struct uvm_observer;
bool uvm_write_pipe(int fd, const void *data, size_t len, const struct uvm_observer *observer,
                    struct uvm_error *err);

/* mkdir -p; folders that are there keep their mode. */
bool uvm_make_dirs(const char *path, mode_t mode, struct uvm_error *err);

/* Removes a folder and what is below it, without following symbolic links. Absence is success. */
bool uvm_remove_tree(const char *path, struct uvm_error *err);
/* The same for what is below an open folder, which stays. */
bool uvm_remove_below(int dir_fd, struct uvm_error *err);

/* The folder part of a path: "a/b" -> "a", "b" -> ".", "/b" -> "/". */
char *uvm_dirname(const char *path);

/* $TMPDIR when that is an absolute path, else "/tmp". Borrowed. */
const char *uvm_temporary_folder(void);

/* fsync of the folder that holds `path`, so that a name in it survives a power cut. */
bool uvm_sync_dir_of(const char *path, struct uvm_error *err);

/* Bytes that an ordinary user may still write on the file system of `path`; UINT64_MAX when that does
 * not tell (some in user space do not know their own size). */
bool uvm_free_space(const char *path, uint64_t *ret_bytes, struct uvm_error *err);

/* A file that stands under its name only when it is complete. It is written beside its place as
 * ".NAME.uvm-XXXXXX", locked (flock), and renamed by commit, after fsync; without commit nothing is left, and
 * what killed processes left is removed by the next open in that folder. The umask takes its part of the
 * mode. Only a regular file is replaced: UVM_FAILED for a folder or a device. */
struct uvm_outfile {
    int fd;
    char *path;     /* where it is to stand */
    char *tmp_path; /* where it stands now; NULL after commit */
};
#define UVM_UNFINISHED_TAIL ".uvm-XXXXXX"
#define UVM_OUTFILE_INIT    ((struct uvm_outfile){-1, NULL, NULL})
bool uvm_outfile_open(struct uvm_outfile *file, const char *path, mode_t mode,
                      struct uvm_error *err);
bool uvm_outfile_commit(struct uvm_outfile *file, struct uvm_error *err);
/* The same for a name that nobody asked for: what has it already, of whatever kind, stays there, and
 * that is UVM_FAILED. */
bool uvm_outfile_commit_new(struct uvm_outfile *file, struct uvm_error *err);
void uvm_outfile_clear(struct uvm_outfile *file);
/* Removes what killed processes left of such files, and of folders that are named and locked alike. */
void uvm_remove_unfinished(const char *folder);
#define uvm_auto_outfile __attribute__((cleanup(uvm_outfile_clear))) struct uvm_outfile

/* Gives a file in a folder (AT_FDCWD = here) a path, on the same file system, that must be free:
 * UVM_FAILED when it is not. Of two at once, one fails, but on a file system which can neither rename
 * that way nor link, such as FAT through FUSE. */
bool uvm_rename_new(int dir_fd, const char *name, const char *path, struct uvm_error *err);

/* Replaces a small file atomically and durably. */
bool uvm_file_replace(const char *path, mode_t mode, const void *data, size_t len,
                      struct uvm_error *err);

/* An empty file without a name, to read and write, on the file system of a folder: it is gone with its
 * descriptor. Where that knows no such files, it has a name (".spool.XXXXXX") for an instant. */
bool uvm_nameless_file(const char *dir, int *ret_fd, struct uvm_error *err);

/* An exclusive lock (flock) on a file that is made when missing. UVM_BUSY, at once, when another
 * process holds it. Closing the descriptor lets go of it; so does the end of the process. */
bool uvm_lock_file(const char *path, int *ret_fd, struct uvm_error *err);

/* What a killed process left is told by its lock, which went with it. So a file or folder that might be
 * left is claimed, before anything is put in: `lock` (LOCK_SH or LOCK_EX of flock) is waited for, but
 * only as long as somebody takes to look. A file system without locks is no failure. */
void uvm_claim(int fd, int lock);
/* Removes what was left under a name of an open folder: a regular file, or a folder and all that is
 * below it. It must belong to the process's user (on FAT, where all belongs to one, to anybody), nobody
 * may hold a lock on it, and it must have content, or a minute behind it; on a file system that other
 * machines may have mounted, an hour. Symbolic links are not followed. As far as that can be done. */
void uvm_remove_left(int dir_fd, const char *name);
/* The same for all names of a folder that `is_ours` takes. */
void uvm_remove_all_left(const char *folder, bool (*is_ours)(const void *opaque, const char *name),
                         const void *opaque);

/* ---- digests --------------------------------------------------------------------------------- */

enum uvm_digest_type { UVM_SHA256, UVM_SHA512 };
#define UVM_DIGEST_HEX_MAX 129 /* with the closing zero */

struct uvm_digest;
struct uvm_digest *uvm_digest_new(enum uvm_digest_type type);
void uvm_digest_update(struct uvm_digest *d, const void *data, size_t len);
/* Ends the computation; `hex` gets lower-case digits. */
void uvm_digest_finish(struct uvm_digest *d, char hex[UVM_DIGEST_HEX_MAX]);
void uvm_digest_free(struct uvm_digest *d);
UVM_DEFINE_AUTO(struct uvm_digest *, uvm_digest_free)

void uvm_digest_bytes(enum uvm_digest_type type, const void *data, size_t len,
                      char hex[UVM_DIGEST_HEX_MAX]);

/* True for exactly 64 (SHA-256) or 128 (SHA-512) lower-case hexadecimal digits. */
bool uvm_digest_valid(enum uvm_digest_type type, const char *hex);

/* ---- OpenPGP --------------------------------------------------------------------------------- */

/* Every verification runs GnuPG in a private home folder that holds exactly the keys given, and
 * that is gone afterwards; the user's ~/.gnupg and GNUPGHOME play no part, and no agent is left
 * running but one that ran before. What a killed process leaves, of such a folder or as an agent, goes
 * with the next one. */

#define UVM_FINGERPRINT_MAX 65 /* upper-case hex with the closing zero; 40 or 64 digits */
#define UVM_KEYRING_MAX     ((size_t)4 << 20)

struct uvm_signature {
    char fingerprint[UVM_FINGERPRINT_MAX]; /* of the signer's primary key */
    char *user_id;                         /* of the key, printable; "" when it has none */
    time_t made;                           /* what the signature says */
};
void uvm_signature_clear(struct uvm_signature *sig);
#define uvm_auto_signature __attribute__((cleanup(uvm_signature_clear))) struct uvm_signature

struct uvm_verifier;

/* Makes a verifier that trusts the keys in the given keyring files (OpenPGP public keys, binary or
 * armored; at least one key altogether). UVM_TRUST when a file is missing or holds no key, or when
 * GnuPG is not installed. */
bool uvm_verifier_new(const struct uvm_strings *keyrings, struct uvm_verifier **ret_verifier,
                      struct uvm_error *err);
void uvm_verifier_free(struct uvm_verifier *v);
UVM_DEFINE_AUTO(struct uvm_verifier *, uvm_verifier_free)

/* Tells it that it is at least `newest` now (seconds), whatever this host's clock says: whether a key or
 * a signature has expired is judged by the later of the two. `because` is how a message goes on that
 * names the clock ("this host has taken a bundle of ..."); copied. */
bool uvm_verifier_not_before(struct uvm_verifier *v, time_t newest, const char *because,
                             struct uvm_error *err);

/* What to tell somebody whose key is not among them ("see 'uvmirror key trust'"). Copied. */
void uvm_verifier_advise(struct uvm_verifier *v, const char *advice);

/* Verifies an OpenPGP clear-signed text (RFC 4880, section 7). `text` is not trusted. What GnuPG
 * says was signed becomes *ret_plain. Refused with UVM_TRUST: anything but one message with the
 * armor's first line at the very start and nothing but white space after its last; headers other
 * than "Hash:"; a text of which GnuPG reads more or less than what stands there (lines over 19,995
 * bytes); and every signature that uvm_verifier_detached refuses. */
bool uvm_verifier_clearsigned(struct uvm_verifier *v, const void *text, size_t len,
                              struct uvm_buf *ret_plain, struct uvm_signature *ret_sig,
                              struct uvm_error *err);

/* The text within a clear-signed message, without a look at its signature; what has no armor is
 * returned as it is. For what need not be trusted, or was verified before. */
bool uvm_cleartext_body(const void *text, size_t len, struct uvm_buf *ret_plain,
                        struct uvm_error *err);

/* Verifies a detached signature, armored or binary, with nothing around it. Accepted only if at
 * least one signature is there, *every* signature has exactly the status "good", its key's primary
 * fingerprint is one of the verifier's keys, and its hash is neither MD5, RIPEMD-160 nor SHA-1.
 * UVM_TRUST with a distinct message for: bad, unknown key, expired key, revoked key, expired
 * signature, weak hash, none. */
bool uvm_verifier_detached(struct uvm_verifier *v, const void *data, size_t len, const void *sig,
                           size_t sig_len, struct uvm_signature *ret_sig, struct uvm_error *err);

/* A public key, as listed. */
struct uvm_key {
    char fingerprint[UVM_FINGERPRINT_MAX];
    char *user_id;  /* printable */
    time_t created; /* 0 = unknown */
    time_t expires; /* 0 = never */
    bool revoked;
    bool has_secret;
};
struct uvm_keys {
    struct uvm_key *items;
    size_t count;
};
void uvm_keys_clear(struct uvm_keys *keys);
#define uvm_auto_keys __attribute__((cleanup(uvm_keys_clear))) struct uvm_keys

bool uvm_keys_has(const struct uvm_keys *keys, const char *fingerprint);

/* The public keys in the bytes of a keyring file. UVM_TRUST when there is none. */
bool uvm_keys_read(const void *keyring, size_t len, struct uvm_keys *ret_keys,
                   struct uvm_error *err);

/* The same keyring without one of its keys, ASCII-armored; *ret_armored stays empty when it holds no
 * other. UVM_TRUST when the key is not in it. */
bool uvm_keyring_without(const void *keyring, size_t len, const char *fingerprint,
                         struct uvm_buf *ret_armored, struct uvm_error *err);

/* Which key of the files `trusted` vouches for the key `fingerprint` in `keyring`, which is not
 * trusted yet: its fingerprint; the key's own when it is trusted already; "" when none does. To vouch
 * is an OpenPGP certification (RFC 4880, 5.2.1: 0x10 to 0x13) of the user ID by which the key is listed
 * that verifies, has not expired and was not taken back, by a primary key that has not expired and is
 * not revoked. GnuPG is asked in a home folder that holds the trusted keys and this one alone. */
bool uvm_key_voucher(const struct uvm_strings *trusted, const void *keyring, size_t len,
                     const char *fingerprint, char ret_voucher[UVM_FINGERPRINT_MAX],
                     struct uvm_error *err);

/* The same, with those who may vouch being the keys of a GnuPG home folder that have a secret part. One
 * that has expired counts for what it signed before. */
bool uvm_key_predecessor(const char *homedir, const struct uvm_buf *keyring,
                         const char *fingerprint, char ret_voucher[UVM_FINGERPRINT_MAX],
                         struct uvm_error *err);

/* The keys with a secret part in a GnuPG home folder. A folder that is missing holds none. */
bool uvm_keys_secret(const char *homedir, struct uvm_keys *ret_keys, struct uvm_error *err);

/* Makes a signing key (the strongest that every GnuPG since 2.1 knows: ed25519) without passphrase,
 * kept safe by the folder's mode 0700. `valid_seconds` 0 = never expires. The folder is made. */
bool uvm_key_generate(const char *homedir, const char *user_id, unsigned long valid_seconds,
                      char ret_fingerprint[UVM_FINGERPRINT_MAX], struct uvm_error *err);

/* The public part of one key, ASCII-armored. */
bool uvm_key_export(const char *homedir, const char *fingerprint, struct uvm_buf *ret_armored,
                    struct uvm_error *err);

/* Adds public keys to a GnuPG home folder, or what they have gained to those that are there. */
bool uvm_key_import(const char *homedir, const void *keyring, size_t len, struct uvm_error *err);

/* Something that signs with one secret key of a GnuPG home folder; `homedir` NULL is the user's
 * own. `key` names it as GnuPG understands it (fingerprint, mail address); NULL takes the only one
 * there. UVM_TRUST when there is none that has not expired, or more than one. While it lives it holds a shared lock
 * (flock) on the folder: UVM_BUSY when somebody has locked the folder for himself, to exchange it.
 * A passphrase is asked for by GnuPG's pinentry: UVM_INTERRUPTED when that was cancelled. */
struct uvm_signer;
bool uvm_signer_new(const char *homedir, const char *key, struct uvm_signer **ret_signer,
                    struct uvm_error *err);
const char *uvm_signer_fingerprint(const struct uvm_signer *s);
/* A key signs nothing before it was made: UVM_TRUST, by a message that names the clock, when the host's
 * is behind that. Signing looks at it, too; this is for telling it ahead of long work. */
bool uvm_signer_check_clock(const struct uvm_signer *s, struct uvm_error *err);
bool uvm_signer_detached(struct uvm_signer *s, const void *data, size_t len,
                         struct uvm_buf *ret_sig, struct uvm_error *err);
/* Clear-signs a text, which should end with a newline. UVM_SPACE when a line of it has more than
 * 19,000 bytes: GnuPG would cut it. */
bool uvm_signer_clearsigned(struct uvm_signer *s, const void *text, size_t len,
                            struct uvm_buf *ret_signed, struct uvm_error *err);
/* Lets the signer vouch for another key, of which `keyring` holds the public part: a certification
 * of all its user IDs, exportable and without end. That key is returned with it, ASCII-armored; it
 * does not stay in the signer's home folder. */
bool uvm_signer_certify(struct uvm_signer *s, const void *keyring, size_t len,
                        const char *fingerprint, struct uvm_buf *ret_armored,
                        struct uvm_error *err);
void uvm_signer_free(struct uvm_signer *s);
UVM_DEFINE_AUTO(struct uvm_signer *, uvm_signer_free)

/* ---- confinement ----------------------------------------------------------------------------- */

/* Before a process reads what strangers may have written it gives up what it does not need. To be
 * called while it has one thread, and what it needs from elsewhere (a connection that a program of the
 * user's makes) is there: neither it nor anything that it starts (GnuPG) gets it back. */

/* Which sockets may still be made. What is connected stays so. */
enum uvm_sockets {
    UVM_SOCKETS_NONE,
    UVM_SOCKETS_LOCAL, /* to daemons of this host */
};

/* What is in force; it depends on the kernel. */
enum uvm_confined {
    UVM_CONFINED_FILES = 1, /* files change below the given folders alone (Landlock) */
    UVM_CONFINED_CALLS = 2, /* the sockets (seccomp) */
};

/* From now on files and names are made, changed and removed only below the `writable` folders (those
 * of them that are there), uvm_temporary_folder() and /dev/shm. A file's mode, owner and times are
 * not governed. Reading is as before; so is what is open. Of root's capabilities those are left that
 * have to do with files. Returns a set of uvm_confined: it never fails, it may do less. */
unsigned uvm_confine(const struct uvm_strings *writable, enum uvm_sockets sockets);

/* ---- events and interruption ----------------------------------------------------------------- */

/* Libraries never print. What a person may want to see is an event, which cmd/ui.c renders as a
 * line on a terminal, plain text or JSON. */
enum uvm_event_kind {
    UVM_EVENT_PROGRESS, /* `done` of `total` bytes of a step; total 0 = not known */
    UVM_EVENT_DONE,     /* the step ended well */
    UVM_EVENT_FAILED,   /* the step ended otherwise; an error or a warning tells why */
    UVM_EVENT_NOTICE,   /* something worth a line; `text` */
    UVM_EVENT_WARNING,  /* something that a person should act on; `text` */
};

struct uvm_event {
    enum uvm_event_kind kind;
    const char *step;    /* a verb: "download", "copy", "bundle", "verify", "upload", "convert",
                            "delete" */
    const char *subject; /* what it is done to: a path, an image, a volume */
    const char *text;    /* NOTICE and WARNING; on DONE an optional result */
    /* Bytes. What was there when the step began counts as done; its first event says how much. */
    uint64_t done, total;
};

/* Who watches, and how a run is stopped. Every long function takes one; NULL watches nothing.
 * Threads may call `event`, and look at `stop`, at the same time. */
struct uvm_observer {
    void (*event)(void *opaque, const struct uvm_event *event);
    void *opaque;
    const atomic_bool *stop; /* true = stop soon; may be set by a signal handler; may be NULL */
};

void uvm_progress(const struct uvm_observer *o, const char *step, const char *subject,
                  uint64_t done, uint64_t total);
void uvm_done(const struct uvm_observer *o, const char *step, const char *subject,
              const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Takes a step off the list of what runs, while other steps go on. */
void uvm_step_failed(const struct uvm_observer *o, const char *step, const char *subject);
void uvm_notice(const struct uvm_observer *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void uvm_warning(const struct uvm_observer *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* False (UVM_INTERRUPTED) once the run was asked to stop. Long loops call it for each block. */
bool uvm_go_on(const struct uvm_observer *o, struct uvm_error *err);

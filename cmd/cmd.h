/*
 * cmd.h: the program around the libraries: one file per subcommand, options, output.
 *
 * This is the only folder that prints or exits. A command is a table entry (struct cmd_command)
 * whose options are a table too: parsing, --help, the manual pages and completion all come from it.
 */
#pragma once

#include "bundle/bundle.h"
#include "mirror/mirror.h"
#include "pool/pool.h"

/* ---- options --------------------------------------------------------------------------------- */

enum cmd_kind {
    CMD_FLAG,    /* bool */
    CMD_TEXT,    /* const char *, borrowed from argv */
    CMD_LIST,    /* struct uvm_strings; may be given several times */
    CMD_NUMBER,  /* unsigned */
    CMD_COUNT,   /* unsigned, at least 1 */
    CMD_BYTES,   /* uint64_t; "10G", "512M", "64k" (powers of 1024) or plain bytes */
    CMD_SECONDS, /* unsigned; "90", "15m", "6h", "2d" */
};

struct cmd_option {
    const char *name; /* long name, without dashes */
    char letter;      /* short form, 0 = none */
    enum cmd_kind kind;
    const char *arg;  /* what it takes ("FILE"); NULL for a flag */
    const char *help; /* a sentence without full stop */
    size_t offset;    /* of its variable in the command's struct of options */
};

struct cmd_command {
    const char *name;
    const char *args;                 /* "[OPTION...] [FILTER...]" */
    const char *summary;              /* one line */
    const char *details;              /* the paragraph of --help */
    bool private;                     /* its files are the user's own: a stricter umask counts */
    const char *interrupted;          /* what is left after Ctrl-C and how to go on; may be NULL */
    const struct cmd_option *options; /* ends with a name of NULL */
    size_t options_size;  /* of the command's struct, which starts with struct cmd_common */
    const void *defaults; /* such a struct, to start from; NULL = zeroes */
    /* `options` was filled from the command line; `args` are what is left of it. */
    bool (*run)(const void *options, const struct uvm_strings *args, struct uvm_error *err);
};

extern const struct cmd_command cmd_fetch, cmd_add, cmd_bundle, cmd_import, cmd_verify, cmd_show,
    cmd_list, cmd_clean, cmd_inventory, cmd_publish, cmd_key, cmd_init, cmd_doctor;

/* Every command's options start with these. */
struct cmd_common {
    bool json, quiet, verbose, no_progress;
    const char *color; /* "auto", "always", "never" */
    const char *state_dir;
};

#define CMD_COMMON_OPTIONS(type)                                                                    \
    {"state-dir",                                                                                   \
     0,                                                                                             \
     CMD_TEXT,                                                                                      \
     "DIR",                                                                                         \
     "where keys, records and locks are kept",                                                      \
     offsetof(type, common.state_dir)},                                                             \
        {"json", 0, CMD_FLAG, NULL, "print one JSON object per line", offsetof(type, common.json)}, \
        {"quiet",                                                                                   \
         'q',                                                                                       \
         CMD_FLAG,                                                                                  \
         NULL,                                                                                      \
         "print only results, warnings and errors",                                                 \
         offsetof(type, common.quiet)},                                                             \
        {"verbose",                                                                                 \
         'v',                                                                                       \
         CMD_FLAG,                                                                                  \
         NULL,                                                                                      \
         "print also what was left alone, and why",                                                 \
         offsetof(type, common.verbose)},                                                           \
        {"no-progress",                                                                             \
         0,                                                                                         \
         CMD_FLAG,                                                                                  \
         NULL,                                                                                      \
         "print finished steps instead of moving lines",                                            \
         offsetof(type, common.no_progress)},                                                       \
    {                                                                                               \
        "color", 0, CMD_TEXT, "WHEN", "auto, always or never", offsetof(type, common.color)         \
    }

/* How web servers are asked: fetch, add. The network starts as MIRROR_NETWORK_DEFAULT, by the
 * command's defaults. */
#define CMD_NETWORK_OPTIONS(type)                                                                  \
    {"limit-rate",                                                                                 \
     0,                                                                                            \
     CMD_BYTES,                                                                                    \
     "RATE",                                                                                       \
     "bytes per second of all downloads together, such as 500k or 2M",                             \
     offsetof(type, network.rate)},                                                                \
        {"retries",                                                                                \
         0,                                                                                        \
         CMD_NUMBER,                                                                               \
         "N",                                                                                      \
         "try a file again so often in a row when the network fails (default 4)",                  \
         offsetof(type, network.retries)},                                                         \
        {"stall-time",                                                                             \
         0,                                                                                        \
         CMD_SECONDS,                                                                              \
         "TIME",                                                                                   \
         "give up waiting for a server that sends next to nothing (default 60)",                   \
         offsetof(type, network.stall_seconds)},                                                   \
        {"max-time",                                                                               \
         0,                                                                                        \
         CMD_SECONDS,                                                                              \
         "TIME",                                                                                   \
         "stop downloading after this time, such as 90, 15m or 6h",                                \
         offsetof(type, network.max_seconds)},                                                     \
    {                                                                                              \
        "cacert", 0, CMD_TEXT, "FILE",                                                             \
            "authorities that may vouch for an https server, instead of the system's",             \
            offsetof(type, network.cacert)                                                         \
    }

/* A mirror and the bundle that is made of it: fetch, bundle. */
struct cmd_outgoing_options {
    const char *mirror, *output, *sign_key, *homedir;
    const char *split; /* a size, "fat32" or "auto"; NULL = one file */
    bool read_back, no_read_back;
    unsigned max;    /* 0 = the command's own way */
    unsigned format; /* the highest that the bundle may have; 0 = any */
    bool compact;
    unsigned compress_level; /* of compact images; 0 = BUNDLE_COMPACT_LEVEL */
    struct uvm_strings have; /* files: inventories of the receivers */
    bool dry_run;
};

#define CMD_MIRROR_OPTION(type, field)                                                             \
    {                                                                                              \
        "mirror", 0, CMD_TEXT, "DIR",                                                              \
            "the folder of mirrored images (default: below the state folder)",                     \
            offsetof(type, field)                                                                  \
    }

#define CMD_OUTGOING_OPTIONS(type)                                                                 \
    CMD_MIRROR_OPTION(type, out.mirror),                                                           \
        {"output",                                                                                 \
         'o',                                                                                      \
         CMD_TEXT,                                                                                 \
         "FILE",                                                                                   \
         "the bundle, or a folder for it, or '-' (default: this folder)",                          \
         offsetof(type, out.output)},                                                              \
        {"split",                                                                                  \
         0,                                                                                        \
         CMD_TEXT,                                                                                 \
         "SIZE",                                                                                   \
         "cut the bundle into parts of this size, such as 4G; 'fat32' for what such a stick "      \
         "takes, "                                                                                 \
         "'auto' where it is needed",                                                              \
         offsetof(type, out.split)},                                                               \
        {"read-back",                                                                              \
         0,                                                                                        \
         CMD_FLAG,                                                                                 \
         NULL,                                                                                     \
         "read what was written back from the medium and compare (default on another file system " \
         "than the mirror's)",                                                                     \
         offsetof(type, out.read_back)},                                                           \
        {"no-read-back", 0, CMD_FLAG, NULL, "do not", offsetof(type, out.no_read_back)},           \
        {"format",                                                                                 \
         0,                                                                                        \
         CMD_COUNT,                                                                                \
         "N",                                                                                      \
         "write this format version, for a receiver that reads no newer one",                      \
         offsetof(type, out.format)},                                                              \
        {"compact",                                                                                \
         0,                                                                                        \
         CMD_FLAG,                                                                                 \
         NULL,                                                                                     \
         "carry the content of images, which compresses better than they do, and versions of one " \
         "product as differences",                                                                 \
         offsetof(type, out.compact)},                                                             \
        {"compress-level",                                                                         \
         0,                                                                                        \
         CMD_COUNT,                                                                                \
         "N",                                                                                      \
         "with --compact: 1 to 19, of zstd; higher is smaller and slower (default 8)",             \
         offsetof(type, out.compress_level)},                                                      \
        {"have",                                                                                   \
         0,                                                                                        \
         CMD_LIST,                                                                                 \
         "FILE",                                                                                   \
         "leave out what this receiver has, by what 'uvmirror inventory' wrote there",             \
         offsetof(type, out.have)},                                                                \
        {"sign-key",                                                                               \
         0,                                                                                        \
         CMD_TEXT,                                                                                 \
         "KEY",                                                                                    \
         "sign with this key, when there are several",                                             \
         offsetof(type, out.sign_key)},                                                            \
    {                                                                                              \
        "homedir", 0, CMD_TEXT, "DIR", "the GnuPG home folder of the signing key",                 \
            offsetof(type, out.homedir)                                                            \
    }

/* How bundles are trusted: import, verify, show. */
struct cmd_trust {
    struct uvm_strings keyrings, origin_keyrings;
    bool require_origin;
    bool allow_older; /* an older bundle; expiry is judged by this host's clock alone */
    unsigned max_age; /* days, 0 = any */
};

#define CMD_TRUST_OPTIONS(type)                                                                    \
    {"keyring",                                                                                    \
     0,                                                                                            \
     CMD_LIST,                                                                                     \
     "FILE",                                                                                       \
     "trust the bundle signers in this file instead of those of 'uvmirror key trust'",             \
     offsetof(type, trust.keyrings)},                                                              \
        {"origin-keyring",                                                                         \
         0,                                                                                        \
         CMD_LIST,                                                                                 \
         "FILE",                                                                                   \
         "check every stream against the vendor's own signature too, by a key in this file",       \
         offsetof(type, trust.origin_keyrings)},                                                   \
        {"require-origin",                                                                         \
         0,                                                                                        \
         CMD_FLAG,                                                                                 \
         NULL,                                                                                     \
         "refuse bundles whose images are not all vouched for by the vendor's signature",          \
         offsetof(type, trust.require_origin)},                                                    \
    {                                                                                              \
        "max-age", 0, CMD_NUMBER, "DAYS", "refuse a bundle that is older than this",               \
            offsetof(type, trust.max_age)                                                          \
    }

/* verify, show; import's own goes further. */
#define CMD_EXPIRY_OPTION(type)                                                                    \
    {                                                                                              \
        "allow-older", 0, CMD_FLAG, NULL,                                                          \
            "judge by this host's clock alone what has expired, not by the newest bundle that it " \
            "has taken",                                                                           \
            offsetof(type, trust.allow_older)                                                      \
    }

/* Which pool: import, list, clean, init. */
struct cmd_host {
    const char *connect, *pool, *metadata_dir;
};

#define CMD_HOST_OPTIONS(type)                                                                     \
    {"connect",                                                                                    \
     'c',                                                                                          \
     CMD_TEXT,                                                                                     \
     "URI",                                                                                        \
     "the libvirt daemon (default " POOL_DEFAULT_CONNECT ")",                                      \
     offsetof(type, host.connect)},                                                                \
        {"pool",                                                                                   \
         0,                                                                                        \
         CMD_TEXT,                                                                                 \
         "NAME",                                                                                   \
         "the libvirt pool (default " POOL_DEFAULT_NAME "; another one needs --metadata-dir)",     \
         offsetof(type, host.pool)},                                                               \
    {                                                                                              \
        "metadata-dir", 0, CMD_TEXT, "DIR",                                                        \
            "uvtool's metadata folder (default " POOL_DEFAULT_METADATA ")",                        \
            offsetof(type, host.metadata_dir)                                                      \
    }

/* Parses argv (without the command's name) into `options` and `ret_args`. UVM_USAGE. `--help`
 * prints the help and sets *ret_help. */
bool cmd_options_parse(const struct cmd_command *command, int argc, char **argv, void *options,
                       struct uvm_strings *ret_args, bool *ret_help, struct uvm_error *err);
/* Frees what parsing put into the struct of options. */
void cmd_options_clear(const struct cmd_command *command, void *options);

/* The option of that long name, NULL when the command has none. */
const struct cmd_option *cmd_option_find(const struct cmd_command *command, const char *name);
/* Gives an option the value that stands behind it, which must outlive `options`. UVM_USAGE. */
bool cmd_option_set(const struct cmd_option *option, void *options, const char *text,
                    struct uvm_error *err);

/* The options as mdoc(7) source for the manual page. */
void cmd_options_print_mdoc(const struct cmd_command *command);

/* ---- the host's configuration ---------------------------------------------------------------- */

#define CMD_CONFIG_FILE "/etc/uvmirror/uvmirror.conf"

/* Settings, in their order. */
struct cmd_config {
    char *path;
    struct uvm_strings names, values;
};
void cmd_config_clear(struct cmd_config *config);

/* Reads the file; one that is missing holds nothing. UVM_USAGE names the line that is wrong. */
bool cmd_config_load(const char *path, struct cmd_config *ret_config, struct uvm_error *err);

/* Sets the options of the command that the file names, before the command line is parsed. */
bool cmd_config_apply(const struct cmd_config *config, const struct cmd_command *command,
                      void *options, struct uvm_error *err);

/* After it: UVM_USAGE when the command line asked for less than the file's policy. */
bool cmd_config_check(const struct cmd_config *config, const struct cmd_command *command,
                      const void *options, struct uvm_error *err);

/* ---- output ---------------------------------------------------------------------------------- */

/* Sets up output for this run; the observer is what libraries are given. */
void cmd_ui_start(const struct cmd_common *common);
const struct uvm_observer *cmd_observer(void);
bool cmd_ui_json(void);
/* Whether the run was asked to stop (Ctrl-C). */
bool cmd_ui_stopped(void);
/* Announces how many bytes the steps of this name ("download") will come to in this run, for the
 * line of the total. Bytes that were there before such a step began count, too. */
void cmd_ui_expect(const char *step, uint64_t bytes);

/* A line of the result, on standard output; nothing with --json. */
void cmd_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, on standard error, unless --quiet or --json. */
void cmd_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, with --verbose only. */
void cmd_detail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One JSON object as a line on standard output, with --json only. Takes the reference. */
void cmd_print_json(json_t *object);
/* "uvmirror: error", or a JSON object. */
void cmd_print_error(const char *command, const struct uvm_error *err);
/* Takes a moving progress line off the terminal; false when standard output could not be written.
 */
bool cmd_ui_end(void);

/* The columns that a printable text takes on a terminal, and the text cut to so many, with ".." at
 * its end where there is room for that; the caller frees it. */
size_t cmd_columns(const char *text);
char *cmd_columns_cut(const char *text, size_t columns);

/* A table on standard output, columns aligned. */
struct cmd_table {
    size_t columns, rows;
    char **cells; /* row by row; the first row is the heading */
};
/* Adds a row of `columns` strings, which are copied. */
void cmd_table_row(struct cmd_table *table, const char *const *cells);
void cmd_table_print(const struct cmd_table *table);
void cmd_table_clear(struct cmd_table *table);

/* ---- what several commands share ------------------------------------------------------------- */

/* The state folder of this run; the caller frees it. */
char *cmd_state_dir(const struct cmd_common *common);
/* The same for what members of group libvirt do not share; the caller frees it. */
char *cmd_own_dir(const struct cmd_common *common);

/* Where `key trust` puts keys: /etc/uvmirror/trusted.d for root, unless --state-dir is given. */
char *cmd_trust_dir(const struct cmd_common *common);
#define CMD_SYSTEM_TRUST_DIR "/etc/uvmirror/trusted.d"

/* The keyring files that vouch for bundles: those given, else everything that was trusted. */
bool cmd_trusted_keyrings(const struct cmd_common *common, const struct uvm_strings *given,
                          struct uvm_strings *ret_keyrings, struct uvm_error *err);

/* The vendor keyring that fetch uses by default, and --require-origin without --origin-keyring. */
#define CMD_VENDOR_KEYRING "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg"

/* A verifier of the vendor's signatures, with the keyrings given by `option`, else the default one. */
bool cmd_vendor_verifier(const struct uvm_strings *given, const char *option,
                         struct uvm_verifier **ret_verifier, struct uvm_error *err);

/* The mirror folder of this run; the caller frees it. */
char *cmd_mirror_dir(const struct cmd_common *common, const char *given);
/* Opens it, if it is there: opening makes a folder that is missing. To look only, it is not locked, and
 * may be on a read-only medium. */
enum cmd_mirror_access { CMD_MIRROR_CHANGE, CMD_MIRROR_LOOK };
bool cmd_mirror_open(const struct cmd_common *common, const char *given,
                     enum cmd_mirror_access mode, struct mirror_tree **ret_tree,
                     struct uvm_error *err);

/* What fetch and bundle gather on the way to a bundle; cleared as a whole. */
struct cmd_outgoing {
    const struct cmd_common *common;
    const struct cmd_outgoing_options *options;
    struct bundle_have have; /* what --have told */
    struct mirror_filters *filters;
    struct mirror_tree *tree; /* NULL: a dry run, and the folder is not there */
    struct uvm_signer *signer;
    struct mirror_stream **streams;
    struct mirror_selection *selections; /* one per stream */
    size_t count;
};
void cmd_outgoing_clear(struct cmd_outgoing *out);

/* Reads the inventories, and makes the filters of the arguments. The architecture that is implied is this
 * host's, or those of the receivers. */
bool cmd_outgoing_choose(struct cmd_outgoing *out, const struct uvm_strings *args,
                         struct uvm_error *err);
/* UVM_USAGE when the options about formats and compact images do not fit together, or a receiver does
 * not read what would be written. */
bool cmd_outgoing_check_format(const struct cmd_outgoing *out, struct uvm_error *err);

/* Before anything is read or downloaded: what would make the bundle impossible. */
bool cmd_outgoing_prepare(struct cmd_outgoing *out, struct uvm_error *err);

/* Streams of which nothing was chosen say nothing to a receiver: they are left out. */
void cmd_outgoing_drop_empty(struct cmd_outgoing *out);

/* All chosen images, in their order; the array is the caller's, the images are borrowed. */
const struct mirror_image **cmd_outgoing_images(const struct cmd_outgoing *out, size_t *ret_count);

/* UVM_SPACE when there is no room for `mirror_bytes` in the mirror and, if asked, for the bundle in
 * its folder. Both may be one file system. */
enum cmd_outgoing_room { CMD_ROOM_MIRROR, CMD_ROOM_BOTH };
bool cmd_outgoing_check_room(const struct cmd_outgoing *out, uint64_t mirror_bytes,
                             enum cmd_outgoing_room room, struct uvm_error *err);

/* Bytes that the bundle will have at most. */
uint64_t cmd_outgoing_estimate(const struct cmd_outgoing *out);

/* Where the bundle goes, as was asked for. Borrowed. */
const char *cmd_outgoing_output(const struct cmd_outgoing *out);
/* UVM_USAGE when the options about parts and reading back do not fit together. */
bool cmd_outgoing_check_split(const struct cmd_outgoing *out, struct uvm_error *err);

/* How large the parts of the bundle are to be; 0 = it is not split. UVM_USAGE. Reports UVM_SPACE when
 * it cannot be one file where it is to go. */
bool cmd_outgoing_part_size(const struct cmd_outgoing *out, uint64_t *ret_size,
                            struct uvm_error *err);
enum bundle_read_back cmd_outgoing_read_back(const struct cmd_outgoing_options *options);

/* Writes the bundle, while `download` goes on unless it is NULL, and prints its name. */
bool cmd_outgoing_write(const struct cmd_outgoing *out, struct mirror_download *download,
                        struct uvm_error *err);

/* A line for each image of a dry run; returns how many. */
size_t cmd_outgoing_print(const struct cmd_outgoing *out);

/* The end of a dry run: with --json the totals, who would sign, and a warning for whatever would stop
 * the run itself. */
void cmd_outgoing_forecast(const struct cmd_outgoing *out, enum cmd_outgoing_room room);

/* What went out of the mirror, or (dry run) would go. */
void cmd_print_removed(const struct mirror_removed *removed, bool dry_run);

/* What a vendor's own signature vouches for, as was seen here: a stream with all its images, or the
 * bytes of one image that the site added. */
struct cmd_origin {
    const struct bundle_stream *stream; /* of the manifest */
    const struct bundle_image *image;   /* of the manifest; NULL: all of the stream */
    char fingerprint[UVM_FINGERPRINT_MAX];
};

/* For verify and show, before anything of a bundle is read: gives up what they do not need for the rest of
 * their run (see uvm_confine). --verbose says what came of it. */
void cmd_confine_reader(void);

/* A bundle that is opened under the rules of --keyring and friends. */
struct cmd_bundle_input {
    struct uvm_verifier *site;
    struct uvm_verifier *vendor; /* NULL: the origin is not checked */
    struct bundle_reader *reader;
    const struct cmd_trust *trust;
    time_t newest; /* when the newest bundle was made that this host has taken: it is later now; 0 =
                      unknown, or not to count */
    struct cmd_origin *origins; /* those that were checked */
    size_t origin_count;
    size_t origins_left;      /* streams, and images that the site added, whose origin is to come */
    struct uvm_buf checksums; /* the last checksum file that was read: its signature follows */
    const char *checksums_member; /* its name; NULL = none */
    bool *rebuilt; /* of each image of the manifest: see cmd_bundle_rebuilt; NULL = none was */
};
/* Opens the bundle that the arguments name. On a terminal a person is asked for parts that are
 * missing. */
bool cmd_bundle_open(const struct cmd_common *common, const struct cmd_trust *trust,
                     const struct uvm_strings *arguments, enum bundle_purpose purpose,
                     struct cmd_bundle_input *ret_input, struct uvm_error *err);
/* UVM_TRUST when it holds a stream whose vendor's signature nobody checked, unless that is accepted, or is
 * checked here: whoever has the vendor's keys need not take the signer's word. */
bool cmd_bundle_check_authentication(const struct cmd_bundle_input *input, bool no_authentication,
                                     struct uvm_error *err);
/* Checks a small member when it is the origin of a stream, or the checksum file of an image that the
 * site added, or the signature of one; other members are left to the reader. To be called for each
 * BUNDLE_ENTRY_MEMBER, in their order. */
bool cmd_bundle_member(struct cmd_bundle_input *input, const struct bundle_entry *entry,
                       struct uvm_error *err);
/* Says that the file of the images of a compact payload was made here, and has their checksums. A vendor
 * vouches for a file: of what is compact nobody is said to vouch before that. */
void cmd_bundle_rebuilt(struct cmd_bundle_input *input, const struct bundle_entry *entry);
void cmd_bundle_clear(struct cmd_bundle_input *input);

/* "3 days old", "5 minutes old", "from the future by 2 hours (check the clocks)" */
char *cmd_age_text(time_t created, time_t now);

/* A list of {"content_id", "fingerprint"}, with "product" and "version" too for an image that the
 * site added. New reference. */
json_t *cmd_origins_json(const struct cmd_bundle_input *input);

/* What the images of a bundle take: bytes. */
struct cmd_sizes {
    uint64_t images;                      /* as they are at the vendor's, all of them */
    uint64_t not_carried;                 /* of these, what the receivers have */
    uint64_t plain, compact, differences; /* payloads */
    uint64_t shared; /* content that differences take from what they refer to */
};
struct cmd_sizes cmd_bundle_sizes(const struct bundle_manifest *m);
json_t *cmd_sizes_json(const struct bundle_manifest *m); /* new reference */
/* Lines; none where all is plain. */
void cmd_sizes_print(const struct bundle_manifest *m);

/* How one image is carried: added to an object; and in short ("74 MB to 20241004"), which the caller
 * frees. */
void cmd_payload_json(const struct bundle_image *b, json_t *image);
char *cmd_payload_text(const struct bundle_image *b);

/* The result of a bundle for --json: everything show prints. New reference. */
json_t *cmd_bundle_json(const struct cmd_bundle_input *input);
/* What it is, where from and who signed it; a result of show and verify, a note of import. */
void cmd_bundle_describe(const struct cmd_bundle_input *input,
                         void (*line)(const char *format, ...)
                             __attribute__((format(printf, 1, 2))));
/* Where vendors were asked for: for what of it their word was not seen to hold. A result of show and
 * verify; import takes nothing else. */
void cmd_bundle_print_uncompared(const struct cmd_bundle_input *input);

/* The pool options with their defaults filled in. */
bool cmd_pool_options(const struct cmd_host *host, const char *state_dir,
                      struct pool_options *ret_options, struct uvm_error *err);

/* UVM_USAGE unless there are none. */
bool cmd_no_arguments(const struct uvm_strings *args, struct uvm_error *err);
/* UVM_USAGE when there is none. */
bool cmd_some_bundle(const struct uvm_strings *args, struct uvm_error *err);

/* Somebody at the terminal who can bring a medium; `ask` NULL when nobody is there. */
struct bundle_ask cmd_ask_for_media(void);

/* The strings in a row; the caller frees it. */
char *cmd_join(const struct uvm_strings *list, const char *separator);
json_t *cmd_strings_json(const struct uvm_strings *list);

/* Warns that use cannot be told for sure, and why. */
void cmd_warn_doubts(const struct uvm_strings *doubts);
/* A line for each thing that a cleanup kept, or (dry run) would delete; what it deletes is told by
 * its events. */
void cmd_print_cleaned(const struct pool_cleaned *c, bool dry_run);

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
    CMD_FLAG,   /* bool */
    CMD_TEXT,   /* const char *, borrowed from argv */
    CMD_LIST,   /* struct uvm_strings; may be given several times */
    CMD_NUMBER, /* unsigned */
    CMD_COUNT,  /* unsigned, at least 1 */
    CMD_BYTES,  /* uint64_t; "10G", "512M", "64k" (powers of 1024) or plain bytes */
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
    const char *interrupted;          /* what is left after Ctrl-C and how to go on; may be NULL */
    const struct cmd_option *options; /* ends with a name of NULL */
    size_t options_size; /* of the command's struct, which starts with struct cmd_common */
    /* `options` was filled from the command line over zeroes; `args` are what is left of it. */
    bool (*run)(const void *options, const struct uvm_strings *args, struct uvm_error *err);
};

extern const struct cmd_command cmd_fetch, cmd_import, cmd_verify, cmd_show, cmd_list, cmd_clean,
    cmd_key, cmd_init;

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

/* How bundles are trusted: import, verify, show. */
struct cmd_trust {
    struct uvm_strings keyrings, origin_keyrings;
    bool require_origin;
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

/* The options as mdoc(7) source for the manual page. */
void cmd_options_print_mdoc(const struct cmd_command *command);

/* ---- output ---------------------------------------------------------------------------------- */

/* Sets up output for this run; the observer is what libraries are given. */
void cmd_ui_start(const struct cmd_common *common);
const struct uvm_observer *cmd_observer(void);
bool cmd_ui_json(void);
/* Whether the run was asked to stop (Ctrl-C). */
bool cmd_ui_stopped(void);

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

/* A stream whose images the vendor's own signature vouches for, as was seen here. */
struct cmd_origin {
    const struct bundle_stream *stream; /* of the manifest */
    char fingerprint[UVM_FINGERPRINT_MAX];
};

/* A bundle that is opened under the rules of --keyring and friends. */
struct cmd_bundle_input {
    struct uvm_verifier *site;
    struct uvm_verifier *vendor; /* NULL: the origin is not checked */
    struct bundle_reader *reader;
    const struct cmd_trust *trust;
    struct cmd_origin *origins; /* those that were checked */
    size_t origin_count;
    size_t origins_left; /* streams whose origin is still to come */
};
bool cmd_bundle_open(const struct cmd_common *common, const struct cmd_trust *trust,
                     const char *argument, struct cmd_bundle_input *ret_input,
                     struct uvm_error *err);
/* Checks a small member when it is the origin of a stream; other members are left to the reader. To
 * be called for each BUNDLE_ENTRY_MEMBER. */
bool cmd_bundle_member(struct cmd_bundle_input *input, const struct bundle_entry *entry,
                       struct uvm_error *err);
void cmd_bundle_clear(struct cmd_bundle_input *input);

/* "3 days old", "5 minutes old", "from the future by 2 hours (check the clocks)" */
char *cmd_age_text(time_t created, time_t now);

/* A list of {"content_id", "fingerprint"}. New reference. */
json_t *cmd_origins_json(const struct cmd_bundle_input *input);

/* The result of a bundle for --json: everything show prints. New reference. */
json_t *cmd_bundle_json(const struct cmd_bundle_input *input);
/* What it is, where from and who signed it; a result of show and verify, a note of import. */
void cmd_bundle_describe(const struct cmd_bundle_input *input,
                         void (*line)(const char *format, ...)
                             __attribute__((format(printf, 1, 2))));

/* The pool options with their defaults filled in. */
bool cmd_pool_options(const struct cmd_host *host, const char *state_dir,
                      struct pool_options *ret_options, struct uvm_error *err);

/* UVM_USAGE unless there are none. */
bool cmd_no_arguments(const struct uvm_strings *args, struct uvm_error *err);
/* UVM_USAGE unless there is exactly one. */
bool cmd_one_bundle(const struct uvm_strings *args, struct uvm_error *err);

/* The strings in a row; the caller frees it. */
char *cmd_join(const struct uvm_strings *list, const char *separator);
json_t *cmd_strings_json(const struct uvm_strings *list);

/* Warns that use cannot be told for sure, and why. */
void cmd_warn_doubts(const struct uvm_strings *doubts);
/* A line for each thing that a cleanup kept, or (dry run) would delete; what it deletes is told by
 * its events. */
void cmd_print_cleaned(const struct pool_cleaned *c, bool dry_run);

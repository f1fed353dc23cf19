/* Receipts of imports: for the one who has to know later what came onto this host, and from whom. */
#include "cmd/receipt.h"

#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECEIPT_MODE 0644
#define FOLDER_MODE  0700  /* where the state folder is for one user */
#define LEFTOVER_AGE 86400 /* seconds */

/* ---- making ---- */

static void set_time(json_t *tree, const char *key)
{
    uvm_auto_free char *text = uvm_time_text(time(NULL));
    json_object_set_new(tree, key, json_string(text));
}

/* Who stands behind sudo, too. */
static char *user_text(void)
{
    const struct passwd *user = getpwuid(geteuid());
    const char *behind = getenv("SUDO_USER");
    uvm_auto_free char *name =
        user ? uvm_printable(user->pw_name) : uvm_format("%u", (unsigned)geteuid());
    uvm_auto_free char *sudo = uvm_printable(behind ? behind : "");
    return *sudo ? uvm_format("%s (sudo by %s)", name, sudo) : UVM_STEAL(name);
}

void cmd_receipt_begin(struct cmd_receipt *r, const char *argument)
{
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    uvm_auto_free char *safe_host = uvm_printable(host);
    uvm_auto_free char *safe_argument = uvm_printable(argument);
    uvm_auto_free char *user = user_text();
    r->tree = json_pack("{s:i, s:s, s:s, s:s, s:s}", "receipt", CMD_RECEIPT_FORMAT, "tool",
                        "uvmirror " UVM_VERSION, "host", safe_host, "user", user, "argument",
                        safe_argument);
    set_time(r->tree, "started");
}

void cmd_receipt_clear(struct cmd_receipt *r)
{
    json_decref(r->tree);
    free(r->folder);
    *r = (struct cmd_receipt){0};
}

/* ---- keeping ---- */

static int is_receipt(const struct dirent *e)
{
    const char *end = strrchr(e->d_name, '.');
    return e->d_name[0] != '.' && end && strcmp(end, ".json") == 0;
}

/* What a crash kept from getting its name; it is not being written any more. */
static int is_leftover(const struct dirent *e)
{
    return e->d_name[0] == '.' && strstr(e->d_name, ".json.");
}

/* Removes all but the last `most` files that the filter takes, in the order of their names, if they
 * are older than `age`. */
static void remove_old(const char *folder, int (*filter)(const struct dirent *), int most,
                       time_t age)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, filter, alphasort);
    for (int i = 0; i < count; i++) {
        uvm_auto_free char *path = uvm_format("%s/%s", folder, entries[i]->d_name);
        struct stat st;
        if (count - i > most && lstat(path, &st) == 0 && time(NULL) - st.st_mtime >= age)
            unlink(path);
        free(entries[i]);
    }
    free(entries);
}

/* As accessible as the state folder itself, which group libvirt may share. */
static bool make_folder(const char *folder, struct uvm_error *err)
{
    uvm_auto_free char *state = uvm_dirname(folder);
    struct stat st;
    if (access(folder, F_OK) == 0)
        return true;
    if (!uvm_make_dirs(folder, FOLDER_MODE, err))
        return false;
    if (stat(state, &st) == 0 && chmod(folder, st.st_mode & 07777) != 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s: change mode", folder);
    return true;
}

/* "<time>-<bundle id>.json"; two of one second get a number. */
static char *kept_path(const struct cmd_receipt *r)
{
    const char *id = json_string_value(json_object_get(json_object_get(r->tree, "bundle"), "id"));
    char stamp[32] = "";
    struct tm tm;
    time_t now = time(NULL);
    gmtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    char *path = uvm_format("%s/%s-%s.json", r->folder, stamp, id);
    for (unsigned n = 2; access(path, F_OK) == 0 && n <= CMD_RECEIPTS_KEPT; n++) {
        free(path);
        path = uvm_format("%s/%s-%s-%u.json", r->folder, stamp, id, n);
    }
    return path;
}

/* Only of bundles whose signature held: others have no name that can be believed. */
static void keep(const struct cmd_receipt *r, const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!r->folder || !json_is_object(json_object_get(r->tree, "bundle")))
        return;
    uvm_auto_free char *path = kept_path(r);
    if (!make_folder(r->folder, &err) ||
        !uvm_file_replace(path, RECEIPT_MODE, text, strlen(text), &err)) {
        uvm_warning(cmd_observer(), "receipt: %s", err.message);
        return;
    }
    remove_old(r->folder, is_receipt, CMD_RECEIPTS_KEPT, 0);
    remove_old(r->folder, is_leftover, 0, LEFTOVER_AGE);
}

/* As main() will have it: Ctrl-C reaches GnuPG, too. */
static int exit_code(const struct uvm_error *err)
{
    return err->code == UVM_TRUST && cmd_ui_stopped() ? UVM_INTERRUPTED : (int)err->code;
}

static void set_outcome(struct cmd_receipt *r, enum cmd_outcome outcome,
                        const struct uvm_error *err)
{
    static const char *const optional[] = {"options", "destination", "bundle", "cleanup"};
    bool well = outcome == CMD_RUN_WELL;
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++)
        if (!json_object_get(r->tree, optional[i]))
            json_object_set_new(r->tree, optional[i], json_null());
    if (!json_object_get(r->tree, "images"))
        json_object_set_new(r->tree, "images", json_array());
    set_time(r->tree, "ended");
    json_object_set_new(r->tree, "exit_code", json_integer(well ? UVM_OK : exit_code(err)));
    json_object_set_new(r->tree, "error", well ? json_null() : json_string(err->message));
}

bool cmd_receipt_end(struct cmd_receipt *r, enum cmd_outcome outcome, struct uvm_error *err)
{
    bool ok = outcome == CMD_RUN_WELL;
    uvm_auto_error failed = UVM_ERROR_INIT;
    set_outcome(r, outcome, err);
    uvm_auto_free char *bare = json_dumps(r->tree, JSON_INDENT(1));
    if (!bare)
        abort();
    uvm_auto_free char *text = uvm_format("%s\n", bare);
    keep(r, text);
    if (!r->report || uvm_file_replace(r->report, RECEIPT_MODE, text, strlen(text), &failed))
        return ok;
    if (ok)
        return uvm_fail(err, failed.code, "all went well, but the report was not written: %s",
                        failed.message);
    uvm_warning(cmd_observer(), "the report was not written: %s", failed.message);
    return false;
}

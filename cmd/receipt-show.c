/* The readable form of a receipt. It is not signed: whatever it holds is made printable. */
#include "cmd/receipt.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A text of it, printable; "" when it is not there. The caller frees it. */
static char *text_of(const json_t *node, const char *key)
{
    uvm_auto_free char *text = mirror_json_str(json_object_get(node, key));
    return uvm_printable(text ? text : "");
}

static void line(const char *name, const json_t *node, const char *key)
{
    uvm_auto_free char *text = text_of(node, key);
    if (*text)
        cmd_print("  %-8s %s", name, text);
}

static void print_head(const json_t *r)
{
    const json_t *bundle = json_object_get(r, "bundle");
    const json_t *to = json_object_get(r, "destination");
    uvm_auto_free char *tool = text_of(r, "tool");
    uvm_auto_free char *host = text_of(r, "host");
    bool dry_run = json_is_true(json_object_get(r, "dry_run"));
    cmd_print("receipt of an import%s into %s, by %s", dry_run ? " (dry run)" : "", host, tool);
    line("started", r, "started");
    line("ended", r, "ended");
    line("by", r, "user");
    line("pool", to, "pool");
    line("bundle", r, "argument");
    line("", bundle, "id");
    line("signed", bundle, "signer_name");
    line("", bundle, "signer");
}

static void print_streams(const json_t *bundle)
{
    size_t i;
    json_t *node;
    json_array_foreach(json_object_get(bundle, "streams"), i, node)
    {
        line("stream", node, "content_id");
        line("", node, "source");
        line("", node, "updated");
    }
    json_array_foreach(json_object_get(bundle, "origins_verified"), i, node)
        line("vendor", node, "fingerprint");
}

static void print_images(const json_t *images)
{
    struct cmd_table table = {.columns = 4};
    size_t i;
    json_t *node;
    cmd_table_row(&table, (const char *[]){"IMAGE", "OUTCOME", "SIZE", "CHECKSUM"});
    json_array_foreach(images, i, node)
    {
        uvm_auto_free char *title = text_of(node, "title");
        uvm_auto_free char *outcome = text_of(node, "outcome");
        uvm_auto_free char *sha512 = text_of(node, "sha512");
        uvm_auto_free char *sha256 = text_of(node, "sha256");
        json_int_t bytes = json_integer_value(json_object_get(node, "size"));
        uvm_auto_free char *size = bytes > 0 ? uvm_size_text((uint64_t)bytes) : uvm_strdup("");
        cmd_table_row(&table, (const char *[]){title, outcome, size, *sha512 ? sha512 : sha256});
    }
    cmd_table_print(&table);
    cmd_table_clear(&table);
}

static void print_list(const char *what, const json_t *node, const char *key)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(node, key), i, entry)
    {
        const char *text = json_string_value(entry);
        uvm_auto_free char *shown = uvm_printable(text ? text : "?");
        cmd_print("%s %s", what, shown);
    }
}

static void print_receipt(const json_t *r)
{
    const json_t *cleanup = json_object_get(r, "cleanup");
    uvm_auto_free char *error = text_of(r, "error");
    print_head(r);
    print_streams(json_object_get(r, "bundle"));
    cmd_print("%s", "");
    print_images(json_object_get(r, "images"));
    print_list("deleted", cleanup, "deleted");
    print_list("erased metadata without volume:", cleanup, "erased");
    print_list("kept", cleanup, "kept");
    print_list("doubt:", cleanup, "doubts");
    cmd_print("exit code %" JSON_INTEGER_FORMAT "%s%s",
              json_integer_value(json_object_get(r, "exit_code")), *error ? ": " : "", error);
}

/* A bundle is no text that begins so. */
static bool begins_as_json(const char *path)
{
    struct stat st;
    char first = 0;
    size_t len = 0;
    uvm_auto_error err = UVM_ERROR_INIT;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    uvm_auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && uvm_read_some(fd, &first, 1, &len, &err) && len == 1 && first == '{';
}

bool cmd_receipt_show(const char *path, bool *ret_shown, struct uvm_error *err)
{
    uvm_auto_buf text = {.max = CMD_RECEIPT_MAX};
    mirror_auto_json *tree = NULL;
    *ret_shown = false;
    if (!begins_as_json(path))
        return true;
    uvm_auto_free char *shown = uvm_printable(path);
    if (!uvm_file_read(path, CMD_RECEIPT_MAX, &text, err) ||
        !mirror_json_parse(text.data, text.len, &tree, err))
        return uvm_prefix(err, "%s", shown);
    if (json_integer_value(json_object_get(tree, "receipt")) != CMD_RECEIPT_FORMAT)
        return uvm_fail(err, UVM_CONTENT, "%s: is no receipt that this version understands", shown);
    *ret_shown = true;
    print_receipt(tree);
    cmd_print_json(UVM_STEAL(tree));
    return true;
}

/*
 * Names and paths from outside: what may stand in a message, in a volume's name and on a disk.
 */
#include <string.h>
#include <strings.h>

#include "mirror/model.h"

#define BRIEF_MAX   160 /* bytes of a foreign string in a message */
#define SEGMENT_MAX 255 /* bytes of a file's name, NAME_MAX of every Linux file system */

char *mirror_brief(const char *s)
{
    uvm_auto_free char *head = uvm_strndup(s ? s : "", BRIEF_MAX + 1);
    if (strlen(head) <= BRIEF_MAX)
        return uvm_printable(head);
    size_t end = BRIEF_MAX;
    while (end > 0 && (head[end] & 0xc0) == 0x80) /* not in the middle of a character */
        end--;
    head[end] = 0;
    uvm_auto_free char *printable = uvm_printable(head);
    return uvm_format("%s...", printable);
}

/* Everything that Python's str.split() splits at and that counts as printable: uvtool takes a
 * volume's name apart with it. */
static bool has_blank(const char *s)
{
    static const char *const blanks[] = {
        " ",      "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003",
        "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
        "\u2028", "\u2029", "\u202f", "\u205f", "\u3000",
    };
    for (size_t i = 0; i < sizeof blanks / sizeof *blanks; i++)
        if (strstr(s, blanks[i]))
            return true;
    return false;
}

bool mirror_name_sound(const char *name)
{
    if (!name || !*name || strlen(name) > MIRROR_NAME_MAX || strchr(name, '/') || has_blank(name))
        return false;
    uvm_auto_free char *printable = uvm_printable(name);
    return strcmp(name, printable) == 0;
}

static bool has_control(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f ||
            (s[0] == '\xc2' && (unsigned char)s[1] >= 0x80 && (unsigned char)s[1] < 0xa0))
            return true;
    return false;
}

/* Why a path is refused, NULL when it is fine. */
static const char *path_fault(const char *path)
{
    size_t len = strlen(path);
    if (len == 0)
        return "is empty";
    if (len > MIRROR_PATH_MAX)
        return "is too long";
    if (!uvm_utf8_valid(path, len))
        return "is not UTF-8";
    if (has_control(path))
        return "holds a control character";
    if (strchr(path, '\\'))
        return "holds a backslash";
    if (strcasestr(path, "%2e") || strcasestr(path, "%2f"))
        return "holds an escaped '.' or '/'";
    if (path[0] == '/')
        return "is absolute";
    for (const char *segment = path;; segment++) {
        size_t n = strcspn(segment, "/");
        if (n == 0)
            return "has an empty segment";
        if (n > SEGMENT_MAX)
            return "has a segment that is too long";
        if ((n == 1 && segment[0] == '.') || (n == 2 && segment[0] == '.' && segment[1] == '.'))
            return "has a '.' or '..' segment";
        segment += n;
        if (!*segment)
            return NULL;
    }
}

static bool refuse_path(const char *path, const char *fault, struct uvm_error *err)
{
    uvm_auto_free char *shown = mirror_brief(path);
    return uvm_fail(err, UVM_CONTENT, "path '%s' %s", shown, fault);
}

bool mirror_path_check(const char *path, struct uvm_error *err)
{
    const char *fault = path_fault(path);
    return !fault || refuse_path(path, fault, err);
}

static bool in_folder(const char *path, const char *folder)
{
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 && (path[len] == '/' || path[len] == 0);
}

bool mirror_image_path_check(const char *path, struct uvm_error *err)
{
    if (!mirror_path_check(path, err))
        return false;
    if (in_folder(path, "uvmirror") || in_folder(path, "streams"))
        return refuse_path(path, "is in a folder that belongs to the mirror itself", err);
    return true;
}

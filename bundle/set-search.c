/*
 * Finding parts.
 *
 * The sums, whose signature holds, say what a part is: its size and how it begins, looked at before
 * anything is read of it, and its SHA-256, looked at only where there is doubt. Names are where the
 * search begins: a part that was renamed is found by its content. Without sums, names are all there
 * is.
 */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/set.h"

#define SCAN_MAX 10000 /* names of a folder that are looked at, in search of a renamed part */

bool bundle_set_has_sums(const struct bundle_set *set)
{
    return set->sums.count > 0;
}

/* ---- names ---- */

size_t bundle_part_number(const char *path, char **ret_base)
{
    size_t len = strlen(path), tail = strlen(".001"), number = 0;
    if (len <= tail || path[len - tail] != '.')
        return 0;
    for (const char *p = path + len - tail + 1; *p; p++) {
        if (*p < '0' || *p > '9')
            return 0;
        number = number * 10 + (size_t)(*p - '0');
    }
    if (number > 0 && ret_base)
        *ret_base = uvm_strndup(path, len - tail);
    return number;
}

const char *bundle_set_base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- what a file is ---- */

static bool begins_like(int fd, const struct bundle_part *part)
{
    char block[BUNDLE_PART_HEAD], sha256[UVM_DIGEST_HEX_MAX];
    size_t want = part->size < sizeof block ? (size_t)part->size : sizeof block;
    if (pread(fd, block, want, 0) != (ssize_t)want)
        return false;
    uvm_digest_bytes(UVM_SHA256, block, want, sha256);
    return strcmp(sha256, part->head) == 0;
}

int bundle_set_open_regular(const char *path, struct stat *st)
{
    /* O_NONBLOCK: a FIFO must not hold us up. */
    uvm_auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, st) < 0 || !S_ISREG(st->st_mode))
        return -1;
    return uvm_steal_fd(&fd);
}

/* Whether a file can be part `number`, as far as a glance tells. */
enum bundle_fit bundle_set_look(const struct bundle_set *set, const char *path, size_t number)
{
    struct stat st;
    uvm_auto_fd fd = bundle_set_open_regular(path, &st);
    if (fd < 0)
        return access(path, F_OK) == 0 ? BUNDLE_OTHER : BUNDLE_ABSENT;
    if (!bundle_set_has_sums(set))
        return BUNDLE_FITS;
    const struct bundle_part *part = &set->sums.parts[number - 1];
    return (uint64_t)st.st_size == part->size && begins_like(fd, part) ? BUNDLE_FITS : BUNDLE_OTHER;
}

/* Whether it is, to the last byte. */
bool bundle_set_is_part(const struct bundle_set *set, const char *path, size_t number, bool *ret_is,
                        struct uvm_error *err)
{
    const struct bundle_part *part = &set->sums.parts[number - 1];
    uvm_auto_free char *shown = uvm_printable(path);
    struct bundle_check check = {
        .step = "verify", .name = shown, .size = part->size, .sha256 = part->sha256};
    struct stat st;
    uvm_auto_fd fd = bundle_set_open_regular(path, &st);
    uvm_auto_error unread = UVM_ERROR_INIT;
    bool sound = false;
    if (fd >= 0 && !bundle_check_file(fd, &check, set->options.observer, &sound, &unread)) {
        if (unread.code == UVM_INTERRUPTED)
            return uvm_fail(err, unread.code, "%s", unread.message);
        uvm_warning(set->options.observer, "%s", unread.message);
    }
    if (sound)
        uvm_done(set->options.observer, check.step, shown, "sound");
    else
        uvm_step_failed(set->options.observer, check.step, shown);
    *ret_is = sound;
    return true;
}

/* ---- the search ---- */

struct search {
    struct uvm_strings fitting; /* files that can be it, each one once */
    char *other;                /* one that has its name, and is something else */
};

static void search_clear(struct search *s)
{
    uvm_strings_clear(&s->fitting);
    free(s->other);
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat one, two;
    return stat(a, &one) == 0 && stat(b, &two) == 0 && one.st_dev == two.st_dev &&
           one.st_ino == two.st_ino;
}

static void try_file(const struct bundle_set *set, const char *path, size_t number,
                     struct search *s)
{
    for (size_t i = 0; i < s->fitting.count; i++)
        if (is_same_file(s->fitting.items[i], path))
            return;
    if (bundle_set_look(set, path, number) == BUNDLE_FITS)
        uvm_strings_add(&s->fitting, path);
}

static void try_name(const struct bundle_set *set, const char *path, size_t number,
                     struct search *s)
{
    size_t before = s->fitting.count;
    try_file(set, path, number, s);
    if (s->fitting.count == before && !s->other && access(path, F_OK) == 0)
        s->other = uvm_strdup(path);
}

static void scan_folder(const struct bundle_set *set, const char *folder, size_t number,
                        struct search *s)
{
    DIR *dir = opendir(folder);
    size_t seen = 0;
    if (!dir)
        return;
    for (struct dirent *entry; seen < SCAN_MAX && (entry = readdir(dir)); seen++) {
        uvm_auto_free char *path = bundle_path_in(folder, entry->d_name);
        if (entry->d_name[0] != '.')
            try_file(set, path, number, s);
    }
    closedir(dir);
}

static void search_part(const struct bundle_set *set, size_t number, struct search *s)
{
    uvm_auto_free char *name = bundle_part_name(set->name, number);
    for (size_t i = 0; i < set->files.count; i++) {
        bool named = strcmp(bundle_set_base_of(set->files.items[i]), name) == 0;
        if (named)
            try_name(set, set->files.items[i], number, s);
        else if (bundle_set_has_sums(set))
            try_file(set, set->files.items[i], number, s);
    }
    for (size_t i = 0; i < set->folders.count; i++) {
        uvm_auto_free char *path = bundle_path_in(set->folders.items[i], name);
        try_name(set, path, number, s);
    }
    for (size_t i = 0; bundle_set_has_sums(set) && !s->fitting.count && i < set->folders.count; i++)
        scan_folder(set, set->folders.items[i], number, s);
}

/* The file that is a part; of several, one that is sound. *ret_path NULL when there is none. */
bool bundle_set_find_part(const struct bundle_set *set, size_t number, char **ret_path,
                          char **ret_other, struct uvm_error *err)
{
    __attribute__((cleanup(search_clear))) struct search s = {0};
    size_t taken = 0;
    search_part(set, number, &s);
    for (bool sound = s.fitting.count < 2 || !bundle_set_has_sums(set);
         !sound && taken < s.fitting.count;) {
        if (!bundle_set_is_part(set, s.fitting.items[taken], number, &sound, err))
            return false;
        taken += sound ? 0 : 1;
    }
    taken = taken < s.fitting.count ? taken : 0;
    *ret_path = s.fitting.count ? uvm_strdup(s.fitting.items[taken]) : NULL;
    *ret_other = UVM_STEAL(s.other);
    return true;
}

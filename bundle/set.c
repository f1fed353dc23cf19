/*
 * The parts of a split bundle, wherever they are: folders and files that were named, on any number of
 * media, some of which may not be there yet (set-search.c finds them). What a part holds is believed
 * no more than any other bundle's bytes.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/set.h"

void bundle_set_free(struct bundle_set *set)
{
    if (!set)
        return;
    uvm_strings_clear(&set->folders);
    uvm_strings_clear(&set->files);
    bundle_sums_clear(&set->sums);
    free(set->name);
    free(set->title);
    free(set);
}

const char *bundle_set_title(const struct bundle_set *set)
{
    return set->title;
}

/* ---- what is missing or damaged ---- */

struct faults {
    struct uvm_strings damaged, missing; /* names */
    struct uvm_strings numbers;          /* of all of them */
};

static void faults_clear(struct faults *f)
{
    uvm_strings_clear(&f->damaged);
    uvm_strings_clear(&f->missing);
    uvm_strings_clear(&f->numbers);
}

static void add_fault(const struct bundle_set *set, struct faults *f, size_t number,
                      const char *path)
{
    uvm_auto_free char *name = bundle_part_name(set->name, number);
    uvm_auto_free char *digits = uvm_format("%zu", number);
    uvm_strings_add(path ? &f->damaged : &f->missing, path ? path : name);
    uvm_strings_add(&f->numbers, digits);
}

static char *join(const struct uvm_strings *list, const char *separator)
{
    char *text = uvm_strdup("");
    for (size_t i = 0; i < list->count; i++) {
        char *longer = uvm_format("%s%s%s", text, i ? separator : "", list->items[i]);
        free(text);
        text = longer;
    }
    return text;
}

static bool fail_parts(const struct bundle_set *set, const struct faults *f, struct uvm_error *err)
{
    uvm_auto_free char *damaged = join(&f->damaged, ", "), *missing = join(&f->missing, ", "),
                       *numbers = join(&f->numbers, ",");
    uvm_auto_free char *list =
        uvm_format("%s%s%s%s%s", *damaged ? "damaged, or of another bundle: " : "", damaged,
                   *damaged && *missing ? "; " : "", *missing ? "missing: " : "", missing);
    uvm_auto_free char *shown = uvm_printable(list);
    uvm_error_clear(err);
    return uvm_fail(err, *damaged ? UVM_CONTENT : UVM_FAILED,
                    "%s: %s (name the folders of all its parts; 'uvmirror bundle --again %s "
                    "--parts %s' writes these again)",
                    set->title, shown, set->sums.id, numbers);
}

/* By a glance, or by every byte. */
static bool find_faults(const struct bundle_set *set, enum bundle_depth depth, struct faults *f,
                        struct uvm_error *err)
{
    for (size_t n = 1; n <= set->count; n++) {
        uvm_auto_free char *path = NULL;
        uvm_auto_free char *other = NULL;
        bool sound = false;
        if (!uvm_go_on(set->options.observer, err) ||
            !bundle_set_find_part(set, n, &path, &other, err))
            return false;
        if (path && depth == BUNDLE_EVERY_BYTE && !bundle_set_is_part(set, path, n, &sound, err))
            return false;
        if (!path || (depth == BUNDLE_EVERY_BYTE && !sound))
            add_fault(set, f, n, path ? path : other);
    }
    return true;
}

bool bundle_set_explain(const struct bundle_set *set, struct uvm_error *err)
{
    __attribute__((cleanup(faults_clear))) struct faults f = {0};
    uvm_auto_error stopped = UVM_ERROR_INIT;
    if (!bundle_set_has_sums(set) || err->code != UVM_CONTENT)
        return false;
    if (!find_faults(set, BUNDLE_EVERY_BYTE, &f, &stopped)) {
        uvm_error_clear(err);
        return uvm_fail(err, stopped.code, "%s", stopped.message);
    }
    return f.numbers.count ? fail_parts(set, &f, err) : false;
}

/* ---- before anything is read ---- */

/* What was named, and is no part of it, is a mistake. */
static bool check_file(const struct bundle_set *set, const char *path, struct uvm_error *err)
{
    uvm_auto_free char *shown = uvm_printable(path);
    for (size_t n = 1; n <= set->count; n++) {
        uvm_auto_free char *name = bundle_part_name(set->name, n);
        if (strcmp(bundle_set_base_of(path), name) == 0 ||
            (bundle_set_has_sums(set) && bundle_set_look(set, path, n) == BUNDLE_FITS))
            return true;
    }
    return uvm_fail(err, UVM_CONTENT, "%s: is no part of %s%s%s", shown, set->name,
                    bundle_set_has_sums(set) ? ", bundle " : "",
                    bundle_set_has_sums(set) ? set->sums.id : "");
}

bool bundle_set_check(const struct bundle_set *set, struct uvm_error *err)
{
    __attribute__((cleanup(faults_clear))) struct faults f = {0};
    for (size_t i = 0; i < set->files.count; i++)
        if (!check_file(set, set->files.items[i], err))
            return false;
    if (!bundle_set_has_sums(set) || set->options.purpose == BUNDLE_LOOK || set->options.ask.ask)
        return true;
    if (!find_faults(set, BUNDLE_A_GLANCE, &f, err))
        return false;
    if (f.damaged.count && set->options.purpose == BUNDLE_CHECK) {
        uvm_fail(err, UVM_CONTENT, "%s: damaged parts", set->title);
        return bundle_set_explain(set, err);
    }
    return f.numbers.count == 0 || fail_parts(set, &f, err);
}

static void copy_strings(struct uvm_strings *to, const struct uvm_strings *from)
{
    for (size_t i = 0; i < from->count; i++)
        uvm_strings_add(to, from->items[i]);
}

/* Without sums: as many as have consecutive names. */
static bool count_parts(struct bundle_set *set, struct uvm_error *err)
{
    for (bool found = true; found && set->count < BUNDLE_PARTS_MAX;) {
        uvm_auto_free char *path = NULL;
        uvm_auto_free char *other = NULL;
        if (!bundle_set_find_part(set, set->count + 1, &path, &other, err))
            return false;
        found = path != NULL;
        set->count += found ? 1 : 0;
    }
    if (set->count > 0)
        return true;
    uvm_auto_free char *shown = uvm_printable(set->name);
    return uvm_fail(err, UVM_FAILED, "%s.001: there is no such part in the folders given", shown);
}

bool bundle_set_new(const struct bundle_set_places *places, struct bundle_sums *sums,
                    const struct bundle_open_options *options, struct bundle_set **ret_set,
                    struct uvm_error *err)
{
    UVM_AUTO(bundle_set_free) struct bundle_set *set = uvm_alloc(sizeof *set);
    set->options = *options;
    copy_strings(&set->folders, &places->folders);
    copy_strings(&set->files, &places->files);
    set->name = uvm_strdup(sums ? sums->name : places->name);
    if (sums) {
        set->sums = *sums;
        *sums = (struct bundle_sums){0};
        set->count = set->sums.count;
    } else if (!count_parts(set, err)) {
        return false;
    }
    uvm_auto_free char *path = bundle_path_in(set->folders.items[0], set->name);
    uvm_auto_free char *shown = uvm_printable(path);
    set->title = uvm_format("%s (%zu part%s%s)", shown, set->count, set->count == 1 ? "" : "s",
                            bundle_set_has_sums(set) ? "" : ", without sums");
    *ret_set = UVM_STEAL(set);
    return true;
}

bool bundle_set_is_of(const struct bundle_set *set, const struct bundle_manifest *m,
                      struct uvm_error *err)
{
    if (!bundle_set_has_sums(set) ||
        (strcmp(set->sums.id, m->id) == 0 && set->sums.serial == m->serial))
        return true;
    return uvm_fail(err, UVM_CONTENT, "%s: the parts are of bundle %s, their sums of bundle %s",
                    set->title, m->id, set->sums.id);
}

/* ---- reading ---- */

/* A person brings the medium, or says where it is. */
static bool ask_for(struct bundle_set *set, size_t number, const char *other, const bool *quit,
                    struct uvm_error *err)
{
    const struct bundle_ask *ask = &set->options.ask;
    uvm_auto_free char *name = bundle_part_name(set->name, number);
    uvm_auto_free char *why =
        other ? uvm_format(" (%s is damaged, or of another bundle)", other) : uvm_strdup("");
    uvm_auto_free char *text = uvm_format("%s%s", name, why);
    uvm_auto_free char *shown = uvm_printable(text);
    uvm_auto_free char *folder = NULL;
    if (!ask->ask(ask->opaque, shown, quit, &folder, err))
        return false;
    if (folder && !uvm_strings_has(&set->folders, folder))
        uvm_strings_add(&set->folders, folder);
    return true;
}

static bool fail_missing(const struct bundle_set *set, size_t number, const char *other,
                         struct uvm_error *err)
{
    __attribute__((cleanup(faults_clear))) struct faults f = {0};
    add_fault(set, &f, number, other);
    return fail_parts(set, &f, err);
}

static bool bring_part(struct bundle_set *set, size_t number, const bool *quit, char **ret_path,
                       struct uvm_error *err)
{
    for (;;) {
        uvm_auto_free char *path = NULL;
        uvm_auto_free char *other = NULL;
        if (!bundle_set_find_part(set, number, &path, &other, err))
            return false;
        if (path) {
            *ret_path = UVM_STEAL(path);
            return true;
        }
        if (!set->options.ask.ask)
            return fail_missing(set, number, other, err);
        if (!ask_for(set, number, other, quit, err))
            return false;
    }
}

bool bundle_set_open(struct bundle_set *set, size_t number, const bool *quit,
                     struct bundle_opened *ret_opened, struct uvm_error *err)
{
    struct stat st;
    *ret_opened = (struct bundle_opened){.fd = -1};
    if (number > set->count)
        return true;
    uvm_auto_free char *path = NULL;
    if (!bring_part(set, number, quit, &path, err))
        return false;
    uvm_auto_free char *shown = uvm_printable(path);
    uvm_auto_fd fd = bundle_set_open_regular(path, &st);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", shown);
    if (bundle_set_has_sums(set) && (uint64_t)st.st_size != set->sums.parts[number - 1].size)
        return uvm_fail(err, UVM_CONTENT, "%s: has another size than a moment ago", shown);
    *ret_opened = (struct bundle_opened){
        .fd = uvm_steal_fd(&fd), .name = UVM_STEAL(shown), .size = (uint64_t)st.st_size};
    return true;
}

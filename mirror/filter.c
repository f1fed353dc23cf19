/*
 * simplestreams filters: KEY OPERATOR VALUE, where the operator is one of = != ~ !~ and the value
 * of the last two is a regular expression that is searched for.
 *
 * Regular expressions are PCRE2's. Of the libraries for C it is the one nearest to Python's re,
 * which simplestreams uses: classes like \d and \w over Unicode, lazy quantifiers, look-around,
 * (?P<name>). Every host with libvirt has it already, since glib (from 2.73) and libselinux need
 * it. POSIX regcomp() knows none of that. The known differences are at the edges: \Z matches in
 * front of a closing newline too; (?i) may stand in the middle, where Python 3.11 stopped to allow
 * it; and some things that re refuses, like \K, mean something.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>
#include <sys/utsname.h>

#include "mirror/model.h"

/* Backtracking that a regular expression gets for one value: far beyond what sensible ones take,
 * far below what one notices. */
#define MATCH_STEPS_MAX    100000
#define MATCH_DEPTH_MAX    10000
#define MATCH_HEAP_KIB_MAX 4096
#define VALUE_MAX          MIRROR_METADATA_MAX /* bytes; no sound image has a longer one */

struct filter {
    char *key;
    char *value;
    pcre2_code *regex; /* NULL: compared as it is */
    bool negated;
};

struct mirror_filters {
    struct filter *items; /* implied ones first */
    size_t count;
    size_t implied;
    struct uvm_strings text;
    pcre2_compile_context *compile;
    pcre2_match_context *match;
};

void mirror_filters_free(struct mirror_filters *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->count; i++) {
        free(f->items[i].key);
        free(f->items[i].value);
        pcre2_code_free(f->items[i].regex);
    }
    free(f->items);
    uvm_strings_clear(&f->text);
    pcre2_compile_context_free(f->compile);
    pcre2_match_context_free(f->match);
    free(f);
}

/* ---- parsing --------------------------------------------------------------------------------- */

static inline void free_code(pcre2_code **code)
{
    pcre2_code_free(*code);
}
#define auto_code __attribute__((cleanup(free_code))) pcre2_code

static inline void free_match(pcre2_match_data **match)
{
    pcre2_match_data_free(*match);
}
#define auto_match __attribute__((cleanup(free_match))) pcre2_match_data

/* Compiles as Python's re does for a str: UTF-8, Unicode classes, only \n ends a line. */
static bool compile(const struct mirror_filters *f, const char *pattern, uint32_t options,
                    pcre2_code **ret, struct uvm_error *err)
{
    int number;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                     options | PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                                     &number, &offset, f->compile);
    if (!code) {
        PCRE2_UCHAR reason[128] = "";
        pcre2_get_error_message(number, reason, sizeof reason);
        return uvm_fail(err, UVM_USAGE, "regular expression, at character %zu: %s", offset + 1,
                        (const char *)reason);
    }
    *ret = code;
    return true;
}

/* simplestreams' own grammar, so that odd input means here what it means there: blanks around the
 * operator are skipped, those behind the value belong to it. */
static bool compile_grammar(const struct mirror_filters *f, pcre2_code **ret, struct uvm_error *err)
{
    return compile(f, "([\\w|\\-]+)[ ]*([!]?[=~])[ ]*(.*)[ ]*$", PCRE2_ANCHORED, ret, err);
}

static char *group_text(pcre2_match_data *match, const char *subject, uint32_t group)
{
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(match);
    return uvm_strndup(subject + offsets[2 * group], offsets[2 * group + 1] - offsets[2 * group]);
}

static bool parse_filter(struct mirror_filters *f, const pcre2_code *grammar, const char *text,
                         struct uvm_error *err)
{
    auto_match *match = pcre2_match_data_create_from_pattern(grammar, NULL);
    if (!match)
        abort();
    if (!uvm_utf8_valid(text, strlen(text)) ||
        pcre2_match(grammar, (PCRE2_SPTR)text, strlen(text), 0, 0, match, f->match) < 0)
        return uvm_fail(err, UVM_USAGE,
                        "a filter is KEY=VALUE, KEY!=VALUE, KEY~REGEX or KEY!~REGEX");
    uvm_auto_free char *op = group_text(match, text, 2);
    uvm_auto_free char *value = group_text(match, text, 3);
    auto_code *regex = NULL;
    if (strchr(op, '~') && !compile(f, value, 0, &regex, err))
        return false;
    f->items = uvm_grow(f->items, f->count + 1, sizeof *f->items);
    f->items[f->count++] = (struct filter){
        .key = group_text(match, text, 1),
        .value = UVM_STEAL(value),
        .regex = UVM_STEAL(regex),
        .negated = op[0] == '!',
    };
    uvm_strings_add(&f->text, text);
    return true;
}

static bool parse_all(struct mirror_filters *f, const pcre2_code *grammar,
                      const char *const *filters, size_t count, struct uvm_error *err)
{
    for (size_t i = 0; i < count; i++)
        if (!parse_filter(f, grammar, filters[i], err)) {
            uvm_auto_free char *shown = mirror_brief(filters[i]);
            return uvm_prefix(err, "filter '%s'", shown);
        }
    return true;
}

static struct mirror_filters *filters_alloc(void)
{
    struct mirror_filters *f = uvm_alloc(sizeof *f);
    f->compile = pcre2_compile_context_create(NULL);
    f->match = pcre2_match_context_create(NULL);
    if (!f->compile || !f->match)
        abort();
    pcre2_set_newline(f->compile, PCRE2_NEWLINE_LF);
    pcre2_set_match_limit(f->match, MATCH_STEPS_MAX);
    pcre2_set_depth_limit(f->match, MATCH_DEPTH_MAX);
    pcre2_set_heap_limit(f->match, MATCH_HEAP_KIB_MAX);
    return f;
}

static bool any_names(const struct filter *items, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(items[i].key, key) == 0)
            return true;
    return false;
}

/* The filters that hold without being asked for, unless `given` names their key. */
static void add_implied(const struct mirror_filters *given, const char *host_arch,
                        struct uvm_strings *implied)
{
    if (host_arch && !any_names(given->items, given->count, "arch")) {
        uvm_auto_free char *arch = uvm_format("arch=%s", host_arch);
        uvm_strings_add(implied, arch);
    }
    if (!any_names(given->items, given->count, "ftype"))
        uvm_strings_add(implied, "ftype=disk1.img");
    if (!any_names(given->items, given->count, "datatype"))
        uvm_strings_add(implied, "datatype=image-downloads");
}

bool mirror_filters_new(const char *const *filters, size_t count, const char *host_arch,
                        struct mirror_filters **ret_filters, struct uvm_error *err)
{
    /* The given ones are parsed twice, since the implied ones stand in front and depend on them. */
    UVM_AUTO(mirror_filters_free) struct mirror_filters *given = filters_alloc();
    UVM_AUTO(mirror_filters_free) struct mirror_filters *all = filters_alloc();
    uvm_auto_strings implied = {0};
    auto_code *grammar = NULL;
    if (!compile_grammar(given, &grammar, err) || !parse_all(given, grammar, filters, count, err))
        return false;
    add_implied(given, host_arch, &implied);
    if (!parse_all(all, grammar, (const char *const *)implied.items, implied.count, err))
        return false;
    all->implied = all->count;
    if (!parse_all(all, grammar, filters, count, err))
        return false;
    *ret_filters = UVM_STEAL(all);
    return true;
}

/* ---- matching -------------------------------------------------------------------------------- */

static bool filter_holds(const struct mirror_filters *f, const struct filter *filter,
                         const char *value)
{
    if (!filter->regex)
        return (strcmp(filter->value, value) == 0) != filter->negated;
    if (strlen(value) > VALUE_MAX)
        return false;
    auto_match *match = pcre2_match_data_create(1, NULL);
    if (!match)
        abort();
    int rc = pcre2_match(filter->regex, (PCRE2_SPTR)value, strlen(value), 0, 0, match, f->match);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return false; /* over a limit: neither a match nor the proof that there is none */
    return (rc != PCRE2_ERROR_NOMATCH) != filter->negated;
}

bool mirror_filters_match_values(const struct mirror_filters *f, enum mirror_filter_set set,
                                 const struct mirror_values *values)
{
    size_t first = set & MIRROR_FILTERS_IMPLIED ? 0 : f->implied;
    size_t end = set & MIRROR_FILTERS_GIVEN ? f->count : f->implied;
    for (size_t i = first; i < end; i++) {
        uvm_auto_free char *value = values->get(values->opaque, f->items[i].key);
        if (!filter_holds(f, &f->items[i], value ? value : ""))
            return false;
    }
    return true;
}

static char *object_value(const void *opaque, const char *key)
{
    return mirror_json_str(json_object_get(opaque, key));
}

bool mirror_filters_match(const struct mirror_filters *f, const json_t *metadata)
{
    struct mirror_values values = {object_value, metadata};
    return mirror_filters_match_values(f, MIRROR_FILTERS_ALL, &values);
}

bool mirror_filters_match_implied(const struct mirror_filters *f, const json_t *metadata)
{
    struct mirror_values values = {object_value, metadata};
    return mirror_filters_match_values(f, MIRROR_FILTERS_IMPLIED, &values);
}

const struct uvm_strings *mirror_filters_text(const struct mirror_filters *f)
{
    return &f->text;
}

/* ---- this machine ---------------------------------------------------------------------------- */

const char *mirror_debian_arch(const char *machine)
{
    static const struct {
        const char *machine, *arch;
    } known[] = {
        {"x86_64", "amd64"},    {"aarch64", "arm64"},   {"armv7l", "armhf"},
        {"armv8l", "armhf"},    {"armv6l", "armel"},    {"armv5tel", "armel"},
        {"i386", "i386"},       {"i486", "i386"},       {"i586", "i386"},
        {"i686", "i386"},       {"ppc64le", "ppc64el"}, {"ppc64", "ppc64"},
        {"riscv64", "riscv64"}, {"s390x", "s390x"},     {"loongarch64", "loong64"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(machine, known[i].machine) == 0)
            return known[i].arch;
    return machine;
}

const char *mirror_host_arch(void)
{
    static struct utsname host;
    return uname(&host) == 0 ? mirror_debian_arch(host.machine) : "unknown";
}

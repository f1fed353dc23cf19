/*
 * Threat: filters are the user's, what they are matched against is not: a value that makes a regular
 * expression run forever, or a filter that means something else once it was written down and read again.
 *
 * The input: filters, one per line, then an empty line, then metadata.
 */
#include "mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

#define FILTERS_MAX 16

static const char usual[] =
    "{\"arch\": \"amd64\", \"release\": \"noble\", \"ftype\": \"disk1.img\","
    " \"datatype\": \"image-downloads\", \"version\": \"24.04\"}";

/* Takes the lines up to the empty one; returns what follows. */
static char *split(char *text, struct uvm_strings *lines)
{
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) && *line;)
        if (lines->count < FILTERS_MAX)
            uvm_strings_add(lines, line);
    return rest;
}

static struct mirror_filters *parse(const struct uvm_strings *lines, const char *arch)
{
    struct mirror_filters *f = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = mirror_filters_new((const char *const *)lines->items, lines->count, arch, &f, &err);
    FUZZ_HOLDS(fuzz_outcome(ok, &err) == (f != NULL));
    return f;
}

static json_t *parse_metadata(const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    json_t *metadata = NULL;
    if (!text || !fuzz_outcome(mirror_json_parse(text, strlen(text), &metadata, &err), &err))
        metadata = json_loads(usual, 0, NULL);
    return metadata;
}

/* As the manifest has them: every one is spelled out, so none is implied. */
static void check_written(const struct mirror_filters *f, const json_t *metadata)
{
    const struct uvm_strings *text = mirror_filters_text(f);
    UVM_AUTO(mirror_filters_free) struct mirror_filters *again = parse(text, NULL);
    FUZZ_HOLDS(again && mirror_filters_text(again)->count == text->count);
    FUZZ_HOLDS(mirror_filters_match(again, metadata) == mirror_filters_match(f, metadata));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_free char *text = uvm_strndup((const char *)data, size);
    uvm_auto_strings lines = {0};
    const char *rest = split(text, &lines);
    UVM_AUTO(mirror_filters_free) struct mirror_filters *f = parse(&lines, "amd64");
    if (!f)
        return 0;
    mirror_auto_json *metadata = parse_metadata(rest);
    FUZZ_HOLDS(!mirror_filters_match(f, metadata) || mirror_filters_match_implied(f, metadata));
    check_written(f, metadata);
    return 0;
}

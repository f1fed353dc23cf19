/*
 * Threat: an index that nobody signed (--no-authentication), or that its signer got wrong. It names files to
 * read; nothing outside the source is read, and a stream bears the name that the index gives it.
 *
 *     <temporary>/outside.json        must never be reached
 *     <temporary>/source/index.json   the input
 *     <temporary>/source/a.json       two streams
 *     <temporary>/source/b/b.json
 */
#include "mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

static char *folder;

static void put(const char *name, const void *data, size_t len)
{
    uvm_auto_free char *path = uvm_format("%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    FUZZ_HOLDS(file && fwrite(data, 1, len, file) == len && fclose(file) == 0);
}

static void put_stream(const char *name, const char *content_id)
{
    uvm_auto_free char *text = uvm_format(
        "{\"format\": \"products:1.0\", \"content_id\": \"%s\", \"products\": {}}", content_id);
    put(name, text, strlen(text));
}

static void clean_up(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_remove_tree(folder, &err);
    free(folder);
}

static void set_up(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    const char *temporary = getenv("TMPDIR");
    folder = uvm_format("%s/uvmirror-fuzz-XXXXXX", temporary ? temporary : "/tmp");
    FUZZ_HOLDS(mkdtemp(folder));
    atexit(clean_up);
    uvm_auto_free char *inner = uvm_format("%s/source/b", folder);
    FUZZ_HOLDS(uvm_make_dirs(inner, 0700, &err));
    put_stream("outside.json", "outside");
    put_stream("source/a.json", "a");
    put_stream("source/b/b.json", "b");
}

static void check_stream(const struct mirror_stream *s, const json_t *index)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    FUZZ_HOLDS(mirror_path_check(s->path, &err) && !s->signer);
    if (strcmp(s->path, "index.json") == 0)
        return; /* the input was a stream itself */
    FUZZ_HOLDS(strcmp(s->content_id, "outside") != 0);
    const json_t *entry = json_object_get(json_object_get(index, "index"), s->content_id);
    const char *path = json_string_value(json_object_get(entry, "path"));
    FUZZ_HOLDS(!index || (path && strcmp(path, s->path) == 0));
}

/* `index` is NULL where the input is not bare JSON. */
static void read_source(const json_t *index)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_source_free) struct mirror_source *source = NULL;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    struct mirror_stream **streams = NULL;
    size_t count = 0;
    uvm_auto_free char *url = uvm_format("%s/source", folder);
    struct mirror_source_options options = {.url = url, .path = "index.json"};
    FUZZ_HOLDS(mirror_source_new(&options, &source, &err));
    FUZZ_HOLDS(mirror_filters_new(NULL, 0, "amd64", &filters, &err));
    if (!fuzz_outcome(mirror_source_streams(source, filters, &streams, &count, &err), &err)) {
        FUZZ_HOLDS(!streams && count == 0);
        return;
    }
    FUZZ_HOLDS(count > 0);
    for (size_t i = 0; i < count; i++) {
        check_stream(streams[i], index);
        mirror_stream_free(streams[i]);
    }
    free(streams);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    if (!ready)
        set_up();
    ready = true;
    put("source/index.json", data, size);
    mirror_auto_json *index = json_loadb((const char *)data, size, 0, NULL);
    read_source(index);
    return 0;
}

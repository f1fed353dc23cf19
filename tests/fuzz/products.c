/*
 * Threat: a products file, signed by somebody's mistake or not signed at all. Every image that is chosen from
 * it is sound, and the reduced file that we sign and publish yields the same images.
 */
#include "mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

static const char *const nothing_hidden[] = {"arch~", "ftype~", "datatype~"};
static const char *const some_hidden[] = {"release~^(jammy|noble)$", "label!=daily"};

static const struct wish {
    const char *const *filters;
    size_t count;
    unsigned max_versions;
} wishes[] = {
    {NULL, 0, 0},
    {NULL, 0, 1},
    {nothing_hidden, 3, 0},
    {some_hidden, 2, 2},
};

static void check_image(const struct mirror_stream *s, const struct mirror_image *image)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    FUZZ_HOLDS(mirror_image_path_check(image->path, &err) && image->size <= MIRROR_SIZE_MAX);
    const char *hex;
    enum uvm_digest_type type = mirror_image_digest(image, &hex);
    FUZZ_HOLDS(uvm_digest_valid(type, hex));
    FUZZ_HOLDS(!strpbrk(image->product, " /") && !strpbrk(image->version, " /"));
    fuzz_holds_printable(image->product);
    fuzz_holds_printable(image->version);
    fuzz_holds_printable(image->item);
    uvm_auto_free char *title = mirror_image_title(image);
    fuzz_holds_printable(title);
    mirror_auto_json *flat = mirror_stream_flatten(s, image->product, image->version, image->item);
    FUZZ_HOLDS(json_equal(flat, image->metadata));
}

/* All that a receiver gets to know of the images. */
static char *story(const struct mirror_stream *s, const struct mirror_selection *selection)
{
    mirror_auto_json *all = json_array();
    for (size_t p = 0; p < selection->count; p++) {
        const struct mirror_product *product = &selection->products[p];
        FUZZ_HOLDS(product->image_count > 0);
        for (size_t i = 0; i < product->image_count; i++) {
            check_image(s, &product->images[i]);
            FUZZ_HOLDS(strcmp(product->images[i].product, product->name) == 0);
            json_array_append_new(all, json_string(product->images[i].path));
            json_array_append(all, product->images[i].metadata);
        }
    }
    return json_dumps(all, 0);
}

static bool choose(const struct mirror_stream *s, const struct wish *wish,
                   struct mirror_selection *ret)
{
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    FUZZ_HOLDS(mirror_filters_new(wish->filters, wish->count, "amd64", &filters, &err));
    return fuzz_outcome(mirror_stream_select(s, filters, wish->max_versions, ret, &err), &err);
}

static void check_index(const struct mirror_stream *s, const struct mirror_selection *selection)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_json *index = NULL;
    uvm_auto_free char *text = mirror_index_text(&s, selection, 1, ".json", s->updated_at);
    FUZZ_HOLDS(mirror_json_parse(text, strlen(text), &index, &err));
}

static size_t count_images(const struct mirror_selection *selection)
{
    size_t count = 0;
    for (size_t p = 0; p < selection->count; p++)
        count += selection->products[p].image_count;
    return count;
}

static void check_reduced(const struct mirror_stream *s, const struct mirror_selection *selection,
                          const struct wish *wish)
{
    UVM_AUTO(mirror_stream_free) struct mirror_stream *reduced = NULL;
    mirror_auto_selection again = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *text = mirror_stream_reduce(s, selection);
    FUZZ_HOLDS(mirror_stream_parse(text, strlen(text), &reduced, &err));
    FUZZ_HOLDS(strcmp(reduced->content_id, s->content_id) == 0);
    FUZZ_HOLDS(reduced->updated_at == s->updated_at);
    FUZZ_HOLDS(mirror_stream_count(reduced).items == count_images(selection));
    FUZZ_HOLDS(choose(reduced, wish, &again));
    uvm_auto_free char *before = story(s, selection), *after = story(reduced, &again);
    FUZZ_HOLDS(strcmp(before, after) == 0);
    uvm_auto_free char *text_again = mirror_stream_reduce(reduced, &again);
    FUZZ_HOLDS(strcmp(text, text_again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    UVM_AUTO(mirror_stream_free) struct mirror_stream *s = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!fuzz_outcome(mirror_stream_parse(data, size, &s, &err), &err)) {
        FUZZ_HOLDS(!s);
        return 0;
    }
    mirror_stream_count(s);
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) {
        mirror_auto_selection selection = {0};
        if (!choose(s, &wishes[i], &selection))
            continue;
        check_index(s, &selection);
        check_reduced(s, &selection, &wishes[i]);
    }
    return 0;
}

/*
 * Threat: a stream puts any text into keys and values, and uvtool reads the file that is made of them.
 * Whatever they hold, the file is ASCII and reads back as the same pairs, in the same order.
 */
#include "pool/pool.h"
#include "tests/fuzz/fuzz.h"

/* Python's str() of a float reads back as the same float. */
static void check_text(const json_t *value, const char *text)
{
    if (json_is_real(value))
        FUZZ_HOLDS(strtod(text, NULL) == json_real_value(value));
    if (json_is_integer(value))
        FUZZ_HOLDS(strtoll(text, NULL, 10) == json_integer_value(value));
}

/* The pairs as a stream's metadata hold them: strings only. */
static json_t *flatten(json_t *object)
{
    json_t *flat = json_object(), *value;
    const char *key;
    json_object_foreach(object, key, value)
    {
        uvm_auto_free char *text = mirror_json_str(value);
        if (!text)
            continue;
        check_text(value, text);
        json_object_set_new(flat, key, json_string(text));
    }
    return flat;
}

static void check_file(const json_t *metadata)
{
    uvm_auto_free char *text = pool_metadata_text(metadata);
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_json *again = NULL;
    for (const char *p = text; *p; p++)
        FUZZ_HOLDS(*p == '\n' || (*p >= 0x20 && *p < 0x7f));
    FUZZ_HOLDS(fuzz_outcome(mirror_json_parse(text, strlen(text), &again, &err), &err));
    uvm_auto_free char *before = json_dumps(metadata, 0);
    uvm_auto_free char *after = json_dumps(again, 0);
    FUZZ_HOLDS(strcmp(before, after) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_json *object = NULL;
    if (!fuzz_outcome(mirror_json_parse(data, size, &object, &err), &err))
        return 0;
    mirror_auto_json *metadata = flatten(object);
    check_file(metadata);
    return 0;
}

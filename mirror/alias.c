/*
 * Aliases of a stream: a table that says which further keys come with a value.
 *
 *     "_aliases": {"crsn": {"useast1": {"region": "us-east-1", "endpoint": "https://..."}}}
 *
 * Wherever an object has "crsn": "useast1", it gets "region" and "endpoint" too. simplestreams
 * (expand_tree) does so in the whole tree, the table included, parents first, each object's keys in
 * their order; keys that an alias adds to an object are not looked up again there. An alias may be
 * used by every item, so what all of them add is limited.
 */
#include <string.h>

#include "mirror/model.h"

#define ALIAS_TABLE "_aliases"
#define ADDED_MAX   ((size_t)128 << 20) /* bytes of keys, with PAIR_COST for each */
#define PAIR_COST   64

struct expansion {
    json_t *table;
    size_t added;
};

/* What Python takes for false in "if not ref". */
static bool is_empty(const json_t *value)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT:
        return json_object_size(value) == 0;
    case JSON_ARRAY:
        return json_array_size(value) == 0;
    case JSON_STRING:
        return json_string_length(value) == 0;
    case JSON_NULL:
    case JSON_FALSE:
        return true;
    default:
        return json_is_number(value) && json_number_value(value) == 0;
    }
}

/* Adds the pairs of one entry. Nested values are refused: they would not survive flattening, and
 * could refer to themselves without end. */
static bool add_pairs(struct expansion *x, json_t *object, json_t *entry, struct uvm_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(entry, key, value)
    {
        if (json_is_object(value) || json_is_array(value)) {
            uvm_auto_free char *shown = mirror_brief(key);
            return uvm_fail(err, UVM_CONTENT, "'%s' is not a string, number or boolean", shown);
        }
        x->added += strlen(key) + PAIR_COST;
        if (x->added > ADDED_MAX)
            return uvm_fail(err, UVM_CONTENT, "aliases expand to more than %zu bytes", ADDED_MAX);
        json_object_set(object, key, value);
    }
    return true;
}

/* What an entry adds may take the place of what it was found by: value and entry are held. */
static bool expand_field(struct expansion *x, json_t *object, const char *field,
                         struct uvm_error *err)
{
    const json_t *entries = json_object_get(x->table, field);
    uvm_auto_free char *value = uvm_strdup(json_string_value(json_object_get(object, field)));
    if (!value || !*value)
        return true;
    mirror_auto_json *entry = json_incref(mirror_object_get(entries, value));
    if (entry == object)
        return true;
    if (entry && add_pairs(x, object, entry, err))
        return true;
    uvm_auto_free char *shown_field = mirror_brief(field), *shown_value = mirror_brief(value);
    if (!entry)
        uvm_fail(err, UVM_CONTENT, "is used and not defined");
    return uvm_prefix(err, "alias %s=%s", shown_field, shown_value);
}

/* The keys that an object has before expansion and that the table knows. */
static void aliased_fields(const struct expansion *x, json_t *object, struct uvm_strings *ret)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (strcmp(key, ALIAS_TABLE) != 0 && !is_empty(json_object_get(x->table, key)))
            uvm_strings_add(ret, key);
    }
}

/* Depth is bounded by what the parser accepts: only scalars are added. */
static bool expand(struct expansion *x, json_t *node, struct uvm_error *err)
{
    const char *key;
    json_t *value;
    size_t i;
    if (json_is_object(node)) {
        uvm_auto_strings fields = {0};
        aliased_fields(x, node, &fields);
        for (i = 0; i < fields.count; i++)
            if (!expand_field(x, node, fields.items[i], err))
                return false;
        json_object_foreach(node, key, value)
        {
            if (!expand(x, value, err))
                return false;
        }
    }
    json_array_foreach(node, i, value)
    {
        if (!expand(x, value, err))
            return false;
    }
    return true;
}

bool mirror_aliases_expand(json_t *tree, struct uvm_error *err)
{
    mirror_auto_json *table = json_incref(mirror_object_get(tree, ALIAS_TABLE));
    struct expansion x = {.table = table};
    if (table && !expand(&x, tree, err))
        return false;
    json_object_del(tree, ALIAS_TABLE);
    return true;
}

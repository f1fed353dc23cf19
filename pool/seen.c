/*
 * seen.c: the rollback record: how new the newest thing was that this host has taken, per stream
 * and product. Whoever signs, an older one is not taken for the newest again. And when the newest
 * bundle was made: it is later than that now, whatever the host's clock says.
 */
#include "pool/internal.h"

#include <errno.h>
#include <string.h>

#define SEEN_MAX     ((size_t)64 << 20)
#define SEEN_VERSION 1

void pool_seen_clear(struct pool_seen *s)
{
    json_decref(s->tree);
    s->tree = NULL;
}

static json_t *empty_tree(void)
{
    return json_pack("{s:i, s:{}}", "version", SEEN_VERSION, "streams");
}

static bool is_record(const json_t *tree)
{
    return json_is_integer(json_object_get(tree, "version")) &&
           json_is_object(json_object_get(tree, "streams"));
}

void pool_seen_from_json(json_t *tree, struct pool_seen *ret_seen)
{
    if (!is_record(tree) || json_integer_value(json_object_get(tree, "version")) != SEEN_VERSION) {
        json_decref(tree);
        tree = empty_tree();
    }
    ret_seen->tree = tree;
}

bool pool_seen_read(const char *state_dir, const struct uvm_observer *observer,
                    struct pool_seen *ret_seen, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/seen.json", state_dir);
    uvm_auto_buf text = {.max = SEEN_MAX};
    uvm_auto_error failed = UVM_ERROR_INIT;
    json_t *tree = NULL;

    if (!uvm_file_read(path, SEEN_MAX, &text, &failed)) {
        if (failed.sys_errno != ENOENT)
            return uvm_fail(err, failed.code, "rollback record: %s", failed.message);
        pool_seen_from_json(NULL, ret_seen);
        return true;
    }
    if (!mirror_json_parse(text.data, text.len, &tree, &failed) || !is_record(tree))
        uvm_warning(
            observer,
            "%s is damaged: this host does not know any more how new the images were that it "
            "has seen",
            path);
    else if (json_integer_value(json_object_get(tree, "version")) != SEEN_VERSION) {
        json_decref(tree);
        return uvm_fail(err, UVM_FAILED, "rollback record %s is of another version of uvmirror",
                        path);
    }
    pool_seen_from_json(tree, ret_seen);
    return true;
}

bool pool_seen_write(const struct pool_seen *s, const char *state_dir, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/seen.json", state_dir);
    uvm_auto_free char *text = json_dumps(s->tree, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (!text)
        abort();
    if (!uvm_file_replace(path, 0644, text, strlen(text), err))
        return uvm_prefix(err, "rollback record");
    return true;
}

struct pool_age pool_seen_age(const struct pool_seen *s, const char *content_id,
                              const char *product)
{
    const json_t *record =
        json_object_get(json_object_get(json_object_get(s->tree, "streams"), content_id), product);
    json_int_t updated = json_integer_value(json_object_get(record, "updated"));
    json_int_t serial = json_integer_value(json_object_get(record, "serial"));
    return (struct pool_age){updated > 0 ? (uint64_t)updated : 0,
                             serial > 0 ? (uint64_t)serial : 0};
}

bool pool_seen_older(const struct pool_seen *s, const char *content_id, const char *product,
                     struct pool_age age)
{
    struct pool_age seen = pool_seen_age(s, content_id, product);
    /* A stream without a time can be told by the bundle's serial only. */
    return (age.updated && age.updated < seen.updated) || age.serial < seen.serial;
}

static uint64_t higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void pool_seen_note(struct pool_seen *s, const char *content_id, const char *product,
                    struct pool_age age, enum pool_seen_how how)
{
    json_t *streams = json_object_get(s->tree, "streams");
    json_t *stream = json_object_get(streams, content_id);
    struct pool_age seen = pool_seen_age(s, content_id, product);
    if (!json_is_object(stream)) {
        stream = json_object();
        json_object_set_new(streams, content_id, stream);
    }
    if (how == POOL_SEEN_RAISE)
        age = (struct pool_age){higher(age.updated, seen.updated), higher(age.serial, seen.serial)};
    json_object_set_new(stream, product,
                        json_pack("{s:I, s:I}", "updated", (json_int_t)age.updated, "serial",
                                  (json_int_t)age.serial));
}

/* ---- the newest bundle ----------------------------------------------------------------------- */

time_t pool_seen_created(const struct pool_seen *s)
{
    json_int_t created = json_integer_value(json_object_get(s->tree, "created"));
    return created > 0 ? (time_t)created : 0;
}

void pool_seen_note_created(struct pool_seen *s, time_t created, enum pool_seen_how how)
{
    if (created > 0 && (how == POOL_SEEN_SET || created > pool_seen_created(s)))
        json_object_set_new(s->tree, "created", json_integer((json_int_t)created));
}

time_t pool_newest_created(const char *state_dir)
{
    pool_auto_seen seen = {0};
    uvm_auto_error ignored = UVM_ERROR_INIT; /* an import tells */
    return pool_seen_read(state_dir, NULL, &seen, &ignored) ? pool_seen_created(&seen) : 0;
}

static uint64_t highest_serial(json_t *streams)
{
    uint64_t highest = 0;
    const char *id, *product;
    json_t *stream, *record;
    json_object_foreach(streams, id, stream)
    {
        json_object_foreach(stream, product, record)
        {
            json_int_t serial = json_integer_value(json_object_get(record, "serial"));
            highest = serial > 0 && (uint64_t)serial > highest ? (uint64_t)serial : highest;
        }
    }
    return highest;
}

uint64_t pool_newest_serial(const char *state_dir)
{
    pool_auto_seen seen = {0};
    uvm_auto_error ignored = UVM_ERROR_INIT; /* an import tells */
    return pool_seen_read(state_dir, NULL, &seen, &ignored)
               ? highest_serial(json_object_get(seen.tree, "streams"))
               : 0;
}

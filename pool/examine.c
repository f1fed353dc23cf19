/*
 * examine.c: what may be wrong with a host, and what mends it.
 */
#include "pool/internal.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define METADATA_MODE 02775
#define STATE_MODE    02770
#define SYSTEM_STATE  "/var/lib/uvmirror"
#define HOST_GROUP    "libvirt"

/* Too little for any image of today, uncompressed. */
#define LITTLE_SPACE ((uint64_t)2 << 30)
/* The same, as it is carried. */
#define LITTLE_WAITING ((uint64_t)1 << 30)

/* ---- findings -------------------------------------------------------------------------------- */

void pool_findings_clear(struct pool_findings *f)
{
    for (size_t i = 0; i < f->count; i++) {
        free(f->items[i].text);
        free(f->items[i].cure);
    }
    free(f->items);
    *f = (struct pool_findings){0};
}

void pool_findings_add(struct pool_findings *f, const char *check, const char *cure,
                       const char *format, ...)
{
    va_list args;
    va_start(args, format);
    f->items = uvm_grow(f->items, f->count + 1, sizeof(*f->items));
    f->items[f->count++] =
        (struct pool_finding){.health = cure ? POOL_HEALTH_WRONG : POOL_HEALTH_OK,
                              .check = check,
                              .text = uvm_vformat(format, args),
                              .cure = uvm_strdup(cure)};
    va_end(args);
}

/* ---- the pool -------------------------------------------------------------------------------- */

static void examine_start(struct pool_store *s, struct pool_findings *f)
{
    bool starts = false;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *start = uvm_format("virsh pool-start %s", s->name);
    uvm_auto_free char *autostart = uvm_format("virsh pool-autostart %s", s->name);
    if (!s->active)
        pool_findings_add(f, "pool", start, "pool %s is not active", s->name);
    if (!pool_store_starts_itself(s, &starts, &err))
        pool_findings_add(f, "pool", "look at libvirt's log", "%s", err.message);
    else if (!starts)
        pool_findings_add(f, "pool", autostart, "pool %s is not started at boot", s->name);
}

static void examine_place(const struct pool_store *s, struct pool_findings *f)
{
    struct stat st;
    uvm_auto_free char *path = uvm_printable(s->path);
    uvm_auto_free char *make = uvm_format("mkdir -m 0755 %s", path);
    uvm_auto_free char *open_up = uvm_format("chmod o+x %s", path);
    if (stat(s->path, &st) != 0)
        pool_findings_add(f, "pool", errno == ENOENT ? make : "see that its disk is mounted",
                          "the folder of pool %s, %s: %s", s->name, path, strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        pool_findings_add(f, "pool", "move it away, and make the folder",
                          "%s, where pool %s should be, is no folder", path, s->name);
    else if (!(st.st_mode & S_IXOTH))
        pool_findings_add(f, "pool", open_up, "QEMU's own user cannot get into %s", path);
    if (strcmp(s->name, POOL_DEFAULT_NAME) == 0 && strcmp(s->path, POOL_DEFAULT_IMAGES) != 0)
        pool_findings_add(
            f, "pool",
            "do not run uvtool's sync here; or mount that folder (mount --bind) "
            "at " POOL_DEFAULT_IMAGES " and define the pool there",
            "pool %s is in %s: a sync by uvtool itself would delete images there that "
            "guests need",
            s->name, path);
}

/* Whether its volumes can be looked at. */
static bool examine_pool(struct pool_virt *v, const struct pool_options *o,
                         struct pool_store **ret_store, struct pool_findings *f)
{
    UVM_AUTO(pool_store_free) struct pool_store *s = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    size_t before = f->count;
    if (!pool_store_find(v, o->name, &s, &err)) {
        pool_findings_add(f, "pool", "look at libvirt's log", "%s", err.message);
        return false;
    }
    if (!s) {
        pool_findings_add(f, "pool", "uvmirror init", "there is no pool %s", o->name);
        return false;
    }
    if (!pool_store_is_folder(s)) {
        pool_findings_add(f, "pool", "define it anew as a pool of type dir",
                          "pool %s is of type %s, and uvtool keeps images in folders", s->name,
                          s->type);
        return false;
    }
    examine_start(s, f);
    examine_place(s, f);
    if (f->count == before)
        pool_findings_add(f, "pool", NULL, "pool %s is active, in %s", s->name, s->path);
    bool active = s->active;
    *ret_store = UVM_STEAL(s);
    return active;
}

static void examine_space(struct pool_store *s, struct pool_findings *f)
{
    uint64_t available = 0;
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!pool_store_available(s, &available, &err)) {
        pool_findings_add(f, "space", "look at libvirt's log", "%s", err.message);
        return;
    }
    uvm_auto_free char *text = uvm_size_text(available);
    pool_findings_add(f, "space", available < LITTLE_SPACE ? "uvmirror clean" : NULL,
                      "%s are free in %s", text, s->path);
}

/* An image waits there until it is verified. */
static void examine_waiting_room(const struct pool_options *o, struct pool_findings *f)
{
    uint64_t available = 0;
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!uvm_free_space(o->state_dir, &available, &err) || available >= LITTLE_WAITING)
        return;
    uvm_auto_free char *text = uvm_size_text(available);
    uvm_auto_free char *path = uvm_printable(o->state_dir);
    pool_findings_add(f, "space", "make room there", "%s are free in %s, where images wait", text,
                      path);
}

/* ---- folders --------------------------------------------------------------------------------- */

/* Owner, group and mode as `init` makes them. */
static void examine_access(const char *check, const char *path, mode_t mode,
                           struct pool_findings *f)
{
    const struct group *group = getgrnam(HOST_GROUP);
    struct stat st;
    uvm_auto_free char *mend = uvm_format("chown root:%s %s && chmod %o %s",
                                          group ? HOST_GROUP : "root", path, (unsigned)mode, path);
    if (stat(path, &st) != 0)
        pool_findings_add(f, check, errno == ENOENT ? "uvmirror init" : mend, "%s: %s", path,
                          strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        pool_findings_add(f, check, "move it away, then: uvmirror init", "%s is no folder", path);
    else if (st.st_uid != 0 || (group && st.st_gid != group->gr_gid) ||
             (group && (st.st_mode & 07777) != mode))
        pool_findings_add(
            f, check, mend,
            "%s belongs to user %u and group %u with mode %o, not to root and group %s "
            "with %o",
            path, (unsigned)st.st_uid, (unsigned)st.st_gid, (unsigned)(st.st_mode & 07777),
            HOST_GROUP, (unsigned)mode);
}

/* One name of the metadata folder. `s` is NULL when volumes cannot be looked at. */
static void examine_metadata_file(const struct pool *p, const char *name, struct pool_findings *f)
{
    uvm_auto_free char *product = NULL;
    uvm_auto_free char *version = NULL;
    uvm_auto_free char *path = pool_metadata_path(p, name);
    uvm_auto_free char *shown = uvm_printable(path);
    uvm_auto_free char *away = uvm_format("mv '%s' /root", shown);
    bool found = true;
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!pool_volume_parse(name, &product, &version) || pool_metadata_is_folder(p, name)) {
        pool_findings_add(f, "metadata", away, "%s is not uvtool's, which stumbles over it", shown);
        return;
    }
    mirror_auto_json *metadata = pool_metadata_read(p, name, product, version);
    if (!metadata)
        pool_findings_add(f, "metadata", "import the bundle with this image again",
                          "%s does not describe %s %s", shown, product, version);
    else if (p->store && pool_volume_find(p->store, name, &found, NULL, &err) && !found)
        pool_findings_add(f, "metadata", "uvmirror clean", "%s %s has metadata, but no volume",
                          product, version);
}

static void examine_metadata(const struct pool *p, struct pool_findings *f)
{
    uvm_auto_strings names = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    size_t before = f->count;
    examine_access("metadata", p->metadata_dir, METADATA_MODE, f);
    if (!pool_metadata_names(p, &names, &err)) {
        if (f->count == before)
            pool_findings_add(f, "metadata", "uvmirror init", "%s", err.message);
        return;
    }
    for (size_t i = 0; i < names.count; i++)
        examine_metadata_file(p, names.items[i], f);
    if (f->count == before)
        pool_findings_add(f, "metadata", NULL, "%zu images in %s", names.count, p->metadata_dir);
}

static uint64_t newest_of(const json_t *streams)
{
    uint64_t newest = 0;
    const char *id, *product;
    json_t *stream, *record;
    json_object_foreach((json_t *)(uintptr_t)streams, id, stream)
    {
        json_object_foreach(stream, product, record)
        {
            json_int_t serial = json_integer_value(json_object_get(record, "serial"));
            json_int_t updated = json_integer_value(json_object_get(record, "updated"));
            newest = serial > 0 && (uint64_t)serial > newest ? (uint64_t)serial : newest;
            newest = updated > 0 && (uint64_t)updated > newest ? (uint64_t)updated : newest;
        }
    }
    return newest;
}

/* A damaged record is told as a warning, which becomes a finding. */
static void note_damage(void *opaque, const struct uvm_event *event)
{
    struct pool_findings *f = opaque;
    if (event->kind == UVM_EVENT_WARNING)
        pool_findings_add(f, "state", "import the newest bundle again", "%s", event->text);
}

static void examine_records(const char *dir, struct pool_findings *f)
{
    const struct uvm_observer observer = {.event = note_damage, .opaque = f};
    uvm_auto_free char *journal = uvm_format("%s/journal.json", dir);
    uvm_auto_error err = UVM_ERROR_INIT;
    pool_auto_seen seen = {0};
    if (access(journal, F_OK) == 0)
        pool_findings_add(f, "state", "uvmirror clean",
                          "an import runs, or was interrupted (%s is there)", journal);
    if (!pool_seen_read(dir, &observer, &seen, &err))
        pool_findings_add(f, "state", "look at the file", "%s", err.message);
    else
        f->newest = newest_of(json_object_get(seen.tree, "streams"));
}

static void examine_state(const struct pool_options *o, struct pool_findings *f)
{
    struct stat st;
    size_t before = f->count;
    if (strcmp(o->state_dir, SYSTEM_STATE) == 0)
        examine_access("state", o->state_dir, STATE_MODE, f);
    else if (stat(o->state_dir, &st) != 0 && errno != ENOENT)
        pool_findings_add(f, "state", "see that it can be read", "%s: %s", o->state_dir,
                          strerror(errno));
    examine_records(o->state_dir, f);
    if (f->count == before)
        pool_findings_add(f, "state", NULL, "%s is in order", o->state_dir);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static const char *daemon_cure(void)
{
    return geteuid() == 0 ? "systemctl start libvirtd.socket"
                          : "run it as root, or join group libvirt: usermod -aG libvirt USER";
}

void pool_examine(const struct pool_options *options, struct pool_findings *ret_findings)
{
    UVM_AUTO(pool_virt_free) struct pool_virt *v = NULL;
    UVM_AUTO(pool_store_free) struct pool_store *s = NULL;
    /* What metadata look like is told by findings, not by warnings. */
    struct pool p = {.metadata_dir = (char *)(uintptr_t)options->metadata_dir, .lock_fd = -1};
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!pool_virt_open(options->connect, options->observer, &v, &err)) {
        pool_findings_add(ret_findings, "libvirt", daemon_cure(), "%s", err.message);
    } else {
        pool_findings_add(ret_findings, "libvirt", NULL, "%s answers", options->connect);
        if (examine_pool(v, options, &s, ret_findings)) {
            p.store = s;
            examine_space(s, ret_findings);
        }
    }
    examine_waiting_room(options, ret_findings);
    examine_metadata(&p, ret_findings);
    examine_state(options, ret_findings);
}

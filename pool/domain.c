/*
 * domain.c: what a libvirt daemon knows about the files of its guests.
 *
 * Most guests have neither managed save, snapshots nor checkpoints, and are not running. Which have
 * is asked for all of them at once, so that the usual one costs a single call. It is asked after the
 * definitions were read: what a guest was saved or snapshotted with before that is found, and what
 * changes later is an event (watch.c).
 */
#include "pool/libvirt.h"

#include "pool/virt.h"

#include <jansson.h>
#include <string.h>

/* What a guest may have besides its definition. */
enum {
    RUNS = 1 << 0,
    SAVED = 1 << 1,
    SNAPSHOTS = 1 << 2,
    CHECKPOINTS = 1 << 3,
};

static const struct {
    unsigned has, list_flag;
    const char *what;
} questions[] = {
    {RUNS, VIR_CONNECT_LIST_DOMAINS_ACTIVE, "list of running guests"},
    {SAVED, VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE, "list of saved guests"},
    {SNAPSHOTS, VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT, "list of guests with snapshots"},
    {CHECKPOINTS, VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT, "list of guests with checkpoints"},
};
#define QUESTIONS (sizeof(questions) / sizeof(questions[0]))

/* The guests of a daemon. */
struct guests {
    virDomainPtr *items;
    size_t count;
    struct pool_domain *known; /* one for each */
    unsigned *has;
    json_t *index; /* UUID -> index */
};

static void domain_clear(struct pool_domain *d)
{
    for (size_t i = 0; i < d->document_count; i++) {
        free(d->documents[i].label);
        free(d->documents[i].xml);
    }
    free(d->documents);
    free(d->name);
    uvm_strings_clear(&d->doubts);
    *d = (struct pool_domain){0};
}

static void guests_clear(struct guests *g)
{
    for (size_t i = 0; i < g->count; i++) {
        virDomainFree(g->items[i]);
        domain_clear(&g->known[i]);
    }
    free(g->items);
    free(g->known);
    free(g->has);
    json_decref(g->index);
}

/* ---- documents ------------------------------------------------------------------------------- */

/* Adds a text from libvirt to the guest's, or a doubt when it could not be had. `absent` is the
 * error code that means "there is none". */
static void take_xml(struct pool_domain *d, char *xml, int absent, const char *label)
{
    if (xml) {
        d->documents = uvm_grow(d->documents, d->document_count + 1, sizeof(*d->documents));
        d->documents[d->document_count++] = (struct pool_document){uvm_printable(label), xml};
        return;
    }
    int code = virGetLastErrorCode();
    if (code == absent || code == VIR_ERR_NO_SUPPORT)
        return;
    if (pool_virt_is_gone(code)) {
        d->gone = true;
        return;
    }
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *shown = uvm_printable(*label ? label : "definition");
    pool_virt_fail(&err, "%s", shown);
    uvm_strings_add(&d->doubts, err.message);
}

static void take_definitions(struct pool_domain *d, virDomainPtr domain)
{
    take_xml(d, virDomainGetXMLDesc(domain, 0), VIR_ERR_OK, "");
}

/* Of a running guest, the above told how it runs. */
static void take_stored(struct pool_domain *d, virDomainPtr domain)
{
    take_xml(d, virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE), VIR_ERR_OK, "");
    take_xml(d, virDomainBackupGetXMLDesc(domain, 0), VIR_ERR_NO_DOMAIN_BACKUP, "backup job");
}

static void take_saved(struct pool_domain *d, virDomainPtr domain)
{
    /* It may have been started, and so have lost it, meanwhile. */
    if (virDomainHasManagedSaveImage(domain, 0) != 0)
        take_xml(d, virDomainManagedSaveGetXMLDesc(domain, 0), VIR_ERR_NO_SUPPORT, "managed save");
}

static void take_snapshots(struct pool_domain *d, virDomainPtr domain)
{
    virDomainSnapshotPtr *list = NULL;
    int count = virDomainListAllSnapshots(domain, &list, 0);
    if (count < 0)
        take_xml(d, NULL, VIR_ERR_NO_SUPPORT, "snapshots");
    for (int i = 0; i < count; i++) {
        uvm_auto_free char *label = uvm_format("snapshot %s", virDomainSnapshotGetName(list[i]));
        take_xml(d, virDomainSnapshotGetXMLDesc(list[i], 0), VIR_ERR_NO_DOMAIN_SNAPSHOT, label);
        virDomainSnapshotFree(list[i]);
    }
    free(list);
}

static void take_checkpoints(struct pool_domain *d, virDomainPtr domain)
{
    virDomainCheckpointPtr *list = NULL;
    int count = virDomainListAllCheckpoints(domain, &list, 0);
    if (count < 0)
        take_xml(d, NULL, VIR_ERR_NO_SUPPORT, "checkpoints");
    for (int i = 0; i < count; i++) {
        uvm_auto_free char *label =
            uvm_format("checkpoint %s", virDomainCheckpointGetName(list[i]));
        take_xml(d, virDomainCheckpointGetXMLDesc(list[i], 0), VIR_ERR_NO_DOMAIN_CHECKPOINT, label);
        virDomainCheckpointFree(list[i]);
    }
    free(list);
}

static void take_rest(struct pool_domain *d, virDomainPtr domain, unsigned has)
{
    if (has & RUNS)
        take_stored(d, domain);
    if (has & SAVED)
        take_saved(d, domain);
    if (has & SNAPSHOTS)
        take_snapshots(d, domain);
    if (has & CHECKPOINTS)
        take_checkpoints(d, domain);
}

/* ---- all guests ------------------------------------------------------------------------------ */

/* The daemon's order is none. */
static int compare_names(const void *a, const void *b)
{
    return strverscmp(virDomainGetName(*(const virDomainPtr *)a),
                      virDomainGetName(*(const virDomainPtr *)b));
}

static bool list_guests(struct pool_virt *v, struct guests *g, struct uvm_error *err)
{
    int count = virConnectListAllDomains(v->conn, &g->items, 0);
    if (count < 0)
        return pool_virt_fail(err, "list of guests");
    if (count > 0)
        qsort(g->items, (size_t)count, sizeof(*g->items), compare_names);
    g->known = uvm_alloc(((size_t)count + 1) * sizeof(*g->known));
    g->has = uvm_alloc(((size_t)count + 1) * sizeof(*g->has));
    g->index = json_object();
    for (; g->count < (size_t)count; g->count++) {
        char uuid[VIR_UUID_STRING_BUFLEN] = "";
        virDomainPtr domain = g->items[g->count];
        virDomainGetUUIDString(domain, uuid);
        json_object_set_new(g->index, uuid, json_integer((json_int_t)g->count));
        g->known[g->count].name = uvm_printable(virDomainGetName(domain));
    }
    return true;
}

/* Guests that came since the list was made are left to the next look. */
static bool ask(struct pool_virt *v, struct guests *g, size_t question, struct uvm_error *err)
{
    virDomainPtr *found = NULL;
    int count = virConnectListAllDomains(v->conn, &found, questions[question].list_flag);
    if (count < 0)
        return pool_virt_fail(err, "%s", questions[question].what);
    for (int i = 0; i < count; i++) {
        char uuid[VIR_UUID_STRING_BUFLEN] = "";
        virDomainGetUUIDString(found[i], uuid);
        const json_t *known = json_object_get(g->index, uuid);
        if (known)
            g->has[json_integer_value(known)] |= questions[question].has;
        virDomainFree(found[i]);
    }
    free(found);
    return true;
}

/* A guest whose document could not be had is a doubt; but not when there is nobody to ask any more. */
static bool still_there(struct pool_virt *v, const struct pool_domain *d, struct uvm_error *err)
{
    return d->doubts.count == 0 || pool_virt_alive(v) ||
           uvm_fail(err, UVM_LIBVIRT, "guest %s: %s", d->name, d->doubts.items[0]);
}

bool pool_domains_each(struct pool_virt *v,
                       void (*each)(void *opaque, const struct pool_domain *domain), void *opaque,
                       struct uvm_error *err)
{
    __attribute__((cleanup(guests_clear))) struct guests g = {0};
    if (!list_guests(v, &g, err))
        return false;
    for (size_t i = 0; i < g.count; i++) {
        take_definitions(&g.known[i], g.items[i]);
        pool_virt_beat(v);
        if (!still_there(v, &g.known[i], err))
            return false;
    }
    for (size_t q = 0; q < QUESTIONS; q++) {
        if (!ask(v, &g, q, err))
            return false;
    }
    for (size_t i = 0; i < g.count; i++) {
        take_rest(&g.known[i], g.items[i], g.has[i]);
        pool_virt_beat(v);
        if (!still_there(v, &g.known[i], err))
            return false;
        if (!g.known[i].gone)
            each(opaque, &g.known[i]);
        domain_clear(&g.known[i]);
    }
    return true;
}

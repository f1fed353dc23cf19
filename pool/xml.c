/*
 * xml.c: building and reading libvirt's XML.
 */
#include "pool/xml.h"

#include <inttypes.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <libxml/uri.h>
#include <libxml/xpath.h>
#include <stdio.h>
#include <string.h>

/* Entities stay unexpanded (no XML_PARSE_NOENT), nothing is fetched, nothing is printed. */
#define PARSE_OPTIONS (XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING)

/* libxml2's BAD_CAST casts const away, which nothing here needs. */
#define XML (const xmlChar *)

UVM_DEFINE_AUTO(xmlDocPtr, xmlFreeDoc)
UVM_DEFINE_AUTO(xmlXPathContextPtr, xmlXPathFreeContext)
UVM_DEFINE_AUTO(xmlXPathObjectPtr, xmlXPathFreeObject)

/* ---- URIs ------------------------------------------------------------------------------------ */

bool pool_xml_uri_is_remote(const char *uri)
{
    xmlURIPtr parsed = xmlParseURI(uri);
    if (!parsed)
        return true;
    bool remote = parsed->server && *parsed->server && strcmp(parsed->server, "localhost") != 0;
    xmlFreeURI(parsed);
    return remote;
}

/* ---- building -------------------------------------------------------------------------------- */

static xmlNodePtr add(xmlNodePtr parent, const char *name, const char *text)
{
    /* xmlNewTextChild escapes; xmlNewChild would take "&" for an entity. */
    return xmlNewTextChild(parent, NULL, XML name, XML text);
}

static xmlNodePtr add_root(xmlDocPtr doc, const char *name)
{
    xmlNodePtr root = xmlNewDocNode(doc, NULL, XML name, NULL);
    if (!root)
        abort();
    xmlDocSetRootElement(doc, root);
    return root;
}

static char *to_text(xmlDocPtr doc)
{
    xmlChar *text = NULL;
    int len = 0;
    xmlDocDumpMemoryEnc(doc, &text, &len, "UTF-8");
    if (!text)
        abort();
    char *copy = uvm_strndup((const char *)text, (size_t)len);
    xmlFree(text);
    return copy;
}

static xmlDocPtr new_document(void)
{
    xmlDocPtr doc = xmlNewDoc(XML "1.0");
    if (!doc)
        abort();
    return doc;
}

char *pool_xml_folder_pool(const char *name, const char *path)
{
    UVM_AUTO(xmlFreeDoc) xmlDocPtr doc = new_document();
    xmlNodePtr pool = add_root(doc, "pool");
    xmlNewProp(pool, XML "type", XML "dir");
    add(pool, "name", name);
    xmlNodePtr target = add(pool, "target", NULL);
    add(target, "path", path);
    add(add(target, "permissions", NULL), "mode", "0755");
    return to_text(doc);
}

char *pool_xml_raw_volume(const char *name, uint64_t capacity)
{
    char number[24];
    snprintf(number, sizeof(number), "%" PRIu64, capacity);

    UVM_AUTO(xmlFreeDoc) xmlDocPtr doc = new_document();
    xmlNodePtr volume = add_root(doc, "volume");
    add(volume, "name", name);
    add(volume, "allocation", "0");
    add(volume, "capacity", number);
    xmlNodePtr target = add(volume, "target", NULL);
    xmlNewProp(add(target, "format", NULL), XML "type", XML "raw");
    return to_text(doc);
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool parse(const char *xml, xmlDocPtr *ret_doc, xmlXPathContextPtr *ret_context,
                  struct uvm_error *err)
{
    size_t len = strlen(xml);
    if (len > POOL_XML_MAX)
        return uvm_fail(err, UVM_LIBVIRT, "XML of libvirt: %zu bytes are too much", len);
    UVM_AUTO(xmlFreeDoc)
    xmlDocPtr doc = xmlReadMemory(xml, (int)len, "libvirt.xml", NULL, PARSE_OPTIONS);
    if (!doc || !xmlDocGetRootElement(doc))
        return uvm_fail(err, UVM_LIBVIRT, "XML of libvirt: not well-formed");
    if (doc->intSubset)
        return uvm_fail(err, UVM_LIBVIRT, "XML of libvirt: holds a document type");
    xmlXPathContextPtr context = xmlXPathNewContext(doc);
    if (!context)
        abort();
    *ret_doc = UVM_STEAL(doc);
    *ret_context = context;
    return true;
}

static xmlXPathObjectPtr evaluate(xmlXPathContextPtr context, const char *expression)
{
    xmlXPathObjectPtr found = xmlXPathEvalExpression(XML expression, context);
    if (!found)
        abort(); /* the expressions are ours */
    return found;
}

/* The text of the first node found; NULL without one. */
static char *first_text(xmlXPathContextPtr context, const char *expression)
{
    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr found = evaluate(context, expression);
    if (xmlXPathNodeSetIsEmpty(found->nodesetval))
        return NULL;
    xmlChar *text = xmlNodeGetContent(found->nodesetval->nodeTab[0]);
    char *copy = uvm_strdup((const char *)text);
    xmlFree(text);
    return copy;
}

bool pool_xml_store(const char *xml, char **ret_type, char **ret_path, struct uvm_error *err)
{
    UVM_AUTO(xmlFreeDoc) xmlDocPtr doc = NULL;
    UVM_AUTO(xmlXPathFreeContext) xmlXPathContextPtr context = NULL;
    if (!parse(xml, &doc, &context, err))
        return false;
    char *type = first_text(context, "/pool/@type");
    if (!type)
        return uvm_fail(err, UVM_LIBVIRT, "XML of libvirt: no type of pool");
    *ret_type = type;
    *ret_path = first_text(context, "/pool/target/path");
    return true;
}

/* ---- what a guest needs ---------------------------------------------------------------------- */

void pool_refs_clear(struct pool_refs *refs)
{
    for (size_t i = 0; i < refs->count; i++) {
        free(refs->items[i].path);
        free(refs->items[i].pool);
        free(refs->items[i].volume);
    }
    free(refs->items);
    *refs = (struct pool_refs){0};
}

static bool same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* Takes over the strings. */
static void add_ref(struct pool_refs *refs, struct pool_ref ref)
{
    for (size_t i = 0; i < refs->count; i++) {
        struct pool_ref *old = &refs->items[i];
        if (same(old->path, ref.path) && same(old->pool, ref.pool) &&
            same(old->volume, ref.volume)) {
            old->may_miss = old->may_miss && ref.may_miss;
            old->raw = old->raw && ref.raw;
            free(ref.path);
            free(ref.pool);
            free(ref.volume);
            return;
        }
    }
    ref.document = refs->document;
    refs->items = uvm_grow(refs->items, refs->count + 1, sizeof(*refs->items));
    refs->items[refs->count++] = ref;
}

static char *property(xmlNodePtr node, const char *name)
{
    xmlChar *value = xmlGetProp(node, XML name);
    char *copy = uvm_strdup((const char *)value);
    xmlFree(value);
    return copy;
}

/* Paths: attributes and elements whose text is one. @dir of a disk is a folder that QEMU shows as
 * FAT. */
#define DISK_PATHS                                                                                 \
    "//disk//source/@file | //disk//source/@dev | //disk//source/@dir | //disk//scratch/@file |"   \
    "//disk//scratch/@dev | //disk//mirror/@file | //disk//mirror/@dev | //disk/target/@file |"    \
    "/domainbackup//disk/target/@dev | //filesystem/source/@file | //filesystem/source/@dev"
#define BLOB_PATHS                                                                                 \
    "//os/kernel | //os/initrd | //os/dtb | //os/shim | //os/acpi/table | //sysinfo/entry/@file |" \
    "//devices//memory/source/path"
#define FIRMWARE_PATHS "//os/loader | //os/nvram/@template"
/* libvirt makes it from the template when the guest first starts. */
#define NVRAM_PATHS "//os/nvram[not(source)] | //os/nvram/source/@file | //os/nvram/source/@dev"
#define VOLUMES                                                                                    \
    "//disk//source[@volume] | //filesystem/source[@volume] | //os/nvram/source[@volume]"
/* <qemu:arg value='-drive'/>, <qemu:env value='...'/>: libvirt does not look at them. */
#define ARGUMENTS "//*[local-name() = 'commandline']/*/@value"
/* Raw on the network is a leaf; another format may name a backing file that is local. */
#define NETWORK                                                                                    \
    "//disk[@type='network'][driver/@type != 'raw'] |"                                             \
    "//disk//backingStore[@type='network'][format/@type != 'raw'] |"                               \
    "//disk//mirror[@type='network'][format/@type != 'raw']"

/* The property of the first child of that name. */
static char *child_property(xmlNodePtr parent, const char *child, const char *name)
{
    for (xmlNodePtr n = parent ? parent->children : NULL; n; n = n->next) {
        if (n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, child) == 0)
            return property(n, name);
    }
    return NULL;
}

static bool is_element(xmlNodePtr node, const char *name)
{
    return node && strcmp((const char *)node->name, name) == 0;
}

/* Whether the file that a <source> names is raw: a disk says so by <driver type='raw'/>, what stands
 * below it by <format type='raw'/>. */
static bool is_raw_source(xmlNodePtr source)
{
    if (!is_element(source, "source"))
        return false;
    bool top = is_element(source->parent, "disk");
    uvm_auto_free char *format = child_property(source->parent, top ? "driver" : "format", "type");
    return format && strcmp(format, "raw") == 0;
}

/* Whether the guest starts without the file when it is not there. */
static bool is_optional_source(xmlNodePtr source)
{
    uvm_auto_free char *policy = property(source, "startupPolicy");
    return policy && strcmp(policy, "optional") == 0 && is_raw_source(source);
}

static void add_disk_paths(xmlXPathContextPtr context, struct pool_refs *refs)
{
    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr found = evaluate(context, DISK_PATHS);
    for (int i = 0; found->nodesetval && i < found->nodesetval->nodeNr; i++) {
        xmlNodePtr attribute = found->nodesetval->nodeTab[i];
        xmlChar *text = xmlNodeGetContent(attribute);
        /* A path or one of QEMU's "json:" names. */
        if (text && *text)
            add_ref(refs, (struct pool_ref){.path = uvm_strdup((const char *)text),
                                            .may_miss = is_optional_source(attribute->parent),
                                            .raw = is_raw_source(attribute->parent)});
        xmlFree(text);
    }
}

/* What a guest boots from; a name that is no path ("hvmloader") is no file. */
static void add_paths(xmlXPathContextPtr context, const char *expression, struct pool_ref like,
                      struct pool_refs *refs)
{
    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr found = evaluate(context, expression);
    for (int i = 0; found->nodesetval && i < found->nodesetval->nodeNr; i++) {
        xmlChar *text = xmlNodeGetContent(found->nodesetval->nodeTab[i]);
        like.path = text && text[0] == '/' ? uvm_strdup((const char *)text) : NULL;
        if (like.path)
            add_ref(refs, like);
        xmlFree(text);
    }
}

static void add_volumes(xmlXPathContextPtr context, struct pool_refs *refs)
{
    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr found = evaluate(context, VOLUMES);
    for (int i = 0; found->nodesetval && i < found->nodesetval->nodeNr; i++) {
        xmlNodePtr node = found->nodesetval->nodeTab[i];
        char *pool = property(node, "pool");
        add_ref(refs, (struct pool_ref){.pool = pool ? pool : uvm_strdup(""),
                                        .volume = property(node, "volume"),
                                        .raw = is_raw_source(node)});
    }
}

/* "file=/a/b.qcow2,if=virtio", "{\"filename\":\"/a/b.qcow2\"}": every stretch from a slash to the
 * next character that ends a value. */
static void add_argument(const char *text, struct pool_refs *refs)
{
    for (const char *at = text; (at = strchr(at, '/'));) {
        size_t len = strcspn(at, ",\"' \t\n");
        if (at == text || strchr("=:,\"' \t\n", at[-1]))
            add_ref(refs, (struct pool_ref){.path = uvm_strndup(at, len), .may_miss = true});
        at += len;
    }
}

static void add_arguments(xmlXPathContextPtr context, struct pool_refs *refs)
{
    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr found = evaluate(context, ARGUMENTS);
    for (int i = 0; found->nodesetval && i < found->nodesetval->nodeNr; i++) {
        xmlChar *text = xmlNodeGetContent(found->nodesetval->nodeTab[i]);
        if (text)
            add_argument((const char *)text, refs);
        xmlFree(text);
    }
}

bool pool_refs_read(const char *xml, struct pool_refs *refs, struct uvm_strings *doubts,
                    struct uvm_error *err)
{
    UVM_AUTO(xmlFreeDoc) xmlDocPtr doc = NULL;
    UVM_AUTO(xmlXPathFreeContext) xmlXPathContextPtr context = NULL;
    if (!parse(xml, &doc, &context, err))
        return false;
    if (strncmp((const char *)xmlDocGetRootElement(doc)->name, "domain", strlen("domain")) != 0)
        return uvm_fail(err, UVM_LIBVIRT, "XML of libvirt: not about a guest");

    add_disk_paths(context, refs);
    add_volumes(context, refs);
    add_paths(context, BLOB_PATHS, (struct pool_ref){.raw = true}, refs);
    add_paths(context, FIRMWARE_PATHS, (struct pool_ref){0}, refs);
    add_paths(context, NVRAM_PATHS, (struct pool_ref){.may_miss = true}, refs);
    add_arguments(context, refs);

    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr network = evaluate(context, NETWORK);
    if (!xmlXPathNodeSetIsEmpty(network->nodesetval))
        uvm_strings_add(doubts,
                        "a disk on the network is not raw and may have a backing file here");
    return true;
}

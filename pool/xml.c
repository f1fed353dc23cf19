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

char *pool_xml_folder_pool(const char *name, const char *path, const char *mode)
{
    UVM_AUTO(xmlFreeDoc) xmlDocPtr doc = new_document();
    xmlNodePtr pool = add_root(doc, "pool");
    xmlNewProp(pool, XML "type", XML "dir");
    add(pool, "name", name);
    xmlNodePtr target = add(pool, "target", NULL);
    add(target, "path", path);
    add(add(target, "permissions", NULL), "mode", mode);
    return to_text(doc);
}

char *pool_xml_volume(const char *name, const char *format, uint64_t capacity)
{
    char number[24];
    snprintf(number, sizeof(number), "%" PRIu64, capacity);

    UVM_AUTO(xmlFreeDoc) xmlDocPtr doc = new_document();
    xmlNodePtr volume = add_root(doc, "volume");
    add(volume, "name", name);
    add(volume, "allocation", "0");
    add(volume, "capacity", number);
    xmlNodePtr target = add(volume, "target", NULL);
    xmlNewProp(add(target, "format", NULL), XML "type", XML format);
    if (strcmp(format, "qcow2") == 0)
        add(target, "compat", "1.1");
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
static void add_ref(struct pool_refs *refs, char *path, char *pool, char *volume, bool may_miss)
{
    for (size_t i = 0; i < refs->count; i++) {
        struct pool_ref *old = &refs->items[i];
        if (same(old->path, path) && same(old->pool, pool) && same(old->volume, volume)) {
            old->may_miss = old->may_miss && may_miss;
            free(path);
            free(pool);
            free(volume);
            return;
        }
    }
    refs->items = uvm_grow(refs->items, refs->count + 1, sizeof(*refs->items));
    refs->items[refs->count++] = (struct pool_ref){path, pool, volume, may_miss};
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
    "//filesystem/source/@file | //devices//memory/source/path"
#define BOOT_PATHS "//os/kernel | //os/initrd | //os/dtb | //os/loader | //os/nvram/@template"
/* libvirt makes it from the template when the guest first starts. */
#define NVRAM_PATHS "//os/nvram[not(source)] | //os/nvram/source/@file"
#define VOLUMES     "//disk//source[@volume] | //filesystem/source[@volume]"
/* Raw on the network is a leaf; another format may name a backing file that is local. */
#define NETWORK                                                                                    \
    "//disk[@type='network'][driver/@type != 'raw'] |"                                             \
    "//disk//backingStore[@type='network'][format/@type != 'raw'] |"                               \
    "//disk//mirror[@type='network'][format/@type != 'raw']"

/* What a disk names is a path or one of QEMU's "json:" names; elsewhere a name that is no path
 * ("hvmloader") is no file either. */
enum names { ANY_NAME, PATHS_ONLY, PATHS_THAT_MAY_MISS };

static void add_paths(xmlXPathContextPtr context, const char *expression, enum names names,
                      struct pool_refs *refs)
{
    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr found = evaluate(context, expression);
    for (int i = 0; found->nodesetval && i < found->nodesetval->nodeNr; i++) {
        xmlChar *text = xmlNodeGetContent(found->nodesetval->nodeTab[i]);
        if (text && *text && (text[0] == '/' || names == ANY_NAME))
            add_ref(refs, uvm_strdup((const char *)text), NULL, NULL, names == PATHS_THAT_MAY_MISS);
        xmlFree(text);
    }
}

static void add_volumes(xmlXPathContextPtr context, struct pool_refs *refs)
{
    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr found = evaluate(context, VOLUMES);
    for (int i = 0; found->nodesetval && i < found->nodesetval->nodeNr; i++) {
        xmlNodePtr node = found->nodesetval->nodeTab[i];
        char *pool = property(node, "pool");
        add_ref(refs, NULL, pool ? pool : uvm_strdup(""), property(node, "volume"), false);
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

    add_paths(context, DISK_PATHS, ANY_NAME, refs);
    add_volumes(context, refs);
    add_paths(context, BOOT_PATHS, PATHS_ONLY, refs);
    add_paths(context, NVRAM_PATHS, PATHS_THAT_MAY_MISS, refs);

    UVM_AUTO(xmlXPathFreeObject) xmlXPathObjectPtr network = evaluate(context, NETWORK);
    if (!xmlXPathNodeSetIsEmpty(network->nodesetval))
        uvm_strings_add(doubts,
                        "a disk on the network is not raw and may have a backing file here");
    return true;
}

/* test_use.c: which files a guest names. */
#include "pool/xml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* ---- what libvirt's XML names ---------------------------------------------------------------- */

/* The references of a document, one per line: "path", "path?" (may miss), "path!" (raw), "pool/volume"
 * with a colon. */
static char *refs_of(const char *xml, size_t *ret_doubts)
{
    pool_auto_refs refs = {0};
    uvm_auto_strings doubts = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    char *text = uvm_strdup("");
    if (!pool_refs_read(xml, &refs, &doubts, &err))
        fail_msg("%s", err.message);
    for (size_t i = 0; i < refs.count; i++) {
        const struct pool_ref *r = &refs.items[i];
        char *more = r->path ? uvm_format("%s%s%s%s\n", text, r->path, r->may_miss ? "?" : "",
                                          r->raw ? "!" : "")
                             : uvm_format("%s%s:%s\n", text, r->pool, r->volume);
        free(text);
        text = more;
    }
    *ret_doubts = doubts.count;
    return text;
}

static void expect_refs(const char *inside, const char *expected)
{
    size_t doubts = 0;
    uvm_auto_free char *xml = uvm_format("<domain type='kvm'><name>g</name>%s</domain>", inside);
    uvm_auto_free char *text = refs_of(xml, &doubts);
    assert_string_equal(text, expected);
    assert_int_equal(doubts, 0);
}

#define DEVICES(disks) "<devices>" disks "</devices>"

static void names_sources_of_every_kind_of_disk(void **state)
{
    (void)state;
    expect_refs(DEVICES("<disk type='file' device='disk'><source file='/a.qcow2'/>"
                        "<target dev='vda'/></disk>"),
                "/a.qcow2\n");
    expect_refs(DEVICES("<disk type='block' device='disk'><source dev='/dev/vg/lv'/></disk>"),
                "/dev/vg/lv\n");
    expect_refs(DEVICES("<disk type='dir' device='floppy'><source dir='/f'/></disk>"), "/f\n");
    expect_refs(DEVICES("<disk type='file' device='cdrom'><source file='/c.iso'/></disk>"
                        "<disk type='file' device='cdrom'><target dev='sdb'/></disk>"),
                "/c.iso\n");
    expect_refs(DEVICES("<disk type='volume'><source pool='p' volume='v'/></disk>"), "p:v\n");
    expect_refs(DEVICES("<disk type='network'><driver type='raw'/><source protocol='rbd' "
                        "name='pool/image'/></disk>"),
                "");
}

static void names_backing_stores_mirrors_and_data_stores(void **state)
{
    (void)state;
    expect_refs(
        DEVICES("<disk type='file'><source file='/top'><dataStore type='file'><format type='raw'/>"
                "<source file='/data'/></dataStore></source>"
                "<backingStore type='file'><format type='qcow2'/><source file='/mid'/>"
                "<backingStore type='volume'><format type='qcow2'/><source pool='p' volume='base'/>"
                "<backingStore/></backingStore></backingStore></disk>"),
        "/top\n/data!\n/mid\np:base\n");
    expect_refs(DEVICES("<disk type='file'><source file='/a'/><mirror type='file' file='/old' "
                        "job='copy'><format type='qcow2'/><source file='/new'/></mirror></disk>"),
                "/a\n/old\n/new\n");
    expect_refs(
        DEVICES("<disk type='file'><source file='/a'/><backingStore type='file'>"
                "<source file='json:{\"file\":{\"filename\":\"/b\"}}'/></backingStore></disk>"),
        "/a\njson:{\"file\":{\"filename\":\"/b\"}}\n");
}

static void names_what_a_guest_boots_from(void **state)
{
    (void)state;
    expect_refs("<os><loader type='pflash'>/fw.fd</loader><nvram template='/t.fd'>/vars.fd</nvram>"
                "<kernel>/k</kernel><initrd>/i</initrd></os>",
                "/k!\n/i!\n/fw.fd\n/t.fd\n/vars.fd?\n");
    expect_refs("<os><loader>hvmloader</loader><nvram type='file'><source file='/v'/></nvram></os>",
                "/v?\n");
}

static void names_what_qemu_is_given_past_libvirt(void **state)
{
    (void)state;
    expect_refs("<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
                "<q:arg value='-drive'/><q:arg value='file=/a/b=.qcow2,if=virtio'/>"
                "<q:arg value='{\"filename\":\"/c\"}'/><q:arg value='a/b'/><q:env name='X' "
                "value='/d'/></q:commandline>",
                "/a/b=.qcow2?\n/c?\n/d?\n");
}

static void tells_what_is_raw(void **state)
{
    (void)state;
    expect_refs(DEVICES("<disk type='file'><driver type='raw'/><source file='/a'/></disk>"
                        "<disk type='file'><driver type='qcow2'/><source file='/b'/>"
                        "<backingStore type='file'><format type='raw'/><source file='/c'/>"
                        "</backingStore></disk>"),
                "/a!\n/b\n/c!\n");
    /* Raw here, and something else there: then its header counts. */
    expect_refs(DEVICES("<disk type='file'><driver type='raw'/><source file='/a'/></disk>"
                        "<disk type='file'><driver type='qcow2'/><source file='/a'/></disk>"),
                "/a\n");
    expect_refs(DEVICES("<disk type='file' device='cdrom'><driver type='raw'/>"
                        "<source file='/i' startupPolicy='optional'/></disk>"),
                "/i?!\n");
}

static void names_files_of_snapshots_checkpoints_and_jobs(void **state)
{
    (void)state;
    size_t doubts = 0;
    uvm_auto_free char *snapshot = refs_of(
        "<domainsnapshot><disks><disk name='vda'><source file='/snap'/></disk></disks>"
        "<domain>" DEVICES(
            "<disk type='file'><source file='/then'/></disk>") "</domain>"
                                                               "<inactiveDomain>" DEVICES(
                                                                   "<disk type='file'><source "
                                                                   "file='/next'/></disk>") "</"
                                                                                            "inacti"
                                                                                            "veDoma"
                                                                                            "in></"
                                                                                            "domain"
                                                                                            "snapsh"
                                                                                            "ot>",
        &doubts);
    assert_string_equal(snapshot, "/snap\n/then\n/next\n");
    uvm_auto_free char *backup = refs_of(
        "<domainbackup mode='pull'><disks><disk name='vda' type='file'><scratch file='/s'/></disk>"
        "<disk name='vdb'><target file='/t'/></disk></disks></domainbackup>",
        &doubts);
    assert_string_equal(backup, "/s\n/t\n");
}

static void doubts_a_network_disk_that_is_not_raw(void **state)
{
    (void)state;
    static const char *const documents[] = {
        "<domain>" DEVICES("<disk type='network'><driver type='qcow2'/><source protocol='nbd'/>"
                           "</disk>") "</domain>",
        "<domain>" DEVICES(
            "<disk type='file'><source file='/a'/><backingStore type='network'>"
            "<format type='qcow2'/><source protocol='nbd'/></backingStore></disk>") "</domain>",
    };
    for (size_t i = 0; i < sizeof(documents) / sizeof(documents[0]); i++) {
        size_t doubts = 0;
        free(refs_of(documents[i], &doubts));
        assert_int_equal(doubts, 1);
    }
}

static void names_each_file_once(void **state)
{
    (void)state;
    expect_refs(
        DEVICES(
            "<disk><source file='/a'/></disk><disk><source file='/a'/></disk>") "<os><nvram>/a</"
                                                                                "nvram></os>",
        "/a\n");
}

static void refuses_what_is_no_such_document(void **state)
{
    (void)state;
    static const char *const documents[] = {
        "",
        "<domain>",
        "<network/>",
        ("<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><domain><os><kernel>/&x;"
         "</kernel></os></domain>"),
    };
    for (size_t i = 0; i < sizeof(documents) / sizeof(documents[0]); i++) {
        pool_auto_refs refs = {0};
        uvm_auto_strings doubts = {0};
        uvm_auto_error err = UVM_ERROR_INIT;
        assert_false(pool_refs_read(documents[i], &refs, &doubts, &err));
        assert_int_equal(err.code, UVM_LIBVIRT);
    }
}

static void escapes_names_that_go_in(void **state)
{
    (void)state;
    char *type = NULL;
    char *path = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *xml = pool_xml_folder_pool("a&b<c>", "/x/<&\">'");
    assert_true(pool_xml_store(xml, &type, &path, &err));
    assert_string_equal(type, "dir");
    assert_string_equal(path, "/x/<&\">'");
    assert_non_null(strstr(xml, "<name>a&amp;b&lt;c&gt;</name>"));
    free(type);
    free(path);
}

static void tells_remote_hosts(void **state)
{
    (void)state;
    assert_false(pool_xml_uri_is_remote("qemu:///system"));
    assert_false(pool_xml_uri_is_remote("qemu+unix:///session"));
    assert_false(pool_xml_uri_is_remote("qemu+tcp://localhost/system"));
    assert_true(pool_xml_uri_is_remote("qemu+ssh://root@hypervisor/system"));
    assert_true(pool_xml_uri_is_remote("qemu://hypervisor:16514/system"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_sources_of_every_kind_of_disk),
        cmocka_unit_test(names_backing_stores_mirrors_and_data_stores),
        cmocka_unit_test(names_what_a_guest_boots_from),
        cmocka_unit_test(names_what_qemu_is_given_past_libvirt),
        cmocka_unit_test(tells_what_is_raw),
        cmocka_unit_test(names_files_of_snapshots_checkpoints_and_jobs),
        cmocka_unit_test(doubts_a_network_disk_that_is_not_raw),
        cmocka_unit_test(names_each_file_once),
        cmocka_unit_test(refuses_what_is_no_such_document),
        cmocka_unit_test(escapes_names_that_go_in),
        cmocka_unit_test(tells_remote_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

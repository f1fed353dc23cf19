/* test_use.c: which files a guest names, and what these stand on. */
#include "pool/internal.h"
#include "pool/xml.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- what libvirt's XML names ---------------------------------------------------------------- */

/* The references of a document, one per line: "path", "path?" (may miss), "pool/volume" with a
 * colon. */
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
        char *more = r->path ? uvm_format("%s%s%s\n", text, r->path, r->may_miss ? "?" : "")
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
        "/top\n/data\n/mid\np:base\n");
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
                "/fw.fd\n/t.fd\n/k\n/i\n/vars.fd?\n");
    expect_refs("<os><loader>hvmloader</loader><nvram type='file'><source file='/v'/></nvram></os>",
                "/v?\n");
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
    uvm_auto_free char *xml = pool_xml_folder_pool("a&b<c>", "/x/<&\">'", "0755");
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

/* ---- what files stand on --------------------------------------------------------------------- */

static int enter_folder(void **state)
{
    char dir[] = "/tmp/test_use.XXXXXX";
    *state = mkdtemp(dir) ? uvm_strdup(dir) : NULL;
    return *state && chdir(dir) == 0 ? 0 : -1;
}

static int leave_folder(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = chdir("/") == 0 && uvm_remove_tree(*state, &err);
    free(*state);
    return ok ? 0 : -1;
}

static void put32(unsigned char *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, sizeof(value));
}

/* A qcow2 header of version 2 with the name of a backing file behind it; NULL: none. */
static void make_qcow2(const char *name, const char *backing)
{
    unsigned char head[2048] = "QFI\xfb";
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    put32(head + 4, 2);
    if (backing) {
        assert_true(strlen(backing) < 1024);
        put32(head + 12, 512);
        put32(head + 16, (uint32_t)strlen(backing));
        memcpy(head + 512, backing, strlen(backing));
    }
    put32(head + 20, 16);
    assert_int_equal(fwrite(head, 1, sizeof(head), f), sizeof(head));
    assert_int_equal(fclose(f), 0);
}

static char *full(void **state, const char *name)
{
    return uvm_format("%s/%s", (char *)*state, name);
}

static size_t add(struct pool_chains *c, void **state, const char *name, struct uvm_strings *doubts)
{
    size_t node = SIZE_MAX;
    uvm_auto_free char *path = full(state, name);
    pool_chains_add(c, path, POOL_MISSING_IS_DOUBT, "guest g", doubts, &node);
    return node;
}

static void follows_every_kind_of_name(void **state)
{
    static const char *const forms[] = {
        "base.qcow2",
        "./base.qcow2",
        "%s/base.qcow2",
        "file:%s/base.qcow2",
        "json:{\"file.filename\":\"%s/base.qcow2\"}",
        ("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"%s//"
         "base.qcow2\"}}"),
    };
    make_qcow2("base.qcow2", NULL);
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        pool_auto_chains c = {0};
        uvm_auto_strings doubts = {0};
        char backing[1024];
        const char *hole = strstr(forms[i], "%s");
        pool_chains_init(&c);
        if (hole)
            snprintf(backing, sizeof(backing), "%.*s%s%s", (int)(hole - forms[i]), forms[i],
                     (char *)*state, hole + 2);
        else
            snprintf(backing, sizeof(backing), "%s", forms[i]);
        make_qcow2("top.qcow2", backing);
        size_t base = add(&c, state, "base.qcow2", &doubts);
        size_t top = add(&c, state, "top.qcow2", &doubts);
        pool_chains_mark_guest(&c, top, "g", 1);
        assert_int_equal(doubts.count, 0);
        assert_int_equal(c.nodes[base].users.count, 1);
        assert_string_equal(c.nodes[base].users.items[0], "guest g through top.qcow2");
        assert_string_equal(c.nodes[top].users.items[0], "guest g");
    }
}

static void doubts_names_that_it_cannot_follow(void **state)
{
    static const char *const names[] = {
        "nbd://host/x",
        "nbd:unix:/x",
        "json:{\"driver\":\"nbd\"}",
        "json:{",
        "gone.qcow2",
        "fifo",
        "/dev/fd/../nothing/here",
        "file:rel",
        "json:{\"file.filename\":\"rel\"}",
        /* These set a backing or data file of their own, whatever the header says. */
        "json:{\"file.filename\":\"/dev/null\",\"backing.file.filename\":\"/b\"}",
        "json:{\"file\":{\"filename\":\"/dev/null\"},\"backing\":{\"file\":{\"filename\":\"/b\"}}}",
        "json:{\"file.filename\":\"/dev/null\",\"data-file.filename\":\"/b\"}",
    };
    assert_int_equal(mkfifo("fifo", 0600), 0);
    make_qcow2("rel", NULL);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        pool_auto_chains c = {0};
        uvm_auto_strings doubts = {0};
        pool_chains_init(&c);
        make_qcow2("top.qcow2", names[i]);
        add(&c, state, "top.qcow2", &doubts);
        assert_int_equal(doubts.count, 1);
        assert_non_null(strstr(doubts.items[0], "guest g: "));
    }
}

static void knows_a_file_by_identity(void **state)
{
    pool_auto_chains c = {0};
    uvm_auto_strings doubts = {0};
    pool_chains_init(&c);
    make_qcow2("base.qcow2", NULL);
    assert_int_equal(mkdir("sub", 0700), 0);
    assert_int_equal(symlink("../base.qcow2", "sub/link"), 0);
    assert_int_equal(link("base.qcow2", "hard"), 0);
    size_t base = add(&c, state, "base.qcow2", &doubts);
    assert_int_equal(add(&c, state, "/sub/..//base.qcow2", &doubts), base);
    assert_int_equal(add(&c, state, "sub/link", &doubts), base);
    assert_int_equal(add(&c, state, "hard", &doubts), base);
    assert_int_equal(doubts.count, 0);
}

/* QEMU takes a relative name from the folder in which it found the overlay, which for a link is the
 * link's. */
static void takes_relative_names_from_where_it_came(void **state)
{
    pool_auto_chains c = {0};
    uvm_auto_strings doubts = {0};
    pool_chains_init(&c);
    assert_int_equal(mkdir("a", 0700), 0);
    assert_int_equal(mkdir("b", 0700), 0);
    make_qcow2("a/base.qcow2", NULL);
    make_qcow2("b/base.qcow2", NULL);
    make_qcow2("a/top.qcow2", "base.qcow2");
    assert_int_equal(symlink("../a/top.qcow2", "b/top.qcow2"), 0);
    size_t one = add(&c, state, "a/base.qcow2", &doubts);
    size_t two = add(&c, state, "b/base.qcow2", &doubts);
    add(&c, state, "a/top.qcow2", &doubts);
    size_t top = add(&c, state, "b/top.qcow2", &doubts);
    pool_chains_mark_guest(&c, top, "g", 1);
    assert_int_equal(c.nodes[one].users.count, 1);
    assert_int_equal(c.nodes[two].users.count, 1);
}

static void ends_in_loops_and_deep_chains(void **state)
{
    pool_auto_chains c = {0};
    uvm_auto_strings doubts = {0};
    pool_chains_init(&c);
    make_qcow2("a", "b");
    make_qcow2("b", "a");
    size_t a = add(&c, state, "a", &doubts);
    pool_chains_mark_guest(&c, a, "g", 1);
    assert_true(doubts.count > 0); /* relative names do not end by identity */

    uvm_strings_clear(&doubts);
    for (unsigned i = 0; i < POOL_CHAIN_DEPTH_MAX + 10; i++) {
        uvm_auto_free char *name = uvm_format("deep%u", i);
        uvm_auto_free char *below = full(state, "");
        uvm_auto_free char *next = uvm_format("%sdeep%u", below, i + 1);
        make_qcow2(name, next);
    }
    add(&c, state, "deep0", &doubts);
    assert_int_equal(doubts.count, 1);
}

static void a_volume_keeps_its_base_down_to_the_next_volume(void **state)
{
    pool_auto_chains c = {0};
    uvm_auto_strings doubts = {0};
    pool_chains_init(&c);
    make_qcow2("base", NULL);
    make_qcow2("mid", "base");    /* a volume too */
    make_qcow2("outside", "mid"); /* in no pool */
    make_qcow2("top", "outside");
    size_t base = add(&c, state, "base", &doubts);
    size_t mid = add(&c, state, "mid", &doubts);
    size_t top = add(&c, state, "top", &doubts);
    c.nodes[base].volume = c.nodes[mid].volume = c.nodes[top].volume = true;
    pool_chains_mark_volume(&c, top, "volume top in pool p", 1);
    assert_int_equal(c.nodes[mid].users.count, 1);
    assert_int_equal(c.nodes[base].users.count, 0);
    pool_chains_mark_volume(&c, mid, "volume mid in pool p", 2);
    assert_int_equal(c.nodes[base].users.count, 1);
    assert_int_equal(doubts.count, 0);
}

/* Chains that were added from the bottom up are together longer than one may be. */
static void marks_a_chain_of_any_length(void **state)
{
    enum { LENGTH = 200000 };
    (void)state;
    pool_auto_chains c = {0};
    pool_chains_init(&c);
    c.nodes = uvm_alloc(LENGTH * sizeof(*c.nodes));
    for (c.count = 0; c.count < LENGTH; c.count++) {
        struct pool_node *node = &c.nodes[c.count];
        node->path = uvm_strdup("/x");
        node->next_count = c.count + 1 < LENGTH;
        node->next = uvm_alloc(sizeof(*node->next));
        node->next[0] = c.count + 1;
    }
    pool_chains_mark_guest(&c, 0, "g", 1);
    assert_int_equal(c.nodes[LENGTH - 1].users.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_sources_of_every_kind_of_disk),
        cmocka_unit_test(names_backing_stores_mirrors_and_data_stores),
        cmocka_unit_test(names_what_a_guest_boots_from),
        cmocka_unit_test(names_files_of_snapshots_checkpoints_and_jobs),
        cmocka_unit_test(doubts_a_network_disk_that_is_not_raw),
        cmocka_unit_test(names_each_file_once),
        cmocka_unit_test(refuses_what_is_no_such_document),
        cmocka_unit_test(escapes_names_that_go_in),
        cmocka_unit_test(tells_remote_hosts),
        cmocka_unit_test_setup_teardown(follows_every_kind_of_name, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(doubts_names_that_it_cannot_follow, enter_folder,
                                        leave_folder),
        cmocka_unit_test_setup_teardown(knows_a_file_by_identity, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(takes_relative_names_from_where_it_came, enter_folder,
                                        leave_folder),
        cmocka_unit_test_setup_teardown(ends_in_loops_and_deep_chains, enter_folder, leave_folder),
        cmocka_unit_test(marks_a_chain_of_any_length),
        cmocka_unit_test_setup_teardown(a_volume_keeps_its_base_down_to_the_next_volume,
                                        enter_folder, leave_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

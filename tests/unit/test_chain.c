/* test_chain.c: what files stand on, who needs them, and what is told of that. */
#include "pool/chain.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "own_folder.h"

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

/* Adds a file of the folder, or of any place when the name is a full path. */
static size_t add(struct pool_chains *c, void **state, const char *name)
{
    size_t node = SIZE_MAX;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = full(state, name);
    if (!pool_chains_add(c, path, &node, &err))
        fail_msg("%s", err.message);
    return node;
}

struct lists {
    struct uvm_strings doubts, overlooked;
};
static void lists_clear(struct lists *l)
{
    uvm_strings_clear(&l->doubts);
    uvm_strings_clear(&l->overlooked);
}
#define auto_lists __attribute__((cleanup(lists_clear))) struct lists

static void use_as(struct pool_chains *c, size_t node, enum pool_belief belief, struct lists *l)
{
    const struct pool_told told = {&l->doubts, &l->overlooked, false};
    const struct pool_need need = {node, pool_chains_user(c, "guest g"), belief, false};
    pool_chains_use_guest(c, &need, 1, &told);
}

static void use(struct pool_chains *c, size_t node, struct lists *l)
{
    use_as(c, node, POOL_TRUSTED, l);
}

/* What is told of the only one who uses the file. */
static void expect_user(const struct pool_chains *c, size_t node, const char *expected)
{
    assert_int_equal(c->nodes[node].use_count, 1);
    uvm_auto_free char *text = pool_chains_tell(c, c->nodes[node].uses[0]);
    assert_string_equal(text, expected);
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
        auto_lists l = {0};
        char backing[1024];
        const char *hole = strstr(forms[i], "%s");
        pool_chains_init(&c);
        if (hole)
            snprintf(backing, sizeof(backing), "%.*s%s%s", (int)(hole - forms[i]), forms[i],
                     (char *)*state, hole + 2);
        else
            snprintf(backing, sizeof(backing), "%s", forms[i]);
        make_qcow2("top.qcow2", backing);
        size_t base = add(&c, state, "base.qcow2");
        size_t top = add(&c, state, "top.qcow2");
        use(&c, top, &l);
        assert_int_equal(l.doubts.count, 0);
        expect_user(&c, base, "guest g through top.qcow2");
        expect_user(&c, top, "guest g");
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
        auto_lists l = {0};
        pool_chains_init(&c);
        make_qcow2("top.qcow2", names[i]);
        use(&c, add(&c, state, "top.qcow2"), &l);
        assert_int_equal(l.doubts.count, 1);
        assert_non_null(strstr(l.doubts.items[0], "guest g"));
        assert_int_equal(l.overlooked.count, 0);
    }
}

/* What a guest writes into its raw disk keeps what is there, and no more. */
static void takes_a_raw_disk_at_its_guests_word_only(void **state)
{
    pool_auto_chains c = {0};
    auto_lists l = {0};
    pool_chains_init(&c);
    make_qcow2("base", NULL);
    make_qcow2("mid", "gone");
    make_qcow2("to-base", "base");
    make_qcow2("to-mid", "mid");
    size_t base = add(&c, state, "base"), mid = add(&c, state, "mid");
    size_t to_base = add(&c, state, "to-base"), to_mid = add(&c, state, "to-mid");
    use_as(&c, to_base, POOL_RAW, &l);
    use_as(&c, to_mid, POOL_RAW, &l);
    assert_int_equal(l.doubts.count, 0);
    assert_int_equal(l.overlooked.count, 1);
    expect_user(&c, base, "guest g through to-base (as the content of a raw disk says)");
    /* A volume that only such content names is looked at on its own account. */
    assert_true(c.nodes[to_mid].guest);
    assert_false(c.nodes[mid].guest);
    /* The same file for a guest that reads it as what it says it is. */
    use(&c, to_mid, &l);
    assert_int_equal(l.doubts.count, 1);
    /* A raw disk that cannot be read may be anything. */
    use_as(&c, add(&c, state, "nothing"), POOL_RAW, &l);
    assert_int_equal(l.doubts.count, 2);
}

static void overlooks_what_an_ignored_guest_needs(void **state)
{
    pool_auto_chains c = {0};
    auto_lists l = {0};
    const struct pool_told ignored = {&l.doubts, &l.overlooked, true};
    pool_chains_init(&c);
    make_qcow2("base", NULL);
    make_qcow2("top", "base");
    make_qcow2("broken", "gone");
    size_t base = add(&c, state, "base"), broken = add(&c, state, "broken");
    const struct pool_need needs[] = {
        {add(&c, state, "top"), pool_chains_user(&c, "guest old"), POOL_TRUSTED, false},
        {broken, 0, POOL_TRUSTED, false},
    };
    pool_chains_use_guest(&c, needs, 2, &ignored);
    assert_int_equal(l.doubts.count, 0);
    assert_int_equal(l.overlooked.count, 1);
    expect_user(&c, base, "guest old through top"); /* what can be read keeps what it needs */
    use(&c, broken, &l);
    assert_int_equal(l.doubts.count, 1); /* for another guest it counts */
}

/* Version 3, with the content in another file. */
static void make_with_data_file(const char *name, const char *data)
{
    unsigned char head[512] = "QFI\xfb";
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    put32(head + 4, 3);
    put32(head + 20, 16);
    put32(head + 76, 1 << 2);
    put32(head + 100, 104);
    put32(head + 104, 0x6803f857); /* another extension, of 3 bytes, is passed over */
    put32(head + 108, 3);
    put32(head + 120, 0x44415441);
    put32(head + 124, data ? (uint32_t)strlen(data) : 0);
    if (data)
        memcpy(head + 128, data, strlen(data));
    assert_int_equal(fwrite(head, 1, sizeof(head), f), sizeof(head));
    assert_int_equal(fclose(f), 0);
}

static void follows_data_files(void **state)
{
    pool_auto_chains c = {0};
    auto_lists l = {0};
    pool_chains_init(&c);
    make_qcow2("data", "nbd:forged"); /* raw: what its guest writes there says nothing */
    make_with_data_file("top", "data");
    make_with_data_file("nameless", NULL);
    size_t data = add(&c, state, "data");
    use(&c, add(&c, state, "top"), &l);
    expect_user(&c, data, "guest g through top");
    assert_int_equal(l.doubts.count, 0);
    assert_int_equal(l.overlooked.count, 1);
    use(&c, add(&c, state, "nameless"), &l);
    assert_int_equal(l.doubts.count, 1);
}

static void knows_a_file_by_identity(void **state)
{
    pool_auto_chains c = {0};
    auto_lists l = {0};
    pool_chains_init(&c);
    make_qcow2("base.qcow2", NULL);
    assert_int_equal(mkdir("sub", 0700), 0);
    assert_int_equal(symlink("../base.qcow2", "sub/link"), 0);
    assert_int_equal(link("base.qcow2", "hard"), 0);
    size_t base = add(&c, state, "base.qcow2");
    assert_int_equal(add(&c, state, "/sub/..//base.qcow2"), base);
    assert_int_equal(add(&c, state, "sub/link"), base);
    assert_int_equal(add(&c, state, "hard"), base);
    assert_int_equal(l.doubts.count, 0);
}

/* QEMU takes a relative name from the folder in which it found the overlay, which for a link is the
 * link's. */
static void takes_relative_names_from_where_it_came(void **state)
{
    pool_auto_chains c = {0};
    auto_lists l = {0};
    pool_chains_init(&c);
    assert_int_equal(mkdir("a", 0700), 0);
    assert_int_equal(mkdir("b", 0700), 0);
    make_qcow2("a/base.qcow2", NULL);
    make_qcow2("b/base.qcow2", NULL);
    make_qcow2("a/top.qcow2", "base.qcow2");
    assert_int_equal(symlink("../a/top.qcow2", "b/top.qcow2"), 0);
    size_t one = add(&c, state, "a/base.qcow2");
    size_t two = add(&c, state, "b/base.qcow2");
    add(&c, state, "a/top.qcow2");
    size_t top = add(&c, state, "b/top.qcow2");
    use(&c, top, &l);
    assert_int_equal(c.nodes[one].use_count, 1);
    assert_int_equal(c.nodes[two].use_count, 1);
}

static void ends_in_loops_and_deep_chains(void **state)
{
    pool_auto_chains c = {0};
    auto_lists l = {0};
    pool_chains_init(&c);
    make_qcow2("a", "b");
    make_qcow2("b", "a");
    size_t a = add(&c, state, "a");
    use(&c, a, &l);
    assert_true(l.doubts.count > 0); /* relative names do not end by identity */

    uvm_strings_clear(&l.doubts);
    for (unsigned i = 0; i < POOL_CHAIN_DEPTH_MAX + 10; i++) {
        uvm_auto_free char *name = uvm_format("deep%u", i);
        uvm_auto_free char *below = full(state, "");
        uvm_auto_free char *next = uvm_format("%sdeep%u", below, i + 1);
        make_qcow2(name, next);
    }
    use(&c, add(&c, state, "deep0"), &l);
    assert_int_equal(l.doubts.count, 1);
}

static void a_volume_keeps_its_base_down_to_the_next_volume(void **state)
{
    pool_auto_chains c = {0};
    auto_lists l = {0};
    pool_chains_init(&c);
    make_qcow2("base", NULL);
    make_qcow2("mid", "base");    /* a volume too */
    make_qcow2("outside", "mid"); /* in no pool */
    make_qcow2("top", "outside");
    size_t base = add(&c, state, "base");
    size_t mid = add(&c, state, "mid");
    size_t top = add(&c, state, "top");
    c.nodes[base].volume = c.nodes[mid].volume = c.nodes[top].volume = true;
    const struct pool_told told = {&l.doubts, &l.overlooked, false};
    pool_chains_use_volume(&c, top, "volume top in pool p", &told);
    assert_int_equal(c.nodes[top].use_count, 0); /* it does not keep itself */
    expect_user(&c, mid, "volume top in pool p through outside");
    assert_int_equal(c.nodes[base].use_count, 0);
    pool_chains_use_volume(&c, mid, "volume mid in pool p", &told);
    expect_user(&c, base, "volume mid in pool p");
    assert_int_equal(l.doubts.count, 0);
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
        node->link_count = c.count + 1 < LENGTH;
        node->links = uvm_alloc(sizeof(*node->links));
        node->links[0] = (struct pool_link){c.count + 1, POOL_LINK_BACKING};
    }
    auto_lists l = {0};
    use(&c, 0, &l);
    expect_user(&c, LENGTH - 1, "guest g through x -> x -> x -> ... -> x -> x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(follows_every_kind_of_name, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(doubts_names_that_it_cannot_follow, enter_folder,
                                        leave_folder),
        cmocka_unit_test_setup_teardown(takes_a_raw_disk_at_its_guests_word_only, enter_folder,
                                        leave_folder),
        cmocka_unit_test_setup_teardown(overlooks_what_an_ignored_guest_needs, enter_folder,
                                        leave_folder),
        cmocka_unit_test_setup_teardown(follows_data_files, enter_folder, leave_folder),
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

/*
 * bundle/: one that is damaged in a single place, through the whole reader: every truncation at 4 KiB, and
 * every bit of the first 64 KiB (UVM_TEST_THOROUGH; else some of each).
 *
 * The verdict on a signature is GnuPG's own, and asked for once for the same bytes: half a million runs of
 * it would take a day.
 */
#define SIZE_A ((size_t)72 << 10)
#include "bundle_world.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>

#define FLIPPED_MAX   ((size_t)64 << 10)
#define STEP          ((size_t)4 << 10)
#define VERDICTS_MAX  1000
#define PROCESSES_MAX 16

/* ---- GnuPG's memory ---- */

struct verdict {
    char asked[UVM_DIGEST_HEX_MAX];
    enum uvm_code code;
    char *message;
    struct uvm_signature sig;
};
static struct verdict verdicts[VERDICTS_MAX];
static size_t verdict_count, asked_count;

bool __real_uvm_verifier_detached(struct uvm_verifier *v, const void *data, size_t len,
                                  const void *sig, size_t sig_len, struct uvm_signature *ret_sig,
                                  struct uvm_error *err);
bool __wrap_uvm_verifier_detached(struct uvm_verifier *v, const void *data, size_t len,
                                  const void *sig, size_t sig_len, struct uvm_signature *ret_sig,
                                  struct uvm_error *err);

/* One name for data and signature; their lengths keep them apart. */
static void name_question(const void *data, size_t len, const void *sig, size_t sig_len,
                          char hex[UVM_DIGEST_HEX_MAX])
{
    UVM_AUTO(uvm_digest_free) struct uvm_digest *d = uvm_digest_new(UVM_SHA256);
    uvm_digest_update(d, &len, sizeof len);
    uvm_digest_update(d, data, len);
    uvm_digest_update(d, sig, sig_len);
    uvm_digest_finish(d, hex);
}

static const struct verdict *ask(struct uvm_verifier *v, const void *data, size_t len,
                                 const void *sig, size_t sig_len)
{
    char asked[UVM_DIGEST_HEX_MAX];
    uvm_auto_error err = UVM_ERROR_INIT;
    name_question(data, len, sig, sig_len, asked);
    asked_count++;
    for (size_t i = 0; i < verdict_count; i++)
        if (strcmp(verdicts[i].asked, asked) == 0)
            return &verdicts[i];
    assert_in_range(verdict_count, 0, VERDICTS_MAX - 1);
    struct verdict *made = &verdicts[verdict_count++];
    memcpy(made->asked, asked, sizeof asked);
    __real_uvm_verifier_detached(v, data, len, sig, sig_len, &made->sig, &err);
    made->code = err.code;
    made->message = UVM_STEAL(err.message);
    return made;
}

bool __wrap_uvm_verifier_detached(struct uvm_verifier *v, const void *data, size_t len,
                                  const void *sig, size_t sig_len, struct uvm_signature *ret_sig,
                                  struct uvm_error *err)
{
    const struct verdict *verdict = ask(v, data, len, sig, sig_len);
    if (verdict->code != UVM_OK)
        return uvm_fail(err, verdict->code, "%s", verdict->message);
    *ret_sig = verdict->sig;
    ret_sig->user_id = uvm_strdup(verdict->sig.user_id);
    return true;
}

static int forget(void **state)
{
    for (size_t i = 0; i < verdict_count; i++) {
        free(verdicts[i].message);
        uvm_signature_clear(&verdicts[i].sig);
    }
    return tear_down(state);
}

/* ---- damage ---- */

/* The good bundle, in memory; `path` is how the reader finds it. */
struct copy {
    int fd;
    char path[32];
};

static struct copy make_copy(void)
{
    struct copy copy = {.fd = memfd_create("bundle", MFD_CLOEXEC)};
    assert_int_equal(write(copy.fd, all.good.data, all.good.len), all.good.len);
    snprintf(copy.path, sizeof copy.path, "/proc/self/fd/%d", copy.fd);
    return copy;
}

static bool is_refusal(enum uvm_code code)
{
    return code == UVM_TRUST || code == UVM_CONTENT;
}

static bool is_thorough(void)
{
    return getenv("UVM_TEST_THOROUGH") != NULL;
}

static void test_truncated_at_every_4_kib(void **state)
{
    (void)state;
    struct copy copy = make_copy();
    assert_int_equal(verify_as(copy.path, all.trust_site, NULL), UVM_OK);
    for (size_t len = all.good.len / STEP * STEP;; len -= STEP) {
        uvm_auto_free char *message = NULL;
        assert_int_equal(ftruncate(copy.fd, (off_t)len), 0);
        enum uvm_code code = verify_as(copy.path, all.trust_site, &message);
        if (!is_refusal(code))
            fail_msg("cut at %zu: code %d, %s", len, code, message);
        if (len == 0)
            break;
    }
    close(copy.fd);
}

static void flip(const struct copy *copy, size_t bit)
{
    char flipped = (char)(all.good.data[bit / 8] ^ 1 << bit % 8);
    assert_int_equal(pwrite(copy->fd, &flipped, 1, (off_t)(bit / 8)), 1);
}

static void mend(const struct copy *copy, size_t bit)
{
    assert_int_equal(pwrite(copy->fd, &all.good.data[bit / 8], 1, (off_t)(bit / 8)), 1);
}

/* Every bit of the frames' heads; of the rest one in so many, of each of a byte's places in turn. */
static size_t next_bit(size_t bit)
{
    static const size_t stride = 397;
    size_t second = ZSTD_findFrameCompressedSize(all.good.data, all.good.len) * 8;
    bool head = bit < 128 || (bit >= second && bit < second + 128);
    size_t next = bit + (head || is_thorough() ? 1 : stride);
    return bit < second && next > second ? second : next;
}

/* The share of one of several processes. Returns how many bits it flipped; 0 when one does no harm. */
static size_t flip_share(size_t number, size_t processes)
{
    struct copy copy = make_copy();
    size_t turn = 0, flipped = 0;
    for (size_t bit = 0; bit < FLIPPED_MAX * 8; bit = next_bit(bit)) {
        if (turn++ % processes != number)
            continue;
        uvm_auto_free char *message = NULL;
        flip(&copy, bit);
        enum uvm_code code = verify_as(copy.path, all.trust_site, &message);
        mend(&copy, bit);
        flipped++;
        if (!is_refusal(code)) {
            print_error("bit %zu of byte %zu: code %d, %s\n", bit % 8, bit / 8, code, message);
            return 0;
        }
    }
    return verify_as(copy.path, all.trust_site, NULL) == UVM_OK ? flipped : 0;
}

static pid_t start_share(size_t number, size_t processes)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(flip_share(number, processes) > 0 ? 0 : 1);
    return pid;
}

static void test_a_flipped_bit(void **state)
{
    (void)state;
    pid_t shares[PROCESSES_MAX];
    size_t count = (size_t)get_nprocs() < PROCESSES_MAX ? (size_t)get_nprocs() : PROCESSES_MAX;
    int failed = 0, status = 0;
    assert_in_range(all.good.len, FLIPPED_MAX, SIZE_MAX);
    for (size_t i = 0; i < count; i++)
        shares[i] = start_share(i, count);
    for (size_t i = 0; i < count; i++)
        failed += waitpid(shares[i], &status, 0) != shares[i] || status != 0;
    assert_int_equal(failed, 0);
}

/* What was refused was not refused for want of an answer. */
static void test_gnupg_was_asked(void **state)
{
    (void)state;
    assert_in_range(verdict_count, 1, VERDICTS_MAX);
    assert_in_range(asked_count, verdict_count + 1, SIZE_MAX);
    assert_int_equal(verdicts[0].code, UVM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated_at_every_4_kib),
        cmocka_unit_test(test_a_flipped_bit),
        cmocka_unit_test(test_gnupg_was_asked),
    };
    return cmocka_run_group_tests(tests, set_up, forget);
}

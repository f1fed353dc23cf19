/* mirror/base/lanes.c: jobs that are done in any order come out in theirs. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "mirror/base/base.h"

struct job {
    unsigned number, squared;
    char *held;
};

/* What the callbacks are told, and saw. */
struct row {
    unsigned jobs;
    unsigned take_fails, work_fails; /* at this one; 0 = none */
    bool uneven;                     /* some take longer */
    unsigned next;                   /* `take` alone */
    atomic_int taking, cleared, worked;
    atomic_uint uses; /* jobs that had been used before */
};

static bool take(void *opaque, void *job_, bool *ret_end, struct uvm_error *err)
{
    struct row *row = opaque;
    struct job *job = job_;
    if (atomic_fetch_add(&row->taking, 1) != 0)
        abort();
    unsigned number = ++row->next;
    *ret_end = number > row->jobs;
    job->number = number;
    sched_yield();
    atomic_fetch_sub(&row->taking, 1);
    if (number == row->take_fails)
        return uvm_fail(err, UVM_SOURCE, "take %u", number);
    return true;
}

static bool work(void *opaque, void *job_, struct uvm_error *err)
{
    struct row *row = opaque;
    struct job *job = job_;
    atomic_fetch_add(&row->worked, 1);
    if (job->held)
        atomic_fetch_add(&row->uses, 1);
    else
        job->held = uvm_strdup("held");
    if (row->uneven && job->number % 3 == 0)
        nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
    if (job->number == row->work_fails) {
        uvm_fail(err, UVM_CONTENT, "work %u", job->number);
        err->sys_errno = 7;
        return false;
    }
    job->squared = job->number * job->number;
    return true;
}

static void clear(void *opaque, void *job_)
{
    struct row *row = opaque;
    struct job *job = job_;
    free(job->held);
    atomic_fetch_add(&row->cleared, 1);
}

static struct uvm_lanes *new_lanes(struct row *row)
{
    return uvm_lanes_new(&(struct uvm_lanes_options){
        .job_size = sizeof(struct job),
        .take = take,
        .work = work,
        .clear = clear,
        .opaque = row,
    });
}

/* How many jobs come out, in order, before the end or an error. */
static unsigned drain(struct uvm_lanes *l, struct uvm_error *err)
{
    for (unsigned n = 0;; n++) {
        void *job_ = NULL;
        if (!uvm_lanes_next(l, &job_, err) || !job_)
            return n;
        const struct job *job = job_;
        assert_int_equal(job->number, n + 1);
        assert_int_equal(job->squared, (n + 1) * (n + 1));
    }
}

static void test_results_come_in_order(void **state)
{
    (void)state;
    for (unsigned jobs = 0; jobs < 40; jobs++) {
        struct row row = {.jobs = jobs, .uneven = true};
        uvm_auto_error err = UVM_ERROR_INIT;
        struct uvm_lanes *l = new_lanes(&row);
        assert_int_equal(drain(l, &err), jobs);
        assert_int_equal(err.code, UVM_OK);
        assert_int_equal(drain(l, &err), 0); /* the end stays the end */
        uvm_lanes_free(l);
        assert_int_equal(row.worked, jobs);
    }
}

static void test_many_jobs_in_little_memory(void **state)
{
    (void)state;
    struct row row = {.jobs = 20000};
    uvm_auto_error err = UVM_ERROR_INIT;
    struct uvm_lanes *l = new_lanes(&row);
    assert_int_equal(drain(l, &err), 20000);
    uvm_lanes_free(l);
    assert_true(row.cleared <= 2 * UVM_LANES_MAX + 1);
    assert_true(row.uses >= 20000 - (unsigned)row.cleared);
}

/* Nobody asks: no more is taken than there is room for. */
static void test_what_is_not_fetched_is_not_taken(void **state)
{
    (void)state;
    struct row row = {.jobs = 20000};
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(uvm_lanes_free) struct uvm_lanes *l = new_lanes(&row);
    void *first = NULL;
    assert_true(uvm_lanes_next(l, &first, &err));
    for (int i = 0; i < 20; i++)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    assert_int_equal(((struct job *)first)->number, 1); /* still ours */
    assert_true(row.worked <= 2 * UVM_LANES_MAX + 1);
}

static void check_error(struct row *row, unsigned before, enum uvm_code code, const char *message)
{
    UVM_AUTO(uvm_lanes_free) struct uvm_lanes *l = new_lanes(row);
    for (int round = 0; round < 2; round++) { /* and again, for who did not hear */
        uvm_auto_error err = UVM_ERROR_INIT;
        assert_int_equal(drain(l, &err), round == 0 ? before : 0);
        assert_int_equal(err.code, code);
        assert_string_equal(err.message, message);
        assert_int_equal(err.sys_errno, code == UVM_CONTENT ? 7 : 0);
    }
}

static void test_an_error_comes_in_its_turn(void **state)
{
    (void)state;
    for (unsigned at = 1; at < 30; at++) {
        uvm_auto_free char *in_work = uvm_format("work %u", at);
        uvm_auto_free char *in_take = uvm_format("take %u", at);
        check_error(&(struct row){.jobs = 100, .work_fails = at, .uneven = true}, at - 1,
                    UVM_CONTENT, in_work);
        check_error(&(struct row){.jobs = 100, .take_fails = at, .uneven = true}, at - 1,
                    UVM_SOURCE, in_take);
        check_error(&(struct row){.jobs = 100, .take_fails = at + 1, .work_fails = at}, at - 1,
                    UVM_CONTENT, in_work);
    }
}

static void test_work_stops_at_an_error(void **state)
{
    (void)state;
    struct row row = {.jobs = 20000, .work_fails = 5};
    check_error(&row, 4, UVM_CONTENT, "work 5");
    assert_true(row.worked <= 5 + 2 * UVM_LANES_MAX);
}

static void test_freed_early(void **state)
{
    (void)state;
    for (unsigned fetched = 0; fetched < 20; fetched++) {
        struct row row = {.jobs = 20000, .uneven = true};
        uvm_auto_error err = UVM_ERROR_INIT;
        struct uvm_lanes *l = new_lanes(&row);
        for (unsigned i = 0; i < fetched; i++) {
            void *job;
            assert_true(uvm_lanes_next(l, &job, &err));
        }
        uvm_lanes_free(l);
        assert_true((unsigned)row.worked <= fetched + 2 * UVM_LANES_MAX + 1);
        assert_true(row.cleared > 0);
    }
    uvm_lanes_free(NULL);
}

/* One processor, as far as we are concerned. */
static void test_on_one_processor(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    struct row row = {.jobs = 1000};
    uvm_auto_error err = UVM_ERROR_INIT;
    struct uvm_lanes *l = new_lanes(&row);
    assert_int_equal(drain(l, &err), 1000);
    uvm_lanes_free(l);
    assert_int_equal(row.cleared, 3); /* two for the thread, and the one that is out */
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

/* Threads that cannot be started. */
static int refused;
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *opaque);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *opaque);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *opaque)
{
    return refused ? refused : __real_pthread_create(thread, attr, run, opaque);
}

static void test_without_threads(void **state)
{
    (void)state;
    refused = EAGAIN;
    for (unsigned jobs = 0; jobs < 40; jobs++) {
        struct row row = {.jobs = jobs};
        uvm_auto_error err = UVM_ERROR_INIT;
        struct uvm_lanes *l = new_lanes(&row);
        assert_int_equal(drain(l, &err), jobs);
        uvm_lanes_free(l);
        assert_int_equal(row.worked, jobs);
    }
    check_error(&(struct row){.jobs = 9, .work_fails = 4}, 3, UVM_CONTENT, "work 4");
    check_error(&(struct row){.jobs = 9, .take_fails = 4}, 3, UVM_SOURCE, "take 4");
    refused = 0;
}

/* As few as one lane can do with: one that is handed out, and two. */
static void test_large_jobs_are_few(void **state)
{
    (void)state;
    struct row row = {.jobs = 20};
    struct uvm_lanes *lanes =
        uvm_lanes_new(&(struct uvm_lanes_options){.job_size = sizeof(struct job),
                                                  .job_bytes = UVM_LANES_BYTES,
                                                  .take = take,
                                                  .work = work,
                                                  .clear = clear,
                                                  .opaque = &row});
    uvm_auto_error err = UVM_ERROR_INIT;
    unsigned count = 0;
    for (void *job = &row; job; count += job != NULL)
        assert_true(uvm_lanes_next(lanes, &job, &err));
    uvm_lanes_free(lanes);
    assert_int_equal(count, 20);
    assert_int_equal(atomic_load(&row.cleared), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results_come_in_order),
        cmocka_unit_test(test_many_jobs_in_little_memory),
        cmocka_unit_test(test_what_is_not_fetched_is_not_taken),
        cmocka_unit_test(test_an_error_comes_in_its_turn),
        cmocka_unit_test(test_work_stops_at_an_error),
        cmocka_unit_test(test_freed_early),
        cmocka_unit_test(test_on_one_processor),
        cmocka_unit_test(test_without_threads),
        cmocka_unit_test(test_large_jobs_are_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

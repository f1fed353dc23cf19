/*
 * Runs a target over its seeds: fuzz_NAME FOLDER. Each file as it is, cut off at every length, and with
 * one bit flipped in every byte, so that "truncated anywhere" and "one bit flipped anywhere" are part of
 * every test run.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define SEED_MAX ((size_t)64 << 10)

/* What runs at the moment, for the one who has to find out why it broke. */
static char present[512];

static void tell_present(int signal_number)
{
    (void)signal_number;
    if (write(STDERR_FILENO, present, strlen(present)) < 0)
        _exit(1);
}

/* The bytes get a block of their own, so that reading behind them is noticed. */
static void run(const struct uvm_buf *seed, size_t len, size_t flipped)
{
    uvm_auto_free uint8_t *copy = uvm_grow(NULL, len, 1);
    if (len)
        memcpy(copy, seed->data, len);
    if (flipped < len)
        copy[flipped] ^= (uint8_t)(1 << flipped % 8);
    LLVMFuzzerTestOneInput(copy, len);
}

static void run_all(const char *name, const struct uvm_buf *seed)
{
    snprintf(present, sizeof present, "seed %s, as it is\n", name);
    run(seed, seed->len, seed->len);
    for (size_t len = 0; len < seed->len; len++) {
        snprintf(present, sizeof present, "seed %s, its first %zu bytes\n", name, len);
        run(seed, len, len);
    }
    for (size_t at = 0; at < seed->len; at++) {
        snprintf(present, sizeof present, "seed %s, bit %zu of byte %zu flipped\n", name, at % 8,
                 at);
        run(seed, seed->len, at);
    }
}

static bool run_file(const char *folder, const char *name)
{
    uvm_auto_free char *path = uvm_format("%s/%s", folder, name);
    uvm_auto_buf seed = {.max = SEED_MAX};
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!uvm_file_read(path, SEED_MAX, &seed, &err)) {
        fprintf(stderr, "%s: %s\n", path, err.message);
        return false;
    }
    run_all(name, &seed);
    return true;
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    int count = argc == 2 ? scandir(argv[1], &entries, NULL, alphasort) : -1, seeds = 0;
    if (count < 0) {
        fprintf(stderr, "usage: %s FOLDER: %s\n", argv[0], strerror(errno));
        return 2;
    }
    signal(SIGABRT, tell_present);
    bool ok = true;
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            ok = run_file(argv[1], entries[i]->d_name) && ok;
            seeds++;
        }
        free(entries[i]);
    }
    free(entries);
    printf("%d seeds\n", seeds);
    return ok && seeds > 0 ? 0 : 1;
}

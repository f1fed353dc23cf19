/*
 * fuzz.h: what the targets share. A target is one file with LLVMFuzzerTestOneInput(); its seeds are the
 * files of corpus/<target>/. Linked with libFuzzer it looks for inputs that break it; linked with
 * replay.c it runs its seeds.
 */
#pragma once

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mirror/base/base.h"

/* Anything at all, as libFuzzer hands it out. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What holds whatever the input is. */
#define FUZZ_HOLDS(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static inline void fuzz_holds_printable(const char *text)
{
    uvm_auto_free char *printable = uvm_printable(text);
    FUZZ_HOLDS(uvm_utf8_valid(text, strlen(text)) && strcmp(text, printable) == 0);
}

/* A call's result and its error say the same, and the message may go to a terminal. Returns the
 * result. */
static inline bool fuzz_outcome(bool ok, const struct uvm_error *err)
{
    FUZZ_HOLDS(ok == (err->code == UVM_OK));
    FUZZ_HOLDS(ok == (err->message == NULL));
    if (!ok)
        fuzz_holds_printable(err->message);
    return ok;
}

/* The input as a file, until the next call. */
static inline int fuzz_file(const void *data, size_t size)
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("input", MFD_CLOEXEC);
    FUZZ_HOLDS(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    return fd;
}

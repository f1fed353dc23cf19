/* own_folder.h: a test in a folder of its own, which is its working folder; *state is its path. */
#pragma once

#include "mirror/base/base.h"

#include <unistd.h>

static inline int enter_folder(void **state)
{
    char dir[] = "/tmp/uvmirror-test.XXXXXX";
    *state = mkdtemp(dir) ? uvm_strdup(dir) : NULL;
    return *state && chdir(dir) == 0 ? 0 : -1;
}

static inline int leave_folder(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = chdir("/") == 0 && uvm_remove_tree(*state, &err);
    free(*state);
    return ok ? 0 : -1;
}

/* Errors as objects: a code for the program, a message for the person. */
#include <errno.h>
#include <string.h>

#include "mirror/base/base.h"

void uvm_error_clear(struct uvm_error *err)
{
    free(err->message);
    *err = UVM_ERROR_INIT;
}

static void set(struct uvm_error *err, enum uvm_code code, int sys_errno, char *message)
{
    free(err->message);
    *err = (struct uvm_error){code, sys_errno, message};
}

bool uvm_fail(struct uvm_error *err, enum uvm_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set(err, code, 0, uvm_vformat(format, args));
    va_end(args);
    return false;
}

static bool is_about_space(int sys_errno)
{
    return sys_errno == ENOSPC || sys_errno == EDQUOT || sys_errno == EFBIG;
}

bool uvm_fail_errno(struct uvm_error *err, enum uvm_code code, const char *format, ...)
{
    int sys_errno = errno;
    va_list args;
    va_start(args, format);
    uvm_auto_free char *what = uvm_vformat(format, args);
    va_end(args);
    set(err, is_about_space(sys_errno) ? UVM_SPACE : code, sys_errno,
        uvm_format("%s: %s", what, strerror(sys_errno)));
    return false;
}

bool uvm_prefix(struct uvm_error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    uvm_auto_free char *what = uvm_vformat(format, args);
    va_end(args);
    char *message = uvm_format("%s: %s", what, err->message ? err->message : "unknown error");
    set(err, err->code, err->sys_errno, message);
    return false;
}

/* virt.h: what libvirt.c and volume.c share: the connection and libvirt's error text. */
#pragma once

#include "mirror/base/base.h"

#include <libvirt/libvirt.h>

struct pool_virt {
    virConnectPtr conn;
};

/* Fails with "<formatted>: <libvirt's last error>". */
bool pool_virt_fail(struct uvm_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

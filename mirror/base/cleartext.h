/* cleartext.h: internal to mirror/base. */
#pragma once

#include "mirror/base/base.h"

/* True when `text` is exactly one clear-signed message: the armor's first line at its very start,
 * only "Hash:" headers, no further armor within, nothing but white space behind its last line. Says
 * nothing about the signature. */
bool uvm_is_one_cleartext(const char *text, size_t len);

/* cleartext.h: the armor of signed texts and signatures, as text. Internal to mirror/base. */
#pragma once

#include "mirror/base/base.h"

/* GnuPG cuts longer lines (its limit is 19,995 bytes, escape and end included), and signs what is
 * left of them, without a word. */
#define UVM_CLEARTEXT_LINE_MAX ((size_t)19000)

/* True when `text` is exactly one clear-signed message: the armor's first line at its very start,
 * only "Hash:" headers, no further armor within, nothing but white space behind its last line. Says
 * nothing about the signature. */
bool uvm_is_one_cleartext(const char *text, size_t len);

/* True when `plain` is what stands in such a message, but for white space at the ends of lines. */
bool uvm_cleartext_reads(const char *text, size_t len, const char *plain, size_t plain_len);

/* True when no line is too long to be clear-signed. */
bool uvm_cleartext_fits(const char *text, size_t len);

/* True when a detached signature is either binary (which GnuPG reads to its end) or armored
 * signatures with nothing but white space around them (it would pass over anything else). */
bool uvm_is_bare_signature(const char *sig, size_t len);

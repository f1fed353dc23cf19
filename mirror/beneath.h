/* beneath.h: files below a folder, reached without leaving it. A path that a stream signed was
 * checked, but it is the kernel that holds it inside: no "..", no symbolic link, whatever stands on
 * disk. */
#pragma once

#include <sys/stat.h>

#include "mirror/base/base.h"

/* openat(2) that fails with ELOOP or EXDEV instead of following a symbolic link or leaving
 * `dir_fd`. */
int mirror_beneath_open(int dir_fd, const char *path, int flags, mode_t mode);

/* What a regular file below `dir_fd` is; false, with errno, when there is none. */
bool mirror_beneath_stat(int dir_fd, const char *path, struct stat *ret_st);

/* Makes the folders of `path` below `dir_fd`, as far as they are missing, and opens the last one.
 * *ret_name is the last segment, inside `path`. */
bool mirror_beneath_parent(int dir_fd, const char *path, int *ret_fd, const char **ret_name,
                           struct uvm_error *err);

/* Removes the regular file at `path` and the folders that it leaves empty. What is not there, or not
 * a regular file, is left alone, which is success. Not synced. */
bool mirror_beneath_remove(int dir_fd, const char *path, struct uvm_error *err);

/* Removes the folders of `path`, as far as they are empty. */
void mirror_beneath_remove_folders(int dir_fd, const char *path);

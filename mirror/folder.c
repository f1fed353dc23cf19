/* Files of a folder, a block at a time. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mirror/folder.h"

#define FOLDER_BLOCK ((size_t)512 << 10)

struct mirror_folder {
    char *file; /* under way; NULL = none */
    int fd;     /* -1 until the first step */
    uint64_t offset;
    struct mirror_sink sink;
    struct mirror_waiter waiter;
    char block[FOLDER_BLOCK];
};

struct mirror_folder *mirror_folder_new(void)
{
    struct mirror_folder *l = uvm_alloc(sizeof *l);
    l->fd = -1;
    return l;
}

void mirror_folder_drop(struct mirror_folder *l)
{
    free(UVM_STEAL(l->file));
    uvm_close_ptr(&l->fd);
}

void mirror_folder_free(struct mirror_folder *l)
{
    if (!l)
        return;
    mirror_folder_drop(l);
    free(l);
}

void mirror_folder_begin(struct mirror_folder *l, const char *file, uint64_t offset,
                         const struct mirror_sink *sink, const struct mirror_waiter *waiter)
{
    l->file = uvm_strdup(file);
    l->offset = offset;
    l->sink = *sink;
    l->waiter = *waiter;
}

static bool open_file(struct mirror_folder *l, struct uvm_error *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    struct stat st;
    l->fd = open(l->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (l->fd < 0 || fstat(l->fd, &st) < 0)
        return uvm_fail_errno(err, UVM_SOURCE, "cannot read");
    if (!S_ISREG(st.st_mode))
        return uvm_fail(err, UVM_SOURCE, "not a regular file");
    struct mirror_answer answer = {.offset = l->offset, .total = (uint64_t)st.st_size};
    if (answer.offset > answer.total)
        answer.offset = 0;
    if (lseek(l->fd, (off_t)answer.offset, SEEK_SET) < 0)
        return uvm_fail_errno(err, UVM_SOURCE, "cannot read");
    posix_fadvise(l->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return l->sink.start(l->sink.opaque, &answer, err);
}

/* *ret_len is 0 at the end. */
static bool copy_block(struct mirror_folder *l, size_t *ret_len, struct uvm_error *err)
{
    if (!uvm_read_some(l->fd, l->block, FOLDER_BLOCK, ret_len, err)) {
        err->code = UVM_SOURCE;
        return false;
    }
    return *ret_len == 0 || l->sink.write(l->sink.opaque, l->block, *ret_len, err);
}

static void finish(struct mirror_folder *l, struct uvm_error *failure)
{
    if (failure->code != UVM_OK) {
        uvm_auto_free char *name = uvm_printable(l->file);
        uvm_prefix(failure, "%s", name);
    }
    mirror_folder_drop(l);
    l->waiter.end(l->waiter.opaque, failure);
}

void mirror_folder_step(struct mirror_folder *l)
{
    uvm_auto_error failure = UVM_ERROR_INIT;
    size_t len = 0;
    if (!l->file)
        return;
    bool ok = (l->fd >= 0 || open_file(l, &failure)) && copy_block(l, &len, &failure);
    if (!ok || len == 0)
        finish(l, &failure);
}

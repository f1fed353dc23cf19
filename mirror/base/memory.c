/* Memory, lists of strings, buffers. Running out of memory aborts. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mirror/base/base.h"

static void *checked(void *p)
{
    if (!p)
        abort();
    return p;
}

void *uvm_alloc(size_t size)
{
    return checked(calloc(1, size ? size : 1));
}

void *uvm_grow(void *array, size_t count, size_t item_size)
{
    return checked(reallocarray(array, count ? count : 1, item_size));
}

char *uvm_strdup(const char *s)
{
    return s ? checked(strdup(s)) : NULL;
}

char *uvm_strndup(const char *s, size_t len)
{
    return checked(strndup(s, len));
}

char *uvm_vformat(const char *format, va_list args)
{
    char *s;
    if (vasprintf(&s, format, args) < 0)
        abort();
    return s;
}

char *uvm_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *s = uvm_vformat(format, args);
    va_end(args);
    return s;
}

void uvm_free_ptr(void *ptr_to_ptr)
{
    void *p;
    memcpy(&p, ptr_to_ptr, sizeof p);
    free(p);
}

void uvm_close_ptr(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int uvm_steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

void uvm_strings_add(struct uvm_strings *list, const char *s)
{
    list->items = uvm_grow(list->items, list->count + 2, sizeof *list->items);
    list->items[list->count++] = uvm_strdup(s);
    list->items[list->count] = NULL;
}

bool uvm_strings_has(const struct uvm_strings *list, const char *s)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], s) == 0)
            return true;
    return false;
}

void uvm_strings_clear(struct uvm_strings *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct uvm_strings){0};
}

bool uvm_buf_add(struct uvm_buf *buf, const void *data, size_t len, struct uvm_error *err)
{
    size_t max = buf->max ? buf->max : UVM_BUF_DEFAULT_MAX;
    if (len > max - buf->len) {
        uvm_auto_free char *limit = uvm_size_text(max);
        return uvm_fail(err, UVM_SPACE, "more than %s", limit);
    }
    if (buf->len + len + 1 > buf->cap_) {
        size_t cap = buf->cap_ ? buf->cap_ : 256;
        while (cap < buf->len + len + 1)
            cap *= 2;
        buf->data = uvm_grow(buf->data, cap, 1);
        buf->cap_ = cap;
    }
    if (len)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = 0;
    return true;
}

void uvm_buf_clear(struct uvm_buf *buf)
{
    free(buf->data);
    *buf = (struct uvm_buf){.max = buf->max};
}

void uvm_buf_move(struct uvm_buf *to, struct uvm_buf *from)
{
    *to = *from;
    *from = (struct uvm_buf){.max = from->max};
}

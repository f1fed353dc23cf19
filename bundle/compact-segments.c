/* The file of a compact payload, in segments; compact.h draws them. */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "bundle/compact.h"

#define SEGMENT   16
#define BYTES_MAX ((UINT64_C(1) << 56) - 1)
#define GRAIN     ((size_t)4096)     /* in which zeros are looked for */
#define READ_SIZE ((size_t)64 << 10) /* a multiple of it */

/* ---- the list -------------------------------------------------------------------------------- */

bool bundle_segment_list_add(struct bundle_segment_list *list, struct bundle_segment_at segment)
{
    if (list->count == BUNDLE_COMPACT_SEGMENTS_MAX)
        return false;
    if (list->count == list->room) {
        list->room = list->room ? list->room * 2 : 1024;
        list->items = uvm_grow(list->items, list->room, sizeof *list->items);
    }
    list->items[list->count++] = segment;
    return true;
}

void bundle_segment_list_clear(struct bundle_segment_list *list)
{
    free(list->items);
    *list = (struct bundle_segment_list){0};
}

static int compare(const void *left, const void *right)
{
    const struct bundle_segment_at *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->cluster > b->cluster) - (a->cluster < b->cluster);
}

void bundle_segment_list_settle(struct bundle_segment_list *list, uint64_t file_size)
{
    uint64_t end = 0;
    size_t kept = 0;
    if (list->count)
        qsort(list->items, list->count, sizeof *list->items, compare);
    for (size_t i = 0; i < list->count; i++) {
        struct bundle_segment_at segment = list->items[i];
        if (segment.offset < end || segment.bytes > file_size - segment.offset)
            continue;
        list->items[kept++] = segment;
        end = segment.offset + segment.bytes;
    }
    list->count = kept;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct writer {
    int fd;
    struct bundle_stage *stage;
    uint64_t zeros; /* not written yet */
};

static bool put_head(const struct writer *w, struct bundle_segment segment, struct uvm_error *err)
{
    uint8_t bytes[SEGMENT];
    bundle_put64(bytes, (uint64_t)segment.kind << 56 | segment.bytes);
    bundle_put64(bytes + 8, segment.cluster);
    return bundle_stage_write(w->stage, bytes, sizeof bytes, err);
}

static bool put_zeros(struct writer *w, struct uvm_error *err)
{
    uint64_t zeros = w->zeros;
    w->zeros = 0;
    return zeros == 0 || put_head(w, (struct bundle_segment){BUNDLE_SEGMENT_ZEROS, zeros, 0}, err);
}

static bool put_verbatim(struct writer *w, const uint8_t *data, size_t len, struct uvm_error *err)
{
    return len == 0 ||
           (put_zeros(w, err) &&
            put_head(w, (struct bundle_segment){BUNDLE_SEGMENT_VERBATIM, len, 0}, err) &&
            bundle_stage_write(w->stage, data, len, err));
}

static bool all_zeros(const uint8_t *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

/* Bytes of the file that begin at `offset`: what is zeros from one multiple of GRAIN to another is
 * counted, the rest is written. */
static bool put_bytes(struct writer *w, uint64_t offset, const uint8_t *data, size_t len,
                      struct uvm_error *err)
{
    size_t begun = 0; /* of what is verbatim */
    for (size_t at = 0, part; at < len; at += part) {
        part = GRAIN - (size_t)((offset + at) % GRAIN);
        part = part < len - at ? part : len - at;
        if (!all_zeros(data + at, part))
            continue;
        if (!put_verbatim(w, data + begun, at - begun, err))
            return false;
        w->zeros += part;
        begun = at + part;
    }
    return put_verbatim(w, data + begun, len - begun, err);
}

static bool put_gap(struct writer *w, uint64_t from, uint64_t to, struct uvm_error *err)
{
    uint8_t buffer[READ_SIZE];
    while (from < to) {
        size_t want = READ_SIZE - (size_t)(from % READ_SIZE);
        want = want < to - from ? want : (size_t)(to - from);
        ssize_t got = pread(w->fd, buffer, want, (off_t)from);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return uvm_fail_errno(err, UVM_FAILED, "cannot read the image");
        if (got == 0)
            return uvm_fail(err, UVM_CONTENT, "the image became shorter");
        if (!put_bytes(w, from, buffer, (size_t)got, err))
            return false;
        from += (uint64_t)got;
    }
    return true;
}

bool bundle_segments_write(const struct bundle_segment_list *list, int fd, uint64_t file_size,
                           struct bundle_stage *stage, struct uvm_error *err)
{
    struct writer w = {.fd = fd, .stage = stage};
    uint64_t at = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct bundle_segment_at *item = &list->items[i];
        struct bundle_segment segment = {item->deflated ? BUNDLE_SEGMENT_DEFLATED
                                                        : BUNDLE_SEGMENT_CLUSTER,
                                         item->bytes, item->cluster};
        if (!put_gap(&w, at, item->offset, err) || !put_zeros(&w, err) ||
            !put_head(&w, segment, err))
            return false;
        at = item->offset + item->bytes;
    }
    return put_gap(&w, at, file_size, err) && put_zeros(&w, err);
}

/* ---- reading --------------------------------------------------------------------------------- */

bool bundle_compact_read(struct bundle_unzstd *u, void *data, size_t len, struct uvm_error *err)
{
    size_t got = 0;
    if (!bundle_unzstd_read(u, data, len, &got, err))
        return false;
    return got == len || uvm_fail(err, UVM_CONTENT, "it ends too early");
}

/* Nothing may follow, and the member must be what was signed. */
static bool finish(struct bundle_segments *s, struct uvm_error *err)
{
    uint8_t more;
    size_t len = 0;
    if (!bundle_unzstd_read(s->unzstd, &more, 1, &len, err))
        return false;
    if (len)
        return uvm_fail(err, UVM_CONTENT, "there is something behind the image's last byte");
    if (!bundle_unzstd_end(s->unzstd, BUNDLE_ENDS_PLAIN, err))
        return false;
    s->ended = true;
    return true;
}

static bool is_cluster(const struct bundle_segments *s, const struct bundle_segment *segment)
{
    uint64_t size = UINT64_C(1) << s->head->cluster_bits;
    uint64_t count = ((s->head->virtual_size - 1) >> s->head->cluster_bits) + 1;
    if (segment->cluster >= count)
        return false;
    if (segment->kind == BUNDLE_SEGMENT_DEFLATED)
        return segment->bytes < size;
    bool is_last = s->done + segment->bytes == s->head->file_size;
    return segment->bytes == size || (segment->bytes < size && is_last);
}

static bool is_sound(const struct bundle_segments *s, const struct bundle_segment *segment)
{
    if (segment->bytes == 0 || segment->bytes > s->head->file_size - s->done)
        return false;
    if (segment->kind == BUNDLE_SEGMENT_VERBATIM || segment->kind == BUNDLE_SEGMENT_ZEROS)
        return segment->cluster == 0;
    return is_cluster(s, segment);
}

bool bundle_segments_next(struct bundle_segments *s, struct bundle_segment *ret_segment,
                          bool *ret_end, struct uvm_error *err)
{
    uint8_t bytes[SEGMENT];
    if (s->ended || s->done == s->head->file_size) {
        *ret_end = true;
        return s->ended || finish(s, err);
    }
    if (!bundle_compact_read(s->unzstd, bytes, sizeof bytes, err))
        return false;
    uint64_t first = bundle_get64(bytes), kind = first >> 56;
    struct bundle_segment segment = {.kind = (enum bundle_segment_kind)kind,
                                     .bytes = first & BYTES_MAX,
                                     .cluster = bundle_get64(bytes + 8)};
    if (kind > BUNDLE_SEGMENT_DEFLATED || !is_sound(s, &segment))
        return uvm_fail(err, UVM_CONTENT,
                        "what it says of the image's bytes from %" PRIu64 " on makes no sense",
                        s->done);
    s->done += segment.bytes;
    s->verbatim = kind == BUNDLE_SEGMENT_VERBATIM ? segment.bytes : 0;
    *ret_segment = segment;
    *ret_end = false;
    return true;
}

bool bundle_segments_verbatim(struct bundle_segments *s, void *data, size_t len,
                              struct uvm_error *err)
{
    s->verbatim -= len;
    return bundle_compact_read(s->unzstd, data, len, err);
}

static bool drop_bytes(struct bundle_segments *s, struct uvm_error *err)
{
    uint8_t buffer[READ_SIZE];
    while (s->verbatim) {
        size_t part = s->verbatim < sizeof buffer ? (size_t)s->verbatim : sizeof buffer;
        if (!bundle_segments_verbatim(s, buffer, part, err))
            return false;
    }
    return true;
}

bool bundle_segments_drop(struct bundle_segments *s, const struct uvm_observer *observer,
                          struct uvm_error *err)
{
    for (bool end = false; !end;) {
        struct bundle_segment segment;
        if (!uvm_go_on(observer, err) || !drop_bytes(s, err) ||
            !bundle_segments_next(s, &segment, &end, err))
            return false;
    }
    return true;
}

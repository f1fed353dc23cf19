/*
 * How the steps that run look:
 *
 *     download noble amd64 20241004     34 % of 1.21 GB  80.1 MB/s  0:40 left   64 columns and more
 *     download jammy amd64 20241002.1    7 % of  656 MB    waiting  0:12
 *     bundle uvmirror-20241004T09304..  12 % of 1.86 GB  21.3 MB/s  1:17 left
 *     and 3 more
 *     download total                    21 % of 2.61 GB   164 MB/s  0:12 left
 *
 *     noble amd64 2..  34 % 80.1 MB/s 0:40                                      32 and more
 *
 *     download noble amd64 20241004: 34 % of 1.21 GB, 80.1 MB/s, 0:40 left      in a log
 */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/progress.h"

enum {
    BLOCK_LINES_MAX = 8,
    WAITING_MS = 5000,      /* without a byte, this is what a line says */
    HOURS_MAX = 99,         /* beyond that nobody knows how long it takes */
    LOG_MS = 30000,         /* a line each 10 %, not more often than this, */
    LOG_SILENT_MS = 120000, /* and not less often than this */
    LOG_PERCENT = 10,
};

/* What a line says. */
struct line {
    const char *title, *name; /* with and without the step */
    uint64_t done, total;     /* total 0 = not known */
    const struct cmd_rate *rate;
};

/* ---- figures ---- */

/* "0:40", "1:02:03" */
static char *clock_text(uint64_t seconds)
{
    unsigned h = (unsigned)(seconds / 3600), m = (unsigned)(seconds / 60 % 60),
             s = (unsigned)(seconds % 60);
    return h ? uvm_format("%u:%02u:%02u", h, m, s) : uvm_format("%u:%02u", m, s);
}

static bool waits(const struct line *l, int64_t now)
{
    return now - l->rate->moved_at >= WAITING_MS;
}

/* Since when it waits, or how long it will take; empty when that cannot be told. */
static char *time_text(const struct line *l, int64_t now)
{
    if (waits(l, now))
        return clock_text((uint64_t)(now - l->rate->moved_at) / 1000);
    double seconds =
        l->total > l->done ? (double)(l->total - l->done) / (l->rate->per_second + 1e-9) : -1;
    if (seconds < 0 || seconds >= HOURS_MAX * 3600.0)
        return uvm_strdup("");
    return clock_text((uint64_t)seconds + 1);
}

/* "80.1 MB/s", "waiting", or empty as long as nothing is known. */
static char *speed_text(const struct line *l, int64_t now)
{
    if (waits(l, now))
        return uvm_strdup("waiting");
    if (l->rate->per_second < 1)
        return uvm_strdup("");
    uvm_auto_free char *bytes = uvm_size_text((uint64_t)l->rate->per_second);
    return uvm_format("%s/s", bytes);
}

/* "34 %", never more than 100; without a total what was done so far. */
static char *share_text(const struct line *l)
{
    if (l->total == 0)
        return uvm_size_text(l->done);
    double share = l->done < l->total ? (double)l->done / (double)l->total : 1;
    return uvm_format("%u %%", (unsigned)(share * 100));
}

/* ---- lines of a block ---- */

/* How much of it there is room for, as the width of its figures and the gap before them. */
enum shape { FULL = 44, SHORT = 24, TINY = 8 };
enum { FULL_FROM = 63, SHORT_FROM = 31 };

static enum shape shape_for(size_t columns)
{
    return columns >= FULL_FROM ? FULL : columns >= SHORT_FROM ? SHORT : TINY;
}

static char *figures(const struct line *l, enum shape shape, int64_t now)
{
    uvm_auto_free char *share = share_text(l), *speed = speed_text(l, now),
                       *left = time_text(l, now), *total = uvm_size_text(l->total);
    if (shape == TINY)
        return uvm_format("%5s", share);
    if (shape == SHORT)
        return uvm_format("%5s %9s %s", share, speed, left);
    const char *word = *left && !waits(l, now) ? " left" : "";
    return l->total ? uvm_format("%5s of %7s  %9s  %s%s", share, total, speed, left, word)
                    : uvm_format("%16s  %9s  %s%s", share, speed, left, word);
}

static const char *name_of(const struct line *l, enum shape shape)
{
    return shape == FULL ? l->title : l->name;
}

struct block {
    struct line lines[BLOCK_LINES_MAX];
    size_t count;
    size_t more;    /* steps that there was no room for... */
    size_t more_at; /* ...and behind which line that is said */
};

static char *add_text(char *to, const char *text)
{
    char *longer = uvm_format("%s%s", to, text);
    free(to);
    return longer;
}

static char *line_text(const struct line *l, size_t name_columns, size_t columns, int64_t now)
{
    enum shape shape = shape_for(columns);
    uvm_auto_free char *name = cmd_columns_cut(name_of(l, shape), name_columns),
                       *right = figures(l, shape, now);
    int gap = (int)(name_columns - cmd_columns(name)) + (shape == FULL ? 2 : 1);
    uvm_auto_free char *text = uvm_format("%s%*s%s", name, gap, "", right);
    size_t len = strlen(text);
    while (len && text[len - 1] == ' ')
        text[--len] = 0;
    uvm_auto_free char *fitting = cmd_columns_cut(text, columns);
    return uvm_format("%s\n", fitting);
}

static char *block_text(const struct block *b, size_t columns, int64_t now)
{
    enum shape shape = shape_for(columns);
    size_t room = columns > (size_t)shape ? columns - (size_t)shape : 1, widest = 0;
    for (size_t i = 0; i < b->count; i++) {
        size_t width = cmd_columns(name_of(&b->lines[i], shape));
        widest = width > widest ? width : widest;
    }
    char *text = uvm_strdup("");
    for (size_t i = 0; i <= b->count; i++) {
        uvm_auto_free char *more = uvm_format("and %zu more", b->more);
        uvm_auto_free char *said = cmd_columns_cut(more, columns);
        if (b->more && i == b->more_at)
            text = add_text(add_text(text, said), "\n");
        if (i == b->count)
            break;
        uvm_auto_free char *line =
            line_text(&b->lines[i], widest < room ? widest : room, columns, now);
        text = add_text(text, line);
    }
    return text;
}

/* ---- what stands in a block ---- */

static struct line line_of_step(const struct cmd_step *s)
{
    return (struct line){s->title, s->title + strlen(s->step) + 1, s->done, s->total, &s->rate};
}

/* A line of the total is worth it where more than one step goes into it. */
static bool line_of_total(const struct cmd_progress *p, const struct cmd_total *t,
                          struct line *ret_line)
{
    uint64_t done = t->ended, total = t->ended, running = 0, whole = 0;
    for (size_t i = 0; i < p->count; i++) {
        const struct cmd_step *s = &p->steps[i];
        if (strcmp(s->step, t->step) != 0)
            continue;
        whole = s->total > s->done ? s->total : s->done;
        done += s->done;
        total += whole;
        running++;
    }
    if (running == 0 || (running == 1 && t->expected <= whole))
        return false;
    *ret_line = (struct line){.title = t->title,
                              .name = "total",
                              .done = done,
                              .total = t->expected > total ? t->expected : total,
                              .rate = &t->rate};
    return true;
}

char *cmd_progress_block(const struct cmd_progress *p, size_t rows, size_t columns, int64_t now)
{
    struct line totals[BLOCK_LINES_MAX];
    size_t room = rows > 3 ? rows - 2 : 1, total_count = 0;
    if (room > BLOCK_LINES_MAX)
        room = BLOCK_LINES_MAX;
    for (size_t i = 0; i < p->total_count && total_count + 1 < room; i++)
        total_count += line_of_total(p, &p->totals[i], &totals[total_count]);

    struct block b = {0};
    room -= total_count;
    size_t shown = p->count <= room ? p->count : room > 1 ? room - 1 : 1;
    for (size_t i = 0; i < shown; i++)
        b.lines[b.count++] = line_of_step(&p->steps[i]);
    b.more = room > 1 ? p->count - shown : 0;
    b.more_at = b.count;
    for (size_t i = 0; i < total_count; i++)
        b.lines[b.count++] = totals[i];
    return block_text(&b, columns, now);
}

/* ---- lines of a log ---- */

static char *log_text(const struct line *l, int64_t now)
{
    uvm_auto_free char *share = share_text(l), *total = uvm_size_text(l->total),
                       *speed = speed_text(l, now), *left = time_text(l, now);
    uvm_auto_free char *of = l->total ? uvm_format("%s of %s", share, total) : uvm_strdup(share);
    if (waits(l, now))
        return uvm_format("%s: %s, waiting for %s\n", l->title, of, left);
    return uvm_format("%s: %s%s%s%s%s%s\n", l->title, of, *speed ? ", " : "", speed,
                      *left ? ", " : "", left, *left ? " left" : "");
}

static bool worth_a_line(const struct cmd_step *s, int64_t now)
{
    int64_t silent = now - s->told_at;
    uint64_t moved = s->done > s->told_done ? s->done - s->told_done : 0;
    bool far = s->total && (double)moved >= (double)s->total * LOG_PERCENT / 100;
    return silent >= LOG_SILENT_MS || (silent >= LOG_MS && far);
}

char *cmd_progress_log(struct cmd_progress *p, int64_t now)
{
    char *text = uvm_strdup("");
    for (size_t i = 0; i < p->count; i++) {
        struct cmd_step *s = &p->steps[i];
        if (!worth_a_line(s, now))
            continue;
        struct line line = line_of_step(s);
        uvm_auto_free char *said = log_text(&line, now);
        text = add_text(text, said);
        s->told_at = now;
        s->told_done = s->done;
    }
    return text;
}

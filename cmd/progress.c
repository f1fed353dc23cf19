/* The steps that run: which there are, how far they are, how fast. */
#include <string.h>

#include "cmd/progress.h"

enum { AVERAGE_MS = 4000, TICK_MS = 250 };

/* ---- rates ---- */

static void rate_begin(struct cmd_rate *r, int64_t now)
{
    *r = (struct cmd_rate){.began_at = now, .looked_at = now, .moved_at = now};
}

static void rate_add(struct cmd_rate *r, uint64_t bytes, int64_t now)
{
    r->moved += bytes;
    if (bytes)
        r->moved_at = now;
}

/* The old average counts for the time that it stands for, and never for more than AVERAGE_MS. */
static void rate_tick(struct cmd_rate *r, int64_t now)
{
    int64_t passed = now - r->looked_at, known = r->looked_at - r->began_at;
    if (passed < TICK_MS)
        return;
    if (known > AVERAGE_MS)
        known = AVERAGE_MS;
    r->per_second =
        (r->per_second * (double)known + (double)r->moved * 1000) / (double)(known + passed);
    r->moved = 0;
    r->looked_at = now;
}

/* ---- totals ---- */

static struct cmd_total *total_of(struct cmd_progress *p, const char *step)
{
    for (size_t i = 0; i < p->total_count; i++)
        if (strcmp(p->totals[i].step, step) == 0)
            return &p->totals[i];
    p->totals = uvm_grow(p->totals, p->total_count + 1, sizeof *p->totals);
    struct cmd_total *t = &p->totals[p->total_count++];
    *t = (struct cmd_total){.step = uvm_strdup(step), .title = uvm_format("%s total", step)};
    return t;
}

void cmd_progress_expect(struct cmd_progress *p, const char *step, uint64_t bytes)
{
    total_of(p, step)->expected = bytes;
}

/* ---- steps ---- */

static struct cmd_step *find_subject(struct cmd_progress *p, const char *subject)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->steps[i].subject, subject) == 0)
            return &p->steps[i];
    return NULL;
}

static void forget(struct cmd_progress *p, struct cmd_step *s)
{
    free(s->step);
    free(s->subject);
    free(s->title);
    size_t behind = (size_t)(p->steps + p->count - s) - 1;
    memmove(s, s + 1, behind * sizeof *s);
    p->count--;
}

static struct cmd_step *most_silent(struct cmd_progress *p)
{
    struct cmd_step *found = p->steps;
    for (size_t i = 1; i < p->count; i++)
        if (p->steps[i].rate.moved_at < found->rate.moved_at)
            found = &p->steps[i];
    return found;
}

static struct cmd_step *begin(struct cmd_progress *p, const struct uvm_event *event, int64_t now)
{
    uvm_auto_free char *title = uvm_format("%s %s", event->step, event->subject);
    if (p->count == CMD_STEPS_MAX)
        forget(p, most_silent(p));
    p->steps = uvm_grow(p->steps, p->count + 1, sizeof *p->steps);
    struct cmd_step *s = &p->steps[p->count++];
    *s = (struct cmd_step){
        .step = uvm_strdup(event->step),
        .subject = uvm_strdup(event->subject),
        .title = uvm_printable(title),
        .done = event->done,
        .total = event->total,
        .told_at = now,
        .told_done = event->done,
    };
    rate_begin(&s->rate, now);
    struct cmd_total *t = total_of(p, event->step);
    if (t->rate.began_at == 0)
        rate_begin(&t->rate, now);
    return s;
}

struct cmd_step *cmd_progress_move(struct cmd_progress *p, const struct uvm_event *event,
                                   int64_t now)
{
    struct cmd_step *s = find_subject(p, event->subject);
    if (s && strcmp(s->step, event->step) != 0) {
        forget(p, s);
        s = NULL;
    }
    if (!s)
        return begin(p, event, now);
    /* Less than before: it started over. */
    uint64_t moved = event->done > s->done ? event->done - s->done : 0;
    rate_add(&s->rate, moved, now);
    rate_add(&total_of(p, s->step)->rate, moved, now);
    s->done = event->done;
    s->total = event->total;
    return s;
}

void cmd_progress_end(struct cmd_progress *p, const struct uvm_event *event, int64_t now)
{
    struct cmd_step *s = find_subject(p, event->subject);
    if (!s)
        return;
    struct cmd_total *t = total_of(p, s->step);
    uint64_t whole = s->total > s->done ? s->total : s->done;
    if (event->kind == UVM_EVENT_DONE) {
        rate_add(&t->rate, whole - s->done, now);
        t->ended += whole;
    } else if (t->expected) {
        t->expected -= t->expected > whole ? whole : t->expected;
    }
    forget(p, s);
}

void cmd_progress_tick(struct cmd_progress *p, int64_t now)
{
    for (size_t i = 0; i < p->count; i++)
        rate_tick(&p->steps[i].rate, now);
    for (size_t i = 0; i < p->total_count; i++)
        rate_tick(&p->totals[i].rate, now);
}

void cmd_progress_clear(struct cmd_progress *p)
{
    while (p->count)
        forget(p, &p->steps[p->count - 1]);
    for (size_t i = 0; i < p->total_count; i++) {
        free(p->totals[i].step);
        free(p->totals[i].title);
    }
    free(p->steps);
    free(p->totals);
    *p = (struct cmd_progress){0};
}

/*
 * uses.c: who needs which file. Each guest, and each volume that no guest needs, is walked from down
 * to the bottom, once; what cannot be told on the way becomes a doubt.
 */
#include "pool/chain.h"

#include <string.h>

/* Of the files between a guest and an image, at most so many are told: the first and the last. */
enum { TOLD_FIRST = 3, TOLD_LAST = 2 };

size_t pool_chains_user(struct pool_chains *c, const char *user)
{
    uvm_strings_add(&c->users, user);
    return c->users.count - 1;
}

/* ---- walks ----------------------------------------------------------------------------------- */

/* A file that is to be visited. */
struct visit {
    size_t node;
    size_t user;
    size_t above;
    enum pool_belief belief;
    bool may_miss;
};

struct walk {
    struct pool_chains *chains;
    const struct pool_told *told;
    bool for_guest;
    struct visit *todo;
    size_t count;
};

static void push(struct walk *w, struct visit v)
{
    w->todo = pool_chains_room(w->todo, w->count, sizeof(*w->todo));
    w->todo[w->count++] = v;
}

static size_t add_use(struct walk *w, const struct visit *v)
{
    struct pool_chains *c = w->chains;
    struct pool_node *n = &c->nodes[v->node];
    c->uses = pool_chains_room(c->uses, c->use_count, sizeof(*c->uses));
    bool itself = !w->for_guest && v->above == POOL_NO_USE;
    c->uses[c->use_count] = (struct pool_use){v->user, v->node, v->above, v->belief, itself};
    if (itself)
        return c->use_count++;
    n->uses = pool_chains_room(n->uses, n->use_count, sizeof(*n->uses));
    n->uses[n->use_count++] = c->use_count;
    return c->use_count++;
}

/* A doubt that everybody has is told once; what is overlooked, to each. */
static void tell_fault(struct walk *w, size_t use, const char *fault, enum pool_belief needed)
{
    struct pool_node *n = &w->chains->nodes[w->chains->uses[use].node];
    bool counts = n->belief >= needed && !w->told->ignored;
    if (counts && n->told)
        return;
    n->told = n->told || counts;
    uvm_auto_free char *who = pool_chains_tell(w->chains, use);
    uvm_auto_free char *path = uvm_printable(n->path);
    uvm_auto_free char *text = uvm_format("%s: %s: %s", who, path, fault);
    uvm_strings_add(counts ? w->told->doubts : w->told->overlooked, text);
}

/* How much is to be believed of what a file stands on. */
static enum pool_belief belief_below(enum pool_belief belief, enum pool_link_kind kind)
{
    if (kind == POOL_LINK_DEVICE)
        return belief;
    if (belief != POOL_TRUSTED)
        return POOL_CLAIMED;
    return kind == POOL_LINK_DATA ? POOL_RAW : POOL_TRUSTED;
}

/* A walk comes to a file again only when it believes more than before: so a loop ends. */
static void visit(struct walk *w, const struct visit *v)
{
    struct pool_node *n = &w->chains->nodes[v->node];
    if (n->stamp == w->chains->stamp && n->belief >= v->belief)
        return;
    n->stamp = w->chains->stamp;
    n->belief = v->belief;
    n->guest = n->guest || (w->for_guest && v->belief != POOL_CLAIMED);
    size_t use = add_use(w, v);
    if (n->missing && !(n->gone && v->may_miss))
        tell_fault(w, use, n->missing, POOL_RAW);
    if (n->fault)
        tell_fault(w, use, n->fault, POOL_TRUSTED);
    /* Another volume is walked from on its own account. */
    if (!w->for_guest && n->volume && v->above != POOL_NO_USE)
        return;
    for (size_t i = 0; i < n->link_count; i++)
        push(w, (struct visit){.node = n->links[i].to,
                               .user = v->user,
                               .above = use,
                               .belief = belief_below(v->belief, n->links[i].kind)});
}

/* By a list and not by recursion: chains that meet grow longer than one chain may be. */
static void walk_all(struct walk *w)
{
    while (w->count > 0) {
        const struct visit next = w->todo[--w->count];
        visit(w, &next);
    }
    free(w->todo);
}

void pool_chains_use_guest(struct pool_chains *c, const struct pool_need *needs, size_t count,
                           const struct pool_told *told)
{
    struct walk w = {.chains = c, .told = told, .for_guest = true};
    c->stamp++;
    /* The last one is visited first. */
    for (size_t i = count; i-- > 0;)
        push(&w, (struct visit){needs[i].node, needs[i].user, POOL_NO_USE, needs[i].belief,
                                needs[i].may_miss});
    walk_all(&w);
}

void pool_chains_use_volume(struct pool_chains *c, size_t node, const char *user,
                            const struct pool_told *told)
{
    struct walk w = {.chains = c, .told = told};
    c->stamp++;
    push(&w, (struct visit){node, pool_chains_user(c, user), POOL_NO_USE, POOL_TRUSTED, true});
    walk_all(&w);
}

/* ---- telling --------------------------------------------------------------------------------- */

static char *file_of(const struct pool_chains *c, size_t use)
{
    const char *path = c->nodes[c->uses[use].node].path;
    const char *slash = strrchr(path, '/');
    return uvm_printable(slash ? slash + 1 : path);
}

static bool is_file_above(const struct pool_chains *c, size_t use)
{
    return use != POOL_NO_USE && !c->uses[use].itself;
}

/* The uses between the guest and the file, the guest's own first. */
static size_t *uses_above(const struct pool_chains *c, size_t use, size_t *ret_count)
{
    size_t count = 0;
    for (size_t u = c->uses[use].above; is_file_above(c, u); u = c->uses[u].above)
        count++;
    size_t *above = uvm_alloc((count + 1) * sizeof(*above));
    *ret_count = count;
    for (size_t u = c->uses[use].above; is_file_above(c, u); u = c->uses[u].above)
        above[--count] = u;
    return above;
}

char *pool_chains_tell(const struct pool_chains *c, size_t use)
{
    size_t count = 0;
    uvm_auto_free size_t *above = uses_above(c, use, &count);
    char *text = uvm_strdup(c->users.items[c->uses[use].user]);
    for (size_t i = 0; i < count; i++) {
        bool cut = count > TOLD_FIRST + TOLD_LAST && i == TOLD_FIRST;
        uvm_auto_free char *so_far = text;
        uvm_auto_free char *file = cut ? uvm_strdup("...") : file_of(c, above[i]);
        text = uvm_format("%s%s%s", so_far, i == 0 ? " through " : " -> ", file);
        if (cut)
            i = count - TOLD_LAST - 1;
    }
    if (c->uses[use].belief != POOL_CLAIMED)
        return text;
    uvm_auto_free char *so_far = text;
    return uvm_format("%s (as the content of a raw disk says)", so_far);
}

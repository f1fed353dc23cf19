/*
 * The agents that GnuPG starts for secret keys. One would outlive us; one that ran before may hold
 * passphrases of its user, and is not ours to stop.
 *
 *     HOME/uvmirror-agent    there while HOME's agent is ours; whoever uses that holds a lock (flock) on it
 *
 * The last one who uses it stops the agent and takes the file away. A process that was killed leaves both,
 * without its lock: the next one joins in, and is the last.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "mirror/base/gnupg.h"

#define CLAIM_NAME    "uvmirror-agent"
#define CLAIM_TRIES   10
#define AGENT_POLLS   200
#define AGENT_POLL_NS 10000000L

/* ---- an agent ---- */

/* Where the agent of a home folder listens; NULL when it cannot be told. */
static char *agent_socket(gpgme_ctx_t ctx, const char *gpgconf, const char *homedir)
{
    const char *argv[] = {gpgconf, "--homedir", homedir, "--list-dirs", "agent-socket", NULL};
    uvm_auto_gpg_data out = NULL;
    if (gpgme_data_new(&out) || gpgme_op_spawn(ctx, gpgconf, argv, NULL, out, NULL, 0))
        return NULL;
    size_t len = 0;
    char *text = gpgme_data_release_and_get_mem(UVM_STEAL(out), &len);
    const char *end = text ? memchr(text, '\n', len) : NULL;
    char *path = end ? uvm_strndup(text, (size_t)(end - text)) : NULL;
    gpgme_free(text);
    return path;
}

/* What starts programs; NULL when that is not possible. */
static const char *new_spawner(gpgme_ctx_t *ret_ctx)
{
    const char *gpgconf = gpgme_get_dirinfo("gpgconf-name");
    if (!gpgconf || gpgme_new(ret_ctx) || gpgme_set_protocol(*ret_ctx, GPGME_PROTOCOL_SPAWN))
        return NULL;
    return gpgconf;
}

/* It goes a moment after it was told to, and whoever talks to it in that moment gets no answer: so wait
 * until its socket is gone. */
static void stop_agent(const char *homedir)
{
    uvm_auto_gpg_ctx ctx = NULL;
    const char *gpgconf = new_spawner(&ctx);
    if (!gpgconf)
        return;
    const char *argv[] = {gpgconf, "--homedir", homedir, "--kill", "gpg-agent", NULL};
    uvm_auto_free char *socket = agent_socket(ctx, gpgconf, homedir);
    gpgme_op_spawn(ctx, gpgconf, argv, NULL, NULL, NULL, 0);
    for (int i = 0; socket && i < AGENT_POLLS && access(socket, F_OK) == 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = AGENT_POLL_NS}, NULL);
}

/* Whether somebody answers at a socket. A path that is too long for one is nobody's. */
static bool listens(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uvm_auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, path, strlen(path) + 1);
    return connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
}

static bool is_running(const char *homedir)
{
    uvm_auto_gpg_ctx ctx = NULL;
    const char *gpgconf = new_spawner(&ctx);
    uvm_auto_free char *socket = gpgconf ? agent_socket(ctx, gpgconf, homedir) : NULL;
    return socket && listens(socket);
}

/* ---- whose it is ---- */

/* Whether what was opened has not been taken away meanwhile. */
static bool is_still_there(int fd, const char *path)
{
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && lstat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/* Joins those who use the agent. -1: it is somebody's who was here before, or (*ret_ours) the folder takes
 * no file. */
static int claim(const char *homedir, const char *path, bool *ret_ours)
{
    for (int i = 0; i < CLAIM_TRIES; i++) {
        uvm_auto_fd fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 && is_running(homedir))
            return -1;
        if (fd < 0)
            fd = open(path, O_RDONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
        if (fd < 0)
            break;
        uvm_claim(fd, LOCK_SH);
        *ret_ours = is_still_there(fd, path);
        if (*ret_ours)
            return uvm_steal_fd(&fd);
    }
    *ret_ours = true;
    return -1;
}

struct uvm_gpg_agent uvm_gpg_agent_use(const char *homedir)
{
    struct uvm_gpg_agent agent = UVM_GPG_AGENT_INIT;
    bool ours = false;
    if (!homedir)
        return agent;
    uvm_auto_free char *path = uvm_format("%s/" CLAIM_NAME, homedir);
    agent.claim_fd = claim(homedir, path, &ours);
    if (ours)
        agent.home = uvm_strdup(homedir);
    return agent;
}

/* A lock that is not to be had is somebody else's, who stops it then; where there are no locks, nobody
 * could tell. */
static bool is_last(const struct uvm_gpg_agent *agent)
{
    return agent->claim_fd < 0 || flock(agent->claim_fd, LOCK_EX | LOCK_NB) == 0 ||
           errno != EWOULDBLOCK;
}

void uvm_gpg_agent_leave(struct uvm_gpg_agent *agent)
{
    if (agent->home && is_last(agent)) {
        uvm_auto_free char *path = uvm_format("%s/" CLAIM_NAME, agent->home);
        stop_agent(agent->home);
        if (agent->claim_fd >= 0)
            unlink(path);
    }
    free(agent->home);
    uvm_close_ptr(&agent->claim_fd);
    *agent = UVM_GPG_AGENT_INIT;
}

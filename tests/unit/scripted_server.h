/* scripted_server.h: a web server in threads, whose answers a test writes byte by byte. */
#pragma once

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mirror/base/base.h"

#define SERVER_HEAD_MAX        4096
#define SERVER_CONNECTIONS_MAX 512

struct server {
    /* Writes one answer; the connection is closed behind it. `number` counts requests from 0.
     * Several may be answered at once, each in a thread of its own. */
    void (*answer)(struct server *s, int fd, const char *request, int number);
    void *opaque;
    int fd;
    atomic_int requests;
    atomic_int open, most_open; /* being answered now; at most, at once */
    atomic_bool stopping;
    char last[SERVER_HEAD_MAX]; /* the last request's head; look at it when none is under way */
    char url[64];               /* "http://127.0.0.1:PORT/" */
    pthread_mutex_t mutex;      /* for `last` */
    pthread_t thread, connections[SERVER_CONNECTIONS_MAX];
    size_t connection_count;
};

struct server_connection {
    struct server *server;
    int fd;
};

static inline void server_send(int fd, const void *data, size_t len)
{
    for (const char *p = data; len > 0;) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        p += n;
        len -= (size_t)n;
    }
}

static inline void server_say(int fd, const char *text)
{
    server_send(fd, text, strlen(text));
}

/* An answer with a body and its right length. */
static inline void server_ok(int fd, const void *body, size_t len)
{
    uvm_auto_free char *head =
        uvm_format("HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", len);
    server_say(fd, head);
    server_send(fd, body, len);
}

/* Lets the connection break with a reset instead of ending it. Nothing can be sent afterwards. */
static inline void server_reset(int fd)
{
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    int sink = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    dup2(sink, fd); /* closes the connection; the number stays taken */
    close(sink);
}

/* Until the client goes. */
static inline void server_wait(int fd)
{
    char rest[256];
    while (recv(fd, rest, sizeof rest, 0) > 0)
        ;
}

static inline void server_one(struct server *s, int fd)
{
    char head[SERVER_HEAD_MAX];
    size_t len = 0;
    do {
        ssize_t n = recv(fd, head + len, sizeof head - 1 - len, 0);
        if (n <= 0)
            return;
        len += (size_t)n;
        head[len] = 0;
    } while (len + 1 < sizeof head && !strstr(head, "\r\n\r\n"));
    pthread_mutex_lock(&s->mutex);
    memcpy(s->last, head, len + 1);
    pthread_mutex_unlock(&s->mutex);
    int open = atomic_fetch_add(&s->open, 1) + 1;
    for (int most = s->most_open; most < open;)
        if (atomic_compare_exchange_weak(&s->most_open, &most, open))
            break;
    s->answer(s, fd, head, atomic_fetch_add(&s->requests, 1));
    atomic_fetch_sub(&s->open, 1);
    shutdown(fd, SHUT_WR);
    server_wait(fd);
}

static inline void *server_serve(void *opaque)
{
    struct server_connection *c = opaque;
    server_one(c->server, c->fd);
    close(c->fd);
    free(c);
    return NULL;
}

static inline void *server_run(void *opaque)
{
    struct server *s = opaque;
    for (;;) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        if (atomic_load(&s->stopping) || s->connection_count == SERVER_CONNECTIONS_MAX) {
            close(fd);
            continue;
        }
        struct server_connection *c = uvm_alloc(sizeof *c);
        *c = (struct server_connection){s, fd};
        if (pthread_create(&s->connections[s->connection_count++], NULL, server_serve, c) != 0)
            abort();
    }
}

static inline void server_start(struct server *s,
                                void (*answer)(struct server *, int, const char *, int))
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    s->answer = answer;
    pthread_mutex_init(&s->mutex, NULL);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&address, len) < 0 || listen(s->fd, 64) < 0 ||
        getsockname(s->fd, (struct sockaddr *)&address, &len) < 0)
        abort();
    uvm_auto_free char *url = uvm_format("http://127.0.0.1:%d/", ntohs(address.sin_port));
    memcpy(s->url, url, strlen(url) + 1);
    if (pthread_create(&s->thread, NULL, server_run, s) != 0)
        abort();
}

/* The clients must have gone. */
static inline void server_stop(struct server *s)
{
    atomic_store(&s->stopping, true);
    shutdown(s->fd, SHUT_RDWR); /* wakes accept */
    pthread_join(s->thread, NULL);
    for (size_t i = 0; i < s->connection_count; i++)
        pthread_join(s->connections[i], NULL);
    close(s->fd);
    pthread_mutex_destroy(&s->mutex);
}

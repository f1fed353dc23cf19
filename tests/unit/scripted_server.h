/* scripted_server.h: a web server in a thread, whose answers a test writes byte by byte. */
#pragma once

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mirror/base/base.h"

struct server {
    /* Writes one answer; the connection is closed behind it. `number` counts requests from 0. */
    void (*answer)(struct server *s, int fd, const char *request, int number);
    void *opaque;
    int fd;
    atomic_int requests;
    atomic_bool stopping;
    char last[4096]; /* the last request's head; look at it when no request is under way */
    char url[64];    /* "http://127.0.0.1:PORT/" */
    pthread_t thread;
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

static inline void server_one(struct server *s, int fd)
{
    size_t len = 0;
    while (len + 1 < sizeof s->last) {
        ssize_t n = recv(fd, s->last + len, sizeof s->last - 1 - len, 0);
        if (n <= 0)
            return;
        len += (size_t)n;
        s->last[len] = 0;
        if (strstr(s->last, "\r\n\r\n"))
            break;
    }
    s->answer(s, fd, s->last, atomic_fetch_add(&s->requests, 1));
    shutdown(fd, SHUT_WR);
    char rest[256];
    while (recv(fd, rest, sizeof rest, 0) > 0)
        ;
}

static inline void *server_run(void *opaque)
{
    struct server *s = opaque;
    for (;;) {
        uvm_auto_fd fd = accept(s->fd, NULL, NULL);
        if (fd < 0 || atomic_load(&s->stopping))
            return NULL;
        server_one(s, fd);
    }
}

static inline void server_start(struct server *s,
                                void (*answer)(struct server *, int, const char *, int))
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    s->answer = answer;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&address, len) < 0 || listen(s->fd, 8) < 0 ||
        getsockname(s->fd, (struct sockaddr *)&address, &len) < 0)
        abort();
    uvm_auto_free char *url = uvm_format("http://127.0.0.1:%d/", ntohs(address.sin_port));
    memcpy(s->url, url, strlen(url) + 1);
    if (pthread_create(&s->thread, NULL, server_run, s) != 0)
        abort();
}

static inline void server_stop(struct server *s)
{
    atomic_store(&s->stopping, true);
    shutdown(s->fd, SHUT_RDWR); /* wakes accept */
    pthread_join(s->thread, NULL);
    close(s->fd);
}

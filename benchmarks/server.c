/* Answers 204 to every request on loopback, as fast as one thread can: what the benchmarks send to.
 *
 * server PORT [ADDRESSES]   listens on 127.0.0.1 … 127.0.0.ADDRESSES; prints the port when it does.
 * A path that begins with /hang is never answered, one that begins with /slow after SLOW milliseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 65536, EVENTS = 512, MOST_FILES = 65536, SLOW = 20 };

struct connection {
    int listening, hanging;
    unsigned serial;
    size_t used;
    char *data;
};

static struct connection connections[MOST_FILES];
static const char ANSWER[] = "HTTP/1.1 204 No Content\r\n\r\n";
/* Answers that wait, in the order of their times: all wait equally long. */
static struct { int file; unsigned serial; long long due; } waiting[MOST_FILES];
static unsigned first, last, accepted_so_far;

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

static void watch(int poll, int file) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = file};
    epoll_ctl(poll, EPOLL_CTL_ADD, file, &event);
}

static void drop(int file) {
    free(connections[file].data);
    memset(&connections[file], 0, sizeof connections[file]);
    close(file);
}

/* The length of the first whole request in the buffer, 0 if it isn't whole yet. */
static size_t whole(struct connection *c) {
    c->data[c->used] = 0;
    char *end = strstr(c->data, "\r\n\r\n");
    if (!end) return 0;
    size_t head = (size_t)(end - c->data) + 4, body = 0;
    for (char *line = c->data; line && line < end; line = strstr(line, "\r\n")) {
        line += line == c->data ? 0 : 2;
        if (!strncasecmp(line, "content-length:", 15)) body = strtoul(line + 15, NULL, 10);
    }
    return c->used >= head + body ? head + body : 0;
}

static void answer(int file) {
    if (write(file, ANSWER, sizeof ANSWER - 1) < 0) drop(file);
}

/* Answer what has waited; milliseconds until the next one has, -1 if there is none. */
static int answer_waiting(void) {
    for (; first != last; first++) {
        int file = waiting[first % MOST_FILES].file;
        long long left = waiting[first % MOST_FILES].due - now();
        if (left > 0) return (int)left;
        if (connections[file].serial == waiting[first % MOST_FILES].serial) answer(file);
    }
    return -1;
}

/* Whether the request in the buffer is for a path that begins so. */
static int asks_for(struct connection *c, const char *path) {
    char *found = strstr(c->data, path);
    return found && found < strstr(c->data, "\r\n");
}

static void serve(int file) {
    struct connection *c = &connections[file];
    ssize_t got = read(file, c->data + c->used, BUFFER - 1 - c->used);
    if (got <= 0) {
        drop(file);
        return;
    }
    if (c->hanging) return;
    c->used += (size_t)got;
    size_t length;
    while ((length = whole(c))) {
        if (asks_for(c, " /hang")) {
            c->hanging = 1;
            c->used = 0;
            return;
        }
        int slow = asks_for(c, " /slow") && last - first < MOST_FILES;
        memmove(c->data, c->data + length, c->used -= length);
        if (slow) {
            waiting[last % MOST_FILES].file = file;
            waiting[last % MOST_FILES].serial = c->serial;
            waiting[last++ % MOST_FILES].due = now() + SLOW;
        } else {
            answer(file);
            if (!c->data) return;
        }
    }
    if (c->used >= BUFFER - 1) drop(file);
}

int main(int count, char **arguments) {
    int port = count > 1 ? atoi(arguments[1]) : 0, addresses = count > 2 ? atoi(arguments[2]) : 1;
    int poll = epoll_create1(0), on = 1;
    for (int number = 1; number <= addresses; number++) {
        int file = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
        address.sin_addr.s_addr = htonl(0x7f000000u + (unsigned)number);
        setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        socklen_t size = sizeof address;
        if (bind(file, (struct sockaddr *)&address, size) || listen(file, 4096)) {
            perror("listen");
            return 1;
        }
        getsockname(file, (struct sockaddr *)&address, &size);
        port = ntohs(address.sin_port);
        connections[file].listening = 1;
        watch(poll, file);
    }
    printf("%d\n", port);
    fflush(stdout);
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, answer_waiting());
        for (int i = 0; i < ready; i++) {
            int file = events[i].data.fd, accepted;
            if (!connections[file].listening) {
                serve(file);
                continue;
            }
            while ((accepted = accept4(file, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (accepted >= MOST_FILES) {
                    close(accepted);
                    continue;
                }
                setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                connections[accepted].data = malloc(BUFFER);
                connections[accepted].serial = ++accepted_so_far;
                watch(poll, accepted);
            }
        }
    }
}

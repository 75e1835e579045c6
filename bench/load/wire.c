/* Connections and frames: buffers, the handshake, and calls that wait for their answer. */
#include "load.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES_MIN = 262144 };

void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void sleep_s(double seconds) {
    struct timespec span = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&span, &span) == -1 && errno == EINTR) {
    }
}

void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes);
    if (memory == NULL) fail("out of memory");
    return memory;
}

uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

uint32_t get32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return __builtin_bswap32(value);
}

uint64_t get64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, 8);
    return __builtin_bswap64(value);
}

void set32(uint8_t *at, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(at, &value, 4);
}

void set64(uint8_t *at, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(at, &value, 8);
}

void put(Conn *conn, const void *bytes, size_t count) {
    if (conn->out_end + count > conn->out_size) {
        conn->out_size = 2 * (conn->out_end + count) + 256;
        conn->out = realloc(conn->out, conn->out_size);
        if (conn->out == NULL) fail("out of memory");
    }
    memcpy(conn->out + conn->out_end, bytes, count);
    conn->out_end += count;
}

void put8(Conn *conn, unsigned value) { put(conn, &(uint8_t){(uint8_t)value}, 1); }

void put16(Conn *conn, unsigned value) { put(conn, (uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2); }

void put32(Conn *conn, uint32_t value) { put(conn, &(uint32_t){__builtin_bswap32(value)}, 4); }

void put64(Conn *conn, uint64_t value) { put(conn, &(uint64_t){__builtin_bswap64(value)}, 8); }

void put_short(Conn *conn, const char *text) {
    size_t size = strlen(text);
    put8(conn, (unsigned)size);
    put(conn, text, size);
}

size_t frame_open(Conn *conn, unsigned type, unsigned channel) {
    put8(conn, type);
    put16(conn, channel);
    put32(conn, 0);
    return conn->out_end;
}

size_t method_open(Conn *conn, unsigned channel, unsigned class_id, unsigned method_id) {
    size_t start = frame_open(conn, FRAME_METHOD, channel);
    put16(conn, class_id);
    put16(conn, method_id);
    return start;
}

void frame_close(Conn *conn, size_t start) {
    set32(conn->out + start - 4, (uint32_t)(conn->out_end - start));
    put8(conn, FRAME_END);
}

void flush(Conn *conn) {
    for (size_t sent = 0; sent < conn->out_end;) {
        ssize_t count = send(conn->fd, conn->out + sent, conn->out_end - sent, MSG_NOSIGNAL);
        if (count <= 0) fail("the broker closed the connection while we sent: %s", strerror(errno));
        sent += (size_t)count;
    }
    conn->out_end = 0;
}

bool next_frame(Conn *conn, Frame *frame) {
    size_t have = conn->in_end - conn->in_start;
    if (have < FRAME_OVERHEAD) return false;
    uint8_t *at = conn->in + conn->in_start;
    size_t size = get32(at + 3);
    if (have < size + FRAME_OVERHEAD) return false;
    if (at[7 + size] != FRAME_END) fail("a frame without its end octet");
    *frame = (Frame){at[0], at + 7, size, at[0] == FRAME_METHOD ? get32(at + 7) : 0};
    conn->in_start += size + FRAME_OVERHEAD;
    return true;
}

long fill(Conn *conn, int flags) {
    if (conn->in_start > 0) {
        memmove(conn->in, conn->in + conn->in_start, conn->in_end - conn->in_start);
        conn->in_end -= conn->in_start;
        conn->in_start = 0;
    }
    /* Small while nothing but single answers comes, so that thousands of idle connections cost nothing here. */
    if (conn->in_end == conn->in_size) {
        conn->in_size = conn->in_size == 0 ? 4096 : 2 * conn->in_size < READ_BYTES_MIN ? READ_BYTES_MIN : 2 * conn->in_size;
        conn->in = realloc(conn->in, conn->in_size);
        if (conn->in == NULL) fail("out of memory");
    }
    ssize_t count = recv(conn->fd, conn->in + conn->in_end, conn->in_size - conn->in_end, flags);
    if (count > 0) conn->in_end += (size_t)count;
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return 0;
    return count;
}

void unexpected(const Frame *frame, const char *where) {
    const uint8_t *at = frame->payload;
    bool has_text = (frame->method == CHANNEL_CLOSE || frame->method == CONNECTION_CLOSE) && frame->size > 7;
    if (has_text) fail("%s: the broker answers %d: %.*s", where, get16(at + 4), at[6], (const char *)at + 7);
    fail("%s: unexpected method %d.%d", where, get16(at), get16(at + 2));
}

Frame await(Conn *conn, uint32_t method, const char *what) {
    Frame frame;
    for (;;) {
        while (!next_frame(conn, &frame)) {
            long count = fill(conn, 0);
            if (count == 0) fail("%s: the broker closed the connection", what);
        }
        if (frame.type != FRAME_METHOD) continue;
        if (frame.method == method) return frame;
        unexpected(&frame, what);
    }
}

static void nth_host(int number, char *host, char *port) {
    int hosts = 1;
    for (const char *at = settings.hosts; *at != 0; at++) hosts += *at == ',';
    const char *start = settings.hosts;
    for (int skip = number % hosts; skip > 0; skip--) start = strchr(start, ',') + 1;
    size_t size = strcspn(start, ",");
    if (size >= NAME_BYTES_MAX) fail("hosts: an address is too long");
    memcpy(host, start, size);
    host[size] = 0;
    char *colon = strrchr(host, ':');
    if (colon == NULL || strlen(colon) > 8) fail("hosts: %s is not HOST:PORT", host);
    strcpy(port, colon + 1);
    *colon = 0;
}

static int open_socket(int number) {
    char host[NAME_BYTES_MAX], port[16];
    nth_host(number, host, port);
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hint, &found) != 0) fail("no address for %s:%s", host, port);
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (fd == -1 || connect(fd, found->ai_addr, found->ai_addrlen) == -1)
        fail("cannot connect to %s:%s: %s", host, port, strerror(errno));
    freeaddrinfo(found);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* A table with one entry that is a table of flags, all true. */
static void put_capabilities(Conn *conn) {
    static const char *const names[] = {"publisher_confirms", "basic.nack", "consumer_cancel_notify"};
    size_t outer = conn->out_end;
    put32(conn, 0);
    put_short(conn, "capabilities");
    put8(conn, 'F');
    size_t inner = conn->out_end;
    put32(conn, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put_short(conn, names[i]);
        put8(conn, 't');
        put8(conn, 1);
    }
    set32(conn->out + inner, (uint32_t)(conn->out_end - inner - 4));
    set32(conn->out + outer, (uint32_t)(conn->out_end - outer - 4));
}

Conn *dial(int host) {
    Conn *conn = allocate(sizeof *conn);
    conn->fd = open_socket(host);
    put(conn, "AMQP\0\0\11\1", 8);
    flush(conn);
    await(conn, CONNECTION_START, "handshake");
    size_t start = method_open(conn, 0, 10, 11);
    put_capabilities(conn);
    put_short(conn, "PLAIN");
    size_t user = strlen(settings.user), password = strlen(settings.password);
    put32(conn, (uint32_t)(user + password + 2));
    put8(conn, 0);
    put(conn, settings.user, user);
    put8(conn, 0);
    put(conn, settings.password, password);
    put_short(conn, "en_US");
    frame_close(conn, start);
    flush(conn);
    Frame tune = await(conn, CONNECTION_TUNE, "login");
    size_t offered = get32(tune.payload + 6);
    conn->frame_bytes_max = offered == 0 || offered > FRAME_BYTES_MAX ? FRAME_BYTES_MAX : offered;
    start = method_open(conn, 0, 10, 31);
    put16(conn, get16(tune.payload + 4));
    put32(conn, (uint32_t)conn->frame_bytes_max);
    put16(conn, 0);
    frame_close(conn, start);
    start = method_open(conn, 0, 10, 40);
    put_short(conn, settings.vhost);
    put_short(conn, "");
    put8(conn, 0);
    frame_close(conn, start);
    start = method_open(conn, 1, 20, 10);
    put_short(conn, "");
    frame_close(conn, start);
    flush(conn);
    await(conn, CONNECTION_OPEN_OK, "connection.open");
    await(conn, CHANNEL_OPEN_OK, "channel.open");
    return conn;
}

void hang_up(Conn *conn) {
    size_t start = method_open(conn, 0, 10, 50);
    put16(conn, 200);
    put_short(conn, "done");
    put32(conn, 0);
    frame_close(conn, start);
    flush(conn);
    Frame frame;
    for (bool is_closed = false; !is_closed;) {
        while (!is_closed && next_frame(conn, &frame)) is_closed = frame.method == CONNECTION_CLOSE_OK;
        if (!is_closed && fill(conn, 0) == 0) break;
    }
    close(conn->fd);
    free(conn->in);
    free(conn->out);
    free(conn);
}

void queue_name(char *into, int number) { snprintf(into, NAME_BYTES_MAX, "%s-%d", settings.name, number); }

void source_name(char *into, int number) { snprintf(into, NAME_BYTES_MAX, "%s-source-%d", settings.name, number); }

void exchange_name(char *into) { snprintf(into, NAME_BYTES_MAX, "%s-%s", settings.name, settings.exchange); }

void binding_key(char *into, int number) { snprintf(into, NAME_BYTES_MAX, "plant.%d.level", number); }

static void put_number(Conn *conn, const char *name, int value) {
    put_short(conn, name);
    put8(conn, 'I');
    put32(conn, (uint32_t)value);
}

static void put_text(Conn *conn, const char *name, const char *value) {
    put_short(conn, name);
    put8(conn, 'S');
    put32(conn, (uint32_t)strlen(value));
    put(conn, value, strlen(value));
}

/* `heir` gets what expires in the queue, which then is all of it; NULL: none. */
static void declare(Conn *conn, const char *name, bool is_exclusive, const char *heir) {
    size_t start = method_open(conn, 1, 50, 10);
    put16(conn, 0);
    put_short(conn, name);
    put8(conn, is_exclusive ? 4 : 2);
    size_t table = conn->out_end;
    put32(conn, 0);
    if (!is_exclusive) put_text(conn, "x-queue-type", settings.kind);
    if (settings.ttl > 0) put_number(conn, "x-message-ttl", settings.ttl);
    if (settings.length > 0) put_number(conn, "x-max-length", settings.length);
    if (settings.priorities > 0) put_number(conn, "x-max-priority", settings.priorities);
    if (heir != NULL) {
        put_number(conn, "x-message-ttl", 0);
        put_text(conn, "x-dead-letter-exchange", "");
        put_text(conn, "x-dead-letter-routing-key", heir);
    }
    set32(conn->out + table, (uint32_t)(conn->out_end - table - 4));
    frame_close(conn, start);
    flush(conn);
    await(conn, QUEUE_DECLARE_OK, "queue.declare");
}

void declare_queue(Conn *conn, const char *name, bool is_exclusive) { declare(conn, name, is_exclusive, NULL); }

void declare_source(Conn *conn, int number) {
    char name[NAME_BYTES_MAX], heir[NAME_BYTES_MAX];
    source_name(name, number);
    queue_name(heir, number);
    declare(conn, name, false, heir);
}

void start_consumer(Conn *conn, const char *queue, int prefetch, bool no_ack) {
    size_t start = method_open(conn, 1, 60, 10);
    put32(conn, 0);
    put16(conn, (unsigned)prefetch);
    put8(conn, 0);
    frame_close(conn, start);
    flush(conn);
    await(conn, BASIC_QOS_OK, "basic.qos");
    start = method_open(conn, 1, 60, 20);
    put16(conn, 0);
    put_short(conn, queue);
    put_short(conn, "");
    put8(conn, no_ack ? 2 : 0);
    put32(conn, 0);
    frame_close(conn, start);
    flush(conn);
    await(conn, BASIC_CONSUME_OK, "basic.consume");
}

void select_confirms(Conn *conn) {
    size_t start = method_open(conn, 1, 85, 10);
    put8(conn, 0);
    frame_close(conn, start);
    flush(conn);
    await(conn, CONFIRM_SELECT_OK, "confirm.select");
}

void select_transactions(Conn *conn) {
    size_t start = method_open(conn, 1, 90, 10);
    frame_close(conn, start);
    flush(conn);
    await(conn, TX_SELECT_OK, "tx.select");
}

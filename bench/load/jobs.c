/* What is one answer at a time: the topology of a workload, and the jobs declare, connect, rpc and idle. */
#include "load.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIPELINED_MAX = 100 };

typedef struct {
    pthread_t thread;
    int number;
    int64_t done;
    Histogram latency;
} Client;

static double measured_s;

/* -- topology ------------------------------------------------------------------------------------- */

static bool is_transient(void) { return strcmp(settings.kind, "transient") == 0; }

static void declare_exchange(Conn *conn) {
    char name[NAME_BYTES_MAX];
    exchange_name(name);
    size_t start = method_open(conn, 1, 40, 10);
    put16(conn, 0);
    put_short(conn, name);
    put_short(conn, settings.exchange);
    put8(conn, 2);
    put32(conn, 0);
    frame_close(conn, start);
    flush(conn);
    await(conn, EXCHANGE_DECLARE_OK, "exchange.declare");
}

static void bind_one(Conn *conn, int number) {
    char queue[NAME_BYTES_MAX], exchange[NAME_BYTES_MAX], key[NAME_BYTES_MAX];
    queue_name(queue, number % settings.queues);
    exchange_name(exchange);
    snprintf(key, sizeof key, "plant.%d.*", number);
    size_t start = method_open(conn, 1, 50, 20);
    put16(conn, 0);
    put_short(conn, queue);
    put_short(conn, exchange);
    put_short(conn, key);
    put8(conn, 0);
    put32(conn, 0);
    frame_close(conn, start);
}

/* `send` writes one request; at most PIPELINED_MAX wait for their answer. */
static void pipelined(Conn *conn, int count, void (*send)(Conn *, int), uint32_t answer, const char *what) {
    for (int first = 0; first < count; first += PIPELINED_MAX) {
        int last = first + PIPELINED_MAX < count ? first + PIPELINED_MAX : count;
        for (int i = first; i < last; i++) send(conn, i);
        flush(conn);
        for (int i = first; i < last; i++) await(conn, answer, what);
    }
}

/* Each queue is declared on the host that its producers and consumers use, so that its leader may be there. */
void set_up(void) {
    char name[NAME_BYTES_MAX];
    int hosts = 1;
    for (const char *at = settings.hosts; *at != 0; at++) hosts += *at == ',';
    for (int host = 0; host < hosts && host < settings.queues && !is_transient(); host++) {
        Conn *conn = dial(host);
        for (int i = host; i < settings.queues; i += hosts) {
            queue_name(name, i);
            declare_queue(conn, name, false);
            if (settings.dead) declare_source(conn, i);
        }
        hang_up(conn);
    }
    if (*settings.exchange != 0) {
        Conn *conn = dial(0);
        declare_exchange(conn);
        int bindings = settings.bindings > 0 ? settings.bindings : settings.queues;
        pipelined(conn, bindings, bind_one, QUEUE_BIND_OK, "queue.bind");
        hang_up(conn);
    }
}

static void delete_named(Conn *conn, const char *name) {
    size_t start = method_open(conn, 1, 50, 40);
    put16(conn, 0);
    put_short(conn, name);
    put8(conn, 0);
    frame_close(conn, start);
}

static void delete_one(Conn *conn, int number) {
    char name[NAME_BYTES_MAX];
    queue_name(name, number);
    delete_named(conn, name);
}

static void delete_source(Conn *conn, int number) {
    char name[NAME_BYTES_MAX];
    source_name(name, number);
    delete_named(conn, name);
}

static void purge_one(Conn *conn, int number) {
    char name[NAME_BYTES_MAX];
    queue_name(name, number);
    size_t start = method_open(conn, 1, 50, 30);
    put16(conn, 0);
    put_short(conn, name);
    put8(conn, 0);
    frame_close(conn, start);
}

void tear_down(void) {
    if (is_transient()) return;
    Conn *conn = dial(0);
    if (*settings.exchange != 0) {
        char name[NAME_BYTES_MAX];
        exchange_name(name);
        size_t start = method_open(conn, 1, 40, 20);
        put16(conn, 0);
        put_short(conn, name);
        put8(conn, 0);
        frame_close(conn, start);
        flush(conn);
        await(conn, EXCHANGE_DELETE_OK, "exchange.delete");
    }
    pipelined(conn, settings.queues, delete_one, QUEUE_DELETE_OK, "queue.delete");
    if (settings.dead) pipelined(conn, settings.queues, delete_source, QUEUE_DELETE_OK, "queue.delete");
    hang_up(conn);
}

void purge(void) {
    if (is_transient()) return;
    Conn *conn = dial(0);
    pipelined(conn, settings.queues, purge_one, QUEUE_PURGE_OK, "queue.purge");
    hang_up(conn);
}

/* -- clients that each do one thing after the other ------------------------------------------------ */

static void run_clients(void *(*body)(void *)) {
    Client *clients = allocate((size_t)settings.clients * sizeof *clients);
    int64_t began = now_ns();
    for (int i = 0; i < settings.clients; i++) {
        clients[i].number = i;
        if (pthread_create(&clients[i].thread, NULL, body, &clients[i]) != 0) fail("cannot start a thread");
    }
    static Histogram all;
    int64_t done = 0;
    for (int i = 0; i < settings.clients; i++) {
        pthread_join(clients[i].thread, NULL);
        done += clients[i].done;
        for (int b = 0; b < BUCKETS; b++) all.count[b] += clients[i].latency.count[b];
    }
    measured_s = (double)(now_ns() - began) / 1e9;
    report_number("seconds", measured_s);
    report_number("done", (double)done);
    report_number("rate", (double)done / measured_s);
    report_histogram("latency", &all);
    free(clients);
}

static int64_t deadline(void) { return now_ns() + (int64_t)(settings.seconds * 1e9); }

static void *declare_client(void *argument) {
    Client *client = argument;
    Conn *conn = dial(client->number);
    char name[NAME_BYTES_MAX];
    for (int64_t end = deadline(), began = now_ns(); began < end; began = now_ns()) {
        queue_name(name, client->number + (int)client->done * settings.clients);
        declare_queue(conn, name, false);
        client->latency.count[bucket_of(now_ns() - began)]++;
        client->done++;
    }
    /* Deleted in the time of nobody: see declare_job. */
    hang_up(conn);
    return NULL;
}

void declare_job(void) {
    run_clients(declare_client);
}

static void *connect_client(void *argument) {
    Client *client = argument;
    for (int64_t end = deadline(), began = now_ns(); began < end; began = now_ns()) {
        hang_up(dial(client->number));
        client->latency.count[bucket_of(now_ns() - began)]++;
        client->done++;
    }
    return NULL;
}

void connect_job(void) { run_clients(connect_client); }

static void put_message(Conn *conn, const char *queue, const uint8_t *body) {
    size_t start = method_open(conn, 1, 60, 40);
    put16(conn, 0);
    put_short(conn, "");
    put_short(conn, queue);
    put8(conn, 0);
    frame_close(conn, start);
    start = frame_open(conn, FRAME_HEADER, 1);
    put16(conn, 60);
    put16(conn, 0);
    put64(conn, (uint64_t)settings.size);
    put16(conn, 0);
    frame_close(conn, start);
    if (settings.size > 0) {
        start = frame_open(conn, FRAME_BODY, 1);
        put(conn, body, (size_t)settings.size);
        frame_close(conn, start);
    }
    flush(conn);
}

static void await_message(Conn *conn) {
    Frame frame;
    long left = -1;
    while (left != 0) {
        while (!next_frame(conn, &frame))
            if (fill(conn, 0) == 0) fail("rpc: the broker closed the connection");
        if (frame.type == FRAME_METHOD && frame.method != BASIC_DELIVER) unexpected(&frame, "rpc");
        if (frame.type == FRAME_HEADER) left = (long)get64(frame.payload + 4);
        if (frame.type == FRAME_BODY) left -= (long)frame.size;
    }
}

/* Asks and answers by itself: the answering side is a thread with a connection of its own. */
typedef struct {
    Conn *conn;
    const char *reply_to;
    const uint8_t *body;
    volatile bool *is_over;
} Answerer;

static void *answer(void *argument) {
    Answerer *self = argument;
    for (;;) {
        await_message(self->conn);
        if (*self->is_over) return NULL;
        put_message(self->conn, self->reply_to, self->body);
    }
}

static void *rpc_client(void *argument) {
    Client *client = argument;
    char requests[NAME_BYTES_MAX], replies[NAME_BYTES_MAX];
    queue_name(requests, 2 * client->number);
    queue_name(replies, 2 * client->number + 1);
    uint8_t *body = allocate((size_t)settings.size + 1);
    Conn *asking = dial(settings.publish_at < 0 ? client->number : settings.publish_at);
    Conn *answering = dial(settings.consume_at < 0 ? client->number : settings.consume_at);
    declare_queue(asking, replies, true);
    declare_queue(answering, requests, true);
    start_consumer(asking, replies, 0, true);
    start_consumer(answering, requests, 0, true);
    volatile bool is_over = false;
    Answerer answerer = {answering, replies, body, &is_over};
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer, &answerer) != 0) fail("cannot start a thread");
    for (int64_t end = deadline(), began = now_ns(); began < end; began = now_ns()) {
        put_message(asking, requests, body);
        await_message(asking);
        client->latency.count[bucket_of(now_ns() - began)]++;
        client->done++;
    }
    is_over = true;
    put_message(asking, requests, body);
    pthread_join(thread, NULL);
    hang_up(asking);
    hang_up(answering);
    free(body);
    return NULL;
}

void rpc_job(void) { run_clients(rpc_client); }

/* Opens connections with a consumer each, says so, and keeps them until stdin ends. */
void idle_job(void) {
    char name[NAME_BYTES_MAX];
    int64_t began = now_ns();
    Conn **conns = allocate((size_t)settings.connections * sizeof *conns);
    for (int i = 0; i < settings.connections; i++) {
        conns[i] = dial(settings.consume_at < 0 ? i : settings.consume_at);
        queue_name(name, i % settings.queues);
        start_consumer(conns[i], name, settings.prefetch, false);
    }
    report_number("seconds", (double)(now_ns() - began) / 1e9);
    report_number("done", settings.connections);
    report_end();
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
    exit(0);
}

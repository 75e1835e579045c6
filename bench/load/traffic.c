/* Producers and consumers on epoll: one thread for all producers, one for all consumers.
 *
 * A producer writes from a buffer of publishes that was encoded once; only the stamp in each body changes:
 *   u64 time of sending in ns | u32 producer | u32 run | u64 sequence, from 1
 * With a rate the stamp is the time when the message was due, so a broker that stalls the producer pays for it.
 * A consumer reads the clock once for all that one read brought, and acks what that read completed.
 */
#include "load.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { STAMP_BYTES = 24, TEMPLATE_BYTES = 262144, EVENTS_MAX = 64, IDLE_MS = 20 };

typedef struct {
    Conn *conn;
    uint32_t number;
    int timer;                 /* with a rate: wakes when the next message is due */
    uint8_t *template;
    size_t *offset, *stamp;    /* of each message in the template; offset[count] is the end */
    size_t count, cursor;
    size_t pending, pending_end; /* of the template, encoded but not taken by the socket */
    int64_t seq, done, limit;  /* published, confirmed without a gap, most to publish */
    int64_t *sent_ns;          /* by sequence modulo window */
    bool *is_open;
    int64_t began_ns;
    bool wants_out, is_committing;
    volatile int64_t published, confirmed, nacked;
} Producer;

typedef struct {
    Conn *conn;
    uint64_t tag, acked;
    uint64_t left;             /* bytes of the body still to come */
    bool is_first;             /* the next body frame begins with the stamp */
    uint64_t *last;            /* newest sequence of each producer */
    volatile int64_t consumed, strays, disorder;
} Consumer;

typedef struct {
    pthread_t thread;
    int first, step;
} Worker;

static Producer *producers;
static Consumer *consumers;
static Histogram latency, confirm_latency;
static volatile bool is_measuring, is_stopping, is_over;
static uint32_t run_id;
static pthread_barrier_t ready;

/* -- producers -------------------------------------------------------------------------------------- */

static void encode_properties(Conn *into, size_t number) {
    bool is_persistent = strcmp(settings.kind, "transient") != 0;
    char expiration[16];
    snprintf(expiration, sizeof expiration, "%d", settings.expiration);
    put16(into, (is_persistent ? 0x1000 : 0) | (settings.priorities > 0 ? 0x0800 : 0) | (settings.expiration > 0 ? 0x0100 : 0));
    if (is_persistent) put8(into, 2);
    if (settings.priorities > 0) put8(into, (unsigned)(number % (size_t)(settings.priorities + 1)));
    if (settings.expiration > 0) put_short(into, expiration);
}

static void encode_publish(Conn *into, const char *exchange, const char *key, size_t number, size_t frame_bytes_max, size_t *stamp) {
    size_t start = method_open(into, 1, 60, 40);
    put16(into, 0);
    put_short(into, exchange);
    put_short(into, key);
    put8(into, 0);
    frame_close(into, start);
    start = frame_open(into, FRAME_HEADER, 1);
    put16(into, 60);
    put16(into, 0);
    put64(into, (uint64_t)settings.size);
    encode_properties(into, number);
    frame_close(into, start);
    uint8_t *zeros = allocate((size_t)settings.size);
    for (size_t left = (size_t)settings.size; left > 0;) {
        size_t part = left < frame_bytes_max - FRAME_OVERHEAD ? left : frame_bytes_max - FRAME_OVERHEAD;
        start = frame_open(into, FRAME_BODY, 1);
        if (left == (size_t)settings.size) *stamp = start;
        put(into, zeros, part);
        frame_close(into, start);
        left -= part;
    }
    free(zeros);
}

static void make_template(Producer *self) {
    Conn into = {0};
    char exchange[NAME_BYTES_MAX] = "", key[NAME_BYTES_MAX];
    size_t fit = TEMPLATE_BYTES / ((size_t)settings.size + 100);
    self->count = settings.bindings > 0 ? (size_t)settings.bindings : fit > 0 ? fit : 1;
    self->offset = allocate((self->count + 1) * sizeof *self->offset);
    self->stamp = allocate(self->count * sizeof *self->stamp);
    if (*settings.exchange != 0) exchange_name(exchange);
    for (size_t i = 0; i < self->count; i++) {
        if (settings.bindings > 0) binding_key(key, (int)i);
        else if (settings.dead) source_name(key, (int)self->number % settings.queues);
        else queue_name(key, (int)self->number % settings.queues);
        encode_publish(&into, exchange, key, i, self->conn->frame_bytes_max, &self->stamp[i]);
        self->offset[i + 1] = into.out_end;
    }
    self->template = into.out;
    for (size_t i = 0; i < self->count; i++) {
        set32(self->template + self->stamp[i] + 8, self->number);
        set32(self->template + self->stamp[i] + 12, run_id);
    }
    self->cursor = settings.bindings > 0 ? self->number * self->count / (size_t)settings.producers : 0;
}

static void open_producer(Producer *self, int number) {
    self->number = (uint32_t)number;
    int queue = number % settings.queues;
    int host = settings.publish_at < 0 ? (settings.queues == 1 ? number : queue) : settings.publish_at + number;
    self->conn = dial(host);
    if (settings.tx) select_transactions(self->conn);
    else if (settings.window > 0) select_confirms(self->conn);
    self->limit = settings.count > 0 ? settings.count / settings.producers + (number < settings.count % settings.producers) : INT64_MAX;
    self->sent_ns = allocate((size_t)(settings.window + 1) * sizeof *self->sent_ns);
    self->is_open = allocate((size_t)(settings.window + 1) * sizeof *self->is_open);
    self->timer = -1;
    make_template(self);
}

/* How many messages may go now, at most up to the end of the template. */
static int64_t allowed(const Producer *self, int64_t now) {
    if (is_stopping) return 0;
    int64_t can = (int64_t)(self->count - self->cursor);
    if (settings.window > 0 && settings.window - (self->seq - self->done) < can) can = settings.window - (self->seq - self->done);
    if (self->limit - self->seq < can) can = self->limit - self->seq;
    if (settings.rate > 0) {
        int64_t due = (int64_t)((double)(now - self->began_ns) / 1e9 * settings.rate / settings.producers) - self->seq;
        if (due < can) can = due;
    }
    return can;
}

static void stamp_run(Producer *self, int64_t can, int64_t now) {
    double gap_ns = settings.rate > 0 ? 1e9 * settings.producers / settings.rate : 0;
    for (int64_t i = 0; i < can; i++) {
        uint8_t *at = self->template + self->stamp[self->cursor + (size_t)i];
        self->seq++;
        int64_t stamp = gap_ns > 0 ? self->began_ns + (int64_t)((double)self->seq * gap_ns) : now;
        set64(at, (uint64_t)stamp);
        set64(at + 16, (uint64_t)self->seq);
        if (settings.window > 0) {
            self->sent_ns[self->seq % settings.window] = stamp;
            self->is_open[self->seq % settings.window] = true;
        }
    }
    self->pending = self->offset[self->cursor];
    self->pending_end = self->offset[self->cursor + (size_t)can];
    self->cursor = (self->cursor + (size_t)can) % self->count;
    self->published = self->seq;
}

static void watch(int epoll, int operation, int fd, void *who, bool in, bool out) {
    struct epoll_event event = {(in ? (uint32_t)EPOLLIN : 0) | (out ? (uint32_t)EPOLLOUT : 0), {.ptr = who}};
    if (epoll_ctl(epoll, operation, fd, &event) == -1) fail("epoll: %s", strerror(errno));
}

/* A window that is sent is a transaction that is complete. */
static void commit_full_window(Producer *self) {
    if (!settings.tx || self->is_committing || self->seq - self->done < settings.window) return;
    size_t start = method_open(self->conn, 1, 90, 20);
    frame_close(self->conn, start);
    flush(self->conn);
    self->is_committing = true;
}

static void produce(Producer *self, int epoll) {
    bool is_full = false;
    /* A few rounds at most, so that confirms are read too. */
    for (int turn = 0; turn < 4 && !is_full; turn++) {
        if (self->pending == self->pending_end) {
            int64_t now = now_ns(), can = allowed(self, now);
            if (can <= 0) break;
            stamp_run(self, can, now);
        }
        ssize_t count = send(self->conn->fd, self->template + self->pending, self->pending_end - self->pending, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count > 0) {
            self->pending += (size_t)count;
            if (self->pending == self->pending_end) commit_full_window(self);
        }
        else if (errno == EAGAIN || errno == EWOULDBLOCK) is_full = true;
        else fail("a producer lost its connection: %s", strerror(errno));
    }
    bool wants_out = self->pending < self->pending_end || (settings.rate <= 0 && allowed(self, 0) > 0);
    if (wants_out != self->wants_out) {
        watch(epoll, EPOLL_CTL_MOD, self->conn->fd, self, true, wants_out);
        self->wants_out = wants_out;
    }
    if (self->timer != -1) {
        int64_t due = self->began_ns + (int64_t)((double)(self->seq + 1) * 1e9 * settings.producers / settings.rate);
        struct itimerspec at = {.it_value = {due / 1000000000, due % 1000000000}};
        timerfd_settime(self->timer, TFD_TIMER_ABSTIME, &at, NULL);
    }
}

static void settle(Producer *self, const Frame *frame, int64_t now) {
    int64_t tag = (int64_t)get64(frame->payload + 4);
    bool is_multiple = frame->payload[12] & 1;
    int64_t settled = 0;
    for (int64_t seq = is_multiple ? self->done + 1 : tag; seq <= tag; seq++) {
        bool *is_open = &self->is_open[seq % settings.window];
        if (!*is_open) continue;
        *is_open = false;
        settled++;
        if (is_measuring) confirm_latency.count[bucket_of(now - self->sent_ns[seq % settings.window])]++;
    }
    while (self->done < self->seq && !self->is_open[(self->done + 1) % settings.window]) self->done++;
    if (frame->method == BASIC_NACK) self->nacked += settled;
    else self->confirmed += settled;
}

static void committed(Producer *self, int64_t now) {
    self->is_committing = false;
    for (; self->done < self->seq; self->done++, self->confirmed++)
        if (is_measuring) confirm_latency.count[bucket_of(now - self->sent_ns[(self->done + 1) % settings.window])]++;
}

static void read_confirms(Producer *self) {
    Frame frame;
    long count = fill(self->conn, MSG_DONTWAIT);
    if (count == 0) fail("the broker closed the connection of a producer");
    int64_t now = now_ns();
    while (next_frame(self->conn, &frame)) {
        if (frame.type != FRAME_METHOD) continue;
        if (frame.method == BASIC_ACK || frame.method == BASIC_NACK) settle(self, &frame, now);
        else if (frame.method == TX_COMMIT_OK) committed(self, now);
        else if (frame.method >> 16 != 10 || frame.method == CONNECTION_CLOSE) unexpected(&frame, "producer");
    }
}

static void *produce_all(void *argument) {
    Worker *worker = argument;
    int epoll = epoll_create1(0);
    pthread_barrier_wait(&ready);
    for (int i = worker->first; i < settings.producers; i += worker->step) {
        Producer *self = &producers[i];
        self->began_ns = now_ns();
        watch(epoll, EPOLL_CTL_ADD, self->conn->fd, self, true, false);
        if (settings.rate > 0) {
            self->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
            watch(epoll, EPOLL_CTL_ADD, self->timer, self, true, false);
        }
        produce(self, epoll);
    }
    struct epoll_event events[EVENTS_MAX];
    while (!is_over) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, IDLE_MS);
        for (int i = 0; i < count; i++) {
            Producer *self = events[i].data.ptr;
            /* A timer and a socket look alike here; to look at both costs one call that would block. */
            if (self->timer != -1) {
                uint64_t ticks;
                (void)!read(self->timer, &ticks, sizeof ticks);
            }
            if (self->timer != -1 || !(events[i].events == EPOLLOUT)) read_confirms(self);
            produce(self, epoll);
        }
    }
    close(epoll);
    return NULL;
}

/* -- consumers -------------------------------------------------------------------------------------- */

static void open_consumer(Consumer *self, int number) {
    char name[NAME_BYTES_MAX];
    int queue = number % settings.queues;
    queue_name(name, queue);
    self->conn = dial(settings.consume_at < 0 ? (settings.queues == 1 ? number : queue) : settings.consume_at + number);
    if (strcmp(settings.kind, "transient") == 0) declare_queue(self->conn, name, true);
    start_consumer(self->conn, name, settings.prefetch, settings.ack == 0);
    self->last = allocate((size_t)(settings.producers + 1) * sizeof *self->last);
}

static void put_ack(Consumer *self, uint64_t tag, bool is_multiple) {
    size_t start = method_open(self->conn, 1, 60, 80);
    put64(self->conn, tag);
    put8(self->conn, is_multiple);
    frame_close(self->conn, start);
    self->acked = tag;
}

static void take_stamp(Consumer *self, const uint8_t *at, int64_t now) {
    if (get32(at + 12) != run_id) {
        self->strays++;
        return;
    }
    uint32_t producer = get32(at + 8);
    uint64_t seq = get64(at + 16);
    if (is_measuring) latency.count[bucket_of(now - (int64_t)get64(at))]++;
    if (producer >= (uint32_t)settings.producers || settings.consumers > settings.queues) return;
    if (seq <= self->last[producer]) self->disorder++;
    else self->last[producer] = seq;
}

static void message_ended(Consumer *self) {
    self->consumed++;
    if (settings.ack == 1) put_ack(self, self->tag, false);
    else if (settings.ack > 0 && self->tag - self->acked >= (uint64_t)settings.ack) put_ack(self, self->tag, true);
}

static void consume(Consumer *self) {
    Frame frame;
    if (fill(self->conn, MSG_DONTWAIT) == 0) fail("the broker closed the connection of a consumer");
    int64_t now = now_ns();
    while (next_frame(self->conn, &frame)) {
        if (frame.type == FRAME_METHOD) {
            if (frame.method == BASIC_DELIVER) self->tag = get64(frame.payload + 5 + frame.payload[4]);
            else if (frame.method >> 16 != 10 || frame.method == CONNECTION_CLOSE) unexpected(&frame, "consumer");
        } else if (frame.type == FRAME_HEADER) {
            self->left = get64(frame.payload + 4);
            self->is_first = true;
            if (self->left == 0) message_ended(self);
        } else if (frame.type == FRAME_BODY) {
            if (self->is_first && frame.size >= STAMP_BYTES) take_stamp(self, frame.payload, now);
            self->is_first = false;
            self->left -= frame.size;
            if (self->left == 0) message_ended(self);
        }
    }
    if (self->conn->out_end > 0) flush(self->conn);
}

static void *consume_all(void *argument) {
    Worker *worker = argument;
    int epoll = epoll_create1(0);
    for (int i = worker->first; i < settings.consumers; i += worker->step)
        watch(epoll, EPOLL_CTL_ADD, consumers[i].conn->fd, &consumers[i], true, false);
    pthread_barrier_wait(&ready);
    struct epoll_event events[EVENTS_MAX];
    while (!is_over) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, IDLE_MS);
        for (int i = 0; i < count; i++) consume(events[i].data.ptr);
        if (count > 0 && settings.ack <= 1) continue;
        /* Nothing comes: ack what is left over, lest the prefetch be used up by it. */
        for (int i = worker->first; count == 0 && i < settings.consumers; i += worker->step) {
            Consumer *self = &consumers[i];
            if (settings.ack == 0 || self->tag == self->acked || self->left > 0) continue;
            put_ack(self, self->tag, true);
            flush(self->conn);
        }
    }
    close(epoll);
    return NULL;
}

/* -- the run ---------------------------------------------------------------------------------------- */

typedef struct {
    int64_t published, confirmed, nacked, consumed, strays, disorder;
} Totals;

static Totals totals(void) {
    Totals sum = {0};
    for (int i = 0; i < settings.producers; i++) {
        sum.published += producers[i].published;
        sum.confirmed += producers[i].confirmed;
        sum.nacked += producers[i].nacked;
    }
    for (int i = 0; i < settings.consumers; i++) {
        sum.consumed += consumers[i].consumed;
        sum.strays += consumers[i].strays;
        sum.disorder += consumers[i].disorder;
    }
    return sum;
}

static int64_t expected(Totals sum) {
    if (settings.consumers == 0) return 0;
    if (settings.producers == 0) return settings.count;
    return sum.published * (strcmp(settings.exchange, "fanout") == 0 ? settings.queues : 1);
}

static bool is_complete(Totals sum) {
    bool is_confirmed = settings.window == 0 || sum.confirmed + sum.nacked >= sum.published;
    return is_confirmed && (settings.consumers == 0 || sum.consumed >= expected(sum));
}

/* Until everything is confirmed and consumed, or for `seconds`. */
static void wait_until_complete(double seconds) {
    int64_t end = now_ns() + (int64_t)(seconds * 1e9);
    while (now_ns() < end) {
        Totals sum = totals();
        bool is_published = is_stopping || settings.producers == 0 || sum.published >= settings.count;
        if (is_published && is_complete(sum)) return;
        sleep_s(0.001);
    }
}

static void start(Worker *workers) {
    int sides = settings.threads > 1 ? settings.threads / 2 : 1;
    pthread_barrier_init(&ready, NULL, (unsigned)(2 * sides + 1));
    for (int i = 0; i < 2 * sides; i++) {
        workers[i] = (Worker){.first = i / 2, .step = sides};
        if (pthread_create(&workers[i].thread, NULL, i % 2 ? consume_all : produce_all, &workers[i]) != 0)
            fail("cannot start a thread");
    }
    pthread_barrier_wait(&ready);
}

static void report(Totals before, Totals after, Totals end, double seconds) {
    report_number("seconds", seconds);
    report_number("published", (double)end.published);
    report_number("confirmed", (double)end.confirmed);
    report_number("nacked", (double)end.nacked);
    report_number("consumed", (double)end.consumed);
    report_number("missing", (double)(expected(end) - end.consumed + end.strays));
    report_number("strays", (double)end.strays);
    report_number("disorder", (double)end.disorder);
    report_number("publish_rate", (double)(after.published - before.published) / seconds);
    report_number("confirm_rate", (double)(after.confirmed - before.confirmed) / seconds);
    report_number("consume_rate", (double)(after.consumed - before.consumed) / seconds);
    report_histogram("latency", &latency);
    report_histogram("confirm_latency", &confirm_latency);
}

void traffic(void) {
    if (settings.size < STAMP_BYTES) fail("size: at least %d", STAMP_BYTES);
    run_id = (uint32_t)now_ns() ^ (uint32_t)getpid() << 16;
    producers = allocate((size_t)(settings.producers + 1) * sizeof *producers);
    consumers = allocate((size_t)(settings.consumers + 1) * sizeof *consumers);
    for (int i = 0; i < settings.consumers; i++) open_consumer(&consumers[i], i);
    for (int i = 0; i < settings.producers; i++) open_producer(&producers[i], i);
    Worker *workers = allocate((size_t)(settings.threads + 2) * sizeof *workers);
    start(workers);
    if (settings.count == 0) sleep_s(settings.warmup);
    Totals before = totals();
    if (settings.count > 0) before = (Totals){0};
    int64_t began = now_ns();
    is_measuring = true;
    if (settings.count > 0) wait_until_complete(settings.seconds);
    else sleep_s(settings.seconds);
    is_measuring = false;
    Totals after = totals();
    double seconds = (double)(now_ns() - began) / 1e9;
    is_stopping = true;
    if (settings.producers > 0) wait_until_complete(settings.drain);
    is_over = true;
    for (int i = 0; i < (settings.threads > 1 ? settings.threads / 2 * 2 : 2); i++) pthread_join(workers[i].thread, NULL);
    Totals end = totals();
    report(before, after, end, seconds);
    for (int i = 0; i < settings.consumers; i++) hang_up(consumers[i].conn);
    for (int i = 0; i < settings.producers; i++) hang_up(producers[i].conn);
}

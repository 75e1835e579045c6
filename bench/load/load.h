/* The load generator of the benchmark: an AMQP 0-9-1 client that costs little, so that the broker is measured.
 *
 *   wire.c     connections and frames, blocking: handshake, declarations, one answer at a time
 *   traffic.c  producers and consumers on epoll: pre-encoded runs, confirms and acks as ranges
 *   jobs.c     everything that is one answer at a time: declare, connect, rpc, idle
 *   main.c     settings (key=value), the choice of the job, the report (one JSON object on stdout)
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3, FRAME_HEARTBEAT = 8, FRAME_END = 0xCE };
enum { FRAME_OVERHEAD = 8, FRAME_BYTES_MAX = 131072, NAME_BYTES_MAX = 200 };

#define METHOD(class_id, method_id) ((uint32_t)(class_id) << 16 | (method_id))
#define CONNECTION_START METHOD(10, 10)
#define CONNECTION_TUNE METHOD(10, 30)
#define CONNECTION_OPEN_OK METHOD(10, 41)
#define CONNECTION_CLOSE METHOD(10, 50)
#define CONNECTION_CLOSE_OK METHOD(10, 51)
#define CHANNEL_OPEN_OK METHOD(20, 11)
#define CHANNEL_CLOSE METHOD(20, 40)
#define EXCHANGE_DECLARE_OK METHOD(40, 11)
#define EXCHANGE_DELETE_OK METHOD(40, 21)
#define QUEUE_DECLARE_OK METHOD(50, 11)
#define QUEUE_BIND_OK METHOD(50, 21)
#define QUEUE_PURGE_OK METHOD(50, 31)
#define QUEUE_DELETE_OK METHOD(50, 41)
#define BASIC_QOS_OK METHOD(60, 11)
#define BASIC_CONSUME_OK METHOD(60, 21)
#define BASIC_DELIVER METHOD(60, 60)
#define BASIC_ACK METHOD(60, 80)
#define BASIC_NACK METHOD(60, 120)
#define CONFIRM_SELECT_OK METHOD(85, 11)
#define TX_SELECT_OK METHOD(90, 11)
#define TX_COMMIT_OK METHOD(90, 21)

typedef struct {
    const char *hosts, *user, *password, *vhost;
    const char *name;     /* prefix of every queue and exchange */
    const char *kind;     /* quorum, classic, or transient: exclusive, of the consumer's connection */
    const char *exchange; /* "": the default exchange; fanout; topic */
    int producers, consumers, queues, bindings;
    int size, window, prefetch, ack;
    int publish_at, consume_at; /* first host of producers and consumers, -1: where the queue was declared */
    int clients, connections, threads;
    int ttl, length, priorities; /* arguments of the queues, 0: none */
    int expiration;              /* of each message in ms, 0: none */
    int dead;                    /* 1: publish to queues in which everything expires at once, and consume the dead letters */
    int tx;                      /* 1: each window of messages is a transaction */
    double seconds, warmup, drain, rate;
    int64_t count; /* messages in all, 0: by time */
} Settings;

extern Settings settings;

/* Log-linear histogram of nanoseconds: 64 buckets to a power of two, so a bucket is at most 1.6 % wide. */
enum { SUB_BITS = 6, BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS };
typedef struct {
    uint64_t count[BUCKETS];
} Histogram;

static inline unsigned bucket_of(int64_t ns) {
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;
    if (value < 1 << SUB_BITS) return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return ((shift + 1) << SUB_BITS) + (unsigned)(value >> shift & ((1 << SUB_BITS) - 1));
}

typedef struct {
    int fd;
    uint8_t *in, *out;
    size_t in_start, in_end, in_size, out_end, out_size;
    size_t frame_bytes_max;
} Conn;

typedef struct {
    uint8_t type;
    uint8_t *payload;
    size_t size;
    uint32_t method; /* of a method frame, else 0 */
} Frame;

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t now_ns(void);
void sleep_s(double seconds);
void *allocate(size_t bytes);

uint16_t get16(const uint8_t *at);
uint32_t get32(const uint8_t *at);
uint64_t get64(const uint8_t *at);
void set32(uint8_t *at, uint32_t value);
void set64(uint8_t *at, uint64_t value);

/* Writing into conn->out. A frame is opened, filled and closed. */
void put(Conn *conn, const void *bytes, size_t count);
void put8(Conn *conn, unsigned value);
void put16(Conn *conn, unsigned value);
void put32(Conn *conn, uint32_t value);
void put64(Conn *conn, uint64_t value);
void put_short(Conn *conn, const char *text);
size_t frame_open(Conn *conn, unsigned type, unsigned channel);
size_t method_open(Conn *conn, unsigned channel, unsigned class_id, unsigned method_id);
void frame_close(Conn *conn, size_t start);
void flush(Conn *conn);

/* Reading. `next_frame` takes one from the buffer; `fill` reads once (-1: would block, 0: closed). */
bool next_frame(Conn *conn, Frame *frame);
long fill(Conn *conn, int flags);
void unexpected(const Frame *frame, const char *where);
Frame await(Conn *conn, uint32_t method, const char *what);

Conn *dial(int host);
void hang_up(Conn *conn);
void queue_name(char *into, int number);
void exchange_name(char *into);
void binding_key(char *into, int number);
void source_name(char *into, int number);
void declare_queue(Conn *conn, const char *name, bool is_exclusive);
void declare_source(Conn *conn, int number);
void start_consumer(Conn *conn, const char *queue, int prefetch, bool no_ack);
void select_confirms(Conn *conn);
void select_transactions(Conn *conn);

/* Jobs; each prints the fields of its report. */
void set_up(void);
void tear_down(void);
void purge(void);
void traffic(void);
void declare_job(void);
void connect_job(void);
void rpc_job(void);
void idle_job(void);

void report_start(void);
void report_number(const char *key, double value);
void report_histogram(const char *key, const Histogram *histogram);
void report_end(void);

#endif

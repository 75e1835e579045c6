/* Settings as key=value, the choice of the job, and the report: load JOB KEY=VALUE... */
#include "load.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

Settings settings = {
    .hosts = "127.0.0.1:5672",
    .user = "guest",
    .password = "guest",
    .vhost = "/",
    .name = "bench",
    .kind = "quorum",
    .exchange = "",
    .producers = 1,
    .consumers = 1,
    .queues = 1,
    .bindings = 0,
    .size = 1024,
    .window = 500,
    .prefetch = 500,
    .ack = 50,
    .publish_at = -1,
    .consume_at = -1,
    .clients = 1,
    .connections = 1,
    .threads = 2,
    .seconds = 5,
    .warmup = 1,
    .drain = 10,
};

static bool set_text(const char *key, const char *value) {
    const struct {
        const char *key;
        const char **at;
    } texts[] = {
        {"hosts", &settings.hosts}, {"user", &settings.user}, {"password", &settings.password},
        {"vhost", &settings.vhost}, {"name", &settings.name}, {"kind", &settings.kind},
        {"exchange", &settings.exchange},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(texts[i].key, key) != 0) continue;
        *texts[i].at = value;
        return true;
    }
    return false;
}

static bool set_integer(const char *key, double value) {
    const struct {
        const char *key;
        int *at;
    } integers[] = {
        {"producers", &settings.producers},   {"consumers", &settings.consumers},
        {"queues", &settings.queues},         {"bindings", &settings.bindings},
        {"size", &settings.size},             {"window", &settings.window},
        {"prefetch", &settings.prefetch},     {"ack", &settings.ack},
        {"publish_at", &settings.publish_at}, {"consume_at", &settings.consume_at},
        {"clients", &settings.clients},       {"connections", &settings.connections},
        {"threads", &settings.threads},
        {"ttl", &settings.ttl},               {"length", &settings.length},
        {"priorities", &settings.priorities}, {"expiration", &settings.expiration},
        {"dead", &settings.dead},             {"tx", &settings.tx},
    };
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        if (strcmp(integers[i].key, key) != 0) continue;
        *integers[i].at = (int)value;
        return true;
    }
    return false;
}

static bool set_number(const char *key, double value) {
    const struct {
        const char *key;
        double *at;
    } numbers[] = {
        {"seconds", &settings.seconds}, {"warmup", &settings.warmup},
        {"drain", &settings.drain},     {"rate", &settings.rate},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(numbers[i].key, key) != 0) continue;
        *numbers[i].at = value;
        return true;
    }
    if (strcmp(key, "count") != 0) return false;
    settings.count = (int64_t)value;
    return true;
}

static void set(char *pair) {
    char *equals = strchr(pair, '=');
    if (equals == NULL) fail("%s is not key=value", pair);
    *equals = 0;
    char *end;
    double value = strtod(equals + 1, &end);
    bool is_number = end != equals + 1 && *end == 0;
    if (set_text(pair, equals + 1)) return;
    if (!is_number || !(set_integer(pair, value) || set_number(pair, value))) fail("unknown setting %s=%s", pair, equals + 1);
}

static bool is_first = true;

void report_start(void) { putchar('{'); }

static void report_key(const char *key) {
    printf("%s\"%s\": ", is_first ? "" : ", ", key);
    is_first = false;
}

void report_number(const char *key, double value) {
    report_key(key);
    printf("%.17g", value);
}

void report_histogram(const char *key, const Histogram *histogram) {
    report_key(key);
    putchar('[');
    bool first = true;
    for (int i = 0; i < BUCKETS; i++) {
        if (histogram->count[i] == 0) continue;
        printf("%s[%d, %llu]", first ? "" : ", ", i, (unsigned long long)histogram->count[i]);
        first = false;
    }
    putchar(']');
}

void report_end(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    report_number("cpu_s", (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                               1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec));
    puts("}");
}

int main(int argc, char **argv) {
    const struct {
        const char *name;
        void (*run)(void);
    } jobs[] = {
        {"setup", set_up},        {"teardown", tear_down},  {"purge", purge},   {"traffic", traffic},
        {"declare", declare_job}, {"connect", connect_job}, {"rpc", rpc_job}, {"idle", idle_job},
    };
    if (argc < 2) fail("load JOB KEY=VALUE...");
    for (int i = 2; i < argc; i++) set(argv[i]);
    if (strlen(settings.name) > NAME_BYTES_MAX - 40) fail("name: too long");
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        if (strcmp(jobs[i].name, argv[1]) != 0) continue;
        report_start();
        jobs[i].run();
        report_end();
        return 0;
    }
    fail("unknown job %s", argv[1]);
}

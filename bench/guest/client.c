/*
 * client: the loads of load/loads.py by libxenstore through /dev/xen/xenbus, in a Linux guest.
 *
 *   client COUNT WORKERS    one line for each load, by one process and by WORKERS (2 or more):
 *                           "client NAME|WORKERS|COUNT|NS"
 *
 * Rule: libxenstore waits for each reply, so many in flight are processes with a connection each.
 */
#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <xenstore.h>

#define TOP "data/client"
#define CHILDREN 20

static struct xs_handle *store;
static char mine[64];
static char large[3072];

static bool small_read(void)
{
    unsigned int length;
    char *value = xs_read(store, XBT_NULL, TOP "/small", &length);

    free(value);
    return value != NULL;
}

static bool small_write(void)
{
    return xs_write(store, XBT_NULL, mine, "0123456789", 10);
}

static bool large_write(void)
{
    return xs_write(store, XBT_NULL, mine, large, sizeof(large));
}

static bool directory(void)
{
    unsigned int count;
    char **names = xs_directory(store, XBT_NULL, TOP "/list", &count);

    free(names);
    return names != NULL && count == CHILDREN;
}

static const struct {
    const char *name;
    bool (*operation)(void);
} loads[] = {
    { "small reads", small_read },
    { "small writes", small_write },
    { "3 KiB writes", large_write },
    { "directory listings", directory },
};

static void connect_as(int worker)
{
    store = xs_open(0);
    if (!store)
        err(1, "xs_open");
    snprintf(mine, sizeof(mine), TOP "/w%d", worker);
}

static void prepare(int workers)
{
    char path[64];

    connect_as(0);
    xs_write(store, XBT_NULL, TOP "/small", "0123456789", 10);
    for (int i = 0; i < CHILDREN; i++) {
        snprintf(path, sizeof(path), TOP "/list/child-%d", i);
        xs_write(store, XBT_NULL, path, "", 0);
    }
    for (int i = 0; i < workers; i++) {
        snprintf(path, sizeof(path), TOP "/w%d", i);
        xs_write(store, XBT_NULL, path, "", 0);
    }
    xs_close(store);
    memset(large, 'x', sizeof(large));
}

/* The child of one worker: says that it is ready, waits for the start, works, ends. */
static void work(int worker, bool (*operation)(void), int count, int ready, int start)
{
    char byte = 0;

    connect_as(worker);
    if (write(ready, &byte, 1) != 1 || read(start, &byte, 1) != 0)
        err(1, "worker %d", worker);
    for (int i = 0; i < count; i++) {
        if (!operation())
            err(1, "worker %d, operation %d", worker, i);
    }
    _exit(0);
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static uint64_t measure(bool (*operation)(void), int count, int workers)
{
    int ready[2], start[2], status;
    uint64_t begin;
    char byte;

    if (pipe(ready) || pipe(start))
        err(1, "pipe");
    for (int i = 0; i < workers; i++) {
        if (fork() == 0) {
            close(start[1]);
            work(i, operation, count / workers, ready[1], start[0]);
        }
    }
    for (int i = 0; i < workers; i++) {
        if (read(ready[0], &byte, 1) != 1)
            err(1, "workers");
    }
    begin = now();
    close(start[1]);
    for (int i = 0; i < workers; i++) {
        if (wait(&status) < 0 || status)
            errx(1, "a worker failed");
    }
    close(start[0]);
    close(ready[0]);
    close(ready[1]);
    return now() - begin;
}

int main(int argc, char **argv)
{
    int count = argc == 3 ? atoi(argv[1]) : 0;
    int many = argc == 3 ? atoi(argv[2]) : 0;

    if (count < 1 || many < 2)
        errx(2, "usage: client COUNT WORKERS");
    prepare(many);
    for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
        for (int workers = 1; workers <= many; workers += many - 1) {
            uint64_t ns = measure(loads[i].operation, count, workers);

            printf("client %s|%d|%d|%" PRIu64 "\n", loads[i].name, workers, count, ns);
            fflush(stdout);
        }
    }
    return 0;
}

/*
 * pattern: load on a block device that knows what must be on it, in a Linux guest.
 *
 *   pattern DEVICE SEED THREADS    until a line comes on standard input
 *
 * Threads write runs of 4 KiB blocks at random, each in a part of the device that is its own, and
 * read some back; now and then one flushes. A block says whose it is: seed, number, generation, and
 * words that follow from these. What was acknowledged must be there: at each read, after the device
 * was lost and has come back, and at the end, when all of it is read; then a line tells the CRC-32
 * of the device as it was read: "good, WRITES writes, LOST times lost, sum CRC".
 *
 * Rule: a block whose write failed may hold anything until it is written again; a block that was
 * never written is zeroes. The device begins as zeroes. Lines begin with "pattern SEED: ".
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 4096
#define WORDS (BLOCK / 8)
#define RUN 32
#define ALL 256 /* blocks of a read when everything is read */
#define FLUSHES 64
#define READS 4
#define TOLD 50 /* writes */
#define UNKNOWN UINT32_MAX

struct part {
    pthread_t thread;
    uint64_t random;
    uint32_t first, count; /* blocks */
    uint32_t generation;
    uint64_t *buffer;
};

static const char *device;
static uint64_t seed;
static uint32_t blocks;
static uint32_t *generations; /* of each block: what was acknowledged last */
static int fd;
static atomic_bool stopping;
static atomic_int failed; /* errno of the first I/O that failed */
static atomic_ulong writes;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[200];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    printf("pattern %" PRIu64 ": %s\n", seed, line);
    fflush(stdout);
}

static uint64_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state ^ *state >> 29;
}

static void fill(uint64_t *words, uint32_t block, uint32_t generation)
{
    uint64_t state = seed << 48 ^ (uint64_t)block << 24 ^ generation;

    words[0] = seed;
    words[1] = (uint64_t)block << 32 | generation;
    for (int i = 2; i < WORDS; i++)
        words[i] = next(&state);
}

static void check(const uint64_t *words, uint32_t block)
{
    uint64_t wanted[WORDS] = { 0 };

    if (generations[block] == UNKNOWN)
        return;
    if (generations[block])
        fill(wanted, block, generations[block]);
    if (memcmp(wanted, words, BLOCK)) {
        say("bad, block %u: expected generation %u, found seed %" PRIu64 " block %" PRIu64
            " generation %" PRIu64,
            block, generations[block], words[0], words[1] >> 32, words[1] & UINT32_MAX);
        _exit(1);
    }
}

static bool done(ssize_t got, ssize_t wanted)
{
    int none = 0;

    if (got == wanted)
        return true;
    atomic_compare_exchange_strong(&failed, &none, got < 0 ? errno : EIO);
    return false;
}

static void count_one(void)
{
    unsigned long count = ++writes;

    if (count % TOLD == 0)
        say("%lu writes", count);
}

static void step(struct part *part)
{
    uint32_t count = 1 + next(&part->random) % RUN;
    uint32_t first = part->first + next(&part->random) % (part->count - count);
    off_t offset = (off_t)first * BLOCK;
    uint64_t choice = next(&part->random);

    if (choice % FLUSHES == 0) {
        done(fdatasync(fd), 0);
    } else if (choice % READS == 0) {
        if (!done(pread(fd, part->buffer, count * BLOCK, offset), count * BLOCK))
            return;
        for (uint32_t i = 0; i < count; i++)
            check(part->buffer + i * WORDS, first + i);
    } else {
        part->generation++;
        for (uint32_t i = 0; i < count; i++) {
            fill(part->buffer + i * WORDS, first + i, part->generation);
            generations[first + i] = UNKNOWN;
        }
        if (!done(pwrite(fd, part->buffer, count * BLOCK, offset), count * BLOCK))
            return;
        for (uint32_t i = 0; i < count; i++)
            generations[first + i] = part->generation;
        count_one();
    }
}

static void *work(void *argument)
{
    while (!stopping && !failed)
        step(argument);
    return NULL;
}

/* Waits for the device. Gives its size in bytes. */
static off_t take_up(void)
{
    off_t size;

    while ((fd = open(device, O_RDWR | O_DIRECT)) < 0 || (size = lseek(fd, 0, SEEK_END)) <= 0) {
        if (fd >= 0)
            close(fd);
        usleep(10000);
    }
    return size;
}

/* Reads and checks everything. Gives the CRC-32 of it (as zlib has it), or fails as an I/O does. */
static uint32_t check_all(uint64_t *buffer)
{
    uint32_t crc = UINT32_MAX, table[256];

    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xEDB88320 : 0);
    }
    for (uint32_t first = 0; first < blocks; first += ALL) {
        uint32_t count = blocks - first < ALL ? blocks - first : ALL;

        if (!done(pread(fd, buffer, count * BLOCK, (off_t)first * BLOCK), count * BLOCK))
            return 0;
        for (uint32_t i = 0; i < count; i++)
            check(buffer + i * WORDS, first + i);
        for (const uint8_t *byte = (uint8_t *)buffer; byte < (uint8_t *)buffer + count * BLOCK;
             byte++)
            crc = crc >> 8 ^ table[(crc ^ *byte) & 255];
    }
    return ~crc;
}

int main(int argc, char **argv)
{
    uint32_t threads, sum = 0, lost = 0;
    struct part *parts;
    uint64_t *buffer;
    struct pollfd line = { .fd = 0, .events = POLLIN };

    if (argc != 4)
        errx(2, "usage: pattern DEVICE SEED THREADS");
    device = argv[1];
    seed = strtoul(argv[2], NULL, 0);
    threads = strtoul(argv[3], NULL, 0);
    blocks = take_up() / BLOCK;
    generations = calloc(blocks, sizeof(*generations));
    parts = calloc(threads, sizeof(*parts));
    buffer = aligned_alloc(BLOCK, ALL * BLOCK);
    for (uint32_t i = 0; i < threads; i++) {
        parts[i].count = blocks / threads;
        parts[i].first = i * parts[i].count;
        parts[i].random = seed * 1000 + i;
        parts[i].buffer = aligned_alloc(BLOCK, RUN * BLOCK);
    }
    say("begins");
    for (;;) {
        for (uint32_t i = 0; i < threads; i++)
            pthread_create(&parts[i].thread, NULL, work, &parts[i]);
        while (!failed && !stopping)
            stopping = poll(&line, 1, 10) > 0;
        for (uint32_t i = 0; i < threads; i++)
            pthread_join(parts[i].thread, NULL);
        if (!failed)
            done(fdatasync(fd), 0);
        if (!failed)
            sum = check_all(buffer);
        if (!failed)
            break;
        lost++;
        say("lost, %s", strerror(failed));
        do {
            failed = 0;
            close(fd);
            take_up();
            check_all(buffer);
        } while (failed);
        say("back");
    }
    say("good, %lu writes, %u times lost, sum %08x", writes, lost, sum);
    return 0;
}

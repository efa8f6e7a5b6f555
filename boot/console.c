/*
 * The two consoles that print writes to: port 0xE9 (Xen's own log; QEMU's -debugcon), and the PV
 * console ring, which `xl console` shows, if the domain has one. What is typed there is read from
 * the same ring.
 *
 * Rule: the peer of the ring may be slow or absent, and the crashed kernel may have left wrong
 * indexes. We own out_prod and in_cons and read them once, at start. When the ring is full we wait
 * a short time, then drop output until there is room again.
 * Source: xen/include/public/io/console.h, hvm/params.h.
 */
#include "console.h"

#include "cpu.h"
#include "layout.h"
#include "paging.h"
#include "xen.h"

#define PORT_DEBUG 0xe9
#define IN_SIZE 1024
#define OUT_SIZE 2048
#define FULL_WAIT_MS 200

struct xencons_interface {
    char in[IN_SIZE];
    char out[OUT_SIZE];
    uint32_t in_cons, in_prod;
    uint32_t out_cons, out_prod;
};

static volatile struct xencons_interface *ring;
static uint32_t port;
static uint32_t prod; /* our copy of ring->out_prod, which the peer cannot overwrite */
static int dropping;
static uint32_t taken;  /* our copy of ring->in_cons */
static uint32_t looked; /* up to here console_find has looked */

static void print_strn(void *data, const char *text, size_t len)
{
    (void)data;
    console_write(text, len);
}

static void debug_strn(void *data, const char *text, size_t len)
{
    (void)data;
    for (size_t i = 0; i < len; i++)
        outb(PORT_DEBUG, text[i]);
}

const mp_print_t console_print = { 0, print_strn };
const mp_print_t debug_print = { 0, debug_strn };

/* Returns the free bytes of the ring. If the indexes are impossible, ours is set to the
 * reader's. */
static uint32_t room(void)
{
    uint32_t cons = ring->out_cons;

    if (prod - cons > OUT_SIZE) {
        prod = cons;
        ring->out_prod = prod;
    }
    return OUT_SIZE - (prod - cons);
}

void console_attach(void)
{
    uint64_t pfn, evtchn;

    if (!xen_base())
        return;
    if (hvm_get_param(HVM_PARAM_CONSOLE_PFN, &pfn) ||
        hvm_get_param(HVM_PARAM_CONSOLE_EVTCHN, &evtchn))
        return;
    if (!pfn || pfn >= paging_limit() / PAGE_SIZE || !evtchn || evtchn > UINT32_MAX)
        return;
    port = evtchn;
    ring = (volatile struct xencons_interface *)(pfn * PAGE_SIZE);
    prod = ring->out_prod;
    taken = looked = ring->in_cons;
}

static void notify(void)
{
    struct evtchn_send send = { port };

    hypercall2(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (uintptr_t)&send);
}

/* Waits at most `ms` until the ring has more than `least` free bytes. Returns 0 if it has not. A
 * yield takes more than a microsecond, so counting yields ends the wait even if the clock stands
 * still. */
static int wait_room(uint32_t least, uint32_t ms)
{
    uint64_t end = xen_now() + ms * 1000000ULL;
    uint64_t yields = ms * 1000ULL;

    while (room() <= least) {
        if (xen_now() >= end || !yields--)
            return 0;
        hypercall2(__HYPERVISOR_sched_op, SCHEDOP_yield, 0);
    }
    return 1;
}

static void ring_put(char c)
{
    if (!ring)
        return;
    if (!room()) {
        if (dropping)
            return;
        notify();
        if (!wait_room(0, FULL_WAIT_MS)) {
            dropping = 1;
            return;
        }
    }
    dropping = 0;
    ring->out[prod % OUT_SIZE] = c;
    /* The byte is written before the index. x86 keeps the order; this holds the compiler to it. */
    __asm__ volatile("" ::: "memory");
    ring->out_prod = ++prod;
}

void console_write(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        outb(PORT_DEBUG, text[i]);
        if (text[i] == '\n')
            ring_put('\r');
        ring_put(text[i]);
    }
    if (ring && len)
        notify();
}

void console_flush(uint32_t ms)
{
    if (!ring)
        return;
    notify();
    wait_room(OUT_SIZE - 1, ms);
}

/* Returns how many bytes were typed and not taken. An impossible index counts as none. */
static uint32_t typed(void)
{
    uint32_t count = ring ? ring->in_prod - taken : 0;

    if (count <= IN_SIZE)
        return count;
    taken = looked = ring->in_prod;
    return 0;
}

static void take(uint32_t count)
{
    /* The bytes are read before their room is given back. */
    __asm__ volatile("" ::: "memory");
    taken += count;
    ring->in_cons = taken;
    /* A writer that found no room waits for this. */
    if (!typed())
        notify();
}

int console_read(void)
{
    uint8_t c;

    if (!typed())
        return -1;
    c = ring->in[taken % IN_SIZE];
    take(1);
    return c;
}

int console_find(char wanted)
{
    uint32_t end = taken + typed();

    if (looked - taken > IN_SIZE)
        looked = taken;
    while (looked != end) {
        if (ring->in[looked++ % IN_SIZE] == wanted) {
            take(looked - taken);
            return 1;
        }
    }
    return 0;
}

uint32_t console_port(void)
{
    return ring ? port : 0;
}

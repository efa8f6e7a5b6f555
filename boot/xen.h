/*
 * The part of Xen that C uses: hypercall page, clock, watchdog, shutdown. Everything else is Python
 * (drivers/xenpv). Names and numbers are those of xen/include/public.
 */
#ifndef PVDUMP_XEN_H
#define PVDUMP_XEN_H

#include <stdint.h>

#define __HYPERVISOR_memory_op 12
#define __HYPERVISOR_vcpu_op 24
#define __HYPERVISOR_sched_op 29
#define __HYPERVISOR_event_channel_op 32
#define __HYPERVISOR_hvm_op 34

#define SCHEDOP_yield 0
#define SCHEDOP_shutdown 2
#define SCHEDOP_watchdog 6
#define SHUTDOWN_crash 3

#define EVTCHNOP_send 4

#define HVM_PARAM_CONSOLE_PFN 17
#define HVM_PARAM_CONSOLE_EVTCHN 18

struct evtchn_send {
    uint32_t port;
};

/* Find Xen, make hypercalls possible, arm the watchdog, start the clock. */
void xen_init(void);

/* The console is there: say what Xen refused; without a clock crash, since no wait would end. */
void xen_check(void);

/* Base CPUID leaf of Xen, 0 without Xen. */
uint32_t xen_base(void);
uint32_t xen_vcpu(void);

/* Physical address of shared_info, 0 without Xen. */
uint64_t xen_shared_info(void);

/* Xen system time in ns. */
uint64_t xen_now(void);

/* Unless called again within so many seconds the domain is shut down for SHUTDOWN_watchdog, and
 * xl's on_watchdog= says what comes then (not set: destroy); 0 disarms. Returns 0 or -errno. */
int64_t xen_watchdog(uint32_t seconds);

/* Returns only without Xen. */
void xen_shutdown(uint32_t shutdown_reason);

/* Returns 0 or -errno. */
int64_t hvm_get_param(uint32_t index, uint64_t *value);

/* Without Xen: -ENOSYS. */
int64_t hypercall(uint64_t nr, const uint64_t args[5]);

static inline int64_t hypercall2(uint64_t nr, uint64_t a, uint64_t b)
{
    uint64_t args[5] = { a, b };

    return hypercall(nr, args);
}

static inline int64_t hypercall3(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t args[5] = { a, b, c };

    return hypercall(nr, args);
}

#endif

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
#define SHUTDOWN_suspend 2
#define SHUTDOWN_crash 3

#define EVTCHNOP_send 4

#define HVM_PARAM_CONSOLE_PFN 17
#define HVM_PARAM_CONSOLE_EVTCHN 18

struct evtchn_send {
    uint32_t port;
};

/* Find Xen, set up hypercalls, arm the watchdog, start the clock. */
void xen_init(void);

/* Report what Xen refused, once the console works. Crash without a clock: no wait would end. */
void xen_check(void);

/* Returns the base CPUID leaf of Xen, 0 without Xen. */
uint32_t xen_base(void);

/* Returns the number of the vCPU that we run on. */
uint32_t xen_vcpu(void);

/* Returns the physical address of shared_info, 0 without Xen. */
uint64_t xen_shared_info(void);

/* Returns Xen's system time in ns. */
uint64_t xen_now(void);

/* Arm the watchdog: if this is not called again within `seconds`, Xen shuts the domain down with
 * the reason SHUTDOWN_watchdog, and xl does what on_watchdog= says (default: destroy). 0 seconds
 * disarm it. Returns 0 or -errno. */
int64_t xen_watchdog(uint32_t seconds);

/* Suspend the domain. Returns when it goes on, here or as another domain on another host, after
 * xen_init(): 0 or more, or -errno if Xen refused. Nothing is printed before console_attach(). */
int64_t xen_suspend(void);

/* Shut the domain down. Returns only if there is no Xen. */
void xen_shutdown(uint32_t shutdown_reason);

/* Read a parameter of the domain. Returns 0 or -errno. */
int64_t hvm_get_param(uint32_t index, uint64_t *value);

/* Make a hypercall. Returns its result, -ENOSYS without Xen. */
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

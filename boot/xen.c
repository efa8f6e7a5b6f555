/*
 * The functions of xen.h. The shared_info page and the vcpu_info that we may have to register lie
 * in our own region, so no memory of the crashed kernel is used or changed.
 *
 * Rule: the vCPU that we run on is the one that crashed, so it may be any.
 * Source: xen/include/public/{arch-x86/cpuid.h,xen.h,vcpu.h,sched.h,memory.h,hvm/hvm_op.h}.
 */
#include "xen.h"

#include <string.h>

#include "config.h"
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "trap.h"

#define ENOSYS 38

#define DOMID_SELF 0x7ff0

#define CPUID_FIRST 0x40000000
#define CPUID_LAST 0x4000ff00
#define CPUID_STEP 0x100
#define XEN_HVM_CPUID_VCPU_ID_PRESENT (1u << 3)

#define XENMEM_add_to_physmap 7
#define XENMAPSPACE_shared_info 0
#define HVMOP_get_param 1
#define VCPUOP_register_vcpu_info 10
#define VCPUOP_register_vcpu_time_memory_area 13
#define XEN_LEGACY_MAX_VCPUS 32

#define WATCHDOG_TIMERS 2

struct vcpu_time_info {
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad1[2];
};

struct vcpu_info {
    uint8_t evtchn_upcall_pending, evtchn_upcall_mask, pad[6];
    uint64_t evtchn_pending_sel, arch[2];
    struct vcpu_time_info time;
};

struct xen_add_to_physmap {
    uint16_t domid, size;
    uint32_t space;
    uint64_t idx, gpfn;
};

struct vcpu_register_vcpu_info {
    uint64_t mfn;
    uint32_t offset, rsvd;
};

struct xen_hvm_param {
    uint16_t domid, pad;
    uint32_t index;
    uint64_t value;
};

struct sched_watchdog {
    uint32_t id, timeout;
};

char hypercall_page[PAGE_SIZE] __page_aligned;

static uint8_t shared_page[PAGE_SIZE] __page_aligned;
static struct vcpu_info own_vcpu_info __attribute__((aligned(64)));
static struct vcpu_time_info own_time __attribute__((aligned(64)));

static uint32_t base;
static uint32_t vcpu;
static int shared_mapped;
static volatile struct vcpu_time_info *clock;
static uint32_t watchdog_id;
static int64_t watchdog_result;

static uint32_t find_base(void)
{
    uint32_t regs[4];

    for (uint32_t leaf = CPUID_FIRST; leaf <= CPUID_LAST; leaf += CPUID_STEP) {
        cpuid(leaf, 0, regs);
        if (!memcmp(&regs[1], "XenVMMXenVMM", 12) && regs[0] >= leaf + 2)
            return leaf;
    }
    return 0;
}

static uint32_t find_vcpu(void)
{
    uint32_t regs[4];

    cpuid(base, 0, regs);
    if (regs[0] >= base + 4) {
        cpuid(base + 4, 0, regs);
        if (regs[0] & XEN_HVM_CPUID_VCPU_ID_PRESENT)
            return regs[1];
    }
    /* Before Xen 4.5: an HVM vCPU's initial APIC id is twice its number. */
    cpuid(1, 0, regs);
    return (regs[1] >> 24) / 2;
}

int64_t hypercall(uint64_t nr, const uint64_t args[5])
{
    uint64_t rdi = args[0], rsi = args[1], rdx = args[2], result;
    register uint64_t r10 __asm__("r10") = args[3];
    register uint64_t r8 __asm__("r8") = args[4];

    if (!base || nr >= PAGE_SIZE / 32)
        return -ENOSYS;
    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r10), "+r"(r8)
                     : [entry] "0"(hypercall_page + nr * 32)
                     : "rcx", "r9", "r11", "memory", "cc");
    return result;
}

static int64_t watchdog_op(uint32_t id, uint32_t seconds)
{
    struct sched_watchdog op = { id, seconds };

    return hypercall2(__HYPERVISOR_sched_op, SCHEDOP_watchdog, (uintptr_t)&op);
}

static void map_shared_info(void)
{
    struct xen_add_to_physmap add = {
        .domid = DOMID_SELF,
        .space = XENMAPSPACE_shared_info,
        .gpfn = phys(shared_page) / PAGE_SIZE,
    };

    shared_mapped = !hypercall2(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (uintptr_t)&add);
}

/* The crashed kernel's watchdogs stay armed after a kexec and after a soft reset. */
static void stop_crashed_watchdogs(void)
{
    for (uint32_t id = 1; id <= WATCHDOG_TIMERS; id++)
        watchdog_op(id, 0);
}

static volatile struct vcpu_time_info *time_area(void)
{
    uint64_t area = (uintptr_t)&own_time;

    if (hypercall3(__HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_time_memory_area, vcpu,
                   (uintptr_t)&area))
        return 0;
    return &own_time;
}

/* Returns this vCPU's vcpu_info, or 0. shared_info has that of the first vCPUs. A later vCPU has
 * none until it registers one, which fails if the crashed kernel has registered its own. */
static volatile struct vcpu_info *vcpu_info(void)
{
    struct vcpu_register_vcpu_info info = {
        .mfn = phys(&own_vcpu_info) / PAGE_SIZE,
        .offset = phys(&own_vcpu_info) % PAGE_SIZE,
    };

    if (vcpu < XEN_LEGACY_MAX_VCPUS)
        return shared_mapped ? (struct vcpu_info *)shared_page + vcpu : 0;
    if (hypercall3(__HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, vcpu, (uintptr_t)&info))
        return 0;
    return &own_vcpu_info;
}

/* Choose the place where Xen writes this vCPU's time. The time area is preferred: we can replace
 * that of the crashed kernel, and Xen fills it at once. As long as the old one is registered, Xen
 * fails to reach it through page tables that are gone, and does not update the time in vcpu_info
 * either. */
static void start_clock(void)
{
    volatile struct vcpu_info *info = vcpu_info();

    clock = time_area();
    if (clock && clock->tsc_to_system_mul)
        return;
    clock = info && info->time.tsc_to_system_mul ? &info->time : 0;
}

int64_t xen_suspend(void)
{
    uint32_t shutdown_reason = SHUTDOWN_suspend;
    uint64_t nowhere = 0;
    int64_t result;

    xen_watchdog(0);
    /* Xen must not write our time while the toolstack copies our memory. */
    hypercall3(__HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_time_memory_area, vcpu,
               (uintptr_t)&nowhere);
    result = hypercall2(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uintptr_t)&shutdown_reason);
    watchdog_id = 0;
    xen_init();
    return result;
}

void xen_init(void)
{
    uint32_t regs[4];

    base = find_base();
    if (!base)
        return;
    cpuid(base + 2, 0, regs);
    wrmsr(regs[1], phys(hypercall_page));
    stop_crashed_watchdogs();
    watchdog_result = xen_watchdog(WATCHDOG_SECONDS);
    vcpu = find_vcpu();
    map_shared_info();
    start_clock();
}

void xen_check(void)
{
    if (!base)
        return;
    if (watchdog_result)
        mp_printf(&console_print, "pvdump: Xen gives no watchdog (error %d): a hang will not end\n",
                  (int)watchdog_result);
    if (clock)
        return;
    mp_printf(&console_print, "pvdump: Xen gives vCPU %u no clock, so no wait would end\n", vcpu);
    crash();
}

uint32_t xen_base(void)
{
    return base;
}

uint32_t xen_vcpu(void)
{
    return vcpu;
}

uint64_t xen_shared_info(void)
{
    return shared_mapped ? phys(shared_page) : 0;
}

uint64_t xen_now(void)
{
    uint32_t version;
    uint64_t ns;

    if (!clock)
        return 0;
    do {
        uint64_t delta;

        version = clock->version;
        delta = rdtsc_ordered() - clock->tsc_timestamp;
        delta = clock->tsc_shift < 0 ? delta >> -clock->tsc_shift : delta << clock->tsc_shift;
        ns = clock->system_time +
             (uint64_t)((unsigned __int128)delta * clock->tsc_to_system_mul >> 32);
    } while ((version & 1) || version != clock->version);
    return ns;
}

int64_t xen_watchdog(uint32_t seconds)
{
    int64_t result;

    if (watchdog_id) {
        result = watchdog_op(watchdog_id, seconds);
        if (!seconds)
            watchdog_id = 0;
        return result;
    }
    if (!seconds)
        return 0;
    result = watchdog_op(0, seconds);
    if (result <= 0)
        return result;
    watchdog_id = result;
    return 0;
}

void xen_shutdown(uint32_t shutdown_reason)
{
    if (base)
        hypercall2(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uintptr_t)&shutdown_reason);
}

int64_t hvm_get_param(uint32_t index, uint64_t *value)
{
    struct xen_hvm_param param = { .domid = DOMID_SELF, .index = index };
    int64_t result = hypercall2(__HYPERVISOR_hvm_op, HVMOP_get_param, (uintptr_t)&param);

    *value = param.value;
    return result;
}

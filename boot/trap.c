/*
 * Exceptions of the CPU. A page fault in the identity map is resolved by mapping that part. Any
 * other trap prints the registers. If Python was running, hw.Trap, a BaseException, is then raised
 * in it: unwinding collects the traceback, which main.c prints before it ends the domain. An NMI is
 * reported, and the dump goes on.
 *
 * Rule: a second trap during the report of the first prints one line and ends the domain. A third
 * trap halts, and the watchdog ends the domain.
 * Rule: code on an IST stack writes to port 0xE9 only. A write to the console ring may cause a page
 * fault, and that begins at the top of its stack, where the frame of an earlier one may be in use.
 */
#include "trap.h"

#include <string.h>

#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "paging.h"
#include "py/mpprint.h"
#include "py/objexcept.h"
#include "py/objstr.h"
#include "py/runtime.h"
#include "xen.h"

#define VECTORS 256
#define EXCEPTIONS 32
#define STUB_SIZE 16

#define VECTOR_NMI 2
#define VECTOR_DF 8
#define VECTOR_PF 14
#define VECTOR_MC 18

#define GATE_INTERRUPT 0x8e00

#define CRASH_FLUSH_MS 1000

struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

struct gate {
    uint16_t offset0, selector;
    uint16_t ist_type;
    uint16_t offset1;
    uint32_t offset2, reserved;
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3], reserved1, ist[7], reserved2;
    uint16_t reserved3, iomap;
} __attribute__((packed));

/* Interrupt stacks. A page fault may interrupt any other handler; #DF, NMI and #MC may interrupt
 * that of a page fault. So each has its own. */
enum { IST_ANY = 1, IST_PF, IST_DF, IST_NMI, IST_MC, IST_LAST = IST_MC };

static const char names[EXCEPTIONS][4] = {
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "",    "#TS",
    "#NP", "#SS", "#GP", "#PF", "",    "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
};

extern uint64_t gdt[];
extern char trap_stubs[];
void trap(struct trap_frame *frame);
__attribute__((noreturn)) void trap_leave(void *stack_top, void (*next)(void));

static struct gate idt[VECTORS] __attribute__((aligned(16)));
static struct tss tss;
static uint8_t ist_stack[IST_LAST][2048] __attribute__((aligned(16)));
static uint8_t report_stack[8192] __attribute__((aligned(16)));

static struct trap_frame last;
static uint64_t last_cr2;
static int crashing, ending;

static char reason[96];
static mp_obj_str_t reason_str = { { &mp_type_str }, 0, 0, (const byte *)reason };

MP_REGISTER_ROOT_POINTER(mp_obj_t trap_exception);
MP_DEFINE_EXCEPTION(Trap, BaseException)

static void gate_set(unsigned int vector, unsigned int ist)
{
    unsigned int stub = vector < EXCEPTIONS ? vector : EXCEPTIONS;
    uint64_t offset = (uintptr_t)trap_stubs + stub * STUB_SIZE;

    idt[vector] = (struct gate){
        .offset0 = offset,
        .selector = SEL_CODE,
        .ist_type = GATE_INTERRUPT | ist,
        .offset1 = offset >> 16,
        .offset2 = offset >> 32,
    };
}

static void tss_load(void)
{
    uint64_t base = (uintptr_t)&tss;
    uint64_t limit = sizeof(tss) - 1;

    for (unsigned int i = 0; i < IST_LAST; i++)
        tss.ist[i] = (uintptr_t)ist_stack[i] + sizeof(ist_stack[i]);
    tss.iomap = sizeof(tss);
    gdt[SEL_TSS / 8] = limit | (base & 0xffffff) << 16 | 0x89ULL << 40 | (base >> 24 & 0xff) << 56;
    gdt[SEL_TSS / 8 + 1] = base >> 32;
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
}

void trap_init(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = { sizeof(idt) - 1, (uintptr_t)idt };

    for (unsigned int vector = 0; vector < VECTORS; vector++)
        gate_set(vector, IST_ANY);
    gate_set(VECTOR_PF, IST_PF);
    gate_set(VECTOR_DF, IST_DF);
    gate_set(VECTOR_NMI, IST_NMI);
    gate_set(VECTOR_MC, IST_MC);
    tss_load();
    lidt(&idtr);
}

void trap_python(void)
{
    mp_obj_t text = MP_OBJ_FROM_PTR(&reason_str);

    /* The exception is made now, because the heap may be inconsistent at the time of a trap. */
    MP_STATE_VM(trap_exception) = mp_obj_new_exception_args(&mp_type_Trap, 1, &text);
}

static void reason_add(void *data, const char *text, size_t len)
{
    (void)data;
    if (len > sizeof(reason) - reason_str.len)
        len = sizeof(reason) - reason_str.len;
    memcpy(reason + reason_str.len, text, len);
    reason_str.len += len;
}

static void print_registers(const mp_print_t *print)
{
    const struct trap_frame *f = &last;

    mp_printf(print, "rip %016lx  cs %04lx  rflags %08lx  error %04lx\n", f->rip, f->cs, f->rflags,
              f->error);
    mp_printf(print, "rsp %016lx  ss %04lx  cr2 %016lx  cr3 %016lx\n", f->rsp, f->ss, last_cr2,
              read_cr3());
    mp_printf(print, "rax %016lx  rbx %016lx  rcx %016lx\n", f->rax, f->rbx, f->rcx);
    mp_printf(print, "rdx %016lx  rsi %016lx  rdi %016lx\n", f->rdx, f->rsi, f->rdi);
    mp_printf(print, "rbp %016lx  r8  %016lx  r9  %016lx\n", f->rbp, f->r8, f->r9);
    mp_printf(print, "r10 %016lx  r11 %016lx  r12 %016lx\n", f->r10, f->r11, f->r12);
    mp_printf(print, "r13 %016lx  r14 %016lx  r15 %016lx\n", f->r13, f->r14, f->r15);
    mp_printf(print, "loaded at %016lx\n", load_address);
}

static void print_name(const mp_print_t *print, uint64_t vector)
{
    if (vector >= EXCEPTIONS)
        mp_printf(print, "interrupt");
    else if (names[vector][0])
        mp_printf(print, "%s", names[vector]);
    else
        mp_printf(print, "exception %u", (unsigned int)vector);
}

static void report(void)
{
    static const mp_print_t to_reason = { 0, reason_add };

    print_name(&to_reason, last.vector);
    if (last.vector == VECTOR_PF)
        mp_printf(&to_reason, " at address 0x%lx", last_cr2);
    mp_printf(&to_reason, ", error code 0x%lx, rip 0x%lx", last.error, last.rip);

    mp_printf(&console_print, "\npvdump: trap: %.*s\n", (int)reason_str.len, reason);
    print_registers(&console_print);
    if (MP_STATE_THREAD(nlr_top) && MP_STATE_VM(trap_exception))
        nlr_raise(MP_STATE_VM(trap_exception));
    crash();
}

void trap(struct trap_frame *frame)
{
    uint64_t cr2 = read_cr2();

    if (frame->vector == VECTOR_PF && paging_fault(cr2, frame->error))
        return;
    if (frame->vector == VECTOR_NMI) {
        mp_printf(&debug_print, "pvdump: NMI at rip 0x%lx, going on\n", frame->rip);
        return;
    }
    if (ending)
        cpu_halt();
    if (crashing++) {
        ending = 1;
        mp_printf(&debug_print, "pvdump: another trap: ");
        print_name(&debug_print, frame->vector);
        mp_printf(&debug_print, " at rip 0x%lx\n", frame->rip);
        xen_shutdown(SHUTDOWN_crash);
        cpu_halt();
    }
    last = *frame;
    last_cr2 = cr2;
    trap_leave(report_stack + sizeof(report_stack), report);
}

void crash(void)
{
    crashing++;
    console_flush(CRASH_FLUSH_MS);
    ending = 1;
    xen_shutdown(SHUTDOWN_crash);
    cpu_halt();
}

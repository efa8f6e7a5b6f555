#ifndef PVDUMP_TRAP_H
#define PVDUMP_TRAP_H

/* Load the IDT and the TSS. */
void trap_init(void);

/* Python has started: from now on a trap raises the exception hw.Trap. */
void trap_python(void);

/* End after any failure: crash the domain, or halt if there is no Xen. */
__attribute__((noreturn)) void crash(void);

#endif

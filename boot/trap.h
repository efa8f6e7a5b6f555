#ifndef PVDUMP_TRAP_H
#define PVDUMP_TRAP_H

void trap_init(void);

/* Python is up: from now on a trap becomes the exception hw.Trap. */
void trap_python(void);

/* The end of everything that went wrong: crash the domain, or halt where there is no Xen. */
__attribute__((noreturn)) void crash(void);

#endif

/* The last step of a boot. */
#ifndef PVDUMP_SHELL_JUMP_H
#define PVDUMP_SHELL_JUMP_H

#include <stdint.h>

/* Enter a kernel by its 64-bit entry, at a physical address below 4 GiB; params: boot_params. */
__attribute__((noreturn)) void jump(uint64_t entry, uint64_t params);

#endif

/*
 * The features of MicroPython in the image. Every file of MicroPython includes it.
 *
 * Rule: no floats, so no code uses an SSE register (host-tests/boot/test_image.py checks this):
 * head.S leaves SSE off; no files, no scheduler; no compiler, so only frozen modules run, but in
 * images with the shell. The rest is used by drivers and firmware, and CPython has it as well.
 */
#ifndef PVDUMP_MPCONFIGPORT_H
#define PVDUMP_MPCONFIGPORT_H

#include <alloca.h>
#include <stdint.h>

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)

typedef intptr_t mp_int_t;
typedef uintptr_t mp_uint_t;
typedef long mp_off_t;

#define MP_STATE_PORT MP_STATE_VM
#define MP_SSIZE_MAX INTPTR_MAX

/* The machine */
#define MICROPY_ENABLE_GC (1)
#define MICROPY_ENABLE_FINALISER (0)
#define MICROPY_STACK_CHECK (1)
#define MICROPY_STACK_CHECK_MARGIN (4096)
#define MICROPY_ALLOC_PATH_MAX (128)
#define MICROPY_OPT_COMPUTED_GOTO (1)
#define MICROPY_EMIT_X64 (1)
#define MICROPY_ENABLE_COMPILER (0)
#define MICROPY_ENABLE_SCHEDULER (0)
#define MICROPY_KBD_EXCEPTION (0)
#define MICROPY_USE_INTERNAL_PRINTF (0)
#define MICROPY_USE_INTERNAL_ERRNO (1)

/* Import finds frozen modules, and in images with the shell those that came with a script; without
 * this it looks for nothing. */
#define MICROPY_ENABLE_EXTERNAL_IMPORT (1)
#define MICROPY_MODULE_FROZEN_MPY (1)
#define MICROPY_QSTR_EXTRA_POOL mp_qstr_frozen_const_pool

/* The language */
#define MICROPY_LONGINT_IMPL (MICROPY_LONGINT_IMPL_MPZ)
#define MICROPY_FLOAT_IMPL (MICROPY_FLOAT_IMPL_NONE)
#define MICROPY_ERROR_REPORTING (MICROPY_ERROR_REPORTING_DETAILED)
#define MICROPY_WARNINGS (0)
#define MICROPY_PY_BUILTINS_HELP (0)
#define MICROPY_PY_BUILTINS_INPUT (0)
#define MICROPY_PY_BUILTINS_EXECFILE (0)
#define MICROPY_PY_BUILTINS_EVAL_EXEC (0)
#define MICROPY_HELPER_REPL (0)

/* The modules */
#define MICROPY_PY_ASYNCIO (0)
#define MICROPY_PY_CMATH (0)
/* binascii.crc32 needs it; the module itself is not compiled in. */
#define MICROPY_PY_DEFLATE (1)
#define MICROPY_PY_FRAMEBUF (0)
/* SHA-256 alone */
#define MICROPY_PY_HASHLIB (1)
#define MICROPY_PY_HASHLIB_SHA1 (0)
#define MICROPY_PY_HASHLIB_MD5 (0)
#define MICROPY_PY_HEAPQ (0)
#define MICROPY_PY_JSON (0)
#define MICROPY_PY_MATH (0)
#define MICROPY_PY_MICROPYTHON_RINGIO (0)
#define MICROPY_PY_OS (0)
#define MICROPY_PY_PLATFORM (0)
#define MICROPY_PY_RANDOM (0)
#define MICROPY_PY_RE (0)
#define MICROPY_PY_SELECT (0)
#define MICROPY_PY_SYS_PLATFORM "pvdump"
#define MICROPY_PY_SYS_PS1_PS2 (0)
#define MICROPY_PY_SYS_STDFILES (0)
#define MICROPY_PY_SYS_STDIO_BUFFER (0)
#define MICROPY_PY_TIME (0)
#define MICROPY_PY_UCTYPES (0)

/* The shell, for which image.yaml asks */
#ifdef IMAGE_SHELL
#undef MICROPY_ENABLE_COMPILER
#define MICROPY_ENABLE_COMPILER (1)
#define MICROPY_COMP_ALLOW_TOP_LEVEL_AWAIT (1)
#undef MICROPY_KBD_EXCEPTION
#define MICROPY_KBD_EXCEPTION (1)
#undef MICROPY_HELPER_REPL
#define MICROPY_HELPER_REPL (1)
#define MICROPY_REPL_AUTO_INDENT (1)
#define MICROPY_REPL_EMACS_KEYS (1)
#define MICROPY_READLINE_HISTORY_SIZE (50)
#undef MICROPY_PY_BUILTINS_HELP
#define MICROPY_PY_BUILTINS_HELP (1)
#define MICROPY_PY_BUILTINS_HELP_MODULES (1)
#define MICROPY_PY_BUILTINS_HELP_TEXT shell_help_text
#undef MICROPY_PY_BUILTINS_INPUT
#define MICROPY_PY_BUILTINS_INPUT (1)
#undef MICROPY_PY_BUILTINS_EVAL_EXEC
#define MICROPY_PY_BUILTINS_EVAL_EXEC (1)
#undef MICROPY_PY_HEAPQ
#define MICROPY_PY_HEAPQ (1)
#undef MICROPY_PY_JSON
#define MICROPY_PY_JSON (1)
#undef MICROPY_PY_RANDOM
#define MICROPY_PY_RANDOM (1)
#undef MICROPY_PY_SYS_STDFILES
#define MICROPY_PY_SYS_STDFILES (1)
#undef MICROPY_PY_TIME
#define MICROPY_PY_TIME (1)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS (1)
#define MICROPY_PY_TIME_INCLUDEFILE "boot/shell/time.h"
#define MICROPY_EPOCH_IS_1970 (1)
#undef MICROPY_PY_UCTYPES
#define MICROPY_PY_UCTYPES (1)

/* Ctrl-C is looked for, and the watchdog set again, at one branch in some thousand. */
#define MICROPY_VM_HOOK_COUNT (4096)
#define MICROPY_VM_HOOK_INIT static unsigned int hook_left = MICROPY_VM_HOOK_COUNT;
#define MICROPY_VM_HOOK_LOOP                                                                       \
    if (!--hook_left) {                                                                            \
        extern void terminal_poll(void);                                                           \
                                                                                                   \
        hook_left = MICROPY_VM_HOOK_COUNT;                                                         \
        terminal_poll();                                                                           \
    }
#endif

#endif

#ifndef PVDUMP_CONSOLE_H
#define PVDUMP_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

#include "py/mpprint.h"

/* Print to both consoles; print to port 0xE9 only, which touches no memory. */
extern const mp_print_t console_print, debug_print;

/* Use the PV console ring from now on, if there is one. */
void console_attach(void);

/* Write to both consoles; each newline gets a carriage return in the PV console. */
void console_write(const char *text, size_t len);

/* Wait until the peer has read everything, at most `ms` milliseconds. */
void console_flush(uint32_t ms);

/* Take the next byte typed. Returns it, or -1 if there is none. */
int console_read(void);

/* Look for a byte among those typed since the last look. Returns whether it is there: then it and
 * all before it are taken. */
int console_find(char wanted);

/* Returns the event channel of the PV console, 0 without one. */
uint32_t console_port(void);

#endif

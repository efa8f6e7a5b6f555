/* What MicroPython's prompt and its module time need of a port besides port.c. */
#include <stdarg.h>
#include <string.h>

#include "boot/console.h"
#include "boot/shell/editor.h"
#include "boot/shell/terminal.h"
#include "boot/xen.h"
#include "py/lexer.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/runtime.h"

#define NS_PER_US 1000
#define NS_PER_MS 1000000
#define NS_PER_S 1000000000ULL

#define WALL_CLOCK 3072 /* offset in shared_info */
#define READS 100

/* The text of a module that came with a script. */
mp_lexer_t *mp_lexer_new_from_file(qstr name)
{
    mp_obj_t text = terminal_module(qstr_str(name));
    mp_buffer_info_t info;

    if (text == MP_OBJ_NULL)
        mp_raise_OSError(MP_ENOENT);
    mp_get_buffer_raise(text, &info, MP_BUFFER_READ);
    return mp_lexer_new_from_str_len(name, info.buf, info.len, 0);
}

/* Writes the output of mp_plat_print, and so of print(). */
void mp_hal_stdout_tx_strn_cooked(const char *text, size_t len)
{
    editor_print(text, len);
}

/* Writes what the line editor draws. */
mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t len)
{
    console_write(text, len);
    return len;
}

void mp_hal_stdout_tx_str(const char *text)
{
    mp_hal_stdout_tx_strn(text, strlen(text));
}

mp_uint_t mp_hal_ticks_us(void)
{
    return xen_now() / NS_PER_US;
}

mp_uint_t mp_hal_ticks_ms(void)
{
    return xen_now() / NS_PER_MS;
}

mp_uint_t mp_hal_ticks_cpu(void)
{
    return xen_now();
}

/* shared_info has the time of day at system time 0. While Xen changes it, its version is odd.
 * Source: xen/include/public/xen.h. */
struct wall_clock {
    uint32_t version, sec, nsec, sec_hi;
};

uint64_t mp_hal_time_ns(void)
{
    const volatile struct wall_clock *clock = (void *)(xen_shared_info() + WALL_CLOCK);
    uint64_t ns = 0;
    uint32_t version = 1;

    if (!xen_shared_info())
        return xen_now();
    for (int i = 0; i < READS && (version & 1 || version != clock->version); i++) {
        version = clock->version;
        ns = ((uint64_t)clock->sec_hi << 32 | clock->sec) * NS_PER_S + clock->nsec;
    }
    return ns + xen_now();
}

/* The drivers stand still meanwhile; who wants them to go on awaits loop.sleep(). */
void mp_hal_delay_us(mp_uint_t us)
{
    uint64_t end = xen_now() + us * NS_PER_US;

    while (xen_now() < end) {
        hypercall2(__HYPERVISOR_sched_op, SCHEDOP_yield, 0);
        terminal_poll();
        mp_handle_pending(true);
    }
}

void mp_hal_delay_ms(mp_uint_t ms)
{
    mp_hal_delay_us(ms * 1000);
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return (uint8_t)*a - (uint8_t)*b;
}

struct room {
    char *at, *end;
};

static void put(void *data, const char *text, size_t len)
{
    struct room *room = data;

    while (len-- && room->at < room->end)
        *room->at++ = *text++;
}

/* Returns the characters written, unlike the C library's. */
int snprintf(char *to, size_t size, const char *format, ...)
{
    struct room room = { to, to + size - 1 };
    const mp_print_t print = { &room, put };
    va_list args;

    va_start(args, format);
    mp_vprintf(&print, format, args);
    va_end(args);
    *room.at = 0;
    return room.at - to;
}

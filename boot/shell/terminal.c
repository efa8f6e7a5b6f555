/*
 * terminal: the MicroPython module for people at the PV console: single keys, edited lines, the
 * execution of what was typed and of scripts with their modules, and Ctrl-C.
 *
 * pvfw/shell uses it. While the line editor waits for a key, a function of Python's is called again
 * and again: it runs the loop, so that drivers go on. While a program runs, Ctrl-C raises
 * KeyboardInterrupt in it, at the interpreter's next branch; where the loop runs (LATER) the first
 * one is only noted, for the loop to interrupt the right task, and the second raises.
 *
 * Rule: nothing typed before Ctrl-C is kept. Only a program that runs keeps the watchdog quiet by
 * itself: drivers have the loop for that.
 */
#include "boot/shell/terminal.h"

#include <string.h>

#include "boot/config.h"
#include "boot/console.h"
#include "boot/hw/number.h"
#include "boot/shell/editor.h"
#include "boot/xen.h"
#include "py/builtin.h"
#include "py/compile.h"
#include "py/mphal.h"
#include "py/repl.h"
#include "py/runtime.h"
#include "shared/readline/readline.h"

#define SECOND 1000000000ULL

enum interrupts { OFF, AT_ONCE, LATER };

static enum interrupts interrupts;
static int interrupt_char = CHAR_CTRL_C; /* -1: none */
static int noted;
static int after_return;

MP_REGISTER_ROOT_POINTER(mp_obj_t terminal_idle);
/* dict: texts by path */
MP_REGISTER_ROOT_POINTER(mp_obj_t terminal_modules);
MP_REGISTER_ROOT_POINTER(mp_obj_t terminal_typed);
static size_t typed_at;

/* pvfw/shell/mode.py has a help() of its own, with the text. */
const char shell_help_text[] = "";

/* For micropython.kbd_intr(). */
void mp_hal_set_interrupt_char(int c)
{
    interrupt_char = c;
}

static int came(void)
{
    return interrupt_char >= 0 && console_find(interrupt_char);
}

static void feed_watchdog(void)
{
    static uint64_t fed;
    uint64_t now = xen_now();

    if (now - fed < SECOND)
        return;
    fed = now;
    xen_watchdog(WATCHDOG_SECONDS);
}

void terminal_poll(void)
{
    if (interrupts == OFF)
        return;
    feed_watchdog();
    if (!came())
        return;
    if (interrupts == LATER && !noted++)
        return;
    noted = 0;
    mp_sched_keyboard_interrupt();
}

/* Returns the next byte of what counts as typed, -1 if there is none. */
static int typed(void)
{
    mp_obj_t text = MP_STATE_VM(terminal_typed);
    mp_buffer_info_t bytes;

    if (!text)
        return -1;
    mp_get_buffer_raise(text, &bytes, MP_BUFFER_READ);
    if (typed_at < bytes.len)
        return ((const uint8_t *)bytes.buf)[typed_at++];
    MP_STATE_VM(terminal_typed) = MP_OBJ_NULL;
    return -1;
}

/* Returns the next key, -1 if there is none. A line feed is a return, and nothing behind one. */
static int key(void)
{
    int c = typed();
    int is_second;

    if (c >= 0)
        return c;
    c = console_read();
    is_second = c == '\n' && after_return;
    if (c < 0)
        return c;
    after_return = c == '\r';
    if (is_second)
        return key();
    return c == '\n' ? '\r' : c;
}

static int next_key(mp_obj_t row)
{
    for (;;) {
        int c = key();

        if (c >= 0)
            return c;
        if (MP_STATE_VM(terminal_idle))
            editor_idle(MP_STATE_VM(terminal_idle), row);
    }
}

int mp_hal_stdin_rx_chr(void)
{
    return next_key(0);
}

uintptr_t mp_hal_stdio_poll(uintptr_t flags)
{
    (void)flags;
    return 0;
}

mp_obj_t terminal_module(const char *path)
{
    mp_map_elem_t *found;

    if (!MP_STATE_VM(terminal_modules))
        return MP_OBJ_NULL;
    found = mp_map_lookup(mp_obj_dict_get_map(MP_STATE_VM(terminal_modules)),
                          mp_obj_new_str(path, strlen(path)), MP_MAP_LOOKUP);
    return found ? found->value : MP_OBJ_NULL;
}

/* An import looks for a folder, then for a file: modules of scripts stand in their places so. */
mp_import_stat_t mp_import_stat(const char *path)
{
    size_t len = strlen(path);
    const mp_map_t *map;

    if (terminal_module(path) != MP_OBJ_NULL)
        return MP_IMPORT_STAT_FILE;
    if (!MP_STATE_VM(terminal_modules))
        return MP_IMPORT_STAT_NO_EXIST;
    map = mp_obj_dict_get_map(MP_STATE_VM(terminal_modules));
    for (size_t i = 0; i < map->alloc; i++) {
        const char *name;

        if (!mp_map_slot_is_filled(map, i))
            continue;
        name = mp_obj_str_get_str(map->table[i].key);
        if (strlen(name) > len && !memcmp(name, path, len) && name[len] == '/')
            return MP_IMPORT_STAT_DIR;
    }
    return MP_IMPORT_STAT_NO_EXIST;
}

/* modules(texts): from now on these can be imported; texts: {"folder/name.py": bytes} */
static mp_obj_t mod_modules(mp_obj_t texts)
{
    if (!mp_obj_is_dict_or_ordereddict(texts))
        mp_raise_TypeError(MP_ERROR_TEXT("a dict expected"));
    MP_STATE_VM(terminal_modules) = texts;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(modules_obj, mod_modules);

static mp_obj_t mod_key(void)
{
    return MP_OBJ_NEW_SMALL_INT(key());
}
static MP_DEFINE_CONST_FUN_OBJ_0(key_obj, mod_key);

/* wait(row) -> the next key; row: what is shown of the line that it goes on. */
static mp_obj_t mod_wait(mp_obj_t row)
{
    return MP_OBJ_NEW_SMALL_INT(next_key(row));
}
static MP_DEFINE_CONST_FUN_OBJ_1(wait_obj, mod_wait);

static mp_obj_t mod_port(void)
{
    return MP_OBJ_NEW_SMALL_INT(console_port());
}
static MP_DEFINE_CONST_FUN_OBJ_0(port_obj, mod_port);

static mp_obj_t mod_on_idle(mp_obj_t function)
{
    MP_STATE_VM(terminal_idle) = function;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(on_idle_obj, mod_on_idle);

/* line(text, prompt) -> (the key that ended it, 0 for return; the text with what was typed) */
static mp_obj_t mod_line(mp_obj_t text_in, mp_obj_t prompt)
{
    size_t len;
    const char *text = mp_obj_str_get_data(text_in, &len);
    mp_obj_t items[2];
    vstr_t line;
    int ended;

    vstr_init(&line, len + 32);
    vstr_add_strn(&line, text, len);
    ended = editor_line(&line, mp_obj_str_get_str(prompt));
    items[0] = MP_OBJ_NEW_SMALL_INT(ended);
    items[1] = mp_obj_new_str_from_vstr(&line);
    return mp_obj_new_tuple(2, items);
}
static MP_DEFINE_CONST_FUN_OBJ_2(line_obj, mod_line);

/* type(text): its bytes are the next keys. */
static mp_obj_t mod_type(mp_obj_t text)
{
    mp_buffer_info_t bytes;

    mp_get_buffer_raise(text, &bytes, MP_BUFFER_READ);
    MP_STATE_VM(terminal_typed) = text;
    typed_at = 0;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(type_obj, mod_type);

static mp_obj_t mod_is_unfinished(mp_obj_t text)
{
    return mp_obj_new_bool(mp_repl_continue_with_input(mp_obj_str_get_str(text)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(is_unfinished_obj, mod_is_unfinished);

/* execute(source, name, is_single): in the globals of __main__. Returns a generator if it awaits. */
static mp_obj_t mod_execute(mp_obj_t source, mp_obj_t name, mp_obj_t is_single)
{
    mp_obj_dict_t *globals = mp_obj_module_get_globals(MP_OBJ_FROM_PTR(&mp_module___main__));
    mp_parse_input_kind_t kind = mp_obj_is_true(is_single) ? MP_PARSE_SINGLE_INPUT
                                                           : MP_PARSE_FILE_INPUT;
    mp_buffer_info_t text;
    mp_lexer_t *lexer;

    mp_get_buffer_raise(source, &text, MP_BUFFER_READ);
    mp_compile_allow_top_level_await = true;
    lexer = mp_lexer_new_from_str_len(mp_obj_str_get_qstr(name), text.buf, text.len, 0);
    return mp_parse_compile_execute(lexer, kind, globals, globals);
}
static MP_DEFINE_CONST_FUN_OBJ_3(execute_obj, mod_execute);

/* interrupts(how) -> how before */
static mp_obj_t mod_interrupts(mp_obj_t how)
{
    mp_obj_t before = MP_OBJ_NEW_SMALL_INT(interrupts);

    interrupts = bounded(how, LATER);
    if (interrupts == OFF) {
        noted = 0;
        MP_STATE_MAIN_THREAD(mp_pending_exception) = MP_OBJ_NULL;
    }
    return before;
}
static MP_DEFINE_CONST_FUN_OBJ_1(interrupts_obj, mod_interrupts);

/* Returns whether Ctrl-C came since the last call. */
static mp_obj_t mod_is_interrupted(void)
{
    int was = noted || came();

    noted = 0;
    return mp_obj_new_bool(was);
}
static MP_DEFINE_CONST_FUN_OBJ_0(is_interrupted_obj, mod_is_interrupted);

static const mp_rom_map_elem_t globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_terminal) },
    { MP_ROM_QSTR(MP_QSTR_key), MP_ROM_PTR(&key_obj) },
    { MP_ROM_QSTR(MP_QSTR_wait), MP_ROM_PTR(&wait_obj) },
    { MP_ROM_QSTR(MP_QSTR_port), MP_ROM_PTR(&port_obj) },
    { MP_ROM_QSTR(MP_QSTR_line), MP_ROM_PTR(&line_obj) },
    { MP_ROM_QSTR(MP_QSTR_type), MP_ROM_PTR(&type_obj) },
    { MP_ROM_QSTR(MP_QSTR_execute), MP_ROM_PTR(&execute_obj) },
    { MP_ROM_QSTR(MP_QSTR_is_unfinished), MP_ROM_PTR(&is_unfinished_obj) },
    { MP_ROM_QSTR(MP_QSTR_interrupts), MP_ROM_PTR(&interrupts_obj) },
    { MP_ROM_QSTR(MP_QSTR_is_interrupted), MP_ROM_PTR(&is_interrupted_obj) },
    { MP_ROM_QSTR(MP_QSTR_modules), MP_ROM_PTR(&modules_obj) },
    { MP_ROM_QSTR(MP_QSTR_on_idle), MP_ROM_PTR(&on_idle_obj) },
    { MP_ROM_QSTR(MP_QSTR_OFF), MP_ROM_INT(OFF) },
    { MP_ROM_QSTR(MP_QSTR_AT_ONCE), MP_ROM_INT(AT_ONCE) },
    { MP_ROM_QSTR(MP_QSTR_LATER), MP_ROM_INT(LATER) },
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t mp_module_terminal = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&globals,
};

MP_REGISTER_MODULE(MP_QSTR_terminal, mp_module_terminal);

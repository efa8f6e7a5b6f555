/*
 * The line that is being typed at the PV console, and what is printed meanwhile.
 *
 * Used by terminal.c and hal.c. While a key is waited for other tasks run, and what they print would
 * end up in the middle of the line. So the row is erased before the first of it, and drawn again
 * behind the last, the cursor where it was.
 *
 * Rule: only a row that is waited on is erased; what the line editor itself draws does not come
 * through editor_print().
 */
#include "boot/shell/editor.h"

#include "boot/console.h"
#include "py/mphal.h"
#include "py/runtime.h"
/* Where the cursor is, only the line editor knows. */
#include "shared/readline/readline.c"

#define ERASE "\r\x1b[K"

static int editing;       /* the line editor waits */
static const char *shown; /* what else is waited on, or 0 */
static int idle;          /* a function of Python's runs meanwhile */
static int erased;
static char last; /* what was printed last */

int editor_line(vstr_t *line, const char *prompt)
{
    nlr_buf_t nlr;
    int ended;

    if (nlr_push(&nlr)) {
        editing = 0;
        nlr_jump(nlr.ret_val);
    }
    editing = 1;
    ended = readline(line, prompt);
    editing = 0;
    nlr_pop();
    return ended;
}

static void draw(void)
{
    if (last != '\n')
        console_write("\n", 1);
    if (shown) {
        console_write(shown, strlen(shown));
        return;
    }
    console_write(rl.prompt, strlen(rl.prompt));
    console_write(rl.line->buf + rl.orig_line_len, rl.line->len - rl.orig_line_len);
    mp_hal_move_cursor_back(rl.line->len - rl.cursor_pos);
}

void editor_idle(mp_obj_t function, mp_obj_t row)
{
    nlr_buf_t nlr;

    erased = 0;
    shown = row ? mp_obj_str_get_str(row) : 0;
    idle = editing || shown;
    if (nlr_push(&nlr)) {
        idle = 0;
        shown = 0;
        nlr_jump(nlr.ret_val);
    }
    mp_call_function_0(function);
    nlr_pop();
    idle = 0;
    if (erased)
        draw();
    shown = 0;
}

void editor_print(const char *text, size_t len)
{
    if (!len)
        return;
    if (idle && !erased) {
        erased = 1;
        console_write(ERASE, sizeof(ERASE) - 1);
    }
    last = text[len - 1];
    console_write(text, len);
}

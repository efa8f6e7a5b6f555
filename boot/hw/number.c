#include "boot/hw/number.h"

#include "boot/paging.h"
#include "py/objint.h"
#include "py/runtime.h"

/* Returns 0 if the number does not fit 64 bits without sign. */
static int get_u64(mp_obj_t obj, uint64_t *value)
{
    if (mp_obj_is_exact_type(obj, &mp_type_int))
        return mpz_as_uint_checked(&((mp_obj_int_t *)MP_OBJ_TO_PTR(obj))->mpz, value);
    *value = mp_obj_get_int(obj);
    return *value <= INT64_MAX;
}

uint64_t u64(mp_obj_t obj)
{
    uint64_t value;

    if (!get_u64(obj, &value))
        mp_raise_msg(&mp_type_OverflowError, MP_ERROR_TEXT("no number of 64 bits without sign"));
    return value;
}

mp_obj_t from_u64(uint64_t value)
{
    return mp_obj_new_int_from_ull(value);
}

uint64_t bounded(mp_obj_t obj, uint64_t most)
{
    uint64_t value = u64(obj);

    if (value > most)
        mp_raise_msg_varg(&mp_type_OverflowError, MP_ERROR_TEXT("0x%lx is more than 0x%lx"), value,
                          most);
    return value;
}

uint64_t extent(mp_obj_t obj)
{
    uint64_t value;

    return get_u64(obj, &value) ? value : UINT64_MAX;
}

uint64_t times(uint64_t n, uint64_t size)
{
    return n > UINT64_MAX / size ? UINT64_MAX : n * size;
}

void physical(uint64_t addr, uint64_t len)
{
    uint64_t limit = paging_limit();

    if (len > limit || addr > limit - len)
        mp_raise_msg_varg(&mp_type_ValueError,
                          MP_ERROR_TEXT("0x%lx bytes at 0x%lx: no physical address"), len, addr);
}

uint64_t range(mp_obj_t obj, uint64_t len)
{
    uint64_t addr = extent(obj);

    physical(addr, len);
    return addr;
}

/* What MicroPython's module time needs for the time of day; its source includes this file. */
#include "shared/timeutils/timeutils.h"

static mp_obj_t mp_time_localtime_get(void)
{
    timeutils_struct_time_t t;

    timeutils_seconds_since_epoch_to_struct_time(mp_hal_time_ns() / 1000000000, &t);
    return mp_obj_new_tuple(8, (mp_obj_t[]){
                                   MP_OBJ_NEW_SMALL_INT(t.tm_year),
                                   MP_OBJ_NEW_SMALL_INT(t.tm_mon),
                                   MP_OBJ_NEW_SMALL_INT(t.tm_mday),
                                   MP_OBJ_NEW_SMALL_INT(t.tm_hour),
                                   MP_OBJ_NEW_SMALL_INT(t.tm_min),
                                   MP_OBJ_NEW_SMALL_INT(t.tm_sec),
                                   MP_OBJ_NEW_SMALL_INT(t.tm_wday),
                                   MP_OBJ_NEW_SMALL_INT(t.tm_yday),
                               });
}

static mp_obj_t mp_time_time_get(void)
{
    return mp_obj_new_int_from_ull(mp_hal_time_ns() / 1000000000);
}

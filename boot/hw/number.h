/*
 * Numbers and physical ranges that Python passes to the functions of hw or gets from them.
 *
 * Rule: a range that cannot be a physical one raises ValueError, so that a wrong number from Python
 * never reaches the body, which is mapped above the identity map. Python may write to all physical
 * memory except the body's text and constants, which paging.c maps read-only there too.
 * Rule: a value that does not fit its field, or is negative, raises OverflowError, as cffi does.
 */
#ifndef PVDUMP_HW_NUMBER_H
#define PVDUMP_HW_NUMBER_H

#include "py/obj.h"

uint64_t u64(mp_obj_t obj);
mp_obj_t from_u64(uint64_t value);

/* Returns the number if it is at most `most`. */
uint64_t bounded(mp_obj_t obj, uint64_t most);

/* Returns a length in bytes or a count; if it is too large UINT64_MAX, which range() refuses. */
uint64_t extent(mp_obj_t obj);

/* Returns n * size; UINT64_MAX if that is too large. */
uint64_t times(uint64_t n, uint64_t size);

/* Raises ValueError unless `len` bytes at `addr` can be physical memory. */
void physical(uint64_t addr, uint64_t len);

/* Returns the address in `obj` if `len` bytes from there on are physical memory. */
uint64_t range(mp_obj_t obj, uint64_t len);

#endif

/*
 * Numbers and physical ranges that Python passes to the functions of hw or gets from them.
 *
 * Rule: a range that cannot be a physical one raises ValueError, so that a wrong number from Python
 * never reaches the body, which is mapped above the identity map. Python may write to everything
 * within, but for the body's text and constants: paging.c maps them read-only there too.
 * Rule: a value that does not fit its field, or is negative, raises OverflowError, as cffi does.
 */
#ifndef PVDUMP_HW_NUMBER_H
#define PVDUMP_HW_NUMBER_H

#include "py/obj.h"

uint64_t u64(mp_obj_t obj);
mp_obj_t from_u64(uint64_t value);
uint64_t bounded(mp_obj_t obj, uint64_t most);

/* A length in bytes or a number of things; UINT64_MAX, which range() refuses, if too large. */
uint64_t extent(mp_obj_t obj);
uint64_t times(uint64_t n, uint64_t size);

/* The address of `len` bytes of physical memory. */
uint64_t range(mp_obj_t obj, uint64_t len);

#endif

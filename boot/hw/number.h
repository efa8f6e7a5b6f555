/*
 * Numbers and physical ranges, as Python gives them to the functions of hw and gets them back.
 *
 * Rule: a range that cannot be a physical one raises ValueError, so that a wild number from Python
 * never reaches the body, which lives above the identity map. What is within is Python's business,
 * but for the body's text and constants: paging.c has them read-only there too.
 * Rule: a value that does not fit its field, or is negative, raises OverflowError, as cffi does.
 */
#ifndef PVDUMP_HW_NUMBER_H
#define PVDUMP_HW_NUMBER_H

#include "py/obj.h"

uint64_t u64(mp_obj_t obj);
mp_obj_t from_u64(uint64_t value);
uint64_t bounded(mp_obj_t obj, uint64_t most);

/* A length in bytes or a number of things: what does not fit is for range() to refuse. */
uint64_t extent(mp_obj_t obj);
uint64_t times(uint64_t n, uint64_t size);

/* The address of `len` bytes of physical memory. */
uint64_t range(mp_obj_t obj, uint64_t len);

#endif

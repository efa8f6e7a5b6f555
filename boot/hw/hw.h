/*
 * hw: the primitives that Python cannot provide portably, the part that is the same in both worlds.
 *
 * Compiled into the image (behind memory.c and pages.c, in the MicroPython module) and, by cffi, for
 * CPython (behind host/hw.py). Addresses are guest-physical. In the image physical memory is mapped one to
 * one, so hw_base is the constant 0. Under CPython a mapped file stands for the RAM and hw_base is
 * its address; host/hw.py has checked every range before it calls.
 *
 * Rule: C only moves bytes; decisions are made in Python. Single accesses are volatile and never
 * torn.
 * classify.h has the rule of hw_classify, which judges pages by what Python told it.
 * Layouts: Xen public/grant_table.h (grant_entry_v1, the full_page of grant_entry_v2,
 * grant_status_t), public/io/blkif.h (blkif_request_segment).
 */
#ifndef PVDUMP_HW_H
#define PVDUMP_HW_H

#include <stdint.h>

#ifdef HW_HOST
extern uint64_t hw_base;
#else
#define hw_base ((uint64_t)0)
#endif

static inline void *hw_at(uint64_t addr)
{
    return (void *)(uintptr_t)(hw_base + addr);
}

uint16_t hw_rd16(uint64_t addr);
uint32_t hw_rd32(uint64_t addr);
uint64_t hw_rd64(uint64_t addr);
void hw_wr32(uint64_t addr, uint32_t value);

void hw_rmb(void);
void hw_wmb(void);
void hw_mb(void);

int hw_test_and_clear_bit(uint64_t addr, uint32_t nr);

void hw_copy(uint64_t dst, uint64_t src, uint64_t len);

void hw_grant_fill(uint64_t table, uint64_t refs, uint32_t n, uint16_t domid, uint32_t gfn,
                   uint16_t flags);
uint32_t hw_grant_end(uint64_t table, uint64_t refs, uint32_t n);
void hw_grant_fill_v2(uint64_t table, uint64_t refs, uint32_t n, uint16_t domid, uint64_t gfn,
                      uint16_t flags);
uint32_t hw_grant_end_v2(uint64_t table, uint64_t status, uint64_t refs, uint32_t n);
void hw_seg_fill(uint64_t dst, uint64_t refs, uint32_t n, uint8_t first_sect, uint8_t last_sect);

/* crc32.c, pack.c: for one caller at a time. */
uint32_t hw_crc32(uint32_t crc, const uint8_t *data, uint64_t len);
void hw_pack(uint64_t *state, const uint8_t *keep, uint8_t *out, uint64_t out_size, uint8_t *table,
             uint64_t table_size);
uint64_t hw_classify(uint64_t filter, uint64_t pages, uint64_t pfn, uint32_t n, uint64_t keep);
uint32_t hw_run_end(uint64_t bits, uint32_t bit, uint32_t end);

/* seal.c. Keys, points and what they share have 32 bytes. */
void hw_x25519(uint8_t *shared, const uint8_t *secret, const uint8_t *point);
void hw_seal(uint8_t *out, const uint8_t *key, uint64_t counter, int is_last, const uint8_t *piece,
             uint64_t size);

/* verify.c. */
#define HW_BLAKE2B_STATE 256
#define HW_BLAKE2B_HASH 64
void hw_blake2b_update(uint8_t *state, const uint8_t *piece, uint64_t size);
void hw_blake2b_final(const uint8_t *state, uint8_t *hash);
int hw_ed25519_check(const uint8_t *signature, const uint8_t *key, const uint8_t *message,
                     uint64_t size);

#endif

/*
 * CRC-32 with the polynomial of zlib, eight bytes at a time.
 *
 * Rule: general registers only; the tables are made at the first call, as 8 KiB of .bss cost the
 * image's file nothing.
 * Source: Kounavis and Berry, "A Systematic Approach to Building High Performance Software-based CRC
 * Generators" (slicing-by-8).
 */
#include "hw.h"

#define POLYNOMIAL 0xedb88320u /* bits reversed */

/* table[k][b]: the CRC of byte b with k zeros behind it, without the inversions. */
static uint32_t table[8][256];

/* Any alignment. */
typedef uint64_t __attribute__((may_alias, aligned(1))) unaligned64;

static void make_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;

        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][byte] = crc;
    }
    for (int zeros = 1; zeros < 8; zeros++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = table[zeros - 1][byte];

            table[zeros][byte] = crc >> 8 ^ table[0][crc & 0xff];
        }
    }
}

/* Returns zlib's crc32(crc, data, len): crc is 0, or that of what stands before the data. */
uint32_t hw_crc32(uint32_t crc, const uint8_t *data, uint64_t len)
{
    if (!table[0][1])
        make_tables();
    crc = ~crc;
    for (; len >= 8; len -= 8, data += 8) {
        uint64_t word = *(const unaligned64 *)data ^ crc;

        crc = table[7][word & 0xff] ^ table[6][word >> 8 & 0xff] ^ table[5][word >> 16 & 0xff] ^
              table[4][word >> 24 & 0xff] ^ table[3][word >> 32 & 0xff] ^
              table[2][word >> 40 & 0xff] ^ table[1][word >> 48 & 0xff] ^ table[0][word >> 56];
    }
    while (len--)
        crc = crc >> 8 ^ table[0][(crc ^ *data++) & 0xff];
    return ~crc;
}

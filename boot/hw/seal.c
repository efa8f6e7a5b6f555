/*
 * X25519 and ChaCha20-Poly1305, as the age format uses them for the dump's encryption.
 *
 * Rule: no state is kept between calls, and nothing secret stays behind on the stack: Monocypher
 * wipes its own. Which key and which number a piece has is decided in Python (firmware/pvfw/age.py).
 * Source: RFC 7748; RFC 8439; the age file format, "Payload".
 */
#include <string.h>

#include <monocypher.h>

#include "hw.h"

#define NONCE 12
#define COUNTER_END 11 /* the counter is big-endian; the last byte marks the last piece */

/* shared = secret * point; all zeros for a point of low order. */
void hw_x25519(uint8_t *shared, const uint8_t *secret, const uint8_t *point)
{
    crypto_x25519(shared, secret, point);
}

/* Encrypt a piece of `size` bytes; out gets them and a tag of 16 bytes behind them. */
void hw_seal(uint8_t *out, const uint8_t *key, uint64_t counter, int is_last, const uint8_t *piece,
             uint64_t size)
{
    uint8_t nonce[NONCE] = { 0 };
    crypto_aead_ctx context;

    for (int i = COUNTER_END; i-- > COUNTER_END - 8; counter >>= 8)
        nonce[i] = counter;
    nonce[COUNTER_END] = is_last;
    crypto_aead_init_ietf(&context, key, nonce);
    crypto_aead_write(&context, out, out + size, NULL, 0, piece, size);
    crypto_wipe(&context, sizeof(context));
}

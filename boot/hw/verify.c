/*
 * BLAKE2b and Ed25519, by which a guest's kernel is checked before it is entered.
 *
 * Rule: Monocypher has BLAKE2b and the equation of the curve; SHA-512, which its one file lacks, is
 * here. A file is hashed piece by piece, so that the caller can do other things in between. Nothing
 * here is secret, so nothing takes a fixed time or is wiped.
 * Source: RFC 7693; RFC 8032, 5.1.7; FIPS 180-4, 6.4.
 */
#include <string.h>

#include <monocypher.h>

#include "hw.h"

_Static_assert(sizeof(crypto_blake2b_ctx) <= HW_BLAKE2B_STATE, "the state of BLAKE2b");

#define BLOCK 128
#define LENGTH_AT (BLOCK - 16) /* of the message's length in its last block */

struct sha512 {
    uint64_t hash[8];
    uint8_t block[BLOCK];
    uint64_t size; /* bytes so far */
};

/* clang-format off */
/* The fractions of the square roots of the first 8 primes. */
static const uint64_t start[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

/* The fractions of the cube roots of the first 80 primes. */
static const uint64_t rounds[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};
/* clang-format on */

/* state: HW_BLAKE2B_STATE bytes of any alignment, all zeros before the first piece. */
void hw_blake2b_update(uint8_t *state, const uint8_t *piece, uint64_t size)
{
    crypto_blake2b_ctx context;

    memcpy(&context, state, sizeof(context));
    if (!context.hash_size)
        crypto_blake2b_init(&context, HW_BLAKE2B_HASH);
    crypto_blake2b_update(&context, piece, size);
    memcpy(state, &context, sizeof(context));
}

void hw_blake2b_final(const uint8_t *state, uint8_t *hash)
{
    crypto_blake2b_ctx context;

    memcpy(&context, state, sizeof(context));
    if (!context.hash_size)
        crypto_blake2b_init(&context, HW_BLAKE2B_HASH);
    crypto_blake2b_final(&context, hash);
}

static uint64_t rotated(uint64_t word, int bits)
{
    return word >> bits | word << (64 - bits);
}

static uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t word = 0;

    for (int i = 0; i < 8; i++)
        word = word << 8 | bytes[i];
    return word;
}

static void store(uint8_t *bytes, uint64_t word)
{
    for (int i = 8; i-- > 0; word >>= 8)
        bytes[i] = word;
}

static void take_block(struct sha512 *sha)
{
    uint64_t w[80], v[8];

    for (int i = 0; i < 16; i++)
        w[i] = big_endian(sha->block + 8 * i);
    for (int i = 16; i < 80; i++) {
        uint64_t a = w[i - 15], b = w[i - 2];

        w[i] = w[i - 16] + w[i - 7] + (rotated(a, 1) ^ rotated(a, 8) ^ a >> 7) +
               (rotated(b, 19) ^ rotated(b, 61) ^ b >> 6);
    }
    memcpy(v, sha->hash, sizeof(v));
    for (int i = 0; i < 80; i++) {
        uint64_t a = v[0], e = v[4];
        uint64_t first = v[7] + (rotated(e, 14) ^ rotated(e, 18) ^ rotated(e, 41)) +
                         ((e & v[5]) ^ (~e & v[6])) + rounds[i] + w[i];
        uint64_t second = (rotated(a, 28) ^ rotated(a, 34) ^ rotated(a, 39)) +
                          ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));

        memmove(v + 1, v, 7 * sizeof(*v));
        v[4] += first;
        v[0] = first + second;
    }
    for (int i = 0; i < 8; i++)
        sha->hash[i] += v[i];
}

static void take(struct sha512 *sha, const uint8_t *data, uint64_t size)
{
    while (size--) {
        sha->block[sha->size++ % BLOCK] = *data++;
        if (sha->size % BLOCK == 0)
            take_block(sha);
    }
}

static void end(struct sha512 *sha, uint8_t *hash)
{
    static const uint8_t padding[BLOCK] = { 0x80 };
    uint8_t length[16] = { 0 };

    store(length + 8, sha->size * 8);
    take(sha, padding, (2 * BLOCK + LENGTH_AT - 1 - sha->size % BLOCK) % BLOCK + 1);
    take(sha, length, sizeof(length));
    for (int i = 0; i < 8; i++)
        store(hash + 8 * i, sha->hash[i]);
}

/* Returns 1 if the signature of 64 bytes is the key's (32 bytes) over the message, else 0. */
int hw_ed25519_check(const uint8_t *signature, const uint8_t *key, const uint8_t *message,
                     uint64_t size)
{
    struct sha512 sha = { .size = 0 };
    uint8_t hash[64], reduced[32];

    memcpy(sha.hash, start, sizeof(start));
    take(&sha, signature, 32);
    take(&sha, key, 32);
    take(&sha, message, size);
    end(&sha, hash);
    crypto_eddsa_reduce(reduced, hash);
    return crypto_eddsa_check_equation(signature, key, reduced) == 0;
}

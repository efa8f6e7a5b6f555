/*
 * The parts of zstd that are other than its own: the match finder, compiled for the parameters of
 * pack.c alone, and the functions of what is left out.
 *
 * zstd_fast.c has its match finder 32 times, for each length of a match, with and without
 * dictionaries. One of them is used, with all of its functions inlined; the file's own entries get
 * other names, and the linker drops them.
 *
 * Rule: what is left out, pack.c never asks for. If zstd asked nevertheless, it would find no
 * match, so that all of the block is literals, or an error.
 */
#define ZSTD_NO_INTRINSICS
#define ZSTD_compressBlock_fast unused_fast
#define ZSTD_compressBlock_fast_dictMatchState unused_fast_dictionary
#define ZSTD_compressBlock_fast_extDict unused_fast_segments
#include <compress/zstd_fast.c>
#undef ZSTD_compressBlock_fast
#undef ZSTD_compressBlock_fast_dictMatchState
#undef ZSTD_compressBlock_fast_extDict

#include <common/error_private.h>
#include <common/fse.h>
#include <common/huf.h>
#include <common/xxhash.h>
#include <compress/zstd_compress_superblock.h>
#include <compress/zstd_ldm.h>
#include <compress/zstd_preSplit.h>

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define MATCH_FINDER(name)                                                                         \
    size_t name(ZSTD_MatchState_t *match, SeqStore_t *sequences, U32 rep[ZSTD_REP_NUM],            \
                const void *src, size_t size)

MATCH_FINDER(ZSTD_compressBlock_fast)
{
    return ZSTD_compressBlock_fast_noDict_4_1(match, sequences, rep, src, size);
}

MATCH_FINDER(ZSTD_compressBlock_fast_dictMatchState)
{
    return size;
}

MATCH_FINDER(ZSTD_compressBlock_fast_extDict)
{
    return size;
}

size_t ZSTD_ldm_getTableSize(ldmParams_t params)
{
    return 0;
}

size_t ZSTD_ldm_getMaxNbSeq(ldmParams_t params, size_t max_chunk)
{
    return 0;
}

void ZSTD_ldm_adjustParameters(ldmParams_t *params, const ZSTD_compressionParameters *c_params)
{
}

void ZSTD_ldm_fillHashTable(ldmState_t *state, const BYTE *ip, const BYTE *end,
                            const ldmParams_t *params)
{
}

size_t ZSTD_ldm_generateSequences(ldmState_t *state, RawSeqStore_t *sequences,
                                  const ldmParams_t *params, const void *src, size_t size)
{
    return 0;
}

size_t ZSTD_ldm_blockCompress(RawSeqStore_t *raw, ZSTD_MatchState_t *match, SeqStore_t *sequences,
                              U32 rep[ZSTD_REP_NUM], ZSTD_ParamSwitch_e row, const void *src,
                              size_t size)
{
    return 0;
}

void ZSTD_ldm_skipSequences(RawSeqStore_t *raw, size_t size, U32 min_match)
{
}

void ZSTD_ldm_skipRawSeqStoreBytes(RawSeqStore_t *raw, size_t bytes)
{
}

size_t ZSTD_compressSuperBlock(ZSTD_CCtx *context, void *dst, size_t capacity, const void *src,
                               size_t size, unsigned int last)
{
    return 0;
}

size_t ZSTD_splitBlock(const void *block, size_t size, int level, void *space, size_t space_size)
{
    return size;
}

/* Dictionaries. */
size_t FSE_readNCount(short *counts, unsigned int *symbols, unsigned int *log, const void *src,
                      size_t size)
{
    return ERROR(dictionary_corrupted);
}

size_t HUF_readStats(BYTE *weights, size_t weights_size, U32 *ranks, U32 *symbols, U32 *log,
                     const void *src, size_t size)
{
    return ERROR(dictionary_corrupted);
}

/* The checksum of a frame's content. A reset comes with each frame. */
XXH_errorcode XXH64_reset(XXH64_state_t *state, XXH64_hash_t seed)
{
    return XXH_OK;
}

XXH_errorcode XXH64_update(XXH64_state_t *state, const void *src, size_t size)
{
    return XXH_ERROR;
}

XXH64_hash_t XXH64_digest(const XXH64_state_t *state)
{
    return 0;
}

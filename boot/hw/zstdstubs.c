/*
 * The functions of zstd's parts that are left out: matches over long distances, blocks of a target
 * size, and splitting of blocks. The parameters of pack.c never ask for them; zstd only adds their
 * tables, which have no size, to its workspace.
 */
#include <common/zstd_internal.h>
#include <compress/zstd_compress_superblock.h>
#include <compress/zstd_ldm.h>
#include <compress/zstd_preSplit.h>

#pragma GCC diagnostic ignored "-Wunused-parameter"

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

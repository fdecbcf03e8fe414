// Token-dictionary cross-attention: cosine logits, softmax, values and category in one pass; no (n, M) map is kept.

#include <cfloat>
#include <cmath>

#include "vector.h"

namespace {

// The largest of `count` logits and the first place where it stands.
ATD_INLINE float first_largest(const float* logits, int64_t count, int64_t* place) {
    const int64_t full = count / LANES * LANES;
    Vector top = splat(-FLT_MAX);
    Integers where{};
    for (int64_t j = 0; j < full; j += LANES) {
        const Vector x = load(logits + j);
        const Integers larger = x > top;
        top = larger ? x : top;
        where = larger ? Integers{} + (int32_t)j : where;
    }
    const float largest = largest_lane(top);
    int64_t first = 0;
    float best = -FLT_MAX;
    if (full) {
        first = count;
        best = largest;
        for (int lane = 0; lane < LANES; lane++)
            if (top[lane] == largest && where[lane] + lane < first) first = where[lane] + lane;
        if (first == count) first = 0;  // NaN alone
    }
    for (int64_t j = full; j < count; j++)
        if (logits[j] > best) best = logits[j], first = j;
    *place = first;
    return best;
}

}  // namespace

// query (n, rank), not normalised. key (rank, stride): normalised, times the factors of the logits, transposed.
// value (entries, columns), columns a multiple of 16. output (n, channels), channels <= columns. category (n).
extern "C" int atd_dictionary_attention(const float* query, const float* key, const float* value, float* output,
                                        int64_t* category, int64_t tokens, int64_t rank, int64_t entries,
                                        int64_t stride, int64_t channels, int64_t columns, int threads) {
    const int64_t blocks = (tokens + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const int64_t map = round_up(entries);
    const Scratch scratch(BLOCK_ROWS * (map + columns + rank), threads);
    if (!scratch.memory) return NO_MEMORY;
#pragma omp parallel num_threads(threads)
    {
        float* logits = scratch.of_thread();
        float* attended = logits + BLOCK_ROWS * map;
        float* unit = attended + BLOCK_ROWS * columns;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t first = block * BLOCK_ROWS;
            const int count = (int)(tokens - first < BLOCK_ROWS ? tokens - first : BLOCK_ROWS);
            for (int r = 0; r < count; r++) {
                const float* q = query + (first + r) * rank;
                float square = 0;
                for (int64_t c = 0; c < rank; c++) square += q[c] * q[c];
                const float norm = sqrtf(square);
                const float factor = 1.0f / (norm < 1e-12f ? 1e-12f : norm);  // as torch.nn.functional.normalize
                for (int64_t c = 0; c < rank; c++) unit[r * rank + c] = q[c] * factor;
            }
            multiply(count, unit, rank, key, stride, logits, map, rank, map);
            float factor[BLOCK_ROWS];
            for (int r = 0; r < count; r++) {
                const float top = first_largest(logits + r * map, entries, category + first + r);
                factor[r] = softmax_numerators(logits + r * map, entries, top);
            }
            multiply(count, logits, map, value, columns, attended, columns, entries, columns);
            for (int r = 0; r < count; r++)
                for (int64_t c = 0; c < channels; c++)
                    output[(first + r) * channels + c] = attended[r * columns + c] * factor[r];
        }
    }
    return DONE;
}

// Softmax attention inside groups of rows that an index names: window attention and category attention.

#include <cfloat>

#include "vector.h"

namespace {

// The rows of a category lie anywhere in memory: they are asked for so many rows before they are used.
constexpr int64_t AHEAD = 12;

// One head of one group. Keys are laid out (width, size), values (size, width), so that both products run along them.
struct Head {
    int64_t size, width, key_stride, value_stride;
    float *query, *key, *value, *logits, *output;

    static int64_t floats(int64_t size, int64_t width) {
        return width * (round_up(size) + LANES) + size * round_up(width) +
               BLOCK_ROWS * (round_up(size) + 2 * round_up(width)) + 5 * LANES;
    }

    Head(float* memory, int64_t size_, int64_t width_)
        : size(size_),
          width(width_),
          key_stride(round_up(size_) + LANES),  // not a power of two: rows would share few sets of the cache
          value_stride(round_up(width_)),
          query(memory),
          key(query + BLOCK_ROWS * value_stride),
          value(key + width * key_stride),
          logits(value + size * value_stride),
          output(logits + BLOCK_ROWS * round_up(size_)) {}

    void gather(const float* rows, const int64_t* index, int64_t row, int64_t channels) {
        for (int64_t j = 0; j < size; j++) {
            if (j + AHEAD < size) {
                const float* next = rows + index[j + AHEAD] * row;
                for (int part = 0; part < 3; part++)
                    for (int64_t c = 0; c < width; c += 16) __builtin_prefetch(next + part * channels + c);
            }
            const float* k = rows + index[j] * row + channels;
            const float* v = k + channels;
            for (int64_t c = 0; c < width; c++) key[c * key_stride + j] = k[c];
            for (int64_t c = 0; c < width; c++) value[j * value_stride + c] = v[c];
            for (int64_t c = width; c < value_stride; c++) value[j * value_stride + c] = 0;
        }
        for (int64_t c = 0; c < width; c++)
            for (int64_t j = size; j < round_up(size); j++) key[c * key_stride + j] = 0;
    }
};

// Adds the bias to a row of logits; returns the largest.
ATD_INLINE float add_bias(float* logits, const float* bias, int64_t size) {
    const int64_t full = size / LANES * LANES;
    Vector top = splat(-FLT_MAX);
    for (int64_t j = 0; j < full; j += LANES) {
        Vector x = load(logits + j);
        if (bias) store(logits + j, x += load(bias + j));
        top = maximum(top, x);
    }
    float largest = largest_lane(top);
    for (int64_t j = full; j < size; j++) {
        if (bias) logits[j] += bias[j];
        if (!(logits[j] <= largest)) largest = logits[j];
    }
    return largest;
}

}  // namespace

// rows (n, 3·heads·width): channels (q | k | v), heads inside each. index (groups·size): the rows of each group.
// bias (heads, size, size) or null. output (n, heads·width): a row's result is written to the row's own place, for the
// first `kept` places of the index.
extern "C" int atd_grouped_attention(const float* rows, const int64_t* index, int64_t groups, int64_t size,
                                     int64_t heads, int64_t width, float scale, const float* bias, float* output,
                                     int64_t kept, int threads) {
    const int64_t channels = heads * width, row = 3 * channels;
    const Scratch scratch(Head::floats(size, width), threads);
    if (!scratch.memory) return NO_MEMORY;
#pragma omp parallel num_threads(threads)
    {
        Head head(scratch.of_thread(), size, width);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < groups * heads; task++) {
            const int64_t group = task / heads, offset = task % heads * width;
            const int64_t* members = index + group * size;
            const float* head_bias = bias ? bias + task % heads * size * size : nullptr;
            head.gather(rows + offset, members, row, channels);
            for (int64_t first = 0; first < size; first += BLOCK_ROWS) {
                const int count = (int)(size - first < BLOCK_ROWS ? size - first : BLOCK_ROWS);
                for (int r = 0; r < count; r++) {
                    const float* q = rows + offset + members[first + r] * row;
                    for (int64_t c = 0; c < width; c++) head.query[r * width + c] = q[c] * scale;
                }
                const int64_t logit_stride = round_up(size);
                multiply(count, head.query, width, head.key, head.key_stride, head.logits, logit_stride, width,
                         logit_stride);
                float factor[BLOCK_ROWS];
                for (int r = 0; r < count; r++) {
                    float* logits = head.logits + r * logit_stride;
                    const float top = add_bias(logits, head_bias ? head_bias + (first + r) * size : nullptr, size);
                    factor[r] = softmax_numerators(logits, size, top);
                }
                multiply(count, head.logits, logit_stride, head.value, head.value_stride, head.output,
                         head.value_stride, size, head.value_stride);
                for (int r = 0; r < count && group * size + first + r < kept; r++) {
                    float* to = output + members[first + r] * channels + offset;
                    for (int64_t c = 0; c < width; c++) to[c] = head.output[r * head.value_stride + c] * factor[r];
                }
            }
        }
    }
    return DONE;
}

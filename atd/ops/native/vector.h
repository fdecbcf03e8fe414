// What the kernels have in common: vectors of float32, exp, erf, and products of small matrices held in registers.

#pragma once

#include <immintrin.h>
#include <omp.h>

#include <cstdint>
#include <cstdlib>

#define ATD_INLINE static inline __attribute__((always_inline))
#define ATD_UNROLL _Pragma("GCC unroll 32")

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr int TILE_ROWS = 6, TILE_VECTORS = 4;  // 24 of 32 registers hold sums
#else
constexpr int LANES = 8;
constexpr int TILE_ROWS = 6, TILE_VECTORS = 2;  // 12 of 16
#endif
// Rows whose attention is formed at a time: their logits stay in the first-level cache.
constexpr int BLOCK_ROWS = 12;

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float UnalignedVector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));

ATD_INLINE Vector load(const float* from) { return *(const UnalignedVector*)from; }
ATD_INLINE void store(float* to, Vector x) { *(UnalignedVector*)to = x; }
ATD_INLINE Vector splat(float x) { return x - Vector{}; }
// A NaN in b is kept, one in a is not.
ATD_INLINE Vector maximum(Vector a, Vector b) { return a > b ? a : b; }

ATD_INLINE int64_t round_up(int64_t n) { return (n + LANES - 1) / LANES * LANES; }
// What a kernel returns.
constexpr int DONE = 0, NO_MEMORY = 1;

// Working memory of `threads` threads, each its own whole cache lines. `memory` is null where the system has none left:
// it is asked for before the threads start, so that a kernel can give up as a whole.
struct Scratch {
    int64_t floats;
    float* memory;

    Scratch(int64_t floats_, int threads)
        : floats((floats_ + 15) / 16 * 16), memory((float*)aligned_alloc(64, floats * sizeof(float) * threads)) {}
    Scratch(const Scratch&) = delete;
    ~Scratch() { free(memory); }
    float* of_thread() const { return memory + floats * omp_get_thread_num(); }
};

#if defined(__AVX512F__)
ATD_INLINE float sum_of_lanes(Vector x) { return _mm512_reduce_add_ps((__m512)x); }
ATD_INLINE float largest_lane(Vector x) { return _mm512_reduce_max_ps((__m512)x); }
#else
ATD_INLINE float sum_of_lanes(Vector x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
ATD_INLINE float largest_lane(Vector x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
#endif

// exp(x) for x <= 0 within 2 units in the last place; below -87 it stays at exp(-87), about 1e-38.
// 2^n · 2^f with n the nearest integer of x·log2(e) and the Taylor polynomial of degree 6 for |f| <= 1/2.
ATD_INLINE Vector exponential(Vector x) {
    const float log2e = 1.44269504f, to_integer = 12582912.0f;  // 1.5·2^23: the sum's last bits are the integer
    const Vector lowest = splat(-87.0f);
    x = x < lowest ? lowest : x;
    const Vector shifted = x * log2e + to_integer;
    const Vector f = x * log2e - (shifted - to_integer);
    Vector p = splat(1.54035304e-4f);
    p = p * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    return (Vector)((Integers)p + ((Integers)shifted << 23));
}

// x·(1 + erf(x/√2))/2, with erf by formula 7.1.26 of Abramowitz and Stegun: within 1.5e-7 of the true one.
ATD_INLINE Vector gelu(Vector x) {
    const Vector a = (x < 0.0f ? -x : x) * 0.707106781f;
    const Vector t = 1.0f / (a * 0.3275911f + 1.0f);
    Vector p = splat(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Vector tail = p * t * exponential(-a * a);  // 1 - erf(a)
    return 0.5f * x * (x < 0.0f ? tail : 2.0f - tail);
}

// out (rows, vectors·LANES) = a (rows, inner) · b (inner, vectors·LANES), all sums in registers.
template <int rows, int vectors>
static void multiply_tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out,
                          int64_t out_stride, int64_t inner) {
    Vector sum[rows][vectors];
    ATD_UNROLL for (int r = 0; r < rows; r++) ATD_UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = Vector{};
    for (int64_t i = 0; i < inner; i++) {
        Vector row[vectors];
        ATD_UNROLL for (int v = 0; v < vectors; v++) row[v] = load(b + i * b_stride + v * LANES);
        ATD_UNROLL for (int r = 0; r < rows; r++) {
            const Vector factor = splat(a[r * a_stride + i]);
            ATD_UNROLL for (int v = 0; v < vectors; v++) sum[r][v] += factor * row[v];
        }
    }
    ATD_UNROLL for (int r = 0; r < rows; r++) ATD_UNROLL for (int v = 0; v < vectors; v++)
        store(out + r * out_stride + v * LANES, sum[r][v]);
}

typedef void (*Tile)(const float*, int64_t, const float*, int64_t, float*, int64_t, int64_t);
template <int rows>
static Tile tile_of_width(int vectors) {
    static const Tile tiles[] = {multiply_tile<rows, 1>, multiply_tile<rows, 2>, multiply_tile<rows, 3>,
                                 multiply_tile<rows, 4>};
    return tiles[vectors - 1];
}
static Tile tile_of_size(int rows, int vectors) {
    switch (rows) {
        case 1: return tile_of_width<1>(vectors);
        case 2: return tile_of_width<2>(vectors);
        case 3: return tile_of_width<3>(vectors);
        case 4: return tile_of_width<4>(vectors);
        case 5: return tile_of_width<5>(vectors);
        default: return tile_of_width<6>(vectors);
    }
}

// out (rows, columns) = a (rows, inner) · b (inner, columns); columns is a multiple of LANES, rows <= BLOCK_ROWS.
ATD_INLINE void multiply(int rows, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out,
                         int64_t out_stride, int64_t inner, int64_t columns) {
    if (rows == BLOCK_ROWS && columns == LANES) {  // the narrow heads of the light networks
        multiply_tile<BLOCK_ROWS, 1>(a, a_stride, b, b_stride, out, out_stride, inner);
        return;
    }
    for (int64_t c = 0; c < columns; c += TILE_VECTORS * LANES) {
        const int64_t left = (columns - c) / LANES;
        const int vectors = left < TILE_VECTORS ? (int)left : TILE_VECTORS;
        for (int r = 0; r < rows; r += TILE_ROWS) {
            const int count = rows - r < TILE_ROWS ? rows - r : TILE_ROWS;
            tile_of_size(count, vectors)(a + r * a_stride, a_stride, b + c, b_stride, out + r * out_stride + c,
                                         out_stride, inner);
        }
    }
}

// The first `count` logits become exp(logits - largest), those that fill the last vector 0. Returns 1 / the sum.
ATD_INLINE float softmax_numerators(float* logits, int64_t count, float largest) {
    const int64_t full = count / LANES * LANES;
    const Vector top = splat(largest);
    Vector sum{};
    for (int64_t j = 0; j < full; j += LANES) {
        const Vector e = exponential(load(logits + j) - top);
        store(logits + j, e);
        sum += e;
    }
    float total = sum_of_lanes(sum);
    if (full < count) {
        store(logits + full, exponential(load(logits + full) - top));
        for (int64_t j = full; j < count; j++) total += logits[j];
        for (int64_t j = count; j < full + LANES; j++) logits[j] = 0;
    }
    return 1.0f / total;
}

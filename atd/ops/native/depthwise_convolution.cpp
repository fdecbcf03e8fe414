// y + GELU(depthwise convolution of y), channels last: the spatial half of the feed-forward network.

#include "vector.h"

namespace {

constexpr int PIXELS = LANES == 16 ? 14 : 7;  // sums held in registers

struct Image {
    const float* pixels;  // its row 0 is the first of the zero rows above the image
    int64_t width, channels;
};

// One vector of channels for `count` pixels from x on, where all taps lie inside the line.
template <int count, int side>
ATD_INLINE void filter(const Image& in, const float* weight, Vector bias, int64_t y, int64_t x, float* out) {
    Vector sum[count];
    ATD_UNROLL for (int p = 0; p < count; p++) sum[p] = bias;
    for (int i = 0; i < side; i++) {
        const float* line = in.pixels + ((y + i) * in.width + x - side / 2) * in.channels;
        for (int j = 0; j < side; j++) {
            const Vector w = load(weight + (i * side + j) * in.channels);
            ATD_UNROLL for (int p = 0; p < count; p++) sum[p] += load(line + (j + p) * in.channels) * w;
        }
    }
    const float* centre = in.pixels + ((y + side / 2) * in.width + x) * in.channels;
    ATD_UNROLL for (int p = 0; p < count; p++)
        store(out + p * in.channels, gelu(sum[p]) + load(centre + p * in.channels));
}

// One pixel near the left or right edge: taps outside the line are left out.
template <int side>
ATD_INLINE void filter_at_edge(const Image& in, const float* weight, Vector bias, int64_t y, int64_t x, float* out) {
    Vector sum = bias;
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            const int64_t from = x + j - side / 2;
            if (from >= 0 && from < in.width)
                sum += load(in.pixels + ((y + i) * in.width + from) * in.channels) *
                       load(weight + (i * side + j) * in.channels);
        }
    store(out, gelu(sum) + load(in.pixels + ((y + side / 2) * in.width + x) * in.channels));
}

template <int side>
void filter_lines(const Image& in, const float* weight, const float* bias, float* out, int64_t lines, int threads) {
    const int64_t vectors = (in.channels + LANES - 1) / LANES;
    const int64_t inner_end = in.width - side / 2;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t y = 0; y < lines; y++)
        for (int64_t v = 0; v < vectors; v++) {
            // The last vector reaches back over channels that are done: they come out the same again.
            const int64_t c = v * LANES + LANES <= in.channels ? v * LANES : in.channels - LANES;
            const Image part{in.pixels + c, in.width, in.channels};
            const Vector b = bias ? load(bias + c) : Vector{};
            float* line = out + y * in.width * in.channels + c;
            int64_t x = 0;
            for (; x < in.width && x < side / 2; x++)
                filter_at_edge<side>(part, weight + c, b, y, x, line + x * in.channels);
            for (; x + PIXELS <= inner_end; x += PIXELS)
                filter<PIXELS, side>(part, weight + c, b, y, x, line + x * in.channels);
            for (; x < inner_end; x++) filter<1, side>(part, weight + c, b, y, x, line + x * in.channels);
            for (; x < in.width; x++) filter_at_edge<side>(part, weight + c, b, y, x, line + x * in.channels);
        }
}

}  // namespace

// input (lines + side - 1, width, channels): the lines asked for with side/2 more above and below; zero beyond an
// image's edge. weight (side, side, channels). bias (channels) or null. output (lines, width, channels).
// channels >= 16; side is 3, 5 or 7.
extern "C" int atd_depthwise_convolution(const float* input, const float* weight, const float* bias, float* output,
                                        int64_t lines, int64_t width, int64_t channels, int64_t side, int threads) {
    const Image image{input, width, channels};
    switch (side) {
        case 3: filter_lines<3>(image, weight, bias, output, lines, threads); break;
        case 5: filter_lines<5>(image, weight, bias, output, lines, threads); break;
        case 7: filter_lines<7>(image, weight, bias, output, lines, threads); break;
    }
    return DONE;
}

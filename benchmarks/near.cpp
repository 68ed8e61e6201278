// The gradient of a 3x3 convolution towards its input, at marked positions and channels only.

#pragma GCC optimize("fp-contract=fast")

#include <cstdint>

using Vector = float __attribute__((vector_size(64), aligned(4), may_alias));
using Int = std::int64_t;

namespace {

constexpr Int TAPS = 9, LANES = 16, WORD = 64;

inline float total(Vector values) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += values[lane];
    return sum;
}

// Products of the gradients around a position with the weights of several channels, over the outputs begin to end.
template <int CHANNELS>
inline void add(const float* const* gradients, const float* weights, const int* channels, Int begin, Int end, Int outputs, float* to) {
    Vector sums[CHANNELS] = {};
    for (Int tap = 0; tap < TAPS; tap++) {
        const float* of_tap = weights + tap * WORD * outputs;
        for (Int k = begin; k < end; k += LANES) {
            const Vector gradient = *reinterpret_cast<const Vector*>(gradients[tap] + k);
            for (int j = 0; j < CHANNELS; j++)
                sums[j] += gradient * *reinterpret_cast<const Vector*>(of_tap + channels[j] * outputs + k);
        }
    }
    for (int j = 0; j < CHANNELS; j++) to[channels[j]] += total(sums[j]);
}

}  // namespace

// dy [N, H + 2, W + 2, outputs] with zeros around it, weights [words, 9, 64, outputs], marked [N, H, W, words], dx [N, H, W, 64 words].
extern "C" void near(Int N, Int H, Int W, Int outputs, Int words, Int span, const float* dy, const float* weights, const std::uint64_t* marked, float* dx) {
    for (Int word = 0; word < words; word++)
        for (Int begin = 0; begin < outputs; begin += span)
            for (Int n = 0; n < N; n++)
                for (Int y = 0; y < H; y++)
                    for (Int x = 0; x < W; x++) {
                        const Int place = ((n * H + y) * W + x) * words + word;
                        std::uint64_t left = marked[place];
                        const float* gradients[TAPS];
                        for (Int tap = 0; tap < TAPS; tap++)
                            gradients[tap] = dy + ((n * (H + 2) + y + tap / 3) * (W + 2) + x + tap % 3) * outputs;
                        int channels[WORD], count = 0;
                        for (; left; left &= left - 1) channels[count++] = __builtin_ctzll(left);
                        const float* own = weights + word * TAPS * WORD * outputs;
                        float* to = dx + place * WORD;
                        int i = 0;
                        for (; i + 8 <= count; i += 8) add<8>(gradients, own, channels + i, begin, begin + span, outputs, to);
                        for (; i + 4 <= count; i += 4) add<4>(gradients, own, channels + i, begin, begin + span, outputs, to);
                        for (; i < count; i++) add<1>(gradients, own, channels + i, begin, begin + span, outputs, to);
                    }
}

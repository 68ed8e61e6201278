// The loops in `fused` and `eligibility` for a CPU, compiled and called by `on_cpu.py`; the counterpart of `triton_kernels.py`.
//
// They are compiled for one kind of neuron and a number of timesteps:
//
//   VALUE         float or BFloat16, of currents and spikes
//   TIMESTEPS     of a block, at most 8
//   HARD          1 where a reset ends at v_reset, 0 where the threshold is subtracted
//   DETACH_RESET  1 where the reset is left out of the gradient
//   FORM          of the surrogate's derivative: LOGISTIC, RECTANGLE, TRIANGLE or ARCTAN
//
// A sequence lies in memory as [T, rows, values]. A loop over neurons has all timesteps of the block within, written out: membranes
// stay in registers, and the compiler makes vectors of neurons. Products and sums are rounded one by one, as PyTorch's are, so that
// spikes are the same, bit for bit.

#include <cmath>
#include <type_traits>
#include <vector>

#include "numbers.hpp"

namespace {

constexpr Int PARTS = 32;   // of a sequence, which threads share
constexpr int STRIP = 256;  // neurons, for which what they share with their channel stays in the first cache
constexpr int T = TIMESTEPS;

using Value = VALUE;

inline Value written(float value) { return as(Value(), value); }

// Where its library function is no instruction, it is slow.
inline float multiply_add(float a, float b, float c) {
#ifdef FP_FAST_FMAF
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// height * p (1 - p) = height / (2 cosh(y) + 2), p = 1 / (1 + exp(-y)): with c(y) = 2 cosh(y) by its Taylor series at y / 4, given
// as its square, and c(2y) = c(y)^2 - 2; exact to 2e-6 of its value up to y = 9, where 5e-4 of the peak is left.
inline float logistic_slope(float square, float height) {
  float c = 2.0f / 479001600;
  c = multiply_add(c, square, 2.0f / 3628800);
  c = multiply_add(c, square, 2.0f / 40320);
  c = multiply_add(c, square, 2.0f / 720);
  c = multiply_add(c, square, 2.0f / 24);
  c = multiply_add(c, square, 1.0f);
  c = multiply_add(c, square, 2.0f);
  const float twice = c * c - 2;  // of y / 2
  return height / (twice * twice);
}

struct Neuron {
  float decay, threshold, v_reset;

  // The membrane before the spike, from that after the timestep before.
  float integrate(float current, float v) const { return decay * v + current; }

  float distance(float u) const { return u - threshold; }

  bool fires(float u) const { return distance(u) >= 0; }

  // The membrane after the spike.
  float reset(float u) const {
    const float left = distance(u);
    return left >= 0 ? (HARD ? v_reset : left) : u;
  }

  // dv/du through the reset, beyond what survives it, for every unit of ds/du.
  float through_reset(float u) const { return DETACH_RESET ? 0.0f : HARD ? v_reset - u : -threshold; }

  float survives(float u) const { return HARD && fires(u) ? 0.0f : 1.0f; }
};

enum Form { LOGISTIC, RECTANGLE, TRIANGLE, ARCTAN };

// ds/du at a distance from the threshold, as `surrogate.py` has it.
struct Surrogate {
  float width, height, end;

  float operator()(float distance) const {
    if constexpr (FORM == LOGISTIC) {
      const float quarter = width / 4 * distance;
      const float slope = logistic_slope(quarter * quarter, height);
      return std::fabs(distance) >= end ? 0.0f : slope;
    } else if constexpr (FORM == RECTANGLE) {
      return std::fabs(distance) < end ? height : 0.0f;
    } else if constexpr (FORM == TRIANGLE) {
      const float left = width - std::fabs(distance);
      return height * (left < 0 ? 0.0f : left);
    } else {
      const float scaled = width * distance;
      return height / (1 + scaled * scaled);
    }
  }
};

struct Shape {
  Int rows, values;
  bool by_row;  // whether a row belongs to one channel; else each value of it to another

  Int size() const { return rows * values; }
};

// Neurons of a timestep from `first` on.
struct Strip {
  Int first;
  int count;
};

// Calls work(part, strip) for every strip. A part has strips that follow one another. There are as many parts whatever the number of
// threads, so that sums over parts do not depend on it.
template <class Work>
void for_strips(Int size, Int threads, Work work) {
  const Int strips = (size + STRIP - 1) / STRIP;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Int part = 0; part < PARTS; ++part)
    for (Int i = strips * part / PARTS; i < strips * (part + 1) / PARTS; ++i)
      work(part, Strip{i * STRIP, static_cast<int>(smaller(STRIP, size - i * STRIP))});
}

// Calls work(i, count, row, value) for each stretch of a strip that lies in one row.
template <class Work>
inline void for_rows(Strip strip, Int values, Work work) {
  Int row = strip.first / values, value = strip.first % values;
  for (int i = 0; i < strip.count; ++row, value = 0) {
    const int count = static_cast<int>(smaller(strip.count - i, values - value));
    work(i, count, row, value);
    i += count;
  }
}

// What each of `channels` has, for every neuron of a strip.
inline void spread(const float* per_channel, Int channels, Strip strip, Shape shape, float* __restrict to) {
  for_rows(strip, shape.values, [&](int i, int count, Int row, Int value) {
    if (shape.by_row) {
      const float one = per_channel[row % channels];
      for (int j = i; j < i + count; ++j) to[j] = one;
    } else {
      std::memcpy(to + i, per_channel + value, count * sizeof(float));
    }
  });
}

// Adds a value of every neuron of a strip to the sums of its channel.
inline void gather(const float* from, Int channels, Strip strip, Shape shape, double* __restrict sums) {
  for_rows(strip, shape.values, [&](int i, int count, Int row, Int value) {
    if (shape.by_row) {
      float total = 0;
#pragma omp simd reduction(+ : total)
      for (int j = i; j < i + count; ++j) total += from[j];
      sums[row % channels] += total;
    } else {
#pragma omp simd
      for (int j = 0; j < count; ++j) sums[value + j] += from[i + j];
    }
  });
}

// Two sums over each channel, which the parts add up for themselves.
class Sums {
 public:
  explicit Sums(Int channels) : channels_(channels), sums_(PARTS * 2 * channels) {}
  double* first(Int part) { return sums_.data() + part * 2 * channels_; }
  double* second(Int part) { return first(part) + channels_; }
  double first_of(Int channel) const { return over_parts(channel); }
  double second_of(Int channel) const { return over_parts(channels_ + channel); }

 private:
  double over_parts(Int place) const {
    double total = 0;
    for (Int part = 0; part < PARTS; ++part) total += sums_[part * 2 * channels_ + place];
    return total;
  }
  Int channels_;
  std::vector<double> sums_;
};

enum Residual { NONE, LIKE_X, IN_BITS };

// The currents x * scale + shift + residual of a strip.
template <Residual residual>
struct Currents {
  const Value *x, *more = nullptr;
  Int size, stride;
  alignas(64) float scales[STRIP], shifts[STRIP];
  alignas(64) std::int32_t words[STRIP];

  Currents(const Value* x, Int still, const float* scale, const float* shift, const void* added, Strip strip, Shape shape)
      : x(x + strip.first), size(shape.size()), stride(still ? 0 : shape.size()) {
    spread(scale, shape.rows, strip, shape, scales);
    spread(shift, shape.rows, strip, shape, shifts);
    if constexpr (residual == LIKE_X) more = static_cast<const Value*>(added) + strip.first;
    if constexpr (residual == IN_BITS) {  // as wide as numbers: a loop of both would be cut into pieces
      const std::uint8_t* bits = static_cast<const std::uint8_t*>(added) + strip.first;
#pragma omp simd
      for (int i = 0; i < strip.count; ++i) words[i] = bits[i];
    }
  }

  [[gnu::always_inline]] float operator()(Int t, int i) const {
    float current = read(x[t * stride + i]) * scales[i] + shifts[i];
    if constexpr (residual == LIKE_X) current += read(more[t * size + i]);
    if constexpr (residual == IN_BITS) current += static_cast<float>((words[i] >> t) & 1);
    return current;
  }
};

// Calls work(the kind of the residual).
template <class Work>
void with_residual(const void* residual, Int in_bits, Work work) {
  if (!residual)
    work(std::integral_constant<Residual, NONE>());
  else if (in_bits)
    work(std::integral_constant<Residual, IN_BITS>());
  else
    work(std::integral_constant<Residual, LIKE_X>());
}

// Spikes of a strip, their bits as a number, and v from the membranes before the block to those after it.
template <Residual residual, bool only_bits>
inline void fire_in_time(Neuron neuron, const Currents<residual>& currents, Int size, int count, float* __restrict v,
                         Value* __restrict spikes, float* __restrict word) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    float v_i = v[i], word_i = 0;
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const float u = neuron.integrate(currents(t, i), v_i);
      const bool fires = neuron.fires(u);
      v_i = neuron.reset(u);
      word_i += fires ? static_cast<float>(1 << t) : 0.0f;
      if constexpr (!only_bits) spikes[t * size + i] = written(fires ? 1.0f : 0.0f);
    }
    v[i] = v_i;
    word[i] = word_i;
  }
}

// Where gradients to currents go: each to its place, or their sum over time, or each and what a batch-norm needs of them.
enum Into { EACH, SUM, EACH_AND_SUMS };

// The membranes once more, from v before the block, and back through time: from gradients to spikes, and to_v to the membranes after
// the block, to those to the currents, and to_v before it.
template <Into into, Residual residual>
inline void back_in_time(Neuron neuron, Surrogate surrogate, float kept, const Currents<residual>& currents, const Value* grad, Int size,
                         int count, const float* v, float* __restrict to_v, Value* __restrict out, const Value* x, const float* mean,
                         float* __restrict total, float* __restrict product) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    float u[T], v_i = v[i];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      u[t] = neuron.integrate(currents(t, i), v_i);
      v_i = neuron.reset(u[t]);
    }
    float to_v_i = to_v[i], total_i = 0, product_i = 0;
#pragma GCC unroll 8
    for (int t = T - 1; t >= 0; --t) {
      const float to_spikes = read(grad[t * size + i]) + to_v_i * neuron.through_reset(u[t]);
      const float to_u = to_v_i * neuron.survives(u[t]) + to_spikes * surrogate(neuron.distance(u[t]));
      to_v_i = kept * to_u;
      if constexpr (into != EACH) total_i += to_u;
      if constexpr (into != SUM) out[t * size + i] = written(to_u);
      if constexpr (into == EACH_AND_SUMS) product_i += to_u * (read(x[t * size + i]) - mean[i]);
    }
    to_v[i] = to_v_i;
    if constexpr (into == SUM) out[i] = written(total_i);
    if constexpr (into == EACH_AND_SUMS) {
      total[i] = total_i;
      product[i] = product_i;
    }
  }
}

// Spikes of a block from timestep `first` on and, added to what was there before it, their count and the sum of ds/du * du/dI: how
// they answer to a current that stays. to_v is dv/dI.
template <Residual residual, bool only_bits>
inline void respond_in_time(Neuron neuron, Surrogate surrogate, const Currents<residual>& currents, Int first, Int size, int count,
                            float* __restrict v, float* __restrict to_v, float* __restrict answer, float* __restrict fired,
                            Value* __restrict spikes, float* __restrict word) {
  const float one = static_cast<float>(1 << (only_bits ? first : 0));
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    float v_i = v[i], to_v_i = to_v[i], answer_i = answer[i], fired_i = fired[i], word_i = word[i];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const float u = neuron.integrate(currents(first + t, i), v_i), slope = surrogate(neuron.distance(u));
      const float to_u = 1.0f + neuron.decay * to_v_i, fires = neuron.fires(u) ? 1.0f : 0.0f;
      v_i = neuron.reset(u);
      answer_i += slope * to_u;
      to_v_i = (neuron.survives(u) + slope * neuron.through_reset(u)) * to_u;
      fired_i += fires;
      if constexpr (only_bits)
        word_i += fires * (one * static_cast<float>(1 << t));
      else
        spikes[t * size + i] = written(fires);
    }
    v[i] = v_i;
    to_v[i] = to_v_i;
    answer[i] = answer_i;
    fired[i] = fired_i;
    word[i] = word_i;
  }
}

// Values at the start of a strip: given ones, or the same for all.
inline void start(const float* given, float otherwise, Strip strip, float* __restrict to) {
  if (given)
    std::memcpy(to, given + strip.first, strip.count * sizeof(float));
  else
    for (int i = 0; i < strip.count; ++i) to[i] = otherwise;
}

// Words that are whole numbers, as bytes.
inline void store_bits(const float* words, Strip strip, std::uint8_t* to) {
  to += strip.first;
#pragma omp simd
  for (int i = 0; i < strip.count; ++i) to[i] = static_cast<std::uint8_t>(static_cast<int>(words[i]));
}

inline void store(const float* from, Strip strip, float* to) { std::memcpy(to + strip.first, from, strip.count * sizeof(float)); }

}  // namespace

extern "C" {

// Without a place for spikes, their bits only.
void fire(Int threads, Int still, Int rows, Int values, Int by_row, const Value* x, const float* scale, const float* shift,
          const void* residual, Int in_bits, double decay, double threshold, double v_reset, const float* membrane, double v_init,
          Value* spikes, std::uint8_t* bits, float* after) {
  const Shape shape{rows, values, by_row != 0};
  const Neuron neuron{float(decay), float(threshold), float(v_reset)};
  const Int size = shape.size();
  with_residual(residual, in_bits, [&](auto kind) {
    for_strips(size, threads, [&](Int, Strip strip) {
      const Currents<kind()> currents(x, still, scale, shift, residual, strip, shape);
      alignas(64) float v[STRIP], word[STRIP];
      start(membrane, float(v_init), strip, v);
      if (spikes)
        fire_in_time<kind(), false>(neuron, currents, size, strip.count, v, spikes + strip.first, word);
      else
        fire_in_time<kind(), true>(neuron, currents, size, strip.count, v, nullptr, word);
      store_bits(word, strip, bits);
      if (after) store(v, strip, after);
    });
  });
}

// With a mean, through the batch-norm too: to_x is written, to_current where it is no null pointer.
void gradient(Int threads, Int still, Int rows, Int values, Int by_row, const Value* x, const float* scale, const float* shift,
              const void* residual, Int in_bits, double decay, double threshold, double v_reset, const float* membrane,
              double v_init, double width, double height, double end, Int detach_membrane, const Value* grad,
              const float* ahead, Value* to_current, float* behind, Int channels, const float* mean, const float* inv_std,
              Value* to_x, float* to_weight, float* to_bias) {
  const Shape shape{rows, values, by_row != 0};
  const Surrogate surrogate{float(width), float(height), float(end)};
  const Neuron neuron{float(decay), float(threshold), float(v_reset)};
  const float kept = detach_membrane ? 0.0f : neuron.decay;
  const Int size = shape.size();
  Value* found = to_current ? to_current : to_x;
  Sums sums(channels);
  with_residual(residual, in_bits, [&](auto kind) {
    for_strips(size, threads, [&](Int part, Strip strip) {
      const Currents<kind()> currents(x, still, scale, shift, residual, strip, shape);
      alignas(64) float v[STRIP], to_v[STRIP], means[STRIP], total[STRIP], product[STRIP];
      start(membrane, float(v_init), strip, v);
      start(ahead, 0, strip, to_v);
      const Value *grads = grad + strip.first, *xs = x + strip.first;
      Value* __restrict out = found + strip.first;
      if (mean) {
        spread(mean, channels, strip, shape, means);
        back_in_time<EACH_AND_SUMS>(neuron, surrogate, kept, currents, grads, size, strip.count, v, to_v, out, xs, means, total, product);
        gather(total, channels, strip, shape, sums.first(part));
        gather(product, channels, strip, shape, sums.second(part));
      } else if (still) {
        back_in_time<SUM>(neuron, surrogate, kept, currents, grads, size, strip.count, v, to_v, out, xs, means, total, product);
      } else {
        back_in_time<EACH>(neuron, surrogate, kept, currents, grads, size, strip.count, v, to_v, out, xs, means, total, product);
      }
      if (behind) store(to_v, strip, behind);
    });
  });
  if (!mean) return;
  const double count = double(T) * double(size) / double(channels);
  std::vector<float> share(channels), share_of_x(channels);
  for (Int c = 0; c < channels; ++c) {
    const double all = sums.first_of(c), scaled = sums.second_of(c) * inv_std[c];
    share[c] = float(all / count);
    share_of_x[c] = float(scaled * inv_std[c] / count);
    to_bias[c] = float(all);
    to_weight[c] = float(scaled);
  }
  for_strips(size, threads, [&](Int, Strip strip) {
    alignas(64) float scales[STRIP], means[STRIP], shares[STRIP], shares_of_x[STRIP];
    spread(scale, shape.rows, strip, shape, scales);
    spread(mean, channels, strip, shape, means);
    spread(share.data(), channels, strip, shape, shares);
    spread(share_of_x.data(), channels, strip, shape, shares_of_x);
    for (int t = 0; t < T; ++t) {
      const Value *from = found + t * size + strip.first, *x_t = x + t * size + strip.first;
      Value* to = to_x + t * size + strip.first;
#pragma omp simd
      for (int i = 0; i < strip.count; ++i)
        to[i] = written(scales[i] * (read(from[i]) - shares[i] - shares_of_x[i] * (read(x_t[i]) - means[i])));
    }
  });
}

// Of segments of `blocks` * T timesteps. With a place for bits, those of at most 8 timesteps in place of the spikes.
void respond(Int threads, Int still, Int rows, Int values, Int by_row, const Value* x, const float* scale, const float* shift,
             const void* residual, Int in_bits, double decay, double threshold, double v_reset, double v_init,
             double width, double height, double end, Int segments, Int blocks, Value* spikes, std::uint8_t* bits, Value* rates, float* answers) {
  const Shape shape{rows, values, by_row != 0};
  const Surrogate surrogate{float(width), float(height), float(end)};
  const Neuron neuron{float(decay), float(threshold), float(v_reset)};
  const float length = float(blocks * T);
  const Int size = shape.size();
  with_residual(residual, in_bits, [&](auto kind) {
    for_strips(size, threads, [&](Int, Strip strip) {
      const Currents<kind()> currents(x, still, scale, shift, residual, strip, shape);
      alignas(64) float v[STRIP], to_v[STRIP], total[STRIP], fired[STRIP], word[STRIP] = {};
      start(nullptr, float(v_init), strip, v);
      for (Int segment = 0; segment < segments; ++segment) {
        for (int i = 0; i < STRIP; ++i) to_v[i] = total[i] = fired[i] = 0;
        for (Int first = segment * blocks * T; first < (segment + 1) * blocks * T; first += T)
          if (bits)
            respond_in_time<kind(), true>(neuron, surrogate, currents, first, size, strip.count, v, to_v, total, fired, nullptr, word);
          else
            respond_in_time<kind(), false>(neuron, surrogate, currents, first, size, strip.count, v, to_v, total, fired,
                                           spikes + first * size + strip.first, word);
        Value* rate = rates + segment * size + strip.first;
        float* answer = answers + segment * size + strip.first;
#pragma omp simd
        for (int i = 0; i < strip.count; ++i) rate[i] = written(fired[i] / length);
#pragma omp simd
        for (int i = 0; i < strip.count; ++i) answer[i] = total[i] / length;
      }
      if (bits) store_bits(word, strip, bits);
    });
  });
}

// Of any number of timesteps; each channel's values are summed up by their distance from its first.
void statistics(Int threads, Int timesteps, Int rows, Int values, Int by_row, const Value* x, Int channels, double eps,
                float* running_mean, float* running_var, double momentum, float* mean, float* inv_std) {
  const Shape shape{rows, values, by_row != 0};
  const Int size = shape.size();
  std::vector<float> origin(channels);
  for (Int c = 0; c < channels; ++c) origin[c] = read(x[by_row ? c * values : c]);
  Sums sums(channels);
  for_strips(size, threads, [&](Int part, Strip strip) {
    alignas(64) float origins[STRIP], total[STRIP] = {}, square[STRIP] = {};
    spread(origin.data(), channels, strip, shape, origins);
    for (Int t = 0; t < timesteps; ++t) {
      const Value* x_t = x + t * size + strip.first;
#pragma omp simd
      for (int i = 0; i < strip.count; ++i) {
        const float distance = read(x_t[i]) - origins[i];
        total[i] += distance;
        square[i] += distance * distance;
      }
    }
    gather(total, channels, strip, shape, sums.first(part));
    gather(square, channels, strip, shape, sums.second(part));
  });
  const double count = double(timesteps) * double(size) / double(channels);
  for (Int c = 0; c < channels; ++c) {
    const double from_origin = sums.first_of(c) / count, average = origin[c] + from_origin;
    const double spread_out = sums.second_of(c) / count - from_origin * from_origin, var = spread_out < 0 ? 0 : spread_out;
    mean[c] = float(average);
    inv_std[c] = float(1 / std::sqrt(var + eps));
    if (!running_mean) continue;
    running_mean[c] += float(momentum * (average - running_mean[c]));
    running_var[c] += float(momentum * (var * count / (count > 1 ? count - 1 : 1) - running_var[c]));
  }
}

// Of timesteps `begin` to `end` - 1.
void unpack(Int threads, Int begin, Int end, Int size, const std::uint8_t* bits, Value* spikes) {
  for_strips(size, threads, [&](Int, Strip strip) {
    for (Int t = begin; t < end; ++t) {
      const std::uint8_t* from = bits + t / 8 * size + strip.first;
      Value* to = spikes + (t - begin) * size + strip.first;
      const int bit = 1 << t % 8;
#pragma omp simd
      for (int i = 0; i < strip.count; ++i) to[i] = written(from[i] & bit ? 1.0f : 0.0f);
    }
  });
}

}  // extern "C"

// The loops in `fused` and `eligibility` for a CPU, compiled and called by `on_cpu.py`; the counterpart of `triton_kernels.py`.
//
// A sequence lies in memory as [T, rows, values]. Its neurons are taken in strips, and a strip's timesteps one after another: each
// operation is a loop over the strip, which becomes vector instructions, and what it leaves waits in the first cache for the next
// one. Products and sums are rounded one by one, as PyTorch's are, so that spikes are the same, bit for bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using Int = std::int64_t;

constexpr int STRIP = 256;  // neurons: what one has at eight timesteps fits into a first cache of 32 KiB, whole
constexpr int BLOCK = 8;    // timesteps

struct BFloat16 {
  std::uint16_t bits;
};

inline float read(float value) { return value; }

inline float read(BFloat16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

inline void write(float value, float& to) { to = value; }

inline void write(float value, BFloat16& to) {  // rounded to the nearest, ties to even; what is no number stays so
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  to.bits = static_cast<std::uint16_t>(value == value ? rounded : 0x7FC0);
}

// Where its library function is no instruction, it is slow.
inline float multiply_add(float a, float b, float c) {
#ifdef FP_FAST_FMAF
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// exp(x) of x <= 0, to the last digit but one: 2^k times the Taylor series of what is left, |r| <= log(2) / 2.
inline float exp_of_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float shifted = multiply_add(x, 1.44269504f, 12582912.0f);  // k in the last bits
  const float k = shifted - 12582912.0f;
  const float r = multiply_add(k, 2.12194440e-4f, multiply_add(k, -0.693359375f, x));
  float series = 1.0f / 720;
  series = multiply_add(series, r, 1.0f / 120);
  series = multiply_add(series, r, 1.0f / 24);
  series = multiply_add(series, r, 1.0f / 6);
  series = multiply_add(series, r, 0.5f);
  series = multiply_add(series, r, 1.0f);
  series = multiply_add(series, r, 1.0f);
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return series * power;
}

struct Neuron {
  float decay, threshold, v_reset;
  bool hard;  // whether v_reset is where a reset ends; else the threshold is subtracted
};

// What `surrogate.py` tells of a surrogate's derivative.
struct Surrogate {
  Int form;
  float width, height, end;
};

// A sequence: of T timesteps, or of one that is the same at all of them.
struct Shape {
  Int T, rows, values;
  bool by_row;  // whether a row belongs to one channel; else each value of it to another
  bool still;

  Int size() const { return rows * values; }
  Int stride() const { return still ? 0 : size(); }
};

// Neurons of a timestep from `first` on.
struct Strip {
  Int first;
  int count;
};

// Calls work(part, strip) for every strip; each part has a thread and strips that follow one another.
template <class Work>
void for_strips(Int size, Int parts, Work work) {
  const Int strips = (size + STRIP - 1) / STRIP;
#pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (Int part = 0; part < parts; ++part)
    for (Int i = strips * part / parts; i < strips * (part + 1) / parts; ++i)
      work(part, Strip{i * STRIP, static_cast<int>(std::min<Int>(STRIP, size - i * STRIP))});
}

// Calls work(i, count, row, value) for each stretch of a strip that lies in one row.
template <class Work>
inline void for_rows(Strip strip, Int values, Work work) {
  Int row = strip.first / values, value = strip.first % values;
  for (int i = 0; i < strip.count; ++row, value = 0) {
    const int count = static_cast<int>(std::min<Int>(strip.count - i, values - value));
    work(i, count, row, value);
    i += count;
  }
}

// What each of `channels` has, for every neuron of a strip.
inline void spread(const float* per_channel, Int channels, Strip strip, const Shape& shape, float* __restrict to) {
  for_rows(strip, shape.values, [&](int i, int count, Int row, Int value) {
    if (shape.by_row)
      std::fill_n(to + i, count, per_channel[row % channels]);
    else
      std::copy_n(per_channel + value, count, to + i);
  });
}

// Adds a value of every neuron of a strip to the sums of its channel.
inline void gather(const float* from, Int channels, Strip strip, const Shape& shape, double* __restrict sums) {
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
  Sums(Int parts, Int channels) : parts_(parts), channels_(channels), sums_(parts * 2 * channels) {}
  double* first(Int part) { return sums_.data() + part * 2 * channels_; }
  double* second(Int part) { return first(part) + channels_; }
  double first_of(Int channel) const { return over_parts(channel); }
  double second_of(Int channel) const { return over_parts(channels_ + channel); }

 private:
  double over_parts(Int place) const {
    double total = 0;
    for (Int part = 0; part < parts_; ++part) total += sums_[part * 2 * channels_ + place];
    return total;
  }
  Int parts_, channels_;
  std::vector<double> sums_;
};

// The currents x * scale + shift + residual.
template <class Value>
struct Currents {
  const Value* x;
  const float *scale, *shift;
  const void* residual;  // like x, or in bits, or none
  bool in_bits;

  void of(Int t, Strip strip, const Shape& shape, const float* scales, const float* shifts, float* __restrict to) const {
    const Value* x_t = x + t * shape.stride() + strip.first;
#pragma omp simd
    for (int i = 0; i < strip.count; ++i) to[i] = read(x_t[i]) * scales[i] + shifts[i];
    if (residual && in_bits) {
      const std::uint8_t* bits = static_cast<const std::uint8_t*>(residual) + strip.first;
      const int bit = 1 << t;
#pragma omp simd
      for (int i = 0; i < strip.count; ++i) to[i] += bits[i] & bit ? 1.0f : 0.0f;
    } else if (residual) {
      const Value* more = static_cast<const Value*>(residual) + t * shape.size() + strip.first;
#pragma omp simd
      for (int i = 0; i < strip.count; ++i) to[i] += read(more[i]);
    }
  }
};

// The membranes v of a strip, one timestep on; u are those before the reset.
inline void integrate(const Neuron& n, const float* current, float* __restrict v, float* __restrict u, int count) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const float before = n.decay * v[i] + current[i];
    const float distance = before - n.threshold;
    u[i] = before;
    v[i] = distance >= 0 ? (n.hard ? n.v_reset : distance) : before;
  }
}

template <class Value>
inline void emit(const Neuron& n, const float* u, Value* __restrict spikes, int count) {
#pragma omp simd
  for (int i = 0; i < count; ++i) write(u[i] - n.threshold >= 0 ? 1.0f : 0.0f, spikes[i]);
}

// ds/du of a strip.
inline void slopes(const Surrogate& s, float threshold, const float* u, float* __restrict to, int count) {
  switch (s.form) {
    case 0:  // logistic
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        const float away = std::fabs(u[i] - threshold);
        const float e = exp_of_negative(-s.width * away);
        const float slope = s.height * e / ((1 + e) * (1 + e));
        to[i] = away >= s.end ? 0.0f : slope;
      }
      break;
    case 1:  // rectangle
#pragma omp simd
      for (int i = 0; i < count; ++i) to[i] = std::fabs(u[i] - threshold) < s.end ? s.height : 0.0f;
      break;
    case 2:  // triangle
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        const float left = s.width - std::fabs(u[i] - threshold);
        to[i] = s.height * (left < 0 ? 0.0f : left);
      }
      break;
    default:  // arc tangent
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        const float scaled = s.width * (u[i] - threshold);
        to[i] = s.height / (1 + scaled * scaled);
      }
  }
}

// The chain rule, one timestep back: from the gradient to spikes and the membrane v after them to that of u, and of v before.
struct Chain {
  Neuron neuron;
  bool detach_reset, detach_membrane;

  template <class Value>
  void back(const Value* grad, const float* u, const float* slope, float* __restrict to_v, float* __restrict to_u, int count) const {
    const auto [decay, threshold, v_reset, hard] = neuron;
    const float kept = detach_membrane ? 0.0f : decay;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      float to_spikes = read(grad[i]);
      if (!detach_reset) to_spikes += to_v[i] * (hard ? v_reset - u[i] : -threshold);
      const float survives = hard && u[i] - threshold >= 0 ? 0.0f : to_v[i];
      to_u[i] = survives + to_spikes * slope[i];
      to_v[i] = kept * to_u[i];
    }
  }
};

template <class Value>
void store(const float* from, Value* __restrict to, int count) {
#pragma omp simd
  for (int i = 0; i < count; ++i) write(from[i], to[i]);
}

// Membranes at the start of a strip: given ones, or the same for all.
inline void start(const float* membrane, float v_init, Strip strip, float* __restrict v) {
  if (membrane)
    std::copy_n(membrane + strip.first, strip.count, v);
  else
    std::fill_n(v, strip.count, v_init);
}

template <class Value>
void fire(Int parts, const Shape& shape, const Currents<Value>& currents, const Neuron& neuron, const float* membrane, float v_init,
          Value* spikes, std::uint8_t* bits, float* after) {
  for_strips(shape.size(), parts, [&](Int, Strip strip) {
    alignas(64) float scales[STRIP], shifts[STRIP], current[STRIP], v[STRIP], u[STRIP], sum_of_bits[STRIP] = {};
    spread(currents.scale, shape.rows, strip, shape, scales);
    spread(currents.shift, shape.rows, strip, shape, shifts);
    start(membrane, v_init, strip, v);
    for (Int t = 0; t < shape.T; ++t) {
      currents.of(t, strip, shape, scales, shifts, current);
      integrate(neuron, current, v, u, strip.count);
      emit(neuron, u, spikes + t * shape.size() + strip.first, strip.count);
      const float bit = static_cast<float>(1 << t);
#pragma omp simd
      for (int i = 0; i < strip.count; ++i) sum_of_bits[i] += u[i] - neuron.threshold >= 0 ? bit : 0.0f;
    }
    std::uint8_t* word = bits + strip.first;
#pragma omp simd
    for (int i = 0; i < strip.count; ++i) word[i] = static_cast<std::uint8_t>(static_cast<int>(sum_of_bits[i]));
    if (after) std::copy_n(v, strip.count, after + strip.first);
  });
}

// Where the gradient to the currents goes besides its own place: into sums over channels, with its product with x - mean.
struct Statistics {
  const float* mean;
  Int channels;
  Sums* sums;
};

template <class Value>
void gradient(Int parts, const Shape& shape, const Currents<Value>& currents, const Chain& chain, const Surrogate& surrogate,
              const Value* grad, const float* membrane, float v_init, const float* ahead, Value* to_current, float* behind,
              const Statistics& statistics) {
  for_strips(shape.size(), parts, [&](Int part, Strip strip) {
    alignas(64) float scales[STRIP], shifts[STRIP], current[STRIP], v[STRIP], u[BLOCK][STRIP];
    spread(currents.scale, shape.rows, strip, shape, scales);
    spread(currents.shift, shape.rows, strip, shape, shifts);
    start(membrane, v_init, strip, v);
    for (Int t = 0; t < shape.T; ++t) {
      currents.of(t, strip, shape, scales, shifts, current);
      integrate(chain.neuron, current, v, u[t], strip.count);
    }
    alignas(64) float slope[STRIP], to_v[STRIP], to_u[STRIP], mean[STRIP], total[STRIP] = {}, product[STRIP] = {};
    if (statistics.sums) spread(statistics.mean, statistics.channels, strip, shape, mean);
    start(ahead, 0, strip, to_v);
    for (Int t = shape.T - 1; t >= 0; --t) {
      slopes(surrogate, chain.neuron.threshold, u[t], slope, strip.count);
      chain.back(grad + t * shape.size() + strip.first, u[t], slope, to_v, to_u, strip.count);
      if (!shape.still) store(to_u, to_current + t * shape.size() + strip.first, strip.count);
      if (shape.still || statistics.sums) {
#pragma omp simd
        for (int i = 0; i < strip.count; ++i) total[i] += to_u[i];
      }
      if (statistics.sums) {
        const Value* x_t = currents.x + t * shape.size() + strip.first;
#pragma omp simd
        for (int i = 0; i < strip.count; ++i) product[i] += to_u[i] * (read(x_t[i]) - mean[i]);
      }
    }
    if (shape.still) store(total, to_current + strip.first, strip.count);
    if (behind) std::copy_n(to_v, strip.count, behind + strip.first);
    if (statistics.sums) {
      gather(total, statistics.channels, strip, shape, statistics.sums->first(part));
      gather(product, statistics.channels, strip, shape, statistics.sums->second(part));
    }
  });
}

// scale * (gradient to the currents - the share of the mean - that of the deviation * (x - mean)).
template <class Value>
void through_norm(Int parts, const Shape& shape, const Currents<Value>& currents, const float* mean, Int channels,
                  const float* share, const float* share_of_x, const Value* to_current, Value* to_x) {
  for_strips(shape.size(), parts, [&](Int, Strip strip) {
    alignas(64) float scales[STRIP], means[STRIP], shares[STRIP], shares_of_x[STRIP];
    spread(currents.scale, shape.rows, strip, shape, scales);
    spread(mean, channels, strip, shape, means);
    spread(share, channels, strip, shape, shares);
    spread(share_of_x, channels, strip, shape, shares_of_x);
    for (Int t = 0; t < shape.T; ++t) {
      const Int place = t * shape.size() + strip.first;
#pragma omp simd
      for (int i = 0; i < strip.count; ++i) {
        const float from_mean = read(currents.x[place + i]) - means[i];
        write(scales[i] * (read(to_current[place + i]) - shares[i] - shares_of_x[i] * from_mean), to_x[place + i]);
      }
    }
  });
}

template <class Value>
void respond(Int parts, const Shape& shape, const Currents<Value>& currents, const Neuron& neuron, const Surrogate& surrogate,
             bool detach_reset, float v_init, Int segments, Value* spikes, Value* rates, float* answers) {
  const Int length = shape.T / segments;
  for_strips(shape.size(), parts, [&](Int, Strip strip) {
    alignas(64) float scales[STRIP], shifts[STRIP], current[STRIP], v[STRIP], u[STRIP], slope[STRIP];
    spread(currents.scale, shape.rows, strip, shape, scales);
    spread(currents.shift, shape.rows, strip, shape, shifts);
    start(nullptr, v_init, strip, v);
    const auto [decay, threshold, v_reset, hard] = neuron;
    for (Int segment = 0; segment < segments; ++segment) {
      alignas(64) float to_v[STRIP] = {}, total[STRIP] = {}, fired[STRIP] = {};
      for (Int t = segment * length; t < (segment + 1) * length; ++t) {
        currents.of(t, strip, shape, scales, shifts, current);
        integrate(neuron, current, v, u, strip.count);
        emit(neuron, u, spikes + t * shape.size() + strip.first, strip.count);
        slopes(surrogate, threshold, u, slope, strip.count);
#pragma omp simd
        for (int i = 0; i < strip.count; ++i) {
          const float spike = u[i] - threshold >= 0 ? 1.0f : 0.0f;
          const float to_u = 1.0f + decay * to_v[i];
          fired[i] += spike;
          total[i] += slope[i] * to_u;
          float survives = hard ? 1.0f - spike : 1.0f;
          if (!detach_reset) survives += slope[i] * (hard ? v_reset - u[i] : -threshold);
          to_v[i] = survives * to_u;
        }
      }
      Value* rate = rates + segment * shape.size() + strip.first;
      float* answer = answers + segment * shape.size() + strip.first;
      const float n = static_cast<float>(length);
#pragma omp simd
      for (int i = 0; i < strip.count; ++i) {
        write(fired[i] / n, rate[i]);
        answer[i] = total[i] / n;
      }
    }
  });
}

// Sums, over each channel, of the distance from its first value, and of its square.
template <class Value>
void moments(Int parts, const Shape& shape, const Value* x, const float* origin, Int channels, Sums& sums) {
  for_strips(shape.size(), parts, [&](Int part, Strip strip) {
    alignas(64) float origins[STRIP], total[STRIP] = {}, square[STRIP] = {};
    spread(origin, channels, strip, shape, origins);
    for (Int t = 0; t < shape.T; ++t) {
      const Value* x_t = x + t * shape.size() + strip.first;
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
}

// Calls work with a null pointer of the type of the values.
template <class Work>
void with_type(Int bfloat16, Work work) {
  if (bfloat16)
    work(static_cast<BFloat16*>(nullptr));
  else
    work(static_cast<float*>(nullptr));
}

}  // namespace

extern "C" {

void spikedistill_fire(Int bfloat16, Int parts, Int T, Int still, Int rows, Int values, Int by_row, const void* x, const float* scale,
                       const float* shift, const void* residual, Int in_bits, double decay, double threshold, double v_reset,
                       Int hard, const float* membrane, double v_init, void* spikes, std::uint8_t* bits, float* after) {
  const Shape shape{T, rows, values, by_row != 0, still != 0};
  const Neuron neuron{float(decay), float(threshold), float(v_reset), hard != 0};
  with_type(bfloat16, [&](auto* none) {
    using Value = std::remove_pointer_t<decltype(none)>;
    const Currents<Value> currents{static_cast<const Value*>(x), scale, shift, residual, in_bits != 0};
    fire(parts, shape, currents, neuron, membrane, float(v_init), static_cast<Value*>(spikes), bits, after);
  });
}

// With a mean, through the batch-norm too: to_x is written, to_current where it is no null pointer, and shares [2, C] are room.
void spikedistill_gradient(Int bfloat16, Int parts, Int T, Int still, Int rows, Int values, Int by_row, const void* x,
                           const float* scale, const float* shift, const void* residual, Int in_bits, double decay,
                           double threshold, double v_reset, Int hard, const float* membrane, double v_init, Int form, double width,
                           double height, double end, Int detach_reset, Int detach_membrane, const void* grad, const float* ahead,
                           void* to_current, float* behind, Int channels, const float* mean, const float* inv_std, void* to_x,
                           float* to_weight, float* to_bias) {
  const Shape shape{T, rows, values, by_row != 0, still != 0};
  const Neuron neuron{float(decay), float(threshold), float(v_reset), hard != 0};
  const Surrogate surrogate{form, float(width), float(height), float(end)};
  const Chain chain{neuron, detach_reset != 0, detach_membrane != 0};
  with_type(bfloat16, [&](auto* none) {
    using Value = std::remove_pointer_t<decltype(none)>;
    const Currents<Value> currents{static_cast<const Value*>(x), scale, shift, residual, in_bits != 0};
    Value* found = static_cast<Value*>(to_current ? to_current : to_x);
    Sums sums(parts, channels);
    gradient(parts, shape, currents, chain, surrogate, static_cast<const Value*>(grad), membrane, float(v_init), ahead, found, behind,
             Statistics{mean, channels, mean ? &sums : nullptr});
    if (!mean) return;
    const double count = double(T) * double(shape.size()) / double(channels);
    std::vector<float> shares(2 * channels);
    for (Int c = 0; c < channels; ++c) {
      const double total = sums.first_of(c), product = sums.second_of(c), scaled = product * inv_std[c];
      shares[c] = float(total / count);
      shares[channels + c] = float(scaled * inv_std[c] / count);
      to_bias[c] = float(total);
      to_weight[c] = float(scaled);
    }
    through_norm(parts, shape, currents, mean, channels, shares.data(), shares.data() + channels, found, static_cast<Value*>(to_x));
  });
}

void spikedistill_respond(Int bfloat16, Int parts, Int T, Int still, Int rows, Int values, Int by_row, const void* x,
                          const float* scale, const float* shift, const void* residual, Int in_bits, double decay, double threshold,
                          double v_reset, Int hard, double v_init, Int form, double width, double height, double end,
                          Int detach_reset, Int segments, void* spikes, void* rates, float* answers) {
  const Shape shape{T, rows, values, by_row != 0, still != 0};
  const Neuron neuron{float(decay), float(threshold), float(v_reset), hard != 0};
  const Surrogate surrogate{form, float(width), float(height), float(end)};
  with_type(bfloat16, [&](auto* none) {
    using Value = std::remove_pointer_t<decltype(none)>;
    const Currents<Value> currents{static_cast<const Value*>(x), scale, shift, residual, in_bits != 0};
    respond(parts, shape, currents, neuron, surrogate, detach_reset != 0, float(v_init), segments, static_cast<Value*>(spikes),
            static_cast<Value*>(rates), answers);
  });
}

void spikedistill_statistics(Int bfloat16, Int parts, Int T, Int rows, Int values, Int by_row, const void* x, Int channels,
                             double eps, float* running_mean, float* running_var, double momentum, float* mean, float* inv_std) {
  const Shape shape{T, rows, values, by_row != 0, false};
  with_type(bfloat16, [&](auto* none) {
    using Value = std::remove_pointer_t<decltype(none)>;
    const Value* values_of_x = static_cast<const Value*>(x);
    std::vector<float> origin(channels);
    for (Int c = 0; c < channels; ++c) origin[c] = read(values_of_x[by_row ? c * values : c]);
    Sums sums(parts, channels);
    moments(parts, shape, values_of_x, origin.data(), channels, sums);
    const double count = double(T) * double(shape.size()) / double(channels);
    for (Int c = 0; c < channels; ++c) {
      const double from_origin = sums.first_of(c) / count, average = origin[c] + from_origin;
      const double var = std::max(sums.second_of(c) / count - from_origin * from_origin, 0.0);
      mean[c] = float(average);
      inv_std[c] = float(1 / std::sqrt(var + eps));
      if (!running_mean) continue;
      running_mean[c] += float(momentum) * (mean[c] - running_mean[c]);
      running_var[c] += float(momentum * (var * count / std::max(count - 1, 1.0) - running_var[c]));
    }
  });
}

void spikedistill_unpack(Int bfloat16, Int parts, Int start, Int stop, Int size, const std::uint8_t* bits, void* spikes) {
  with_type(bfloat16, [&](auto* none) {
    using Value = std::remove_pointer_t<decltype(none)>;
    for_strips(size, parts, [&](Int, Strip strip) {
      for (Int t = start; t < stop; ++t) {
        const std::uint8_t* from = bits + t / 8 * size + strip.first;
        Value* to = static_cast<Value*>(spikes) + (t - start) * size + strip.first;
        const int bit = 1 << t % 8;
#pragma omp simd
        for (int i = 0; i < strip.count; ++i) write(from[i] & bit ? 1.0f : 0.0f, to[i]);
      }
    });
  });
}

}  // extern "C"

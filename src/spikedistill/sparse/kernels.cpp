// Convolutions and linear layers on spikes in bits, compiled and called by `kernels.py`.
//
// They are compiled for two macros:
//
//   VALUE  float or BFloat16: the numbers that a layer returns and receives a gradient in
//   UNITS  how many blocks of 64 x 64 weights, of 16 KiB, the first cache holds beside what else is read
//
//   rows     [positions, words, T] of 64 bits: bit c of word w is the spike of channel 64 w + c at a position of an image
//   blocks   [groups, output blocks, taps, words of the group, 64, WIDTH] floats: a spike adds one row, the weights of its channel
//            to the outputs of a block. WIDTH is 16, 32 or 64.
//   out, dy  [T, positions, outputs], channels last
//
// The sums of a tile of outputs stay in the second cache, and one block of weights at a time in the first, while the spikes of the
// tile are read. Spikes that all timesteps of a span share are added once for all of them. A loop that ends with its spikes is
// mispredicted at its end, and a single chain of sums waits for each addition: rows are added in pairs, to two sums each.

#include <cmath>
#include <type_traits>
#include <vector>

#include "numbers.hpp"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

using Value = VALUE;
using Word = std::uint64_t;
using Vector = float __attribute__((vector_size(64), aligned(4), may_alias));
using Lanes = std::int32_t __attribute__((vector_size(64)));

constexpr Int WORD = 64;       // channels
constexpr Int LANES = 16;      // floats of a vector
constexpr Int SPAN = 4;        // the most timesteps whose sums share a tile
constexpr Int TILE = 512;      // sums of one block of outputs in a tile
constexpr Int SHARED = 5;      // with fewer common spikes in a word, adding them once costs more than it saves
constexpr Int CHUNK = 8;       // words of positions whose gradients stay in the second cache
#ifdef __AVX512F__
constexpr bool PAIRS = true;  // with narrower vectors there are as many chains of sums, and no registers for more
#else
constexpr bool PAIRS = false;
#endif

struct Geometry {
  Int images, channels, height, width, outputs, kernel_h, kernel_w, out_h, out_w, stride_h, stride_w, pad_h, pad_w, dilation_h,
      dilation_w, groups;

  Int words() const { return (channels + WORD - 1) / WORD; }
  Int taps() const { return kernel_h * kernel_w; }
  Int out_positions() const { return images * out_h * out_w; }
  Int outputs_of_group() const { return outputs / groups; }
  Int channels_of_group() const { return channels / groups; }
  Int width_of_block() const { return outputs_of_group() > 32 ? 64 : outputs_of_group() > 16 ? 32 : 16; }
  Int blocks_of_group() const { return (outputs_of_group() + width_of_block() - 1) / width_of_block(); }
  Int first_word(Int group) const { return group * channels_of_group() / WORD; }
  Int words_of(Int group) const { return ((group + 1) * channels_of_group() - 1) / WORD + 1 - first_word(group); }
  Int most_words() const {  // of any group, for which every group has room
    Int most = 0;
    for (Int group = 0; group < groups; ++group) most = larger(most, words_of(group));
    return most;
  }
  // The channels of a word that belong to a group.
  Word mask(Int group, Int word) const {
    const Int first = larger(group * channels_of_group() - word * WORD, 0);
    const Int end = smaller((group + 1) * channels_of_group() - word * WORD, WORD);
    return (end == WORD ? ~Word(0) : (Word(1) << end) - 1) & ~((Word(1) << first) - 1);
  }
  Int floats_of_block() const { return WORD * width_of_block(); }
  // Where the weights of a block of outputs begin.
  Int place(Int group, Int block, Int tap, Int word) const {
    return (((group * blocks_of_group() + block) * taps() + tap) * most_words() + word) * floats_of_block();
  }
};

// The outputs of a kernel tap along one axis, from `first` to `end` - 1, whose input lies inside.
struct Inside {
  Int first = 0, end = 0, offset = 0;

  Inside() = default;
  Inside(Int size, Int outputs, Int stride, Int pad, Int dilation, Int tap) : offset(tap * dilation - pad) {
    first = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
    end = offset >= size ? 0 : smaller(outputs, (size - 1 - offset) / stride + 1);
  }
};

inline int count_of(Word word) { return __builtin_popcountll(word); }

inline const Vector* next_row(const float* rows, Word& spikes, Int width) {
  const Int place = __builtin_ctzll(spikes);
  spikes &= spikes - 1;
  return reinterpret_cast<const Vector*>(rows + place * width);
}

// Adds the row of every spike to sums, every other one to `more` if there are pairs.
template <int VECTORS>
[[gnu::always_inline]] inline void add_rows(Word spikes, const float* rows, Vector (&sums)[VECTORS], Vector (&more)[VECTORS]) {
  constexpr Int width = VECTORS * LANES;
  if constexpr (PAIRS) {
    if (count_of(spikes) & 1) {
      const Vector* row = next_row(rows, spikes, width);
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; ++i) more[i] += row[i];
    }
    while (spikes) {
      const Vector *one = next_row(rows, spikes, width), *other = next_row(rows, spikes, width);
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; ++i) {
        sums[i] += one[i];
        more[i] += other[i];
      }
    }
  } else {
    while (spikes) {
      const Vector* row = next_row(rows, spikes, width);
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; ++i) sums[i] += row[i];
    }
  }
}

template <int VECTORS>
[[gnu::always_inline]] inline void add(const Vector (&more)[VECTORS], Vector (&sums)[VECTORS]) {
#pragma GCC unroll 4
  for (int i = 0; i < VECTORS; ++i) sums[i] += more[i];
}

template <int VECTORS>
[[gnu::always_inline]] inline void load(const float* from, Vector (&to)[VECTORS]) {
#pragma GCC unroll 4
  for (int i = 0; i < VECTORS; ++i) to[i] = reinterpret_cast<const Vector*>(from)[i];
}

template <int VECTORS>
[[gnu::always_inline]] inline void store(const Vector (&from)[VECTORS], float* to) {
#pragma GCC unroll 4
  for (int i = 0; i < VECTORS; ++i) reinterpret_cast<Vector*>(to)[i] = from[i];
}

// The spikes and the rows of a few words, as many as have their weights in the first cache together.
struct Unit {
  const Word* spikes;
  Word mask;
  const float* rows;
};

// Adds the rows of the spikes of all units: of two together, and the rest of one.
template <int VECTORS>
[[gnu::always_inline]] inline void add_of_units(const Word (&spikes)[UNITS], const Unit (&units)[UNITS], Vector (&sums)[VECTORS],
                                                Vector (&more)[VECTORS]) {
  constexpr Int width = VECTORS * LANES;
  if constexpr (UNITS == 2) {
    Word first = spikes[0], second = spikes[1];
    for (int together = count_of(first) < count_of(second) ? count_of(first) : count_of(second); together; --together) {
      const Vector *one = next_row(units[0].rows, first, width), *other = next_row(units[1].rows, second, width);
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; ++i) {
        sums[i] += one[i];
        more[i] += other[i];
      }
    }
    const float* rows = first ? units[0].rows : units[1].rows;
    for (Word rest = first | second; rest;) {
      const Vector* row = next_row(rows, rest, width);
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; ++i) sums[i] += row[i];
    }
  } else {
    for (int unit = 0; unit < UNITS; ++unit) add_rows(spikes[unit], units[unit].rows, sums, more);
  }
}

// Adds the rows of the spikes of the units at all timesteps of a span to their sums, which lie `stride` apart.
template <int VECTORS, int TIMES>
[[gnu::always_inline]] inline void add_units(const Unit (&units)[UNITS], float* sums, Int stride) {
  Word spikes[TIMES][UNITS], common[UNITS], any = 0;
  int shared = 0;
  for (int unit = 0; unit < UNITS; ++unit) {
    common[unit] = ~Word(0);
    for (int t = 0; t < TIMES; ++t) {
      spikes[t][unit] = units[unit].spikes[t] & units[unit].mask;
      common[unit] &= spikes[t][unit];
      any |= spikes[t][unit];
    }
    shared += count_of(common[unit]);
  }
  if (!any) return;
  Vector own[VECTORS], more[VECTORS];
  if (TIMES > 1 && shared >= SHARED) {
    Vector all[VECTORS] = {}, rest[VECTORS] = {};
    add_of_units(common, units, all, rest);
    add(rest, all);
    for (int t = 0; t < TIMES; ++t) {
      load(sums + t * stride, own);
      for (int i = 0; i < VECTORS; ++i) more[i] = all[i];
      for (int unit = 0; unit < UNITS; ++unit) spikes[t][unit] &= ~common[unit];
      add_of_units(spikes[t], units, own, more);
      add(more, own);
      store(own, sums + t * stride);
    }
  } else {
    for (int t = 0; t < TIMES; ++t) {
      load(sums + t * stride, own);
      for (int i = 0; i < VECTORS; ++i) more[i] = Vector{};
      add_of_units(spikes[t], units, own, more);
      add(more, own);
      store(own, sums + t * stride);
    }
  }
}

// Where the inputs of a unit are.
struct Place {
  Inside across, down;
  const Word* spikes;
};

// Lines of output positions, whole lines of images, which may follow one another from image to image.
struct Tile {
  Int first, end;

  Int positions(const Geometry& g) const { return (end - first) * g.out_w; }
};

// The sums [TIMES, positions, WIDTH] of a tile for one block of outputs.
template <int VECTORS, int TIMES>
void sum_tile(const Geometry& g, Int timesteps, const Word* rows, const float* blocks, Int group, Int block, Tile tile, Int first_time,
              float* sums) {
  static constexpr Word silent[TIMES] = {};
  const Int width = VECTORS * LANES, words = g.words(), stride = tile.positions(g) * width, of_group = g.words_of(group);
  const Int all = g.taps() * of_group, step = g.stride_w * words * timesteps;
  for (Int first = 0; first < all; first += UNITS) {
    Place places[UNITS];
    Unit units[UNITS];
    for (int i = 0; i < UNITS; ++i) {
      const Int unit = smaller(first + i, all - 1), tap = unit / of_group, word = g.first_word(group) + unit % of_group;
      const bool there = first + i < all;
      places[i].across = Inside(g.width, there ? g.out_w : 0, g.stride_w, g.pad_w, g.dilation_w, tap % g.kernel_w);
      places[i].down = Inside(g.height, g.out_h, g.stride_h, g.pad_h, g.dilation_h, tap / g.kernel_w);
      places[i].spikes = rows + word * timesteps + first_time;
      units[i] = {nullptr, g.mask(group, word), blocks + g.place(group, block, tap, unit % of_group)};
    }
    for (Int line = tile.first; line < tile.end; ++line) {
      const Int image = line / g.out_h, y = line % g.out_h;
      const Word* starts[UNITS];
      Int begin = g.out_w, end = 0;
      for (int i = 0; i < UNITS; ++i) {
        const auto& [across, down, spikes] = places[i];
        if (y < down.first || y >= down.end || across.first >= across.end) {
          starts[i] = nullptr;
          continue;
        }
        starts[i] = spikes + ((image * g.height + y * g.stride_h + down.offset) * g.width + across.offset) * words * timesteps;
        begin = smaller(begin, across.first);
        end = larger(end, across.end);
      }
      float* to = sums + ((line - tile.first) * g.out_w + begin) * width;
      for (Int x = begin; x < end; ++x, to += width) {
        for (int i = 0; i < UNITS; ++i) {
          const bool inside = starts[i] && x >= places[i].across.first && x < places[i].across.end;
          units[i].spikes = inside ? starts[i] + x * step : silent;
        }
        add_units<VECTORS, TIMES>(units, to, stride);
      }
    }
  }
}

template <int VECTORS>
void sum_span(Int times, const Geometry& g, Int timesteps, const Word* rows, const float* blocks, Int group, Int block, Tile tile,
              Int first_time, float* sums) {
  std::memset(sums, 0, times * tile.positions(g) * VECTORS * LANES * sizeof(float));
  switch (times) {
    case 1: return sum_tile<VECTORS, 1>(g, timesteps, rows, blocks, group, block, tile, first_time, sums);
    case 2: return sum_tile<VECTORS, 2>(g, timesteps, rows, blocks, group, block, tile, first_time, sums);
    case 3: return sum_tile<VECTORS, 3>(g, timesteps, rows, blocks, group, block, tile, first_time, sums);
    default: return sum_tile<VECTORS, 4>(g, timesteps, rows, blocks, group, block, tile, first_time, sums);
  }
}

void sum_span(Int times, const Geometry& g, Int timesteps, const Word* rows, const float* blocks, Int group, Int block, Tile tile,
              Int first_time, float* sums) {
  switch (g.width_of_block()) {
    case 16: return sum_span<1>(times, g, timesteps, rows, blocks, group, block, tile, first_time, sums);
    case 32: return sum_span<2>(times, g, timesteps, rows, blocks, group, block, tile, first_time, sums);
    default: return sum_span<4>(times, g, timesteps, rows, blocks, group, block, tile, first_time, sums);
  }
}

// Calls work(group, block of outputs, tile, sums of a span, its first timestep, its timesteps, memory that lasts for the tile) for
// all outputs; spans of one tile follow one another in time.
template <class Work>
void for_tiles(Int parts, const Geometry& g, Int timesteps, const Word* rows, const float* blocks, Work work) {
  const Int lines = g.images * g.out_h, per_tile = larger(1, TILE / (smaller(timesteps, SPAN) * g.out_w));
  const Int tiles = (lines + per_tile - 1) / per_tile, of_group = g.blocks_of_group(), items = tiles * g.groups * of_group;
  const Int sums = per_tile * g.out_w * g.width_of_block();
#pragma omp parallel num_threads(parts)
  {
    std::vector<float> memory((SPAN + 1) * sums + LANES);
    float* aligned = memory.data() + (-(reinterpret_cast<std::uintptr_t>(memory.data()) / sizeof(float)) & (LANES - 1));
#pragma omp for schedule(dynamic, 1)
    for (Int item = 0; item < items; ++item) {
      const Int tile = item / (g.groups * of_group), group = item / of_group % g.groups, block = item % of_group;
      const Tile part{tile * per_tile, smaller(lines, (tile + 1) * per_tile)};
      for (Int t = 0; t < timesteps; t += SPAN) {
        const Int times = smaller(SPAN, timesteps - t);
        sum_span(times, g, timesteps, rows, blocks, group, block, part, t, aligned);
        work(group, block, part, aligned, t, times, aligned + SPAN * sums);
      }
    }
  }
}

inline Value written(float value) { return as(Value(), value); }

// Which of 16 values are at or above zero.
inline unsigned at_least_zero(Vector values) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(values), _mm512_setzero_ps(), _CMP_GE_OQ);
#else
  const Lanes of = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768}, found = (values >= 0) & of;
  unsigned bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= static_cast<unsigned>(found[i]);
  return bits;
#endif
}

// Ones where the bits are.
inline Vector ones_of(unsigned bits) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_maskz_mov_ps(static_cast<__mmask16>(bits), _mm512_set1_ps(1.0f)));
#else
  const Lanes of = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
  const Lanes ones = {0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000,
                      0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000};
  return reinterpret_cast<Vector>(((of & static_cast<std::int32_t>(bits)) != 0) & ones);
#endif
}

inline Vector read_vector(const float* from, Int count) {
  if (count == LANES) return *reinterpret_cast<const Vector*>(from);
  Vector out = {};
  for (Int i = 0; i < count; ++i) out[i] = from[i];
  return out;
}

inline Vector read_vector(const BFloat16* from, Int count) {
  Vector out = {};
  for (Int i = 0; i < count; ++i) out[i] = read(from[i]);
  return out;
}

// A batch-norm of evaluation; without weight and bias they are 1 and 0.
struct Norm {
  const float *mean, *var, *weight, *bias;
  double eps;
};

// The same as a scale and a shift, rounded as PyTorch's operations one by one are; 1 and 0 without one.
struct Affine {
  std::vector<float> scale, shift;

  Affine(const Norm* norm, Int channels) : scale(channels, 1.0f), shift(channels, 0.0f) {
    if (!norm) return;
    for (Int c = 0; c < channels; ++c) {
      const float inv_std = 1.0f / std::sqrt(norm->var[c] + static_cast<float>(norm->eps));
      scale[c] = norm->weight ? inv_std * norm->weight[c] : inv_std;
      shift[c] = norm->bias ? norm->bias[c] - norm->mean[c] * scale[c] : -norm->mean[c] * scale[c];
    }
  }
};

// As they would be read from memory.
inline Vector stored(Vector values) {
  if constexpr (!std::is_same_v<Value, float>)
    for (Int i = 0; i < LANES; ++i) values[i] = read(written(values[i]));
  return values;
}

// Neurons that follow a layer and its batch-norm; `neurons/neuron.py` has the equations. Currents are sum * scale + shift + residual,
// as the loops over neurons compute them.
struct Neurons {
  const float *scale, *shift;  // [outputs]
  const Value* residual;       // like out, or null
  const Word* residual_rows;   // spikes added in its place, or null
  float decay, threshold, v_reset;
  bool hard;
  float v_init;
  const float* membrane;  // [positions, outputs] before the first timestep, or null
  float* after;           // after the last, or null
  Word* spikes;           // rows [positions, words, T]
  Int positions, outputs, timesteps;

  Int words() const { return (outputs + WORD - 1) / WORD; }

  // The spikes of up to 16 neurons at `times` timesteps, written into the bits of `found` from `lane` on.
  template <class Read>
  [[gnu::always_inline]] void fire(Read current, Int position, Int channel, Int first_time, Int times, float* v, Word* found) const {
    const Int count = smaller(LANES, outputs - channel), lane = channel % WORD;
    const Vector scales = read_vector(scale + channel, count), shifts = read_vector(shift + channel, count);
    const Word* added = residual_rows ? residual_rows + (position * words() + channel / WORD) * timesteps + first_time : nullptr;
    Vector membranes = *reinterpret_cast<Vector*>(v);
    for (Int t = 0; t < times; ++t) {
      Vector incoming = current(t) * scales + shifts;
      if (residual) incoming += read_vector(residual + ((first_time + t) * positions + position) * outputs + channel, count);
      if (added) incoming += ones_of(static_cast<unsigned>(added[t] >> lane) & 0xFFFF);
      const Vector before = decay * membranes + incoming, left = before - threshold;
      found[t] |= static_cast<Word>(at_least_zero(left)) << lane;
      membranes = left >= 0 ? (hard ? Vector{} + v_reset : left) : before;
    }
    *reinterpret_cast<Vector*>(v) = membranes;
  }

  Vector start(Int position, Int channel) const {
    return membrane ? read_vector(membrane + position * outputs + channel, smaller(LANES, outputs - channel)) : Vector{} + v_init;
  }

  void finish(Int position, Int channel, const float* v) const {
    if (after) std::memcpy(after + position * outputs + channel, v, smaller(LANES, outputs - channel) * sizeof(float));
  }

  // Leaves out the bits of channels that are not there, and counts the spikes.
  Int write(Int position, Int word, Int first_time, Int times, const Word* found) const {
    Word* to = spikes + (position * words() + word) * timesteps + first_time;
    const Word there = (word + 1) * WORD <= outputs ? ~Word(0) : (Word(1) << (outputs % WORD)) - 1;
    Int count = 0;
    for (Int t = 0; t < times; ++t) count += count_of(to[t] = found[t] & there);
    return count;
  }
};

// In a matrix of 64 x 64 bits, bit j of word i becomes bit i of word j.
inline void transpose(Word* rows) {
  Word mask = 0x00000000FFFFFFFF;
  for (int j = 32; j; j >>= 1, mask ^= mask << j)
    for (int block = 0; block < 64; block += 2 * j)
      for (int k = block; k < block + j; ++k) {
        const Word swapped = ((rows[k] >> j) ^ rows[k + j]) & mask;
        rows[k] ^= swapped << j;
        rows[k + j] ^= swapped;
      }
}

// In 8 x 8 bits, bit j of byte i becomes bit i of byte j.
inline Word transpose_bytes(Word x) {
  Word swapped = (x ^ (x >> 7)) & 0x00AA00AA00AA00AA;
  x ^= swapped ^ (swapped << 7);
  swapped = (x ^ (x >> 14)) & 0x0000CCCC0000CCCC;
  x ^= swapped ^ (swapped << 14);
  swapped = (x ^ (x >> 28)) & 0x00000000F0F0F0F0;
  return x ^ swapped ^ (swapped << 28);
}

// The gradients of a block of outputs at CHUNK * 64 positions of all timesteps, from `first` on, side by side: [positions, WIDTH].
void gather_gradients(const Value* dy, Int first, Int end, Int outputs, Int channel, Int count, Int width, float* to) {
  for (Int position = first; position < end; ++position, to += width) {
    const Value* from = dy + position * outputs + channel;
    for (Int i = 0; i < count; ++i) to[i] = read(from[i]);
    for (Int i = count; i < width; ++i) to[i] = 0;
  }
}

// The spikes that meet a tap, transposed: of 64 positions of the outputs, for each channel of a word a word of positions.
void gather_spikes(const Geometry& g, Int timesteps, const Word* rows, Int tap, Int word, Int first, Int end, Word* to) {
  const Int dy = tap / g.kernel_w * g.dilation_h - g.pad_h, dx = tap % g.kernel_w * g.dilation_w - g.pad_w;
  const Int words = g.words(), of_time = g.out_positions();
  Int t = first / of_time, x = first % g.out_w, y = first / g.out_w % g.out_h, image = first % of_time / (g.out_h * g.out_w);
  for (Int i = 0; i < WORD; ++i) {
    to[i] = 0;
    if (first + i >= end) continue;
    const Int row = y * g.stride_h + dy, column = x * g.stride_w + dx;
    if (row >= 0 && row < g.height && column >= 0 && column < g.width)
      to[i] = rows[(((image * g.height + row) * g.width + column) * words + word) * timesteps + t];
    if (++x < g.out_w) continue;
    x = 0;
    if (++y < g.out_h) continue;
    y = 0;
    if (++image < g.images) continue;
    image = 0;
    ++t;
  }
  transpose(to);
}

template <int VECTORS>
void add_gradients(const Word* spikes, Word mask, const float* gradients, float* weights) {
  for (; mask; mask &= mask - 1) {
    const Int channel = __builtin_ctzll(mask);
    if (!spikes[channel]) continue;
    Vector sums[VECTORS], more[VECTORS] = {};
    load(weights + channel * VECTORS * LANES, sums);
    add_rows(spikes[channel], gradients, sums, more);
    add(more, sums);
    store(sums, weights + channel * VECTORS * LANES);
  }
}

void add_gradients(Int width, const Word* spikes, Word mask, const float* gradients, float* weights) {
  switch (width) {
    case 16: return add_gradients<1>(spikes, mask, gradients, weights);
    case 32: return add_gradients<2>(spikes, mask, gradients, weights);
    default: return add_gradients<4>(spikes, mask, gradients, weights);
  }
}

// Calls work(weights [outputs, channels of a group, taps] at a tap, its block, outputs there) for each channel of a block of weights.
template <class Work>
void for_blocks(Int parts, const Geometry& g, Work work) {
  const Int width = g.width_of_block(), of_group = g.blocks_of_group(), words = g.most_words();
#pragma omp parallel for num_threads(parts) schedule(static)
  for (Int item = 0; item < g.groups * of_group * words; ++item) {
    const Int group = item / (of_group * words), block = item / words % of_group, word = item % words;
    if (word >= g.words_of(group)) continue;
    const Int output = group * g.outputs_of_group() + block * width, count = smaller(width, g.outputs_of_group() - block * width);
    for (Int tap = 0; tap < g.taps(); ++tap)
      for (Int bit = 0; bit < WORD; ++bit) {
        const Int channel = (g.first_word(group) + word) * WORD + bit - group * g.channels_of_group();
        const bool there = channel >= 0 && channel < g.channels_of_group();
        work(there ? (output * g.channels_of_group() + channel) * g.taps() + tap : -1, g.channels_of_group() * g.taps(),
             g.place(group, block, tap, word) + bit * width, there ? count : 0, width);
      }
  }
}

}  // namespace

extern "C" {

Int floats_of_blocks(const Geometry* g) { return g->place(g->groups, 0, 0, 0); }

// weight [outputs, channels of a group, taps]
void to_blocks(Int parts, const Geometry* g, const float* weight, float* blocks) {
  for_blocks(parts, *g, [&](Int from, Int stride, Int to, Int count, Int width) {
    for (Int i = 0; i < count; ++i) blocks[to + i] = weight[from + i * stride];
    for (Int i = count; i < width; ++i) blocks[to + i] = 0;
  });
}

void from_blocks(Int parts, const Geometry* g, const float* blocks, float* weight) {
  for_blocks(parts, *g, [&](Int to, Int stride, Int from, Int count, Int) {
    for (Int i = 0; i < count; ++i) weight[to + i * stride] = blocks[from + i];
  });
}

// A number that differs if any bit of the data does, but for chance.
Word digest(Int parts, const Word* data, Int words, const unsigned char* rest, Int bytes) {
  constexpr Int CHAINS = 32, PART = 1 << 16;  // of words, so that the number of threads changes nothing
  const Int items = (words + PART - 1) / PART;
  Word all = 0x9E3779B97F4A7C15;
#pragma omp parallel for num_threads(parts) schedule(static) reduction(+ : all)
  for (Int item = 0; item < items; ++item) {
    const Int first = item * PART, count = smaller(PART, words - first);
    Word sums[CHAINS] = {}, turned[CHAINS] = {};
    Int i = 0;
    for (; i + CHAINS <= count; i += CHAINS)
      for (Int j = 0; j < CHAINS; ++j) {
        sums[j] += data[first + i + j];
        turned[j] += sums[j];
      }
    Word one = static_cast<Word>(item) * 0xD6E8FEB86659FD93 + 1;
    for (; i < count; ++i) one = (one ^ data[first + i]) * 0xFF51AFD7ED558CCD;
    for (Int j = 0; j < CHAINS; ++j) {
      one = (one ^ sums[j]) * 0xFF51AFD7ED558CCD;
      one = ((one >> 33) ^ one ^ turned[j]) * 0xC4CEB9FE1A85EC53;
    }
    all += one ^ (one >> 29);
  }
  for (Int i = 0; i < bytes; ++i) all = (all ^ rest[i]) * 0x100000001B3;
  return all;
}

// From bits [ceil(T / 8), positions, channels], bit t % 8 of byte t / 8 for timestep t. Returns the number of spikes.
Int rows_of_bits(Int parts, Int positions, Int channels, Int timesteps, const unsigned char* bits, Word* rows) {
  const Int words = (channels + WORD - 1) / WORD;
  Int total = 0;
#pragma omp parallel for num_threads(parts) schedule(static) reduction(+ : total)
  for (Int position = 0; position < positions; ++position)
    for (Int word = 0; word < words; ++word) {
      Word* to = rows + (position * words + word) * timesteps;
      const Int count = smaller(WORD, channels - word * WORD);
      for (Int first = 0; first < timesteps; first += 8) {
        const unsigned char* from = bits + (first / 8 * positions + position) * channels + word * WORD;
        const Int times = smaller(8, timesteps - first);
        alignas(64) Word eight[8] = {}, found[8] = {};
        if (count == WORD)
          std::memcpy(eight, from, WORD);
        else
          std::memcpy(eight, from, count);
        for (int i = 0; i < 8; ++i) {
          const Word byte_of_time = transpose_bytes(eight[i]);
          for (int t = 0; t < 8; ++t) found[t] |= (byte_of_time >> 8 * t & 0xFF) << 8 * i;
        }
        for (Int t = 0; t < times; ++t) total += count_of(to[first + t] = found[t]);
      }
    }
  return total;
}

Int count_bits(Int parts, const unsigned char* bytes, Int count) {
  Int total = 0;
#pragma omp parallel for num_threads(parts) schedule(static) reduction(+ : total)
  for (Int i = 0; i < count / 8; ++i) {
    Word word;
    std::memcpy(&word, bytes + 8 * i, sizeof word);
    total += count_of(word);
  }
  for (Int i = count / 8 * 8; i < count; ++i) total += count_of(bytes[i]);
  return total;
}

// Zeros and ones [end - begin, positions, channels] of timesteps `begin` to `end` - 1.
void unpack_rows(Int parts, Int positions, Int channels, Int timesteps, Int begin, Int end, const Word* rows, Value* spikes) {
  const Int words = (channels + WORD - 1) / WORD;
#pragma omp parallel for num_threads(parts) schedule(static)
  for (Int position = 0; position < positions; ++position)
    for (Int word = 0; word < words; ++word)
      for (Int t = begin; t < end; ++t) {
        const Word bits = rows[(position * words + word) * timesteps + t];
        Value* to = spikes + ((t - begin) * positions + position) * channels + word * WORD;
        const Int count = smaller(WORD, channels - word * WORD);
#pragma omp simd
        for (Int i = 0; i < count; ++i) to[i] = written(bits >> i & 1 ? 1.0f : 0.0f);
      }
}

// The bits of PackedSpikes, [ceil(T / 8), positions, channels].
void bits_of_rows(Int parts, Int positions, Int channels, Int timesteps, const Word* rows, unsigned char* bits) {
  const Int words = (channels + WORD - 1) / WORD;
#pragma omp parallel for num_threads(parts) schedule(static)
  for (Int position = 0; position < positions; ++position)
    for (Int word = 0; word < words; ++word)
      for (Int first = 0; first < timesteps; first += 8) {
        const Word* from = rows + (position * words + word) * timesteps + first;
        const Int times = smaller(8, timesteps - first), count = smaller(WORD, channels - word * WORD);
        unsigned char* to = bits + (first / 8 * positions + position) * channels + word * WORD;
#pragma omp simd
        for (Int i = 0; i < count; ++i) {
          unsigned char byte = 0;
          for (Int t = 0; t < times; ++t) byte |= static_cast<unsigned char>((from[t] >> i & 1) << t);
          to[i] = byte;
        }
      }
}

// Rows of max-pooled spikes: a window has a spike where any position in it has one. Returns the number of spikes.
Int pool_rows(Int parts, const Geometry* geometry, Int timesteps, const Word* rows, Word* pooled) {
  const Geometry& g = *geometry;
  const Int size = g.words() * timesteps;
  Int total = 0;
#pragma omp parallel for num_threads(parts) schedule(static) reduction(+ : total)
  for (Int position = 0; position < g.out_positions(); ++position) {
    Word* to = pooled + position * size;
    std::memset(to, 0, size * sizeof(Word));
    const Int image = position / (g.out_h * g.out_w), y = position / g.out_w % g.out_h, x = position % g.out_w;
    for (Int tap = 0; tap < g.taps(); ++tap) {
      const Int row = y * g.stride_h - g.pad_h + tap / g.kernel_w * g.dilation_h;
      const Int column = x * g.stride_w - g.pad_w + tap % g.kernel_w * g.dilation_w;
      if (row < 0 || row >= g.height || column < 0 || column >= g.width) continue;
      const Word* from = rows + ((image * g.height + row) * g.width + column) * size;
      for (Int i = 0; i < size; ++i) to[i] |= from[i];
    }
    for (Int i = 0; i < size; ++i) total += count_of(to[i]);
  }
  return total;
}

// The layer's outputs, or with a norm those of the batch-norm after it.
void forward(Int parts, const Geometry* geometry, Int timesteps, const Word* rows, const float* blocks, const float* bias,
             const Norm* norm, Value* out) {
  const Geometry& g = *geometry;
  const Affine affine(norm, g.outputs);
  for_tiles(parts, g, timesteps, rows, blocks,
            [&](Int group, Int block, Tile tile, const float* sums, Int first_time, Int times, float*) {
              const Int width = g.width_of_block(), channel = group * g.outputs_of_group() + block * width;
              const Int count = smaller(width, g.outputs_of_group() - block * width), positions = tile.positions(g);
              for (Int t = 0; t < times; ++t)
                for (Int i = 0; i < positions; ++i, sums += width) {
                  const Int position = (first_time + t) * g.out_positions() + tile.first * g.out_w + i;
                  Value* to = out + position * g.outputs + channel;
                  if (bias)
                    for (Int c = 0; c < count; ++c) to[c] = written(sums[c] + bias[channel + c]);
                  else
                    for (Int c = 0; c < count; ++c) to[c] = written(sums[c]);
                  if (norm)
                    for (Int c = 0; c < count; ++c)
                      to[c] = written(read(to[c]) * affine.scale[channel + c] + affine.shift[channel + c]);
                }
            });
}

// A layer without groups, its batch-norm and the neurons after them. Returns the number of spikes.
Int forward_and_fire(Int parts, const Geometry* geometry, Int timesteps, const Word* rows, const float* blocks, const float* bias,
                     const Norm* norm, const Value* residual, const Word* residual_rows, double decay, double threshold,
                     double v_reset, Int hard, double v_init, const float* membrane, float* after, Word* spikes) {
  const Geometry& g = *geometry;
  const Affine affine(norm, g.outputs);
  const Neurons neurons{affine.scale.data(), affine.shift.data(), residual, residual_rows, float(decay),      float(threshold),
                        float(v_reset),      hard != 0,           float(v_init), membrane, after, spikes, g.out_positions(), g.outputs, timesteps};
  Int total = 0;
  for_tiles(parts, g, timesteps, rows, blocks,
            [&](Int, Int block, Tile tile, const float* sums, Int first_time, Int times, float* v) {
              const Int width = g.width_of_block(), positions = tile.positions(g);
              const Int count = smaller(width, g.outputs - block * width);
              Int fired = 0;
              for (Int i = 0; i < positions; ++i) {
                const Int position = tile.first * g.out_w + i;
                Word found[SPAN] = {};
                for (Int c = 0; c < count; c += LANES) {
                  float* membranes = v + i * width + c;
                  const Int channel = block * width + c;
                  if (first_time == 0) *reinterpret_cast<Vector*>(membranes) = neurons.start(position, channel);
                  const float* from = sums + i * width + c;
                  const Vector offset = bias ? read_vector(bias + channel, smaller(LANES, count - c)) : Vector{};
                  neurons.fire(
                      [&](Int t) {
                        const Vector sum = *reinterpret_cast<const Vector*>(from + t * positions * width);
                        return stored(bias ? sum + offset : sum);
                      },
                      position, channel, first_time, times, membranes, found);
                  if (first_time + times == timesteps) neurons.finish(position, channel, membranes);
                }
                fired += neurons.write(position, block * width / WORD, first_time, times, found);
              }
#pragma omp atomic
              total += fired;
            });
  return total;
}

// Neurons on currents x * scale + shift + residual, x [T or 1, positions, outputs]. Returns the number of spikes.
Int fire_rows(Int parts, Int positions, Int outputs, Int timesteps, const Value* x, Int still, const float* scale, const float* shift,
              const Value* residual, const Word* residual_rows, double decay, double threshold, double v_reset, Int hard, double v_init,
              const float* membrane, float* after, Word* spikes) {
  const Neurons neurons{scale,         shift,    residual, residual_rows, float(decay), float(threshold), float(v_reset), hard != 0,
                        float(v_init), membrane, after,    spikes,        positions,    outputs,          timesteps};
  const Int stride = still ? 0 : positions * outputs;
  Int total = 0;
#pragma omp parallel for num_threads(parts) schedule(static) reduction(+ : total)
  for (Int position = 0; position < positions; ++position)
    for (Int word = 0; word < neurons.words(); ++word) {
      alignas(64) float v[WORD];
      for (Int first = 0; first < timesteps; first += SPAN) {
        const Int times = smaller(SPAN, timesteps - first);
        Word found[SPAN] = {};
        for (Int channel = word * WORD; channel < smaller(outputs, (word + 1) * WORD); channel += LANES) {
          float* membranes = v + channel % WORD;
          if (first == 0) *reinterpret_cast<Vector*>(membranes) = neurons.start(position, channel);
          const Value* from = x + position * outputs + channel + first * stride;
          const Int count = smaller(LANES, outputs - channel);
          neurons.fire([&](Int t) { return read_vector(from + t * stride, count); }, position, channel, first, times, membranes, found);
          if (first + times == timesteps) neurons.finish(position, channel, membranes);
        }
        total += neurons.write(position, word, first, times, found);
      }
    }
  return total;
}

// The gradient [blocks] with respect to the weights, from dy.
void weight_gradient(Int parts, const Geometry* geometry, Int timesteps, const Word* rows, const Value* dy, float* blocks) {
  const Geometry& g = *geometry;
  const Int width = g.width_of_block(), total = timesteps * g.out_positions(), of_group = g.blocks_of_group();
  const Int units = g.taps() * g.most_words(), shares = larger(1, smaller(of_group, parts / larger(1, smaller(units, parts))));
#pragma omp parallel num_threads(parts)
  {
    std::vector<float> memory(CHUNK * WORD * width + LANES);
    float* gradients = memory.data() + (-(reinterpret_cast<std::uintptr_t>(memory.data()) / sizeof(float)) & (LANES - 1));
    std::vector<Word> spikes;
    // A part has some taps and words of channels, and a share of the blocks of outputs.
#pragma omp for schedule(static, 1)
    for (Int part = 0; part < parts; ++part) {
      const Int share = part % shares, pieces = parts / shares, piece = part / shares;
      if (piece >= pieces) continue;
      const Int first_unit = units * piece / pieces, end_unit = units * (piece + 1) / pieces;
      const Int first_block = of_group * share / shares, end_block = of_group * (share + 1) / shares;
      if (first_unit == end_unit || first_block == end_block) continue;
      spikes.resize((end_unit - first_unit) * CHUNK * WORD);
      for (Int group = 0; group < g.groups; ++group) {
        for (Int block = first_block; block < end_block; ++block)
          for (Int unit = first_unit; unit < end_unit; ++unit)
            std::memset(blocks + g.place(group, block, unit / g.most_words(), unit % g.most_words()), 0,
                        g.floats_of_block() * sizeof(float));
        for (Int first = 0; first < total; first += CHUNK * WORD) {
          const Int end = smaller(total, first + CHUNK * WORD), stretches = (end - first + WORD - 1) / WORD;
          for (Int unit = first_unit; unit < end_unit; ++unit) {
            const Int word = unit % g.most_words();
            if (word >= g.words_of(group)) continue;
            for (Int i = 0; i < stretches; ++i)
              gather_spikes(g, timesteps, rows, unit / g.most_words(), g.first_word(group) + word, first + i * WORD, end,
                            spikes.data() + ((unit - first_unit) * CHUNK + i) * WORD);
          }
          for (Int block = first_block; block < end_block; ++block) {
            const Int channel = group * g.outputs_of_group() + block * width;
            gather_gradients(dy, first, end, g.outputs, channel, smaller(width, g.outputs_of_group() - block * width), width, gradients);
            for (Int unit = first_unit; unit < end_unit; ++unit) {
              const Int tap = unit / g.most_words(), word = unit % g.most_words();
              if (word >= g.words_of(group)) continue;
              float* weights = blocks + g.place(group, block, tap, word);
              for (Int i = 0; i < stretches; ++i)
                add_gradients(width, spikes.data() + ((unit - first_unit) * CHUNK + i) * WORD,
                              g.mask(group, g.first_word(group) + word), gradients + i * WORD * width, weights);
            }
          }
        }
      }
    }
  }
}

}  // extern "C"

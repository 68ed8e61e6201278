// Runs every function of kernels.cpp on random shapes beside plain loops in double; returns how many differed.
//
// Built by test_sanitizers.py with the checks of the compiler for memory and arithmetic.

#include KERNELS

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

namespace {

std::mt19937_64 generator(12345);

Int any(Int first, Int last) { return std::uniform_int_distribution<Int>(first, last)(generator); }

float number() { return std::normal_distribution<float>()(generator); }

// Memory of exactly that size, so that a step beyond it is seen.
template <class Kind>
struct Exact {
  explicit Exact(Int size) : size(size), values(new Kind[size]()) {}
  Kind& operator[](Int place) { return values[place]; }
  Kind* data() { return values.get(); }
  Int size;
  std::unique_ptr<Kind[]> values;
};

bool differ(double found, double expected) { return !(std::fabs(found - expected) <= 1e-4 * (1 + std::fabs(expected))); }

int try_shape() {
  Geometry g{};
  g.groups = any(1, 3);
  const Int sizes[] = {1, 3, 16, 17, 40, 64, 65, 128};
  g.channels = g.groups * sizes[any(0, 7)];
  g.outputs = g.groups * sizes[any(0, 7)];
  g.images = any(1, 3);
  g.kernel_h = any(1, 3), g.kernel_w = any(1, 5);
  g.stride_h = any(1, 2), g.stride_w = any(1, 3);
  g.pad_h = any(0, 2), g.pad_w = any(0, 2);
  g.dilation_h = any(1, 2), g.dilation_w = any(1, 2);
  g.height = larger(1, (g.kernel_h - 1) * g.dilation_h + 1 - 2 * g.pad_h) + any(0, 5);
  g.width = larger(1, (g.kernel_w - 1) * g.dilation_w + 1 - 2 * g.pad_w) + any(0, 5);
  g.out_h = (g.height + 2 * g.pad_h - (g.kernel_h - 1) * g.dilation_h - 1) / g.stride_h + 1;
  g.out_w = (g.width + 2 * g.pad_w - (g.kernel_w - 1) * g.dilation_w - 1) / g.stride_w + 1;
  const Int T = any(1, 9), parts = any(1, 3), positions = g.images * g.height * g.width, outputs = g.out_positions();
  const double density = any(0, 4) / 4.0;

  Exact<unsigned char> bits((T + 7) / 8 * positions * g.channels), again(bits.size);
  std::bernoulli_distribution fires(density);
  Int spikes = 0;
  for (Int t = 0; t < T; ++t)
    for (Int i = 0; i < positions * g.channels; ++i)
      if (fires(generator)) bits[t / 8 * positions * g.channels + i] |= 1 << t % 8, ++spikes;
  Exact<Word> rows(positions * g.words() * T);
  int wrong = rows_of_bits(parts, positions, g.channels, T, bits.data(), rows.data()) != spikes;
  bits_of_rows(parts, positions, g.channels, T, rows.data(), again.data());
  wrong += std::memcmp(bits.data(), again.data(), bits.size) != 0;
  Exact<Value> values(T * positions * g.channels);
  unpack_rows(parts, positions, g.channels, T, 0, T, rows.data(), values.data());

  const Int per_group = g.channels / g.groups, taps = g.taps();
  Exact<float> weight(g.outputs * per_group * taps), found(weight.size), bias(g.outputs);
  for (Int i = 0; i < weight.size; ++i) weight[i] = number();
  for (Int i = 0; i < g.outputs; ++i) bias[i] = number();
  Exact<float> blocks(floats_of_blocks(&g));
  to_blocks(parts, &g, weight.data(), blocks.data());
  from_blocks(parts, &g, blocks.data(), found.data());
  wrong += std::memcmp(weight.data(), found.data(), weight.size * sizeof(float)) != 0;

  Exact<Value> out(T * outputs * g.outputs), dy(out.size);
  for (Int i = 0; i < dy.size; ++i) dy[i] = written(number());
  forward(parts, &g, T, rows.data(), blocks.data(), bias.data(), nullptr, out.data());
  weight_gradient(parts, &g, T, rows.data(), dy.data(), blocks.data());
  from_blocks(parts, &g, blocks.data(), found.data());
  std::vector<double> sums(out.size), gradients(weight.size);
  for (Int t = 0; t < T; ++t)
    for (Int position = 0; position < outputs; ++position)
      for (Int o = 0; o < g.outputs; ++o) {
        const Int place = (t * outputs + position) * g.outputs + o, group = o / g.outputs_of_group();
        const Int image = position / (g.out_h * g.out_w), y = position / g.out_w % g.out_h, x = position % g.out_w;
        sums[place] = bias[o];
        for (Int tap = 0; tap < taps; ++tap) {
          const Int row = y * g.stride_h - g.pad_h + tap / g.kernel_w * g.dilation_h;
          const Int column = x * g.stride_w - g.pad_w + tap % g.kernel_w * g.dilation_w;
          if (row < 0 || row >= g.height || column < 0 || column >= g.width) continue;
          for (Int c = 0; c < per_group; ++c) {
            const Int channel = group * per_group + c, in = (image * g.height + row) * g.width + column;
            const double spike = read(values[(t * positions + in) * g.channels + channel]);
            const Int of_weight = (o * per_group + c) * taps + tap;
            sums[place] += spike * weight[of_weight];
            gradients[of_weight] += spike * read(dy[place]);
          }
        }
      }
  for (Int i = 0; i < out.size; ++i) wrong += differ(read(out[i]), sums[i]);
  for (Int i = 0; i < weight.size; ++i) wrong += differ(found[i], gradients[i]);

  Geometry windows = g;
  windows.outputs = windows.channels, windows.groups = 1;
  Exact<Word> pooled(outputs * g.words() * T);
  pool_rows(parts, &windows, T, rows.data(), pooled.data());
  digest(parts, rows.data(), rows.size, bits.data(), any(0, 7) < bits.size ? 1 : 0);
  if (g.groups > 1) return wrong;
  Exact<float> mean(g.outputs), var(g.outputs), membrane(outputs * g.outputs), after(membrane.size);
  for (Int i = 0; i < g.outputs; ++i) mean[i] = number(), var[i] = std::fabs(number());
  for (Int i = 0; i < membrane.size; ++i) membrane[i] = number();
  const Norm norm{mean.data(), var.data(), nullptr, bias.data(), 1e-5};
  const Int words = (g.outputs + WORD - 1) / WORD;
  Exact<Word> fired(outputs * words * T), same(fired.size);
  to_blocks(parts, &g, weight.data(), blocks.data());
  const Int count = forward_and_fire(parts, &g, T, rows.data(), blocks.data(), nullptr, &norm, out.data(), nullptr, 0.5, 1, 0, 0, 0,
                                     membrane.data(), after.data(), fired.data());
  Exact<Value> current(out.size);
  forward(parts, &g, T, rows.data(), blocks.data(), nullptr, nullptr, current.data());
  const Affine affine(&norm, g.outputs);
  Exact<float> scale(g.outputs), shift(g.outputs);
  for (Int i = 0; i < g.outputs; ++i) scale[i] = affine.scale[i], shift[i] = affine.shift[i];
  wrong += fire_rows(parts, outputs, g.outputs, T, current.data(), 0, scale.data(), shift.data(), out.data(), nullptr, 0.5, 1, 0, 0, 0,
                     membrane.data(), after.data(), same.data()) != count;
  wrong += std::memcmp(fired.data(), same.data(), fired.size * sizeof(Word)) != 0;
  fire_rows(parts, outputs, g.outputs, T, current.data(), 1, scale.data(), shift.data(), nullptr, fired.data(), 0.5, 1, 0.1, 1, 0.5,
            nullptr, nullptr, same.data());
  return wrong;
}

}  // namespace

int main(int, char** arguments) {
  int wrong = 0;
  for (int shape = 0; shape < std::atoi(arguments[1]); ++shape) wrong += try_shape() != 0;
  std::printf("%d of %s shapes differ\n", wrong, arguments[1]);
  return wrong != 0;
}

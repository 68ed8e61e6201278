// Numbers, as the loops over neurons and the layers on spikes read and write them.

#pragma once

#include <cstdint>
#include <cstring>

using Int = std::int64_t;

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

inline float as(float, float value) { return value; }

inline BFloat16 as(BFloat16, float value) {  // rounded to the nearest, ties to even; what is no number stays so
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  return {static_cast<std::uint16_t>(value == value ? rounded : 0x7FC0)};
}

inline Int smaller(Int a, Int b) { return a < b ? a : b; }
inline Int larger(Int a, Int b) { return a > b ? a : b; }

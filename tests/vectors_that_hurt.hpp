// Pairs of vectors whose products, distances and similarities are hard to bound.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace seine::test {

using Values = std::vector<float>;

inline Values as_float16(Values values) {
  for (float& value : values) value = _cvtsh_ss(_cvtss_sh(value, 0));
  return values;
}

struct Pair {
  const char* name;
  Values x, y;
};

// `tiny`, `huge`: what is almost too small and too large for the type.
inline std::vector<Pair> pairs_that_hurt(std::int64_t dim, float tiny, float huge) {
  std::mt19937_64 random(static_cast<std::uint64_t>(dim));
  std::normal_distribution<float> normal;
  const auto draw = [&](float mean, float spread) {
    Values values(static_cast<std::size_t>(dim));
    for (float& value : values) value = mean + spread * normal(random);
    return values;
  };
  const auto changed = [&](Values values, float by) {
    for (float& value : values) value += by * normal(random);
    return values;
  };
  std::vector<Pair> pairs;
  const auto add = [&](const char* name, Values x, Values y) { pairs.push_back({name, std::move(x), std::move(y)}); };
  const Values plain = draw(0, 1), far = draw(100, 0.01f), zero(plain.size(), 0.0f);
  add("independent", plain, draw(0, 1));
  add("equal", plain, plain);
  add("nearly equal", plain, changed(plain, 1e-3f));
  add("far from the origin, nearly equal", far, changed(far, 0.01f));
  add("far from the origin, equal", far, far);
  Values cut = far, steps = plain, alternating = plain;
  for (float& value : cut) value = std::nextafter(1 + 0x1p-10f, 0.0f);
  add("just below a step of TF32", cut, cut);
  Values dust(plain.size(), 0x1p-11f - 0x1p-22f), step(plain.size(), 0x1p-12f);
  dust[0] = step[0] = 1;
  add("each addend just below the last bit of the sum", dust, step);
  for (std::size_t c = 0; c < steps.size(); ++c) {
    steps[c] = c % 2 == 0 ? 1.0f : 0x1p-11f + 0x1p-12f;
    alternating[c] = (c % 4 < 2 ? 1.0f : -1.0f) * (1 + 0x1p-9f * static_cast<float>(c % 7));
  }
  add("a step, and half a step", steps, changed(steps, 0x1p-12f));
  add("sums that cancel", alternating, steps);
  Values spike = draw(0, 0.1f), other = spike;
  spike.front() = other.back() = huge / 256;
  add("one huge component each", spike, other);
  spike.back() = huge / 256;
  add("two huge components", spike, other);
  Values opposite = far;
  for (float& value : opposite) value = -value;
  add("opposite", far, opposite);
  add("zero and other", zero, plain);
  add("zero", zero, zero);
  add("vanishing", draw(tiny, tiny), draw(tiny, tiny));
  add("vanishing and other", draw(tiny, tiny), plain);
  return pairs;
}

}  // namespace seine::test

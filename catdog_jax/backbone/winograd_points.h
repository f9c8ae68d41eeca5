// The transforms of Winograd's tiles, and the registers that they are made for: for native.cpp.
//
// Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv:1509.09308). Along each axis a tile has
// 6 or 4 outputs. 6 are evaluated at the points 0, 1, -1, 2, -2, infinity, 1/2, -1/2, and 4 at the first six of these, so
// that all tiles share the transformed kernels: 14 = 6 + 4 + 4 takes 20 points an axis, where tiles of 6 alone take 24.

#pragma once

#include "custom_call.h"

#define UNROLL _Pragma("GCC unroll 16")

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, VECTORS = 2, ROWS = 14;  // floats of a register; registers and tiles of a product
#elif defined(__AVX__)
constexpr int LANES = 8, VECTORS = 2, ROWS = 6;
#elif defined(__aarch64__)
constexpr int LANES = 4, VECTORS = 4, ROWS = 6;
#else
constexpr int LANES = 4, VECTORS = 2, ROWS = 6;
#endif
constexpr int WIDTH = LANES * VECTORS, SIX = 8, FOUR = 6, PAIRS = SIX * SIX;  // points of 6 and of 4 outputs

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef double wide __attribute__((vector_size(8 * LANES)));

INLINE const vec &at(const float *p) { return *reinterpret_cast<const vec *>(p); }
INLINE vec &at(float *p) { return *reinterpret_cast<vec *>(p); }
INLINE vec larger(vec a, vec b) { return a > b ? a : b; }  // b where one is NaN

// Transforms of one axis: G g, B^T d and A^T m of the paper.

INLINE void kernel_points(const wide *g, int from, wide *u, int to) {
  wide even = g[0] + g[2 * from], far = g[0] + 4 * g[2 * from], near = 4 * g[0] + g[2 * from];
  u[0] = g[0];
  u[1 * to] = (even + g[from]) * (-2.0 / 9);
  u[2 * to] = (even - g[from]) * (-2.0 / 9);
  u[3 * to] = (far + 2 * g[from]) / 90.0;
  u[4 * to] = (far - 2 * g[from]) / 90.0;
  u[5 * to] = g[2 * from];
  u[6 * to] = (near + 2 * g[from]) / 180.0;
  u[7 * to] = (near - 2 * g[from]) / 180.0;
}

template <int POINTS>
INLINE void input_points(const vec *d, vec *r) {
  if (POINTS == SIX) {
    vec a = d[2] - 4.25f * d[4] + d[6], b = d[1] - 4.25f * d[3] + d[5];
    r[0] = d[0] - d[6] + 5.25f * (d[4] - d[2]);
    r[1] = a + b;
    r[2] = a - b;
    a = d[6] + 0.25f * d[2] - 1.25f * d[4], b = 0.5f * d[1] - 2.5f * d[3] + 2.0f * d[5];
    r[3] = a + b;
    r[4] = a - b;
    r[5] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
    a = d[6] + 4.0f * d[2] - 5.0f * d[4], b = 2.0f * d[1] - 2.5f * d[3] + 0.5f * d[5];
    r[6] = a + b;
    r[7] = a - b;
  } else {
    vec a = 0.75f * d[4] - 3.0f * d[2], b = 0.75f * d[3] - 3.0f * d[1];
    r[0] = d[0] - 1.25f * d[2] + 0.25f * d[4];
    r[1] = a + b;
    r[2] = a - b;
    a = 3.75f * (d[4] - d[2]), b = 7.5f * (d[3] - d[1]);
    r[3] = a + b;
    r[4] = a - b;
    r[5] = d[5] + 4.0f * d[1] - 5.0f * d[3];
  }
}

template <int POINTS>
INLINE void output_points(const vec *m, vec *y) {
  vec s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
  if (POINTS == SIX) {
    vec s3 = m[6] + m[7], d3 = m[6] - m[7];
    y[0] = m[0] + s1 + s2 + 32.0f * s3;
    y[1] = d1 + 2.0f * d2 + 16.0f * d3;
    y[2] = s1 + 4.0f * s2 + 8.0f * s3;
    y[3] = d1 + 8.0f * d2 + 4.0f * d3;
    y[4] = s1 + 16.0f * s2 + 2.0f * s3;
    y[5] = m[5] + d1 + 32.0f * d2 + d3;
  } else {
    y[0] = m[0] + s1 + s2;
    y[1] = d1 + 2.0f * d2;
    y[2] = s1 + 4.0f * s2;
    y[3] = m[5] + d1 + 8.0f * d2;
  }
}

}  // namespace

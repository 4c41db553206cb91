// Rows of floats become rows of integers: of 8 bits, or of 4 bits packed into int4, int8 or int32 tensors.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string_view>

#include "base/parallel.h"
#include "ops/call.h"
#include "ops/dense.h"
#include "ops/quant/int4.h"

namespace anycann {

enum class RoundTo { kNearest, kFloor, kCeil, kTrunc };

struct RowFormat {
  int64_t rows = 0, n = 0;  // of the floats
  bool four_bits = false;
  RoundTo rounding = RoundTo::kNearest;
  float low() const { return four_bits ? -8.0f : -128.0f; }
  float high() const { return four_bits ? 7.0f : 127.0f; }
  int64_t bytes() const { return four_bits ? n / 2 : n; }  // of a row
};

// What y [dims but the last, n or what holds n] may be. dst_type: the operator's attribute, which a y of int4
// in int8 needs; negative: there is none.
Status ReadRowFormat(Call& call, const aclTensor* y, const char* name, const int64_t* dims, int rank,
                     int64_t dst_type, RowFormat* format);
// "rint", "round", "floor", "ceil", "trunc", or nothing.
Status ReadRounding(Call& call, const char* mode, const char* name, RowFormat* format);

// A memory that rows go to.
class QuantRows {
 public:
  QuantRows(const RowFormat& f, const TensorView& y) : format_(f), y_(y) {}
  bool ok() const { return y_.ok(); }
  void Finish() const { y_.Finish(); }

  // v: the values in units of the result, changed here.
  void Store(int64_t row, float* __restrict v) const {
    switch (format_.rounding) {
      case RoundTo::kNearest: return Bound(row, v, [](float x) { return std::nearbyint(x); });
      case RoundTo::kFloor: return Bound(row, v, [](float x) { return std::floor(x); });
      case RoundTo::kCeil: return Bound(row, v, [](float x) { return std::ceil(x); });
      case RoundTo::kTrunc: return Bound(row, v, [](float x) { return std::trunc(x); });
    }
  }

 private:
  template <class Round>
  void Bound(int64_t row, float* __restrict v, Round round) const {
    const float low = format_.low(), high = format_.high();
    char* to = y_.view().bytes() + row * format_.bytes();
    const int64_t n = format_.n;
    if (!format_.four_bits) {
      int8_t* __restrict out = reinterpret_cast<int8_t*>(to);
      for (int64_t i = 0; i < n; ++i)
        out[i] = static_cast<int8_t>(std::min(high, std::max(low, round(v[i]))));
      return;
    }
    for (int64_t i = 0; i < n; ++i) v[i] = std::min(high, std::max(low, round(v[i])));
    PackInt4(v, n, to);
  }
  RowFormat format_;
  DenseOutput y_;
};

// The scale that a row's values need. Symmetric: max |v| / high, no offset. Otherwise (max - min) / (high -
// low) and high - max / scale.
struct RowScale {
  float low = 0, high = 0;  // of the values
  void Add(const float* __restrict v, int64_t n) {
    float a = low, b = high;
    for (int64_t i = 0; i < n; ++i) {
      a = std::min(a, v[i]);
      b = std::max(b, v[i]);
    }
    low = a, high = b;
  }
  static RowScale Of(const float* v, int64_t n) {
    RowScale s{v[0], v[0]};
    s.Add(v, n);
    return s;
  }
  float Scale(const RowFormat& f, bool symmetric) const {
    return symmetric ? std::max(-low, high) / f.high() : (high - low) / (f.high() - f.low());
  }
  float Offset(const RowFormat& f, bool symmetric, float scale) const {
    return symmetric || scale == 0 ? 0.0f : f.high() - high / scale;
  }
  static void Apply(float* __restrict v, int64_t n, float scale, float offset) {
    const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    for (int64_t i = 0; i < n; ++i) v[i] = v[i] * inverse + offset;
  }
};

// Runs body(row, floats of the row) for all rows; false: no memory.
template <class Body>
bool ForEachRow(int64_t rows, int64_t n, Body&& body) {
  std::atomic<bool> failed{false};
  ParallelFor(rows, std::max<int64_t>(1, 16384 / (n + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> row(n);
    if (!row.ok()) {
      failed = true;
      return;
    }
    for (int64_t r = begin; r < end; ++r) body(r, row.get());
  });
  return !failed;
}

// Which group a row belongs to, from the ends of groups or their sizes. -1: after the last group.
class RowGroups {
 public:
  // index: int32 or int64. The error names the value.
  Status Read(const char* op, const char* name, const TensorView& index, bool sizes, int64_t rows);
  int64_t operator[](int64_t row) const { return group_.ok() ? group_[row] : 0; }
  explicit operator bool() const { return group_.ok(); }

 private:
  Scratch<int32_t> group_;
};

// A parameter of all rows or of each group: [n], [1], and with groups [groups, n] or [groups].
class GroupValues {
 public:
  GroupValues() = default;
  GroupValues(const TensorView& v, int64_t groups, int64_t n)
      : values_(v), per_column_(v.numel() == groups * n && v.numel() != groups), step_(Step(v, groups)) {}
  bool ok() const { return values_.ok(); }
  explicit operator bool() const { return values_.get() != nullptr; }
  // v[i] = op(v[i], the group's value for i)
  template <class Op>
  void Apply(int64_t group, int64_t n, float* __restrict v, Op op) const {
    const float* __restrict p = values_.get() + group * step_;
    if (per_column_) {
      for (int64_t i = 0; i < n; ++i) v[i] = op(v[i], p[i]);
    } else {
      const float one = *p;
      for (int64_t i = 0; i < n; ++i) v[i] = op(v[i], one);
    }
  }
  static Status Check(Call& call, const aclTensor* t, const char* name, int64_t groups, int64_t n);

 private:
  static int64_t Step(const TensorView& v, int64_t groups) { return groups > 0 ? v.numel() / groups : 0; }
  Values<float> values_;
  bool per_column_ = false;
  int64_t step_ = 0;
};

}  // namespace anycann

// The engine against plain nested loops over indices: strides, offsets, broadcasting, conversions, in place,
// outputs beyond the streaming limit, several outputs, ranges, threads.
#include "ops/elementwise/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/parallel.h"
#include "ops/convert.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

// A tensor with room around it, filled with small integers, which all types hold exactly.
struct Tensor {
  TensorView view;
  std::vector<unsigned char> storage;

  float Get(const std::vector<int64_t>& index) const {
    float f;
    Convert(&f, DType::kFloat, Address(index), view.dtype, 1);
    return f;
  }
  char* Address(const std::vector<int64_t>& index) const {
    int64_t at = 0;
    for (int i = 0; i < view.rank; ++i) at += index[static_cast<size_t>(i)] * view.strides[i];
    return view.bytes() + at * SizeOf(view.dtype);
  }
};

// Sanitizer builds have loops for few types: float32 stands in for the others.
DType Built(DType t) {
  return VisitType(t, [](auto) {}) ? t : DType::kFloat;
}

// order: the dimensions from the slowest in memory; step: distance of neighbours in the fastest; 0 in `order`
// keeps all.
Tensor Make(DType dtype, const std::vector<int64_t>& dims, const std::vector<int>& order, int64_t step,
            bool reversed, int seed) {
  Tensor t;
  dtype = Built(dtype);
  const int rank = static_cast<int>(dims.size());
  t.view = TensorView::Contiguous(nullptr, dtype, dims.data(), rank);
  int64_t stride = step;
  for (int i = rank - 1; i >= 0; --i) {
    const int d = order[static_cast<size_t>(i)];
    t.view.strides[d] = stride;
    stride *= dims[static_cast<size_t>(d)] + (step > 1 ? 1 : 0);
  }
  int64_t low = 0, high = 0;
  for (int i = 0; i < rank; ++i) {
    if (reversed && i == 0) t.view.strides[i] = -t.view.strides[i];
    const int64_t reach = (dims[static_cast<size_t>(i)] - 1) * t.view.strides[i];
    (reach < 0 ? low : high) += reach;
  }
  const int64_t offset = 3 - low, size = offset + high + 4;
  t.storage.resize(static_cast<size_t>(size * SizeOf(dtype)));
  std::mt19937 random(static_cast<unsigned>(seed));
  for (int64_t i = 0; i < size; ++i) {
    const float value = static_cast<float>(random() % 7);
    Convert(t.storage.data() + i * SizeOf(dtype), dtype, &value, DType::kFloat, 1);
  }
  t.view.data = t.storage.data() + offset * SizeOf(dtype);
  return t;
}

template <class F>
void ForEachIndex(const TensorView& shape, F&& f) {
  std::vector<int64_t> index(static_cast<size_t>(shape.rank), 0);
  if (shape.empty()) return;
  for (;;) {
    f(index);
    int i = shape.rank - 1;
    while (i >= 0 && ++index[static_cast<size_t>(i)] == shape.dims[i]) index[static_cast<size_t>(i--)] = 0;
    if (i < 0) return;
  }
}

struct AddTwice {
  float operator()(float a, float b) const { return a + 2 * b; }
};
struct SumAndDifference {
  std::array<float, 2> operator()(float a, float b) const { return {a + b, a - b}; }
};

// The dense image of what the plain loops say, and the bytes around the output that must not change.
void CheckAddTwice(Tensor& out, const Tensor& a, const TensorView& b_view, const Tensor& b) {
  const std::vector<unsigned char> before = out.storage;
  std::vector<float> expected;
  ForEachIndex(out.view, [&](const std::vector<int64_t>& i) {
    std::vector<int64_t> j = i;
    for (int d = 0; d < b_view.rank; ++d)
      if (b_view.strides[d] == 0) j[static_cast<size_t>(d)] = 0;
    expected.push_back(a.Get(i) + 2 * b.Get(j));
  });
  const AddTwice f;
  RunElementwise(KernelOf<AddTwice, float, float>(1), {out.view}, {a.view, b_view}, &f);
  size_t at = 0;
  std::vector<bool> written(out.storage.size(), false);
  ForEachIndex(out.view, [&](const std::vector<int64_t>& i) {
    ASSERT_EQ(out.Get(i), expected[at]) << "element " << at;
    ++at;
    const size_t byte = static_cast<size_t>(out.Address(i) - reinterpret_cast<char*>(out.storage.data()));
    for (int64_t k = 0; k < SizeOf(out.view.dtype); ++k) written[byte + static_cast<size_t>(k)] = true;
  });
  for (size_t i = 0; i < written.size(); ++i)
    ASSERT_TRUE(written[i] || out.storage[i] == before[i])
        << "a byte outside the output was written, at " << i;
}

const std::vector<DType> kTypes = {DType::kFloat,  DType::kFloat16, DType::kBFloat16,
                                   DType::kDouble, DType::kInt64,   DType::kUint8};

TEST(ElementwiseEngine, LayoutsAndTypes) {
  const std::vector<std::vector<int64_t>> shapes = {
      {}, {1}, {5}, {2000}, {3, 700}, {700, 3}, {4, 5, 6}, {2, 1, 3, 1, 5}, {33, 65}, {0, 3}};
  int seed = 0;
  for (const auto& dims : shapes) {
    std::vector<int> natural(dims.size());
    for (size_t i = 0; i < dims.size(); ++i) natural[i] = static_cast<int>(i);
    const std::vector<int> swapped(natural.rbegin(), natural.rend());
    for (DType out_type : kTypes)
      for (int variant = 0; variant < 8; ++variant) {
        const DType a_type = kTypes[static_cast<size_t>(seed) % kTypes.size()],
                    b_type = kTypes[static_cast<size_t>(seed / 6) % kTypes.size()];
        Tensor out =
            Make(out_type, dims, variant & 1 ? swapped : natural, variant & 2 ? 2 : 1, false, ++seed);
        const Tensor a =
            Make(a_type, dims, variant & 4 ? swapped : natural, variant & 1 ? 3 : 1, variant & 2, ++seed);
        const Tensor b = Make(b_type, dims, natural, 1, false, ++seed);
        CheckAddTwice(out, a, b.view, b);
        if (HasFatalFailure())
          FAIL() << "shape " << ShapeString(out.view) << ", variant " << variant << ", " << Name(out_type)
                 << " of " << Name(a_type) << " and " << Name(b_type);
      }
  }
}

TEST(ElementwiseEngine, Broadcasting) {
  const std::vector<int64_t> dims = {6, 50, 40};
  for (int mask = 0; mask < 8; ++mask)
    for (DType b_type : kTypes) {
      Tensor out = Make(DType::kFloat, dims, {0, 1, 2}, 1, false, mask);
      const Tensor a = Make(DType::kFloat, dims, {2, 0, 1}, 1, false, mask + 10);
      const Tensor b = Make(b_type, dims, {0, 1, 2}, 1, false, mask + 20);
      TensorView view = b.view;
      for (int d = 0; d < 3; ++d)
        if (mask >> d & 1) view.strides[d] = 0;
      CheckAddTwice(out, a, view, b);
      if (HasFatalFailure()) FAIL() << "broadcast mask " << mask << " of " << Name(b_type);
    }
}

TEST(ElementwiseEngine, InPlace) {
  for (int64_t step : {1, 2}) {
    Tensor x = Make(DType::kFloat, {40, 70}, {0, 1}, step, false, 1);
    const Tensor b = Make(DType::kFloat16, {40, 70}, {1, 0}, 1, false, 2);
    Tensor old = x;
    old.view.data = old.storage.data() + (static_cast<unsigned char*>(x.view.data) - x.storage.data());
    const AddTwice f;
    RunElementwise(KernelOf<AddTwice, float, float>(1), {x.view}, {x.view, b.view}, &f);
    ForEachIndex(x.view,
                 [&](const std::vector<int64_t>& i) { ASSERT_EQ(x.Get(i), old.Get(i) + 2 * b.Get(i)); });
  }
}

TEST(ElementwiseEngine, SeveralOutputs) {
  for (DType type : kTypes) {
    if (type == DType::kUint8) continue;  // differences are negative
    Tensor sum = Make(type, {30, 41}, {0, 1}, 1, false, 1),
           difference = Make(DType::kFloat, {30, 41}, {1, 0}, 2, false, 2);
    const Tensor a = Make(DType::kFloat, {30, 41}, {0, 1}, 1, false, 3),
                 b = Make(type, {30, 41}, {0, 1}, 1, false, 4);
    const SumAndDifference f;
    RunElementwise(KernelOf<SumAndDifference, float, float>(1), {sum.view, difference.view}, {a.view, b.view},
                   &f);
    ForEachIndex(sum.view, [&](const std::vector<int64_t>& i) {
      ASSERT_EQ(sum.Get(i), a.Get(i) + b.Get(i));
      ASSERT_EQ(difference.Get(i), a.Get(i) - b.Get(i));
    });
  }
}

// Outputs past the caches, on one thread and on several, at addresses that are aligned and not.
TEST(ElementwiseEngine, StreamedOutputs) {
  const int64_t n = (int64_t{5} << 20) + 77;
  std::vector<float> a(static_cast<size_t>(n) + 16), b(a.size());
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = static_cast<float>(i % 1013), b[i] = static_cast<float>(i % 13);
  ThreadPool pool(3);
  for (int threads : {1, 3})
    for (int shift : {0, 1, 7}) {
      std::vector<float> out(a.size(), -1);
      const auto view = [&](std::vector<float>& v) {
        return TensorView::Contiguous(v.data() + shift, DType::kFloat, {n});
      };
      const ThreadPool::Scope scope(threads > 1 ? &pool : nullptr);
      const AddTwice f;
      RunElementwise(KernelOf<AddTwice, float, float>(1), {view(out)}, {view(a), view(b)}, &f);
      size_t k = static_cast<size_t>(shift);
      while (k < static_cast<size_t>(n + shift) && out[k] == a[k] + 2 * b[k]) ++k;
      ASSERT_EQ(k, static_cast<size_t>(n + shift)) << out[k];
      ASSERT_EQ(out[static_cast<size_t>(n + shift)], -1);
      for (int i = 0; i < shift; ++i) ASSERT_EQ(out[static_cast<size_t>(i)], -1);
    }
}

TEST(ElementwiseEngine, RangesCoverTheWhole) {
  const Tensor a = Make(DType::kFloat16, {33, 65}, {1, 0}, 1, false, 1),
               b = Make(DType::kFloat, {33, 65}, {0, 1}, 2, false, 2);
  Tensor out = Make(DType::kFloat, {33, 65}, {0, 1}, 1, false, 3);
  const AddTwice f;
  const int64_t cuts[] = {0, 1, 64, 65, 66, 1024, 1030, 33 * 65};
  for (size_t i = 0; i + 1 < std::size(cuts); ++i) {
    const TensorView inputs[] = {a.view, b.view};
    RunElementwiseRange(KernelOf<AddTwice, float, float>(1), {&out.view, 1}, inputs, &f, cuts[i],
                        cuts[i + 1]);
  }
  ForEachIndex(out.view,
               [&](const std::vector<int64_t>& i) { ASSERT_EQ(out.Get(i), a.Get(i) + 2 * b.Get(i)); });
}

TEST(CopyCast, TransposedTilesOfEveryTypePair) {
  for (DType to : {DType::kFloat, DType::kBFloat16, DType::kInt64, DType::kUint8, DType::kComplex128})
    for (DType from : {DType::kFloat, DType::kFloat16, DType::kDouble, DType::kInt8})
      for (const auto& order :
           {std::vector<int>{1, 2, 0}, std::vector<int>{2, 1, 0}, std::vector<int>{0, 2, 1}}) {
        const Tensor source = Make(from, {37, 9, 70}, order, 1, true, 1);
        for (int64_t step : {1, 2}) {
          const Tensor target = Make(to, {37, 9, 70}, {0, 1, 2}, step, false, 2);
          CopyCast(target.view, source.view);
          ForEachIndex(target.view,
                       [&](const std::vector<int64_t>& i) { ASSERT_EQ(target.Get(i), source.Get(i)); });
        }
      }
}

}  // namespace
}  // namespace anycann

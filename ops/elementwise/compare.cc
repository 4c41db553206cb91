// Comparisons. Operands meet in their promoted type, a scalar is first rounded to the type in which it is
// compared.
#include <atomic>
#include <functional>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/convert.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

constexpr unsigned kOrdered = kRealTypes | kBoolType;

template <template <class> class C, class T>
struct Compared {
  bool operator()(T a, T b) const { return C<T>{}(a, b); }
};
template <template <class> class C, class T>
struct ComparedToConstant {
  T b;
  bool operator()(T a) const { return C<T>{}(a, b); }
};

// `value` as an element of type `t`, in t's compute type T: torch compares float16 tensors with the nearest
// float16.
template <class T>
T RoundedTo(const ScalarValue& value, DType t) {
  const T exact = value.To<T>();
  if (t == DType::kFloat16) {
    if constexpr (std::is_same_v<T, float>) return Half(exact);
  } else if (t == DType::kBFloat16) {
    if constexpr (std::is_same_v<T, float>) return BFloat16(exact);
  }
  return exact;
}

template <unsigned types, template <class> class C>
Status Tensors(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  return MapBinary<types>(call, self, other, out, Promote(self->view.dtype, other->view.dtype),
                          [](auto tag) { return Compared<C, typename decltype(tag)::type>{}; });
}
template <unsigned types, template <class> class C>
Status TensorScalar(Call& call, const aclTensor* self, const aclScalar* other, const aclTensor* out) {
  const DType compute = PromoteScalar(self->view.dtype, other->value.dtype);
  return MapUnary<types>(call, self, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ComparedToConstant<C, T>{RoundedTo<T>(other->value, compute)};
  });
}

// aclnnIsClose: |a - b| <= atol + |rtol * b|, or equal, or (equal_nan) both NaN. Computed in float or double.
template <class T>
struct Close {
  T rtol, atol;
  bool equal_nan;
  bool operator()(T a, T b) const {
    if constexpr (arithmetic::kIsComplex<T>) {
      using R = typename T::value_type;
      const R difference = std::abs(a - b);
      const bool both_nan =
          (std::isnan(a.real()) || std::isnan(a.imag())) && (std::isnan(b.real()) || std::isnan(b.imag()));
      return a == b || (equal_nan && both_nan) ||
             (std::isfinite(difference) && difference <= atol.real() + std::abs(rtol.real() * b));
    } else {
      const T difference = std::abs(a - b), infinity = std::numeric_limits<T>::infinity();
      return (a == b) | (equal_nan & (a != a) & (b != b)) |
             ((difference < infinity) & (difference <= atol + std::abs(rtol * b)));
    }
  }
};

// Blocks of both tensors compared until a thread finds a difference. Memory compares serve integers; floats
// need 0 == -0 and NaN != NaN.
template <class T>
bool AllEqual(const T* a, const T* b, int64_t n) {
  constexpr int64_t kStep = 4096;
  std::atomic<bool> differ{false};
  ParallelFor(n, 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && !differ.load(std::memory_order_relaxed); i += kStep) {
      const int64_t m = std::min(kStep, end - i);
      bool equal = true;
      for (int64_t j = 0; j < m; ++j) equal &= a[i + j] == b[i + j];
      if (!equal) differ.store(true, std::memory_order_relaxed);
    }
  });
  return !differ.load();
}

template <class T>
struct CountDifferences {
  std::atomic<bool>* differ;
  bool operator()(T a, T b) const {
    if (a != b) differ->store(true, std::memory_order_relaxed);
    return false;
  }
};

}  // namespace

Status aclnn::EqTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<kAllTypes, std::equal_to>(call, self, other, out);
}
Status aclnn::EqScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return TensorScalar<kAllTypes, std::equal_to>(call, self, other, out);
}
Status aclnn::NeTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<kAllTypes, std::not_equal_to>(call, self, other, out);
}
Status aclnn::NeScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return TensorScalar<kAllTypes, std::not_equal_to>(call, self, other, out);
}
// a > b is b < a: one set of loops.
Status aclnn::LtTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<kOrdered, std::less>(call, self, other, out);
}
Status aclnn::GtTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<kOrdered, std::less>(call, other, self, out);
}
Status aclnn::LeTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<kOrdered, std::less_equal>(call, self, other, out);
}
Status aclnn::GeTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<kOrdered, std::less_equal>(call, other, self, out);
}
Status aclnn::LtScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return TensorScalar<kOrdered, std::less>(call, self, other, out);
}
Status aclnn::GtScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return TensorScalar<kOrdered, std::greater>(call, self, other, out);
}
Status aclnn::LeScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return TensorScalar<kOrdered, std::less_equal>(call, self, other, out);
}
Status aclnn::GeScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return TensorScalar<kOrdered, std::greater_equal>(call, self, other, out);
}
// The parameters as torch_npu passes them: tensor, scalar, result; tensor < scalar.
Status aclnn::LessScalar(Call& call, const aclTensor* other, const aclScalar* self, aclTensor* result) {
  return TensorScalar<kOrdered, std::less>(call, other, self, result);
}

Status aclnn::IsClose(Call& call, const aclTensor* self, const aclTensor* other, double rtol, double atol,
                      bool equalNan, aclTensor* out) {
  if (!(rtol >= 0)) return call.Invalid("rtol is {}, expected a value of at least 0", rtol);
  if (!(atol >= 0)) return call.Invalid("atol is {}, expected a value of at least 0", atol);
  const DType promoted = Promote(self->view.dtype, other->view.dtype);
  const DType compute = IsFloating(promoted) || IsComplex(promoted) ? promoted : DType::kDouble;
  return MapBinary<kFloatingTypes>(call, self, other, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return Close<T>{T(rtol), T(atol), equalNan};
  });
}

// One bool: shapes equal and every pair of elements equal.
Status aclnn::Equal(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  if (out->view.numel() != 1)
    return call.Invalid("out has shape {}, expected one element", ShapeString(out->view));
  const bool comparable = self->view.SameShape(other->view);
  const DType compute = ComputeType(Promote(self->view.dtype, other->view.dtype));
  const double bytes = static_cast<double>(self->view.nbytes() + other->view.nbytes());
  return call.Launch(
      {In(self), In(other), Out(out)}, Cost{static_cast<double>(self->view.numel()), bytes},
      [comparable, compute](const Run& t) -> Status {
        bool equal = comparable;
        if (comparable && !t[0].empty()) {
          VisitCompute<kAllTypes>(compute, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const bool direct =
                t[0].dtype == compute && t[1].dtype == compute && t[0].contiguous() && t[1].contiguous();
            if (direct) {
              equal = AllEqual(t[0].ptr<T>(), t[1].ptr<T>(), t[0].numel());
              return;
            }
            std::atomic<bool> differ{false};
            const CountDifferences<T> f{&differ};
            uint8_t sink;
            TensorView discard = t[0];  // every element on one byte: only the shape counts
            discard.data = &sink;
            discard.dtype = DType::kBool;
            for (int i = 0; i < discard.rank; ++i) discard.strides[i] = 0;
            RunElementwise(KernelOf<CountDifferences<T>, T, T>(1), {discard}, {t[0], t[1]}, &f);
            equal = !differ.load();
          });
        }
        TensorView one;
        one.data = &equal;
        one.dtype = DType::kBool;
        one.rank = t[2].rank;
        for (int i = 0; i < one.rank; ++i) one.dims[i] = one.strides[i] = 1;
        CopyCast(t[2], one);
        return Status();
      });
}

}  // namespace anycann

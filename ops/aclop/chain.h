// Legacy fusions as chains of steps: each gives a temporary in float32 that the next ones read. The first
// error stays, and the steps after it do nothing, so that a fusion reads like its formula and asks once, at
// its end.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "aclnn_ops.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {

class Chain {
 public:
  explicit Chain(Arguments& a) : a_(a) {}
  Chain(const Chain&) = delete;

  // Phase one of a step by `body` (Status(Call&)).
  template <class Body>
  void Step(Body&& body) {
    if (ok()) status_ = a_.Before(std::forward<Body>(body));
  }
  bool ok() {
    if (status_.ok()) status_ = a_.status();
    return status_.ok();
  }
  // What op.run returns at the end of the chain.
  Status Done(Call& call) { return ok() ? call.Nothing() : status_; }

  // nullptr stays nullptr: an optional tensor that isn't given.
  aclTensor* Float(const aclTensor* t) { return ok() ? a_.As(t, DType::kFloat) : nullptr; }
  aclTensor* Transposed(const aclTensor* t) { return ok() ? a_.Transposed(t) : nullptr; }
  aclTensor* TransposedIf(bool transpose, const aclTensor* t) {
    return transpose ? Transposed(t) : const_cast<aclTensor*>(t);
  }
  aclTensor* Temporary(std::initializer_list<int64_t> dims) {
    return ok() ? a_.Temporary(DType::kFloat, {dims.begin(), dims.size()}) : nullptr;
  }
  aclTensor* Temporary(const aclTensor* like) {
    return ok() ? a_.TemporaryLike(like, DType::kFloat) : nullptr;
  }

  // The matrices of x times those of y.
  aclTensor* Product(const aclTensor* x, const aclTensor* y) {
    if (!ok()) return nullptr;
    const TensorView &u = x->view, &v = y->view;
    if (u.rank < 2 || v.rank != u.rank) {
      status_ =
          a_.call().Invalid("matrices to multiply have shapes {} and {}", ShapeString(u), ShapeString(v));
      return nullptr;
    }
    std::vector<int64_t> dims(u.dims, u.dims + u.rank);
    dims.back() = v.dims[v.rank - 1];
    aclTensor* product = a_.Temporary(DType::kFloat, dims);
    Step([&](Call& c) { return aclnn::Matmul(c, x, y, product, 0); });
    return product;
  }
  // f(elements) for every element of ins[0]; the others are broadcast. f: double(const double (&)[kIn])
  template <size_t kIn, class F>
  aclTensor* Each(const std::array<const aclTensor*, kIn>& ins, F f) {
    aclTensor* y = Temporary(ins[0]);
    Step([&](Call& c) {
      return Pointwise<kIn, 1>(c, ins, {y}, [f](const double(&x)[kIn], double(&v)[1]) { v[0] = f(x); });
    });
    return y;
  }
  // x + bias, which may be absent.
  aclTensor* Biased(aclTensor* x, const aclTensor* bias) {
    return bias == nullptr ? x : Each<2>({x, bias}, [](const double(&v)[2]) { return v[0] + v[1]; });
  }
  aclTensor* Scaled(const aclTensor* x, double by) {
    return Each<1>({x}, [by](const double(&v)[1]) { return v[0] * by; });
  }

  // Casts `from` into `to`, whose shape it has but for dimensions of size 1.
  void Store(const aclTensor* from, aclTensor* to) {
    if (!ok()) return;
    const aclTensor* source = Dense(from) ? a_.Shaped(const_cast<aclTensor*>(from), to) : from;
    Step([&](Call& c) {
      RETURN_IF_ERROR(c.RequireSameShape(to, "an output", source, "its value"));
      return aclnn::InplaceCopy(c, to, source);
    });
  }

 private:
  static bool Dense(const aclTensor* t) { return t->view.contiguous(); }

  Arguments& a_;
  Status status_;
};

}  // namespace anycann::aclop

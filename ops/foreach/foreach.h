// The foreach engine: one elementwise operation over lists of tensors, as one Plan. Parallel over the total
// of all elements, so that a model's hundreds of small tensors and its few large ones share the threads
// evenly.
//
//   template <class T> struct AddScaled { T alpha; T operator()(T x, T y) const { return x + alpha * y; } };
//   Status aclnn::ForeachAddListV2(Call& call, const aclTensorList* x1, const aclTensorList* x2, const
//   aclScalar* alpha,
//                                  aclTensorList* out) {
//     return ForeachMap<kNumberTypes, AddScaled, 2>(call, {x1, x2}, {.scalar = alpha}, out);
//   }
//
// The tensors of one list have one type; tensor i of each input broadcasts to tensor i of the output.
#pragma once

#include <array>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "ops/call.h"
#include "ops/elementwise/map.h"

namespace anycann {

// Lists that lie one after the other in a Plan's operands: tensor i of list k is operand k * count + i.
struct ForeachLists {
  int inputs = 0, outputs = 1;  // lists
  int count = 0;                // tensors in each
};

using TensorSpan = std::span<const aclTensor* const>;
inline TensorSpan TensorsOf(const aclTensorList* list) { return {list->values, list->size}; }
// The tensors of a parameter, and its name for messages.
struct NamedTensors {
  const char* name;
  TensorSpan tensors;
};

// Checks the lists against outputs[0] (same length, one type per list, shapes that broadcast; outputs of
// equal shapes) and appends their operands, inputs first. An in-place operation gives a list as input and as
// output.
Status ForeachOperands(Call& call, std::span<const NamedTensors> inputs,
                       std::span<const NamedTensors> outputs, std::vector<Arg>* operands, Cost* cost);

// Runs the kernel over the lists; tensor i gets the parameters at params + i * params_stride.
void RunForeach(const ElementwiseKernel& kernel, const ForeachLists& lists, const Run& t, const void* params,
                size_t params_stride);

// The constants of an operation: none, one or one per tensor; known now, or in a device tensor that is read
// when the Plan runs.
struct ForeachConstants {
  const aclScalar* scalar = nullptr;
  const aclScalarList* scalars = nullptr;
  const aclTensor* tensor = nullptr;
};

// The type in which list operands meet: that of the first tensors, and of the constants.
ANYCANN_API DType ForeachType(std::span<const aclTensorList* const> inputs,
                              const ForeachConstants& constants);
// Checks the number of constants: 1 or `count`.
ANYCANN_API Status CheckConstants(Call& call, const ForeachConstants& constants, int count);

// Launches the kernel over the lists. Its parameters are the constant, as one element of type `compute`, if
// there are constants.
ANYCANN_API Status LaunchForeach(Call& call, std::span<const aclTensorList* const> inputs,
                                 const ForeachConstants& constants, const aclTensorList* out,
                                 const ElementwiseKernel& kernel, DType compute);

// out[i] = F<T>{constant}(inputs[0][i], ..., inputs[arity-1][i]); F<T> is empty or holds one T, the constant.
// `compute_of` turns the type in which the operands meet into the type to compute in.
template <unsigned set, template <class> class F, int arity>
Status ForeachMap(Call& call, std::array<const aclTensorList*, arity> inputs,
                  const ForeachConstants& constants, const aclTensorList* out, double cost = 1,
                  DType (*compute_of)(DType) = nullptr) {
  if (out->size == 0) return call.Nothing();
  for (const aclTensorList* list : inputs)
    if (list->size == 0) return call.Invalid("an input list is empty, expected {} tensors", out->size);
  DType compute = ForeachType(inputs, constants);
  if (compute_of != nullptr) compute = compute_of(compute);
  ElementwiseKernel kernel;
  const bool known = VisitCompute<set>(compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    static_assert(std::is_empty_v<F<T>> || sizeof(F<T>) == sizeof(T));
    [&]<size_t... I>(std::index_sequence<I...>) {
      kernel = KernelOf<F<T>, std::enable_if_t<(I >= 0), T>...>(cost);
    }
    (std::make_index_sequence<static_cast<size_t>(arity)>());
  });
  if (!known) return Unsupported(call, compute);
  return LaunchForeach(call, inputs, constants, out, kernel, compute);
}

}  // namespace anycann

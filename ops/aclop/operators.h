// Operators of the legacy interface: named by their GE type, with tensors by position and attributes by name.
// Each is a thin face over the engine that the aclnn operators use; the table is in execute.cc.
#pragma once

#include <span>
#include <string>

#include "ops/aclop/descriptors.h"
#include "ops/call.h"

namespace anycann::aclop {

// Contiguous tensors; absent optional ones are nullptr, as are positions past the end.
struct Arguments {
  std::span<const aclTensor*const> inputs, outputs;
  const Attributes& attributes;

  const aclTensor* Input(size_t i) const { return i < inputs.size() ? inputs[i] : nullptr; }
  const aclTensor* Output(size_t i) const { return i < outputs.size() ? outputs[i] : nullptr; }
  double Number(const char* name, double absent) const;
  std::string Text(const char* name, const char* absent) const;
};

// "DynamicRNN: input 3 is absent"
Status RequireTensors(const Call& call, const Arguments& a, size_t inputs, size_t outputs);

Status CdistGrad(Call& call, const Arguments& a);
Status DynamicRnn(Call& call, const Arguments& a);
Status DynamicRnnGrad(Call& call, const Arguments& a);
Status DynamicRnnV2(Call& call, const Arguments& a);
Status DynamicRnnV2Grad(Call& call, const Arguments& a);

}  // namespace anycann::aclop

// The objects of the legacy operator interface (aclop) and of offline models: what a client says about a
// tensor, a piece of memory, and an operator's attributes. Kept as given; whoever runs an operator by name
// reads them here.
//
// A client's handle is a slot that never changes its type (base/slot_pool.h), so one that was freed, or that
// was never one, is recognised. Handles are not locked: as with CANN, a client does not use one from two
// threads at a time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/export.h"

namespace anycann::aclop {

struct TensorDescription {
  using Ranges = std::vector<std::array<int64_t, 2>>;            // inclusive; -1 as an upper end: any
  int32_t dtype = -1;                                            // aclDataType
  int32_t format = -1, storage_format = -1, origin_format = -1;  // aclFormat; -1: as `format`
  std::vector<int64_t> dims, storage_dims, origin_dims;          // a negative dim: unknown
  Ranges shape_range, value_range;
  int32_t placement = 0;  // aclMemType
  std::string name, dynamic_input;
  std::vector<uint8_t> constant;  // bytes of a constant; not null while `is_constant`
  bool is_constant = false;
};

struct Buffer {
  void* data = nullptr;  // the client's
  uint64_t size = 0;     // bytes
};

using Attribute =
    std::variant<bool, int64_t, float, std::string, std::vector<bool>, std::vector<int64_t>,
                 std::vector<float>, std::vector<std::string>, std::vector<std::vector<int64_t>>>;
struct Attributes {
  std::map<std::string, Attribute> values;  // types (aclDataType) are kept as int64_t
};

}  // namespace anycann::aclop

namespace anycann::aclop {

// A slot: `value` belongs to it while it is alive.
template <class Handle, class Described>
struct Slot {
  Handle* next_free;
  std::atomic<uint32_t> alive;
  Described* value;
};

}  // namespace anycann::aclop

struct aclTensorDesc : anycann::aclop::Slot<aclTensorDesc, anycann::aclop::TensorDescription> {};
struct aclDataBuffer : anycann::aclop::Slot<aclDataBuffer, anycann::aclop::Buffer> {};
struct aclopAttr : anycann::aclop::Slot<aclopAttr, anycann::aclop::Attributes> {};

namespace anycann::aclop {

// nullptr when memory is exhausted.
ANYCANN_API aclTensorDesc* MakeTensor();
ANYCANN_API aclDataBuffer* MakeBuffer();
ANYCANN_API aclopAttr* MakeAttributes();

// What a handle describes; nullptr when it is not alive. Safe for any pointer.
ANYCANN_API TensorDescription* Find(const aclTensorDesc* handle);
ANYCANN_API Buffer* Find(const aclDataBuffer* handle);
ANYCANN_API Attributes* Find(const aclopAttr* handle);

// False when the handle is not alive.
ANYCANN_API bool Destroy(const aclTensorDesc* handle);
ANYCANN_API bool Destroy(const aclDataBuffer* handle);
ANYCANN_API bool Destroy(const aclopAttr* handle);

}  // namespace anycann::aclop

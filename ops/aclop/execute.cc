#include "ops/aclop/execute.h"

#include <algorithm>
#include <cstring>

#include "ops/aclop/operators.h"
#include "ops/door.h"

namespace anycann::aclop {
namespace {

struct Entry {
  const char* type;
  Status (*run)(Call&, const Arguments&);
};
constexpr Entry kOperators[] = {
    {"CdistGrad", CdistGrad},
    {"DynamicRNN", DynamicRnn},
    {"DynamicRNNGrad", DynamicRnnGrad},
    {"DynamicRNNV2", DynamicRnnV2},
    {"DynamicRNNV2Grad", DynamicRnnV2Grad},
};

const Entry* FindOperator(const char* type) {
  for (const Entry& e : kOperators)
    if (std::strcmp(e.type, type) == 0) return &e;
  return nullptr;
}

// Tensors made of the client's descriptors and buffers, destroyed with the object.
class Tensors {
 public:
  Tensors() = default;
  Tensors(const Tensors&) = delete;
  ~Tensors() {
    for (const aclTensor* t : tensors_)
      if (t != nullptr) handles::Destroy(t);
  }
  std::span<const aclTensor* const> list() const { return tensors_; }

  Status Add(const char* type, const char* role, int index, const aclTensorDesc* descriptor,
             const aclDataBuffer* buffer) {
    const TensorDescription* d = Find(descriptor);
    if (d == nullptr) return Error(kInvalidParam, "{}: descriptor of {} {} is not alive", type, role, index);
    if (d->dtype == static_cast<int32_t>(DType::kUndefined)) {  // an optional tensor that isn't given
      tensors_.push_back(nullptr);
      return Status();
    }
    const Buffer* b = Find(buffer);
    if (b == nullptr) return Error(kInvalidParam, "{}: buffer of {} {} is not alive", type, role, index);
    const DType dtype = static_cast<DType>(d->dtype);
    uint64_t bytes = static_cast<uint64_t>(SizeOf(dtype));
    for (int64_t n : d->dims)
      if (n < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes))
        return Error(kInvalidParam, "{}: {} {} has shape {}, which is not one of real memory", type, role,
                     index, ShapeString(d->dims.data(), static_cast<int>(d->dims.size())));
    if (SizeOf(dtype) == 0 || b->size < bytes || (b->data == nullptr && bytes > 0))
      return Error(kInvalidParam, "{}: {} {} of type {} needs {} bytes, its buffer has {}", type, role, index,
                   Name(dtype), bytes, b->data == nullptr ? 0 : b->size);
    // Private formats are our own business: what is written here is read here, and padded memory holds plain
    // rows.
    const aclTensor* t = handles::CreateTensor(d->dims.data(), d->dims.size(), dtype, nullptr, 0, 2,
                                               d->dims.data(), d->dims.size(), b->data);
    if (t == nullptr) return Error(kBadAlloc, "{}: {} {} can't be made a tensor", type, role, index);
    tensors_.push_back(t);
    return Status();
  }

 private:
  std::vector<const aclTensor*> tensors_;
};

}  // namespace

double Arguments::Number(const char* name, double absent) const {
  const auto found = attributes.values.find(name);
  if (found == attributes.values.end()) return absent;
  if (const auto* f = std::get_if<float>(&found->second)) return *f;
  if (const auto* i = std::get_if<int64_t>(&found->second)) return static_cast<double>(*i);
  if (const auto* b = std::get_if<bool>(&found->second)) return *b ? 1 : 0;
  return absent;
}

std::string Arguments::Text(const char* name, const char* absent) const {
  const auto found = attributes.values.find(name);
  if (found == attributes.values.end()) return absent;
  const auto* s = std::get_if<std::string>(&found->second);
  return s ? *s : absent;
}

Status RequireTensors(const Call& call, const Arguments& a, size_t inputs, size_t outputs) {
  for (size_t i = 0; i < inputs; ++i)
    if (a.Input(i) == nullptr) return call.Invalid("input {} is absent", i);
  for (size_t i = 0; i < outputs; ++i)
    if (a.Output(i) == nullptr) return call.Invalid("output {} is absent", i);
  return Status();
}

bool Implemented(const char* type) { return type != nullptr && FindOperator(type) != nullptr; }

int32_t Execute(const char* type, int inputs, const aclTensorDesc* const input_descriptors[],
                const aclDataBuffer* const input_buffers[], int outputs,
                const aclTensorDesc* const output_descriptors[], aclDataBuffer* const output_buffers[],
                const aclopAttr* attributes, void* stream) {
  static const Attributes none;
  const Entry* entry = FindOperator(type);
  if (entry == nullptr)
    return RecordError(Error(kInvalidParam, "{}: operator type is not implemented", type));
  if (inputs < 0 || outputs < 0 ||
      (inputs > 0 && (input_descriptors == nullptr || input_buffers == nullptr)) ||
      (outputs > 0 && (output_descriptors == nullptr || output_buffers == nullptr)))
    return RecordError(Error(kInvalidParam,
                             "{}: {} inputs and {} outputs need arrays of descriptors and buffers", type,
                             inputs, outputs));
  const Attributes* given = attributes == nullptr ? &none : Find(attributes);
  if (given == nullptr) return RecordError(Error(kInvalidParam, "{}: attr is not alive", type));
  uint64_t workspace = 0;
  aclOpExecutor* executor = nullptr;
  // The handles end with the first phase: the Plan holds all that the kernel needs.
  const int32_t code = PhaseOne(entry->type, &workspace, &executor, [&](Call& call) -> Status {
    Tensors in, out;
    for (int i = 0; i < inputs; ++i)
      RETURN_IF_ERROR(in.Add(entry->type, "input", i, input_descriptors[i], input_buffers[i]));
    for (int i = 0; i < outputs; ++i)
      RETURN_IF_ERROR(out.Add(entry->type, "output", i, output_descriptors[i], output_buffers[i]));
    return entry->run(call, {in.list(), out.list(), *given});
  });
  return code != 0 ? code : PhaseTwo(entry->type, nullptr, 0, executor, stream);
}

}  // namespace anycann::aclop

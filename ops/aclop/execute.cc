#include "ops/aclop/execute.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "ops/aclop/arguments.h"
#include "ops/shape/private_format.h"

namespace anycann::aclop {
namespace {

const Operator* FindOperator(const char* type) {
  const std::span<const Operator> all = Operators();
  const auto found = std::lower_bound(all.begin(), all.end(), type, [](const Operator& o, const char* t) {
    return std::strcmp(o.type, t) < 0;
  });
  return found != all.end() && std::strcmp(found->type, type) == 0 ? &*found : nullptr;
}

// A tensor of one call. One in a private format is unpacked into a temporary before the operator runs, and an
// output packed after it.
class Tensor {
 public:
  aclTensor* handle() const { return handle_.get(); }
  bool host() const { return host_; }

  // `role`: for people, "input 2".
  Status Make(Session& session, const std::string& role, const aclTensorDesc* descriptor,
              const aclDataBuffer* buffer, bool read);
  Status Pack(Session& session) const;

 private:
  static constexpr int kHostMemory = 1;  // and the two kinds for compilation

  Status Unpack(Session& session, bool read);
  Status LayOutPrivate(const std::string& role, const TensorDescription& d, TensorView* logical);

  struct End {
    void operator()(aclTensor* t) const { handles::Destroy(t); }
  };
  std::unique_ptr<aclTensor, End> handle_;
  bool host_ = false;
  void* storage_ = nullptr;
  TensorView packed_;  // the logical tensor with the dimensions that its format needs
  BlockedLayout layout_{};
  bool private_ = false;
};

// Formats of images take 4 or 5 dimensions; torch_npu labels smaller tensors with them as [1, C, H, W].
void GiveDimensions(int32_t format, TensorView* v) {
  const bool nz = format != kNc1hwc0 && format != kFractalZ && format != kNdc1hwc0 && format != kFractalZ3d;
  if (nz) {
    while (v->rank < 2) {
      v->dims[v->rank] = 1;
      v->strides[v->rank++] = 1;
    }
    return;
  }
  const int wanted = format == kNdc1hwc0 || format == kFractalZ3d ? 5 : 4;
  if (v->rank > 0 && v->rank < wanted) *v = v->Unsqueeze(0);
  while (v->rank < wanted) {
    v->dims[v->rank] = 1;
    v->strides[v->rank++] = 1;
  }
}

Status Tensor::LayOutPrivate(const std::string& role, const TensorDescription& d, TensorView* logical) {
  GiveDimensions(d.storage_format, logical);
  std::string why;
  const int64_t c0 = d.storage_dims.empty() ? 0 : d.storage_dims.back();
  if (!LayOut(d.storage_format, logical->dtype, logical->dims, logical->rank, &layout_, &why, c0))
    return Error(kInvalidParam, "{}: {}", role, why);
  packed_ = *logical;
  return Status();
}

Status Tensor::Make(Session& session, const std::string& role, const aclTensorDesc* descriptor,
                    const aclDataBuffer* buffer, bool read) {
  const TensorDescription* d = Find(descriptor);
  if (d == nullptr) return Error(kInvalidParam, "{}: its descriptor is not alive", role);
  DType dtype = static_cast<DType>(d->dtype);
  if (dtype == DType::kUndefined) return Status();  // an optional tensor that isn't given
  const Buffer* b = Find(buffer);
  if (b == nullptr) return Error(kInvalidParam, "{}: its buffer is not alive", role);
  const void* data = d->is_constant ? static_cast<const void*>(d->constant.data()) : b->data;
  const uint64_t size = d->is_constant ? d->constant.size() : b->size;
  std::vector<int64_t> dims = d->dims;
  if (dtype == DType::kString)
    dtype = DType::kUint8, dims = {static_cast<int64_t>(size)};  // all bytes of its buffer
  const std::string shape = ShapeString(dims.data(), static_cast<int>(dims.size()));
  if (dims.size() > kMaxRank)
    return Error(kInvalidParam, "{} has shape {}, expected at most 8 dimensions", role, shape);
  int64_t bytes = SizeOf(dtype);
  for (int64_t n : dims)
    if (n < 0 || __builtin_mul_overflow(bytes, n, &bytes))
      return Error(kInvalidParam, "{} has shape {}, which is not one of real memory", role, shape);
  TensorView v = TensorView::Contiguous(nullptr, dtype, dims.data(), static_cast<int>(dims.size()));
  private_ = IsPrivateFormat(d->storage_format) && d->storage_dims != d->dims && bytes > 0;
  if (private_) {
    TensorView logical = v;
    RETURN_IF_ERROR(LayOutPrivate(role, *d, &logical));
    bytes = layout_.numel() * SizeOf(dtype);
  }
  if (SizeOf(dtype) == 0 || size < static_cast<uint64_t>(bytes) || (data == nullptr && bytes > 0))
    return Error(kInvalidParam, "{} of type {} and shape {} needs {} bytes, its buffer has {}", role,
                 Name(dtype), shape, bytes, data == nullptr ? 0 : size);
  host_ = d->is_constant || d->placement >= kHostMemory;
  v.data = const_cast<void*>(data);
  storage_ = v.data;
  if (host_ || private_) v.data = session.Allocate(v.nbytes());
  // The client may free host memory as soon as the call returns.
  if (host_ && bytes > 0) std::memcpy(v.data, data, static_cast<size_t>(bytes));
  handle_.reset(handles::CreateTensor(v.dims, static_cast<uint64_t>(v.rank), dtype, nullptr, 0, 2, v.dims,
                                      static_cast<uint64_t>(v.rank), v.data));
  if (handle_ == nullptr) return Error(kBadAlloc, "{} can't be made a tensor", role);
  packed_.data = v.data;
  return private_ ? Unpack(session, read) : Status();
}

Status Tensor::Unpack(Session& session, bool read) {
  if (!read) return Status();
  return session.Step([this](Call& call) {
    TensorView storage = TensorView::Contiguous(storage_, packed_.dtype, layout_.dims, layout_.rank);
    return call.Launch({In(handle(), storage), Out(handle(), packed_)},
                       Cost{0, 2.0 * static_cast<double>(packed_.nbytes())},
                       [layout = layout_](const Run& t) -> Status {
                         LoadBlocked(layout, t[0].data, t[1]);
                         return Status();
                       });
  });
}

Status Tensor::Pack(Session& session) const {
  if (!private_) return Status();
  return session.Step([this](Call& call) {
    TensorView storage = TensorView::Contiguous(storage_, packed_.dtype, layout_.dims, layout_.rank);
    return call.Launch({In(handle(), packed_), Out(handle(), storage)},
                       Cost{0, 2.0 * static_cast<double>(packed_.nbytes())},
                       [layout = layout_](const Run& t) -> Status {
                         StoreBlocked(layout, t[0], t[1].data);
                         return Status();
                       });
  });
}

Status MakeAll(Session& session, const char* role, int count, const aclTensorDesc* const descriptors[],
               const aclDataBuffer* const buffers[], bool read, std::vector<Tensor>* made) {
  made->resize(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i)
    RETURN_IF_ERROR((*made)[static_cast<size_t>(i)].Make(
        session, fmt::format("{}: {} {}", session.type(), role, i), descriptors[i], buffers[i], read));
  return Status();
}

Status Run(const Operator& op, const Request& r) {
  static const Attributes none;
  if (r.inputs < 0 || r.outputs < 0 ||
      (r.inputs > 0 && (r.input_descriptors == nullptr || r.input_buffers == nullptr)) ||
      (r.outputs > 0 && (r.output_descriptors == nullptr || r.output_buffers == nullptr)))
    return Error(kInvalidParam, "{}: {} inputs and {} outputs need arrays of descriptors and buffers",
                 op.type, r.inputs, r.outputs);
  const Attributes* given = r.attributes == nullptr ? &none : Find(r.attributes);
  if (given == nullptr) return Error(kInvalidParam, "{}: attr is not alive", op.type);
  Session session(op.type, r.stream);
  std::vector<Tensor> in, out;
  RETURN_IF_ERROR(MakeAll(session, "input", r.inputs, r.input_descriptors, r.input_buffers, true, &in));
  RETURN_IF_ERROR(MakeAll(session, "output", r.outputs, r.output_descriptors, r.output_buffers, false, &out));
  std::vector<Arguments::Input> inputs;
  std::vector<aclTensor*> outputs;
  for (const Tensor& t : in) inputs.push_back({t.handle(), t.host()});
  for (const Tensor& t : out) outputs.push_back(t.handle());
  RETURN_IF_ERROR(session.Step([&](Call& call) {
    Arguments arguments(call, session, inputs, outputs, *given);
    return op.run(call, arguments);
  }));
  for (const Tensor& t : out) RETURN_IF_ERROR(t.Pack(session));
  if (!r.update_shapes) return Status();
  RETURN_IF_ERROR(session.Wait());
  for (int i = 0; i < r.outputs; ++i)
    if (outputs[static_cast<size_t>(i)] != nullptr) {
      const TensorView& v = outputs[static_cast<size_t>(i)]->view;
      Find(r.output_descriptors[i])->dims.assign(v.dims, v.dims + v.rank);
    }
  return Status();
}

}  // namespace

bool Implemented(const char* type) { return type != nullptr && FindOperator(type) != nullptr; }

int32_t Execute(const char* type, const Request& request) {
  const Operator* op = FindOperator(type);
  if (op == nullptr) return RecordError(Error(kInvalidParam, "{}: operator type is not implemented", type));
  try {
    const Status status = Run(*op, request);
    return status.ok() ? 0 : RecordError(status);
  } catch (const std::bad_alloc&) {
    return RecordError(Error(kBadAlloc, "{}: out of memory", op->type));
  } catch (const std::exception& x) {
    return RecordError(Error(kInternalError, "{}: {}", op->type, x.what()));
  }
}

}  // namespace anycann::aclop

#include "ops/aclop/arguments.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "ops/convert.h"
#include "runtime/stream.h"

namespace anycann::aclop {
namespace {

TensorView Merged(const TensorView& v, std::initializer_list<int64_t> dims) {
  return TensorView::Contiguous(v.data, v.dtype, dims);
}

aclTensor* NewHandle(const TensorView& v) {
  return handles::CreateTensor(v.dims, static_cast<uint64_t>(v.rank), v.dtype, v.strides, 0, 2, v.dims,
                               static_cast<uint64_t>(v.rank), v.data);
}

Status Copy(Call& call, const aclTensor* target, const aclTensor* source) {
  return call.Launch({In(source), Out(target)}, Cost{0, 2.0 * static_cast<double>(target->view.nbytes())},
                     [](const Run& t) -> Status {
                       CopyCast(t[1], t[0]);
                       return Status();
                     });
}

}  // namespace

Session::~Session() {
  if (memory_->empty()) return;
  // A stream is first in, first out: when this Plan has run, those that used the memory have.
  Plan* plan = Plan::Create(type_, PlanKind::kKernel);
  if (plan != nullptr) {
    plan->implementation = "end of temporaries";
    if (plan->SetKernel([memory = memory_](const Run&) { return Status(); }) && Enqueue(stream_, plan).ok())
      return;
  }
  (void)Wait();
}

void* Session::Allocate(int64_t bytes) {
  memory_->push_back(NewBuffer<char>(std::max<int64_t>(bytes, 1)));
  return memory_->back().get();
}

Status Session::Submit(Plan* plan) { return plan == nullptr ? Status() : Enqueue(stream_, plan); }

Status Session::Wait() {
  Stream* stream = nullptr;
  RETURN_IF_ERROR(Stream::Find(type_, stream_, &stream));
  if (stream->capture() != nullptr)
    return Error(kFeatureUnsupported,
                 "{}: the stream is captured, but the operator needs the values of a tensor", type_);
  stream->Await(stream->submitted(), Stream::kNever);
  return Status();
}

Arguments::~Arguments() {
  for (auto* h : lists_) handles::Destroy(h);
  for (auto* h : tensors_) handles::Destroy(h);
  for (auto* h : scalars_) handles::Destroy(h);
  for (auto* h : integers_) handles::Destroy(h);
  for (auto* h : floats_) handles::Destroy(h);
  for (auto* h : bools_) handles::Destroy(h);
}

template <class H>
H* Arguments::Keep(std::vector<H*>& kept, H* handle) {
  if (handle == nullptr)
    Fail(call_.NoMemory());
  else
    kept.push_back(handle);
  return handle;
}

Value Arguments::Attr(const char* name, Value otherwise) {
  const auto found = attributes_.values.find(name);
  if (found != attributes_.values.end()) {
    Value given(found->second);
    // C++ clients that pass a literal as a text get it stored as a bool: torch_npu's "NCHW".
    if (otherwise.text() && !given.text() && std::holds_alternative<bool>(found->second)) return otherwise;
    if (given.text() == otherwise.text() || otherwise.absent()) return given;
    Fail(call_.Invalid("attribute {} is {}, expected a value like {}", name, given.Show(), otherwise.Show()));
  } else if (otherwise.absent()) {
    Fail(call_.Invalid("attribute {} is absent", name));
  }
  return otherwise;
}

Value Arguments::Constant(size_t i) {
  const aclTensor* t = In(i);
  if (t == nullptr) return Value();
  if (IsComplex(t->view.dtype)) Fail(call_.Invalid("input {} is complex, expected real numbers", i));
  if (!inputs_[i].host) {
    const Status waited = session_.Wait();
    if (!waited.ok()) {
      Fail(waited);
      return Value();
    }
  }
  return Value(t->view);
}

bool Arguments::Numbers(const Value& v, const char* wanted) {
  if (!v.absent() && !v.text()) return true;
  Fail(call_.Invalid("a value is {}, expected {}", v.Show(), wanted));
  return false;
}

bool Arguments::OneNumber(const Value& v) {
  if (!Numbers(v, "a number")) return false;
  if (v.size() == 1) return true;
  Fail(call_.Invalid("a value is {}, expected one number", v.Show()));
  return false;
}

int64_t Arguments::Integer(const Value& v) { return OneNumber(v) ? v.Integer(0) : 0; }

double Arguments::Real(const Value& v) { return OneNumber(v) ? v.Real(0) : 0; }

aclScalar* Arguments::Scalar(const Value& v) {
  if (v.real()) {
    const double x = Real(v);
    return Keep(scalars_, handles::CreateScalar(&x, DType::kDouble));
  }
  const int64_t x = Integer(v);
  const bool truth = x != 0;
  return Keep(scalars_, v.type() == DType::kBool ? handles::CreateScalar(&truth, DType::kBool)
                                                 : handles::CreateScalar(&x, DType::kInt64));
}

aclIntArray* Arguments::Integers(const Value& v) {
  std::vector<int64_t> values;
  if (Numbers(v, "integers"))
    for (size_t i = 0; i < v.size(); ++i) values.push_back(v.Integer(i));
  return Keep(integers_, handles::CreateIntArray(values.data(), values.size()));
}

aclFloatArray* Arguments::Floats(const Value& v) {
  std::vector<float> values;
  if (Numbers(v, "numbers"))
    for (size_t i = 0; i < v.size(); ++i) values.push_back(static_cast<float>(v.Real(i)));
  return Keep(floats_, handles::CreateFloatArray(values.data(), values.size()));
}

aclBoolArray* Arguments::Bools(const Value& v) {
  const size_t n = Numbers(v, "truth values") ? v.size() : 0;
  const std::unique_ptr<bool[]> values(new bool[n + 1]);
  for (size_t i = 0; i < n; ++i) values[i] = v.Integer(i) != 0;
  return Keep(bools_, handles::CreateBoolArray(values.get(), n));
}

char* Arguments::String(const Value& v) {
  if (!v.text()) Fail(call_.Invalid("a value is {}, expected a text", v.Show()));
  texts_.push_back(std::make_unique<std::string>(v.Text()));
  return texts_.back()->data();
}

aclTensorList* Arguments::List(size_t first) {
  std::vector<const aclTensor*> tensors;
  for (size_t i = first; i < inputs_.size(); ++i) tensors.push_back(In(i));
  return List(tensors);
}

aclTensorList* Arguments::List(const std::vector<const aclTensor*>& tensors) {
  // A list owns its members: handles of its own over the same memory.
  std::vector<const aclTensor*> members;
  for (const aclTensor* t : tensors) members.push_back(t == nullptr ? nullptr : NewHandle(t->view));
  return Keep(lists_, handles::CreateTensorList(members.data(), members.size()));
}

Value Arguments::Index(const Value& text, std::initializer_list<const char*> names) {
  int64_t i = 0;
  std::string all;
  for (const char* name : names) {
    if (text.Text() == name) return Value(i);
    all += (i++ ? ", " : "") + std::string(name);
  }
  Fail(call_.Invalid("an attribute is {}, expected one of {}", text.Show(), all));
  return Value(int64_t{0});
}

Value Arguments::Tail(const Value& v, int64_t count) {
  const size_t n = static_cast<size_t>(count);
  if (Numbers(v, "numbers") && v.size() < n)
    Fail(call_.Invalid("a value is {}, expected at least {} numbers", v.Show(), count));
  return v.size() < n ? v : v.Range(v.size() - n, n);
}

Value Arguments::From(const Value& v, const Value& begin) {
  int64_t first = Integer(begin);
  const int64_t size = static_cast<int64_t>(v.size());
  if (first < 0) first += size;
  if (first < 0 || first > size) {
    Fail(call_.Invalid("a dimension is {}, but there are {}", begin.Show(), size));
    return v;
  }
  return v.Range(static_cast<size_t>(first), v.size());
}

Value Arguments::Halves(const Value& pads) {
  if (!Numbers(pads, "pairs of numbers")) return pads;
  for (size_t i = 0; i + 1 < pads.size(); i += 2)
    if (pads.Integer(i) != pads.Integer(i + 1)) {
      Fail(call_.Invalid("pads are {}, expected the same before and behind", pads.Show()));
      break;
    }
  return pads.Range(0, pads.size(), 2);
}

Value Arguments::PairsReversed(const Value& paddings, const aclTensor* t) {
  std::vector<int64_t> values;
  const size_t rank = t == nullptr ? 0 : static_cast<size_t>(t->view.rank);
  if (!Numbers(paddings, "pairs of integers")) return paddings;
  if (paddings.size() != 2 * rank) {
    Fail(call_.Invalid("paddings are {}, expected a pair for each of {} dimensions", paddings.Show(), rank));
    return paddings;
  }
  for (size_t d = rank; d-- > 0;)
    for (size_t i : {2 * d, 2 * d + 1}) values.push_back(paddings.Integer(i));
  return Value(std::move(values));
}

Value Arguments::Concat(std::initializer_list<Value> parts) {
  std::vector<int64_t> values;
  for (const Value& v : parts)
    if (Numbers(v, "integers"))
      for (size_t i = 0; i < v.size(); ++i) values.push_back(v.Integer(i));
  return Value(std::move(values));
}

Value Arguments::Dims(const aclTensor* t) {
  if (t == nullptr) {
    Fail(call_.Invalid("a tensor is absent"));
    return Value(std::vector<int64_t>());
  }
  return Value(std::vector<int64_t>(t->view.dims, t->view.dims + t->view.rank));
}

Value Arguments::Type(const aclTensor* t) {
  if (t != nullptr) return Value(static_cast<int64_t>(t->view.dtype));
  Fail(call_.Invalid("a tensor is absent"));
  return Value(int64_t{0});
}

Value Arguments::Spatial(const Value& v, const Value& data_format, const aclTensor* image) {
  if (image == nullptr || !Numbers(v, "numbers")) return v;
  const std::string& order = data_format.Text();
  if (order != "NCHW" && order != "NCDHW" && order != "ND")
    Fail(call_.Invalid("data_format is {}, expected NCHW or NCDHW", data_format.Show()));
  const size_t spatial = static_cast<size_t>(std::max(image->view.rank - 2, 0));
  return v.size() > spatial ? Tail(v, static_cast<int64_t>(spatial)) : v;
}

aclTensor* Arguments::Unsqueezed(const aclTensor* t, const Value& dim) {
  int d = 0;
  if (t == nullptr) return nullptr;
  const Status wrapped = call_.WrapDim(Integer(dim), t->view.rank + 1, "dim", &d);
  if (!wrapped.ok() || t->view.rank == kMaxRank) {
    Fail(wrapped.ok() ? call_.Invalid("shape {} has no room for another dimension", ShapeString(t->view))
                      : wrapped);
    return const_cast<aclTensor*>(t);
  }
  return View(t->view.Unsqueeze(d));
}

aclTensor* Arguments::Shaped(aclTensor* t, const aclTensor* like) {
  if (t == nullptr || like == nullptr || t->view.SameShape(like->view) ||
      t->view.numel() != like->view.numel())
    return t;
  return View(TensorView::Contiguous(t->view.data, t->view.dtype, like->view.dims, like->view.rank));
}

aclTensor* Arguments::View(const TensorView& v) { return Keep(tensors_, NewHandle(v)); }

aclTensor* Arguments::Temporary(DType dtype, std::span<const int64_t> dims) {
  TensorView v = TensorView::Contiguous(nullptr, dtype, dims.data(), static_cast<int>(dims.size()));
  v.data = session_.Allocate(v.nbytes());
  return View(v);
}

aclTensor* Arguments::Reshape(const aclTensor* t, std::initializer_list<int64_t> dims) {
  return View(Merged(t->view, dims));
}
aclTensor* Arguments::Flat(const aclTensor* t) { return Reshape(t, {t->view.numel()}); }

aclTensor* Arguments::Transposed(const aclTensor* t) {
  if (t->view.rank >= 2) return View(t->view.Transpose(t->view.rank - 2, t->view.rank - 1));
  Fail(call_.Invalid("a tensor to transpose has shape {}, expected at least 2 dimensions",
                     ShapeString(t->view)));
  return const_cast<aclTensor*>(t);
}

aclTensor* Arguments::As(const aclTensor* t, DType dtype) {
  if (t == nullptr || t->view.dtype == dtype) return const_cast<aclTensor*>(t);
  aclTensor* cast = TemporaryLike(t, dtype);
  if (cast != nullptr) Fail(Before([&](Call& call) { return Copy(call, cast, t); }));
  return cast;
}

aclTensor* Arguments::Updated(aclTensor* target, const aclTensor* source) {
  if (target == nullptr || source == nullptr || target->view.data == source->view.data) return target;
  if (!target->view.SameShape(source->view))
    Fail(call_.Invalid("the updated tensor has shape {}, expected {}", ShapeString(target->view),
                       ShapeString(source->view)));
  else
    Fail(Before([&](Call& call) { return Copy(call, target, source); }));
  return target;
}

Status Arguments::Require(size_t inputs, size_t outputs) const {
  for (size_t i = 0; i < inputs; ++i)
    if (In(i) == nullptr) return call_.Invalid("input {} is absent", i);
  for (size_t i = 0; i < outputs; ++i)
    if (Out(i) == nullptr) return call_.Invalid("output {} is absent", i);
  return Status();
}

}  // namespace anycann::aclop

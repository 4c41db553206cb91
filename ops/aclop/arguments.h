// What an operator of the legacy interface gets: tensors by position, attributes by name, and constants,
// which are inputs whose values the operator needs before it runs. abi/aclop.tsv binds them to the parameters
// of aclnn operators; what does not fit into a row of it is a function over Arguments in this folder.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/aclop/descriptors.h"
#include "ops/call.h"
#include "ops/operand.h"

namespace anycann::aclop {

// Numbers or a text, whatever the client gave them as: an attribute, a constant, or a literal of the table.
class Value {
 public:
  Value() = default;  // absent
  explicit Value(const Attribute& attribute);
  explicit Value(const TensorView& tensor);  // real numbers and bool: its elements, as memory holds them now
  Value(bool truth) : type_(DType::kBool), integers_{truth} {}          // NOLINT: literals of the table
  Value(int64_t integer) : type_(DType::kInt64), integers_{integer} {}  // NOLINT
  Value(double real) : type_(DType::kDouble), reals_{real} {}           // NOLINT
  Value(const char* text) : type_(DType::kString), text_(text) {}       // NOLINT
  Value(std::vector<int64_t> integers) : type_(DType::kInt64), integers_(std::move(integers)) {}  // NOLINT
  Value(std::vector<double> reals) : type_(DType::kDouble), reals_(std::move(reals)) {}           // NOLINT

  bool absent() const { return type_ == DType::kUndefined; }
  bool text() const { return type_ == DType::kString; }
  bool real() const { return type_ == DType::kDouble; }
  DType type() const { return type_; }  // kBool, kInt64, kDouble, kString; kUndefined: absent
  size_t size() const { return real() ? reals_.size() : integers_.size(); }
  int64_t Integer(size_t i) const { return real() ? static_cast<int64_t>(reals_[i]) : integers_[i]; }
  double Real(size_t i) const { return real() ? reals_[i] : static_cast<double>(integers_[i]); }
  const std::string& Text() const { return text_; }
  Value Range(size_t begin, size_t count, size_t step = 1) const;
  std::string Show() const;  // for people

 private:
  DType type_ = DType::kUndefined;
  std::vector<int64_t> integers_;
  std::vector<double> reals_;
  std::string text_;
};

// One call of the legacy interface on its stream. An operator may take several steps; temporaries live until
// the stream has passed the last of them.
class Session {
 public:
  Session(const char* type, void* stream)
      : type_(type), stream_(stream), memory_(std::make_shared<Memory>()) {}
  Session(const Session&) = delete;
  ~Session();

  const char* type() const { return type_; }
  // Throws std::bad_alloc.
  void* Allocate(int64_t bytes);
  // Phase one by `body` (Status(Call&)), and its Plan onto the stream.
  template <class Body>
  Status Step(Body&& body) {
    struct End {
      void operator()(aclOpExecutor* e) const { handles::Destroy(e); }
    };
    const std::unique_ptr<aclOpExecutor, End> executor(handles::CreateExecutor(type_));
    if (executor == nullptr) return Error(kBadAlloc, "{}: out of memory", type_);
    Call call(type_, executor.get());
    RETURN_IF_ERROR(body(call));
    return Submit(std::exchange(executor->plan, nullptr));
  }
  // Until all that was submitted to the stream has run; its error stays with it.
  Status Wait();

 private:
  using Memory = std::vector<anycann::Buffer<char>>;
  Status Submit(Plan* plan);

  const char* type_;
  void* stream_;
  std::shared_ptr<Memory> memory_;
};

class Arguments {
 public:
  struct Input {
    aclTensor* tensor;  // nullptr: an optional one that isn't given
    bool host;          // its memory can be read at once; the tensor is a copy
  };
  Arguments(Call& call, Session& session, std::span<const Input> inputs, std::span<aclTensor* const> outputs,
            const Attributes& attributes)
      : call_(call), session_(session), inputs_(inputs), outputs_(outputs), attributes_(attributes) {}
  Arguments(const Arguments&) = delete;
  ~Arguments();

  // nullptr: absent, as are positions past the end.
  aclTensor* In(size_t i) const { return i < inputs_.size() ? inputs_[i].tensor : nullptr; }
  aclTensor* Out(size_t i) const { return i < outputs_.size() ? outputs_[i] : nullptr; }
  size_t input_count() const { return inputs_.size(); }

  // An attribute, or `otherwise` where the client gave none; a required one has an absent `otherwise` and is
  // an error then.
  Value Attr(const char* name, Value otherwise = Value());
  double Number(const char* name, double absent) { return Real(Attr(name, absent)); }
  std::string Text(const char* name, const char* absent) { return Attr(name, absent).Text(); }
  // The values of input i: waits for the stream where they lie on the device. Absent where the input is.
  Value Constant(size_t i);

  // Values as the parameters of an aclnn operator; handles live as long as this. A value of the wrong kind
  // makes status() an error.
  aclScalar* Scalar(const Value& v);
  aclIntArray* Integers(const Value& v);
  aclFloatArray* Floats(const Value& v);
  aclBoolArray* Bools(const Value& v);
  char* String(const Value& v);
  int64_t Integer(const Value& v);
  double Real(const Value& v);
  bool Flag(const Value& v) { return Integer(v) != 0; }
  // All inputs from `first` on; and any tensors, some of which may be absent.
  aclTensorList* List(size_t first);
  aclTensorList* List(const std::vector<const aclTensor*>& tensors);

  // The functions of the table's expressions (FUNCTIONS of abi/aclop.py).
  Value Index(const Value& text, std::initializer_list<const char*> names);
  Value Tail(const Value& v, int64_t count);
  Value From(const Value& v, const Value& begin);
  Value First(const Value& v) { return v.size() == 0 ? v : v.Range(0, 1); }
  Value Halves(const Value& pads);  // [a, a, b, b] as [a, b]
  // What an attribute of images says for the spatial dimensions of `image`: [1, 1, 2, 3] as [2, 3].
  Value Spatial(const Value& v, const Value& data_format, const aclTensor* image);
  Value PairsReversed(const Value& paddings,
                      const aclTensor* t);  // a pair for each dimension, the last one first
  Value Or(const Value& v, Value otherwise) { return v.absent() ? otherwise : v; }
  Value Concat(std::initializer_list<Value> values);
  Value Dims(const aclTensor* t);
  Value Type(const aclTensor* t);
  Value Is(const Value& a, const Value& b) { return Value(a.Show() == b.Show()); }
  Value Not(const Value& v) { return Value(!Flag(v)); }
  aclTensor* Unsqueezed(const aclTensor* t, const Value& dim);
  aclTensor* Shaped(aclTensor* t, const aclTensor* like);  // t with the shape of another of as many elements

  // Views and temporaries as handles that live as long as this.
  aclTensor* View(const TensorView& v);
  aclTensor* Temporary(DType dtype, std::span<const int64_t> dims);
  aclTensor* TemporaryLike(const aclTensor* t, DType dtype) {
    return Temporary(dtype, {t->view.dims, static_cast<size_t>(t->view.rank)});
  }
  aclTensor* Reshape(const aclTensor* t, std::initializer_list<int64_t> dims);
  aclTensor* Flat(const aclTensor* t);
  aclTensor* Transposed(const aclTensor* t);       // the last two dimensions change places
  aclTensor* As(const aclTensor* t, DType dtype);  // a cast copy where the type differs
  // `target` after `source` was copied to it, unless they are the same memory: for types that update an
  // input.
  aclTensor* Updated(aclTensor* target, const aclTensor* source);
  // A step before the operator's own.
  template <class Body>
  Status Before(Body&& body) {
    return session_.Step(std::forward<Body>(body));
  }

  // "input 3 is absent"
  Status Require(size_t inputs, size_t outputs) const;
  Status status() const { return status_; }
  Call& call() const { return call_; }
  Session& session() const { return session_; }

 private:
  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  bool Numbers(const Value& v, const char* wanted);
  bool OneNumber(const Value& v);
  template <class H>
  H* Keep(std::vector<H*>& kept, H* handle);

  Call& call_;
  Session& session_;
  std::span<const Input> inputs_;
  std::span<aclTensor* const> outputs_;
  const Attributes& attributes_;
  Status status_;
  std::vector<aclTensor*> tensors_;
  std::vector<aclScalar*> scalars_;
  std::vector<aclIntArray*> integers_;
  std::vector<aclFloatArray*> floats_;
  std::vector<aclBoolArray*> bools_;
  std::vector<aclTensorList*> lists_;
  std::vector<std::unique_ptr<std::string>> texts_;
};

// The table of types, in the order of their names: generated from abi/aclop.tsv.
struct Operator {
  const char* type;
  Status (*run)(Call&, Arguments&);
};
std::span<const Operator> Operators();

}  // namespace anycann::aclop

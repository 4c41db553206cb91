#include "ops/aclop/arguments.h"
#include "ops/convert.h"

namespace anycann::aclop {

Value::Value(const Attribute& attribute) {
  std::visit(
      [this](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::string>) {
          *this = Value(v.c_str());
        } else if constexpr (std::is_same_v<T, float>) {
          *this = Value(static_cast<double>(v));
        } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, int64_t>) {
          *this = Value(v);
        } else if constexpr (std::is_same_v<T, std::vector<bool>> ||
                             std::is_same_v<T, std::vector<int64_t>>) {
          type_ = std::is_same_v<T, std::vector<bool>> ? DType::kBool : DType::kInt64;
          integers_.assign(v.begin(), v.end());
        } else if constexpr (std::is_same_v<T, std::vector<float>>) {
          type_ = DType::kDouble;
          reals_.assign(v.begin(), v.end());
        }  // lists of texts and of lists: no operator has them
      },
      attribute);
}

Value::Value(const TensorView& tensor) {
  const size_t n = static_cast<size_t>(tensor.numel());
  if (IsFloating(tensor.dtype)) {
    type_ = DType::kDouble;
    reals_.resize(n);
    CopyCast(TensorView::Contiguous(reals_.data(), DType::kDouble, tensor.dims, tensor.rank), tensor);
  } else if (!IsComplex(tensor.dtype)) {
    type_ = tensor.dtype == DType::kBool ? DType::kBool : DType::kInt64;
    integers_.resize(n);
    CopyCast(TensorView::Contiguous(integers_.data(), DType::kInt64, tensor.dims, tensor.rank), tensor);
  }
}

Value Value::Range(size_t begin, size_t count, size_t step) const {
  Value v;
  v.type_ = type_;
  for (size_t i = begin; count > 0 && i < size(); i += step, --count) {
    if (real())
      v.reals_.push_back(reals_[i]);
    else
      v.integers_.push_back(integers_[i]);
  }
  return v;
}

std::string Value::Show() const {
  if (absent()) return "absent";
  if (text()) return '"' + text_ + '"';
  std::string s = "[";
  for (size_t i = 0; i < size(); ++i)
    s += (i ? "," : "") + (real() ? fmt::format("{}", reals_[i]) : fmt::format("{}", integers_[i]));
  return s + "]";
}

}  // namespace anycann::aclop

// aclopAttr: attributes of a legacy operator, by name. Each setter keeps a copy.
#include <new>

#include "acl/acl_op.h"
#include "base/error.h"
#include "ops/aclop/descriptors.h"

namespace {

using anycann::Error;
using anycann::RecordError;
using anycann::aclop::Attribute;

aclError Set(const char* function, aclopAttr* attr, const char* name, auto&& make) {
  anycann::aclop::Attributes* attributes = anycann::aclop::Find(attr);
  if (attributes == nullptr) {
    return RecordError(Error(anycann::kInvalidParam, "{}: attr {}", function,
                             attr == nullptr ? "is null" : "is no live aclopAttr"));
  }
  if (name == nullptr) return RecordError(Error(anycann::kInvalidParam, "{}: attrName is null", function));
  try {
    attributes->values[name] = Attribute(make());
    return 0;
  } catch (const std::bad_alloc&) {
    return RecordError(Error(anycann::kBadAlloc, "{}: out of memory", function));
  }
}

aclError CheckList(const char* function, int count, const void* values) {
  if (count < 0) {
    return RecordError(
        Error(anycann::kInvalidParam, "{}: numValues is {}, it must not be negative", function, count));
  }
  if (count > 0 && values == nullptr)
    return RecordError(Error(anycann::kInvalidParam, "{}: values is null", function));
  return 0;
}

// A list attribute with elements of type Kept.
template <class Kept, class Given>
aclError SetList(const char* function, aclopAttr* attr, const char* name, int count, const Given* values) {
  if (const aclError code = CheckList(function, count, values)) return code;
  return Set(function, attr, name, [&] { return std::vector<Kept>(values, values + count); });
}

}  // namespace

aclopAttr* aclopCreateAttr() {
  aclopAttr* attr = anycann::aclop::MakeAttributes();
  if (attr == nullptr) RecordError(Error(anycann::kBadAlloc, "aclopCreateAttr: out of memory"));
  return attr;
}

void aclopDestroyAttr(const aclopAttr* attr) {
  if (attr != nullptr && !anycann::aclop::Destroy(attr)) {
    RecordError(Error(anycann::kInvalidParam, "aclopDestroyAttr: attr is no live aclopAttr"));
  }
}

aclError aclopSetAttrBool(aclopAttr* attr, const char* attrName, uint8_t attrValue) {
  return Set("aclopSetAttrBool", attr, attrName, [&] { return attrValue != 0; });
}

aclError aclopSetAttrInt(aclopAttr* attr, const char* attrName, int64_t attrValue) {
  return Set("aclopSetAttrInt", attr, attrName, [&] { return attrValue; });
}

aclError aclopSetAttrFloat(aclopAttr* attr, const char* attrName, float attrValue) {
  return Set("aclopSetAttrFloat", attr, attrName, [&] { return attrValue; });
}

aclError aclopSetAttrDataType(aclopAttr* attr, const char* attrName, aclDataType attrValue) {
  return Set("aclopSetAttrDataType", attr, attrName, [&] { return static_cast<int64_t>(attrValue); });
}

aclError aclopSetAttrString(aclopAttr* attr, const char* attrName, const char* attrValue) {
  if (attrValue == nullptr) {
    return RecordError(Error(anycann::kInvalidParam, "aclopSetAttrString: attrValue is null"));
  }
  return Set("aclopSetAttrString", attr, attrName, [&] { return std::string(attrValue); });
}

aclError aclopSetAttrListBool(aclopAttr* attr, const char* attrName, int numValues, const uint8_t* values) {
  return SetList<bool>("aclopSetAttrListBool", attr, attrName, numValues, values);
}

aclError aclopSetAttrListInt(aclopAttr* attr, const char* attrName, int numValues, const int64_t* values) {
  return SetList<int64_t>("aclopSetAttrListInt", attr, attrName, numValues, values);
}

aclError aclopSetAttrListFloat(aclopAttr* attr, const char* attrName, int numValues, const float* values) {
  return SetList<float>("aclopSetAttrListFloat", attr, attrName, numValues, values);
}

aclError aclopSetAttrListDataType(aclopAttr* attr, const char* attrName, int numValues,
                                  const aclDataType values[]) {
  return SetList<int64_t>("aclopSetAttrListDataType", attr, attrName, numValues, values);
}

aclError aclopSetAttrListString(aclopAttr* attr, const char* attrName, int numValues, const char** values) {
  if (const aclError code = CheckList("aclopSetAttrListString", numValues, values)) return code;
  for (int i = 0; i < numValues; ++i) {
    if (values[i] == nullptr) {
      return RecordError(Error(anycann::kInvalidParam, "aclopSetAttrListString: values[{}] is null", i));
    }
  }
  return SetList<std::string>("aclopSetAttrListString", attr, attrName, numValues, values);
}

aclError aclopSetAttrListListInt(aclopAttr* attr, const char* attrName, int numLists, const int* numValues,
                                 const int64_t* const values[]) {
  constexpr const char* kName = "aclopSetAttrListListInt";
  if (const aclError code = CheckList(kName, numLists, values)) return code;
  if (const aclError code = CheckList(kName, numLists, numValues)) return code;
  for (int i = 0; i < numLists; ++i) {
    if (const aclError code = CheckList(kName, numValues[i], values[i])) return code;
  }
  return Set(kName, attr, attrName, [&] {
    std::vector<std::vector<int64_t>> lists;
    for (int i = 0; i < numLists; ++i) lists.emplace_back(values[i], values[i] + numValues[i]);
    return lists;
  });
}

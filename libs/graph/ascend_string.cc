// ge::AscendString: {shared_ptr<std::string>}, the layout that onnxruntime and torchair were seen to rely on
// (they copy and destroy it inline). Clients order it in maps, so it works from the first day.
#include <cstring>
#include <memory>
#include <string>

#include "base/export.h"

namespace ge {

class AscendString {
 public:
  ANYCANN_API AscendString(const char* name);
  ANYCANN_API const char* GetString() const;
  ANYCANN_API bool operator<(const AscendString& other) const;
  ANYCANN_API bool operator==(const AscendString& other) const;

 private:
  std::shared_ptr<std::string> name_;
};
static_assert(sizeof(AscendString) == 16);

AscendString::AscendString(const char* name) {
  if (name != nullptr) name_ = std::make_shared<std::string>(name);
}

const char* AscendString::GetString() const { return name_ ? name_->c_str() : ""; }

bool AscendString::operator<(const AscendString& other) const {
  return std::strcmp(GetString(), other.GetString()) < 0;
}

bool AscendString::operator==(const AscendString& other) const {
  return std::strcmp(GetString(), other.GetString()) == 0;
}

}  // namespace ge

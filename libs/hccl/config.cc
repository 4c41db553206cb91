// Process-wide settings of the collectives: kept as given. Results never depend on the number of threads, so
// every value of HCCL_DETERMINISTIC is honoured already.
#include <array>
#include <atomic>

#include "base/error.h"
#include "hccl/hccl.h"

namespace {

std::array<std::atomic<int32_t>, HCCL_CONFIG_RESERVED> values;

HcclResult Bad(const char* function, int config) {
  anycann::RecordError(
      anycann::Error(anycann::kInvalidParam, "{}: config is {}, which is no setting", function, config));
  return HCCL_E_PARA;
}

bool Known(HcclConfig config) { return config >= HCCL_DETERMINISTIC && config < HCCL_CONFIG_RESERVED; }

}  // namespace

HcclResult HcclSetConfig(HcclConfig config, HcclConfigValue configValue) {
  if (!Known(config)) return Bad("HcclSetConfig", config);
  values[config] = configValue.value;
  return HCCL_SUCCESS;
}

HcclResult HcclGetConfig(HcclConfig config, HcclConfigValue* configValue) {
  if (!Known(config)) return Bad("HcclGetConfig", config);
  if (configValue == nullptr) {
    anycann::RecordError(
        anycann::Error(anycann::kInvalidParam, "HcclGetConfig: configValue is a null pointer"));
    return HCCL_E_PTR;
  }
  configValue->value = values[config];
  return HCCL_SUCCESS;
}

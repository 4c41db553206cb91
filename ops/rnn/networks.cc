// LSTM and GRU networks, and their gradients.
#include <algorithm>

#include "aclnn_ops.h"
#include "ops/rnn/network.h"

namespace anycann {
namespace {

// Dropout between layers would need its masks again in the backward pass, which the interface has no place
// for.
Status RequireNoDropout(Call& call, double dropout, bool train, int64_t layers) {
  if (dropout == 0 || !train || layers < 2) return Status();
  return call.Invalid(
      "dropout is {} with {} layers in training, which is not supported: use one operator per layer", dropout,
      layers);
}

Status RequireStates(Call& call, const aclTensorList* hx) {
  if (hx->size == 2 && hx->values[0] != nullptr && hx->values[1] != nullptr) return Status();
  return call.Invalid("hx has {} tensors, expected the hidden and the cell state", hx->size);
}

}  // namespace

Status aclnn::LSTM(Call& call, const aclTensor* input, const aclTensorList* params, const aclTensorList* hx,
                   const aclTensor* batchSizes, bool hasBias, int64_t numLayers, double dropout, bool train,
                   bool bidirectional, bool batchFirst, aclTensor* output, aclTensor* hy, aclTensor* cy,
                   aclTensorList* iOut, aclTensorList* jOut, aclTensorList* fOut, aclTensorList* oOut,
                   aclTensorList* hOut, aclTensorList* cOut, aclTensorList* tanhCOut) {
  RETURN_IF_ERROR(RequireNoDropout(call, dropout, train, numLayers));
  RETURN_IF_ERROR(RequireStates(call, hx));
  NetworkHandles<LstmCell> h;
  h.input = input, h.parameters = params, h.lengths = batchSizes;
  h.state[0] = hx->values[0], h.state[1] = hx->values[1];
  h.output = output, h.final_state[0] = hy, h.final_state[1] = cy;
  const aclTensorList* saved[] = {iOut, jOut, fOut, oOut, hOut, cOut, tanhCOut};
  const char* const names[] = {"iOut", "jOut", "fOut", "oOut", "hOut", "cOut", "tanhCOut"};
  std::copy(std::begin(saved), std::end(saved), h.saved);
  std::copy(std::begin(names), std::end(names), h.saved_names);
  return LaunchNetwork(call, h, {hasBias, bidirectional, batchFirst, numLayers});
}

Status aclnn::LstmBackward(Call& call, const aclTensor* input, const aclTensorList* hx,
                           const aclTensorList* params, const aclTensor* dy, const aclTensor* dh,
                           const aclTensor* dc, const aclTensorList* i, const aclTensorList* g,
                           const aclTensorList* f, const aclTensorList* o, const aclTensorList* h,
                           const aclTensorList* c, const aclTensorList* tanhc,
                           const aclTensor* batchSizesOptional, bool hasBias, int64_t numLayers,
                           double dropout, bool train, bool bidirectional, bool batchFirst,
                           const aclBoolArray* outputMask, aclTensor* dxOut, aclTensor* dhPrevOut,
                           aclTensor* dcPrevOut, aclTensorList* dparamsOut) {
  (void)outputMask;
  RETURN_IF_ERROR(RequireNoDropout(call, dropout, train, numLayers));
  RETURN_IF_ERROR(RequireStates(call, hx));
  NetworkHandles<LstmCell> n;
  n.input = input, n.parameters = params, n.lengths = batchSizesOptional;
  n.state[0] = hx->values[0], n.state[1] = hx->values[1];
  const aclTensorList* saved[] = {i, g, f, o, h, c, tanhc};
  const char* const names[] = {"i", "g", "f", "o", "h", "c", "tanhc"};
  std::copy(std::begin(saved), std::end(saved), n.saved);
  std::copy(std::begin(names), std::end(names), n.saved_names);
  n.dy = dy, n.dfinal[0] = dh, n.dfinal[1] = dc;
  n.dinput = dxOut, n.dstate[0] = dhPrevOut, n.dstate[1] = dcPrevOut, n.dparameters = dparamsOut;
  return LaunchNetworkBackward(call, n, {hasBias, bidirectional, batchFirst, numLayers});
}

Status aclnn::GRU(Call& call, const aclTensor* input, const aclTensorList* params, const aclTensor* hx,
                  const aclTensor* batchSizes, bool hasBias, int64_t numLayers, double dropout, bool train,
                  bool bidirection, bool batchFirst, aclTensor* output, aclTensor* hy, aclTensorList* rOut,
                  aclTensorList* zOut, aclTensorList* nOut, aclTensorList* hnOut, aclTensorList* hOut) {
  RETURN_IF_ERROR(RequireNoDropout(call, dropout, train, numLayers));
  NetworkHandles<GruCell> h;
  h.input = input, h.parameters = params, h.lengths = batchSizes, h.state[0] = hx;
  h.output = output, h.final_state[0] = hy;
  const aclTensorList* saved[] = {rOut, zOut, nOut, hnOut, hOut};
  const char* const names[] = {"rOut", "zOut", "nOut", "hnOut", "hOut"};
  std::copy(std::begin(saved), std::end(saved), h.saved);
  std::copy(std::begin(names), std::end(names), h.saved_names);
  return LaunchNetwork(call, h, {hasBias, bidirection, batchFirst, numLayers});
}

Status aclnn::GRUBackward(Call& call, const aclTensor* input, const aclTensorList* params,
                          const aclTensor* hx, const aclTensor* dy, const aclTensor* dh,
                          const aclTensorList* r, const aclTensorList* z, const aclTensorList* n,
                          const aclTensorList* hn, const aclTensorList* h, const aclTensor* batchSizes,
                          bool hasBias, int64_t numLayers, bool bidirection, bool batchFirst,
                          aclTensor* dxOut, aclTensor* dhPrevOut, aclTensorList* dparamsOut) {
  NetworkHandles<GruCell> b;
  b.input = input, b.parameters = params, b.lengths = batchSizes, b.state[0] = hx;
  const aclTensorList* saved[] = {r, z, n, hn, h};
  const char* const names[] = {"r", "z", "n", "hn", "h"};
  std::copy(std::begin(saved), std::end(saved), b.saved);
  std::copy(std::begin(names), std::end(names), b.saved_names);
  b.dy = dy, b.dfinal[0] = dh, b.dinput = dxOut, b.dstate[0] = dhPrevOut, b.dparameters = dparamsOut;
  return LaunchNetworkBackward(call, b, {hasBias, bidirection, batchFirst, numLayers});
}

}  // namespace anycann

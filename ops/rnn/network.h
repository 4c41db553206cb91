// Phase one of the recurrent operators: from handles to a Plan that runs all layers and directions.
#pragma once

#include "ops/call.h"
#include "ops/rnn/recurrent.h"

namespace anycann {

// `saved`: one list per array of the cell, in its order; lists may be empty or absent when nothing is
// trained.
template <class Cell>
struct NetworkHandles {
  const aclTensor* input = nullptr;
  const aclTensorList* parameters = nullptr;
  const aclTensor* state[2] = {};
  const aclTensor* lengths = nullptr;  // batch sizes per step; absent: all rows
  const aclTensorList* saved[Cell::kSaved] = {};
  const char* saved_names[Cell::kSaved] = {};
  // Forward
  const aclTensor *output = nullptr, *final_state[2] = {};
  // Backward
  const aclTensor *dy = nullptr, *dfinal[2] = {};
  const aclTensor *dinput = nullptr, *dstate[2] = {};
  const aclTensorList* dparameters = nullptr;
};

struct NetworkAttributes {
  bool has_bias = true, bidirectional = false, batch_first = false;
  int64_t layers = 1;
};

template <class Cell>
Status LaunchNetwork(Call& call, const NetworkHandles<Cell>& h, const NetworkAttributes& a);
template <class Cell>
Status LaunchNetworkBackward(Call& call, const NetworkHandles<Cell>& h, const NetworkAttributes& a);

}  // namespace anycann

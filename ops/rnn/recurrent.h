// Recurrent networks: layers of LSTM or GRU cells over time, in one or two directions, forward and backward.
//
// The input's part of all gates is one matrix product over all time steps; each step then adds the product
// with the previous state and applies the cell, a fused loop over the batch. The backward pass collects the
// gradients of all gates of all steps, so that the gradients of weights and inputs are again one product
// each.
//
// Everything is [T, B, ...] in the compute type: float or double. What a cell saves for its backward pass is
// indexed by time, also for the reverse direction.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "ops/operand.h"

namespace anycann {

struct RecurrentShape {
  int64_t steps = 0, batch = 0, input = 0, hidden = 0, layers = 1;
  int directions = 1;
  bool has_bias = true, batch_first = false;
  int parameters_per_cell() const { return has_bias ? 4 : 2; }
  int cells() const { return static_cast<int>(layers) * directions; }
  int64_t width(int64_t layer) const { return layer == 0 ? input : hidden * directions; }
  int64_t step_elements() const { return batch * hidden; }
  int64_t elements() const { return steps * batch * hidden; }
};

// The gate and state arrays of one cell of kSaved arrays of [T, B, H]; absent ones are nullptr.
template <class T, class Cell>
struct CellArrays {
  T* saved[Cell::kSaved] = {};
};

// One cell's parameters; biases may be nullptr.
template <class T>
struct CellWeights {
  const T *input = nullptr, *hidden = nullptr, *input_bias = nullptr, *hidden_bias = nullptr;
};
template <class T>
struct CellGradients {
  T *input = nullptr, *hidden = nullptr, *input_bias = nullptr, *hidden_bias = nullptr;
};

// Runs one direction of one layer. `x` is [T, B, width]; `y`, with `y_stride` elements per row, gets the
// hidden states; `state` holds the initial states (hidden, then the cell's), [B, H] each, and gets the final
// ones. `lengths`: rows of the batch that take part in each step (a packed sequence), nullptr: all. The last
// saved arrays of the cell that hold states are needed; the others may be absent.
template <class T, class Cell>
Status RunCell(const RecurrentShape& s, int64_t width, const CellWeights<T>& w, const T* x, bool reverse,
               const int64_t* lengths, const CellArrays<T, Cell>& arrays, T* y, int64_t y_stride,
               T* const* state);

// `dy` as `y`; `dstate`: gradients of the final states, which become those of the initial ones. dx is added
// to.
template <class T, class Cell>
Status RunCellBackward(const RecurrentShape& s, int64_t width, const CellWeights<T>& w, const T* x,
                       bool reverse, const int64_t* lengths, const CellArrays<T, Cell>& arrays,
                       const T* const* initial, const T* dy, int64_t dy_stride, T* const* dstate, T* dx,
                       const CellGradients<T>& dw);

// i, f, g, o are the gates after their activations, h and c the states, tanh(c).
struct LstmCell {
  static constexpr int kGates = 4, kSaved = 7, kStates = 2;
  enum { kI, kG, kF, kO, kH, kC, kTanhC };
};
// r, z, n are the gates, hn the hidden state's part of n before it is multiplied with r.
struct GruCell {
  static constexpr int kGates = 3, kSaved = 5, kStates = 1;
  enum { kR, kZ, kN, kHn, kH };
};

}  // namespace anycann

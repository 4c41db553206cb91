#include "ops/rnn/network.h"

#include <algorithm>
#include <optional>

namespace anycann {
namespace {

// Where the operands are in the Plan; lists are consecutive. -1: absent.
struct Places {
  int input = -1, parameters = -1, state[2] = {-1, -1}, lengths = -1,
      saved[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  int output = -1, final_state[2] = {-1, -1};
  int dy = -1, dfinal[2] = {-1, -1}, dinput = -1, dstate[2] = {-1, -1}, dparameters = -1;
};

class OperandVector {
 public:
  int Add(const aclTensor* t, bool output) {
    if (t == nullptr || t->view.empty()) return -1;
    args_.push_back(output ? Out(t) : In(t));
    return static_cast<int>(args_.size()) - 1;
  }
  int Add(const aclTensorList* l, bool output) {
    if (l == nullptr || l->size == 0 || l->values[0] == nullptr || l->values[0]->view.empty()) return -1;
    const int first = static_cast<int>(args_.size());
    for (uint64_t i = 0; i < l->size; ++i) args_.push_back(output ? Out(l->values[i]) : In(l->values[i]));
    return first;
  }
  std::span<const Arg> list() const { return args_; }
  double bytes() const {
    double sum = 0;
    for (const Arg& a : args_) sum += static_cast<double>(a.view.nbytes());
    return sum;
  }

 private:
  std::vector<Arg> args_;
};

template <class Cell>
constexpr const char* kName = std::is_same_v<Cell, LstmCell> ? "LSTM" : "GRU";

// The tensors of a list must all exist and have `rows` x ... = `count` elements.
Status RequireList(Call& call, const aclTensorList* l, const char* name, int cells, int64_t count) {
  if (l == nullptr || l->size == 0) return Status();
  if (l->size != static_cast<uint64_t>(cells))
    return call.Invalid("{} has {} tensors, expected {}", name, l->size, cells);
  for (int i = 0; i < cells; ++i)
    if (l->values[i] == nullptr || (l->values[i]->view.numel() != count && !l->values[i]->view.empty()))
      return call.Invalid("{}[{}] has {} elements, expected {}", name, i,
                          l->values[i] ? l->values[i]->view.numel() : 0, count);
  return Status();
}

Status RequireCount(Call& call, const aclTensor* t, const char* name, int64_t count) {
  if (t == nullptr || t->view.numel() == count) return Status();
  return call.Invalid("{} has shape {}, expected {} elements", name, ShapeString(t->view), count);
}

template <class Cell>
Status CheckParameters(Call& call, const aclTensorList* l, const char* name, const RecurrentShape& s) {
  if (l->size != static_cast<uint64_t>(s.cells() * s.parameters_per_cell()))
    return call.Invalid("{} has {} tensors, expected {} for each of {} cells", name, l->size,
                        s.parameters_per_cell(), s.cells());
  const int64_t gates = Cell::kGates * s.hidden;
  for (uint64_t i = 0; i < l->size; ++i) {
    const int role = static_cast<int>(i) % s.parameters_per_cell();
    const int64_t layer = static_cast<int64_t>(i) / s.parameters_per_cell() / s.directions;
    const int64_t expected = role == 0 ? gates * s.width(layer) : role == 1 ? gates * s.hidden : gates;
    if (l->values[i] == nullptr || l->values[i]->view.numel() != expected)
      return call.Invalid("{}[{}] has {} elements, expected {}", name, i,
                          l->values[i] ? l->values[i]->view.numel() : 0, expected);
  }
  return Status();
}

template <class Cell>
Status CheckShape(Call& call, const NetworkHandles<Cell>& h, const NetworkAttributes& a, RecurrentShape* s) {
  const TensorView& x = h.input->view;
  if (!IsFloating(x.dtype))
    return call.Invalid("input has type {}, expected a floating-point type", Name(x.dtype));
  if (a.layers < 1 || a.layers > 1 << 20)  // far beyond any network: products of it stay in range
    return call.Invalid("numLayers is {}, expected 1 to {}", a.layers, 1 << 20);
  s->layers = a.layers, s->directions = a.bidirectional ? 2 : 1, s->has_bias = a.has_bias;
  s->batch_first = a.batch_first && h.lengths == nullptr;
  if (h.parameters->size < 2 || h.parameters->values[1] == nullptr)
    return call.Invalid("params has {} tensors, expected at least 2, the weights of {} cells",
                        h.parameters->size, kName<Cell>);
  RETURN_IF_ERROR(call.RequireRank(h.parameters->values[1], "params[1]", 2, 2));
  s->hidden = h.parameters->values[1]->view.dims[1];
  if (h.lengths != nullptr) {
    s->steps = h.lengths->view.numel();
    if (x.rank != 2 || s->steps < 1 || x.dims[0] % s->steps != 0)
      return call.Invalid("input has shape {}, expected {} (batchSizes) equal steps of rows", ShapeString(x),
                          s->steps);
    s->batch = x.dims[0] / s->steps;
  } else {
    RETURN_IF_ERROR(call.RequireRank(h.input, "input", 3, 3));
    s->steps = x.dims[s->batch_first ? 1 : 0];
    s->batch = x.dims[s->batch_first ? 0 : 1];
  }
  s->input = x.dims[x.rank - 1];
  RETURN_IF_ERROR(CheckParameters<Cell>(call, h.parameters, "params", *s));
  const int64_t states = s->cells() * s->step_elements(),
                outputs = s->steps * s->batch * s->hidden * s->directions;
  for (int k = 0; k < Cell::kStates; ++k) {
    RETURN_IF_ERROR(RequireCount(call, h.state[k], "hx", states));
    RETURN_IF_ERROR(RequireCount(call, h.final_state[k], k == 0 ? "hy" : "cy", states));
    RETURN_IF_ERROR(RequireCount(call, h.dfinal[k], k == 0 ? "dh" : "dc", states));
    RETURN_IF_ERROR(RequireCount(call, h.dstate[k], k == 0 ? "dhPrevOut" : "dcPrevOut", states));
  }
  for (int k = 0; k < Cell::kSaved; ++k)
    RETURN_IF_ERROR(RequireList(call, h.saved[k], h.saved_names[k], s->cells(), s->elements()));
  RETURN_IF_ERROR(RequireCount(call, h.output, "output", outputs));
  RETURN_IF_ERROR(RequireCount(call, h.dy, "dy", outputs));
  return Status();
}

// [T, B, n] of an operand that may be batch first or packed rows.
TensorView ByTime(const TensorView& v, const RecurrentShape& s) {
  if (v.rank == 3) return s.batch_first ? v.Transpose(0, 1) : v;
  TensorView t = v.Unsqueeze(0);
  t.dims[0] = s.steps, t.dims[1] = s.batch;
  t.strides[0] = v.strides[0] * s.batch, t.strides[1] = v.strides[0];
  return t;
}

// What forward and backward share while a Plan runs.
template <class T, class Cell>
class Network {
 public:
  Network(const Run& run, const RecurrentShape& s, const Places& at) : run_(run), s_(s), at_(at) {
    if (at.lengths >= 0) lengths_.emplace(run[at.lengths], DType::kInt64, Dense::kRead);
    for (int i = 0; i < s.cells() * s.parameters_per_cell(); ++i)
      parameters_.emplace_back(run[at.parameters + i], kDTypeOf<T>, Dense::kRead);
  }

  Status Forward() {
    const Dense x(ByTime(run_[at_.input], s_), kDTypeOf<T>, Dense::kRead);
    const T* in = x.ptr<T>();
    Buffer<T> layer_in, layer_out;
    Buffer<T> state[2];
    for (int k = 0; k < Cell::kStates; ++k) state[k] = CopyStates(at_.state[k]);
    const int64_t y_stride = s_.hidden * s_.directions;
    for (int64_t layer = 0; layer < s_.layers; ++layer) {
      layer_out = NewBuffer<T>(s_.steps * s_.batch * y_stride);
      for (int d = 0; d < s_.directions; ++d) {
        const int cell = static_cast<int>(layer) * s_.directions + d;
        SavedArrays saved(*this, cell, Dense::kWrite);
        T* states[2] = {state[0].get() + cell * s_.step_elements(),
                        Cell::kStates == 2 ? state[1].get() + cell * s_.step_elements() : nullptr};
        const Status status =
            RunCell<T, Cell>(s_, s_.width(layer), Weights(cell), in, d == 1, lengths(), saved.arrays,
                             layer_out.get() + d * s_.hidden, y_stride, states);
        RETURN_IF_ERROR(status);
        saved.Commit();
      }
      layer_in = std::move(layer_out);
      in = layer_in.get();
    }
    Store(ByTime(run_[at_.output], s_), in);
    for (int k = 0; k < Cell::kStates; ++k)
      if (at_.final_state[k] >= 0) Store(run_[at_.final_state[k]], state[k].get());
    return Status();
  }

  Status Backward() {
    const int64_t y_stride = s_.hidden * s_.directions;
    Buffer<T> dstate[2], initial[2];
    for (int k = 0; k < Cell::kStates; ++k)
      dstate[k] = CopyStates(at_.dfinal[k]), initial[k] = CopyStates(at_.state[k]);
    std::optional<Dense> dy;
    if (at_.dy >= 0) dy.emplace(ByTime(run_[at_.dy], s_), kDTypeOf<T>, Dense::kRead);
    const T* dout = dy ? dy->template ptr<T>() : nullptr;
    Buffer<T> din, previous;
    for (int64_t layer = s_.layers - 1; layer >= 0; --layer) {
      const int64_t width = s_.width(layer);
      const Buffer<T> x = LayerInput(layer);
      din = NewBuffer<T>(s_.steps * s_.batch * width);
      std::fill(din.get(), din.get() + s_.steps * s_.batch * width, T(0));
      for (int d = 0; d < s_.directions; ++d) {
        const int cell = static_cast<int>(layer) * s_.directions + d;
        SavedArrays saved(*this, cell, Dense::kRead);
        const int64_t start = cell * s_.step_elements();
        T* states[2] = {dstate[0].get() + start, Cell::kStates == 2 ? dstate[1].get() + start : nullptr};
        const T* first[2] = {initial[0].get() + start,
                             Cell::kStates == 2 ? initial[1].get() + start : nullptr};
        Gradients gradients(*this, cell);
        const Status status = RunCellBackward<T, Cell>(
            s_, width, Weights(cell), x.get(), d == 1, lengths(), saved.arrays, first,
            dout ? dout + d * s_.hidden : nullptr, y_stride, states, din.get(), gradients.pointers);
        RETURN_IF_ERROR(status);
        gradients.Commit();
      }
      previous = std::move(din);
      dout = previous.get();
    }
    if (at_.dinput >= 0) Store(ByTime(run_[at_.dinput], s_), dout);
    for (int k = 0; k < Cell::kStates; ++k)
      if (at_.dstate[k] >= 0) Store(run_[at_.dstate[k]], dstate[k].get());
    return Status();
  }

 private:
  // The saved arrays of a cell: the client's, or memory of our own for the states where nothing is trained.
  struct SavedArrays {
    CellArrays<T, Cell> arrays;
    std::vector<Dense> dense;
    Buffer<T> own[2];

    SavedArrays(const Network& net, int cell, Dense::Use use) {
      bool complete = true;
      for (int k = 0; k < Cell::kSaved; ++k) complete &= net.at_.saved[k] >= 0;
      for (int k = 0; k < Cell::kSaved; ++k) {
        const bool is_state = k == Cell::kH || (Cell::kStates == 2 && k == Cell::kSaved - 2);
        if (net.at_.saved[k] >= 0 && (complete || is_state)) {
          dense.emplace_back(net.run_[net.at_.saved[k] + cell], kDTypeOf<T>, use);
          arrays.saved[k] = dense.back().template ptr<T>();
        } else if (is_state) {
          own[k == Cell::kH ? 0 : 1] = NewBuffer<T>(net.s_.elements());
          arrays.saved[k] = own[k == Cell::kH ? 0 : 1].get();
        }
      }
    }
    void Commit() {
      for (Dense& d : dense) d.Commit();
    }
  };

  struct Gradients {
    CellGradients<T> pointers;
    std::vector<Dense> dense;

    Gradients(const Network& net, int cell) {
      if (net.at_.dparameters < 0) return;
      const int per_cell = net.s_.parameters_per_cell();
      for (int i = 0; i < per_cell; ++i)
        dense.emplace_back(net.run_[net.at_.dparameters + cell * per_cell + i], kDTypeOf<T>, Dense::kWrite);
      pointers.input = dense[0].template ptr<T>(), pointers.hidden = dense[1].template ptr<T>();
      if (per_cell == 4)
        pointers.input_bias = dense[2].template ptr<T>(), pointers.hidden_bias = dense[3].template ptr<T>();
    }
    void Commit() {
      for (Dense& d : dense) d.Commit();
    }
  };

  const int64_t* lengths() const { return lengths_ ? lengths_->template ptr<int64_t>() : nullptr; }

  CellWeights<T> Weights(int cell) const {
    const int first = cell * s_.parameters_per_cell();
    CellWeights<T> w{parameters_[first].template ptr<T>(), parameters_[first + 1].template ptr<T>()};
    if (s_.has_bias)
      w.input_bias = parameters_[first + 2].template ptr<T>(),
      w.hidden_bias = parameters_[first + 3].template ptr<T>();
    return w;
  }

  Buffer<T> CopyStates(int place) const {
    const int64_t n = s_.cells() * s_.step_elements();
    Buffer<T> copy = NewBuffer<T>(n);
    if (place < 0)
      std::fill(copy.get(), copy.get() + n, T(0));
    else
      CopyCast(TensorView::Contiguous(copy.get(), kDTypeOf<T>, run_[place].dims, run_[place].rank),
               run_[place]);
    return copy;
  }
  void Store(const TensorView& out, const T* values) const {
    CopyCast(out, TensorView::Contiguous(const_cast<T*>(values), kDTypeOf<T>, out.dims, out.rank));
  }

  // [T, B, width] that went into a layer: the network's input, or the states of the layer before.
  Buffer<T> LayerInput(int64_t layer) const {
    const int64_t width = s_.width(layer);
    Buffer<T> x = NewBuffer<T>(s_.steps * s_.batch * width);
    TensorView all = TensorView::Contiguous(x.get(), kDTypeOf<T>, {s_.steps, s_.batch, width});
    if (layer == 0) {
      CopyCast(all, ByTime(run_[at_.input], s_));
      return x;
    }
    for (int d = 0; d < s_.directions; ++d) {
      TensorView h = run_[at_.saved[Cell::kH] + static_cast<int>(layer - 1) * s_.directions + d];
      const Dense dense(h, kDTypeOf<T>, Dense::kRead);
      CopyCast(all.Narrow(2, d * s_.hidden, s_.hidden),
               TensorView::Contiguous(dense.template ptr<T>(), kDTypeOf<T>, {s_.steps, s_.batch, s_.hidden}));
    }
    return x;
  }

  const Run& run_;
  const RecurrentShape s_;
  const Places at_;
  std::optional<Dense> lengths_;
  std::vector<Dense> parameters_;
};

template <class Cell>
double Flops(const RecurrentShape& s) {
  double sum = 0;
  for (int64_t layer = 0; layer < s.layers; ++layer)
    sum += 2.0 * Cell::kGates * static_cast<double>(s.directions * s.elements()) *
           static_cast<double>(s.width(layer) + s.hidden);
  return sum;
}

}  // namespace

template <class Cell>
Status LaunchNetwork(Call& call, const NetworkHandles<Cell>& h, const NetworkAttributes& a) {
  RecurrentShape s;
  RETURN_IF_ERROR(CheckShape(call, h, a, &s));
  if (h.output->view.empty()) return call.Nothing();
  OperandVector o;
  Places at;
  at.input = o.Add(h.input, false), at.parameters = o.Add(h.parameters, false),
  at.lengths = o.Add(h.lengths, false);
  for (int k = 0; k < Cell::kStates; ++k)
    at.state[k] = o.Add(h.state[k], false), at.final_state[k] = o.Add(h.final_state[k], true);
  for (int k = 0; k < Cell::kSaved; ++k) at.saved[k] = o.Add(h.saved[k], true);
  at.output = o.Add(h.output, true);
  const bool wide = h.input->view.dtype == DType::kDouble;
  return call.Launch(o.list(), Cost{Flops<Cell>(s), o.bytes()}, [s, at, wide](const Run& run) -> Status {
    return wide ? Network<double, Cell>(run, s, at).Forward() : Network<float, Cell>(run, s, at).Forward();
  });
}

template <class Cell>
Status LaunchNetworkBackward(Call& call, const NetworkHandles<Cell>& h, const NetworkAttributes& a) {
  RecurrentShape s;
  RETURN_IF_ERROR(CheckShape(call, h, a, &s));
  RETURN_IF_ERROR(CheckParameters<Cell>(call, h.dparameters, "dparamsOut", s));
  RETURN_IF_ERROR(RequireCount(call, h.dinput, "dxOut", h.input->view.numel()));
  for (int k = 0; k < Cell::kSaved; ++k)
    if (h.saved[k] == nullptr || h.saved[k]->size == 0)
      return call.Invalid("{} has 0 tensors, expected {}, of a forward pass that ran with train",
                          h.saved_names[k], s.cells());
    else if (h.saved[k]->values[0]->view.numel() != s.elements())
      return call.Invalid("{}[0] has {} elements, expected {}, of a forward pass that ran with train",
                          h.saved_names[k], h.saved[k]->values[0]->view.numel(), s.elements());
  if (s.elements() == 0) return call.Nothing();
  OperandVector o;
  Places at;
  at.input = o.Add(h.input, false), at.parameters = o.Add(h.parameters, false),
  at.lengths = o.Add(h.lengths, false);
  at.dy = o.Add(h.dy, false);
  for (int k = 0; k < Cell::kStates; ++k)
    at.state[k] = o.Add(h.state[k], false), at.dfinal[k] = o.Add(h.dfinal[k], false),
    at.dstate[k] = o.Add(h.dstate[k], true);
  for (int k = 0; k < Cell::kSaved; ++k) at.saved[k] = o.Add(h.saved[k], false);
  at.dinput = o.Add(h.dinput, true), at.dparameters = o.Add(h.dparameters, true);
  const bool wide = h.input->view.dtype == DType::kDouble;
  return call.Launch(o.list(), Cost{2 * Flops<Cell>(s), o.bytes()}, [s, at, wide](const Run& run) -> Status {
    return wide ? Network<double, Cell>(run, s, at).Backward() : Network<float, Cell>(run, s, at).Backward();
  });
}

template Status LaunchNetwork<LstmCell>(Call&, const NetworkHandles<LstmCell>&, const NetworkAttributes&);
template Status LaunchNetwork<GruCell>(Call&, const NetworkHandles<GruCell>&, const NetworkAttributes&);
template Status LaunchNetworkBackward<LstmCell>(Call&, const NetworkHandles<LstmCell>&,
                                                const NetworkAttributes&);
template Status LaunchNetworkBackward<GruCell>(Call&, const NetworkHandles<GruCell>&,
                                               const NetworkAttributes&);

}  // namespace anycann

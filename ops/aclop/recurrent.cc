// DynamicRNN and DynamicRNNV2: one direction of one LSTM layer, and its gradients.
//
// Weights come as [inputs, 4 * hidden], input and hidden ones joined (DynamicRNN) or apart (V2). All states
// of all steps are outputs. Sequence lengths come as a mask of all states, or not at all.
#include "ops/rnn/recurrent.h"

#include <algorithm>
#include <optional>

#include "aclop_operators.h"

namespace anycann::aclop {
namespace {

// Positions of the operands in the Plan; -1: absent.
struct Places {
  int x, w, wh, b, mask, h0, c0;
  int saved[LstmCell::kSaved];
  int y;                                      // forward
  int dy, dh, dc, dw, dwh, db, dx, dh0, dc0;  // backward
};

class OperandList {
 public:
  int In(const aclTensor* t) { return Add(t, false); }
  int Out(const aclTensor* t) { return Add(t, true); }
  std::span<const Arg> list() const { return args_; }

 private:
  int Add(const aclTensor* t, bool output) {
    if (t == nullptr) return -1;
    args_.push_back(output ? anycann::Out(t) : anycann::In(t));
    return static_cast<int>(args_.size()) - 1;
  }
  std::vector<Arg> args_;
};

Status CheckAttributes(Call& call, Arguments& a) {
  const std::string order = a.Text("gate_order", "ijfo"), direction = a.Text("direction", "UNIDIRECTIONAL");
  if (order != "ifjo" && order != "ifco")
    return call.Invalid("gate_order is \"{}\", expected \"ifjo\"", order);
  if (direction != "UNIDIRECTIONAL" && direction != "REDIRECTIONAL")
    return call.Invalid("direction is \"{}\", expected \"UNIDIRECTIONAL\" or \"REDIRECTIONAL\"", direction);
  if (a.Text("activation", "tanh") != "tanh" || a.Text("cell_type", "LSTM") != "LSTM" ||
      a.Number("use_peephole", 0) != 0 || a.Number("num_proj", 0) != 0 || a.Number("forget_bias", 0) != 0 ||
      a.Number("cell_clip", -1) > 0)
    return call.Invalid(
        "only plain LSTM cells are supported: activation tanh, no peephole, projection, clip or forget bias");
  return Status();
}

// [T, B, I] or one step's [B, I]; `states`: a tensor of the states of all steps.
Status ShapeOf(Call& call, const aclTensor* x, const aclTensor* states, RecurrentShape* s) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, 3));
  RETURN_IF_ERROR(call.RequireRank(states, "y", 3, 3));
  if (!IsFloating(x->view.dtype))
    return call.Invalid("x has type {}, expected a floating-point type", Name(x->view.dtype));
  s->steps = x->view.rank == 3 ? x->view.dims[0] : 1;
  s->batch = x->view.dims[x->view.rank - 2];
  s->input = x->view.dims[x->view.rank - 1];
  s->hidden = states->view.dims[2];
  return Status();
}

Status RequireCount(Call& call, const aclTensor* t, const char* name, int64_t count) {
  if (t == nullptr || t->view.numel() == count) return Status();
  return call.Invalid("{} has shape {}, expected {} elements", name, ShapeString(t->view), count);
}

Status CheckOperands(Call& call, const RecurrentShape& s, std::initializer_list<const aclTensor*> states,
                     std::initializer_list<const aclTensor*> steps, const aclTensor* w, const aclTensor* wh,
                     const aclTensor* b) {
  for (const aclTensor* t : states) RETURN_IF_ERROR(RequireCount(call, t, "a state", s.step_elements()));
  for (const aclTensor* t : steps)
    RETURN_IF_ERROR(RequireCount(call, t, "a tensor of all steps", s.elements()));
  RETURN_IF_ERROR(RequireCount(call, w, "the weight", 4 * s.hidden * (wh ? s.input : s.input + s.hidden)));
  RETURN_IF_ERROR(RequireCount(call, wh, "the hidden weight", 4 * s.hidden * s.hidden));
  return RequireCount(call, b, "the bias", 4 * s.hidden);
}

// What both directions hold while they run.
template <class T>
struct Loaded {
  RecurrentShape s;
  Dense x;
  anycann::Buffer<T> input_weight, hidden_weight, bias, state[2];
  std::optional<anycann::Buffer<int64_t>> lengths;
  CellArrays<T, LstmCell> arrays;
  std::vector<Dense> saved;

  Loaded(const RecurrentShape& shape, const Places& at, const Run& t, Dense::Use use)
      : s(shape),
        x(t[at.x], kDTypeOf<T>, Dense::kRead),
        input_weight(NewBuffer<T>(4 * s.hidden * s.input)),
        hidden_weight(NewBuffer<T>(4 * s.hidden * s.hidden)),
        bias(NewBuffer<T>(4 * s.hidden)) {
    CopyCast(Rows(input_weight.get(), s.input), InputPart(t[at.w]));
    CopyCast(Rows(hidden_weight.get(), s.hidden), at.wh >= 0 ? All(t[at.wh], s.hidden) : HiddenPart(t[at.w]));
    std::fill(bias.get(), bias.get() + 4 * s.hidden, T(0));
    if (at.b >= 0)
      CopyCast(TensorView::Contiguous(bias.get(), kDTypeOf<T>, t[at.b].dims, t[at.b].rank), t[at.b]);
    for (int k = 0; k < 2; ++k) {
      const int place = k == 0 ? at.h0 : at.c0;
      state[k] = NewBuffer<T>(s.step_elements());
      std::fill(state[k].get(), state[k].get() + s.step_elements(), T(0));
      if (place >= 0)
        CopyCast(TensorView::Contiguous(state[k].get(), kDTypeOf<T>, t[place].dims, t[place].rank), t[place]);
    }
    if (at.mask >= 0) ReadMask(t[at.mask]);
    for (int k = 0; k < LstmCell::kSaved; ++k) {
      saved.emplace_back(t[at.saved[k]], kDTypeOf<T>, use);
      arrays.saved[k] = saved.back().template ptr<T>();
    }
  }

  // A weight or its gradient as [inputs, 4 H], whatever its own shape.
  TensorView All(const TensorView& w, int64_t inputs) const {
    return TensorView::Contiguous(w.data, w.dtype, {inputs, 4 * s.hidden}).Transpose(0, 1);
  }
  TensorView InputPart(const TensorView& w) const {
    return TensorView::Contiguous(w.data, w.dtype, {w.numel() / (4 * s.hidden), 4 * s.hidden})
        .Narrow(0, 0, s.input)
        .Transpose(0, 1);
  }
  TensorView HiddenPart(const TensorView& w) const {
    return TensorView::Contiguous(w.data, w.dtype, {w.numel() / (4 * s.hidden), 4 * s.hidden})
        .Narrow(0, s.input, s.hidden)
        .Transpose(0, 1);
  }
  TensorView Rows(T* p, int64_t columns) const {
    return TensorView::Contiguous(p, kDTypeOf<T>, {4 * s.hidden, columns});
  }
  CellWeights<T> weights() const { return {input_weight.get(), hidden_weight.get(), bias.get(), nullptr}; }
  const int64_t* counts() const { return lengths ? lengths->get() : nullptr; }

 private:
  void ReadMask(const TensorView& mask) {
    const Dense m(mask, DType::kFloat, Dense::kRead);
    lengths = NewBuffer<int64_t>(s.steps);
    for (int64_t t = 0; t < s.steps; ++t) {
      (*lengths)[t] = 0;
      for (int64_t b = 0; b < s.batch; ++b) (*lengths)[t] += m.ptr<float>()[(t * s.batch + b) * s.hidden] > 0;
    }
  }
};

template <class T>
Status Forward(const RecurrentShape& s, bool reverse, const Places& at, const Run& t) {
  Loaded<T> l(s, at, t, Dense::kWrite);
  Dense y(t[at.y], kDTypeOf<T>, Dense::kWrite);
  T* state[2] = {l.state[0].get(), l.state[1].get()};
  const Status status = RunCell<T, LstmCell>(s, s.input, l.weights(), l.x.template ptr<T>(), reverse,
                                             l.counts(), l.arrays, y.template ptr<T>(), s.hidden, state);
  RETURN_IF_ERROR(status);
  for (Dense& d : l.saved) d.Commit();
  y.Commit();
  return Status();
}

template <class T>
Status Backward(const RecurrentShape& s, bool reverse, const Places& at, const Run& t) {
  Loaded<T> l(s, at, t, Dense::kRead);
  const Dense dy(t[at.dy], kDTypeOf<T>, Dense::kRead);
  const anycann::Buffer<T> dw = NewBuffer<T>(4 * s.hidden * s.input),
                           dwh = NewBuffer<T>(4 * s.hidden * s.hidden);
  const anycann::Buffer<T> dx = NewBuffer<T>(s.steps * s.batch * s.input), db = NewBuffer<T>(4 * s.hidden);
  anycann::Buffer<T> dstate[2] = {NewBuffer<T>(s.step_elements()), NewBuffer<T>(s.step_elements())};
  for (int k = 0; k < 2; ++k) {
    const TensorView& from = t[k == 0 ? at.dh : at.dc];
    CopyCast(TensorView::Contiguous(dstate[k].get(), kDTypeOf<T>, from.dims, from.rank), from);
  }
  std::fill(dx.get(), dx.get() + s.steps * s.batch * s.input, T(0));
  T* states[2] = {dstate[0].get(), dstate[1].get()};
  const T* initial[2] = {l.state[0].get(), l.state[1].get()};
  const Status status = RunCellBackward<T, LstmCell>(
      s, s.input, l.weights(), l.x.template ptr<T>(), reverse, l.counts(), l.arrays, initial, dy.ptr<T>(),
      s.hidden, states, dx.get(), {dw.get(), dwh.get(), db.get(), nullptr});
  RETURN_IF_ERROR(status);
  CopyCast(l.InputPart(t[at.dw]), l.Rows(dw.get(), s.input));
  CopyCast(at.dwh >= 0 ? l.All(t[at.dwh], s.hidden) : l.HiddenPart(t[at.dw]), l.Rows(dwh.get(), s.hidden));
  const auto store = [&t](int place, const anycann::Buffer<T>& values) {
    CopyCast(t[place], TensorView::Contiguous(values.get(), kDTypeOf<T>, t[place].dims, t[place].rank));
  };
  store(at.db, db), store(at.dx, dx), store(at.dh0, dstate[0]), store(at.dc0, dstate[1]);
  return Status();
}

Cost CostOf(const RecurrentShape& s, double factor) {
  return {factor * 8 * static_cast<double>(s.elements()) * static_cast<double>(s.input + s.hidden), 0};
}

// A mask of all states; other tensors in its place (zeros without shape) mean none.
const aclTensor* MaskOf(const aclTensor* t, const RecurrentShape& s) {
  return t != nullptr && t->view.numel() == s.elements() && t->view.rank == 3 ? t : nullptr;
}

// Outputs: y, output_h, output_c, i, j, f, o, tanhc. `wh` is nullptr where the weights are joined.
Status LaunchForward(Call& call, Arguments& a, const aclTensor* wh, size_t bias) {
  RETURN_IF_ERROR(CheckAttributes(call, a));
  RecurrentShape s;
  RETURN_IF_ERROR(ShapeOf(call, a.In(0), a.Out(0), &s));
  const aclTensor *h0 = a.In(bias + 2), *c0 = a.In(bias + 3);
  RETURN_IF_ERROR(CheckOperands(
      call, s, {h0, c0}, {a.Out(0), a.Out(1), a.Out(2), a.Out(3), a.Out(4), a.Out(5), a.Out(6), a.Out(7)},
      a.In(1), wh, a.In(bias)));
  if (s.elements() == 0) return call.Nothing();
  OperandList o;
  Places at{};
  at.x = o.In(a.In(0)), at.w = o.In(a.In(1)), at.wh = o.In(wh), at.b = o.In(a.In(bias));
  at.mask = o.In(MaskOf(a.In(bias + 1), s)), at.h0 = o.In(h0), at.c0 = o.In(c0);
  const size_t outputs[LstmCell::kSaved] = {3, 4, 5, 6,
                                            1, 2, 7};  // in the cell's order: i, g, f, o, h, c, tanh(c)
  for (int k = 0; k < LstmCell::kSaved; ++k) at.saved[k] = o.Out(a.Out(outputs[k]));
  at.y = o.Out(a.Out(0));
  const bool reverse = a.Text("direction", "") == "REDIRECTIONAL",
             wide = a.In(0)->view.dtype == DType::kDouble;
  return call.Launch(o.list(), CostOf(s, 1), [s, at, reverse, wide](const Run& t) -> Status {
    return wide ? Forward<double>(s, reverse, at, t) : Forward<float>(s, reverse, at, t);
  });
}

// `first`: the position of y among the inputs; before it are x and the weights. Outputs: dw (and dw_h), db,
// dx, dh, dc.
Status LaunchBackward(Call& call, Arguments& a, const aclTensor* wh, const aclTensor* b, size_t first) {
  RETURN_IF_ERROR(CheckAttributes(call, a));
  RecurrentShape s;
  RETURN_IF_ERROR(ShapeOf(call, a.In(0), a.In(first), &s));
  const aclTensor *h0 = a.In(first + 1), *c0 = a.In(first + 2), *dy = a.In(first + 5), *dh = a.In(first + 6),
                  *dc = a.In(first + 7);
  const size_t next = wh ? 2 : 1;
  const aclTensor *dw = a.Out(0), *dwh = wh ? a.Out(1) : nullptr, *db = a.Out(next), *dx = a.Out(next + 1),
                  *dh0 = a.Out(next + 2), *dc0 = a.Out(next + 3);
  const size_t inputs[LstmCell::kSaved] = {first + 8, first + 9, first + 10, first + 11,
                                           first + 3, first + 4, first + 12};
  RETURN_IF_ERROR(CheckOperands(call, s, {h0, c0, dh, dc, dh0, dc0}, {dy}, a.In(1), wh, b));
  RETURN_IF_ERROR(CheckOperands(call, s, {}, {}, dw, dwh, db));
  for (size_t i : inputs) RETURN_IF_ERROR(RequireCount(call, a.In(i), "a tensor of all steps", s.elements()));
  RETURN_IF_ERROR(RequireCount(call, dx, "dx", a.In(0)->view.numel()));
  if (s.elements() == 0) return call.Nothing();
  OperandList o;
  Places at{};
  at.x = o.In(a.In(0)), at.w = o.In(a.In(1)), at.wh = o.In(wh), at.b = -1;
  at.mask = o.In(MaskOf(a.In(first + 13), s)), at.h0 = o.In(h0), at.c0 = o.In(c0);
  for (int k = 0; k < LstmCell::kSaved; ++k) at.saved[k] = o.In(a.In(inputs[k]));
  at.dy = o.In(dy), at.dh = o.In(dh), at.dc = o.In(dc);
  at.dw = o.Out(dw), at.dwh = o.Out(dwh), at.db = o.Out(db), at.dx = o.Out(dx), at.dh0 = o.Out(dh0),
  at.dc0 = o.Out(dc0);
  const bool reverse = a.Text("direction", "") == "REDIRECTIONAL",
             wide = a.In(0)->view.dtype == DType::kDouble;
  return call.Launch(o.list(), CostOf(s, 2), [s, at, reverse, wide](const Run& t) -> Status {
    return wide ? Backward<double>(s, reverse, at, t) : Backward<float>(s, reverse, at, t);
  });
}

}  // namespace

Status DynamicRnn(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 8));
  return LaunchForward(call, a, nullptr, 2);
}
Status DynamicRnnV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 8));
  return LaunchForward(call, a, a.In(2), 3);
}
Status DynamicRnnGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(16, 5));
  return LaunchBackward(call, a, nullptr, a.In(2), 3);
}
Status DynamicRnnV2Grad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(16, 6));
  return LaunchBackward(call, a, a.In(2), nullptr, 3);
}

}  // namespace anycann::aclop

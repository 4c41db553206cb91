// DynamicGRUV2: one direction of one GRU layer, and its gradients. Weights come as [inputs, 3 * hidden], with
// the gates reset, update and new; all states of all steps are outputs.
#include <algorithm>

#include "aclop_operators.h"
#include "ops/rnn/recurrent.h"

namespace anycann::aclop {
namespace {

// Positions of the operands in the Plan.
enum Place {
  kX,
  kWeight,
  kHiddenWeight,
  kBias,
  kHiddenBias,
  kInitial,
  kReset,
  kUpdate,
  kNew,
  kHiddenNew,
  kStates,
  kY,
  kPlaces
};
enum Gradient { kDy = kPlaces, kDh, kDw, kDwHidden, kDb, kDbHidden, kDx, kDhInitial };

Status CheckAttributes(Arguments& a) {
  const std::string order = a.Text("gate_order", "zrh"), direction = a.Text("direction", "UNIDIRECTIONAL");
  if (order != "rzh") return a.call().Invalid("gate_order is \"{}\", expected \"rzh\"", order);
  if (direction != "UNIDIRECTIONAL" || a.Text("activation", "tanh") != "tanh" ||
      a.Number("num_proj", 0) != 0 || a.Number("cell_clip", -1) > 0 || !a.Flag(a.Attr("reset_after", true)) ||
      !a.Flag(a.Attr("time_major", true)))
    return a.call().Invalid(
        "only plain GRU cells in one direction are supported: activation tanh, reset_after, time_major, no "
        "projection or clip");
  return a.status();
}

Status RequireCounts(Call& call, std::initializer_list<const aclTensor*> tensors, int64_t count,
                     const char* what) {
  for (const aclTensor* t : tensors)
    if (t != nullptr && t->view.numel() != count)
      return call.Invalid("{} has shape {}, expected {} elements", what, ShapeString(t->view), count);
  return Status();
}

Status ReadShape(Arguments& a, const aclTensor* states, RecurrentShape* s) {
  RETURN_IF_ERROR(a.call().RequireRank(a.In(0), "x", 3, 3));
  RETURN_IF_ERROR(a.call().RequireRank(states, "the states", 3, 3));
  const TensorView& x = a.In(0)->view;
  if (!IsFloating(x.dtype))
    return a.call().Invalid("x has type {}, expected a floating-point type", Name(x.dtype));
  s->steps = x.dims[0];
  s->batch = x.dims[1];
  s->input = x.dims[2];
  s->hidden = states->view.dims[2];
  RETURN_IF_ERROR(RequireCounts(a.call(), {a.In(1)}, 3 * s->hidden * s->input, "weight_input"));
  return RequireCounts(a.call(), {a.In(2)}, 3 * s->hidden * s->hidden, "weight_hidden");
}

template <class T>
struct Loaded {
  RecurrentShape s;
  Dense x;
  anycann::Buffer<T> weight, hidden_weight, bias, hidden_bias, state;
  std::vector<Dense> saved;
  CellArrays<T, GruCell> arrays;

  Loaded(const RecurrentShape& shape, const Run& t, bool biases, Dense::Use use)
      : s(shape),
        x(t[kX], kDTypeOf<T>, Dense::kRead),
        weight(Weights(t[kWeight], s.input)),
        hidden_weight(Weights(t[kHiddenWeight], s.hidden)),
        bias(Row(t[kBias], 3 * s.hidden, biases)),
        hidden_bias(Row(t[kHiddenBias], 3 * s.hidden, biases)),
        state(Row(t[kInitial], s.step_elements(), true)) {
    for (int place : {kReset, kUpdate, kNew, kHiddenNew, kStates})
      saved.emplace_back(t[place], kDTypeOf<T>, use);
    for (int k = 0; k < GruCell::kSaved; ++k)
      arrays.saved[k] = saved[static_cast<size_t>(k)].template ptr<T>();
  }
  CellWeights<T> weights() const {
    return {weight.get(), hidden_weight.get(), bias.get(), hidden_bias.get()};
  }
  // [inputs, 3 H] memory as the engine's [3 H, inputs].
  TensorView Gates(const TensorView& w, int64_t inputs) const {
    return TensorView::Contiguous(w.data, w.dtype, {inputs, 3 * s.hidden}).Transpose(0, 1);
  }
  TensorView Dense3(T* p, int64_t inputs) const {
    return TensorView::Contiguous(p, kDTypeOf<T>, {3 * s.hidden, inputs});
  }

 private:
  anycann::Buffer<T> Weights(const TensorView& w, int64_t inputs) const {
    anycann::Buffer<T> values = NewBuffer<T>(3 * s.hidden * inputs);
    CopyCast(Dense3(values.get(), inputs), Gates(w, inputs));
    return values;
  }
  static anycann::Buffer<T> Row(const TensorView& v, int64_t count, bool given) {
    anycann::Buffer<T> values = NewBuffer<T>(count);
    std::fill(values.get(), values.get() + count, T(0));
    if (given && v.numel() == count)
      CopyCast(TensorView::Contiguous(values.get(), kDTypeOf<T>, v.dims, v.rank), v);
    return values;
  }
};

template <class T>
Status Forward(const RecurrentShape& s, const Run& t) {
  Loaded<T> l(s, t, true, Dense::kWrite);
  Dense y(t[kY], kDTypeOf<T>, Dense::kWrite);
  T* state[1] = {l.state.get()};
  const Status status = RunCell<T, GruCell>(s, s.input, l.weights(), l.x.template ptr<T>(), false, nullptr,
                                            l.arrays, y.template ptr<T>(), s.hidden, state);
  RETURN_IF_ERROR(status);
  for (Dense& d : l.saved) d.Commit();
  y.Commit();
  return Status();
}

template <class T>
Status Backward(const RecurrentShape& s, const Run& t) {
  Loaded<T> l(s, t, false, Dense::kRead);
  const Dense dy(t[kDy], kDTypeOf<T>, Dense::kRead);
  const anycann::Buffer<T> dw = NewBuffer<T>(3 * s.hidden * s.input),
                           dwh = NewBuffer<T>(3 * s.hidden * s.hidden), db = NewBuffer<T>(3 * s.hidden),
                           dbh = NewBuffer<T>(3 * s.hidden), dx = NewBuffer<T>(s.steps * s.batch * s.input),
                           dstate = NewBuffer<T>(s.step_elements());
  std::fill(dx.get(), dx.get() + s.steps * s.batch * s.input, T(0));
  CopyCast(TensorView::Contiguous(dstate.get(), kDTypeOf<T>, t[kDh].dims, t[kDh].rank), t[kDh]);
  T* dstates[1] = {dstate.get()};
  const T* initial[1] = {l.state.get()};
  const Status status = RunCellBackward<T, GruCell>(
      s, s.input, l.weights(), l.x.template ptr<T>(), false, nullptr, l.arrays, initial, dy.ptr<T>(),
      s.hidden, dstates, dx.get(), {dw.get(), dwh.get(), db.get(), dbh.get()});
  RETURN_IF_ERROR(status);
  CopyCast(l.Gates(t[kDw], s.input), l.Dense3(dw.get(), s.input));
  CopyCast(l.Gates(t[kDwHidden], s.hidden), l.Dense3(dwh.get(), s.hidden));
  const auto store = [&t](int place, const anycann::Buffer<T>& values) {
    CopyCast(t[place], TensorView::Contiguous(values.get(), kDTypeOf<T>, t[place].dims, t[place].rank));
  };
  store(kDb, db), store(kDbHidden, dbh), store(kDx, dx), store(kDhInitial, dstate);
  return Status();
}

// Absent operands keep their place with x's.
Arg Given(const aclTensor* t, const aclTensor* x) {
  if (t != nullptr) return anycann::In(t);
  TensorView none = x->view;
  none.rank = 1, none.dims[0] = 0, none.strides[0] = 1;
  return anycann::In(x, none);
}

Cost CostOf(const RecurrentShape& s, double factor) {
  return {factor * 6 * static_cast<double>(s.elements()) * static_cast<double>(s.input + s.hidden), 0};
}

}  // namespace

// x, weight_input, weight_hidden, bias_input, bias_hidden, seq_length, init_h -> y, output_h, update, reset,
// new, hidden_new.
Status DynamicGruV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 6));
  RETURN_IF_ERROR(CheckAttributes(a));
  RecurrentShape s;
  RETURN_IF_ERROR(ReadShape(a, a.Out(0), &s));
  if (a.In(5) != nullptr) return call.Invalid("seq_length is given, expected none");
  for (size_t i = 0; i < 6; ++i) RETURN_IF_ERROR(RequireCounts(call, {a.Out(i)}, s.elements(), "an output"));
  RETURN_IF_ERROR(RequireCounts(call, {a.In(3), a.In(4)}, 3 * s.hidden, "a bias"));
  RETURN_IF_ERROR(RequireCounts(call, {a.In(6)}, s.step_elements(), "init_h"));
  if (s.elements() == 0) return call.Nothing();
  const aclTensor* x = a.In(0);
  const Arg operands[] = {anycann::In(x),         anycann::In(a.In(1)),   anycann::In(a.In(2)),
                          Given(a.In(3), x),      Given(a.In(4), x),      Given(a.In(6), x),
                          anycann::Out(a.Out(3)), anycann::Out(a.Out(2)), anycann::Out(a.Out(4)),
                          anycann::Out(a.Out(5)), anycann::Out(a.Out(1)), anycann::Out(a.Out(0))};
  const bool wide = x->view.dtype == DType::kDouble;
  return call.Launch(operands, CostOf(s, 1), [s, wide](const Run& t) -> Status {
    return wide ? Forward<double>(s, t) : Forward<float>(s, t);
  });
}

// x, weight_input, weight_hidden, y, init_h, h, dy, dh, update, reset, new, hidden_new -> dw_input,
// dw_hidden, db_input, db_hidden, dx, dh_prev. What follows the inputs says no lengths.
Status DynamicGruV2Grad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(12, 6));
  RETURN_IF_ERROR(CheckAttributes(a));
  RecurrentShape s;
  RETURN_IF_ERROR(ReadShape(a, a.In(3), &s));
  for (size_t i : {5, 6, 8, 9, 10, 11})
    RETURN_IF_ERROR(RequireCounts(call, {a.In(i)}, s.elements(), "a tensor of all steps"));
  RETURN_IF_ERROR(RequireCounts(call, {a.In(4), a.In(7), a.Out(5)}, s.step_elements(), "a state"));
  RETURN_IF_ERROR(RequireCounts(call, {a.Out(0)}, 3 * s.hidden * s.input, "dw_input"));
  RETURN_IF_ERROR(RequireCounts(call, {a.Out(1)}, 3 * s.hidden * s.hidden, "dw_hidden"));
  RETURN_IF_ERROR(RequireCounts(call, {a.Out(2), a.Out(3)}, 3 * s.hidden, "a bias's gradient"));
  RETURN_IF_ERROR(RequireCounts(call, {a.Out(4)}, a.In(0)->view.numel(), "dx"));
  if (s.elements() == 0) return call.Nothing();
  const aclTensor* x = a.In(0);
  const Arg none = Given(nullptr, x);
  const Arg operands[] = {anycann::In(x),
                          anycann::In(a.In(1)),
                          anycann::In(a.In(2)),
                          none,
                          none,
                          anycann::In(a.In(4)),
                          anycann::In(a.In(9)),
                          anycann::In(a.In(8)),
                          anycann::In(a.In(10)),
                          anycann::In(a.In(11)),
                          anycann::In(a.In(5)),
                          anycann::In(a.In(3)),
                          anycann::In(a.In(6)),
                          anycann::In(a.In(7)),
                          anycann::Out(a.Out(0)),
                          anycann::Out(a.Out(1)),
                          anycann::Out(a.Out(2)),
                          anycann::Out(a.Out(3)),
                          anycann::Out(a.Out(4)),
                          anycann::Out(a.Out(5))};
  const bool wide = x->view.dtype == DType::kDouble;
  return call.Launch(operands, CostOf(s, 2), [s, wide](const Run& t) -> Status {
    return wide ? Backward<double>(s, t) : Backward<float>(s, t);
  });
}

}  // namespace anycann::aclop

#include "ops/rnn/recurrent.h"

#include <algorithm>
#include <type_traits>

#include "base/parallel.h"
#include "base/vector_math.h"
#include "ops/matmul/gemm.h"

namespace anycann {
namespace {

// out[m, n] = a @ b (+ out where `add`, + bias along the rows where there is one).
template <class T>
Status Multiply(int64_t m, int64_t n, int64_t k, const MatrixView& a, const MatrixView& b, T* out,
                bool add = false, const T* bias = nullptr) {
  if (m == 0 || n == 0) return Status();
  GemmArgs g;
  g.m = m, g.n = n, g.k = k;
  g.a = a, g.b = b, g.out = MatrixView::OfRows(out, n);
  if (add) g.addend = g.out;
  if (bias != nullptr) g.addend = MatrixView::OfRows(bias, 0);
  return Gemm(g);
}

template <class T>
void AddColumns(const T* rows, int64_t m, int64_t n, T* sums) {
  ParallelFor(n, std::max<int64_t>(64, 16384 / std::max<int64_t>(m, 1)), [&](int64_t b, int64_t e) {
    double total[64];
    for (; b < e; b += 64) {
      const int64_t count = std::min<int64_t>(64, e - b);
      std::fill(total, total + count, 0.0);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < count; ++j) total[j] += static_cast<double>(rows[i * n + b + j]);
      for (int64_t j = 0; j < count; ++j) sums[b + j] = static_cast<T>(total[j]);
    }
  });
}

// One row of the batch at one step. `gates`: the input's part, then (GRU) `hidden`: the state's part. Saved
// pointers are of this row and may be null but for the states.
template <class T>
void ForwardRow(LstmCell, int64_t n, const T* __restrict gates, const T*, T* const* state, T* const* saved) {
  T* __restrict h = state[0], * __restrict c = state[1];
  const T *in = gates, *forget = gates + n, *cell = gates + 2 * n, *out = gates + 3 * n;
  for (int64_t j = 0; j < n; ++j) {
    const T i = math::Sigmoid(in[j]), f = math::Sigmoid(forget[j]), g = math::Tanh(cell[j]),
            o = math::Sigmoid(out[j]);
    const T next = f * c[j] + i * g, bounded = math::Tanh(next);
    c[j] = next;
    h[j] = o * bounded;
    if (saved[0] != nullptr)
      saved[LstmCell::kI][j] = i, saved[LstmCell::kG][j] = g, saved[LstmCell::kF][j] = f,
      saved[LstmCell::kO][j] = o, saved[LstmCell::kTanhC][j] = bounded;
  }
  std::copy(h, h + n, saved[LstmCell::kH]);
  std::copy(c, c + n, saved[LstmCell::kC]);
}
template <class T>
void ForwardRow(GruCell, int64_t n, const T* __restrict gates, const T* __restrict hidden, T* const* state,
                T* const* saved) {
  T* __restrict h = state[0];
  for (int64_t j = 0; j < n; ++j) {
    const T r = math::Sigmoid(gates[j] + hidden[j]), z = math::Sigmoid(gates[n + j] + hidden[n + j]),
            hn = hidden[2 * n + j];
    const T candidate = math::Tanh(gates[2 * n + j] + r * hn);
    h[j] = candidate + z * (h[j] - candidate);
    if (saved[0] != nullptr)
      saved[GruCell::kR][j] = r, saved[GruCell::kZ][j] = z, saved[GruCell::kN][j] = candidate,
      saved[GruCell::kHn][j] = hn;
  }
  std::copy(h, h + n, saved[GruCell::kH]);
}

// The gradients of one row's gates: `dgates` the input's side, `dhidden` the state's side (GRU; the same for
// LSTM). `dstate` are the gradients of the states after the step and become those before it, but for the
// matrix product.
template <class T>
void BackwardRow(LstmCell, int64_t n, const T* const* saved, const T* const* previous, T* const* dstate,
                 T* __restrict dgates, T*) {
  const T *i = saved[LstmCell::kI], *g = saved[LstmCell::kG], *f = saved[LstmCell::kF],
          *o = saved[LstmCell::kO], *bounded = saved[LstmCell::kTanhC], *c = previous[1];
  T *dh = dstate[0], *dc = dstate[1];
  for (int64_t j = 0; j < n; ++j) {
    const T d = dc[j] + dh[j] * o[j] * (1 - bounded[j] * bounded[j]);
    dgates[j] = d * g[j] * i[j] * (1 - i[j]);
    dgates[n + j] = d * c[j] * f[j] * (1 - f[j]);
    dgates[2 * n + j] = d * i[j] * (1 - g[j] * g[j]);
    dgates[3 * n + j] = dh[j] * bounded[j] * o[j] * (1 - o[j]);
    dc[j] = d * f[j];
    dh[j] = 0;
  }
}
template <class T>
void BackwardRow(GruCell, int64_t n, const T* const* saved, const T* const* previous, T* const* dstate,
                 T* __restrict dgates, T* __restrict dhidden) {
  const T *r = saved[GruCell::kR], *z = saved[GruCell::kZ], *c = saved[GruCell::kN],
          *hn = saved[GruCell::kHn], *h = previous[0];
  T* dh = dstate[0];
  for (int64_t j = 0; j < n; ++j) {
    const T dn = dh[j] * (1 - z[j]) * (1 - c[j] * c[j]), dz = dh[j] * (h[j] - c[j]) * z[j] * (1 - z[j]);
    const T dr = dn * hn[j] * r[j] * (1 - r[j]);
    dgates[j] = dhidden[j] = dr;
    dgates[n + j] = dhidden[n + j] = dz;
    dgates[2 * n + j] = dn;
    dhidden[2 * n + j] = dn * r[j];
    dh[j] *= z[j];
  }
}

template <class Cell>
constexpr bool kSplit = std::is_same_v<Cell, GruCell>;  // the state's part of the gates is needed apart

// Index of the saved array of state k.
template <class Cell>
constexpr int kStateArray[2] = {Cell::kH, Cell::kSaved - 2};

int64_t RowGrain(int64_t hidden) { return std::max<int64_t>(1, 2048 / std::max<int64_t>(1, hidden)); }

}  // namespace

template <class T, class Cell>
Status RunCell(const RecurrentShape& s, int64_t width, const CellWeights<T>& w, const T* x, bool reverse,
               const int64_t* lengths, const CellArrays<T, Cell>& arrays, T* y, int64_t y_stride,
               T* const* state) {
  const int64_t n = s.hidden, columns = Cell::kGates * n, rows = s.steps * s.batch;
  const auto gates = NewBuffer<T>(rows * columns),
             hidden = NewBuffer<T>(kSplit<Cell> ? s.batch * columns : 0);
  RETURN_IF_ERROR(Multiply(rows, columns, width, MatrixView::OfRows(x, width),
                           MatrixView::OfRows(w.input, width).Transposed(), gates.get(), false,
                           w.input_bias));
  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t t = reverse ? s.steps - 1 - step : step;
    T* in = gates.get() + t * s.batch * columns;
    const MatrixView weights = MatrixView::OfRows(w.hidden, n).Transposed();
    if (kSplit<Cell>)
      RETURN_IF_ERROR(Multiply(s.batch, columns, n, MatrixView::OfRows(state[0], n), weights, hidden.get(),
                               false, w.hidden_bias));
    else
      RETURN_IF_ERROR(Multiply(s.batch, columns, n, MatrixView::OfRows(state[0], n), weights, in, true));
    ParallelFor(s.batch, RowGrain(n), [&](int64_t b, int64_t e) {
      for (; b < e; ++b) {
        T* out = y + (t * s.batch + b) * y_stride;
        T *row_state[2], *saved[Cell::kSaved];
        for (int k = 0; k < Cell::kStates; ++k) row_state[k] = state[k] + b * n;
        for (int k = 0; k < Cell::kSaved; ++k)
          saved[k] = arrays.saved[k] ? arrays.saved[k] + (t * s.batch + b) * n : nullptr;
        if (lengths != nullptr && b >= lengths[t]) {
          std::fill(out, out + n, T(0));
          for (int k = 0; k < Cell::kSaved; ++k)
            if (saved[k]) std::fill(saved[k], saved[k] + n, T(0));
          for (int k = 0; k < Cell::kStates; ++k)
            std::copy(row_state[k], row_state[k] + n, saved[kStateArray<Cell>[k]]);
          continue;
        }
        if (!kSplit<Cell> && w.hidden_bias != nullptr)
          for (int64_t j = 0; j < columns; ++j) in[b * columns + j] += w.hidden_bias[j];
        ForwardRow(Cell(), n, in + b * columns, hidden.get() + (kSplit<Cell> ? b * columns : 0), row_state,
                   saved);
        std::copy(row_state[0], row_state[0] + n, out);
      }
    });
  }
  return Status();
}

template <class T, class Cell>
Status RunCellBackward(const RecurrentShape& s, int64_t width, const CellWeights<T>& w, const T* x,
                       bool reverse, const int64_t* lengths, const CellArrays<T, Cell>& arrays,
                       const T* const* initial, const T* dy, int64_t dy_stride, T* const* dstate, T* dx,
                       const CellGradients<T>& dw) {
  const int64_t n = s.hidden, columns = Cell::kGates * n, rows = s.steps * s.batch, step_rows = s.batch * n;
  const auto dgates = NewBuffer<T>(rows * columns), split = NewBuffer<T>(kSplit<Cell> ? rows * columns : 0);
  T* dhidden = kSplit<Cell> ? split.get() : dgates.get();
  const auto before = NewBuffer<T>(rows * n);  // the hidden state before each step
  for (int64_t step = s.steps - 1; step >= 0; --step) {
    const int64_t t = reverse ? s.steps - 1 - step : step, earlier = reverse ? t + 1 : t - 1;
    ParallelFor(s.batch, RowGrain(n), [&](int64_t b, int64_t e) {
      for (; b < e; ++b) {
        const int64_t row = t * s.batch + b;
        const T *saved[Cell::kSaved], *previous[2] = {};
        T* row_dstate[2] = {};
        for (int k = 0; k < Cell::kSaved; ++k) saved[k] = arrays.saved[k] + row * n;
        for (int k = 0; k < Cell::kStates; ++k) {
          previous[k] =
              (step == 0 ? initial[k] : arrays.saved[kStateArray<Cell>[k]] + earlier * step_rows) + b * n;
          row_dstate[k] = dstate[k] + b * n;
        }
        std::copy(previous[0], previous[0] + n, &before[row * n]);
        if (lengths != nullptr && b >= lengths[t]) {
          std::fill(&dgates[row * columns], &dgates[row * columns] + columns, T(0));
          std::fill(dhidden + row * columns, dhidden + (row + 1) * columns, T(0));
          continue;
        }
        if (dy != nullptr)
          for (int64_t j = 0; j < n; ++j) row_dstate[0][j] += dy[row * dy_stride + j];
        BackwardRow(Cell(), n, saved, previous, row_dstate, &dgates[row * columns], dhidden + row * columns);
      }
    });
    RETURN_IF_ERROR(Multiply(s.batch, n, columns,
                             MatrixView::OfRows(dhidden + t * s.batch * columns, columns),
                             MatrixView::OfRows(w.hidden, n), dstate[0], true));
  }
  const MatrixView all = MatrixView::OfRows(dgates.get(), columns);
  if (dx != nullptr)
    RETURN_IF_ERROR(Multiply(rows, width, columns, all, MatrixView::OfRows(w.input, width), dx, true));
  if (dw.input != nullptr)
    RETURN_IF_ERROR(Multiply(columns, width, rows, all.Transposed(), MatrixView::OfRows(x, width), dw.input));
  if (dw.hidden != nullptr)
    RETURN_IF_ERROR(Multiply(columns, n, rows, MatrixView::OfRows(dhidden, columns).Transposed(),
                             MatrixView::OfRows(before.get(), n), dw.hidden));
  if (dw.input_bias != nullptr) AddColumns(dgates.get(), rows, columns, dw.input_bias);
  if (dw.hidden_bias != nullptr) AddColumns(static_cast<const T*>(dhidden), rows, columns, dw.hidden_bias);
  return Status();
}

#define ANYCANN_INSTANTIATE(T, Cell)                                                                        \
  template Status RunCell<T, Cell>(const RecurrentShape&, int64_t, const CellWeights<T>&, const T*, bool,   \
                                   const int64_t*, const CellArrays<T, Cell>&, T*, int64_t, T* const*);     \
  template Status RunCellBackward<T, Cell>(const RecurrentShape&, int64_t, const CellWeights<T>&, const T*, \
                                           bool, const int64_t*, const CellArrays<T, Cell>&,                \
                                           const T* const*, const T*, int64_t, T* const*, T*,               \
                                           const CellGradients<T>&);
ANYCANN_INSTANTIATE(float, LstmCell)
ANYCANN_INSTANTIATE(double, LstmCell)
ANYCANN_INSTANTIATE(float, GruCell)
ANYCANN_INSTANTIATE(double, GruCell)
#undef ANYCANN_INSTANTIATE

}  // namespace anycann

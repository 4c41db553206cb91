#include "ops/norm/rows.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "base/parallel.h"
#include "ops/norm/lanes.h"

namespace anycann {
namespace {

constexpr int64_t kParallelElements = 16384;  // elements that are worth waking a thread for

// The dense form of an optional operand.
std::optional<DenseInput> Dense(const TensorView* v) {
  return v ? std::optional<DenseInput>(std::in_place, *v) : std::nullopt;
}
std::optional<DenseOutput> DenseOut(const TensorView* v) {
  return v ? std::optional<DenseOutput>(std::in_place, *v) : std::nullopt;
}
template <class O>
bool Ok(const std::optional<O>& o) {
  return !o || o->ok();
}

// Rows of `scale * x + residual + bias`, in place where that is x itself.
template <class T>
struct RowSource {
  DenseReader<T> x, residual;
  T scale = 1;
  const T* bias = nullptr;
  bool plain() const { return residual.data == nullptr && bias == nullptr && scale == 1; }

  const T* Read(int64_t row, int64_t n, T* buffer, T* other) const {
    const T* a = x.Read(row * n, n, buffer);
    if (plain()) return a;
    if (residual.data != nullptr) {
      const T* b = residual.Read(row * n, n, other);
      for (int64_t i = 0; i < n; ++i) buffer[i] = scale * a[i] + b[i];
    } else {
      for (int64_t i = 0; i < n; ++i) buffer[i] = scale * a[i];
    }
    if (bias != nullptr)
      for (int64_t i = 0; i < n; ++i) buffer[i] += bias[i];
    return buffer;
  }
};

// gamma of the row, ready to multiply with: ones when there is none.
template <class T>
class RowGamma {
 public:
  RowGamma(const TensorView* gamma, int64_t n, double offset) {
    if (gamma != nullptr) values_ = Values<T>(*gamma);
    p_ = values_.get();
    if (!values_.ok() || (gamma != nullptr && offset == 0)) return;
    own_ = Scratch<T>(n);
    if (own_.ok())
      for (int64_t i = 0; i < n; ++i) own_[i] = p_ ? p_[i] + static_cast<T>(offset) : T(1);
    p_ = own_.get();
  }
  bool ok() const { return p_ != nullptr; }
  const T* get() const { return p_; }

 private:
  Values<T> values_;
  Scratch<T> own_;
  const T* p_;
};

// Mean (0 when not centred) and 1/sqrt(variance + eps) of a row.
template <class T>
void RowStatistics(const T* x, const RowNorm& norm, double* mean, double* rstd) {
  if (norm.centred) {
    Moments m;
    for (int64_t i = 0; i < norm.n; i += kNormBlock<T>)
      m.Merge(BlockMoments(x + i, std::min(kNormBlock<T>, norm.n - i)));
    *mean = m.mean;
    *rstd = 1 / std::sqrt(m.Variance() + norm.eps);
    return;
  }
  double squares = 0;
  for (int64_t i = 0; i < norm.n; i += kNormBlock<T>) {
    LaneSum<T> sum;
    sum.Add(
        std::min(kNormBlock<T>, norm.n - i), [](auto v) { return v * v; }, x + i);
    squares += sum.Total();
  }
  *mean = 0;
  *rstd = 1 / std::sqrt(squares / static_cast<double>(norm.n) + norm.eps);
}

template <class T>
void ApplyRow(const T* __restrict x, const T* __restrict gamma, const T* __restrict beta, T mean, T rstd,
              int64_t n, T* __restrict y) {
  if (beta != nullptr)
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * rstd * gamma[i] + beta[i];
  else
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * rstd * gamma[i];
}

template <class T>
void WriteRow(const DenseWriter<T>& w, int64_t start, int64_t n, const T* row) {
  if (w.direct())
    std::copy(row, row + n, reinterpret_cast<T*>(w.data) + start);
  else
    w.End(start, n, row);
}

// Sums of g and g * xhat over one block of a row, where g = dy * gamma; adds to the gradients of gamma and
// beta.
template <class T>
void BackwardSums(const T* __restrict dy, const T* __restrict x, const T* __restrict gamma, T mean, T rstd,
                  int64_t n, T* __restrict dgamma, T* __restrict dbeta, double* sum_g, double* sum_gx) {
  using L = Lanes<T>;
  constexpr int64_t k = L::kCount;
  typename L::Vector g_sum = {}, gx_sum = {};
  T g_tail = 0, gx_tail = 0;
  int64_t i = 0;
  for (; i + k <= n; i += k) {
    const auto d = L::Load(dy + i), xhat = (L::Load(x + i) - mean) * rstd, g = d * L::Load(gamma + i);
    L::Store(dgamma + i, L::Load(dgamma + i) + d * xhat);
    L::Store(dbeta + i, L::Load(dbeta + i) + d);
    g_sum += g;
    gx_sum += g * xhat;
  }
  for (; i < n; ++i) {
    const T xhat = (x[i] - mean) * rstd, g = dy[i] * gamma[i];
    dgamma[i] += dy[i] * xhat;
    dbeta[i] += dy[i];
    g_tail += g;
    gx_tail += g * xhat;
  }
  double g_total = g_tail, gx_total = gx_tail;
  for (int64_t j = 0; j < k; ++j)
    g_total += static_cast<double>(g_sum[j]), gx_total += static_cast<double>(gx_sum[j]);
  *sum_g += g_total;
  *sum_gx += gx_total;
}

template <class T>
void BackwardApply(const T* __restrict dy, const T* __restrict x, const T* __restrict gamma, T mean, T rstd,
                   T mean_g, T mean_gx, int64_t n, T* __restrict dx) {
  for (int64_t i = 0; i < n; ++i) {
    const T xhat = (x[i] - mean) * rstd;
    dx[i] = rstd * (dy[i] * gamma[i] - mean_g - xhat * mean_gx);
  }
}

// Rows per block of the backward pass: enough to keep the partial gradients small beside the operands.
int64_t BackwardBlockRows(int64_t rows, int64_t n) {
  const int64_t cached = std::clamp<int64_t>(65536 / std::max<int64_t>(n, 1), 1, 64);
  return std::max({cached, (rows + 63) / 64, n > 8192 ? (rows + 7) / 8 : int64_t{1}});
}

// out[j] = sum over blocks of partial[block][j].
template <class T>
void AddBlocks(const Scratch<T>& partial, int64_t blocks, int64_t n, Scratch<T>& out) {
  ParallelFor(n, std::max<int64_t>(256, kParallelElements / std::max<int64_t>(blocks, 1)),
              [&](int64_t b, int64_t e) {
                double sum[64];
                for (; b < e; b += 64) {
                  const int64_t m = std::min<int64_t>(64, e - b);
                  std::fill(sum, sum + m, 0.0);
                  for (int64_t k = 0; k < blocks; ++k)
                    for (int64_t j = 0; j < m; ++j) sum[j] += static_cast<double>(partial[k * n + b + j]);
                  for (int64_t j = 0; j < m; ++j) out[b + j] = static_cast<T>(sum[j]);
                }
              });
}

}  // namespace

template <class T>
Status RunRowNorm(const char* op, const RowNorm& norm, const RowNormForward& t) {
  const int64_t rows = norm.rows, n = norm.n;
  const auto x = Dense(t.x), residual = Dense(t.residual);
  const auto y = DenseOut(t.y), y2 = DenseOut(t.y2), sum = DenseOut(t.sum);
  const RowGamma<T> gamma(t.gamma, n, norm.gamma_offset);
  const Values<T> beta = t.beta ? Values<T>(*t.beta) : Values<T>(),
                  bias = t.bias ? Values<T>(*t.bias) : Values<T>();
  const Scratch<T> means(rows), rstds(rows);
  if (!Ok(x) || !Ok(residual) || !Ok(y) || !Ok(y2) || !Ok(sum) || !gamma.ok() || !beta.ok() || !bias.ok() ||
      !means.ok() || !rstds.ok())
    return ScratchFailed(op);
  RowSource<T> source;
  source.x = DenseReader<T>(x->view());
  if (residual) source.residual = DenseReader<T>(residual->view());
  source.scale = static_cast<T>(t.x_scale);
  source.bias = bias.get();
  DenseWriter<T> out(y->view()), out2, sum_out;
  if (y2) out2 = DenseWriter<T>(y2->view());
  if (sum) sum_out = DenseWriter<T>(sum->view());
  const bool buffered = !source.x.direct() || !source.plain() || !out.direct();
  std::atomic<bool> failed{false};
  ParallelFor(rows, std::max<int64_t>(1, kParallelElements / std::max<int64_t>(n, 1)),
              [&](int64_t b, int64_t e) {
                const Scratch<T> buffer(buffered ? 3 * n : 0);
                if (!buffer.ok()) {
                  failed = true;
                  return;
                }
                T *row_buffer = buffer.get(), *y_buffer = buffer.get() + n, *other = buffer.get() + 2 * n;
                for (int64_t r = b; r < e; ++r) {
                  const T* row = source.Read(r, n, row_buffer, other);
                  if (sum_out.data != nullptr) WriteRow(sum_out, r * n, n, row);
                  double mean, rstd;
                  RowStatistics(row, norm, &mean, &rstd);
                  means[r] = static_cast<T>(mean);
                  rstds[r] = static_cast<T>(rstd);
                  T* to = out.Begin(r * n, y_buffer);
                  ApplyRow(row, gamma.get(), beta.get(), means[r], rstds[r], n, to);
                  out.End(r * n, n, to);
                  if (out2.data != nullptr) WriteRow(out2, r * n, n, to);
                }
              });
  if (failed) return ScratchFailed(op);
  y->Finish();
  if (y2) y2->Finish();
  if (sum) sum->Finish();
  if (t.mean) StoreValues(*t.mean, means.get());
  if (t.rstd) StoreValues(*t.rstd, rstds.get());
  return Status();
}

namespace {

// The loop over one block of rows of the backward pass.
template <class T>
struct BackwardLoop {
  RowNorm norm;
  RowSource<T> source;
  DenseReader<T> dy, dsum;
  const T *mean, *rstd, *gamma;
  DenseWriter<T> dx, dresidual;

  bool buffered() const {
    return !source.x.direct() || !source.plain() || !dy.direct() || !dx.direct() || dsum.data != nullptr;
  }

  void Run(int64_t begin, int64_t end, T* buffer, T* dgamma, T* dbeta) const {
    const int64_t n = norm.n;
    T *x_buffer = buffer, *dy_buffer = buffer + n, *dx_buffer = buffer + 2 * n, *other = buffer + 3 * n;
    for (int64_t r = begin; r < end; ++r) {
      const T* x = source.Read(r, n, x_buffer, other);
      const T* g = dy.Read(r * n, n, dy_buffer);
      const T m = mean ? mean[r] : T(0);
      double sum_g = 0, sum_gx = 0;
      for (int64_t i = 0; i < n; i += kNormBlock<T>)
        BackwardSums(g + i, x + i, gamma + i, m, rstd[r], std::min(kNormBlock<T>, n - i), dgamma + i,
                     dbeta + i, &sum_g, &sum_gx);
      if (dx.data == nullptr) continue;
      const T mean_g = norm.centred ? static_cast<T>(sum_g / static_cast<double>(n)) : T(0);
      const T mean_gx = static_cast<T>(sum_gx / static_cast<double>(n));
      const bool shared = dresidual.data != nullptr || dsum.data != nullptr || source.scale != 1;
      T* to = shared ? dx_buffer : dx.Begin(r * n, dx_buffer);
      BackwardApply(g, x, gamma, m, rstd[r], mean_g, mean_gx, n, to);
      if (dsum.data != nullptr) {
        const T* s = dsum.Read(r * n, n, other);
        for (int64_t i = 0; i < n; ++i) to[i] += s[i];
      }
      if (dresidual.data != nullptr) WriteRow(dresidual, r * n, n, to);
      if (source.scale != 1)
        for (int64_t i = 0; i < n; ++i) to[i] *= source.scale;
      if (shared)
        WriteRow(dx, r * n, n, to);
      else
        dx.End(r * n, n, to);
    }
  }
};

}  // namespace

template <class T>
Status RunRowNormBackward(const char* op, const RowNorm& norm, const RowNormBackward& t) {
  const int64_t rows = norm.rows, n = norm.n;
  const auto x = Dense(t.x), residual = Dense(t.residual), dy = Dense(t.dy), dsum = Dense(t.dsum);
  const auto dx = DenseOut(t.dx), dresidual = DenseOut(t.dresidual);
  const RowGamma<T> gamma(t.gamma, n, norm.gamma_offset);
  const Values<T> mean = t.mean ? Values<T>(*t.mean) : Values<T>(), rstd(*t.rstd);
  const int64_t block_rows = BackwardBlockRows(rows, n), blocks = (rows + block_rows - 1) / block_rows;
  Scratch<T> dgamma(blocks * n), dbeta(blocks * n), total(n);
  if (!Ok(x) || !Ok(residual) || !Ok(dy) || !Ok(dsum) || !Ok(dx) || !Ok(dresidual) || !gamma.ok() ||
      !mean.ok() || !rstd.ok() || !dgamma.ok() || !dbeta.ok() || !total.ok())
    return ScratchFailed(op);
  BackwardLoop<T> loop;
  loop.norm = norm;
  loop.source.x = DenseReader<T>(x->view());
  if (residual) loop.source.residual = DenseReader<T>(residual->view());
  loop.source.scale = static_cast<T>(t.x_scale);
  loop.dy = DenseReader<T>(dy->view());
  if (dsum) loop.dsum = DenseReader<T>(dsum->view());
  loop.mean = mean.get(), loop.rstd = rstd.get(), loop.gamma = gamma.get();
  if (dx) loop.dx = DenseWriter<T>(dx->view());
  if (dresidual) loop.dresidual = DenseWriter<T>(dresidual->view());
  std::atomic<bool> failed{false};
  ParallelFor(blocks, std::max<int64_t>(1, kParallelElements / std::max<int64_t>(block_rows * n, 1)),
              [&](int64_t b, int64_t e) {
                const Scratch<T> buffer(loop.buffered() || dresidual ? 4 * n : 0);
                if (!buffer.ok()) {
                  failed = true;
                  return;
                }
                for (int64_t k = b; k < e; ++k) {
                  std::fill(&dgamma[k * n], &dgamma[k * n] + n, T(0));
                  std::fill(&dbeta[k * n], &dbeta[k * n] + n, T(0));
                  loop.Run(k * block_rows, std::min(rows, (k + 1) * block_rows), buffer.get(), &dgamma[k * n],
                           &dbeta[k * n]);
                }
              });
  if (failed) return ScratchFailed(op);
  if (dx) dx->Finish();
  if (dresidual) dresidual->Finish();
  if (t.dgamma) {
    AddBlocks(dgamma, blocks, n, total);
    StoreValues(*t.dgamma, total.get());
  }
  if (t.dbeta) {
    AddBlocks(dbeta, blocks, n, total);
    StoreValues(*t.dbeta, total.get());
  }
  return Status();
}

template Status RunRowNorm<float>(const char*, const RowNorm&, const RowNormForward&);
template Status RunRowNorm<double>(const char*, const RowNorm&, const RowNormForward&);
template Status RunRowNormBackward<float>(const char*, const RowNorm&, const RowNormBackward&);
template Status RunRowNormBackward<double>(const char*, const RowNorm&, const RowNormBackward&);

}  // namespace anycann

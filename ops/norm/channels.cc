#include "ops/norm/channels.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"

namespace anycann {
namespace {

constexpr int64_t kPartElements =
    16384;  // of one partial statistic: stays in second-level cache for the second pass
constexpr int64_t kBlockRows = 64;  // rows of one partial statistic by columns
constexpr int64_t kTile = 64;       // columns handled at a time

// How one channel's values are cut along memory: runs of `length` elements of `rows` rows.
struct Parts {
  int64_t rows, length, row_parts, inner_parts;
  explicit Parts(const ChannelGrid& g) {
    length = std::min(g.inner, kPartElements);
    rows = std::max<int64_t>(1, kPartElements / std::max<int64_t>(g.inner, 1));
    row_parts = (g.rows + rows - 1) / rows;
    inner_parts = length > 0 ? (g.inner + length - 1) / length : 0;
  }
  int64_t count() const { return row_parts * inner_parts; }
};

// Calls f(channel, part, row_begin, row_end, inner_begin, length) for every part of every channel.
template <class F>
void ForEachPart(const ChannelGrid& g, const Parts& parts, F&& f) {
  const int64_t each = std::max<int64_t>(1, std::min(parts.rows, g.rows) * parts.length);
  ParallelFor(
      g.channels * parts.count(), std::max<int64_t>(1, kPartElements / each), [&](int64_t b, int64_t e) {
        for (int64_t k = b; k < e; ++k) {
          const int64_t c = k / parts.count(), part = k % parts.count();
          const int64_t row = part / parts.inner_parts * parts.rows,
                        start = part % parts.inner_parts * parts.length;
          f(c, part, row, std::min(g.rows, row + parts.rows), start, std::min(parts.length, g.inner - start));
        }
      });
}

// Calls f(block, row_begin, row_end, column, columns) for every tile of every block of rows.
template <class F>
void ForEachTile(const ChannelGrid& g, F&& f) {
  const int64_t columns = g.channels * g.inner, tiles = (columns + kTile - 1) / kTile;
  const int64_t blocks = (g.rows + kBlockRows - 1) / kBlockRows;
  ParallelFor(blocks * tiles, std::max<int64_t>(1, kPartElements / (kTile * std::min(g.rows, kBlockRows))),
              [&](int64_t b, int64_t e) {
                for (int64_t k = b; k < e; ++k) {
                  const int64_t block = k / tiles, column = k % tiles * kTile, row = block * kBlockRows;
                  f(block, row, std::min(g.rows, row + kBlockRows), column,
                    std::min(kTile, columns - column));
                }
              });
}

// Loops over a tile's columns with a constant bound in the usual case.
template <class F>
inline void ForColumns(int64_t m, F&& f) {
  if (m == kTile) {
    for (int64_t j = 0; j < kTile; ++j) f(j);
  } else {
    for (int64_t j = 0; j < m; ++j) f(j);
  }
}

// Calls f(p, i, n) on cached pieces of the elements [start, start + n) of x, i counted from 0.
template <class T, class F>
void ForBlocks(const DenseReader<T>& x, int64_t start, int64_t n, F&& f) {
  if (x.direct()) return f(reinterpret_cast<const T*>(x.data) + start, int64_t{0}, n);
  alignas(64) T buffer[kNormBlock<T>];
  for (int64_t i = 0; i < n; i += kNormBlock<T>) {
    const int64_t m = std::min(kNormBlock<T>, n - i);
    f(x.Read(start + i, m, buffer), i, m);
  }
}

template <class T>
Moments PartMoments(const ChannelGrid& g, const DenseReader<T>& x, int64_t c, int64_t row, int64_t row_end,
                    int64_t start, int64_t length) {
  const double count = static_cast<double>((row_end - row) * length);
  LaneSum<T> sum;
  for (int64_t r = row; r < row_end; ++r)
    ForBlocks(x, (r * g.channels + c) * g.inner + start, length, [&](const T* p, int64_t, int64_t n) {
      sum.Add(
          n, [](auto v) { return v; }, p);
    });
  const T mean = static_cast<T>(sum.Total() / count);
  LaneSumPair<T> deviation;
  for (int64_t r = row; r < row_end; ++r)
    ForBlocks(x, (r * g.channels + c) * g.inner + start, length, [&](const T* p, int64_t, int64_t n) {
      deviation.Add(
          n,
          [mean](auto v, auto& squares, auto& rest) {
            const auto d = v - mean;
            squares += d * d;
            rest += d;
          },
          p);
    });
  const double rest = deviation.Second() / count;  // what rounding left of the mean
  return {count, mean + rest, deviation.First() - count * rest * rest};
}

template <class T>
void TileMoments(const ChannelGrid& g, const DenseReader<T>& x, int64_t row, int64_t row_end, int64_t column,
                 int64_t m, double* mean_out, double* m2_out) {
  alignas(64) T buffer[kTile], mean[kTile], squares[kTile], rest[kTile];
  const int64_t columns = g.channels * g.inner;
  const T scale = T(1) / static_cast<T>(row_end - row);
  for (int64_t j = 0; j < kTile; ++j) mean[j] = squares[j] = rest[j] = 0;
  for (int64_t r = row; r < row_end; ++r) {
    const T* p = x.Read(r * columns + column, m, buffer);
    ForColumns(m, [&](int64_t j) { mean[j] += p[j]; });
  }
  for (int64_t j = 0; j < kTile; ++j) mean[j] *= scale;
  for (int64_t r = row; r < row_end; ++r) {
    const T* p = x.Read(r * columns + column, m, buffer);
    ForColumns(m, [&](int64_t j) {
      const T d = p[j] - mean[j];
      squares[j] += d * d;
      rest[j] += d;
    });
  }
  const double count = static_cast<double>(row_end - row);
  for (int64_t j = 0; j < m; ++j) {
    const double left = static_cast<double>(rest[j]) / count;
    mean_out[j] = static_cast<double>(mean[j]) + left;
    m2_out[j] = static_cast<double>(squares[j]) - count * left * left;
  }
}

template <class T>
bool MomentsByColumns(const ChannelGrid& g, const DenseReader<T>& x, Moments* out) {
  const int64_t columns = g.channels * g.inner, blocks = (g.rows + kBlockRows - 1) / kBlockRows;
  const Scratch<double> mean(blocks * columns), m2(blocks * columns);
  if (!mean.ok() || !m2.ok()) return false;
  ForEachTile(g, [&](int64_t block, int64_t row, int64_t row_end, int64_t column, int64_t m) {
    TileMoments(g, x, row, row_end, column, m, &mean[block * columns + column],
                &m2[block * columns + column]);
  });
  ParallelFor(g.channels, 256, [&](int64_t b, int64_t e) {
    for (int64_t c = b; c < e; ++c) {
      Moments total;
      for (int64_t k = 0; k < blocks; ++k) {
        const double count = static_cast<double>(std::min(kBlockRows, g.rows - k * kBlockRows));
        for (int64_t i = 0; i < g.inner; ++i) {
          const int64_t at = k * columns + c * g.inner + i;
          total.Merge({count, mean[at], m2[at]});
        }
      }
      out[c] = total;
    }
  });
  return true;
}

template <class T>
void TileSums(const ChannelGrid& g, const DenseReader<T>& dy, const DenseReader<T>& x, const T* mean,
              int64_t row, int64_t row_end, int64_t column, int64_t m, double* sum_dy, double* sum_dyx) {
  alignas(64) T buffer[kTile], x_buffer[kTile], a[kTile], b[kTile], mu[kTile];
  const int64_t columns = g.channels * g.inner;
  for (int64_t j = 0; j < kTile; ++j) a[j] = b[j] = mu[j] = 0;
  for (int64_t j = 0; j < m; ++j) mu[j] = mean[(column + j) / g.inner];
  for (int64_t r = row; r < row_end; ++r) {
    const T* d = dy.Read(r * columns + column, m, buffer);
    const T* p = x.Read(r * columns + column, m, x_buffer);
    ForColumns(m, [&](int64_t j) {
      a[j] += d[j];
      b[j] += d[j] * (p[j] - mu[j]);
    });
  }
  for (int64_t j = 0; j < m; ++j)
    sum_dy[j] = static_cast<double>(a[j]), sum_dyx[j] = static_cast<double>(b[j]);
}

// The per-channel constants of a tile or run, one per column.
template <class T>
struct Expanded {
  Scratch<T> values;
  Expanded(const ChannelGrid& g, const T* per_channel) : values(g.inner == 1 ? 0 : g.channels * g.inner) {
    if (g.inner == 1 || !values.ok()) return;
    for (int64_t c = 0; c < g.channels; ++c)
      std::fill(&values[c * g.inner], &values[c * g.inner] + g.inner, per_channel[c]);
  }
  const T* get(const T* per_channel, int64_t inner) const { return inner == 1 ? per_channel : values.get(); }
};

template <class T>
void Swish(T* y, int64_t n, T scale) {
  for (int64_t i = 0; i < n; ++i) y[i] = y[i] / (1 + std::exp(-scale * y[i]));
}

// Calls f(start, n, channel or column) over runs that share constants: pieces of one channel, or pieces of a
// row when the constants are per column. Pieces are cut at kNormBlock, so that they may be converted through
// a buffer.
template <class T, class F>
void ForRuns(const ChannelGrid& g, F&& f) {
  const int64_t run = g.by_columns() ? g.channels * g.inner : g.inner;
  const int64_t runs = run == 0 ? 0 : g.numel() / run, pieces = (run + kNormBlock<T> - 1) / kNormBlock<T>;
  ParallelFor(
      runs * pieces, std::max<int64_t>(1, kPartElements / std::max<int64_t>(1, std::min(run, kNormBlock<T>))),
      [&](int64_t b, int64_t e) {
        for (int64_t k = b; k < e; ++k) {
          const int64_t r = pieces == 1 ? k : k / pieces, i = pieces == 1 ? 0 : k % pieces * kNormBlock<T>;
          f(r * run + i, std::min(kNormBlock<T>, run - i), g.by_columns() ? i : r % g.channels);
        }
      });
}

}  // namespace

std::optional<ChannelGrid> FindChannelGrid(std::initializer_list<const TensorView*> views) {
  const TensorView& first = **views.begin();
  ChannelGrid g{first.dims[0], first.dims[1], 1};
  for (int i = 2; i < first.rank; ++i) g.inner *= first.dims[i];
  bool row_major = true, channels_last = true;
  for (const TensorView* v : views) {
    if (v == nullptr) continue;
    row_major = row_major && v->contiguous();
    TensorView moved = *v;  // the channel as the last dimension
    for (int i = 1; i + 1 < v->rank; ++i)
      moved.dims[i] = v->dims[i + 1], moved.strides[i] = v->strides[i + 1];
    moved.dims[v->rank - 1] = v->dims[1], moved.strides[v->rank - 1] = v->strides[1];
    channels_last = channels_last && moved.contiguous();
  }
  if (row_major) return g;
  if (channels_last) return ChannelGrid{g.rows * g.inner, g.channels, 1};
  return std::nullopt;
}

template <class T>
bool ChannelMoments(const ChannelGrid& g, const DenseReader<T>& x, Moments* out) {
  if (g.by_columns()) return MomentsByColumns(g, x, out);
  const Parts parts(g);
  const Scratch<Moments> part(g.channels * parts.count());
  if (!part.ok()) return false;
  ForEachPart(g, parts,
              [&](int64_t c, int64_t k, int64_t row, int64_t row_end, int64_t start, int64_t length) {
                part[c * parts.count() + k] = PartMoments(g, x, c, row, row_end, start, length);
              });
  for (int64_t c = 0; c < g.channels; ++c) {
    Moments total;
    for (int64_t k = 0; k < parts.count(); ++k) total.Merge(part[c * parts.count() + k]);
    out[c] = total;
  }
  return true;
}

template <class T>
bool ChannelSums(const ChannelGrid& g, const DenseReader<T>& dy, const DenseReader<T>& x, const T* mean,
                 double* sum_dy, double* sum_dyx) {
  const int64_t columns = g.channels * g.inner, blocks = (g.rows + kBlockRows - 1) / kBlockRows;
  const Parts parts(g);
  // Partial sums of channel c: `count` of them from c * stride on, `step` apart; by columns a row of them per
  // block.
  const int64_t slots = g.by_columns() ? blocks * columns : g.channels * parts.count();
  const Scratch<double> a(slots), b(slots);
  if (!a.ok() || !b.ok()) return false;
  if (g.by_columns()) {
    ForEachTile(g, [&](int64_t block, int64_t row, int64_t row_end, int64_t column, int64_t m) {
      TileSums(g, dy, x, mean, row, row_end, column, m, &a[block * columns + column],
               &b[block * columns + column]);
    });
  } else {
    ForEachPart(g, parts,
                [&](int64_t c, int64_t k, int64_t row, int64_t row_end, int64_t start, int64_t length) {
                  LaneSumPair<T> sum;
                  const T mu = mean[c];
                  alignas(64) T buffer[kNormBlock<T>];
                  for (int64_t r = row; r < row_end; ++r) {
                    const int64_t at = (r * g.channels + c) * g.inner + start;
                    ForBlocks(x, at, length, [&](const T* p, int64_t i, int64_t n) {
                      for (int64_t j = 0; j < n; j += kNormBlock<T>) {
                        const int64_t m = std::min(kNormBlock<T>, n - j);
                        sum.Add(
                            m,
                            [mu](auto d, auto v, auto& s, auto& t) {
                              s += d;
                              t += d * (v - mu);
                            },
                            dy.Read(at + i + j, m, buffer), p + j);
                      }
                    });
                  }
                  a[c * parts.count() + k] = sum.First();
                  b[c * parts.count() + k] = sum.Second();
                });
  }
  for (int64_t c = 0; c < g.channels; ++c) {
    double s = 0, t = 0;
    if (g.by_columns()) {
      for (int64_t k = 0; k < blocks; ++k)
        for (int64_t i = 0; i < g.inner; ++i)
          s += a[k * columns + c * g.inner + i], t += b[k * columns + c * g.inner + i];
    } else {
      for (int64_t k = 0; k < parts.count(); ++k)
        s += a[c * parts.count() + k], t += b[c * parts.count() + k];
    }
    sum_dy[c] = s;
    sum_dyx[c] = t;
  }
  return true;
}

template <class T>
bool ChannelApply(const ChannelGrid& g, const DenseReader<T>& x, const T* mean, const T* scale,
                  const T* shift, T swish, const DenseWriter<T>& y) {
  if (g.by_columns()) {
    const Expanded<T> m(g, mean), s(g, scale), t(g, shift);
    if (!m.values.ok() || !s.values.ok() || !t.values.ok()) return false;
    const T *mu = m.get(mean, g.inner), *sc = s.get(scale, g.inner), *sh = t.get(shift, g.inner);
    ForRuns<T>(g, [&](int64_t start, int64_t n, int64_t column) {
      alignas(64) T in[kNormBlock<T>], out[kNormBlock<T>];
      const T* __restrict p = x.Read(start, n, in);
      T* __restrict q = y.Begin(start, out);
      for (int64_t i = 0; i < n; ++i) q[i] = (p[i] - mu[column + i]) * sc[column + i] + sh[column + i];
      if (swish != 0) Swish(q, n, swish);
      y.End(start, n, q);
    });
    return true;
  }
  ForRuns<T>(g, [&](int64_t start, int64_t n, int64_t c) {
    alignas(64) T in[kNormBlock<T>], out[kNormBlock<T>];
    const T* __restrict p = x.Read(start, n, in);
    T* __restrict q = y.Begin(start, out);
    const T mu = mean[c], s = scale[c], t = shift[c];
    for (int64_t i = 0; i < n; ++i) q[i] = (p[i] - mu) * s + t;
    if (swish != 0) Swish(q, n, swish);
    y.End(start, n, q);
  });
  return true;
}

template <class T>
bool ChannelApplyBackward(const ChannelGrid& g, const DenseReader<T>& dy, const DenseReader<T>& x,
                          const T* mean, const T* p, const T* q, const T* r, const DenseWriter<T>& dx) {
  if (g.by_columns()) {
    const Expanded<T> em(g, mean), ep(g, p), eq(g, q), er(g, r);
    if (!em.values.ok() || !ep.values.ok() || !eq.values.ok() || !er.values.ok()) return false;
    const T *cm = em.get(mean, g.inner), *cp = ep.get(p, g.inner), *cq = eq.get(q, g.inner),
            *cr = er.get(r, g.inner);
    ForRuns<T>(g, [&](int64_t start, int64_t n, int64_t column) {
      alignas(64) T a[kNormBlock<T>], b[kNormBlock<T>], out[kNormBlock<T>];
      const T* __restrict d = dy.Read(start, n, a), * __restrict v = x.Read(start, n, b);
      T* __restrict o = dx.Begin(start, out);
      const T *m = cm + column, *u = cp + column, *w = cq + column, *z = cr + column;
      for (int64_t i = 0; i < n; ++i) o[i] = d[i] * u[i] + (v[i] - m[i]) * w[i] + z[i];
      dx.End(start, n, o);
    });
    return true;
  }
  ForRuns<T>(g, [&](int64_t start, int64_t n, int64_t c) {
    alignas(64) T a[kNormBlock<T>], b[kNormBlock<T>], out[kNormBlock<T>];
    const T* __restrict d = dy.Read(start, n, a), * __restrict v = x.Read(start, n, b);
    T* __restrict o = dx.Begin(start, out);
    const T m = mean[c], u = p[c], w = q[c], z = r[c];
    for (int64_t i = 0; i < n; ++i) o[i] = d[i] * u + (v[i] - m) * w + z;
    dx.End(start, n, o);
  });
  return true;
}

#define ANYCANN_INSTANTIATE(T)                                                                              \
  template bool ChannelMoments<T>(const ChannelGrid&, const DenseReader<T>&, Moments*);                     \
  template bool ChannelSums<T>(const ChannelGrid&, const DenseReader<T>&, const DenseReader<T>&, const T*,  \
                               double*, double*);                                                           \
  template bool ChannelApply<T>(const ChannelGrid&, const DenseReader<T>&, const T*, const T*, const T*, T, \
                                const DenseWriter<T>&);                                                     \
  template bool ChannelApplyBackward<T>(const ChannelGrid&, const DenseReader<T>&, const DenseReader<T>&,   \
                                        const T*, const T*, const T*, const T*, const DenseWriter<T>&);
ANYCANN_INSTANTIATE(float)
ANYCANN_INSTANTIATE(double)
#undef ANYCANN_INSTANTIATE

}  // namespace anycann

// Normalisation over channels: the loops of batch and group normalisation.
//
// Memory is seen as [rows][channels][inner], dense. Statistics are per channel, over rows and inner: NCHW
// batch norm has rows N and inner H*W, channels-last has rows N*H*W and inner 1, group norm has one row and
// N*G channels. Long inner runs are summed along memory; short ones column by column, vectorised over
// channels. Partial results belong to blocks that the shape alone decides and are merged in order, so results
// don't depend on the number of threads.
#pragma once

#include <optional>

#include "ops/dense.h"
#include "ops/norm/lanes.h"

namespace anycann {

struct ChannelGrid {
  int64_t rows = 0, channels = 0, inner = 0;
  bool by_columns() const { return inner < 32 && rows > 1; }
  int64_t numel() const { return rows * channels * inner; }
};

// [N, C, ...] as a grid when all views are dense in the same order, row-major or channels last. nullopt
// otherwise: make dense copies first.
std::optional<ChannelGrid> FindChannelGrid(std::initializer_list<const TensorView*> views);

// out[c]: moments of channel c. False when scratch memory is exhausted.
template <class T>
bool ChannelMoments(const ChannelGrid& grid, const DenseReader<T>& x, Moments* out);

// sum_dy[c] = sum of dy, sum_dyx[c] = sum of dy * (x - mean[c]).
template <class T>
bool ChannelSums(const ChannelGrid& grid, const DenseReader<T>& dy, const DenseReader<T>& x, const T* mean,
                 double* sum_dy, double* sum_dyx);

// y = (x - mean[c]) * scale[c] + shift[c], then y * sigmoid(swish * y) unless swish is 0.
template <class T>
bool ChannelApply(const ChannelGrid& grid, const DenseReader<T>& x, const T* mean, const T* scale,
                  const T* shift, T swish, const DenseWriter<T>& y);

// dx = dy * p[c] + (x - mean[c]) * q[c] + r[c].
template <class T>
bool ChannelApplyBackward(const ChannelGrid& grid, const DenseReader<T>& dy, const DenseReader<T>& x,
                          const T* mean, const T* p, const T* q, const T* r, const DenseWriter<T>& dx);

}  // namespace anycann

// What the operators of batch normalisation share: dense operands in one common order, and their checks.
#pragma once

#include <optional>

#include "ops/call.h"
#include "ops/norm/channels.h"

namespace anycann {

// x and y of [N, C, ...] as one grid: their own memory when dense in the same order, otherwise dense copies.
template <class T>
struct BatchOperands {
  ChannelGrid grid;
  DenseReader<T> x;
  DenseWriter<T> y;

  BatchOperands(const TensorView& x_view, const TensorView& y_view) {
    if (auto found = FindChannelGrid({&x_view, &y_view})) {
      grid = *found;
      x = DenseReader<T>(x_view);
      y = DenseWriter<T>(y_view);
      return;
    }
    x_copy_.emplace(x_view);
    y_copy_.emplace(y_view);
    x = DenseReader<T>(x_copy_->view());
    y = DenseWriter<T>(y_copy_->view());
    if (ok()) grid = *FindChannelGrid({&x_copy_->view(), &y_copy_->view()});
  }
  bool ok() const { return !x_copy_ || (x_copy_->ok() && y_copy_->ok()); }
  void Finish() const {
    if (y_copy_) y_copy_->Finish();
  }

 private:
  std::optional<DenseInput> x_copy_;
  std::optional<DenseOutput> y_copy_;
};

// dy, x and (when it's wanted) dx, in the same way.
template <class T>
struct BatchGradients {
  ChannelGrid grid;
  DenseReader<T> dy, x;
  DenseWriter<T> dx;

  BatchGradients(const TensorView& dy_view, const TensorView& x_view, const TensorView* dx_view) {
    if (auto found = FindChannelGrid({&dy_view, &x_view, dx_view})) {
      grid = *found;
      dy = DenseReader<T>(dy_view);
      x = DenseReader<T>(x_view);
      if (dx_view) dx = DenseWriter<T>(*dx_view);
      return;
    }
    dy_copy_.emplace(dy_view);
    x_copy_.emplace(x_view);
    if (dx_view) dx_copy_.emplace(*dx_view);
    if (!ok()) return;
    grid = *FindChannelGrid({&x_copy_->view()});
    dy = DenseReader<T>(dy_copy_->view());
    x = DenseReader<T>(x_copy_->view());
    if (dx_copy_) dx = DenseWriter<T>(dx_copy_->view());
  }
  bool ok() const { return !x_copy_ || (x_copy_->ok() && dy_copy_->ok() && (!dx_copy_ || dx_copy_->ok())); }
  void Finish() const {
    if (dx_copy_) dx_copy_->Finish();
  }

 private:
  std::optional<DenseInput> dy_copy_, x_copy_;
  std::optional<DenseOutput> dx_copy_;
};

// A batch tensor has at least two dimensions and a floating-point type; a parameter holds one such value per
// channel.
Status RequireBatch(Call& call, const aclTensor* t, const char* name);
Status RequireChannels(Call& call, const aclTensor* t, const char* name, int64_t channels);

}  // namespace anycann

// The convolution operators: checks of attributes and shapes over ops/conv/convolution.h. cubeMathType is
// accepted and not needed: float32 is computed in float32.
#include <algorithm>
#include <array>

#include "aclnn_ops.h"
#include "ops/conv/convolution.h"

namespace anycann {
namespace {

// Attributes as they come, one value per axis (or one for all), padding perhaps as (before, after) pairs.
struct Attributes {
  ConvAttributes conv;
  int64_t pad_after[kAxes] = {0, 0, 0};
  int64_t output_padding[kAxes] = {0, 0, 0};
};

Status CheckFloating(Call& call, const TensorView& v, const char* name) {
  return IsFloating(v.dtype) ? Status()
                             : call.Invalid("{} has type {}, which is not supported", name, Name(v.dtype));
}

// Floating-point operands, which may be mixed, or int64 alone.
Status CheckTypes(Call& call, const TensorView& in, const TensorView& filter, const TensorView* bias,
                  const TensorView& out) {
  const struct {
    const TensorView* view;
    const char* name;
  } all[] = {{&in, "input"}, {&filter, "weight"}, {bias, "bias"}, {&out, "output"}};
  for (const auto& [view, name] : all) {
    if (view == nullptr) continue;
    if (in.dtype != DType::kInt64) RETURN_IF_ERROR(CheckFloating(call, *view, name));
    if (in.dtype == DType::kInt64 && view->dtype != DType::kInt64)
      return call.Invalid("{} has type {}, expected int64 as input has", name, Name(view->dtype));
  }
  return Status();
}

Status ReadList(Call& call, const aclIntArray* list, const char* name, int axes, int64_t least,
                int64_t* values) {
  if (list == nullptr || list->size == 0) return Status();
  if (list->size != 1 && list->size != static_cast<uint64_t>(axes))
    return call.Invalid("{} has {} values, expected 1 or {}", name, list->size, axes);
  for (int i = 0; i < axes; ++i) {
    const int64_t v = (*list)[list->size == 1 ? 0 : i];
    if (v < least || v > INT32_MAX) return call.Invalid("{} is {}, expected at least {}", name, v, least);
    values[kAxes - axes + i] = v;
  }
  return Status();
}

Status ReadAttributes(Call& call, int axes, const aclIntArray* stride, const aclIntArray* padding,
                      const aclIntArray* dilation, bool transposed, const aclIntArray* output_padding,
                      int64_t groups, Attributes* a) {
  a->conv.axes = axes;
  a->conv.transposed = transposed;
  a->conv.groups = groups;
  if (groups < 1 || groups > INT32_MAX) return call.Invalid("groups is {}, expected at least 1", groups);
  RETURN_IF_ERROR(ReadList(call, stride, "stride", axes, 1, a->conv.stride));
  RETURN_IF_ERROR(ReadList(call, dilation, "dilation", axes, 1, a->conv.dilation));
  if (transposed)
    RETURN_IF_ERROR(ReadList(call, output_padding, "outputPadding", axes, 0, a->output_padding));
  if (padding != nullptr && axes > 1 && padding->size == static_cast<uint64_t>(2 * axes)) {
    for (int i = 0; i < 2 * axes; ++i) {
      const int64_t v = (*padding)[i];
      if (v < 0 || v > INT32_MAX) return call.Invalid("padding is {}, expected at least 0", v);
      int64_t* pad = i % 2 != 0 ? a->pad_after : a->conv.pad;
      pad[kAxes - axes + i / 2] = v;
    }
    return Status();
  }
  RETURN_IF_ERROR(ReadList(call, padding, "padding", axes, 0, a->conv.pad));
  std::copy_n(a->conv.pad, kAxes, a->pad_after);
  return Status();
}

// Size of the output along the last axes, or an error that names the axis.
Status OutputSize(Call& call, const Attributes& a, const TensorView& in, const TensorView& weight,
                  int64_t* dims) {
  for (int i = kAxes - a.conv.axes; i < kAxes; ++i) {
    const int d = i - (kAxes - a.conv.axes);
    const int64_t size = in.dims[in.rank - a.conv.axes + d], kernel = weight.dims[2 + d];
    if (kernel < 1 || kernel > INT32_MAX || size > INT32_MAX)
      return call.Invalid("kernel {} over input {} is out of range", ShapeString(weight), ShapeString(in));
    const int64_t span = a.conv.dilation[i] * (kernel - 1) + 1;
    const int64_t room = size + a.conv.pad[i] + a.pad_after[i] - span;
    dims[d] = a.conv.transposed ? (size - 1) * a.conv.stride[i] - a.conv.pad[i] - a.pad_after[i] + span +
                                      a.output_padding[i]
                                : (room < 0 ? 0 : room / a.conv.stride[i] + 1);
    if (dims[d] < 1 && !in.empty())
      return call.Invalid("kernel {} with dilation {} doesn't fit input {} with padding {} along axis {}",
                          ShapeString(weight), a.conv.dilation[i], ShapeString(in), a.conv.pad[i], d);
  }
  return Status();
}

// Shapes of in, weight and out (or the gradient of out) against each other.
Status CheckShapes(Call& call, const Attributes& a, const TensorView& in, const TensorView& weight,
                   const TensorView& out, const char* out_name) {
  const int axes = a.conv.axes;
  if (in.rank != axes + 2 && in.rank != axes + 1)
    return call.Invalid("input has {} dimensions ({}), expected {} for weight {}", in.rank, ShapeString(in),
                        axes + 2, ShapeString(weight));
  const int64_t channels = in.dims[in.rank - axes - 1], groups = a.conv.groups;
  const int64_t expected = a.conv.transposed ? weight.dims[0] : weight.dims[1] * groups;
  if (channels != expected || weight.dims[0] % groups != 0)
    return call.Invalid("input {} and weight {} don't match with groups {}: {} channels, expected {}",
                        ShapeString(in), ShapeString(weight), groups, channels, expected);
  int64_t dims[kMaxRank];
  int rank = 0;
  if (in.rank == axes + 2) dims[rank++] = in.dims[0];
  dims[rank++] = a.conv.transposed ? weight.dims[1] * groups : weight.dims[0];
  RETURN_IF_ERROR(OutputSize(call, a, in, weight, dims + rank));
  rank += axes;
  if (out.rank != rank || !std::equal(dims, dims + rank, out.dims))
    return call.Invalid("{} has shape {}, expected {} (input {}, weight {})", out_name, ShapeString(out),
                        ShapeString(dims, rank), ShapeString(in), ShapeString(weight));
  return Status();
}

double Flops(const ConvAttributes& a, const TensorView& in, const TensorView& weight, const TensorView& out) {
  const TensorView& grid = a.transposed ? in : out;  // each of its elements meets the filter of one channel
  return 2.0 * static_cast<double>(grid.numel()) * static_cast<double>(weight.numel()) /
         static_cast<double>(weight.dims[0]);
}

Status LaunchForward(Call& call, const Attributes& a, const aclTensor* input, const TensorView& in,
                     const aclTensor* weight, const TensorView& filter, const aclTensor* bias,
                     const aclTensor* output, const TensorView& out) {
  RETURN_IF_ERROR(CheckTypes(call, in, filter, bias ? &bias->view : nullptr, out));
  RETURN_IF_ERROR(CheckShapes(call, a, in, filter, out, "output"));
  const int64_t channels = out.dims[out.rank - a.conv.axes - 1];
  TensorView bias_view;
  if (bias != nullptr) {
    // [channels], or with axes of size 1.
    bias_view = bias->view;
    int along = 0;
    while (along < bias_view.rank && bias_view.dims[along] != channels) ++along;
    if (bias_view.numel() != channels || (along == bias_view.rank && channels != 1))
      return call.Invalid("bias has shape {}, expected [{}]", ShapeString(bias->view), channels);
    bias_view.strides[0] = along < bias_view.rank ? bias_view.strides[along] : 0;
    bias_view.rank = 1;
    bias_view.dims[0] = channels;
  }
  if (out.empty()) return call.Nothing();
  const Cost cost{Flops(a.conv, in, filter, out),
                  static_cast<double>(in.nbytes() + filter.nbytes() + out.nbytes())};
  const auto kernel = [conv = a.conv, biased = bias != nullptr](const Run& t) -> Status {
    return ConvForward(conv, t[0], t[1], biased ? &t[3] : nullptr, t[2]);
  };
  const Arg args[] = {In(input, in), In(weight, filter), Out(output, out),
                      bias ? In(bias, bias_view) : Out(output, out)};
  return call.Launch(std::span<const Arg>(args, bias ? 4 : 3), cost, kernel);
}

struct Gradients {
  const aclTensor* input;
  const aclTensor* weight;
  const aclTensor* bias;
  TensorView input_view, weight_view;
};

Status LaunchBackward(Call& call, const Attributes& a, const aclTensor* grad, const TensorView& grad_view,
                      const aclTensor* input, const TensorView& in, const aclTensor* weight,
                      const TensorView& filter, const Gradients& g) {
  RETURN_IF_ERROR(CheckFloating(call, grad_view, "gradOutput"));
  RETURN_IF_ERROR(CheckFloating(call, in, "input"));
  RETURN_IF_ERROR(CheckFloating(call, filter, "weight"));
  RETURN_IF_ERROR(CheckShapes(call, a, in, filter, grad_view, "gradOutput"));
  Arg args[6] = {In(grad, grad_view), In(input, in), In(weight, filter)};
  int count = 3, at[3] = {-1, -1, -1};
  const auto add = [&](int which, const aclTensor* t, const TensorView& v, const TensorView& like,
                       const char* name) -> Status {
    if (t == nullptr) return Status();
    RETURN_IF_ERROR(CheckFloating(call, v, name));
    if (!v.SameShape(like))
      return call.Invalid("{} has shape {}, expected {}", name, ShapeString(v), ShapeString(like));
    at[which] = count;
    args[count++] = Out(t, v);
    return Status();
  };
  RETURN_IF_ERROR(add(0, g.input, g.input_view, in, "gradInput"));
  RETURN_IF_ERROR(add(1, g.weight, g.weight_view, filter, "gradWeight"));
  const int64_t channels = grad_view.dims[grad_view.rank - a.conv.axes - 1];
  if (g.bias != nullptr) {
    const TensorView expected = TensorView::Contiguous(nullptr, g.bias->view.dtype, {channels});
    RETURN_IF_ERROR(add(2, g.bias, g.bias->view, expected, "gradBias"));
  }
  if (count == 3) return call.Nothing();
  const double flops = Flops(a.conv, in, filter, grad_view) * ((at[0] >= 0) + (at[1] >= 0));
  const Cost cost{flops, static_cast<double>(in.nbytes() + filter.nbytes() + grad_view.nbytes()) * 2};
  return call.Launch(std::span<const Arg>(args, count), cost,
                     [conv = a.conv, at = std::to_array(at)](const Run& t) -> Status {
                       if (at[0] >= 0) RETURN_IF_ERROR(ConvInputGradient(conv, t[0], t[2], t[at[0]]));
                       if (at[1] >= 0) RETURN_IF_ERROR(ConvWeightGradient(conv, t[0], t[1], t[at[1]]));
                       if (at[2] >= 0) RETURN_IF_ERROR(ConvBiasGradient(t[0], conv.axes, t[at[2]]));
                       return Status();
                     });
}

Status CheckWeightRank(Call& call, const aclTensor* weight) {
  return call.RequireRank(weight, "weight", 3, 5);
}

// [time, batch, channels] as images [batch, channels, time], and a filter [kernel, in, out] as [out, in,
// kernel].
TensorView TimeLast(const TensorView& v) { return v.Transpose(0, 1).Transpose(1, 2); }
TensorView FilterOfTbc(const TensorView& v) { return v.Transpose(0, 2); }

Status TbcAttributes(Call& call, const aclTensor* self, const aclTensor* weight, int64_t pad, Attributes* a) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 3, 3));
  if (pad < 0 || pad > INT32_MAX) return call.Invalid("pad is {}, expected at least 0", pad);
  a->conv.axes = 1;
  a->conv.pad[2] = a->pad_after[2] = pad;
  return Status();
}

}  // namespace

Status aclnn::Convolution(Call& call, const aclTensor* input, const aclTensor* weight, const aclTensor* bias,
                          const aclIntArray* stride, const aclIntArray* padding, const aclIntArray* dilation,
                          bool transposed, const aclIntArray* outputPadding, const int64_t groups,
                          aclTensor* output, int8_t) {
  RETURN_IF_ERROR(CheckWeightRank(call, weight));
  Attributes a;
  RETURN_IF_ERROR(ReadAttributes(call, weight->view.rank - 2, stride, padding, dilation, transposed,
                                 outputPadding, groups, &a));
  return LaunchForward(call, a, input, input->view, weight, weight->view, bias, output, output->view);
}

Status aclnn::ConvDepthwise2d(Call& call, const aclTensor* self, const aclTensor* weight,
                              const aclIntArray* kernelSize, const aclTensor* bias, const aclIntArray* stride,
                              const aclIntArray* padding, const aclIntArray* dilation, aclTensor* out,
                              int8_t) {
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 4, 4));
  RETURN_IF_ERROR(call.RequireRank(self, "self", 3, 4));
  for (uint64_t i = 0; i < kernelSize->size; ++i)
    if (kernelSize->size != 2 || (*kernelSize)[i] != weight->view.dims[2 + i])
      return call.Invalid("kernelSize doesn't match weight {}", ShapeString(weight->view));
  Attributes a;
  const int64_t groups = self->view.dims[self->view.rank - 3];
  RETURN_IF_ERROR(
      ReadAttributes(call, 2, stride, padding, dilation, false, nullptr, std::max<int64_t>(1, groups), &a));
  return LaunchForward(call, a, self, self->view, weight, weight->view, bias, out, out->view);
}

Status aclnn::ConvolutionBackward(Call& call, const aclTensor* gradOutput, const aclTensor* input,
                                  const aclTensor* weight, const aclIntArray*, const aclIntArray* stride,
                                  const aclIntArray* padding, const aclIntArray* dilation, bool transposed,
                                  const aclIntArray* outputPadding, int groups,
                                  const aclBoolArray* outputMask, int8_t, aclTensor* gradInput,
                                  aclTensor* gradWeight, aclTensor* gradBias) {
  RETURN_IF_ERROR(CheckWeightRank(call, weight));
  if (outputMask->size != 3) return call.Invalid("outputMask has {} values, expected 3", outputMask->size);
  Attributes a;
  RETURN_IF_ERROR(ReadAttributes(call, weight->view.rank - 2, stride, padding, dilation, transposed,
                                 outputPadding, groups, &a));
  Gradients g = {(*outputMask)[0] ? gradInput : nullptr,
                 (*outputMask)[1] ? gradWeight : nullptr,
                 (*outputMask)[2] ? gradBias : nullptr,
                 {},
                 {}};
  if (g.input) g.input_view = g.input->view;
  if (g.weight) g.weight_view = g.weight->view;
  return LaunchBackward(call, a, gradOutput, gradOutput->view, input, input->view, weight, weight->view, g);
}

Status aclnn::ConvTbc(Call& call, const aclTensor* self, const aclTensor* weight, const aclTensor* bias,
                      const int64_t pad, aclTensor* output, int8_t) {
  Attributes a;
  RETURN_IF_ERROR(TbcAttributes(call, self, weight, pad, &a));
  RETURN_IF_ERROR(call.RequireRank(output, "output", 3, 3));
  return LaunchForward(call, a, self, TimeLast(self->view), weight, FilterOfTbc(weight->view), bias, output,
                       TimeLast(output->view));
}

Status aclnn::ConvTbcBackward(Call& call, const aclTensor* self, const aclTensor* input,
                              const aclTensor* weight, const aclTensor* bias, int64_t pad, int8_t,
                              aclTensor* gradInput, aclTensor* gradWeight, aclTensor* gradBias) {
  (void)bias;
  Attributes a;
  RETURN_IF_ERROR(TbcAttributes(call, input, weight, pad, &a));
  RETURN_IF_ERROR(call.RequireRank(self, "self", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(gradInput, "gradInput", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(gradWeight, "gradWeight", 3, 3));
  const Gradients g = {gradInput, gradWeight, gradBias, TimeLast(gradInput->view),
                       FilterOfTbc(gradWeight->view)};
  return LaunchBackward(call, a, self, TimeLast(self->view), input, TimeLast(input->view), weight,
                        FilterOfTbc(weight->view), g);
}

}  // namespace anycann

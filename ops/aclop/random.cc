// Legacy random masks and dropout. They carry the probability of keeping an element.
#include <algorithm>
#include <atomic>

#include "aclnn_ops.h"
#include "aclop_operators.h"
#include "ops/aclop/pointwise.h"
#include "ops/random/philox.h"

namespace anycann::aclop {
namespace {

constexpr uint64_t kSubSampleSeed = 0;

Status KeptPart(Call& call, Arguments& a, size_t input, double* keep) {
  *keep = a.Real(a.Constant(input));
  RETURN_IF_ERROR(a.status());
  if (*keep >= 0 && *keep <= 1) return Status();
  return call.Invalid("the probability of keeping is {}, expected a value in [0,1]", *keep);
}

}  // namespace

// shape, prob, seed, seed1, offset: a bit for each element.
Status StatelessDropOutGenMask(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 1));
  double keep = 0;
  RETURN_IF_ERROR(KeptPart(call, a, 1, &keep));
  const Value offset = a.Constant(4);
  const int64_t seed = a.Integer(a.Constant(2));
  const aclIntArray* shape = a.Integers(a.Constant(0));
  RETURN_IF_ERROR(a.status());
  const int64_t skip = offset.absent() || offset.size() == 0 ? 0 : offset.Integer(offset.size() - 1);
  return aclnn::DropoutGenMask(call, shape, 1 - keep, seed, skip, a.Out(0));
}

Status DropOutDoMask(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  double keep = 0;
  RETURN_IF_ERROR(KeptPart(call, a, 2, &keep));
  return aclnn::DropoutDoMask(call, a.In(0), a.In(1), 1 - keep, a.Out(0));
}

// shape, prob, seed, offset; prob: one for all elements, or one for each.
Status StatelessBernoulli(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 1));
  const int64_t seed = a.Integer(a.Constant(2)), offset = a.Integer(a.Constant(3));
  RETURN_IF_ERROR(a.status());
  aclTensor* y = a.Out(0);
  if (a.In(1)->view.SameShape(y->view)) return aclnn::BernoulliTensor(call, y, a.In(1), seed, offset, y);
  const aclScalar* probability = a.Scalar(a.Constant(1));
  RETURN_IF_ERROR(a.status());
  return aclnn::Bernoulli(call, y, probability, seed, offset, y);
}

// A byte for each element.
Status DropOutGenMaskV3(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  double keep = 0;
  RETURN_IF_ERROR(KeptPart(call, a, 1, &keep));
  const aclScalar* probability = a.Scalar(keep);
  const int64_t seed = a.Integer(a.Attr("seed", int64_t{0})), offset = a.Integer(a.Attr("seed2", int64_t{0}));
  RETURN_IF_ERROR(a.status());
  return aclnn::Bernoulli(call, a.Out(0), probability, seed, offset, a.Out(0));
}

Status DropOutDoMaskV3(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  double keep = 0;
  RETURN_IF_ERROR(KeptPart(call, a, 2, &keep));
  return Pointwise<2, 1>(call, {a.In(0), a.In(1)}, {a.Out(0)}, [keep](const double(&x)[2], double(&y)[1]) {
    y[0] = x[1] != 0 && keep > 0 ? x[0] / keep : 0;
  });
}

// `count` places of true elements, drawn without replacement, in no order; places beyond their number are
// zeros with a mask of false.
Status RandomChoiceWithMask(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 2));
  const TensorView &x = a.In(0)->view, &places = a.Out(0)->view;
  const int64_t count = places.rank == 2 ? places.dims[0] : -1;
  const uint64_t seed = static_cast<uint64_t>(a.Integer(a.Attr("seed", int64_t{0}))),
                 stream = static_cast<uint64_t>(a.Integer(a.Attr("seed2", int64_t{0})));
  RETURN_IF_ERROR(a.status());
  if (count < 0 || places.dims[1] != x.rank || places.dtype != DType::kInt32 ||
      a.Out(1)->view.numel() != count)
    return call.Invalid("y has shape {} and mask {}, expected [count,{}] and [count] for x {}",
                        ShapeString(places), ShapeString(a.Out(1)->view), x.rank, ShapeString(x));
  return call.Launch({In(a.In(0)), Out(a.Out(0)), Out(a.Out(1))}, Cost{static_cast<double>(x.numel()), 0},
                     [seed, stream](const Run& t) -> Status {
                       const Dense in(t[0], DType::kBool, Dense::kRead);
                       Dense at(t[1], DType::kInt32, Dense::kWrite), mask(t[2], DType::kBool, Dense::kWrite);
                       std::vector<int64_t> found;
                       const int64_t n = in.view().numel(), wanted = mask.view().numel();
                       for (int64_t i = 0; i < n; ++i)
                         if (in.ptr<bool>()[i]) found.push_back(i);
                       const int64_t have = static_cast<int64_t>(found.size());
                       uint32_t words[Philox::kGroup];
                       for (int64_t i = 0; i < wanted; ++i) {
                         if (i % Philox::kGroup == 0)
                           Philox{seed, stream}.Group(static_cast<uint64_t>(i / Philox::kGroup), 0, words);
                         mask.ptr<bool>()[i] = i < have;
                         int64_t place = 0;
                         if (i < have) {
                           std::swap(found[static_cast<size_t>(i)],
                                     found[static_cast<size_t>(i + words[i % Philox::kGroup] % (have - i))]);
                           place = found[static_cast<size_t>(i)];
                         }
                         for (int d = t[0].rank; d-- > 0;) {
                           at.ptr<int32_t>()[i * t[0].rank + d] = static_cast<int32_t>(place % t[0].dims[d]);
                           place /= t[0].dims[d];
                         }
                       }
                       at.Commit();
                       mask.Commit();
                       return Status();
                     });
}

// labels of anchors (above 0: an object's, 0: background, below: not to be used) -> the same with all but
// batch_size_per_images of them set to -1, chosen at random: at most positive_fraction of the number are
// objects', the rest background. The type has no seed: a call's place in the process stands for it.
Status SubSample(Call& call, Arguments& a) {
  static std::atomic<uint64_t> calls{0};
  RETURN_IF_ERROR(a.Require(1, 1));
  const int64_t wanted = a.Integer(a.Attr("batch_size_per_images"));
  const double fraction = a.Real(a.Attr("positive_fraction"));
  RETURN_IF_ERROR(a.status());
  if (wanted < 0 || !(fraction >= 0 && fraction <= 1))
    return call.Invalid(
        "batch_size_per_images is {} and positive_fraction {}, expected a number and one in [0,1]", wanted,
        fraction);
  RETURN_IF_ERROR(call.RequireDType(a.In(0), "labels", DType::kInt32));
  RETURN_IF_ERROR(call.RequireDType(a.Out(0), "y", DType::kInt32));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(0), "y", a.In(0), "labels"));
  if (a.In(0)->view.empty()) return call.Nothing();
  const uint64_t stream = calls.fetch_add(1);
  return call.Launch(
      {In(a.In(0)), Out(a.Out(0))}, Cost{10.0 * static_cast<double>(a.In(0)->view.numel()), 0},
      [wanted, fraction, stream](const Run& t) -> Status {
        const Dense in(t[0], DType::kInt32, Dense::kRead);
        Dense out(t[1], DType::kInt32, Dense::kWrite);
        std::vector<int64_t> objects, background;
        for (int64_t i = 0; i < in.view().numel(); ++i) {
          const int32_t label = in.ptr<int32_t>()[i];
          if (label >= 0) (label > 0 ? objects : background).push_back(i);
        }
        std::vector<int32_t> kept(static_cast<size_t>(in.view().numel()), -1);
        uint64_t draws = 0;
        uint32_t words[Philox::kGroup];
        const auto keep = [&](std::vector<int64_t>& from, int64_t most) {
          const int64_t have = static_cast<int64_t>(from.size()), count = std::min(have, most);
          for (int64_t i = 0; i < count; ++i, ++draws) {
            if (draws % Philox::kGroup == 0)
              Philox{kSubSampleSeed, stream}.Group(draws / Philox::kGroup, 0, words);
            std::swap(from[static_cast<size_t>(i)],
                      from[static_cast<size_t>(i + words[draws % Philox::kGroup] % (have - i))]);
            const int64_t place = from[static_cast<size_t>(i)];
            kept[static_cast<size_t>(place)] = in.ptr<int32_t>()[place];
          }
          return count;
        };
        const int64_t found = keep(objects, static_cast<int64_t>(static_cast<double>(wanted) * fraction));
        keep(background, wanted - found);
        std::copy(kept.begin(), kept.end(), out.ptr<int32_t>());
        out.Commit();
        return Status();
      });
}

}  // namespace anycann::aclop

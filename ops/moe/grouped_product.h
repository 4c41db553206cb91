// Products by groups: rows [begin, end) of x, those of one expert, times that expert's weight.
#pragma once

#include <vector>

#include "ops/call.h"
#include "ops/dense.h"
#include "ops/quant/integer_matrix.h"
#include "ops/quant/quant_param.h"

namespace anycann {

// A parameter of all groups: one tensor for each, or one tensor with the groups in its first dimension.
struct GroupedParameter {
  int first = -1, count = 0;  // operands
  bool given() const { return count > 0; }
  TensorView Of(const Run& t, int64_t group) const {
    return count > 1 ? t[first + group] : stacked ? t[first].Select(0, group) : t[first];
  }
  bool stacked = false;
};

// How groups are given: the ends of their rows, their numbers of rows, or pairs {group, rows}.
enum class GroupList { kEnds, kCounts, kPairs };
// From an operator's groupListType.
Status ReadGroupListType(Call& call, int64_t type, GroupList* kind);

struct GroupRange {
  int64_t group, begin, rows;
};

class GroupedProduct {
 public:
  using Tensors = std::span<const aclTensor* const>;
  struct Inputs {
    Tensors x, weight, bias, scale, antiquant_scale, antiquant_offset, row_scale;
    const aclTensor* group_list = nullptr;  // int64
    std::span<const int64_t> ends;          // where the list is on the host
    GroupList kind = GroupList::kEnds;
    bool split_depth = false;  // groups are ranges of x's columns and the weight's rows
    bool transpose_weight = false, transpose_x = false;  // x: of one tensor
  };

  // Checks the shapes and appends the operands. Weights: [K,N] each, or one [groups,K,N]; floating with x of
  // a floating type, int8 or int4 with x of int8 (scale: [N] of each) or of a floating type (antiquant_scale:
  // [N] or [K groups,N]). row_scale: one for each row of x. One x of two dimensions, or one for each group.
  Status Read(Call& call, const Inputs& in, std::vector<Arg>* operands);

  int64_t groups() const { return groups_; }
  int64_t columns() const { return n_; }
  int64_t rows() const { return rows_; }  // of x, all together
  bool split_depth() const { return split_depth_; }
  double flops() const { return 2.0 * static_cast<double>(rows_) * static_cast<double>(k_ * n_); }

  // The groups that have rows, in order; rows of x. With split_depth: columns, and groups without any too.
  Status Ranges(const Run& t, std::vector<GroupRange>* ranges) const;

  // One weight of all groups, while one Plan runs: out of FRACTAL_NZ, 4 bits as int8.
  struct Unpacked {
    Buffer<int8_t> memory;
    TensorView weight;
  };
  Status Unpack(const Run& t, Unpacked* u) const;

  // `to`: [rows of the group, N], or [rows of x, N] with split_depth; of a floating type, int8 or int32.
  Status Multiply(const Run& t, const Unpacked& u, const GroupRange& range, const TensorView& to) const;

 private:
  struct Weight {
    IntegerMatrix numbers;  // of integers; `stored` and the NZ flags count for floats too
    int operand = -1;
  };
  Status ReadX(Call& call, const Inputs& in, std::vector<Arg>* operands);
  Status ReadWeights(Call& call, const Inputs& in, std::vector<Arg>* operands);
  Status ReadGroups(Call& call, const Inputs& in, std::vector<Arg>* operands);
  Status ReadParameter(Call& call, const char* name, Tensors tensors, bool by_depth, GroupedParameter* p,
                       std::vector<Arg>* operands) const;
  Status Resolve(const Run& t, const Weight& w, Unpacked* u) const;
  TensorView RowsOf(const Run& t, const GroupRange& range) const;
  Status MultiplyFloats(const Run& t, const TensorView& x, const TensorView& w, int64_t group,
                        const TensorView& to) const;
  Status MultiplyIntegers(const Run& t, const TensorView& x, const TensorView& w, const GroupRange& range,
                          const TensorView& to) const;

  int64_t groups_ = 0, k_ = 0, n_ = 0, rows_ = 0;
  bool split_depth_ = false, integer_x_ = false, integer_weight_ = false;
  GroupList kind_ = GroupList::kEnds;
  std::vector<int64_t> ends_;  // of a list on the host
  int x_first_ = 0, x_count_ = 0, list_ = -1, row_scale_first_ = -1, row_scale_count_ = 0;
  std::vector<Weight> weights_;  // one, or one for each group
  GroupedParameter bias_, scale_, antiquant_scale_, antiquant_offset_;
};

}  // namespace anycann

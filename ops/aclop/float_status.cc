// The overflow flags of an AI core: eight words, all zero. Arithmetic here gives infinities and NaNs, as a
// card in its INF_NAN mode, in which it sets no flags either.
#include "aclnn_ops.h"
#include "aclop_operators.h"

namespace anycann::aclop {

Status FloatStatus(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(0, 1));
  return aclnn::InplaceZero(call, a.Out(0));
}

Status ClearFloatStatus(Call& call, Arguments& a) {
  return a.Out(0) == nullptr ? call.Nothing() : aclnn::InplaceZero(call, a.Out(0));
}

}  // namespace anycann::aclop

// MlaProlog in GE's table: the aclnn operator, and the caches as outputs that may be the inputs themselves.
#include "aclnn_ops.h"
#include "aclop_operators.h"
#include "ops/aclop/arguments.h"

namespace anycann::aclop {

// token_x, weight_dq, weight_uq_qr, weight_uk, weight_dkv_kr, rmsnorm_gamma_cq, rmsnorm_gamma_ckv, rope_sin,
// rope_cos, cache_index, kv_cache, kr_cache; dequant_scale_x, _w_dq, _w_uq_qr, _w_dkv_kr, quant_scale_ckv,
// quant_scale_ckr, smooth_scales_cq -> query, query_rope, and the caches, which are updated where they are
// too.
Status MlaProlog(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(12, 4));
  const double epsilon_query = a.Number("rmsnorm_epsilon_cq", 1e-5),
               epsilon_key = a.Number("rmsnorm_epsilon_ckv", 1e-5);
  char* mode = a.String(a.Attr("cache_mode", "PA_BSND"));
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return aclnn::MlaProlog(c, a.In(0), a.In(1), a.In(2), a.In(3), a.In(4), a.In(5), a.In(6), a.In(7),
                            a.In(8), a.In(9), a.In(10), a.In(11), a.In(12), a.In(13), a.In(14), a.In(15),
                            a.In(16), a.In(17), a.In(18), epsilon_query, epsilon_key, mode, a.Out(0),
                            a.Out(1));
  }));
  for (size_t i = 0; i < 2; ++i) a.Updated(a.Out(2 + i), a.In(10 + i));
  RETURN_IF_ERROR(a.status());
  return call.Nothing();
}

}  // namespace anycann::aclop

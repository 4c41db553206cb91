// CopyRows: moves elements between two layouts of one shape and type by whole rows, without looking at them.
#pragma once

#include "base/tensor_view.h"

namespace anycann {

// dst = src; types of the same size. False, with nothing done, when one element fills a contiguous dst, or
// dst has no rows: plain block writes are better then.
bool CopyRows(const TensorView& dst, const TensorView& src);

}  // namespace anycann

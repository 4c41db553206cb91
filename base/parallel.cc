#include "base/parallel.h"

namespace anycann {

ThreadPool* ThreadPool::Current() { return nullptr; }
void ThreadPool::Run(int64_t n, int64_t, Body body, void* context) { body(context, 0, n); }

}  // namespace anycann

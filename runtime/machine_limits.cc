#include "runtime/machine_limits.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace anycann {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Best of several short runs: a share of the core that others take must not count as the machine's limit.
double CoreFlops() {
  typedef float Vector __attribute__((vector_size(kLanes * 4)));
  constexpr int kChains = 10, kSteps = 20000;
  double best = 0;
  for (int run = 0; run < 8; ++run) {
    Vector x[kChains], a, b;
    for (int i = 0; i < kLanes; ++i) a[i] = 0.999f, b[i] = 0.001f;
    for (auto& v : x) v = a;
    const int64_t begin = NowNanoseconds();
    for (int i = 0; i < kSteps; ++i) {
      for (auto& v : x) {
#if defined(__AVX512F__)
        asm("vfmadd213ps %2, %1, %0" : "+v"(v) : "v"(a), "v"(b));
#elif defined(__FMA__)
        asm("vfmadd213ps %2, %1, %0" : "+x"(v) : "x"(a), "x"(b));
#else
        v = v * a + b;
#endif
      }
    }
    const auto ns = static_cast<double>(NowNanoseconds() - begin);
    asm volatile("" : : "m"(x));
    best = std::max(best, 2.0 * kLanes * kChains * kSteps / ns * 1e9);
  }
  return best;
}

double CopyRate(int cores) {
  constexpr size_t kBytes = size_t{32} << 20;  // per core, larger than its share of the caches
  std::vector<double> rates(static_cast<size_t>(cores));
  std::vector<std::thread> threads;
  for (double& rate : rates) {
    threads.emplace_back([&rate] {
      char* memory = new (std::nothrow) char[2 * kBytes];
      if (memory == nullptr) return;
      std::memset(memory, 1, 2 * kBytes);
      for (int run = 0; run < 3; ++run) {
        const int64_t begin = NowNanoseconds();
        std::memcpy(memory, memory + kBytes, kBytes);
        const auto ns = static_cast<double>(NowNanoseconds() - begin);
        rate = std::max(rate, 2.0 * static_cast<double>(kBytes) / ns * 1e9);
      }
      delete[] memory;
    });
  }
  for (std::thread& t : threads) t.join();
  double sum = 0;
  for (double rate : rates) sum += rate;
  return sum;
}

}  // namespace

MachineLimits MeasureMachine(int cores) { return {CoreFlops(), CopyRate(cores)}; }

}  // namespace anycann

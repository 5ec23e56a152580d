#pragma once
#include <ATen/Context.h>

namespace spectralquant::tune {

/// Lets matrix products of float32 use the 10-bit mantissas of an accelerator's tensor cores while
/// it lives.
class FastFloatProducts {
 public:
  FastFloatProducts() : before_(at::globalContext().allowTF32CuBLAS()) {
    at::globalContext().setAllowTF32CuBLAS(true);
  }
  ~FastFloatProducts() { at::globalContext().setAllowTF32CuBLAS(before_); }
  FastFloatProducts(const FastFloatProducts&) = delete;
  FastFloatProducts& operator=(const FastFloatProducts&) = delete;

 private:
  bool before_;
};

}  // namespace spectralquant::tune

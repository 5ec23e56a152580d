#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

std::string_view name_of(Method method) {
  switch (method) {
    case Method::kPlain:
      return "plain";
    case Method::kImatrix:
      return "imatrix";
    case Method::kSpectral:
      return "spectral";
  }
  return "";
}

std::string_view name_of(Moments moments) {
  return moments == Moments::kSequential ? "sequential" : "static";
}

}  // namespace spectralquant::pipeline

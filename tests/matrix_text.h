#pragma once
#include <ostream>

#include "spectralquant/gguf/matrix.h"

namespace spectralquant::gguf {

/// So that tests print ids.
inline std::ostream& operator<<(std::ostream& out, const MatrixId& id) { return out << id.text(); }

}  // namespace spectralquant::gguf

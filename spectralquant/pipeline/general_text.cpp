#include "spectralquant/pipeline/general_text.h"

#include <cstddef>

// The assembler copies the file: no compiler reads half a megabyte of constants.
asm(".pushsection .rodata\n"
    ".global spectralquant_general_text\n"
    ".global spectralquant_general_text_end\n"
    "spectralquant_general_text:\n"
    ".incbin \"" SPECTRALQUANT_GENERAL_TEXT
    "\"\n"
    "spectralquant_general_text_end:\n"
    ".byte 0\n"
    ".popsection\n");

extern "C" const char spectralquant_general_text[], spectralquant_general_text_end[];

namespace spectralquant::pipeline {

std::string_view general_text() {
  return {spectralquant_general_text,
          static_cast<std::size_t>(spectralquant_general_text_end - spectralquant_general_text)};
}

}  // namespace spectralquant::pipeline

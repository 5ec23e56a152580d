# Flags every target of the project is built with; linked as spectralquant_flags.
add_library(spectralquant_flags INTERFACE)
target_compile_options(spectralquant_flags INTERFACE -Wall -Wextra -Wno-unused-parameter -ffp-contract=off)
# -ffp-contract=off: the same bits whether or not the CPU has fused multiply-add. -ffast-math is never used.
if(SPECTRALQUANT_UNITY)
  # Its rule is for headers; here GCC takes the files of a room for such.
  target_compile_options(spectralquant_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endif()
if(SPECTRALQUANT_WERROR)
  target_compile_options(spectralquant_flags INTERFACE -Werror)
endif()
if(SPECTRALQUANT_SANITIZE)
  target_compile_options(spectralquant_flags INTERFACE -fsanitize=${SPECTRALQUANT_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(spectralquant_flags INTERFACE -fsanitize=${SPECTRALQUANT_SANITIZE})
endif()

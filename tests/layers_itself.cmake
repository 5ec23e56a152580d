# tests/layers.cmake finds what it should find: a forbidden include in a file of every ending, a
# permission that nothing uses, and printing past the console.
#   cmake -DSOURCE_DIR=... -DWORK_DIR=... -P tests/layers_itself.cmake
cmake_minimum_required(VERSION 3.25)

# Runs layers.cmake as `script` on WORK_DIR and wants it to fail with a message that has `words`.
function(expect_violation script words)
  execute_process(COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${WORK_DIR} -P ${script}
    RESULT_VARIABLE code ERROR_VARIABLE message OUTPUT_QUIET)
  string(REGEX REPLACE "[ \n]+" " " message "${message}")
  string(FIND "${message}" "${words}" at)
  if(code EQUAL 0 OR at EQUAL -1)
    message(FATAL_ERROR "wanted a violation with '${words}', got ${code}: ${message}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK_DIR})
file(COPY ${SOURCE_DIR}/spectralquant DESTINATION ${WORK_DIR})
foreach(ending h inl inc cpp cu)
  file(WRITE ${WORK_DIR}/spectralquant/core/forbidden.${ending} "#include \"spectralquant/cli/verbs.h\"\n")
  expect_violation(${SOURCE_DIR}/tests/layers.cmake "core/forbidden.${ending}: #include")
  file(REMOVE ${WORK_DIR}/spectralquant/core/forbidden.${ending})
endforeach()

file(WRITE ${WORK_DIR}/spectralquant/core/prints.cpp "  fmt::print(\"{}\", name);\n")
expect_violation(${SOURCE_DIR}/tests/layers.cmake "core/prints.cpp: fmt::print")
file(REMOVE ${WORK_DIR}/spectralquant/core/prints.cpp)

file(READ ${SOURCE_DIR}/tests/layers.cmake script)
string(REPLACE "set(core_may \"\")" "set(core_may cli)" script "${script}")
file(WRITE ${WORK_DIR}/layers.cmake "${script}")
expect_violation(${WORK_DIR}/layers.cmake "room core includes nothing of cli")
file(REMOVE_RECURSE ${WORK_DIR})

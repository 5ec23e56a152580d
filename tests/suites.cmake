# Writes the ctest file of one room's test program: a test a suite, so that a program that takes
# half a second to load torch is started once for a suite, which shares its fixture.
#   cmake -DPROGRAM=... -DROOM=... -DOUT=... -P tests/suites.cmake
# The suites of the rooms below take longest, so they begin first: no core waits for the last one.
# Suites whose name begins with Slow carry the label "slow".
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND ${PROGRAM} --gtest_list_tests
  OUTPUT_VARIABLE listing ERROR_VARIABLE problem RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  file(REMOVE ${PROGRAM})  # linked again, and asked again, by the next build
  message(FATAL_ERROR "${PROGRAM} --gtest_list_tests failed: ${code} ${problem}")
endif()

# Suites stand at the beginning of a line and end with a dot; type parameters may follow.
string(REGEX MATCHALL "(^|\n)[A-Za-z0-9_/]+\\.( [^\n]*)?\n" suites "${listing}")
set(script "")
foreach(suite IN LISTS suites)
  string(REGEX REPLACE "^\n?([A-Za-z0-9_/]+)\\..*" "\\1" suite "${suite}")
  set(properties "TIMEOUT 900")
  if(suite MATCHES "^Slow")
    set(properties "TIMEOUT 3000 LABELS slow")
  endif()
  if(ROOM MATCHES "^(pipeline|cli|tune)$")
    string(APPEND properties " COST 1")
  endif()
  # A test runs beside others: threads that wait for work leave the cores to them.
  string(APPEND script "add_test(\"${ROOM}.${suite}\" \"${PROGRAM}\" \"--gtest_filter=${suite}.*\")\n"
    "set_tests_properties(\"${ROOM}.${suite}\" PROPERTIES ${properties} "
    "ENVIRONMENT \"OMP_WAIT_POLICY=passive\")\n")
endforeach()
if(script STREQUAL "")
  message(FATAL_ERROR "${PROGRAM} lists no tests")
endif()
file(WRITE ${OUT} "${script}")

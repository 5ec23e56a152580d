# Finds a type that one program would define twice: the one-definition rule is broken silently, compiler and linker say nothing.
#   cmake -DSOURCE_DIR=... -P tests/one_definition.cmake
# Reads what clang-format makes sure of: what stands in a namespace begins in column 0, and its end is named.
# A type is its name with its namespaces; types of unnamed namespaces belong to their file alone. Files *.inl are not read: their
# namespace is that of the file which includes them.
# With -DTRY_IN=FOLDER it writes two such files there and reads them: that must fail.
cmake_minimum_required(VERSION 3.25)

set(violations "")
set(n_types 0)

# Adds the types that `path` (below SOURCE_DIR) defines. where_NAME holds the file that a type was seen in.
macro(read_types path)
  file(STRINGS "${SOURCE_DIR}/${path}" lines REGEX "^(inline )?namespace .*{|^}.*// namespace|^(struct|class|union|enum) ")
  set(namespaces "")
  foreach(line IN LISTS lines)
    if(line MATCHES "^(inline )?namespace *([A-Za-z0-9_:]*) *{")
      if("${CMAKE_MATCH_2}" STREQUAL "")
        list(APPEND namespaces "(unnamed)")
      else()
        list(APPEND namespaces "${CMAKE_MATCH_2}")
      endif()
    elseif(line MATCHES "^}")
      list(POP_BACK namespaces)
    elseif(NOT namespaces MATCHES "unnamed" AND (NOT line MATCHES ";$" OR line MATCHES "{"))
      string(REGEX MATCH "^(struct|class|union|enum)( class| struct)?( alignas\\([^)]*\\)| \\[\\[[^]]*\\]\\])* +([A-Za-z0-9_:]+(<[^{:]*>)?)" head "${line}")
      list(JOIN namespaces "::" scope)
      set(type "${scope}::${CMAKE_MATCH_4}")
      string(MAKE_C_IDENTIFIER "where_${type}" key)
      math(EXPR n_types "${n_types} + 1")
      if(DEFINED ${key} AND NOT "${${key}}" STREQUAL "${path}")
        string(APPEND violations "  ${type}: ${${key}} and ${path}\n")
      endif()
      set(${key} "${path}")
    endif()
  endforeach()
endmacro()

if(DEFINED TRY_IN)
  set(SOURCE_DIR "${TRY_IN}")
  file(WRITE "${TRY_IN}/spectralquant/room/one.h" "namespace sq::room {\nclass Later;\nstruct Twice {\n  int a;\n};\n}  // namespace sq::room\n")
  file(WRITE "${TRY_IN}/spectralquant/room/two.cpp"
       "namespace sq::room {\nnamespace {\nstruct Own {};\n}  // namespace\nclass Twice final : Base {};\n}  // namespace sq::room\n")
endif()

file(GLOB_RECURSE library RELATIVE "${SOURCE_DIR}" "${SOURCE_DIR}/spectralquant/*.h" "${SOURCE_DIR}/spectralquant/*.cpp"
     "${SOURCE_DIR}/spectralquant/*.cu")
foreach(path IN LISTS library)
  read_types("${path}")
endforeach()

# Each test program holds the library and one room's tests.
file(GLOB rooms RELATIVE "${SOURCE_DIR}/tests" "${SOURCE_DIR}/tests/*")
function(read_tests room)
  file(GLOB tests RELATIVE "${SOURCE_DIR}" "${SOURCE_DIR}/tests/${room}/*.h" "${SOURCE_DIR}/tests/${room}/*.cpp")
  foreach(path IN LISTS tests)
    read_types("${path}")
  endforeach()
  set(violations "${violations}" PARENT_SCOPE)
endfunction()
foreach(room IN LISTS rooms)
  read_tests("${room}")
endforeach()

if(n_types LESS 100 AND NOT DEFINED TRY_IN)
  message(FATAL_ERROR "only ${n_types} types found below ${SOURCE_DIR}/spectralquant")
endif()
if(violations)
  message(FATAL_ERROR "types that are defined twice:\n${violations}")
endif()
message(STATUS "${n_types} types of the library, each defined once")

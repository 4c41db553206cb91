# Unit tests: every *_test.cc beside the code. One program per room and engine (instruction set), made of the engine's
# objects; libs_tests sees only what clients see, the doors.
add_custom_target(unit_tests)
set(test_folder ${CMAKE_BINARY_DIR}/tests)

function(anycann_add_test name sources)
  add_executable(${name} ${sources})
  add_dependencies(${name} anycann_abi)
  add_dependencies(unit_tests ${name})
  target_link_libraries(${name} PRIVATE anycann_flags GTest::gtest GTest::gtest_main ${ARGN})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${test_folder})
endfunction()

foreach(room base runtime ops)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${room}/*_test.cc)
  if(NOT sources)
    continue()
  endif()
  foreach(engine IN LISTS ANYCANN_ENGINES)
    string(REPLACE "anycann" "${room}_tests" name ${engine})
    anycann_add_test(${name} "${sources}" ${engine}_objects)
    # A level above the machine's exits with 77: skipped.
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
  endforeach()
endforeach()

file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/libs/*_test.cc)
if(sources)
  anycann_add_test(libs_tests "${sources}" ascendcl nnopbase opapi acl_op_compiler anycann)
  add_test(NAME libs_tests COMMAND libs_tests)
endif()

# Random arguments for every operator: tools/test.sh fuzz, make fuzz.
add_executable(fuzz tests/faults/fuzz.cc ${ANYCANN_GEN}/fuzz/operators.cc)
add_dependencies(fuzz anycann_abi)
set_source_files_properties(${ANYCANN_GEN}/fuzz/operators.cc PROPERTIES COMPILE_OPTIONS "-O0;-g0")
target_link_libraries(fuzz PRIVATE anycann_flags ascendcl nnopbase opapi)
set_target_properties(fuzz PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${test_folder} EXCLUDE_FROM_ALL TRUE)

# Programs of suites that cross rooms, compiled as a client would be.
file(GLOB fault_programs CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/faults/*.cc)
list(FILTER fault_programs EXCLUDE REGEX "fuzz\\.cc$")
if(NOT ANYCANN_SANITIZE)  # they interpose malloc themselves
  foreach(source IN LISTS fault_programs)
    get_filename_component(name ${source} NAME_WE)
    add_executable(faults_${name} ${source})
    add_dependencies(faults_${name} anycann_abi)
    add_dependencies(unit_tests faults_${name})
    target_include_directories(faults_${name} PRIVATE ${CMAKE_BINARY_DIR}/gen/include)
    target_link_libraries(faults_${name} PRIVATE ascendcl nnopbase opapi ${CMAKE_DL_LIBS})
    set_target_properties(faults_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${test_folder} ENABLE_EXPORTS ON)
    add_test(NAME faults_${name} COMMAND faults_${name})
  endforeach()
endif()

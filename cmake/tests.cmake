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
    # The first engine has the lowest level and no suffix.
    list(GET ANYCANN_LEVELS 0 level)
    if(engine MATCHES "_(v[0-9])$")
      set(level ${CMAKE_MATCH_1})
    endif()
    add_test(NAME ${name} COMMAND ${CMAKE_SOURCE_DIR}/tools/check/at_level.sh ${level} $<TARGET_FILE:${name}>)
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
  endforeach()
endforeach()

file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/libs/*_test.cc)
if(sources)
  anycann_add_test(libs_tests "${sources}" ascendcl nnopbase opapi acl_op_compiler anycann)
  add_test(NAME libs_tests COMMAND libs_tests)
endif()

# tests/faults: programs that see what clients see, and where they need random arguments the generated list of operators.
function(anycann_add_fault_program name)
  add_executable(${name} ${ARGN})
  add_dependencies(${name} anycann_abi)
  target_link_libraries(${name} PRIVATE anycann_flags ascendcl nnopbase opapi ${CMAKE_DL_LIBS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${test_folder} ENABLE_EXPORTS ON)
endfunction()
set(random_arguments tests/faults/source.cc ${ANYCANN_GEN}/fuzz/operators.cc)
set_source_files_properties(${ANYCANN_GEN}/fuzz/operators.cc PROPERTIES COMPILE_OPTIONS "-O0;-g0")

# Random arguments for every operator: tools/test.sh fuzz, make fuzz.
anycann_add_fault_program(fuzz tests/faults/fuzz.cc ${random_arguments})

# Allocations that fail: tools/test.sh allocation. What interposes malloc runs before a sanitizer is ready, so it isn't instrumented.
if(ANYCANN_SANITIZE MATCHES "address")
  set_source_files_properties(tests/faults/failing_memory.cc PROPERTIES COMPILE_OPTIONS
                              "-fno-sanitize=all;-DUNDER_ADDRESS_SANITIZER")
endif()
anycann_add_fault_program(faults_allocation tests/faults/allocation.cc tests/faults/failing_memory.cc)
anycann_add_fault_program(faults_operator_allocation tests/faults/operator_allocation.cc tests/faults/failing_memory.cc
                          ${random_arguments})
target_link_libraries(faults_operator_allocation PRIVATE anycann)
# The list of operators takes long to compile: not with every new operator.
set_target_properties(fuzz faults_operator_allocation PROPERTIES EXCLUDE_FROM_ALL TRUE)
if(NOT ANYCANN_SANITIZE MATCHES "thread")
  foreach(name faults_allocation faults_operator_allocation)
    add_dependencies(unit_tests ${name})
    add_test(NAME ${name} COMMAND ${name})
  endforeach()
endif()

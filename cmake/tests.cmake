# Unit tests: every *_test.cc beside the code, one program per room.
foreach(room base runtime ops libs)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${room}/*_test.cc)
  if(sources)
    add_executable(${room}_tests ${sources})
    add_dependencies(${room}_tests anycann_abi)
    target_link_libraries(${room}_tests PRIVATE anycann_flags anycann ascendcl nnopbase opapi acl_op_compiler GTest::gtest
                                                GTest::gtest_main)
    set_target_properties(${room}_tests PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    add_test(NAME ${room} COMMAND ${room}_tests)
  endif()
endforeach()

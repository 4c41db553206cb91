# The shared objects that clients load: doors over libanycann.so, one folder of hand-written sources each (libs/NAME).
set(ANYCANN_DOORS ascendcl nnopbase opapi acl_op_compiler)
foreach(door IN LISTS ANYCANN_DOORS)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/libs/${door}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  file(CONFIGURE OUTPUT ${ANYCANN_GEN}/doors/${door}/anchor.cc CONTENT "// lib${door}.so\n")
  add_library(${door} SHARED ${sources} ${ANYCANN_GEN}/doors/${door}/anchor.cc)
  add_dependencies(${door} anycann_abi)
  target_link_libraries(${door} PRIVATE anycann_flags anycann)
  set_target_properties(${door} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${ANYCANN_TOOLKIT}/lib64 BUILD_RPATH_USE_ORIGIN ON
                                           INSTALL_RPATH "$ORIGIN" BUILD_WITH_INSTALL_RPATH ON)
endforeach()

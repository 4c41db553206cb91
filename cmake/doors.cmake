# The shared objects that clients load: doors over libanycann.so (abi/doors.tsv). Each is made of
#   libs/NAME/*.cc                 what is written by hand,
#   gen/doors/NAME/stubs.cc        weak answers of required names that nobody has implemented yet,
#   gen/doors/opapi/operators_*.cc the aclnn operators that the engine exports (made after the engine is linked),
# and exports what gen/doors/NAME/exports.map lets through. A new library is one row of abi/doors.tsv.
set(DOOR_DIR ${ANYCANN_TOOLKIT}/lib64)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/abi/doors.tsv)
file(STRINGS ${CMAKE_SOURCE_DIR}/abi/doors.tsv rows)
list(POP_FRONT rows)

set(operator_sources "")
foreach(part RANGE 15)
  string(LENGTH ${part} digits)
  if(digits EQUAL 1)
    set(part 0${part})
  endif()
  list(APPEND operator_sources ${ANYCANN_GEN}/doors/opapi/operators_${part}.cc)
endforeach()
add_custom_command(
  OUTPUT ${operator_sources} ${ANYCANN_GEN}/doors/opapi/implemented.txt ${ANYCANN_GEN}/fuzz/operators.cc
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/abi/generate.py operators $<TARGET_FILE:anycann> ${ANYCANN_GEN}
  DEPENDS anycann ${ANYCANN_ABI_INPUTS} ${ANYCANN_GEN}/tables.stamp
  COMMENT "Operator doors from the engine's symbols")

set(ANYCANN_DOORS "")
foreach(row IN LISTS rows)
  string(REGEX MATCH "^([a-z_]+)\t([a-z_ ]*)\t" ignored "${row}")
  set(door ${CMAKE_MATCH_1})
  string(REPLACE " " ";" needs "${CMAKE_MATCH_2}")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/libs/${door}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  if(door STREQUAL "opapi")
    list(APPEND sources ${operator_sources})
  elseif(door STREQUAL "ascendcl")
    list(APPEND sources ${ANYCANN_GEN}/layout_checks.cc)  # static assertions only
  endif()
  add_library(${door} SHARED ${sources} ${ANYCANN_GEN}/doors/${door}/stubs.cc)
  add_dependencies(${door} anycann_abi)
  # Clients bind names through the closure, so a library that is needed must stay NEEDED although no name of it is used.
  target_link_options(${door} PRIVATE -Wl,--no-as-needed -Wl,--undefined-version
                                         -Wl,--version-script=${ANYCANN_GEN}/doors/${door}/exports.map)
  set_target_properties(${door} PROPERTIES LINK_DEPENDS ${ANYCANN_GEN}/doors/${door}/exports.map
                                           LIBRARY_OUTPUT_DIRECTORY ${DOOR_DIR} BUILD_WITH_INSTALL_RPATH ON
                                           INSTALL_RPATH "$ORIGIN")
  target_link_libraries(${door} PRIVATE anycann_flags anycann ${needs})
  list(APPEND ANYCANN_DOORS ${door})
endforeach()
add_custom_target(doors DEPENDS ${ANYCANN_DOORS})

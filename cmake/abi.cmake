# The contract's tables (abi/*.tsv) -> client headers, aclnn_ops.h, the layout checks and the doors' stubs, under ${CMAKE_BINARY_DIR}/gen.
set(ANYCANN_GEN ${CMAKE_BINARY_DIR}/gen)
file(GLOB ANYCANN_ABI_INPUTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/abi/*.py ${CMAKE_SOURCE_DIR}/abi/*.tsv
     ${CMAKE_SOURCE_DIR}/abi/link/*.txt)
set(ANYCANN_DOOR_FILES "")
file(STRINGS ${CMAKE_SOURCE_DIR}/abi/doors.tsv door_rows)
list(POP_FRONT door_rows)
foreach(row IN LISTS door_rows)
  string(REGEX MATCH "^[a-z_]+" door "${row}")
  list(APPEND ANYCANN_DOOR_FILES ${ANYCANN_GEN}/doors/${door}/stubs.cc ${ANYCANN_GEN}/doors/${door}/exports.map)
endforeach()
add_custom_command(
  OUTPUT ${ANYCANN_GEN}/tables.stamp ${ANYCANN_GEN}/layout_checks.cc ${ANYCANN_GEN}/aclop_operators.cc ${ANYCANN_DOOR_FILES}
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/abi/generate.py tables ${ANYCANN_GEN}
  DEPENDS ${ANYCANN_ABI_INPUTS}
  COMMENT "Headers and the operator interface from abi/*.tsv")
add_custom_target(anycann_abi DEPENDS ${ANYCANN_GEN}/tables.stamp)

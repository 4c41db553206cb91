# The contract's tables (abi/*.tsv) -> client headers, aclnn_ops.h and the layout checks, under ${CMAKE_BINARY_DIR}/gen.
set(ANYCANN_GEN ${CMAKE_BINARY_DIR}/gen)
file(GLOB ANYCANN_ABI_INPUTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/abi/*.py ${CMAKE_SOURCE_DIR}/abi/*.tsv
     ${CMAKE_SOURCE_DIR}/abi/link/*.txt)
add_custom_command(
  OUTPUT ${ANYCANN_GEN}/tables.stamp
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/abi/generate.py tables ${ANYCANN_GEN}
  DEPENDS ${ANYCANN_ABI_INPUTS}
  COMMENT "Headers and the operator interface from abi/*.tsv")
add_custom_target(anycann_abi DEPENDS ${ANYCANN_GEN}/tables.stamp)

# The assembled toolkit: a relocatable tree at ${ANYCANN_TOOLKIT}, laid out as clients expect it.
#   lib64/      the doors, the engine and its glibc-hwcaps variants (engine.cmake, doors.cmake build them there)
#   include/    client headers from the tables; acllib/include is the same, for llama.cpp's CMake
#   bin/        programs: every tools/NAME with a CMakeLists.txt builds into it, every tools/bin/* is copied
#   runtime/ compiler/ opp/   directories and version files that clients look at
#   set_env.sh  environment for programs that weren't started by `anycann run`
# `cmake --install` copies the tree.

# What clients are told the CANN version is: torch_npu picks signatures by it (8.5.0 or later, abi/corrections.tsv),
# and from 9.0.0 on it takes aclnnNorm for every order instead of a legacy operator.
set(ANYCANN_CANN_VERSION 9.0.0)

set(toolkit_files "")
function(anycann_toolkit_file template place)
  configure_file(${CMAKE_SOURCE_DIR}/cmake/toolkit/${template} ${ANYCANN_TOOLKIT}/${place} @ONLY)
endfunction()
anycann_toolkit_file(set_env.sh.in set_env.sh)
anycann_toolkit_file(install.info.in ascend_toolkit_install.info)
foreach(part runtime compiler opp toolkit)
  anycann_toolkit_file(version.info.in ${part}/version.info)
endforeach()
file(MAKE_DIRECTORY ${ANYCANN_TOOLKIT}/bin ${ANYCANN_TOOLKIT}/include ${ANYCANN_TOOLKIT}/acllib
     ${ANYCANN_TOOLKIT}/opp/vendors)
foreach(link acllib/include runtime/include compiler/include)
  file(CREATE_LINK ../include ${ANYCANN_TOOLKIT}/${link} SYMBOLIC)
endforeach()
foreach(link runtime/lib64 compiler/lib64)
  file(CREATE_LINK ../lib64 ${ANYCANN_TOOLKIT}/${link} SYMBOLIC)
endforeach()
file(COPY ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${ANYCANN_TOOLKIT})

add_custom_command(
  OUTPUT ${ANYCANN_GEN}/toolkit_headers.stamp
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${ANYCANN_TOOLKIT}/include
  COMMAND ${CMAKE_COMMAND} -E copy_directory ${ANYCANN_GEN}/include ${ANYCANN_TOOLKIT}/include
  COMMAND ${CMAKE_COMMAND} -E touch ${ANYCANN_GEN}/toolkit_headers.stamp
  DEPENDS ${ANYCANN_GEN}/tables.stamp
  COMMENT "Client headers into the toolkit")
add_custom_target(toolkit_headers ALL DEPENDS ${ANYCANN_GEN}/toolkit_headers.stamp)

# Programs. A tools/NAME/CMakeLists.txt sees ANYCANN_BIN as the place for what it builds.
set(ANYCANN_BIN ${ANYCANN_TOOLKIT}/bin)
file(GLOB tool_lists CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/*/CMakeLists.txt)
foreach(list_file IN LISTS tool_lists)
  get_filename_component(tool_dir ${list_file} DIRECTORY)
  add_subdirectory(${tool_dir})
endforeach()
file(GLOB tool_scripts CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/bin/*)
foreach(script IN LISTS tool_scripts)
  get_filename_component(name ${script} NAME)
  add_custom_command(OUTPUT ${ANYCANN_BIN}/${name} COMMAND ${CMAKE_COMMAND} -E copy ${script} ${ANYCANN_BIN}/${name}
                     DEPENDS ${script})
  list(APPEND toolkit_files ${ANYCANN_BIN}/${name})
endforeach()
add_custom_target(toolkit_programs ALL DEPENDS ${toolkit_files})

# The exported lists, from what was built: review the difference and commit it.
add_custom_target(symbols
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/abi/generate.py symbols ${DOOR_DIR}
  DEPENDS doors)

install(DIRECTORY ${ANYCANN_TOOLKIT}/ DESTINATION . USE_SOURCE_PERMISSIONS)

# bin/: the anycann command and npu-smi.
file(GLOB ANYCANN_COMMAND_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/anycann/*.cc)
add_executable(anycann_command ${ANYCANN_COMMAND_SOURCES})
add_dependencies(anycann_command anycann_abi)
target_include_directories(anycann_command PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/gen/include)
target_compile_options(anycann_command PRIVATE -Wall -Wextra -Werror)
target_compile_definitions(anycann_command PRIVATE ANYCANN_VERSION="${PROJECT_VERSION}")
target_link_libraries(anycann_command PRIVATE ascendcl anycann fmt::fmt CLI11::CLI11 nlohmann_json::nlohmann_json ${CMAKE_DL_LIBS})
set_target_properties(anycann_command PROPERTIES OUTPUT_NAME anycann RUNTIME_OUTPUT_DIRECTORY ${ANYCANN_TOOLKIT}/bin
                                                 BUILD_RPATH_USE_ORIGIN ON INSTALL_RPATH "$ORIGIN/../lib64"
                                                 BUILD_WITH_INSTALL_RPATH ON)
add_custom_command(TARGET anycann_command POST_BUILD
                   COMMAND ${CMAKE_COMMAND} -E create_symlink anycann ${ANYCANN_TOOLKIT}/bin/npu-smi)

# libanycann.so: base, runtime and ops, compiled once per x86-64 level. The loader's glibc-hwcaps directories choose:
# lib64/glibc-hwcaps/x86-64-v4/libanycann.so before lib64/glibc-hwcaps/x86-64-v3 before lib64/libanycann.so.
file(GLOB_RECURSE ANYCANN_ENGINE_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/base/*.cc ${CMAKE_SOURCE_DIR}/runtime/*.cc
     ${CMAKE_SOURCE_DIR}/ops/*.cc)
list(FILTER ANYCANN_ENGINE_SOURCES EXCLUDE REGEX "_(test|benchmark)\\.cc$")

set(ANYCANN_ENGINES "")
function(anycann_add_engine target level march)
  add_library(${target} SHARED ${ANYCANN_ENGINE_SOURCES})
  add_dependencies(${target} anycann_abi)
  target_compile_options(${target} PRIVATE -march=${march})
  target_compile_definitions(${target} PRIVATE ANYCANN_LEVEL="${level}")
  target_link_libraries(${target} PUBLIC anycann_flags fmt::fmt Threads::Threads PRIVATE DNNL::dnnl nlohmann_json::nlohmann_json
                                         ${CMAKE_DL_LIBS})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME anycann)
endfunction()

# The lowest level is the link-time target `anycann`; the others lie in hwcaps directories beside it.
list(GET ANYCANN_LEVELS 0 first)
foreach(level IN LISTS ANYCANN_LEVELS)
  if(level STREQUAL "native")
    set(march native)
  else()
    set(march x86-64-${level})
  endif()
  if(level STREQUAL first)
    anycann_add_engine(anycann ${level} ${march})
    set_target_properties(anycann PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${ANYCANN_TOOLKIT}/lib64)
  else()
    anycann_add_engine(anycann_${level} ${level} ${march})
    set_target_properties(anycann_${level} PROPERTIES LIBRARY_OUTPUT_DIRECTORY
                                                      ${ANYCANN_TOOLKIT}/lib64/glibc-hwcaps/x86-64-${level})
  endif()
endforeach()

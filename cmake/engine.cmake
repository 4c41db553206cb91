# libanycann.so: base, runtime and ops, compiled once per x86-64 level. The loader's glibc-hwcaps directories choose:
# lib64/glibc-hwcaps/x86-64-v4/libanycann.so before lib64/glibc-hwcaps/x86-64-v3 before lib64/libanycann.so.
file(GLOB_RECURSE ANYCANN_ENGINE_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/base/*.cc ${CMAKE_SOURCE_DIR}/runtime/*.cc
     ${CMAKE_SOURCE_DIR}/ops/*.cc)
list(FILTER ANYCANN_ENGINE_SOURCES EXCLUDE REGEX "_(test|benchmark)\\.cc$")
list(APPEND ANYCANN_ENGINE_SOURCES ${ANYCANN_GEN}/aclop_operators.cc)  # legacy operators, from abi/aclop.tsv

# Objects first: the library is made of them, and so are the unit tests, which see what the library hides.
function(anycann_add_engine target level march)
  add_library(${target}_objects OBJECT ${ANYCANN_ENGINE_SOURCES})
  add_dependencies(${target}_objects anycann_abi)
  target_compile_options(${target}_objects PUBLIC -march=${march})
  target_compile_definitions(${target}_objects PRIVATE ANYCANN_LEVEL="${level}")
  target_link_libraries(${target}_objects PUBLIC anycann_flags fmt::fmt Threads::Threads
                                                 nlohmann_json::nlohmann_json ${CMAKE_DL_LIBS})
  add_library(${target} SHARED)
  target_link_libraries(${target} PRIVATE ${target}_objects PUBLIC anycann_flags fmt::fmt Threads::Threads)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME anycann LINKER_LANGUAGE CXX)
endfunction()

# The lowest level is the link-time target `anycann`; the others lie in hwcaps directories beside it, where the loader
# finds them. levels/NAME is for `anycann run --isa NAME`, which puts that folder first.
list(GET ANYCANN_LEVELS 0 first)
set(ANYCANN_ENGINES "")
foreach(level IN LISTS ANYCANN_LEVELS)
  set(target anycann)
  set(folder ${ANYCANN_TOOLKIT}/lib64)
  if(NOT level STREQUAL first)
    set(target anycann_${level})
    set(folder ${ANYCANN_TOOLKIT}/lib64/glibc-hwcaps/x86-64-${level})
  endif()
  set(march x86-64-${level})
  if(level STREQUAL "native")
    set(march native)
  endif()
  anycann_add_engine(${target} ${level} ${march})
  set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${folder})
  list(APPEND ANYCANN_ENGINES ${target})
  file(RELATIVE_PATH relative ${ANYCANN_TOOLKIT}/lib64/levels/${level} ${folder}/libanycann.so)
  file(MAKE_DIRECTORY ${ANYCANN_TOOLKIT}/lib64/levels/${level})
  file(CREATE_LINK ${relative} ${ANYCANN_TOOLKIT}/lib64/levels/${level}/libanycann.so SYMBOLIC)
endforeach()

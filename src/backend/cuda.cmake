# The CUDA plug-in: built wherever nvcc is found, loaded at run time (src/backend/make_backend.cpp). The executable itself links
# no CUDA library, so it starts on machines without a driver.
if(SEINE_CUDA STREQUAL "OFF")
  return()
endif()

find_program(SEINE_NVCC nvcc HINTS ENV CUDACXX PATHS /usr/local/cuda/bin)
if(SEINE_NVCC AND NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${SEINE_NVCC})
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # Machine code for A100 and Hopper, and PTX for what comes later. Never `native`: build machines often have no GPU.
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "CUDA architectures of the plug-in")
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(SEINE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SEINE_CUDA is ON but there is no nvcc (PATH, CUDACXX, /usr/local/cuda/bin)")
  endif()
  message(STATUS "CUDA plug-in: not built, there is no nvcc")
  return()
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12)
  if(SEINE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SEINE_CUDA is ON but nvcc ${CMAKE_CUDA_COMPILER_VERSION} does not know C++20; 12.0 does")
  endif()
  message(STATUS "CUDA plug-in: not built, nvcc ${CMAKE_CUDA_COMPILER_VERSION} does not know C++20")
  return()
endif()
message(STATUS "CUDA plug-in: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
if(CMAKE_VERSION VERSION_LESS 3.25.2)  # does not know how nvcc spells C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()

# NCCL is loaded at run time, too; of it only the header is needed here.
find_path(SEINE_NCCL_INCLUDE_DIR nccl.h HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
if(SEINE_NCCL_INCLUDE_DIR)
  set(seine_nccl_source src/backend/cuda/nccl.cpp)
  set(seine_nccl "with NCCL")
else()
  set(seine_nccl_source src/backend/cuda/no_nccl.cpp)
  set(seine_nccl "without NCCL")
  message(STATUS "CUDA plug-in: no nccl.h (SEINE_NCCL_INCLUDE_DIR), so rows of other ranks will go through the host")
endif()

add_library(seine_cuda MODULE ${seine_nccl_source}
  src/backend/cuda/cublas.cpp
  src/backend/cuda/backend.cu
  src/backend/cuda/coverage.cu
  src/backend/cuda/moments.cu
  src/backend/cuda/rows.cu
  src/backend/cuda/rules.cu
  src/backend/cuda/selection.cu)
target_link_libraries(seine_cuda PRIVATE seine_flags ${CMAKE_DL_LIBS})
if(SEINE_NCCL_INCLUDE_DIR)
  target_include_directories(seine_cuda SYSTEM PRIVATE
    ${SEINE_NCCL_INCLUDE_DIR} ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
endif()
string(REPLACE ";" " " seine_cuda_architectures "${CMAKE_CUDA_ARCHITECTURES}")
target_compile_definitions(seine_cuda PRIVATE
  SEINE_VERSION="${PROJECT_VERSION}"
  SEINE_CUDA_BUILD="CUDA ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${seine_cuda_architectures}, ${seine_nccl}")
# Contraction off: a fused operation happens where it is written and nowhere else, as on the host.
target_compile_options(seine_cuda PRIVATE
  "$<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;SHELL:-Xcompiler -Wall,-Wextra,-ffp-contract=off>"
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${SEINE_WERROR}>>:SHELL:-Werror all-warnings>)
set_target_properties(seine_cuda PROPERTIES
  CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_RUNTIME_LIBRARY Static
  CUDA_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_dependencies(seine seine_cuda)  # who builds the program has both
install(TARGETS seine_cuda LIBRARY DESTINATION lib/seine)

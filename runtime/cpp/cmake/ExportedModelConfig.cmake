# find_package(ExportedModel CONFIG) → the target ExportedModel::ExportedModel: headers, what they need, and this
# project's own operators (runtime/kernels).
#
# Works as it lies in an installed Python package (`python -m runtime --cmake-dir` prints this folder) and as
# `cmake --install` places it. Needs:
# - libtorch: see ExportedModelLibtorch.cmake;
# - nlohmann-json: its own CMake package, or the header of the pip package nlohmann-json in the Python at
#   Python3_EXECUTABLE (or python3).
#
# Options:
# - EXPORTED_MODEL_NATIVE=OFF: without the operators. Artifacts of the backend `native` then need
#   Options::native_library. By default they are compiled with your program, against your libtorch, as the shared library
#   of the target exported_model_native; install it beside the program. EM_NATIVE_HIGHEST=avx2 compiles those for AVX2
#   alone, in a quarter of the time.
# - EXPORTED_MODEL_NATIVE_LIBRARY=file: links this ready-made library instead, built for the same minor release of
#   libtorch (`python -m runtime --native-library` prints the one of the Python package).
cmake_minimum_required(VERSION 3.18)

if(TARGET ExportedModel::ExportedModel)
  return()
endif()

option(EXPORTED_MODEL_NATIVE "compile this project's own operators, for artifacts of the backend native" ON)
set(EXPORTED_MODEL_NATIVE_LIBRARY "" CACHE FILEPATH "a library of these operators to link instead of compiling them")

include("${CMAKE_CURRENT_LIST_DIR}/ExportedModelLibtorch.cmake")

find_path(ExportedModel_INCLUDE_DIR exported_model/session.h
  PATHS "${CMAKE_CURRENT_LIST_DIR}/../include" "${CMAKE_CURRENT_LIST_DIR}/../../../include"
        "${CMAKE_CURRENT_LIST_DIR}/../../../../include" NO_DEFAULT_PATH)
find_path(ExportedModel_KERNELS_DIR register.cpp
  PATHS "${CMAKE_CURRENT_LIST_DIR}/../../kernels" "${CMAKE_CURRENT_LIST_DIR}/kernels" NO_DEFAULT_PATH)

find_package(nlohmann_json CONFIG QUIET)
if(NOT nlohmann_json_FOUND)
  find_path(ExportedModel_JSON_INCLUDE nlohmann/json.hpp)
  if(NOT ExportedModel_JSON_INCLUDE)
    _exported_model_python_folder(nlohmann_json "/include" _json)
    find_path(ExportedModel_JSON_INCLUDE nlohmann/json.hpp PATHS "${_json}" NO_DEFAULT_PATH)
  endif()
endif()
find_package(Threads REQUIRED)

set(_missing "")
if(NOT ExportedModel_INCLUDE_DIR)
  string(APPEND _missing " its own headers beside ${CMAKE_CURRENT_LIST_DIR};")
endif()
if(NOT TARGET ExportedModel::libtorch)
  string(APPEND _missing " libtorch (give -DTORCH_ROOT=folder, or -DPython3_EXECUTABLE=a Python that has torch);")
endif()
if(NOT nlohmann_json_FOUND AND NOT ExportedModel_JSON_INCLUDE)
  string(APPEND _missing " nlohmann-json (pip install nlohmann-json, or your system's package);")
endif()
if(EXPORTED_MODEL_NATIVE_LIBRARY AND NOT EXISTS "${EXPORTED_MODEL_NATIVE_LIBRARY}")
  string(APPEND _missing " EXPORTED_MODEL_NATIVE_LIBRARY, ${EXPORTED_MODEL_NATIVE_LIBRARY} (unset it: it is compiled);")
elseif(EXPORTED_MODEL_NATIVE AND NOT ExportedModel_KERNELS_DIR)
  string(APPEND _missing " the sources of the native operators beside ${CMAKE_CURRENT_LIST_DIR};")
endif()
if(_missing)
  set(ExportedModel_FOUND FALSE)
  set(ExportedModel_NOT_FOUND_MESSAGE "not found:${_missing}")
  return()
endif()

add_library(ExportedModel::ExportedModel INTERFACE IMPORTED)
target_compile_features(ExportedModel::ExportedModel INTERFACE cxx_std_17)
target_include_directories(ExportedModel::ExportedModel INTERFACE "${ExportedModel_INCLUDE_DIR}")
target_link_libraries(ExportedModel::ExportedModel INTERFACE ExportedModel::libtorch Threads::Threads ${CMAKE_DL_LIBS})
if(nlohmann_json_FOUND)
  target_link_libraries(ExportedModel::ExportedModel INTERFACE nlohmann_json::nlohmann_json)
else()
  target_include_directories(ExportedModel::ExportedModel SYSTEM INTERFACE "${ExportedModel_JSON_INCLUDE}")
endif()

# The operators. EXPORTED_MODEL_NATIVE_LINKED makes the headers call a function of the library, so that the linker keeps
# it (environment.h).
set(_native "")
if(EXPORTED_MODEL_NATIVE_LIBRARY)
  set(_native ExportedModel::native)
  add_library(${_native} SHARED IMPORTED)
  set_target_properties(${_native} PROPERTIES
    IMPORTED_LOCATION "${EXPORTED_MODEL_NATIVE_LIBRARY}" IMPORTED_NO_SONAME ON)
elseif(EXPORTED_MODEL_NATIVE AND NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  message(STATUS "ExportedModel: without the native operators, which are for x86-64")
elseif(EXPORTED_MODEL_NATIVE AND ExportedModel_TORCH_VERSION VERSION_LESS 2.8)
  message(STATUS "ExportedModel: without the native operators, which need libtorch 2.8 or newer")
elseif(EXPORTED_MODEL_NATIVE)
  set(_native exported_model_native)
  if(NOT TARGET ${_native})
    add_subdirectory("${ExportedModel_KERNELS_DIR}" "${CMAKE_BINARY_DIR}/exported_model_native")
  endif()
endif()
if(_native)
  target_link_libraries(ExportedModel::ExportedModel INTERFACE ${_native})
  target_compile_definitions(ExportedModel::ExportedModel INTERFACE EXPORTED_MODEL_NATIVE_LINKED)
endif()
set(ExportedModel_FOUND TRUE)

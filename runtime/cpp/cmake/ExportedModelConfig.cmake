# find_package(ExportedModel CONFIG) → the target ExportedModel::ExportedModel: headers alone, and what they need.
#
# Works as it lies in an installed Python package (`python -m runtime --cmake-dir` prints this folder) and as
# `cmake --install` places it. Needs:
# - libtorch: a download, or the torch that pip installed, CPU or CUDA build. Looked for in TORCH_ROOT, then in
#   CMAKE_PREFIX_PATH, then in the Python at Python3_EXECUTABLE (or python3). It is taken by path: find_package(Torch)
#   asks for a CUDA toolkit when torch is a CUDA build, although nothing here uses CUDA.
# - nlohmann-json: its own CMake package, or the header of the pip package nlohmann-json in that Python.
cmake_minimum_required(VERSION 3.18)

if(TARGET ExportedModel::ExportedModel)
  return()
endif()

# A folder in that Python's site-packages, found without importing anything; empty if there is none.
function(_exported_model_python_folder package inner result)
  if(NOT Python3_EXECUTABLE)
    find_program(Python3_EXECUTABLE NAMES python3 python)
  endif()
  set(found "")
  if(Python3_EXECUTABLE)
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -c
        "import importlib.util, pathlib; spec = importlib.util.find_spec('${package}'); print(pathlib.Path(spec.origin).parent if spec else '', end='')"
      # Python looks into the current folder first; this one holds no Python.
      WORKING_DIRECTORY "${CMAKE_CURRENT_LIST_DIR}"
      OUTPUT_VARIABLE found ERROR_QUIET)
  endif()
  if(found)
    set(found "${found}${inner}")
  endif()
  set(${result} "${found}" PARENT_SCOPE)
endfunction()

find_path(ExportedModel_INCLUDE_DIR exported_model/session.h
  PATHS "${CMAKE_CURRENT_LIST_DIR}/../include" "${CMAKE_CURRENT_LIST_DIR}/../../../include"
        "${CMAKE_CURRENT_LIST_DIR}/../../../../include" NO_DEFAULT_PATH)

find_path(ExportedModel_TORCH_INCLUDE torch/script.h HINTS ${TORCH_ROOT} PATH_SUFFIXES include)
if(NOT ExportedModel_TORCH_INCLUDE)
  _exported_model_python_folder(torch "" _torch)
  find_path(ExportedModel_TORCH_INCLUDE torch/script.h PATHS "${_torch}/include" NO_DEFAULT_PATH)
endif()
get_filename_component(_torch_root "${ExportedModel_TORCH_INCLUDE}/.." ABSOLUTE)
find_library(ExportedModel_TORCH_CPU torch_cpu PATHS "${_torch_root}/lib" NO_DEFAULT_PATH)
find_library(ExportedModel_C10 c10 PATHS "${_torch_root}/lib" NO_DEFAULT_PATH)

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
if(NOT ExportedModel_TORCH_INCLUDE OR NOT ExportedModel_TORCH_CPU OR NOT ExportedModel_C10)
  string(APPEND _missing " libtorch (give -DTORCH_ROOT=folder, or -DPython3_EXECUTABLE=a Python that has torch);")
endif()
if(NOT nlohmann_json_FOUND AND NOT ExportedModel_JSON_INCLUDE)
  string(APPEND _missing " nlohmann-json (pip install nlohmann-json, or your system's package);")
endif()
if(_missing)
  set(ExportedModel_FOUND FALSE)
  set(ExportedModel_NOT_FOUND_MESSAGE "not found:${_missing}")
  return()
endif()

add_library(ExportedModel::ExportedModel INTERFACE IMPORTED)
target_compile_features(ExportedModel::ExportedModel INTERFACE cxx_std_17)
target_include_directories(ExportedModel::ExportedModel INTERFACE "${ExportedModel_INCLUDE_DIR}")
# As system headers: torch's warnings are not the user's to mend.
target_include_directories(ExportedModel::ExportedModel SYSTEM INTERFACE
  "${ExportedModel_TORCH_INCLUDE}" "${ExportedModel_TORCH_INCLUDE}/torch/csrc/api/include")
target_link_libraries(ExportedModel::ExportedModel INTERFACE
  "${ExportedModel_TORCH_CPU}" "${ExportedModel_C10}" Threads::Threads ${CMAKE_DL_LIBS})
if(nlohmann_json_FOUND)
  target_link_libraries(ExportedModel::ExportedModel INTERFACE nlohmann_json::nlohmann_json)
else()
  target_include_directories(ExportedModel::ExportedModel SYSTEM INTERFACE "${ExportedModel_JSON_INCLUDE}")
endif()

# Which of the two ABIs of std::string torch was built with: older builds for pip had the old one, and say so.
set(_config "${_torch_root}/share/cmake/Torch/TorchConfig.cmake")
if(EXISTS "${_config}")
  file(STRINGS "${_config}" _abi REGEX "_GLIBCXX_USE_CXX11_ABI=[01]")
  if(_abi MATCHES "_GLIBCXX_USE_CXX11_ABI=([01])")
    target_compile_definitions(ExportedModel::ExportedModel INTERFACE _GLIBCXX_USE_CXX11_ABI=${CMAKE_MATCH_1})
  endif()
endif()
set(ExportedModel_FOUND TRUE)

# include(ExportedModelLibtorch) → the target ExportedModel::libtorch; none if libtorch is not found.
#
# libtorch is a download, or the torch that pip installed, CPU or CUDA build. It is looked for in TORCH_ROOT, then in
# CMAKE_PREFIX_PATH, then in the Python at Python3_EXECUTABLE (or python3), and taken by path: find_package(Torch) asks
# for a CUDA toolkit when torch is a CUDA build, although nothing here uses CUDA. ExportedModel_TORCH_VERSION is its
# version, such as 2.8, if the headers tell.
if(TARGET ExportedModel::libtorch)
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
      WORKING_DIRECTORY "${CMAKE_CURRENT_FUNCTION_LIST_DIR}"
      OUTPUT_VARIABLE found ERROR_QUIET)
  endif()
  if(found)
    set(found "${found}${inner}")
  endif()
  set(${result} "${found}" PARENT_SCOPE)
endfunction()

find_path(ExportedModel_TORCH_INCLUDE torch/script.h HINTS ${TORCH_ROOT} PATH_SUFFIXES include)
if(NOT ExportedModel_TORCH_INCLUDE)
  _exported_model_python_folder(torch "" _torch)
  find_path(ExportedModel_TORCH_INCLUDE torch/script.h PATHS "${_torch}/include" NO_DEFAULT_PATH)
endif()
get_filename_component(_torch_root "${ExportedModel_TORCH_INCLUDE}/.." ABSOLUTE)
find_library(ExportedModel_TORCH_CPU torch_cpu PATHS "${_torch_root}/lib" NO_DEFAULT_PATH)
find_library(ExportedModel_C10 c10 PATHS "${_torch_root}/lib" NO_DEFAULT_PATH)
if(NOT ExportedModel_TORCH_INCLUDE OR NOT ExportedModel_TORCH_CPU OR NOT ExportedModel_C10)
  return()
endif()

set(ExportedModel_TORCH_VERSION "")
# Where newer and older releases have it.
foreach(_header headeronly/version.h csrc/api/include/torch/version.h)
  set(_header "${ExportedModel_TORCH_INCLUDE}/torch/${_header}")
  if(NOT ExportedModel_TORCH_VERSION AND EXISTS "${_header}")
    file(STRINGS "${_header}" _numbers REGEX "^#define TORCH_VERSION_(MAJOR|MINOR) +[0-9]+")
    if(_numbers MATCHES "MAJOR +([0-9]+);.*MINOR +([0-9]+)")
      set(ExportedModel_TORCH_VERSION "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}")
    endif()
  endif()
endforeach()

add_library(ExportedModel::libtorch INTERFACE IMPORTED)
# As system headers: torch's warnings are not the user's to mend.
target_include_directories(ExportedModel::libtorch SYSTEM INTERFACE
  "${ExportedModel_TORCH_INCLUDE}" "${ExportedModel_TORCH_INCLUDE}/torch/csrc/api/include")
target_link_libraries(ExportedModel::libtorch INTERFACE "${ExportedModel_TORCH_CPU}" "${ExportedModel_C10}")

# Which of the two ABIs of std::string torch was built with: older builds for pip had the old one, and say so.
set(_config "${_torch_root}/share/cmake/Torch/TorchConfig.cmake")
if(EXISTS "${_config}")
  file(STRINGS "${_config}" _abi REGEX "_GLIBCXX_USE_CXX11_ABI=[01]")
  if(_abi MATCHES "_GLIBCXX_USE_CXX11_ABI=([01])")
    target_compile_definitions(ExportedModel::libtorch INTERFACE _GLIBCXX_USE_CXX11_ABI=${CMAKE_MATCH_1})
  endif()
endif()

# libtorch: Debian's libtorch-dev, or PyTorch's own (-DCMAKE_PREFIX_PATH=$(python3 -c 'import torch; print(torch.utils.cmake_prefix_path)')).
# Its own flags (-std, -D_GLIBCXX_USE_CXX11_ABI) come with the target torch_library.
find_package(Torch REQUIRED)
add_library(spectralquant_torch INTERFACE)
target_include_directories(spectralquant_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(spectralquant_torch INTERFACE ${TORCH_LIBRARIES})
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(spectralquant_torch INTERFACE ${torch_flags})

# A libtorch with CUDA: the solver's kernels are built for the GPUs of this machine, or for those named.
if(TARGET torch_cuda)
  set(SPECTRALQUANT_CUDA ON)
  set(SPECTRALQUANT_CUDA_ARCHITECTURES native CACHE STRING "CUDA architectures, such as 80;90")
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  target_link_libraries(spectralquant_torch INTERFACE CUDA::cudart)
endif()

# Headers that c10d's own need to connect processes: Gloo's (Debian: libgloo-dev) and NCCL's, which PyTorch's wheels lay beside torch.
find_path(GLOO_INCLUDE gloo/rendezvous/store.h)
find_path(NCCL_INCLUDE nccl.h HINTS ${TORCH_INSTALL_PREFIX}/../nvidia/nccl/include ${TORCH_INSTALL_PREFIX}/../nvidia/cu13/include)
foreach(include IN ITEMS ${GLOO_INCLUDE} ${NCCL_INCLUDE})
  if(IS_DIRECTORY "${include}")
    target_include_directories(spectralquant_torch SYSTEM INTERFACE ${include})
  endif()
endforeach()

# install() of the binary, libraries and headers, and the package that find_package(spectralquant) reads.
include(CMakePackageConfigHelpers)

set(targets spectralquant_base spectralquant_flags)
if(SPECTRALQUANT_ENGINE)
  list(APPEND targets spectralquant_engine spectralquant_torch)
  install(TARGETS spectralquant RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
endif()
install(TARGETS ${targets} EXPORT spectralquantTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY spectralquant/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/spectralquant FILES_MATCHING PATTERN "*.h" PATTERN "cli" EXCLUDE)
install(FILES ${PROJECT_BINARY_DIR}/generated/spectralquant/core/version.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/spectralquant/core)
install(EXPORT spectralquantTargets NAMESPACE spectralquant:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/spectralquant)
configure_package_config_file(cmake/spectralquantConfig.cmake.in ${PROJECT_BINARY_DIR}/spectralquantConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/spectralquant)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/spectralquantConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/spectralquantConfig.cmake ${PROJECT_BINARY_DIR}/spectralquantConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/spectralquant)

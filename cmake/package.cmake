# The Debian package of the program alone, made by tools/package.sh.
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/spectralquant RENAME copyright COMPONENT program)
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/spectralquant COMPONENT program)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL program)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_CONTACT "the SpectralQuant authors <spectralquant@localhost>")
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME spectralquant)
set(CPACK_DEBIAN_PROGRAM_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)  # libtorch, libfmt and others, as the binary needs them
set(CPACK_DEBIAN_PROGRAM_PACKAGE_DEPENDS libopenblas0-pthread)  # looked up at run time
set(CPACK_COMPONENT_PROGRAM_DESCRIPTION "Turns a BF16, F16 or F32 language-model GGUF into one in which every matrix is Q4_K.")
include(CPack)

# The assembled toolkit at ${ANYCANN_TOOLKIT} and `cmake --install`.

// ANYCANN_API marks what the doors (libs/) and tests use of the engine; everything else of libanycann.so is
// hidden.
#pragma once
#define ANYCANN_API __attribute__((visibility("default")))

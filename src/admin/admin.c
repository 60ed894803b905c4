#include "base/compiler.h"

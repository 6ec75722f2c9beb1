// All of the library: exported_model::Session (session.h), exported_model::Generator (generator.h), golden cases
// (golden.h), errors (errors.h).
#pragma once

#include <exported_model/generator.h>
#include <exported_model/golden.h>
#include <exported_model/session.h>

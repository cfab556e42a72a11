/* Positions of the functions that are used, by the own declaration or, with IGPT_ORT_HEADER, by the official header. */
#include "ort_api.h"

#include <stddef.h>

#define NAME(function) #function,
#define POSITION(function) offsetof(OrtApi, function) / sizeof(void *),

#ifdef IGPT_ORT_HEADER
const size_t igpt_official_positions[] = {IGPT_ORT_FUNCTIONS(POSITION)};
const size_t igpt_official_count = sizeof igpt_official_positions / sizeof *igpt_official_positions;
#else
const char *const igpt_own_names[] = {IGPT_ORT_FUNCTIONS(NAME)};
const size_t igpt_own_positions[] = {IGPT_ORT_FUNCTIONS(POSITION)};
const size_t igpt_own_count = sizeof igpt_own_positions / sizeof *igpt_own_positions;
#endif

/* Libraries that are not the ONNX Runtime one hopes for.
 *
 * FAKE 0: another library. 1: a release that is too old for the API. 2: the one of IGPT_ORT_LIBRARY under an older
 * name. */
#include "ort_api.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#if FAKE == 0
int nothing(void);
int nothing(void) {
  return 0;
}
#else
const OrtApiBase *OrtGetApiBase(void);

static const OrtApi *get_api(uint32_t version) {
#if FAKE == 2
  void *library = dlopen(getenv("IGPT_ORT_LIBRARY"), RTLD_NOW | RTLD_LOCAL),
       *symbol = library ? dlsym(library, "OrtGetApiBase") : NULL;
  const OrtApiBase *(*base)(void);
  memcpy(&base, &symbol, sizeof base);
  return base ? base()->GetApi(version) : NULL;
#else
  return (void)version, NULL;
#endif
}

static const char *get_version(void) {
  return FAKE == 2 ? "1.18.0" : "1.10.0";
}

const OrtApiBase *OrtGetApiBase(void) {
  static const OrtApiBase base = {get_api, get_version};
  return &base;
}
#endif

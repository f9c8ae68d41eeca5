// What the libraries of native.py and amx.py share: memory, and the frame of a custom call of XLA.

#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "xla/ffi/api/c_api.h"

#define INLINE static inline __attribute__((always_inline))

namespace {

constexpr int MOST_LAYERS = 16;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Seconds that this thread has computed.
inline double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

struct Shape {
  int64_t photos, height, width;
};

// Memory that a thread keeps, with huge pages where the system has them.
class Scratch {
  void *data = nullptr;
  int64_t size = 0;

 public:
  template <typename Value>
  Value *get(int64_t count) {
    const int64_t bytes = count * int64_t(sizeof(Value));
    if (bytes <= size) return static_cast<Value *>(data);
    free(data);
    size = 0;
    data = aligned_alloc(1 << 21, up(bytes, 1 << 21));
    if (!data) return nullptr;
#ifdef MADV_HUGEPAGE
    madvise(data, up(bytes, 1 << 21), MADV_HUGEPAGE);
#endif
    size = bytes;
    return static_cast<Value *>(data);
  }
  ~Scratch() { free(data); }
};

// What XLA calls with photos [N, H, W, C], then a packed kernel and a bias for each layer, for the last layer's output. The
// attribute is a number whose bit i says whether layer i pools. `Layer` begins with inputs, outputs, pool, kernel, bias.
template <typename Layer, typename Value>
XLA_FFI_Error *answer(XLA_FFI_CallFrame *call, bool (*forward)(const Layer *, int64_t, const Value *, Shape, Value *)) {
  if (call->extension_start && call->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata *metadata = reinterpret_cast<XLA_FFI_Metadata_Extension *>(call->extension_start)->metadata;
    metadata->api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};
    metadata->traits = 0;
    return nullptr;
  }
  auto buffer = [](void *one) { return static_cast<XLA_FFI_Buffer *>(one); };
  auto values = [&](void *one) { return static_cast<Value *>(buffer(one)->data); };
  const int64_t pools = *static_cast<int64_t *>(static_cast<XLA_FFI_Scalar *>(call->attrs.attrs[0])->value);
  const XLA_FFI_Buffer *x = buffer(call->args.args[0]);
  const int64_t count = (call->args.size - 1) / 2;
  Layer layers[MOST_LAYERS] = {};
  for (int64_t i = 0, inputs = x->dims[3]; i < count; inputs = layers[i++].outputs) {
    void **given = call->args.args + 1 + 2 * i;
    layers[i] = {inputs, buffer(given[1])->dims[0], pools >> i & 1, values(given[0]), values(given[1])};
  }
  const Shape of = {x->dims[0], x->dims[1], x->dims[2]};
  if (forward(layers, count, values(call->args.args[0]), of, values(call->rets.rets[0]))) return nullptr;
  XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, nullptr, "the convolutions found no memory",
                                     XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
  return call->api->XLA_FFI_Error_Create(&error);
}

}  // namespace

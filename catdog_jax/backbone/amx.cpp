// VGG16's convolutions in bfloat16 on the tile registers of one CPU thread (Intel's AMX): a custom call of XLA, for amx.py.
//
// A convolution is nine products, one for each tap, of the same pixels moved by some places. So that these are plain
// strides, photos lie in memory as one long line of places: each row of pixels, then one place of zeros, and after each
// photo a row of zeros; on either side of a pixel, above and below are then its neighbours or zeros. What is computed at
// the places of zeros is left out. 32 channels of all places are a plane, so that a register's 16 rows touch each other.
//
// Four registers hold the sums of 32 places x 32 outputs; two more hold places, two kernels. For the places of a band,
// 64 inputs at a time, whose kernels fit the first-level cache; the sums wait in the second. Sums are float32, and are
// rounded to bfloat16 after bias, pooling and ReLU. Calls share constants alone; a thread keeps its memory until it ends.

#include "custom_call.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)

#include <errno.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

typedef uint16_t bfloat;

constexpr int64_t TILE = 16, DEPTH = 32, WIDTH = 32, PLACES = 32;  // rows and inputs of a register; outputs and places of sums
constexpr int64_t CHUNK = 64, BAND = 448;  // inputs whose kernels stay in the first-level cache; places whose sums do in the second
constexpr int64_t TOGETHER_FROM = 512;  // outputs of the first layer that takes all photos together: its kernels are large
constexpr int64_t ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;  // of Linux's asm/prctl.h, since 5.16

struct Layer {
  int64_t inputs, outputs, pool;
  const bfloat *kernel, *bias;  // the kernel as `amx.transform_kernel` makes it

  bool pixels() const { return inputs < DEPTH; }  // so few that a product takes all nine taps
};

// Where the pixels of some photos lie, with zeros around them.
struct Line {
  int64_t photos, height, width;

  explicit Line(Shape of) : photos(of.photos), height(of.height), width(of.width) {}
  int64_t row() const { return width + 1; }
  int64_t photo() const { return (height + 1) * row(); }
  int64_t start() const { return row() + 1; }
  int64_t end() const { return start() + photos * photo(); }
  int64_t places() const { return end() + 2 * PLACES + start(); }  // the last sums of a band read further than the end

  void clear(bfloat *plane, int64_t channels) const {
    const auto zero = [=](int64_t from, int64_t to) { memset(plane + from * channels, 0, (to - from) * channels * sizeof(bfloat)); };
    zero(0, start());
    for (int64_t at = start() + width, y = 0; at < end(); at += row(), y = (y + 1) % (height + 1))
      y == height ? zero(at - width, at + 1) : zero(at, at + 1);
    zero(end(), places());
  }
};

// Where a layer's output goes: into planes of places, or, of the last layer, where XLA wants it.
struct Target {
  bfloat *first;
  int64_t pixel, row, photo, plane;  // from one to the next
};

thread_local Scratch activations, sums_and_patches;

Shape after(const Layer &layer, Shape of) {
  return layer.pool ? Shape{of.photos, of.height / 2, of.width / 2} : of;
}

INLINE void load_sums(const float *sums) {
  _tile_loadd(0, sums, 4 * WIDTH);
  _tile_loadd(1, sums + TILE, 4 * WIDTH);
  _tile_loadd(2, sums + TILE * WIDTH, 4 * WIDTH);
  _tile_loadd(3, sums + TILE * WIDTH + TILE, 4 * WIDTH);
}

INLINE void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

INLINE void store_sums(float *sums) {
  _tile_stored(0, sums, 4 * WIDTH);
  _tile_stored(1, sums + TILE, 4 * WIDTH);
  _tile_stored(2, sums + TILE * WIDTH, 4 * WIDTH);
  _tile_stored(3, sums + TILE * WIDTH + TILE, 4 * WIDTH);
}

// PLACES places x DEPTH inputs times [outputs / TILE][DEPTH / 2][TILE][2].
INLINE void add_products(const bfloat *places, const bfloat *kernel) {
  _tile_loadd(4, places, 2 * DEPTH);
  _tile_loadd(6, kernel, 4 * TILE);
  _tile_loadd(7, kernel + DEPTH * TILE, 4 * TILE);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_loadd(5, places + TILE * DEPTH, 2 * DEPTH);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// A band of `count` places times the kernels of WIDTH outputs, [inputs / DEPTH][tap] as `add_products` takes them.
template <int TAPS>
void multiply(const bfloat *places, int64_t count, int64_t inputs, int64_t row, int64_t plane, const bfloat *kernel, float *sums) {
  for (int64_t from = 0; from < inputs; from += CHUNK, places += CHUNK / DEPTH * plane, kernel += TAPS * CHUNK * WIDTH)
    for (int64_t p = 0; p < count; p += PLACES) {
      const bfloat *a = places + p * DEPTH, *b = kernel;
      from ? load_sums(sums + p * WIDTH) : clear_sums();
      for (int64_t i = from; i < least(from + CHUNK, inputs); i += DEPTH, a += plane)
#pragma GCC unroll 9
        for (int tap = 0; tap < TAPS; tap++, b += DEPTH * WIDTH)
          add_products(TAPS == 1 ? a : a + ((tap / 3 - 1) * row + tap % 3 - 1) * DEPTH, b);
      store_sums(sums + p * WIDTH);
    }
}

// The nine neighbours of each place beside each other, for a product of one tap: [count][DEPTH].
template <int INPUTS>
void gather(const bfloat *places, int64_t count, int64_t row, bfloat *patches) {
  for (int64_t p = 0; p < count; p++, places += INPUTS, patches += DEPTH) {
    memset(patches, 0, DEPTH * sizeof(bfloat));
    for (int i = 0; i < 3; i++)
      memcpy(patches + 3 * i * INPUTS, places + ((i - 1) * row - 1) * INPUTS, 3 * INPUTS * sizeof(bfloat));
  }
}

INLINE __m512 widened(const bfloat *values) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)values)), 16));
}

INLINE __m512 pooled(const float *sum, int64_t below) {
  const __m512 above = _mm512_max_ps(_mm512_loadu_ps(sum), _mm512_loadu_ps(sum + WIDTH));
  return _mm512_max_ps(above, _mm512_max_ps(_mm512_loadu_ps(sum + below), _mm512_loadu_ps(sum + below + WIDTH)));
}

// Sums of whole rows of one photo into WIDTH channels of its output.
void finish(const float *sums, int64_t row, int64_t height, int64_t width, bool pool, const bfloat *bias, bfloat *to, const Target &of) {
  const __m512 low = widened(bias), high = widened(bias + TILE), zero = _mm512_setzero_ps();
  const int64_t step = pool ? 2 : 1;
  for (int64_t y = 0; y + step <= height; y += step, to += of.row)
    for (int64_t x = 0; x + step <= width; x += step) {
      const float *sum = sums + (y * row + x) * WIDTH;
      const __m512 a = pool ? pooled(sum, row * WIDTH) : _mm512_loadu_ps(sum);
      const __m512 b = pool ? pooled(sum + TILE, row * WIDTH) : _mm512_loadu_ps(sum + TILE);
      const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_max_ps(zero, b + high), _mm512_max_ps(zero, a + low));
      memcpy(to + x / step * of.pixel, &both, sizeof both);
    }
}

bool convolve(const Layer &layer, const bfloat *x, Shape of, const Target &to) {
  const Line in(of);
  const int64_t rows = BAND / in.row() > 2 ? BAND / in.row() / 2 * 2 : 2;  // even, so that pairs to be pooled stay together
  const int64_t photos = rows > of.height ? rows / (of.height + 1) : 1, high = least(rows, of.height);
  const int64_t most = up(photos > 1 ? photos * in.photo() : high * in.row(), PLACES);
  const int64_t inputs = layer.pixels() ? layer.inputs : DEPTH;  // of a plane
  float *sums = sums_and_patches.get<float>(most * WIDTH + (layer.pixels() ? most * DEPTH / 2 : 0));
  if (!sums) return false;
  bfloat *patches = reinterpret_cast<bfloat *>(sums + most * WIDTH);
  for (int64_t n = 0; n < of.photos; n += photos)
    for (int64_t y = 0; y < of.height; y += high) {
      const int64_t together = least(photos, of.photos - n), lines = least(high, of.height - y);
      const int64_t count = together > 1 ? together * in.photo() : lines * in.row();
      const bfloat *places = x + (in.start() + n * in.photo() + y * in.row()) * inputs;
      if (layer.pixels())
        (inputs == 3 ? gather<3> : inputs == 2 ? gather<2> : gather<1>)(places, up(count, PLACES), in.row(), patches);
      for (int64_t k = 0; k < layer.outputs; k += WIDTH) {
        if (layer.pixels()) multiply<1>(patches, count, DEPTH, 0, 0, layer.kernel + DEPTH * k, sums);
        else multiply<9>(places, count, layer.inputs, in.row(), in.places() * DEPTH, layer.kernel + 9 * layer.inputs * k, sums);
        for (int64_t i = 0; i < together; i++)
          finish(sums + i * in.photo() * WIDTH, in.row(), lines, of.width, layer.pool, layer.bias + k,
                 to.first + (n + i) * to.photo + (layer.pool ? y / 2 : y) * to.row + k / WIDTH * to.plane, to);
      }
    }
  return true;
}

Target planes(bfloat *memory, const Line &line, int64_t depth = DEPTH) {
  return {memory + line.start() * depth, depth, line.row() * depth, line.photo() * depth, line.places() * depth};
}

Target moved(Target to, int64_t photos) {
  to.first += photos * to.photo;
  return to;
}

// A photo's pixels, as XLA has them, into planes.
void lay_out(const bfloat *x, Shape of, int64_t channels, const Target &to) {
  for (int64_t c = 0; c < channels; c += to.pixel)
    for (int64_t y = 0; y < of.height; y++) {
      const bfloat *from = x + y * of.width * channels + c;
      bfloat *first = to.first + c / to.pixel * to.plane + y * to.row;
      if (to.pixel == channels) memcpy(first, from, of.width * channels * sizeof(bfloat));
      else
        for (int64_t p = 0; p < of.width; p++) memcpy(first + p * to.pixel, from + p * channels, to.pixel * sizeof(bfloat));
    }
}

void clear(bfloat *memory, const Line &line, int64_t channels) {
  for (int64_t c = 0; c < channels; c += DEPTH, memory += line.places() * DEPTH) line.clear(memory, least(channels, DEPTH));
}

// Layers one after the other, from places of zeros and pixels; `spare` has room for two outputs. The seconds of each are
// added to `spent`, unless that is null.
bool run(const Layer *layers, int64_t count, const bfloat *x, Shape of, const Target &to, bfloat *spare, int64_t room,
         double *spent) {
  for (int64_t i = 0; i < count; i++) {
    const double begun = spent ? now() : 0;
    const Shape next = after(layers[i], of);
    bfloat *between = spare + i % 2 * room;
    const bool last = i == count - 1;
    if (!last) clear(between, Line(next), layers[i].outputs);
    if (!convolve(layers[i], x, of, last ? to : planes(between, Line(next)))) return false;
    x = between, of = next;
    if (spent) spent[i] += now() - begun;
  }
  return true;
}

// Registers of 16 rows of 64 bytes.
void configure_tiles() {
  struct __attribute__((packed)) {
    uint8_t palette = 1, zeros[15] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } tiles;
  _tile_loadconfig(&tiles);
}

// The first layers photo by photo, so that their large outputs stay in the cache; the others on all photos together.
bool forward(const Layer *layers, int64_t count, const bfloat *x, Shape of, bfloat *y, double *spent) {
  int64_t alone = 0, room = 0, shared_room = 0;
  const Shape one = {1, of.height, of.width};
  Shape middle = one, last = of;
  for (int64_t i = 0; i < count; i++) {
    last = after(layers[i], last);
    const Shape single = {1, last.height, last.width};
    int64_t &largest = alone == i && layers[i].outputs < TOGETHER_FROM ? room : shared_room;
    if (&largest == &room) alone++, middle = single;
    const int64_t size = Line(&largest == &room ? single : last).places() * layers[i].outputs;
    largest = size > largest ? size : largest;
  }
  const Line photo(one), shared(alone ? Shape{of.photos, middle.height, middle.width} : of);
  const int64_t few = layers[0].inputs, depth = least(few, DEPTH), channels = alone ? layers[alone - 1].outputs : few;
  const int64_t pixels = up(photo.places() * few, DEPTH), between = alone < count ? up(shared.places() * channels, DEPTH) : 0;
  bfloat *memory = activations.get<bfloat>(pixels + between + 2 * (room + shared_room));
  if (!memory) return false;
  bfloat *half = memory + pixels, *spare = half + between;
  const Target out = {y, layers[count - 1].outputs, last.width * layers[count - 1].outputs,
                      last.height * last.width * layers[count - 1].outputs, WIDTH};
  configure_tiles();
  clear(memory, photo, few);
  if (alone < count) clear(half, shared, channels);
  bool done = true;
  for (int64_t n = 0; n < of.photos && done; n++) {
    lay_out(x + n * of.height * of.width * few, one, few, alone ? planes(memory, photo, depth) : moved(planes(half, shared, depth), n));
    if (!alone) continue;
    done = run(layers, alone, memory, one, moved(alone == count ? out : planes(half, shared), n), spare, room, spent);
  }
  if (done && alone < count)
    done = run(layers + alone, count - alone, half, {of.photos, middle.height, middle.width}, out, spare + 2 * room, shared_room,
               spent ? spent + alone : nullptr);
  _tile_release();
  return done;
}

}  // namespace

extern "C" {

// Multiply-adds a second of products whose operands stay in the first-level cache, for the benchmark.
double catdog_peak() {
  alignas(64) static thread_local bfloat places[PLACES * DEPTH], kernel[DEPTH * WIDTH];
  static thread_local float sums[PLACES * WIDTH];
  for (int64_t i = 0; i < PLACES * DEPTH; i++) places[i] = kernel[i] = uint16_t(0x3f80 + i % 64);  // zeros take less power
  configure_tiles();
  clear_sums();
  const int times = 40000;
  const double begun = now();
  for (int i = 0; i < times; i++) add_products(places, kernel);
  const double took = now() - begun;
  store_sums(sums);
  _tile_release();
  return double(times) * PLACES * DEPTH * WIDTH / took;
}

// Asks the system for the registers, once for all threads of the process: 0 where they are granted, else its error.
int64_t catdog_ask() { return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) ? errno : 0; }

// Some layers, given by the fields of Layer; the seconds of each are added to `spent`. Returns 0 where memory is lacking.
int catdog_time(const bfloat *x, int64_t photos, int64_t height, int64_t width, const Layer *layers, int64_t count, bfloat *y,
                double *spent) {
  return forward(layers, count, x, {photos, height, width}, y, spent);
}

XLA_FFI_Error *catdog_forward(XLA_FFI_CallFrame *call) {
  return answer<Layer, bfloat>(call, [](const Layer *layers, int64_t count, const bfloat *x, Shape of, bfloat *y) {
    return forward(layers, count, x, of, y, nullptr);
  });
}
}

#else

extern "C" {

double catdog_peak() { return 0; }

int catdog_time() { return 0; }

int64_t catdog_ask() { return -1; }  // the compiler or the processor has no such registers

XLA_FFI_Error *catdog_forward(XLA_FFI_CallFrame *) { return nullptr; }
}

#endif

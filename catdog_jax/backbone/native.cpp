// VGG16's convolutions as Winograd products in float32 on one CPU thread: a custom call of XLA, for native.py.
//
// For a block of tiles that fits the caches: transform the inputs; then, for WIDTH outputs at a time, multiply by the
// kernels of each pair of points, and transform back into the output, with bias, pooling and ReLU on the way. Calls share
// constants alone; a thread keeps its scratch memory until it ends.

#include <string.h>

#include "winograd_points.h"

namespace {

constexpr int64_t TOGETHER_FROM = 512;  // outputs of the first layer that takes all photos together: its kernels are large
// Of a block: more would fall out of the second-level cache, and fewer read the large kernels too often.
INLINE int64_t tiles_at_once(int64_t inputs) { return inputs < 512 ? 14 : 28; }

struct Layer {
  int64_t inputs, outputs, pool;
  const float *kernel, *bias;  // the kernel as `winograd_pack` makes it

  bool direct() const { return inputs % LANES != 0; }  // too few channels to gain
};

struct Tile {
  int64_t photo, y, x;
  int64_t row[4];  // its place among the tiles that use a pair of points, by the class of the pair
  bool tall, broad;  // 6 outputs along y, along x
};

struct Seconds {
  double input, products, output;
};

INLINE int class_of(int pair) { return (pair / SIX >= FOUR) + 2 * (pair % SIX >= FOUR); }

thread_local Scratch activations, blocks;

// Tiles of one axis: sixes, then fours, with the fewest points.
struct Axis {
  int64_t sixes = 0, fours = 0;

  explicit Axis(int64_t length) {
    for (int64_t n = 0, cost = INT64_MAX; n < 3; n++) {
      int64_t m = length > 4 * n ? (length - 4 * n + 5) / 6 : 0;
      if (SIX * m + FOUR * n < cost) cost = SIX * m + FOUR * n, sixes = m, fours = n;
    }
  }
  int64_t tiles() const { return sixes + fours; }
  int64_t start(int64_t i) const { return i < sixes ? 6 * i : 6 * sixes + 4 * (i - sixes); }
};

// One tile's inputs into rows of `tiles`: [pair][row / ROWS][channel / LANES][row % ROWS][LANES].
template <int TALL, int BROAD>
INLINE void transform_input(const float *const *pixels, int64_t channels, float *const *to) {
  for (int64_t c = 0; c < channels; c += LANES) {
    vec half[PAIRS], d[SIX], r[SIX];
    for (int j = 0; j < BROAD; j++) {
      UNROLL for (int i = 0; i < TALL; i++) d[i] = at(pixels[i * SIX + j] + c);
      input_points<TALL>(d, r);
      UNROLL for (int i = 0; i < TALL; i++) half[i * SIX + j] = r[i];
    }
    for (int i = 0; i < TALL; i++) {
      input_points<BROAD>(half + i * SIX, r);
      UNROLL for (int j = 0; j < BROAD; j++) at(to[i * SIX + j] + c * ROWS) = r[j];
    }
  }
}

void tile_input(const Tile &t, const float *x, Shape of, int64_t channels, const float *zeros, float *tiles, int64_t stride) {
  const float *pixels[PAIRS];
  float *to[PAIRS];
  for (int i = 0; i < PAIRS; i++) {
    int64_t y = t.y - 1 + i / SIX, column = t.x - 1 + i % SIX, row = t.row[class_of(i)];
    bool inside = y >= 0 && y < of.height && column >= 0 && column < of.width;
    pixels[i] = inside ? x + ((t.photo * of.height + y) * of.width + column) * channels : zeros;
    to[i] = tiles + i * stride + row / ROWS * ROWS * channels + row % ROWS * LANES;
  }
  auto transform = t.tall ? t.broad ? transform_input<SIX, SIX> : transform_input<SIX, FOUR>
                          : t.broad ? transform_input<FOUR, SIX> : transform_input<FOUR, FOUR>;
  transform(pixels, channels, to);
}

// One tile's products into WIDTH channels of `high` x `across` pixels.
template <int TALL, int BROAD>
INLINE void transform_output(const float *const *from, const float *bias, bool pool, float *y, int64_t high, int64_t across,
                             int64_t line, int64_t outputs) {
  for (int v = 0; v < WIDTH; v += LANES) {
    vec half[(SIX - 2) * SIX], out[36], m[SIX], r[SIX];
    for (int j = 0; j < BROAD; j++) {
      UNROLL for (int i = 0; i < TALL; i++) m[i] = at(from[i * SIX + j] + v);
      output_points<TALL>(m, r);
      UNROLL for (int i = 0; i < TALL - 2; i++) half[i * SIX + j] = r[i];
    }
    for (int i = 0; i < TALL - 2; i++) output_points<BROAD>(half + i * SIX, out + i * 6);
    for (int i = 0; i < high; i++)
      for (int j = 0; j < across; j++) {
        const vec *o = out + (pool ? 2 : 1) * (6 * i + j);
        vec value = pool ? larger(larger(o[0], o[1]), larger(o[6], o[7])) : o[0];
        at(y + i * line + j * outputs + v) = larger(vec{}, value + at(bias + v));
      }
  }
}

void tile_output(const Tile &t, const float *products, int64_t stride, const Layer &layer, int64_t k, float *y, Shape of) {
  const float *from[PAIRS];
  for (int i = 0; i < PAIRS; i++) from[i] = products + i * stride + t.row[class_of(i)] * WIDTH;
  int64_t step = layer.pool ? 2 : 1, height = of.height / step, width = of.width / step;
  int64_t high = least((t.tall ? 6 : 4) / step, height - t.y / step);
  int64_t across = least((t.broad ? 6 : 4) / step, width - t.x / step);
  y += ((t.photo * height + t.y / step) * width + t.x / step) * layer.outputs + k;
  auto transform = t.tall ? t.broad ? transform_output<SIX, SIX> : transform_output<SIX, FOUR>
                          : t.broad ? transform_output<FOUR, SIX> : transform_output<FOUR, FOUR>;
  transform(from, layer.bias + k, layer.pool, y, high, across, width * layer.outputs, layer.outputs);
}

// ROWS_ tiles, as `transform_input` leaves them, times the kernels of one pair of points, [inputs][WIDTH].
template <int ROWS_>
void multiply(const float *tiles, const float *kernel, int64_t inputs, float *products) {
  vec sum[ROWS_][VECTORS] = {};
  for (int64_t c = 0; c < inputs; c += LANES, tiles += ROWS * LANES)
    for (int l = 0; l < LANES; l++, kernel += WIDTH) {
      UNROLL for (int r = 0; r < ROWS_; r++)
        UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] += tiles[r * LANES + l] * at(kernel + v * LANES);
    }
  UNROLL for (int r = 0; r < ROWS_; r++)
    UNROLL for (int v = 0; v < VECTORS; v++) at(products + r * WIDTH + v * LANES) = sum[r][v];
}

// Neighbouring pixels of the first layer, straight from three lines with a margin.
template <int PIXELS>
void convolve_pixels(const float *lines, int64_t line, int64_t inputs, const float *kernel, const float *bias, float *y,
                     int64_t outputs) {
  vec sum[PIXELS][VECTORS];
  UNROLL for (int r = 0; r < PIXELS; r++)
    UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = at(bias + v * LANES);
  for (int i = 0; i < 3; i++, lines += line)
    for (int64_t tap = 0; tap < 3 * inputs; tap++, kernel += WIDTH) {
      UNROLL for (int r = 0; r < PIXELS; r++)
        UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] += lines[r * inputs + tap] * at(kernel + v * LANES);
    }
  UNROLL for (int r = 0; r < PIXELS; r++)
    UNROLL for (int v = 0; v < VECTORS; v++) at(y + r * outputs + v * LANES) = larger(vec{}, sum[r][v]);
}

template <int MOST = ROWS>
INLINE void multiply_rows(int64_t rows, const float *tiles, const float *kernel, int64_t inputs, float *products) {
  if constexpr (MOST > 1)
    if (rows < MOST) return multiply_rows<MOST - 1>(rows, tiles, kernel, inputs, products);
  multiply<MOST>(tiles, kernel, inputs, products);
}

template <int MOST = ROWS>
INLINE void convolve_line(int64_t pixels, const float *lines, int64_t line, const Layer &layer, int64_t k, float *y) {
  if constexpr (MOST > 1)
    if (pixels < MOST) return convolve_line<MOST - 1>(pixels, lines, line, layer, k, y);
  convolve_pixels<MOST>(lines, line, layer.inputs, layer.kernel + 9 * layer.inputs * k, layer.bias + k, y, layer.outputs);
}

// Adds the time since the last call to a phase.
struct Clock {
  double last;

  explicit Clock(bool runs) : last(runs ? now() : 0) {}
  void lap(double *phase) {
    if (!phase) return;
    const double end = now();
    *phase += end - last, last = end;
  }
};

bool convolve(const Layer &layer, const float *x, Shape of, float *y, Seconds *spent) {
  const Axis down(of.height), across(of.width);
  const int64_t total = of.photos * down.tiles() * across.tiles(), at_once = tiles_at_once(layer.inputs), parts = (total + at_once - 1) / at_once;
  const int64_t most = parts ? up((total + parts - 1) / parts, ROWS) : 0;
  const int64_t stride = most * layer.inputs + LANES, out_stride = most * WIDTH + LANES;  // no power of two
  float *tiles = blocks.get<float>(PAIRS * (stride + out_stride) + layer.inputs + most * int64_t(sizeof(Tile) / sizeof(float)));
  if (!tiles) return false;
  float *products = tiles + PAIRS * stride, *zeros = products + PAIRS * out_stride;
  Tile *block = reinterpret_cast<Tile *>(zeros + layer.inputs);
  memset(zeros, 0, layer.inputs * sizeof(float));
  Clock clock(spent);
  for (int64_t first = 0; first < total; first += most) {
    int64_t rows[4] = {};
    const int64_t count = least(most, total - first);
    for (int64_t i = 0; i < count; i++) {
      const int64_t tx = (first + i) % across.tiles(), ty = (first + i) / across.tiles() % down.tiles();
      const bool tall = ty < down.sixes, broad = tx < across.sixes;
      block[i] = {(first + i) / across.tiles() / down.tiles(), down.start(ty), across.start(tx),
                  {rows[0], rows[1], rows[2], rows[3]}, tall, broad};
      rows[0]++, rows[1] += tall, rows[2] += broad, rows[3] += tall && broad;
      tile_input(block[i], x, of, layer.inputs, zeros, tiles, stride);
    }
    clock.lap(spent ? &spent->input : nullptr);
    for (int64_t k = 0; k < layer.outputs; k += WIDTH) {
      for (int i = 0; i < PAIRS; i++)
        for (int64_t r = 0, n = rows[class_of(i)]; r < n; r += ROWS)
          multiply_rows(n - r, tiles + i * stride + r * layer.inputs, layer.kernel + (k * PAIRS + i * WIDTH) * layer.inputs,
                        layer.inputs, products + i * out_stride + r * WIDTH);
      clock.lap(spent ? &spent->products : nullptr);
      for (int64_t i = 0; i < count; i++) tile_output(block[i], products, out_stride, layer, k, y, of);
      clock.lap(spent ? &spent->output : nullptr);
    }
  }
  return true;
}

bool convolve_directly(const Layer &layer, const float *x, Shape of, float *y, Seconds *spent) {
  const int64_t of_line = of.width * layer.inputs, line = of_line + 2 * layer.inputs;
  float *lines = blocks.get<float>(3 * line);
  if (!lines) return false;
  Clock clock(spent);
  for (int64_t row = 0; row < of.photos * of.height; row++) {
    memset(lines, 0, 3 * line * sizeof(float));
    for (int64_t i = 0; i < 3; i++)
      if (row % of.height + i >= 1 && row % of.height + i <= of.height)
        memcpy(lines + i * line + layer.inputs, x + (row + i - 1) * of_line, of_line * sizeof(float));
    for (int64_t c = 0; c < of.width; c += ROWS)
      for (int64_t k = 0; k < layer.outputs; k += WIDTH)
        convolve_line(of.width - c, lines + c * layer.inputs, line, layer, k, y + (row * of.width + c) * layer.outputs + k);
  }
  clock.lap(spent ? &spent->products : nullptr);
  return true;
}

Shape after(const Layer &layer, Shape of) {
  return layer.pool ? Shape{of.photos, of.height / 2, of.width / 2} : of;
}

// Layers one after the other; `spare` has room for two outputs.
bool run(const Layer *layers, int64_t count, const float *x, Shape of, float *y, float *spare, int64_t room, Seconds *spent) {
  for (int64_t i = 0; i < count; i++) {
    float *to = i == count - 1 ? y : spare + i % 2 * room;
    if (!(layers[i].direct() ? convolve_directly : convolve)(layers[i], x, of, to, spent ? spent + i : nullptr)) return false;
    x = to, of = after(layers[i], of);
  }
  return true;
}

// The first layers photo by photo, so that their large outputs stay in the cache; the others on all photos together.
bool forward(const Layer *layers, int64_t count, const float *x, Shape of, float *y, Seconds *spent) {
  int64_t alone = 0, room = 0, shared_room = 0;
  Shape one = {1, of.height, of.width}, middle = one;
  for (int64_t i = 0; i < count; i++) {
    one = after(layers[i], one);
    const int64_t size = one.height * one.width * layers[i].outputs;
    if (alone == i && layers[i].outputs < TOGETHER_FROM) alone++, middle = one, room = size > room ? size : room;
    else shared_room = size > shared_room ? size : shared_room;
  }
  const int64_t from = of.height * of.width * layers[0].inputs;
  const int64_t between = alone ? middle.height * middle.width * layers[alone - 1].outputs : 0;
  float *spare = activations.get<float>(2 * room + of.photos * (between + 2 * shared_room));
  if (!spare) return false;
  float *half = alone == count ? y : spare + 2 * room;
  for (int64_t i = 0; alone && i < of.photos; i++)
    if (!run(layers, alone, x + i * from, {1, of.height, of.width}, half + i * between, spare, room, spent)) return false;
  if (alone == count) return true;
  middle.photos = of.photos;
  return run(layers + alone, count - alone, alone ? half : x, middle, y, half + of.photos * between, of.photos * shared_room,
             spent ? spent + alone : nullptr);
}

// float32 [3, 3, inputs, outputs] -> [outputs / WIDTH][pair of points, or tap][inputs][WIDTH].
void pack(const float *kernel, int64_t inputs, int64_t outputs, float *packed) {
  const bool direct = Layer{inputs, outputs, 0, nullptr, nullptr}.direct();
  const int count = direct ? 9 : PAIRS;
  for (int64_t k = 0; k < outputs; k += LANES)
    for (int64_t c = 0; c < inputs; c++) {
      wide g[9], rows[SIX * 3], u[PAIRS];
      for (int i = 0; i < 9; i++)
        for (int l = 0; l < LANES; l++) g[i][l] = kernel[(i * inputs + c) * outputs + k + l];
      for (int j = 0; j < 3; j++) kernel_points(g + j, 3, rows + j, 3);
      for (int i = 0; i < SIX; i++) kernel_points(rows + 3 * i, 1, u + SIX * i, 1);
      float *to = packed + k / WIDTH * WIDTH * count * inputs + c * WIDTH + k % WIDTH;
      for (int i = 0; i < count; i++)
        for (int l = 0; l < LANES; l++) to[i * inputs * WIDTH + l] = float(direct ? g[i][l] : u[i][l]);
    }
}

}  // namespace

extern "C" {

int64_t catdog_width() { return WIDTH; }

int64_t catdog_packed(int64_t inputs, int64_t outputs) {
  return (Layer{inputs, outputs, 0, nullptr, nullptr}.direct() ? 9 : PAIRS) * inputs * outputs;
}

void catdog_pack(const float *kernel, int64_t inputs, int64_t outputs, float *packed) {
  pack(kernel, inputs, outputs, packed);
}

// One layer; the seconds of its three phases are added to `spent`, unless that is null. Returns 0 where memory is lacking.
int catdog_convolve(const float *x, int64_t photos, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int64_t pool,
                    const float *kernel, const float *bias, float *y, double *spent) {
  const Layer layer = {inputs, outputs, pool, kernel, bias};
  return forward(&layer, 1, x, {photos, height, width}, y, reinterpret_cast<Seconds *>(spent));
}

// Multiply-adds a second of products whose operands stay in the first-level cache, for the benchmark.
double catdog_peak() {
  alignas(64) static thread_local float tiles[ROWS * 64], kernel[64 * WIDTH], sums[ROWS * WIDTH];
  const int times = 20000;
  const double begun = now();
  for (int i = 0; i < times; i++) multiply<ROWS>(tiles, kernel, 64, sums);
  return double(times) * ROWS * 64 * WIDTH / (now() - begun);
}

XLA_FFI_Error *catdog_forward(XLA_FFI_CallFrame *call) {
  return answer<Layer, float>(call, [](const Layer *layers, int64_t count, const float *x, Shape of, float *y) {
    return forward(layers, count, x, of, y, nullptr);
  });
}
}
